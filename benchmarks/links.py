"""Recordings that stay where they are: what it takes to make an NWB file of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import h5py

import nwbflow
from benchmarks.data import nwbfile

CHANNELS = 384


def _raw(path: Path, nbytes: int) -> nwbflow.nwb.mapping.RawData:
    """Return a recording that takes no room on the disk; its samples are zeros."""
    path.touch()
    os.truncate(path, nbytes // (2 * CHANNELS) * 2 * CHANNELS)
    return nwbflow.link_raw(path, dtype="<i2", shape=(None, CHANNELS))


def _dataset(path: Path, nbytes: int) -> tuple[Path, str]:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("data", (nbytes // (2 * CHANNELS), CHANNELS), "<i2")
        dataset[-1] = 1
    return path, "/data"


def _time(name: str, make: Callable[[], object], folder: Path, rounds: int) -> None:
    seconds, path = [], folder / "session.nwb"
    for _ in range(rounds + 1):  # the first round imports and warms up
        start = time.perf_counter()
        nwbflow.write(nwbfile(make()), path, progress=False, overwrite=True)
        seconds.append(time.perf_counter() - start)
    on_disk = path.stat().st_blocks * 512
    print(f"| {name} | {statistics.median(seconds[1:]):.2f} s | {on_disk / 1e6:.2f} MB |")


def run(folder: Path, rounds: int) -> None:
    """Make NWB files of sparse recordings, and print times and sizes, fingerprints included."""
    ten = [_raw(folder / f"part{n}.bin", 2 * 10**9) for n in range(10)]
    days = [_dataset(folder / f"day{n}.h5", 2 * 10**9) for n in range(10)]
    large, huge = folder / "large.bin", folder / "huge.bin"
    print("\n**Recordings in place**\n\n| what | time | NWB file on disk |\n|---|---|---|")
    _time("link_raw, 20 GB", lambda: _raw(large, 20 * 10**9), folder, rounds)
    _time("link_raw, 1 TB", lambda: _raw(huge, 10**12), folder, rounds)
    _time("concat of ten raw files, 20 GB", lambda: nwbflow.concat(ten), folder, rounds)
    _time("concat of ten HDF5 files, 20 GB", lambda: nwbflow.concat(days), folder, rounds)
    for path in (*folder.glob("part*"), *folder.glob("day*"), large, huge):
        path.unlink()
