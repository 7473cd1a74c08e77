"""Writes Zarr stores in processes that are killed at a chosen file operation; run by test_zarr_interrupted.py.

Usage: ``zarr_killer.py FOLDER new|replace POINTS SEED``. Prints one JSON line a point: what is at the path afterwards
(``absent``, ``old``, ``new`` or what is wrong), and what is in the folder when the next write has ended.
"""

import json
import os
import random
import shutil
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import hdmf_zarr
import numpy as np
import pynwb

import nwbflow
import nwbflow.nwb.zarr_io  # so that no child has to import it

OPERATIONS = (
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "ctypes.dlsym/handle",
    "ctypes.dlsym",
)
OLD, NEW = (np.arange(60000, dtype="i2").reshape(-1, 4) * factor for factor in (1, 3))
PROFILE = nwbflow.Profile(name="p", codec=("gzip", 1), chunk_bytes=8192, min_bytes=0)


def write(path: Path, data: np.ndarray, *, overwrite: bool = False) -> None:
    nwbfile = pynwb.NWBFile(
        session_description="s", identifier="i", session_start_time=datetime(2026, 1, 1, tzinfo=UTC)
    )
    nwbfile.add_acquisition(pynwb.TimeSeries(name="a", data=data, unit="V", rate=1.0))
    # little memory, so that there are several shards
    nwbflow.write(nwbfile, path, profile=PROFILE, progress=False, memory=200_000, overwrite=overwrite)


def in_child(task) -> tuple[int, str]:
    """Run a task in a forked process; return its status and what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 0
        try:
            os.write(writing, str(task()).encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}"[:2000].encode())
            code = 1
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    return os.waitpid(child, 0)[1], said


def counted(folder: Path, kill_at: int | None, task) -> int:
    """Run a task, counting the operations on files below `folder`, and end the process before one of them."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event not in OPERATIONS:
            return
        if event == "open" and not (isinstance(arguments[0], str | os.PathLike) and str(folder) in str(arguments[0])):
            return
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    task()
    return seen


def look(path: Path) -> str:
    if not path.exists():
        return "absent"
    with hdmf_zarr.NWBZarrIO(str(path), "r") as io:
        found = io.read().acquisition["a"].data[:]
    for name, data in (("old", OLD), ("new", NEW)):
        if np.array_equal(found, data):
            return name
    return f"neither: {found.shape}"


def main(folder: Path, kind: str, points: int, seed: int) -> None:
    pristine = folder / "pristine.nwb.zarr"
    if kind == "replace":
        in_child(lambda: write(pristine, OLD))
    place = folder / "place"
    path = place / "s.nwb.zarr"

    def fresh() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if kind == "replace":
            shutil.copytree(pristine, path)

    fresh()
    task = lambda: write(path, NEW, overwrite=kind == "replace")  # noqa: E731
    status, said = in_child(lambda: counted(place, None, task))
    if status:
        raise SystemExit(said)
    total = int(said)
    # half of the points anywhere, half of them where the new store is put in place and the old one is removed
    tail = 120 if kind == "replace" else 12
    random.seed(seed)
    last = min(points // 2, tail)
    chosen = random.sample(range(1, total - tail), points - last) + random.sample(range(total - tail, total + 1), last)
    for point in sorted(chosen):
        fresh()
        status, said = in_child(lambda at=point: counted(place, at, task))
        found = in_child(lambda: look(path))[1]
        left = sorted(item.name for item in place.iterdir())
        after = in_child(lambda: write(path, NEW, overwrite=True))[1]
        names = sorted(item.name for item in place.iterdir())
        print(
            json.dumps(
                {
                    "point": point,
                    "of": total,
                    "killed": os.WIFSIGNALED(status),
                    "said": said,
                    "found": found,
                    "left": left,
                    "after": [after, in_child(lambda: look(path))[1], names],
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
