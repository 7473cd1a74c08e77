"""Makes the shared helpers importable as ``support``, and offers what most rooms need."""

import signal
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C is tested, here and in programs started from here

POOLS = ("asyncio_", "zarr_io", "ThreadPoolExecutor")
"""Threads that zarr and dask keep for as long as the process lives."""


@pytest.fixture
def no_thread_left():
    """Fail a test that leaves a thread running."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in left if not name.startswith(POOLS)]
