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
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.file = self.folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        self.workers = []

    def _start(self, kind, *arguments):
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        with (self.folder / f"{kind}-{time.monotonic_ns()}.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", kind, "--scheduler-file", str(self.file), *arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, **QUIET, "PYTHONPATH": path},
            )

    def add_worker(self):
        """Start a worker of one thread, without a nanny: what is killed stays dead."""
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder))
        self.workers.append(self._start("worker", *options))

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
def running(folder, workers=2):
    """Give a cluster and a client of it."""
    cluster = Cluster(folder)
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


def lazy(rows, columns, block):
    """Return :func:`values` as a dask array of blocks of so many rows."""
    chunks = (tuple(min(block, rows - at) for at in range(0, rows, block)), (columns,))
    return dask.array.map_blocks(_block, columns, chunks=chunks, dtype=np.int16)


def failing(rows, columns, block, row):
    """Return a dask array that can't be computed at one row."""
    chunks = (tuple(min(block, rows - at) for at in range(0, rows, block)), (columns,))
    return dask.array.map_blocks(_failing, columns, row, chunks=chunks, dtype=np.int16)
