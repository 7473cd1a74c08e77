"""Ranks of MPI against threads, on the same cores.

Run it as ``mpirun -n 2 python -m benchmarks.mpi [--seconds 20] [--rounds 5]``. With a build of h5py for MPI, collective
writing through HDF5's own filters is measured too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from mpi4py import MPI

import nwbflow
from benchmarks.data import nwbfile, simulated

CHUNKS = (13_653, 64)


def alone(data: np.ndarray, path: Path, workers: int) -> None:
    """Write on rank 0 with threads; the others sleep."""
    if MPI.COMM_WORLD.rank == 0:
        wrapped = nwbflow.DataIO(data, chunks=CHUNKS)
        nwbflow.write(nwbfile(wrapped), path, overwrite=True, progress=False, workers=workers)


def together(data: np.ndarray, path: Path, comm: MPI.Intracomm, *, aligned: bool = True) -> None:
    """Write on all ranks of `comm`, one thread each."""
    if comm == MPI.COMM_NULL:
        return
    step = CHUNKS[0] if aligned else 1
    start, stop = (
        len(data) if at == comm.size else len(data) * at // comm.size // step * step
        for at in (comm.rank, comm.rank + 1)
    )
    part = nwbflow.DataIO(nwbflow.part(data[start:stop], start=start, shape=data.shape), chunks=CHUNKS)
    executor = nwbflow.parallel.mpi(comm)
    nwbflow.write(nwbfile(part), path, overwrite=True, progress=False, executor=executor, workers=1)


def collective(data: np.ndarray, path: Path, comm: MPI.Intracomm) -> None:
    """Write chunk by chunk through HDF5 on all ranks at once; a rank without a chunk to write selects nothing."""
    if comm.rank == 0:
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data.shape, data.dtype, chunks=CHUNKS, compression="gzip", shuffle=True)
    comm.Barrier()
    offsets = [(r, c) for r in range(0, data.shape[0], CHUNKS[0]) for c in range(0, data.shape[1], CHUNKS[1])]
    mine = offsets[comm.rank * len(offsets) // comm.size : (comm.rank + 1) * len(offsets) // comm.size]
    with h5py.File(path, "r+", driver="mpio", comm=comm) as file, (dataset := file["x"]).collective:
        for number in range(-(-len(offsets) // comm.size)):
            space = dataset.id.get_space()
            block = np.empty((1,), data.dtype)
            memory = h5py.h5s.create_simple((1,))
            if number < len(mine):
                row, column = mine[number]
                block = np.ascontiguousarray(data[row : row + CHUNKS[0], column : column + CHUNKS[1]])
                space.select_hyperslab((row, column), block.shape)
                memory = h5py.h5s.create_simple(block.shape)
            else:
                space.select_none()
                memory.select_none()
            dataset.id.write(memory, space, block, dxpl=dataset._dxpl)
    if comm.rank == 0:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def settle(comm: MPI.Intracomm) -> None:
    """Wait for all ranks, asleep."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.001)


def measure(contenders: dict[str, Callable[[], None]], path: Path, rounds: int) -> dict[str, tuple[float, float, int]]:
    """Run every contender once a round; return median seconds of wall and processor time, and bytes stored."""
    comm = MPI.COMM_WORLD
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    works: dict[str, list[float]] = {name: [] for name in contenders}
    sizes: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            if comm.rank == 0:
                path.unlink(missing_ok=True)
                os.sync()
            settle(comm)
            wall, work = time.perf_counter(), time.process_time()
            run()
            settle(comm)
            spent = comm.allreduce(time.process_time() - work)
            if number:
                walls[name].append(time.perf_counter() - wall)
                works[name].append(spent)
            sizes[name] = path.stat().st_size if comm.rank == 0 else 0
    return {n: (statistics.median(walls[n]), statistics.median(works[n]), sizes[n]) for n in contenders}


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description="ranks against threads, interleaved")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the simulated recording")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    comm = MPI.COMM_WORLD
    data = simulated(options.seconds)
    one = comm.Create_group(comm.group.Incl([0])) if comm.rank == 0 else MPI.COMM_NULL
    folder = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    path = Path(folder) / "x.nwb"
    contenders: dict[str, Callable[[], None]] = {
        "threads, 1": lambda: alone(data, path, 1),
        f"threads, {comm.size}": lambda: alone(data, path, comm.size),
        "MPI, 1 rank": lambda: together(data, path, one),
        f"MPI, {comm.size} ranks": lambda: together(data, path, comm),
        f"MPI, {comm.size} ranks, parts cut through chunks": lambda: together(data, path, comm, aligned=False),
    }
    if h5py.get_config().mpi:
        contenders[f"h5py collective, gzip 4, {comm.size} ranks"] = lambda: collective(data, path, comm)
    found = measure(contenders, path, options.rounds)
    if comm.rank == 0:
        base = found[f"threads, {comm.size}"]
        print(f"{data.nbytes / 1e6:.0f} MB, {options.rounds} rounds, medians; ratios to threads, {comm.size}")
        for name, (wall, work, size) in found.items():
            print(f"  {name:42s} {wall:6.2f} s {base[0] / wall:5.2f} x   cpu {work:6.2f} s   {size / 1e6:7.1f} MB")
        path.unlink()
        path.parent.rmdir()


if __name__ == "__main__":
    main()
