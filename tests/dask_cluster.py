"""A Dask scheduler and its workers as processes of their own, and data that only workers compute."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import dask.array
import numpy as np
from distributed import Client

TESTS = Path(__file__).parent
QUIET = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s", "OMP_NUM_THREADS": "1"}


class Cluster:
    """Scheduler and workers on loopback.

    Parameters
    ----------
    folder : pathlib.Path
        For their files and logs.
    settings : mapping
        Settings of Dask, as variables of the environment.
    """

    def __init__(self, folder, settings=None):
        self.folder = Path(folder)
        self.file = self.folder / "scheduler.json"
        self.settings = settings or {}
        self.workers = []
        self.start_scheduler(0)

    def start_scheduler(self, port):
        """Start the scheduler, at a port (0 for any)."""
        self.scheduler = self._start("scheduler", "--port", str(port), "--host", "127.0.0.1", "--no-dashboard")

    def _start(self, kind, *arguments, first=()):
        path = os.pathsep.join([*map(str, first), str(TESTS), os.environ.get("PYTHONPATH", "")])
        with (self.folder / f"{kind}-{time.monotonic_ns()}.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", kind, "--scheduler-file", str(self.file), *arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, **QUIET, **self.settings, "PYTHONPATH": path},
            )

    def add_worker(self, *first):
        """Start a worker of one thread, without a nanny: what is killed stays dead; `first` come first on its path."""
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder))
        self.workers.append(self._start("worker", *options, first=first))

    def kill_worker(self):
        """Kill the oldest worker."""
        kill(self.workers.pop(0))

    def close(self):
        """Kill all that is left."""
        for process in (*self.workers, self.scheduler):
            kill(process)


def kill(process):
    """Kill a process at once and wait for its end."""
    process.send_signal(signal.SIGKILL)
    process.wait()


@contextmanager
def running(folder, workers=2, settings=None):
    """Give a cluster and a client of it."""
    cluster = Cluster(folder, settings)
    try:
        for _ in range(workers):
            cluster.add_worker()
        with Client(scheduler_file=str(cluster.file), timeout=60) as client:
            client.wait_for_workers(workers, timeout=60)
            yield cluster, client
    finally:
        cluster.close()


def values(start, stop, columns):
    """Return rows of a signal that is different everywhere, and compresses."""
    rows = np.arange(start, stop, dtype=np.int64)[:, None]
    return ((rows * 7 + np.arange(columns) * 13) % 4096 - (rows % 37) * 3).astype(np.int16)


def _block(columns, block_info=None):
    (start, stop), _ = block_info[None]["array-location"]
    return values(start, stop, columns)


def _failing(columns, row, block_info=None):
    (start, stop), _ = block_info[None]["array-location"]
    if start <= row < stop:
        raise ValueError(f"no elements at row {row}")
    return values(start, stop, columns)


def _killing(columns, row, block_info=None):
    (start, stop), _ = block_info[None]["array-location"]
    if start <= row < stop:
        os.kill(os.getpid(), signal.SIGKILL)
    return values(start, stop, columns)


def _waiting(columns, row, folder, block_info=None):
    (start, stop), _ = block_info[None]["array-location"]
    if start >= row:
        (Path(folder) / "begun").touch()
        while not (Path(folder) / "go").exists():
            time.sleep(0.05)
    return values(start, stop, columns)


def _timing_out(columns, row, block_info=None):
    (start, stop), _ = block_info[None]["array-location"]
    if start <= row < stop:
        raise TimeoutError("no answer of the archive")
    return values(start, stop, columns)


def lazy(rows, columns, block):
    """Return :func:`values` as a dask array of blocks of so many rows."""
    chunks = (tuple(min(block, rows - at) for at in range(0, rows, block)), (columns,))
    return dask.array.map_blocks(_block, columns, chunks=chunks, dtype=np.int16)


def _odd(function):
    def array(rows, columns, block, *arguments):
        chunks = (tuple(min(block, rows - at) for at in range(0, rows, block)), (columns,))
        return dask.array.map_blocks(function, columns, *arguments, chunks=chunks, dtype=np.int16)

    return array


failing = _odd(_failing)
"""A dask array, as of :func:`lazy`, that can't be computed at one row."""

timing_out = _odd(_timing_out)
"""The same; what can't be computed ends as a lost connection does."""

killing = _odd(_killing)
"""One that kills the worker that computes one row."""

waiting = _odd(_waiting)
"""One whose blocks from one row on make the file ``begun`` in a folder, and wait for the file ``go`` there."""
