"""Record a simulated probe in real time, watched in several ways: processor time of the watching, beside the whole.

``python -m benchmarks.watch --seconds 20``. Whole runs differ by more than watching costs; so the threads that do it
are asked for their own time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console

import nwbflow
from benchmarks.record import CHANNELS, RATE, ROWS, session
from nwbflow.observe import JsonLines, ProgressBar, Prometheus
from nwbflow.observe.hub import Progress
from nwbflow.testing.simulate import neuropixels

WATCHING = ("nwbflow-events", "nwbflow-disk")


def terminal() -> Console:
    """Return a terminal that swallows what is drawn."""
    return Console(file=Path(os.devnull).open("w"), force_terminal=True, width=120, height=24)


def record(progress: Progress, seconds: float) -> tuple[float, float]:
    """Record and return processor time of the process and of the threads that watch, in seconds."""
    samples = neuropixels(2.0, channels=CHANNELS)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        with nwbflow.Recorder(session(1), Path(folder) / "a.nwb", workers=1, progress=progress) as recorder:
            threads = [thread for thread in threading.enumerate() if thread.name in WATCHING]
            clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threads if thread.ident is not None]
            start = time.perf_counter()
            for block in range(int(seconds * RATE / ROWS)):
                time.sleep(max(0.0, start + block * ROWS / RATE - time.perf_counter()))
                at = block * ROWS % (len(samples) - ROWS)
                recorder["probe0"].append(samples[at : at + ROWS])
            watching = sum(time.clock_gettime(clock) for clock in clocks)
        return time.process_time() - began, watching


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Progress] = {
            "a callable": lambda _: None,
            "progress bar": ProgressBar(console=terminal()),
            "JSON lines": JsonLines(Path(folder) / "events.jsonl"),
            "Prometheus": Prometheus(),
        }
        for name, progress in ways.items():
            whole, watching = record(progress, seconds)
            print(f"{name:>14}: {watching:.3f} s of {whole:.2f} s processor time, {watching / whole:.1%}")


if __name__ == "__main__":
    main()
