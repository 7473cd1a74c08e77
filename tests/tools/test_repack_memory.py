"""Repacking takes no more memory than it was allowed, whichever way, and also where chunks lie across each other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALLOWANCE = 24 * 2**20
"""For what is not the data's: Python's, zarr-python's and the C library's own growth."""


@pytest.mark.requirement("T1")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_sources_several_times_larger_than_memory_are_repacked_within_it(tmp_path):
    command = [sys.executable, str(HERE / "repack_memory_child.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 5
    for one in found:
        assert one["raw"] > 4 * one["memory"]
        assert one["taken"] <= one["memory"] + ALLOWANCE, one
