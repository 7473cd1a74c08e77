"""One probe in real time, through three writers: what keeps up, and at what cost.

``python -m benchmarks.live --seconds 60`` feeds 384 channels of int16 at 30 kHz, in blocks of 33 ms, to PyNWB with a
DataChunkIterator, to plain h5py in SWMR mode (flushed after each block, or each second: rows are safe then, if the
process dies), and to a nwbflow.Recorder: the same chunks, gzip 4 with shuffle (the
recorder: its default). Each runs in a process of its own, one after the other, behind a queue of 64 MiB. A writer that
falls behind makes the probe wait; a real one would lose samples then.
"""

from __future__ import annotations

import argparse
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pynwb
from hdmf.backends.hdf5 import H5DataIO
from hdmf.data_utils import DataChunkIterator
from pynwb import NWBFile, TimeSeries

import nwbflow
from nwbflow.testing.simulate import neuropixels

RATE, CHANNELS, ROWS = 30_000, 384, 1000
QUEUE_BYTES = 64 * 2**20
CHUNKS = (10_000, 64)  # a row of them fits into the chunk cache of PyNWB (32 MiB), or it is slower by far


class Probe:
    """Makes blocks in real time; `late` is how far it had been held up when it ended, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._samples = neuropixels(10.0)
        self._blocks = int(seconds * RATE / ROWS)
        self.late = self.most_late = 0.0
        self.began = 0.0

    def run(self, take: Callable[[np.ndarray], object]) -> None:
        """Give every block to `take`, which may hold it up."""
        self.began = time.perf_counter()
        for number in range(self._blocks):
            due = self.began + (number + 1) * ROWS / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            at = number * ROWS % (len(self._samples) - ROWS)
            take(self._samples[at : at + ROWS])
            self.late = max(0.0, time.perf_counter() - due)
            self.most_late = max(self.most_late, self.late)

    def blocks(self) -> Iterator[np.ndarray]:
        """Give the blocks out of a queue that is filled in another thread."""
        waiting: queue.Queue[np.ndarray | None] = queue.Queue(QUEUE_BYTES // (ROWS * CHANNELS * 2))

        def fill() -> None:
            self.run(waiting.put)
            waiting.put(None)

        threading.Thread(target=fill, daemon=True).start()
        while (block := waiting.get()) is not None:
            yield block


def session(data: object) -> NWBFile:
    """Return a file with one probe."""
    nwbfile = NWBFile("a benchmark", "id", datetime(2026, 1, 1, tzinfo=UTC))
    nwbfile.add_acquisition(TimeSeries(name="probe", data=data, unit="V", rate=float(RATE)))
    return nwbfile


def by_pynwb(probe: Probe, path: Path) -> None:
    """Write with PyNWB: rows out of a generator, a thousand at a time."""
    rows = (row for block in probe.blocks() for row in block)
    data = DataChunkIterator(rows, buffer_size=ROWS, maxshape=(None, CHANNELS), dtype=np.dtype("int16"))
    settings = {"chunks": CHUNKS, "compression": "gzip", "compression_opts": 4, "shuffle": True}
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(session(H5DataIO(data, **settings)))


def by_swmr(probe: Probe, path: Path, every: int) -> None:
    """Write with h5py in SWMR mode, flushed after so many blocks, into a file that PyNWB laid out."""
    settings = {"chunks": CHUNKS, "compression": "gzip", "compression_opts": 4, "shuffle": True}
    empty = H5DataIO(shape=(0, CHANNELS), dtype=np.dtype("int16"), maxshape=(None, CHANNELS), **settings)
    with h5py.File(path, "w", libver="v110") as file, pynwb.NWBHDF5IO(file=file, mode="w") as io:
        io.write(session(empty))
    with h5py.File(path, "r+", libver="v110", rdcc_nbytes=256 * 2**20) as file:
        dataset = file["acquisition/probe/data"]
        file.swmr_mode = True
        for number, block in enumerate(probe.blocks(), start=1):
            dataset.resize(len(dataset) + len(block), axis=0)
            dataset[-len(block) :] = block
            if number % every == 0:
                dataset.flush()


def by_nwbflow(probe: Probe, path: Path) -> None:
    """Record, with one encoding thread."""
    data = nwbflow.live((None, CHANNELS), "int16", chunks=CHUNKS)
    with nwbflow.Recorder(session(data), path, workers=1, queue=QUEUE_BYTES) as recorder:
        probe.run(recorder["probe"].append)


WRITERS: dict[str, Callable[[Probe, Path], None]] = {
    "PyNWB, DataChunkIterator": by_pynwb,
    "h5py, SWMR, each block": lambda probe, path: by_swmr(probe, path, 1),
    "h5py, SWMR, each second": lambda probe, path: by_swmr(probe, path, RATE // ROWS),
    "nwbflow.Recorder": by_nwbflow,
}


def measure(name: str, seconds: float, folder: Path) -> None:
    """Run one writer in this process and print its line."""
    probe = Probe(seconds)
    path = folder / "session.nwb"
    processor = time.process_time()
    WRITERS[name](probe, path)
    wall = time.perf_counter() - probe.began
    processor = time.process_time() - processor
    with pynwb.NWBHDF5IO(path, "r") as io:
        rows = len(io.read().acquisition["probe"].data)
    print(
        f"{name:26s} {seconds / wall:9.2f} {probe.late:8.1f} {probe.most_late:10.2f} {wall - seconds:9.1f} "
        f"{processor / seconds:12.2f} {path.stat().st_size / 1e6:9.0f} {rows:9d}",
        flush=True,
    )


def main() -> None:
    """Run all writers, each in a process of its own."""
    parser = argparse.ArgumentParser(description="one probe in real time, through three writers")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--only", choices=list(WRITERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.only:
            measure(options.only, options.seconds, Path(folder))
            return
    print(f"{options.seconds:.0f} s of one probe: real time is 1; late: how far the probe was held up, in s")
    print(f"{'':26s} real time late/end  late/most  after end  processor/s   file MB      rows")
    for name in list(WRITERS) * options.rounds:
        command = [sys.executable, "-m", "benchmarks.live", "--seconds", str(options.seconds), "--only", name]
        folder_option = [] if options.folder is None else ["--folder", str(options.folder)]
        subprocess.run([*command, *folder_option], check=True)


if __name__ == "__main__":
    main()
