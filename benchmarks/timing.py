"""Interleaved timing: every contender once a round, so that a busy machine hurts all alike."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass
class Figures:
    """What one contender took, round by round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    size: int = 0

    def median_wall(self) -> float:
        return statistics.median(self.wall)

    def median_cpu(self) -> float:
        return statistics.median(self.cpu)


def interleave(contenders: Mapping[str, Callable[[], int]], rounds: int, folder: Path) -> dict[str, Figures]:
    """Run every contender once a round, in an empty folder; each returns the bytes it stored.

    The first round warms caches and is not counted.
    """
    figures = {name: Figures() for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            for left in folder.iterdir():  # replacing a file frees its pages, which takes time too
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            os.sync()  # nobody pays for another's dirty pages
            wall, cpu = time.perf_counter(), _cpu()
            size = run()
            if number:
                figures[name].wall.append(time.perf_counter() - wall)
                figures[name].cpu.append(_cpu() - cpu)
                figures[name].size = size
    return figures


def _cpu() -> float:
    """Return the processor time of this process, those that have ended, and those of pools, which go on."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def table(title: str, figures: Mapping[str, Figures], against: str, raw_bytes: int) -> None:
    """Print medians and ratios to the contender named `against` (above 1: faster, or smaller)."""
    base = figures[against]
    print(f"\n{title} ({raw_bytes / 1e6:.0f} MB, {len(base.wall)} rounds, medians; ratios to {against})")
    print(
        f"  {'contender':44s} {'wall s':>7s} {'MB/s':>6s} {'wall x':>7s} {'cpu x':>6s} {'stored MB':>10s} {'size':>6s}"
    )
    for name, f in figures.items():
        wall = f.median_wall()
        print(
            f"  {name:44s} {wall:7.2f} {raw_bytes / 1e6 / wall:6.0f} {base.median_wall() / wall:7.2f} "
            f"{base.median_cpu() / f.median_cpu():6.2f} {f.size / 1e6:10.1f} {f.size / base.size:6.3f}",
            flush=True,
        )
