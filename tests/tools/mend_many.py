"""Damaged copies by the hundred: ``python mend_many.py FOLDER COUNT SEED`` cuts and changes a file, and mends each.

A lie is a dataset that is said to be whole and is not: every row that is kept and not named as damaged is compared with
the original. The file has checksums on all its metadata (libver v110) and data (fletcher32), so that every change of a
byte can be seen; of what has none it can't be.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from nwbflow.errors import NwbflowError
from nwbflow.tools.mend.isolated import isolated
from nwbflow.tools.mend.mend import mend


def make(path):
    """Return what is in the file, by path."""
    chance = np.random.default_rng(5)
    content = {
        "/a/first": chance.integers(1, 1000, (900, 3)),
        "/a/second": chance.random(1000),
        "/b/third": chance.integers(1, 9, (40, 50, 2)).astype("u1"),
        "/b/c/fourth": np.arange(1, 500, dtype="f4"),
    }
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, values in content.items():
            chunks = (max(1, len(values) // 10), *values.shape[1:])
            made = file.create_dataset(
                name,
                data=values,
                chunks=chunks,
                fletcher32=True,
                compression="gzip",
                maxshape=(None, *values.shape[1:]),
            )
            made.attrs["number"], made.attrs["text"] = 7, "text"
            made.parent.attrs["to"] = made.ref
        file["/b/link"] = h5py.SoftLink("/a/first")
        file["/b/again"] = file["/a/second"]
    return content


def damaged(whole, chance):
    """Return a copy that is cut, or changed in a few bytes or in a stretch, or all of that."""
    content = bytearray(whole)
    kind = chance.choice(["cut", "bits", "bits", "stretch", "both"])
    if kind in ("bits", "both"):
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    if kind == "stretch":
        start = chance.randrange(48, len(content))
        stop = min(len(content), start + chance.randrange(1, 3000))
        content[start:stop] = bytes(stop - start) if chance.random() < 0.5 else chance.randbytes(stop - start)
    if kind in ("cut", "both"):
        del content[chance.randrange(len(content)) :]
    return bytes(content)


def lies(path, datasets, content):
    wrong = []
    with h5py.File(path, "r") as file:
        for each in datasets:
            name = each["name"].replace("/b/again", "/a/second")  # the second name of one whose first is lost
            if name not in content or each["name"] not in file:
                continue
            stored, good = file[each["name"]][:], np.ones(each["kept"], bool)
            for start, stop in each["damaged"]:
                good[start:stop] = False
            wanted = content[name]
            if len(stored) != each["kept"] or not np.array_equal(stored[good], wanted[: each["kept"]][good]):
                wrong.append(each["name"])
    return wrong


def many(folder, count, seed):
    whole, copy, out = folder / "whole.h5", folder / "copy.h5", folder / "out.h5"
    content = make(whole)
    chance, told = random.Random(seed), {"mended": 0, "nothing": 0, "fine": 0, "lies": [], "slowest": 0.0}
    for number in range(count):
        state = whole.read_bytes()
        copy.write_bytes(damaged(state, chance))
        out.unlink(missing_ok=True)
        begun = time.monotonic()
        try:
            found = mend(copy, out, quiet_seconds=20)
        except NwbflowError:
            told["nothing"] += 1
            assert not out.exists()
            continue
        finally:
            told["slowest"] = max(told["slowest"], round(time.monotonic() - begun, 1))
        if found["fine"]:
            told["fine"] += 1
            found = {"datasets": [{"name": name, "kept": len(v), "damaged": []} for name, v in content.items()]}
            wrong = lies(copy, found["datasets"], content)
        else:
            told["mended"] += 1
            wrong = lies(out, found["datasets"], content)
            named = {each["name"] for each in found["datasets"]} | {text.split(":")[0] for text in found["lost"]}
            above = {
                name for name in content if any(lost == "/" or f"{name}/".startswith(f"{lost}/") for lost in named)
            }
            wrong += [f"{name} is not named" for name in set(content) - above]
        told["lies"] += [[number, *wrong]] if wrong else []
    print(json.dumps(told))
    return not told["lies"]


def deaths():
    def hang(say):
        say("/here")
        time.sleep(60)

    def crash(say):
        say("/there")
        os.kill(os.getpid(), signal.SIGSEGV)

    def fail(say):
        raise ValueError("no")

    hung, crashed = isolated(hang, quiet_seconds=0.5), isolated(crash)
    told = {"hang": [hung.died, hung.at], "crash": [crashed.died, crashed.at], "error": isolated(fail).failed}
    print(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[1] == "deaths":
        deaths()
    else:
        sys.exit(0 if many(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])) else 1)
