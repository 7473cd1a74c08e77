"""Watch a simulated probe while it is recorded: how long after ``append`` another process has each block.

``python -m benchmarks.tail --minutes 1`` feeds one probe (384 channels, 30 kHz, int16) in real time and follows it
with :func:`nwbflow.tail` in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import nwbflow
from benchmarks.record import RATE, ROWS, session
from nwbflow.testing.simulate import neuropixels


def watch(path: Path, say: Connection) -> None:
    """Follow the probe; send when each block was there, and the processor time it took."""
    seen: list[tuple[int, float]] = []
    with nwbflow.tail(path, "probe0", wait=60) as blocks:
        say.send("watching")
        for block in blocks:
            seen.append((block.first, time.perf_counter()))  # the same clock in all processes
    say.send((seen, time.process_time()))


def main() -> None:
    """Record and watch, and print figures."""
    parser = argparse.ArgumentParser(description="watch a simulated probe while it is recorded")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sync", default="process")
    options = parser.parse_args()
    samples = neuropixels(10.0)
    blocks = int(options.minutes * 60 * RATE / ROWS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.nwb"
        hear, say = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        watcher = context.Process(target=watch, args=(path, say))
        watcher.start()
        sent: dict[int, float] = {}
        with nwbflow.Recorder(session(1), path, sync=options.sync, workers=options.workers) as recorder:
            hear.recv()
            start = time.perf_counter()
            for number in range(blocks):
                time.sleep(max(0.0, start + number * ROWS / RATE - time.perf_counter()))
                at = number * ROWS % len(samples)
                sent[number * ROWS] = time.perf_counter()
                recorder["probe0"].append(samples[at : at + ROWS])
        seen, processor = hear.recv()
        watcher.join()
    assert [first for first, _ in seen] == sorted(sent), "not every block once, in order"
    lags = np.array([there - sent[first] for first, there in seen]) * 1000
    p50, p99 = np.percentile(lags, [50, 99])
    print(
        f"one probe, {options.minutes * 60:.0f} s, sync={options.sync}: {len(seen)} blocks, each once; in the other "
        f"process after {p50:.1f} ms (median), {p99:.1f} ms (99 %), {lags.max():.1f} ms (most); the watcher took "
        f"{processor / (options.minutes * 60) * 100:.0f} % of a core"
    )


if __name__ == "__main__":
    main()
