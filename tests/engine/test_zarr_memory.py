"""Shards are put together in no more memory than was allowed, also where no codec shrinks them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALLOWANCE = 24 * 2**20
"""For what is not the data's: Python's and the C library's own growth."""


@pytest.mark.requirement("P4")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_writes_several_times_larger_than_memory_stay_within_it(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, str(HERE / "zarr_memory_child.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["case"] for one in found] == ["raw", "blocks"]
    for one in found:
        assert one["raw"] > 4 * one["memory"]
        assert one["shards"] is not None
        assert one["taken"] <= one["memory"] + ALLOWANCE, one
