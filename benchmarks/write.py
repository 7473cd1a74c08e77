"""Bulk writing against PyNWB and hdmf-zarr."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pynwb
from pynwb import H5DataIO

import nwbflow
from benchmarks.data import nwbfile, real, simulated
from benchmarks.timing import interleave, table


def _chunks(data: np.ndarray) -> tuple[int, ...]:
    return nwbflow.planning.chunks.advise_chunks(data.shape, data.dtype, kind="electrical" if data.ndim > 1 else None)


def by_pynwb(data: np.ndarray, path: Path, **settings: object) -> Callable[[], int]:
    """Write with PyNWB."""

    def run() -> int:
        wrapped = H5DataIO(data, chunks=_chunks(data), **settings) if settings else data
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(nwbfile(wrapped))
        return path.stat().st_size

    return run


def by_nwbflow(data: object, path: Path, chunks: tuple[int, ...] | None, **options: object) -> Callable[[], int]:
    """Write with nwbflow; `data` may be a function that makes the data anew."""

    def run() -> int:
        fresh = data() if callable(data) else data
        wrapped = fresh if chunks is None else nwbflow.DataIO(fresh, chunks=chunks)
        nwbflow.write(nwbfile(wrapped), path, overwrite=True, **{"progress": False, **options})
        return path.stat().st_size

    return run


def against_gzip(data: np.ndarray, name: str, folder: Path, rounds: int) -> None:
    """Compressed writing, 1 and 2 workers, two profiles."""
    chunks = _chunks(data)
    contenders = {
        "PyNWB gzip 4 + shuffle": by_pynwb(
            data, folder / "a.nwb", compression="gzip", compression_opts=4, shuffle=True
        ),
        **{
            f"nwbflow {profile}, {workers} worker{'s' * (workers > 1)}": by_nwbflow(
                data, folder / "b.nwb", chunks, profile=profile, workers=workers
            )
            for workers in (1, 2)
            for profile in ("default", "fast")
        },
    }
    table(name, interleave(contenders, rounds, folder), "PyNWB gzip 4 + shuffle", data.nbytes)


def uncompressed(data: np.ndarray, folder: Path, rounds: int) -> None:
    """Plain contiguous writing."""

    def drop_in() -> int:
        with nwbflow.NWBHDF5IO(folder / "b.nwb", "w") as io:
            io.write(nwbfile(data))
        return (folder / "b.nwb").stat().st_size

    def synced() -> int:
        size = by_pynwb(data, folder / "c.nwb")()
        with (folder / "c.nwb").open("rb") as file:
            os.fsync(file.fileno())
        return size

    contenders = {
        "PyNWB uncompressed": by_pynwb(data, folder / "a.nwb"),
        "PyNWB uncompressed, then fsync": synced,
        "nwbflow drop-in (verified, synced)": drop_in,
    }
    table("uncompressed", interleave(contenders, rounds, folder), "PyNWB uncompressed", data.nbytes)


def streamed(data: np.ndarray, folder: Path, rounds: int) -> None:
    """Compare a generator of blocks with the same array in memory."""
    rows = 30000

    def blocks() -> nwbflow.nwb.data.BlocksData:
        parts = (data[start : start + rows] for start in range(0, len(data), rows))
        return nwbflow.blocks(parts, shape=(None, *data.shape[1:]), dtype=data.dtype)

    contenders = {
        "nwbflow, array in memory": by_nwbflow(data, folder / "a.nwb", _chunks(data)),
        "nwbflow, blocks of 30000 rows": by_nwbflow(blocks, folder / "b.nwb", _chunks(data)),
        "nwbflow, blocks, default chunks": by_nwbflow(blocks, folder / "c.nwb", None),
    }
    table("streams", interleave(contenders, rounds, folder), "nwbflow, array in memory", data.nbytes)


def overheads(data: np.ndarray, folder: Path, rounds: int) -> None:
    """Measure what events and verification cost."""
    events: list[object] = []
    chunks = _chunks(data)
    contenders = {
        "nothing": by_nwbflow(data, folder / "a.nwb", chunks, verify="no"),
        "events": by_nwbflow(data, folder / "b.nwb", chunks, verify="no", progress=events.append),
        "verify stored": by_nwbflow(data, folder / "c.nwb", chunks, verify="stored"),
        "verify full": by_nwbflow(data, folder / "d.nwb", chunks, verify="full"),
    }
    table("overheads", interleave(contenders, rounds, folder), "nothing", data.nbytes)


def against_zarr(data: np.ndarray, folder: Path, rounds: int) -> None:
    """hdmf-zarr's default, if it is installed."""
    try:
        from hdmf_zarr import NWBZarrIO
    except ImportError as error:
        print(f"\nhdmf-zarr not measured: {error}")
        return

    def zarr() -> int:
        target = folder / "a.nwb.zarr"
        shutil.rmtree(target, ignore_errors=True)
        with NWBZarrIO(str(target), "w") as io:
            io.write(nwbfile(data))
        return sum(f.stat().st_size for f in target.rglob("*") if f.is_file())

    contenders = {
        "hdmf-zarr default": zarr,
        "nwbflow default": by_nwbflow(data, folder / "b.nwb", None),
        "nwbflow fast": by_nwbflow(data, folder / "c.nwb", None, profile="fast"),
    }
    table("against hdmf-zarr", interleave(contenders, rounds, folder), "hdmf-zarr default", data.nbytes)


def run(folder: Path, seconds: float, rounds: int) -> None:
    """Run everything."""
    data = simulated(seconds)
    against_gzip(data, f"simulated 384 channels, {seconds:g} s", folder, rounds)
    for name, recording in real().items():
        against_gzip(recording, f"real: {name}, repeated", folder, rounds)
    uncompressed(data, folder, rounds)
    streamed(data, folder, rounds)
    overheads(data, folder, rounds)
    against_zarr(data, folder, rounds)
