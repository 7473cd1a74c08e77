"""The same recording written by plain PyNWB and by nwbflow, timed, and read back by somebody else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pynwb
from hdmf.backends.hdf5 import H5DataIO

from nwbflow.encoding.codecs import describe
from nwbflow.errors import ErrorKind, PlanError, SettingsError, TargetError, VerifyError
from nwbflow.model.data import Array
from nwbflow.model.layout import Shape
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.fill import count_workers
from nwbflow.nwb.write import write
from nwbflow.observe.hub import Progress
from nwbflow.sinks.hdf5 import layout_of
from nwbflow.sinks.staging import check_target
from nwbflow.tools.metadata import Device, ElectrodeGroup, Metadata, Series
from nwbflow.tools.recording import SeriesSettings, make_draft

PYNWB_CHUNKS = (78125, 64)
"""Chunks neuroconv gives 384 channels of int16: 64 channels, 10 MB (``get_electrical_series_chunk_shape``)."""

DATASET = "/acquisition/ElectricalSeries/data"
PROFILES = ("default", "fast")

_WARM_UP_ROWS = 4096

# Run in a process of its own, with nothing of nwbflow or PyNWB in it: what it reads, any h5py reads.
_READER = """
import hashlib, json, sys
import h5py
path, name = sys.argv[1:]
with h5py.File(path, "r") as file:
    data, digest = file[name], hashlib.sha256()
    for row in range(0, data.shape[0], data.chunks[0]):
        digest.update(data[row : row + data.chunks[0]].tobytes())
    print(json.dumps({"sha256": digest.hexdigest(), "shape": data.shape, "dtype": data.dtype.str}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """One file written.

    Parameters
    ----------
    writer : str
        Who wrote it: ``PyNWB``, or ``nwbflow`` with the profile's name.
    path : pathlib.Path
        Where it was written.
    seconds, cpu_seconds : float
        Wall time from the finished NWBFile in memory to the closed file, and processor time of all threads.
    file_bytes, stored_bytes : int
        Size of the file, and of the recording in it after filters.
    chunks : tuple of int
        Chunk shape, in elements.
    filters : str
        The pipeline in words.
    receipt : Receipt or None
        nwbflow's account of it.
    """

    writer: str
    path: Path
    seconds: float
    cpu_seconds: float
    file_bytes: int
    stored_bytes: int
    chunks: Shape
    filters: str
    receipt: Receipt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What was compared, and what came out.

    Parameters
    ----------
    shape : tuple of int
        Of the recording, samples x channels.
    dtype : str
        Type of its elements.
    seconds : float
        Its length.
    raw_bytes : int
        Its size before filters.
    sha256 : str
        Of its elements in C order; every file's elements, as read by h5py, have the same.
    cores : int
        Processor cores this process may use, which is also nwbflow's number of workers.
    runs : tuple of DemoRun
        PyNWB's first.
    kept : bool
        Whether the files are still there.
    """

    shape: Shape
    dtype: str
    seconds: float
    raw_bytes: int
    sha256: str
    cores: int
    runs: tuple[DemoRun, ...]
    kept: bool

    def speed_up(self, run: DemoRun) -> float:
        """Return how many times faster `run` was than PyNWB, by wall time."""
        return self.runs[0].seconds / run.seconds

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-serialisable values."""
        return {**asdict(self), "shape": list(self.shape), "runs": [self._run_to_json(run) for run in self.runs]}

    def _run_to_json(self, run: DemoRun) -> dict[str, Any]:
        receipt = run.receipt
        return {
            "writer": run.writer,
            "path": str(run.path),
            "seconds": run.seconds,
            "cpu_seconds": run.cpu_seconds,
            "mb_per_second": self.raw_bytes / 1e6 / run.seconds,
            "speed_up": self.speed_up(run),
            "file_bytes": run.file_bytes,
            "stored_bytes": run.stored_bytes,
            "chunks": list(run.chunks),
            "filters": run.filters,
            "stages": None if receipt is None else stages(receipt),
        }


def stages(receipt: Receipt) -> dict[str, float]:
    """Return where the time of a write went, in seconds by stage; encoding is summed over the workers."""
    return {
        "structure": receipt.structure_seconds,
        "read": sum(d.read_seconds for d in receipt.datasets),
        "encode": sum(d.encode_seconds for d in receipt.datasets),
        "store": sum(d.store_seconds for d in receipt.datasets),
        "verify": receipt.verify_seconds,
        "publish": receipt.publish_seconds,
    }


def check_memory(needed: int) -> None:
    """Refuse a recording that would take more than half of the machine's memory.

    Parameters
    ----------
    needed : int
        Size of the recording, in bytes.

    Raises
    ------
    nwbflow.errors.PlanError
        With both numbers.
    """
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > present // 2:
        raise PlanError(
            f"the recording needs {needed / 1e6:.0f} MB of memory; at most half of this machine's "
            f"{present / 1e6:.0f} MB is taken. Simulate fewer seconds",
            kind=ErrorKind.MEMORY,
        )


def run_demo(
    recording: Array,
    folder: str | Path,
    *,
    rate: float,
    keep: bool = False,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = False,
) -> DemoReport:
    """Write `recording` three times (PyNWB, nwbflow default, nwbflow fast) and compare.

    Every writer gets the same NWBFile with the same array in memory: a probe with an electrodes table and an
    ElectricalSeries. PyNWB compresses with gzip 4 and shuffle in chunks of :data:`PYNWB_CHUNKS`; nwbflow has its
    profile's. Before the clock runs each has written a few samples, and what the one before left is on the disk.

    Parameters
    ----------
    recording : numpy.ndarray
        Integers, shape (samples, channels).
    folder : str or pathlib.Path
        Where to write; must be there.
    rate : float
        Samples per second and channel, in Hz.
    keep : bool
        Whether the files stay.
    say : callable
        Called with a text before every step.
    progress : bool, callable or sequence of callables
        Gets the events of nwbflow's writes, as in :func:`nwbflow.write`.

    Returns
    -------
    DemoReport
        Times and sizes. All three files were read back by h5py alone in another process, and found equal.

    Raises
    ------
    nwbflow.errors.SettingsError
        A recording without samples.
    nwbflow.errors.TargetError, nwbflow.errors.PlanError
        A file is there already, or the disk has no room.
    nwbflow.errors.VerifyError
        A file does not hold what was written.
    """
    folder = Path(folder)
    if recording.ndim != 2 or not recording.size:
        raise SettingsError(f"a recording of shape {recording.shape} holds nothing", kind=ErrorKind.OPTION)
    paths = {name: folder / f"demo-{name}.nwb" for name in ("pynwb", *PROFILES)}
    for path in paths.values():
        _check(path)
    _check_space(folder, len(paths) * recording.nbytes)
    say("hashing the recording")
    expected = hashlib.sha256(np.ascontiguousarray(recording).reshape(-1).view(np.uint8)).hexdigest()
    _warm_up(recording[:_WARM_UP_ROWS], folder, rate)
    runs = []
    try:
        for name, path in paths.items():
            say("writing with PyNWB" if name == "pynwb" else f"writing with nwbflow, profile {name}")
            runs.append(_run(recording, path, rate, name, progress))
            _sync(path)
        for run in runs:
            say(f"reading {run.path.name} with h5py in another process")
            _verify(run, expected)
    finally:
        if not keep or len(runs) < len(paths):
            for path in paths.values():
                path.unlink(missing_ok=True)
    return DemoReport(
        shape=recording.shape,
        dtype=recording.dtype.name,
        seconds=len(recording) / rate,
        raw_bytes=recording.nbytes,
        sha256=expected,
        cores=count_workers(None),
        runs=tuple(runs),
        kept=keep,
    )


def _check(path: Path) -> None:
    try:
        check_target(path, overwrite=False)
    except TargetError as error:
        if error.kind is ErrorKind.EXISTS:
            raise TargetError(f"{path} exists; delete it, or choose another folder", kind=error.kind) from None
        raise


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PlanError(
            f"{folder} has {free / 1e6:.0f} MB free; three files of at most {needed / 3e6:.0f} MB are to be written. "
            "Simulate fewer seconds, or choose another folder",
            kind=ErrorKind.NO_SPACE,
        )


def _warm_up(piece: Array, folder: Path, rate: float) -> None:
    """Write a little with each, so that nobody's imports and first calls are timed."""
    for name in ("pynwb", *PROFILES):
        path = folder / f".demo-warm-up-{name}.nwb"
        try:
            _write(piece, path, rate, name, False)
        finally:
            path.unlink(missing_ok=True)


def _run(recording: Array, path: Path, rate: float, name: str, progress: Progress) -> DemoRun:
    wall, cpu = time.perf_counter(), time.process_time()
    receipt = _write(recording, path, rate, name, progress)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    with h5py.File(path, "r") as file:
        layout = layout_of(file[DATASET])
        stored = file[DATASET].id.get_storage_size()
    return DemoRun(
        writer="PyNWB" if name == "pynwb" else f"nwbflow {name}",
        path=path,
        seconds=wall,
        cpu_seconds=cpu,
        file_bytes=path.stat().st_size,
        stored_bytes=stored,
        chunks=layout.chunks or (),
        filters=describe(layout.filters),
        receipt=receipt,
    )


def _write(recording: Array, path: Path, rate: float, name: str, progress: Progress) -> Receipt | None:
    if name != "pynwb":
        return write(_nwbfile(recording, recording, rate), path, profile=name, progress=progress)
    chunks = tuple(min(c, n) for c, n in zip(PYNWB_CHUNKS, recording.shape, strict=True))
    data = H5DataIO(recording, compression="gzip", compression_opts=4, shuffle=True, chunks=chunks)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(_nwbfile(data, recording, rate))
    return None


def _nwbfile(data: Any, recording: Array, rate: float) -> pynwb.NWBFile:
    channels = recording.shape[1]
    metadata = Metadata(
        session_description="a simulated recording",
        session_start_time=datetime(2024, 1, 1, 12, tzinfo=UTC),
        identifier="nwbflow-demo",
        device=Device(name="Probe", description="a simulated probe"),
        electrode_group=ElectrodeGroup(name="Shank", description="one shank", location="unknown"),
        electrodes={
            "rel_x": [16.0 * (n % 2) for n in range(channels)],
            "rel_y": [20.0 * (n // 2) for n in range(channels)],
        },
        series=Series(description="simulated, wide band"),
    )
    # 2.34 uV a count: a Neuropixels 1.0 probe at its usual gain of 500, 1.2 V over 10 bits
    settings = SeriesSettings(channels=channels, rate=rate, conversion=2.34e-6)
    draft = make_draft(
        data, recording.dtype, settings, metadata, origin="a simulation", made=datetime(2024, 1, 1, tzinfo=UTC)
    )
    return draft.nwbfile


def _sync(path: Path) -> None:
    """Have it on the disk before the next writer starts: nobody pays for somebody else's file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _verify(run: DemoRun, expected: str) -> None:
    # -P: the working folder is not looked into for modules
    done = subprocess.run(
        [sys.executable, "-P", "-c", _READER, str(run.path), DATASET], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise VerifyError(f"{run.path} can't be read by h5py: {last}", kind=ErrorKind.IO)
    if json.loads(done.stdout)["sha256"] != expected:
        raise VerifyError(
            f"{run.path}:{DATASET} is not what {run.writer} was given; please report this", kind=ErrorKind.MISMATCH
        )
