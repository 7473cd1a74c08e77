"""Makes the shared helpers importable as ``support``, and offers what most rooms need."""

import os
import shutil
import signal
import subprocess
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


@pytest.fixture
def small_disk(tmp_path, request):
    """A file system of few MiB, as many as the module's ``DISK_MIB`` says, or 12."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root and the mount command")
    size = getattr(request.module, "DISK_MIB", 12)
    options = ["-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system can't be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # also while a process still holds it
