"""Deflate encoders side by side: MB per second of processor time, ratio, and both against zlib.

    python benchmarks/encoders.py [--rounds 3] [--efforts 4 fast 1 6]

Every encoder does the whole work on one chunk (byte shuffle, zlib stream, CRC-32 of the
result) in one process and one thread. Rounds are interleaved, figures are medians; the
columns "speed" and "size" are ratios to numpy's shuffle and the standard library's zlib at
the level the effort is held against. Real recordings are looked for in the folder that
NWBFLOW_REALDATA names (default: ../shared/realdata beside the repository), one chunk each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.encoding.deflate import deflate
from nwbflow.encoding.shuffle import shuffle
from nwbflow.testing.simulate import neuropixels

type Array = np.ndarray[Any, np.dtype[Any]]
REALDATA = Path(os.environ.get("NWBFLOW_REALDATA", Path(__file__).parents[2] / "shared" / "realdata"))


def chunks() -> dict[str, Array]:
    """Name to one C-contiguous chunk."""
    probe = neuropixels(78125 / 30000)
    found = {
        "probe (78125, 64)": np.ascontiguousarray(probe[:78125, :64]),
        "probe (12000, 384)": np.ascontiguousarray(probe[:12000]),
        "probe (2000, 64)": np.ascontiguousarray(probe[:2000, :64]),
    }
    for about in sorted(REALDATA.glob("*.json")):
        facts = json.loads(about.read_text())
        found[about.stem] = np.fromfile(about.with_suffix(".bin"), facts["dtype"]).reshape(facts["shape"])
    return found


def stock(level: int) -> Callable[[Array], bytes]:
    def encode(chunk: Array) -> bytes:
        planes = np.ascontiguousarray(chunk.reshape(-1).view(np.uint8).reshape(-1, chunk.itemsize).T)
        return zlib.compress(planes, level)

    return encode


def ours(effort: int | str) -> Callable[[Array], bytes]:
    def encode(chunk: Array) -> bytes:
        return deflate(
            shuffle(chunk.reshape(-1).view(np.uint8).data, chunk.itemsize), planes=chunk.itemsize, effort=effort
        )

    return encode


def measure(encode: Callable[[Array], bytes], chunk: Array) -> tuple[float, int]:
    start = time.process_time()
    result = encode(chunk)
    crc32(result)
    return time.process_time() - start, len(result)


def table(efforts: list[str], rounds: int) -> None:
    kinds = [int(e) if e.isdigit() else e for e in efforts]
    print(f"{'data':20} {'encoder':12} {'MB/s':>7} {'ratio':>7} {'speed':>7} {'size':>7}")
    for name, chunk in chunks().items():
        levels = sorted({4 if kind == "fast" else int(kind) for kind in kinds})
        encoders = {f"zlib {level}": stock(level) for level in levels} | {f"nwbflow {k}": ours(k) for k in kinds}
        runs = [{label: measure(encode, chunk) for label, encode in encoders.items()} for _ in range(rounds)]
        seconds = {label: statistics.median(run[label][0] for run in runs) for label in encoders}
        for label in encoders:
            size = runs[0][label][1]
            peer = f"zlib {label.split()[1].replace('fast', '4')}"
            print(
                f"{name:20} {label:12} {chunk.nbytes / 1e6 / seconds[label]:7.0f} {chunk.nbytes / size:7.3f} "
                f"{seconds[peer] / seconds[label]:7.2f} {size / runs[0][peer][1]:7.4f}"
            )


def busy(encode: Callable[[Array], bytes], chunk: Array) -> float:
    """Processors that two encoding threads keep busy."""

    def work() -> None:
        for _ in range(8):
            encode(chunk)

    threads = [threading.Thread(target=work) for _ in range(2)]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def scaling() -> None:
    """Print the processors busy; other work on the machine lowers zlib's figure as well."""
    chunk = neuropixels(0.4)
    for label, encode in (("zlib 4", stock(4)), ("nwbflow 4", ours(4)), ("nwbflow fast", ours("fast"))):
        print(f"two threads, {label}: {busy(encode, chunk):.2f} processors busy")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--efforts", nargs="+", default=["4", "fast"])
    options = parser.parse_args()
    table(options.efforts, options.rounds)
    scaling()
