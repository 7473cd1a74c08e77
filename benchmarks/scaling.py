"""One worker and two: threads, processes and Dask, on the same cores; and what the process that stores has to do.

Run: ``python -m benchmarks.scaling [--seconds 60] [--rounds 3] [--folder DIR]``; 60 s are 1.4 GB.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import nwbflow
from benchmarks.data import nwbfile, simulated
from benchmarks.timing import interleave, table

CHUNKS = (30000, 64)


class Recording:
    """A raw file behind a class of one's own: other processes can read it, as can this one."""

    def __init__(self, path: str, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype("int16")

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.array(np.memmap(self.path, "i2", "r", shape=self.shape)[key])


class Decoded(Recording):
    """The same, with much Python for each millisecond that is read, as a format of one's own may take."""

    def __getitem__(self, key: Any) -> np.ndarray:
        block = super().__getitem__(key)
        for row in range(0, len(block), 30):
            sum(range(20_000))
            block[row : row + 30] ^= 0
        return block


@contextmanager
def dask_cluster(workers: int) -> Iterator[nwbflow.parallel.Executor]:
    """Give an executor on a cluster of processes of one thread each."""
    from distributed import Client, LocalCluster

    settings = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        yield nwbflow.parallel.dask(client)


def writing(data: object, path: Path, **options: Any) -> Callable[[], int]:
    """Write with nwbflow; to an HDF5 file or a Zarr store."""

    def run() -> int:
        wrapped = nwbflow.DataIO(data, chunks=CHUNKS)
        receipt = nwbflow.write(nwbfile(wrapped), path, overwrite=True, **{"progress": False, **options})
        return receipt.stored_bytes

    return run


def on_one_core(run: Callable[[], int]) -> Callable[[], int]:
    """Let all threads share one core: with one worker, reading and storing otherwise have the second to themselves."""

    def pinned() -> int:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})  # of this thread, and so of those it starts
        try:
            return run()
        finally:
            os.sched_setaffinity(0, cores)

    return pinned


def threads(title: str, data: object, size: int, place: Path, rounds: int, profile: str) -> None:
    """Print what a second core gives to threads."""
    contenders = {
        "1 core, 1 worker": on_one_core(writing(data, place / "a.nwb", workers=1, profile=profile)),
        "2 cores, 1 worker": writing(data, place / "b.nwb", workers=1, profile=profile),
        "2 cores, 2 workers": writing(data, place / "c.nwb", workers=2, profile=profile),
    }
    table(title, interleave(contenders, rounds, place), "1 core, 1 worker", size)


def own_seconds(run: Callable[[], int]) -> float:
    """Return the processor time that this process alone takes."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(
    title: str, data: object, size: int, place: Path, rounds: int, executors: Mapping[str, nwbflow.parallel.Executor]
) -> None:
    """Print how long everybody takes, and ratios to one thread."""
    contenders = {
        "threads, 1 worker": writing(data, place / "a.nwb", workers=1),
        "threads, 2 workers": writing(data, place / "b.nwb", workers=2),
        **{name: writing(data, place / "c.nwb", executor=executor) for name, executor in executors.items()},
    }
    table(title, interleave(contenders, rounds, place), "threads, 1 worker", size)


def storing(data: object, size: int, place: Path, executors: Mapping[str, nwbflow.parallel.Executor]) -> None:
    """Print what the process that stores has to do for each GB of samples, beside what encoding takes."""
    print("\nprocessor time of the process that stores, for 1 GB of samples, verified; encoded by")
    for suffix in ("nwb", "nwb.zarr"):
        path = place / f"x.{suffix}"
        alone = own_seconds(writing(data, path, workers=1))
        print(f"  {suffix:9s} its own thread {alone / size * 1e9:5.2f} s", end="")
        for name, executor in executors.items():
            print(f"   {name} {own_seconds(writing(data, path, executor=executor)) / size * 1e9:5.2f} s", end="")
        print(flush=True)


def main() -> None:
    """Run everything and print tables."""
    parser = argparse.ArgumentParser(description="scaling from one worker to two")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the simulated recording")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the beginning")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, dask_cluster(1) as one, dask_cluster(2) as two:
        place = Path(folder) / "in"
        place.mkdir()
        data = simulated(options.seconds)
        raw, zipped = Path(folder) / "raw.bin", Path(folder) / "zipped.h5"
        data.tofile(raw)
        with h5py.File(zipped, "w") as file:
            file.create_dataset("x", data=data, chunks=CHUNKS, compression="gzip", compression_opts=1, shuffle=True)
        shape, size = data.shape, data.nbytes
        del data
        for profile in ("default", "archive"):
            threads(f"threads, profile {profile}", Recording(str(raw), shape), size, place, options.rounds, profile)
        pools = {f"processes, {n}": nwbflow.parallel.processes(n) for n in (1, 2)}
        clusters = {"Dask, 1 worker": one, "Dask, 2 workers": two}
        rounds, everybody = options.rounds, {**pools, **clusters}
        compare("a raw file", Recording(str(raw), shape), size, place, rounds, everybody)
        compare("a raw file, with Python in between", Decoded(str(raw), shape), size, place, rounds, pools)
        with h5py.File(zipped, "r") as file:
            compare("a gzip'ed HDF5 dataset", file["x"], size, place, rounds, pools)
        both = {"processes, 2": pools["processes, 2"], "Dask, 2 workers": two}
        storing(Recording(str(raw), shape), size, place, both)
    print(f"load {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    main()
