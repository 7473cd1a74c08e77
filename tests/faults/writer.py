"""Write files with nwbflow in processes that are killed, interrupted or given faults.

As a script it imports everything once and then forks one process for each request (one JSON line),
which writes and then ends like any program: through the interpreter's exit, or by what kills it.
Both sides report on standard output, one JSON object a line.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROWS, COLUMNS, CHUNK_ROWS = 24_000, 16, 2_000
"""Of the series that are written: 12 chunks of 64 kB each before filters."""


@dataclass(frozen=True, slots=True)
class End:
    """How a writing process ended.

    Parameters
    ----------
    code : int
        Exit code; negative if a signal ended it.
    said : dict
        What it reported: ``started``, ``middle``, ``finished``, ``error`` (type, text and notes), ``causes``
        (types of the error and of what it came from), ``threads`` (names of threads that do not end).
    """

    code: int
    said: dict[str, Any]

    @property
    def inside(self) -> bool:
        """Whether it ended after the write had begun and before it returned or raised."""
        return "started" in self.said and not {"finished", "error"} & set(self.said)


class Writer:
    """A process that forks one process for each write.

    Parameters
    ----------
    env : dict, optional
        Its environment, such as one with the write log preloaded.
    script : str
        What it runs: this module, or another one that ends in :func:`serve`.
    """

    def __init__(self, env: dict[str, str] | None = None, script: str = __file__) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        self._said: dict[str, Any] = {}
        self.wait_for("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(timeout=30)

    def start(self, path: Path, how: str, **request: Any) -> None:
        """Start one write; see :func:`write` for what can be asked."""
        assert self._process.stdin is not None
        if "pid" in self._said and "code" not in self._said:  # left over from a test that failed
            self.send(signal.SIGKILL)
            self.end()
        self._said = {}
        self._process.stdin.write(json.dumps({"path": str(path), "how": how, **request}) + "\n")
        self._process.stdin.flush()
        self.wait_for("pid")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the writing process, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._said["pid"], number)

    def wait_for(self, word: str) -> None:
        """Return when the writing process has reported `word`, or has ended."""
        assert self._process.stdout is not None
        while word not in self._said and "code" not in self._said:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError("the process that starts the writers has died")
            self._said.update(json.loads(line))

    def end(self) -> End:
        """Return how the write ended, waiting for it."""
        self.wait_for("code")
        return End(self._said["code"], self._said)

    def write(self, path: Path, how: str, **request: Any) -> End:
        """Do one write and return how it ended."""
        self.start(path, how, **request)
        return self.end()


def say(word: str, value: object = True) -> None:
    """Report to whoever asked for the write."""
    os.write(1, (json.dumps({word: value}) + "\n").encode())


def samples(seed: int, rows: int = ROWS) -> Any:
    """Return the data of a series: int16, (`rows`, COLUMNS), compressible to about half."""
    import numpy as np

    return np.random.default_rng(seed).integers(-100, 100, (rows, COLUMNS)).astype("i2")


def blocks(seed: int, how: str) -> Iterator[Any]:
    """Yield the data a chunk at a time; ``raise`` stops with an error, ``endless`` never stops."""
    whole = samples(seed)
    for at in range(0, ROWS, CHUNK_ROWS):
        if at == ROWS // 2:
            say("middle")
            if how == "raise":
                raise RuntimeError("the amplifier was unplugged")
        yield whole[at : at + CHUNK_ROWS]
    while how == "endless":
        yield whole[:CHUNK_ROWS]


def session(how: str, seed: int, megabytes: int) -> Any:
    """Return an NWBFile with two series, one of them as `how` says.

    Parameters
    ----------
    how : str
        ``array``, ``stream``, ``raise``, ``endless``, or ``noise`` (can't be compressed).
    seed : int
        Of the data.
    megabytes : int
        Size of ``noise``.
    """
    from datetime import UTC, datetime

    import numpy as np
    from pynwb import NWBFile, TimeSeries

    import nwbflow

    chunks = (CHUNK_ROWS, COLUMNS)
    data: Any
    if how == "noise":
        noise = np.frombuffer(np.random.default_rng(seed).bytes(megabytes * 2**20), "i2").reshape(-1, COLUMNS)
        data = nwbflow.DataIO(noise, chunks=chunks, codec="gzip")
    elif how in ("array", "dropin"):
        data = nwbflow.DataIO(samples(seed), chunks=chunks, codec="gzip")
    else:
        stream = nwbflow.blocks(blocks(seed, how), shape=(None, COLUMNS), dtype="int16")
        data = nwbflow.DataIO(stream, chunks=chunks, codec="gzip")
    nwbfile = NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    nwbfile.add_acquisition(TimeSeries(name="raw", data=data, unit="V", rate=1000.0))
    trace = nwbflow.DataIO(samples(seed + 1), chunks=chunks, codec="gzip")
    nwbfile.add_acquisition(TimeSeries(name="filtered", data=trace, unit="V", rate=1000.0))
    return nwbfile


def write(request: dict[str, Any]) -> None:
    """Do what one request asks.

    Its keys: ``path``, ``how`` (see :func:`session`; ``dropin`` writes an array through the drop-in
    class), ``seed``, ``megabytes``, ``libver`` (drop-in only), and under the write log ``log``,
    ``fail_at``, ``errno``. When the write has failed, a file named ``failed`` is made beside `path`:
    it tells in the log what came before the failure was dealt with and what after.
    """
    import nwbflow

    path = Path(request["path"])

    def observe(event: object) -> None:
        if type(event).__name__ == "RunFailed":
            path.with_name("failed").touch()

    nwbfile = session(request["how"], request.get("seed", 1), request.get("megabytes", 0))
    if "log" in request:
        shim: Any = ctypes.CDLL(None)
        names = (str(path.parent).encode(), request["log"].encode())
        assert shim.writelog_start(*names, request.get("fail_at", 0), request.get("errno", 5)) == 0
    say("started")
    try:
        if request["how"] == "dropin":
            with nwbflow.NWBHDF5IO(path, "w", progress=observe, libver=request.get("libver")) as io:
                io.write(nwbfile)
        else:
            nwbflow.write(nwbfile, path, overwrite=True, workers=2, progress=observe)
        say("finished")
    except BaseException as error:
        say("causes", _causes(error))
        say("error", "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])]))
        raise
    finally:
        say("threads", [t.name for t in threading.enumerate() if not _ends(t)])


def _causes(error: BaseException | None) -> list[str]:
    """Return the types of an exception and of what it came from."""
    names = []
    while error is not None:
        names.append(type(error).__name__)
        error = error.__cause__ or error.__context__
    return names


def _ends(thread: threading.Thread) -> bool:
    """Whether a thread other than the main one is at its end: one interrupted while starting may not be joined yet."""
    if thread is not threading.main_thread():
        thread.join(timeout=10)
    return thread is threading.main_thread() or not thread.is_alive()


def serve(run: Callable[[dict[str, Any]], None]) -> None:
    """Fork a process that runs each request on standard input; return in each of them, and at the end."""
    import pynwb  # noqa: F401

    import nwbflow  # noqa: F401

    say("ready")
    for line in sys.stdin:
        say("pid", child) if (child := os.fork()) else None
        if child == 0:
            run(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        say("code", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve(write)
