"""Files written anew, against h5repack, PyNWB and hdmf-zarr: ``python -m benchmarks.repack [--seconds 20]``.

Contenders store the same chunks with gzip 4 and shuffle in HDF5 (nwbflow also its ``fast``), or their own in Zarr.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import pynwb
from hdmf.backends.hdf5 import H5DataIO

import nwbflow
from benchmarks.data import nwbfile, simulated
from benchmarks.timing import interleave, table

OLD, NEW = (78125, 64), (20000, 96)
DATA = "/acquisition/series/data"


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def by_nwbflow(source: Path, target: Path, **options: object) -> Callable[[], int]:
    """Repack with nwbflow."""

    def run() -> int:
        nwbflow.repack(source, target, progress=False, **options)
        return size(target)

    return run


def by_h5repack(source: Path, target: Path, *options: str) -> Callable[[], int]:
    """Repack with HDF5's own tool: one thread, nothing compared, nothing synced."""

    def run() -> int:
        subprocess.run(["h5repack", *options, str(source), str(target)], check=True)
        return size(target)

    return run


def by_pynwb(source: Path, target: Path) -> Callable[[], int]:
    """Export with PyNWB, the data set anew: all in memory."""

    def run() -> int:
        with pynwb.NWBHDF5IO(str(source), "r") as reader, pynwb.NWBHDF5IO(str(target), "w") as writer:
            read = reader.read()
            series = read.acquisition["series"]
            series.fields["data"] = H5DataIO(series.data[:], chunks=NEW, compression="gzip", shuffle=True)
            series.set_modified()
            writer.export(src_io=reader, nwbfile=read)
        return size(target)

    return run


def by_hdmf_zarr(source: Path, target: Path) -> Callable[[], int]:
    """Export with hdmf-zarr: chunks as they are, its codec."""
    from hdmf_zarr import NWBZarrIO

    def run() -> int:
        with pynwb.NWBHDF5IO(str(source), "r") as reader, NWBZarrIO(str(target), "w") as writer:
            writer.export(src_io=reader, write_args={"link_data": False})
        return size(target)

    return run


def run(folder: Path, seconds: float, rounds: int) -> None:
    """Run all of it."""
    source, work = folder / "repack.nwb", folder / "repack"
    work.mkdir()
    samples = simulated(seconds)
    with pynwb.NWBHDF5IO(str(source), "w") as io:
        io.write(nwbfile(H5DataIO(samples, chunks=OLD, compression="gzip", shuffle=True)))
    with h5py.File(source) as file:
        assert file[DATA].chunks == OLD
    rules = {"version": 1, "rules": [{"location": DATA, "chunks": list(NEW)}]}
    anew = work / "anew.nwb"
    contenders = {
        "PyNWB, read whole, exported": by_pynwb(source, anew),
        "nwbflow, 1 worker": by_nwbflow(source, anew, rules=rules, workers=1),
        "nwbflow, 2 workers": by_nwbflow(source, anew, rules=rules, workers=2),
        "nwbflow fast, 2 workers": by_nwbflow(source, anew, rules=rules, profile="fast", workers=2),
    }
    kept = {"nwbflow, as it is": by_nwbflow(source, work / "kept.nwb")}
    base = "PyNWB, read whole, exported"
    if shutil.which("h5repack"):
        cut = f"{DATA}:CHUNK={NEW[0]}x{NEW[1]}"
        contenders = {"h5repack (no check, no sync)": by_h5repack(source, anew, "-l", cut), **contenders}
        kept["h5repack, as it is (no check, no sync)"] = by_h5repack(source, work / "kept.nwb")
    else:
        print("h5repack is not installed (hdf5-tools)")
    table("Other chunks", interleave(contenders, rounds, work), base, samples.nbytes)
    table("As it is", interleave(kept, rounds, work), "nwbflow, as it is", samples.nbytes)
    stores = {
        "hdmf-zarr, exported": by_hdmf_zarr(source, work / "a.nwb.zarr"),
        "nwbflow, 2 workers": by_nwbflow(source, work / "b.nwb.zarr", workers=2),
        "nwbflow default, 2 workers": by_nwbflow(source, work / "c.nwb.zarr", profile="default", workers=2),
    }
    table("HDF5 to Zarr", interleave(stores, rounds, work), "hdmf-zarr, exported", samples.nbytes)
    shutil.rmtree(work)
    source.unlink()


def main() -> None:
    """Run it alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the simulated recording")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options.seconds, options.rounds)


if __name__ == "__main__":
    main()
