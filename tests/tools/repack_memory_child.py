"""Repack noise several times larger than the memory allowed, every way there is; print what each took."""

import json
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pynwb
from support import session, write_nwb

import nwbflow

MEMORY, COLUMNS = 24 * 2**20, 256
ROWS = 5 * MEMORY // 2 // COLUMNS
CHUNKS = (7000, 64)
PROFILE = nwbflow.Profile(name="p", codec="gzip-fast", chunk_bytes=2**20)
"""Small chunks: zarr-python, which reads stores, has some on their way in each of its threads."""


def status(key):
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def make(path):
    write_nwb(session(x=np.zeros((0, COLUMNS), "u2")), path, pynwb.NWBHDF5IO)
    noise = np.random.default_rng(0).integers(0, 2**16, (ROWS // 8, COLUMNS), dtype="u2")
    with h5py.File(path, "r+") as file:
        attributes = dict(file["acquisition/x/data"].attrs)
        del file["acquisition/x/data"]
        data = file.create_dataset("acquisition/x/data", (8 * len(noise), COLUMNS), "u2", chunks=CHUNKS, compression=1)
        data.attrs.update(attributes)
        for at in range(8):
            data[at * len(noise) : (at + 1) * len(noise)] = noise


def main(folder):
    make(folder / "source.nwb")
    write_nwb(session(x=np.arange(50_000, dtype="u2")), folder / "small.nwb", pynwb.NWBHDF5IO)
    ways = {
        "as it is": ("source.nwb", "kept.nwb", {}),
        "HDF5 to HDF5": ("source.nwb", "fast.nwb", {"profile": PROFILE}),
        "HDF5 to Zarr": ("source.nwb", "there.nwb.zarr", {"profile": PROFILE}),
        "Zarr to HDF5": ("there.nwb.zarr", "back.nwb", {"profile": PROFILE}),
        "Zarr to Zarr": ("there.nwb.zarr", "again.nwb.zarr", {}),
    }
    nwbflow.repack(folder / "small.nwb", folder / "small.nwb.zarr", progress=False)
    nwbflow.repack(folder / "small.nwb.zarr", folder / "smaller.nwb", progress=False)
    for case, (source, target, options) in ways.items():
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        done = nwbflow.repack(folder / source, folder / target, memory=MEMORY, progress=False, **options)
        taken = status("VmHWM") - before
        print(json.dumps({"case": case, "taken": taken, "memory": MEMORY, "raw": done.receipt.raw_bytes}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
