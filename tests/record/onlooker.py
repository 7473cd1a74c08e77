"""Read a partial file with stock h5py, in SWMR mode, as often as possible, and check every row.

``python onlooker.py PARTIAL SERIES...``: each series has ``data`` (row i is 7 times i modulo 9973 in every column) and
``timestamps`` (i / 10). Ends when standard input does, and prints what it saw as JSON.
"""

import json
import random
import select
import sys

import h5py
import numpy as np


def check(group, chance):
    """Read the end of a series and return its numbers of rows, or raise."""
    group["data"].refresh()
    rows = len(group["data"])
    group["timestamps"].refresh()
    times = len(group["timestamps"])
    first = max(0, rows - chance.choice([1, 30, 10**6]))
    expected = np.arange(first, rows) * 7 % 9973
    assert (group["data"][first:rows] == expected[:, None]).all(), f"wrong data among rows {first} to {rows}"
    first = max(0, times - chance.choice([1, 30, 10**6]))
    assert (group["timestamps"][first:times] == np.arange(first, times) / 10).all(), f"wrong times below {times}"
    return rows, times


def main():
    """Look until nobody wants it any more."""
    path, *series = sys.argv[1:]
    chance = random.Random(1)
    seen = {name: set() for name in series}
    looks = behind = 0
    file = h5py.File(path, "r", swmr=True)
    print("looking", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for name in series:
            rows, times = check(file[f"acquisition/{name}"], chance)
            seen[name].add(rows)
            behind += times < rows
            looks += 1
        if looks % 200 == 0:  # once more from the beginning, as somebody who comes later
            file.close()
            file = h5py.File(path, "r", swmr=True)
    print(json.dumps({"looks": looks, "behind": behind, "lengths": {name: len(rows) for name, rows in seen.items()}}))


if __name__ == "__main__":
    main()
