"""Array classes of users, which other processes can import."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np


def values(start, stop, columns):
    """Return rows of a signal that is different everywhere, and compresses."""
    rows = np.arange(start, stop, dtype=np.int64)[:, None]
    return ((rows * 7 + np.arange(columns) * 13) % 4096 - (rows % 37) * 3).astype(np.int16)


class Computed:
    """An array that is computed where it is read."""

    ndim = 2
    dtype = np.dtype("int16")

    def __init__(self, rows, columns, extra=None):
        self.shape = (rows, columns)
        self.extra = extra

    def at(self, start, stop):
        """Do something when these rows are read."""

    def __getitem__(self, key):
        rows, columns = key
        self.at(rows.start, rows.stop)
        return values(rows.start, rows.stop, self.shape[1])[:, columns]


class Deadly(Computed):
    """Kills the process that reads one row."""

    def at(self, start, stop):
        if start <= self.extra < stop:
            os.kill(os.getpid(), signal.SIGKILL)


class Failing(Computed):
    """Raises when one row is read."""

    def at(self, start, stop):
        if start <= self.extra < stop:
            raise ValueError(f"no elements at row {self.extra}")


class OddError(Exception):
    """Can be pickled, but not made again."""

    def __init__(self, row, reason):
        super().__init__(f"no elements at row {row}: {reason}")


class Odd(Computed):
    """Raises what doesn't survive its way to another process."""

    def at(self, start, stop):
        if start <= self.extra < stop:
            raise OddError(self.extra, "odd")


class Locked(Computed):
    """Can't be pickled."""

    def __init__(self, rows, columns):
        super().__init__(rows, columns)
        self.lock = threading.Lock()


class Waiting(Computed):
    """Where row 9000 is read, says in a folder which process reads, and waits for the file ``go`` there."""

    def at(self, start, stop):
        if stop > 9000:
            (Path(self.extra) / f"{os.getpid()}.begun").touch()
            while not (Path(self.extra) / "go").exists():
                time.sleep(0.05)

    @staticmethod
    def first_begun(folder):
        """Return the number of a process that waits."""
        while not (found := list(Path(folder).glob("*.begun"))):
            time.sleep(0.05)
        return int(found[0].stem)
