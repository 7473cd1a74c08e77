"""Peak memory of a child process against the plan's figure, for sources ten times the limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

CHILD = """
import sys
from pathlib import Path
import numpy as np
import nwbflow
from benchmarks.data import nwbfile
path, out, kind, limit, rows = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
shape = (rows, 384)
if kind == "raw":
    data = nwbflow.raw(path, dtype="<i2", shape=shape)
elif kind == "memmap":
    data = np.memmap(path, dtype="<i2", mode="r", shape=shape)
else:
    def parts():
        source = np.memmap(path, dtype="<i2", mode="r", shape=shape)
        for start in range(0, rows, 5000):
            yield np.fromfile(path, dtype="<i2", count=5000 * 384, offset=start * 768).reshape(-1, 384)
    data = nwbflow.blocks(parts(), shape=(None, 384), dtype="int16")
file = nwbfile(nwbflow.DataIO(data, chunks=(10000, 64)))
nwbflow.write(nwbfile(nwbflow.DataIO(np.zeros((70000, 4), "i2"))), out, overwrite=True, progress=False)
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far, which is partly the parent's
before = status("VmRSS")
nwbflow.write(file, out, overwrite=True, progress=False, memory=limit)
print(status("VmHWM") - before)
"""


def run(folder: Path, limit_mb: int = 60) -> None:
    """Print peak memory beyond the start for each kind of source."""
    rows = limit_mb * 10_000_000 // 768
    path = folder / "recording.bin"
    block = np.random.default_rng(0).integers(-60, 60, (5000, 384)).astype("<i2").tobytes()
    with path.open("wb") as file:
        for _ in range(-(-rows // 5000)):
            file.write(block)
    rows = path.stat().st_size // 768
    print(f"\npeak memory beyond the start, source of {path.stat().st_size / 1e6:.0f} MB, limit {limit_mb} MB")
    for kind in ("raw", "memmap", "blocks"):
        result = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), str(folder / "m.nwb"), kind, f"{limit_mb} MB", str(rows)],
            capture_output=True,
            text=True,
            check=True,
        )
        used = int(result.stdout) * 1024
        print(f"  {kind:10s} {used / 1e6:6.1f} MB ({used / 1e6 / limit_mb:.2f} of the limit)", flush=True)
    path.unlink()
