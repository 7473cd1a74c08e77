"""A rig that is simulated in real time and recorded: what was stored, how late, and whether it is right."""

from __future__ import annotations

import hashlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pynwb

from nwbflow.errors import ErrorKind, VerifyError
from nwbflow.model.data import Array
from nwbflow.nwb.live import live
from nwbflow.nwb.recorded import Ticket
from nwbflow.nwb.recorder import Recorder
from nwbflow.observe.hub import Progress

BLOCK_SECONDS = 0.02
"""How much of the probe comes at a time, as from an acquisition card."""

FRAME_RATE = 30.0
"""Camera frames per second."""

# Run in a process of its own, with nothing of nwbflow or PyNWB in it: what it reads, any h5py reads.
_READER = """
import hashlib, json, sys
import h5py
found = {}
with h5py.File(sys.argv[1], "r") as file:
    for name in sys.argv[2:]:
        data, digest = file[name], hashlib.sha256()
        for row in range(0, data.shape[0], data.chunks[0]):
            digest.update(data[row : row + data.chunks[0]].tobytes())
        found[name] = [digest.hexdigest(), data.shape[0]]
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """One stream of the rig.

    Parameters
    ----------
    name : str
        Of its series.
    data : numpy.ndarray
        Shape (k, ...).
    times : numpy.ndarray
        When each row comes, in seconds from the start, ascending; shape (k,).
    rate : float or None
        Rows per second, in Hz; ``None``: the times are recorded as time stamps.
    """

    name: str
    data: Array
    times: Array
    rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """What became of one stream.

    Parameters
    ----------
    name : str
        Of its series.
    rows, raw_bytes, stored_bytes : int
        How much was recorded, before and after filters.
    p50, p99, longest : float
        Seconds from appending a block until it was acknowledged.
    """

    name: str
    rows: int
    raw_bytes: int
    stored_bytes: int
    p50: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReport:
    """What was recorded, and what came out.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    seconds : float
        Of simulated time.
    recorded_seconds : float
        Until everything was acknowledged; hardly more than `seconds` where the machine keeps up.
    closing_seconds : float
        To complete, verify and publish the file.
    sync : str
        What acknowledged rows survive.
    streams : tuple of StreamReport
        Each of them.
    kept : bool
        Whether the file is still there.
    """

    path: Path
    seconds: float
    recorded_seconds: float
    closing_seconds: float
    sync: str
    streams: tuple[StreamReport, ...]
    kept: bool

    @property
    def real_time_factor(self) -> float:
        """Simulated seconds recorded in a second: 1 if the machine keeps up, since no more come."""
        return self.seconds / self.recorded_seconds

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-serialisable values."""
        return {**asdict(self), "path": str(self.path), "real_time_factor": self.real_time_factor}


def run_rig(
    path: Path, streams: list[Simulated], seconds: float, *, sync: str, keep: bool, progress: Progress
) -> RecordReport:
    """Record simulated streams in real time, read the file back in another process, and compare.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    streams : list of Simulated
        What comes.
    seconds : float
        How long.
    sync, progress
        As of :class:`nwbflow.Recorder`.
    keep : bool
        Whether the caller keeps the file; noted in the report.

    Raises
    ------
    nwbflow.errors.VerifyError
        If the file does not hold what was sent.
    """
    with Recorder(_session(streams), path, sync=sync, progress=progress) as recorder:
        begun = time.perf_counter()
        players = [_Player(recorder, stream, begun) for stream in streams]
        for player in players:
            player.start()
        for player in players:
            player.finish()
        recorded = time.perf_counter() - begun
        receipt = recorder.close()
    closing = time.perf_counter() - begun - recorded
    _compare(path, streams)
    return RecordReport(
        path=path,
        seconds=seconds,
        recorded_seconds=recorded,
        closing_seconds=closing,
        sync=sync,
        streams=tuple(
            _report(player, [d for d in receipt.datasets if d.name.startswith(f"/acquisition/{player.stream.name}/")])
            for player in players
        ),
        kept=keep,
    )


def _session(streams: list[Simulated]) -> pynwb.NWBFile:
    nwbfile = pynwb.NWBFile("a simulated rig", "nwbflow demo record", datetime.now(UTC))
    for stream in streams:
        times = {"timestamps": live((None,), "float64")} if stream.rate is None else {"rate": stream.rate}
        data = live((None, *stream.data.shape[1:]), stream.data.dtype)
        nwbfile.add_acquisition(pynwb.TimeSeries(name=stream.name, data=data, unit="a.u.", **times))
    return nwbfile


class _Player:
    """Appends what a stream has when its time has come, and notes how long each block takes to be safe."""

    def __init__(self, recorder: Recorder, stream: Simulated, begun: float) -> None:
        self.stream = stream
        self.lags: list[float] = []
        self._series = recorder[stream.name]
        self._begun = begun
        self._tickets: queue.SimpleQueue[tuple[Ticket, float] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._guarded, args=(job,)) for job in (self._play, self._watch)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Wait until all is safe."""
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self._failure = self._failure or error
            self._tickets.put(None)

    def _play(self) -> None:
        done = 0
        while done < len(self.stream.times):
            due = self._begun + float(self.stream.times[done])
            time.sleep(max(0.0, max(due, time.perf_counter() + BLOCK_SECONDS) - time.perf_counter()))
            there = int(np.searchsorted(self.stream.times, time.perf_counter() - self._begun, "right"))
            if there > done:
                times = self.stream.times[done:there] if self.stream.rate is None else None
                before = time.perf_counter()
                self._tickets.put((self._series.append(self.stream.data[done:there], timestamps=times), before))
                done = there
        self._tickets.put(None)

    def _watch(self) -> None:
        while (item := self._tickets.get()) is not None:
            ticket, before = item
            ticket.wait()
            self.lags.append(time.perf_counter() - before)


def _report(player: _Player, receipts: list[Any]) -> StreamReport:
    lags = np.array(player.lags or [0.0])
    return StreamReport(
        name=player.stream.name,
        rows=len(player.stream.data),
        raw_bytes=sum(d.raw_bytes for d in receipts),
        stored_bytes=sum(d.stored_bytes for d in receipts),
        p50=float(np.percentile(lags, 50)),
        p99=float(np.percentile(lags, 99)),
        longest=float(lags.max()),
    )


def _compare(path: Path, streams: list[Simulated]) -> None:
    sent = {f"/acquisition/{stream.name}/data": stream.data for stream in streams}
    sent |= {f"/acquisition/{s.name}/timestamps": s.times for s in streams if s.rate is None}
    done = subprocess.run(
        [sys.executable, "-I", "-c", _READER, str(path), *sent], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise VerifyError(f"plain h5py can't read {path}: {done.stderr.strip()}", kind=ErrorKind.MISMATCH)
    found = json.loads(done.stdout)
    for name, data in sent.items():
        if found[name] != [hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest(), len(data)]:
            raise VerifyError(f"{path}: {name} is not what was recorded", kind=ErrorKind.MISMATCH)
