"""Record simulated probes: sustained rate, acknowledgement latency, memory.

``python -m benchmarks.record --minutes 10`` feeds one probe (384 channels, 30 kHz, int16) in real time;
``--flat-out`` feeds it as fast as it is taken, which shows the head-room.
"""

from __future__ import annotations

import argparse
import ctypes
import queue
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pynwb import NWBFile, TimeSeries

import nwbflow
from nwbflow.testing.simulate import neuropixels

RATE, CHANNELS, ROWS = 30_000, 384, 1000


def status(key: str) -> float:
    """Return a figure of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(key))


def disk_use(folder: Path) -> float:
    """Return what the files of a folder take, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def session(probes: int) -> NWBFile:
    """Return a file with so many live probes."""
    nwbfile = NWBFile("a benchmark", "id", datetime(2026, 1, 1, tzinfo=UTC))
    for number in range(probes):
        data = nwbflow.live((None, CHANNELS), "int16")
        nwbfile.add_acquisition(TimeSeries(name=f"probe{number}", data=data, unit="V", rate=float(RATE)))
    return nwbfile


def feed(series: nwbflow.RecordedSeries, samples: np.ndarray, blocks: int, *, paced: bool) -> list[float]:
    """Append blocks of 33 ms and return how long each took to be acknowledged, in seconds."""
    waiting: queue.SimpleQueue[tuple[float, nwbflow.Ticket] | None] = queue.SimpleQueue()
    latencies: list[float] = []

    def watch() -> None:
        while (item := waiting.get()) is not None:
            began, ticket = item
            ticket.wait()
            latencies.append(time.perf_counter() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    for number in range(blocks):
        if paced:
            time.sleep(max(0.0, start + number * ROWS / RATE - time.perf_counter()))
        at = number * ROWS % len(samples)
        began = time.perf_counter()
        waiting.put((began, series.append(samples[at : at + ROWS])))
    waiting.put(None)
    watcher.join()
    return latencies


def main() -> None:
    """Record, and print figures."""
    parser = argparse.ArgumentParser(description="record simulated probes")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--probes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sync", default="process")
    parser.add_argument("--profile", default="default")
    parser.add_argument("--flat-out", action="store_true", help="as fast as it is taken")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    samples = neuropixels(10.0)
    blocks = int(options.minutes * 60 * RATE / ROWS)
    seconds = blocks * ROWS / RATE
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        ctypes.CDLL(None).malloc_trim(0)  # what simulating took is not to be counted as free room
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        path = Path(folder) / "session.nwb"
        recorder = nwbflow.Recorder(
            session(options.probes), path, sync=options.sync, workers=options.workers, profile=options.profile
        )
        processor, start = time.process_time(), time.perf_counter()
        results: list[list[float]] = []
        threads = [
            threading.Thread(
                target=lambda name=name: results.append(
                    feed(recorder[name], samples, blocks, paced=not options.flat_out)
                )
            )
            for name in recorder
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fed = time.perf_counter() - start
        used = disk_use(Path(folder))
        receipt = recorder.close()
        whole = time.perf_counter() - start
        latencies = np.concatenate(results) * 1000
        print(
            f"{options.probes} probe(s), {seconds:.0f} s, workers={options.workers}, sync={options.sync}: "
            f"fed in {fed:.1f} s, closed after {whole - fed:.1f} s more ({receipt.verify_seconds:.1f} s of it "
            f"verifying); {options.probes * seconds / whole:.2f} probes in real time, "
            f"{(time.process_time() - processor) / (options.probes * seconds):.2f} s of processor time a second"
        )
        p50, p99 = np.percentile(latencies, [50, 99])
        print(
            f"acknowledged after {p50:.2f} ms (median), {p99:.2f} ms (99 %), {latencies.max():.1f} ms (most); "
            f"memory {status('VmHWM') - before:.0f} MB; disk while recording {used:.0f} MB, "
            f"file {receipt.stored_bytes / 1e6:.0f} MB, ratio {receipt.ratio:.2f}"
        )


if __name__ == "__main__":
    main()
