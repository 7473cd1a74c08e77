"""A damaged file read as if its superblock were right; the file itself is never written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from nwbflow.sinks.superblock import Superblock


class Overlay:
    """A file for h5py to read from: the bytes of another, with another superblock.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    superblock : Superblock
        What was read of it.
    """

    def __init__(self, path: Path, superblock: Superblock) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._handle).st_size
        self._start, self._new = superblock.start, superblock.mended(self._size)
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, as in :class:`io.RawIOBase`."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = begin + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer; less than it takes only at the end of the file."""
        view, done = memoryview(buffer), 0
        while done < len(view):
            count = os.preadv(self._handle, [view[done:]], self._at + done)
            if not count:
                break
            done += count
        self._lay_over(view[:done])
        self._at += done
        return done

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes."""
        buffer = bytearray(self._size - self._at if count < 0 else count)
        return bytes(buffer[: self.readinto(buffer)])

    def write(self, data: bytes) -> int:
        """Refuse."""
        raise OSError(f"not written: {len(data)} bytes for a file that is only read")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def _lay_over(self, view: memoryview) -> None:
        begin = max(self._at, self._start)
        stop = min(self._at + len(view), self._start + len(self._new))
        if begin < stop:
            view[begin - self._at : stop - self._at] = self._new[begin - self._start : stop - self._start]


@contextmanager
def opened(path: Path, superblock: Superblock | None) -> Iterator[h5py.File]:
    """Open a file for reading, without locks.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    superblock : Superblock or None
        Read the file with this one set right; ``None`` for the file as it is.
    """
    if superblock is None:
        with h5py.File(path, "r", locking=False) as file:
            yield file
        return
    raw = Overlay(path, superblock)
    try:
        with h5py.File(raw, "r") as file:
            yield file
    finally:
        raw.close()
