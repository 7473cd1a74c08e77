"""Write arrays ten times larger than the memory allowed, and report the most memory each write took.

Imports once, then forks a process for each case; prints one JSON object: case to figures in bytes.
"""

import json
import os
import re
import sys
import traceback
from pathlib import Path

import h5py
import numpy as np
import support

import nwbflow
import nwbflow.nwb.fill

MEMORY = 16 * 2**20
ROWS, COLUMNS = 10 * MEMORY // 2 // 256, 256
CHUNKS = (4096, 64)
BLOCK_ROWS = 1000

_planned = []
_make_plan = nwbflow.nwb.fill.make_plan


def _noting_make_plan(*args, **kwargs):
    _planned.append(_make_plan(*args, **kwargs))
    return _planned[-1]


nwbflow.nwb.fill.make_plan = _noting_make_plan


def most_resident():
    """Return the largest resident size since the last :func:`forget`, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def forget():
    Path("/proc/self/clear_refs").write_text("5")


def rows(count=ROWS):
    return (np.arange(count * COLUMNS, dtype="u4") % 1021).astype("i2").reshape(count, COLUMNS)


def block_stream():
    piece = rows(BLOCK_ROWS)
    return nwbflow.blocks(
        (piece[: min(BLOCK_ROWS, ROWS - at)].copy() for at in range(0, ROWS, BLOCK_ROWS)),
        shape=(None, COLUMNS),
        dtype="i2",
    )


def wrapped(data, codec="gzip-fast"):
    return nwbflow.DataIO(data, chunks=CHUNKS, codec=codec)


def stock_h5py(folder):
    return h5py.File(folder / "source.h5", "r")["x"]


def tiles(folder):
    return support.Tiles(stock_h5py(folder), chunk_shape=CHUNKS, buffer_shape=CHUNKS)


CASES = {
    "raw": lambda folder: wrapped(nwbflow.raw(folder / "source.bin", dtype="i2", shape=(None, COLUMNS))),
    "raw, verified in full": lambda folder: wrapped(
        nwbflow.raw(folder / "source.bin", dtype="i2", shape=(None, COLUMNS))
    ),
    "raw, uncompressed": lambda folder: nwbflow.DataIO(
        nwbflow.raw(folder / "source.bin", dtype="i2", shape=(None, COLUMNS))
    ),
    "memmap": lambda folder: wrapped(np.memmap(folder / "source.bin", "i2", "r", shape=(ROWS, COLUMNS))),
    "h5py": lambda folder: wrapped(stock_h5py(folder)),
    "blocks": lambda folder: wrapped(block_stream()),
    "GenericDataChunkIterator": lambda folder: wrapped(tiles(folder)),
    "raw, filters run by HDF5": lambda folder: wrapped(
        nwbflow.raw(folder / "source.bin", dtype="i2", shape=(None, COLUMNS)), "lzf"
    ),
}


def measure(case, folder):
    warm = nwbflow.DataIO(np.ones((4096, 64), "i2"), codec="gzip-fast")
    support.write_array(folder / "warm.h5", warm, workers=2)
    data = CASES[case](folder)
    _planned.clear()
    forget()
    before = most_resident()
    receipt = support.write_array(
        folder / "x.h5", data, memory=MEMORY, workers=2, verify="full" if "full" in case else "stored"
    )
    after = most_resident()
    assert receipt.raw_bytes == ROWS * COLUMNS * 2
    return {"taken": after - before, "planned": _planned[0].peak_bytes, "raw": receipt.raw_bytes}


def main():
    folder = Path(sys.argv[1])
    with h5py.File(folder / "source.h5", "w") as file:
        source = file.create_dataset("x", (ROWS, COLUMNS), "i2", chunks=(512, COLUMNS))
        with (folder / "source.bin").open("wb") as raw:
            for at in range(0, ROWS, 4096):
                piece = rows(min(4096, ROWS - at))
                raw.write(piece.tobytes())
                source[at : at + len(piece)] = piece
    for case in CASES:
        sys.stdout.flush()
        if os.fork() == 0:
            try:
                print(json.dumps({"case": case, **measure(case, folder)}), flush=True)
            except BaseException:
                print(json.dumps({"case": case, "error": traceback.format_exc()}), flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main()
