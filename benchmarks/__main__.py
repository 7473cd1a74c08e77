"""Run the benchmarks: ``python -m benchmarks [--seconds 20] [--rounds 3] [--folder DIR]``."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

from benchmarks import copies, links, memory, repack, write, zarr


def main() -> None:
    """Run everything and print tables."""
    parser = argparse.ArgumentParser(description="ratios against named peers, interleaved")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the simulated recording")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.2f}, Python {platform.python_version()}")
    if load > 0.5:
        print("the machine is busy: wall times will be too long, most of all with 2 workers; cpu ratios still hold")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write.run(Path(folder), options.seconds, options.rounds)
        memory.run(Path(folder))
        links.run(Path(folder), options.rounds)
        copies.run(Path(folder), options.seconds, options.rounds)
        zarr.run(Path(folder), options.seconds, options.rounds)
        repack.run(Path(folder), options.seconds, options.rounds)


if __name__ == "__main__":
    main()
