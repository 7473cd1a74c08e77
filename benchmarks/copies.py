"""Copying a compressed dataset of another file: chunks as they are, or anew, against PyNWB."""

from __future__ import annotations

from pathlib import Path

import h5py
import pynwb
from hdmf.backends.hdf5 import H5DataIO

import nwbflow
from benchmarks.data import nwbfile, simulated
from benchmarks.timing import interleave, table

CHUNKS = (78125, 64)


def run(folder: Path, seconds: float, rounds: int) -> None:
    """Copy a simulated recording that is stored with gzip 4, and print what it takes."""
    source, work = folder / "source.h5", folder / "copies"
    work.mkdir()
    samples = simulated(seconds)
    with h5py.File(source, "w") as file:
        file.create_dataset("data", data=samples, chunks=CHUNKS, compression="gzip", shuffle=True)
    target = work / "copy.nwb"

    def stock(wrap: object) -> int:
        with h5py.File(source, "r") as file, pynwb.NWBHDF5IO(str(target), "w") as io:
            io.write(nwbfile(wrap(file["data"])))  # type: ignore[operator]
        return target.stat().st_size

    def ours(data: object) -> int:
        nwbflow.write(nwbfile(data), target, progress=False)
        return target.stat().st_size

    anew = {"chunks": CHUNKS, "compression": "gzip", "shuffle": True}
    figures = interleave(
        {
            "PyNWB, read and gzip 4 anew": lambda: stock(lambda d: H5DataIO(d[:], **anew)),
            "PyNWB, copied by HDF5 (no check, no sync)": lambda: stock(lambda d: H5DataIO(d, link_data=False)),
            "nwbflow.copy, chunks kept, verified, synced": lambda: ours(nwbflow.copy((source, "data"))),
            "nwbflow.copy, gzip anew": lambda: ours(
                nwbflow.DataIO(nwbflow.copy((source, "data")), codec="gzip", chunks=(30_000, 64))
            ),
        },
        rounds,
        work,
    )
    table("Copying", figures, "PyNWB, read and gzip 4 anew", samples.nbytes)
