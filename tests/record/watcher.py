"""A process that follows a recording of :mod:`rig` live, and checks every row it is given.

Runs as :mod:`writer` does: imports once, forks a process for each request.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import rig
from writer import say, serve


class Check:
    """Compares what a tail gives with what was appended."""

    def __init__(self, layout: str, name: str) -> None:
        self.name = name
        self.columns, self.stamped = rig.LAYOUTS[layout][name]
        self.first: int | None = None
        self.row = self.blocks = 0

    def take(self, block: Any) -> None:
        """Check one block; it must follow on the last."""
        import numpy as np

        if self.first is None:
            self.first = self.row = block.first
        assert block.first == self.row, f"{self.name}: row {block.first} follows on {self.row}"
        assert np.array_equal(block["data"], rig.samples(self.name, block.first, block.count, self.columns))
        if self.stamped:
            assert np.array_equal(block["timestamps"], rig.times(block.first, block.count))
        self.row += block.count
        self.blocks += 1


def watch(request: dict[str, Any]) -> None:
    """Do what one request asks.

    Its keys: ``path``, ``how`` (the rig's layout), ``series`` (names, each followed in a thread), ``start``, ``wait``,
    ``pause_at`` (a row at which to stop reading until a file named ``go`` is beside the path), ``limit`` (a row at
    which to stop for good).
    """
    results: dict[str, Any] = {}
    threads = [threading.Thread(target=follow, args=(request, name, results)) for name in request["series"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("result", results)


def follow(request: dict[str, Any], name: str, results: dict[str, Any]) -> None:
    """Follow one series, and note how that went."""
    import time

    import nwbflow

    check, problem, kind, ended = Check(request["how"], name), "", "", False
    path = Path(request["path"])
    try:
        with nwbflow.tail(path, name, start=request.get("start", 0), wait=request.get("wait", 60.0)) as live:
            say(f"following {name}", live.row)
            for block in live:
                check.take(block)
                say(f"seen {name}", check.row)
                if check.row >= request.get("limit", 2**62):
                    break
                if check.row >= request.get("pause_at", 2**62) and not path.with_name("go").exists():
                    say("paused")
                    while not path.with_name("go").exists():
                        time.sleep(0.001)
            ended = live.ended
    except nwbflow.NwbflowError as error:
        problem, kind = str(error), str(error.kind)
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"
    results[name] = {
        "first": check.first,
        "row": check.row,
        "blocks": check.blocks,
        "problem": problem,
        "kind": kind,
        "ended": ended,
    }


if __name__ == "__main__":
    serve(watch)
