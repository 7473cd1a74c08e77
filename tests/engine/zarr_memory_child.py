"""Write noise, which no codec shrinks, several times larger than the memory allowed; print what each write took."""

import json
import re
import sys
from pathlib import Path

import numpy as np
from support import session

import nwbflow

MEMORY, COLUMNS = 32 * 2**20, 256
ROWS = 5 * MEMORY // 2 // COLUMNS


def status(key):
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def main(folder):
    noise = np.random.default_rng(0).integers(0, 2**16, (ROWS // 20, COLUMNS), dtype="u2")
    with (folder / "raw.bin").open("wb") as file:
        for _ in range(20):
            noise.tofile(file)
    nwbflow.write(session(a=noise), folder / "warm.nwb.zarr", progress=False)
    cases = {
        "raw": lambda: nwbflow.raw(folder / "raw.bin", dtype="u2", shape=(ROWS, COLUMNS)),
        "blocks": lambda: nwbflow.blocks(
            (noise[:5000] for _ in range(ROWS // 5000)), shape=(None, COLUMNS), dtype="u2"
        ),
    }
    for name, make in cases.items():
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        receipt = nwbflow.write(session(a=make()), folder / "x.nwb.zarr", memory=MEMORY, progress=False, overwrite=True)
        layout = receipt.datasets[0].layout
        print(
            json.dumps(
                {
                    "case": name,
                    "taken": status("VmHWM") - before,
                    "memory": MEMORY,
                    "raw": receipt.raw_bytes,
                    "shards": layout.shards,
                    "chunks": layout.chunks,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
