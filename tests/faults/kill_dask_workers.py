"""Kill a Dask worker at random points of twenty writes; each file must be equal, each chunk stored once.

Usage: python tests/faults/kill_dask_workers.py [WRITES]
"""

import sys
import tempfile
from pathlib import Path

import pytest

TEST = Path(__file__).parent.parent / "parallel" / "test_dask.py"


class Kills:
    """Sets how often the test kills."""

    def __init__(self, number):
        self.number = number

    def pytest_collection_modifyitems(self, items):
        """Change the constant of the test's module."""
        for item in items:
            item.module.KILLS = self.number


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder:
        options = ["-q", "--timeout", "1800", "--basetemp", folder, "-k", "killed_while", str(TEST)]
        sys.exit(pytest.main(options, plugins=[Kills(number)]))
