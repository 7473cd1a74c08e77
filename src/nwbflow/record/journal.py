"""Writing the journal: reserved segments, and a descriptor that failed is never used again."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.model.data import Array
from nwbflow.record.folder import sync_folder
from nwbflow.record.frames import FRAME_HEAD_BYTES, SEGMENT_HEAD_BYTES, FrameHead, segment_head, segment_name

SEGMENT_BYTES = 64 * 2**20
"""Size of a segment; it is reserved on the disk before anything is accepted into it."""

ATTEMPTS = 3
"""Segments tried before a disk that fails (not: is full) is given up."""

_BUFFERS = 512  # of one call; Linux takes 1024


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of one block, of each dataset of a series, on their way into the journal.

    Parameters
    ----------
    series : int
        Position of the series in the manifest.
    first, rows : int
        First row in the series, and how many.
    parts : tuple of numpy.ndarray
        One array of bytes for each dataset.
    """

    series: int
    first: int
    rows: int
    parts: tuple[Array, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(part.nbytes for part in self.parts)

    def head(self, sequence: int) -> FrameHead:
        """Return the head of its frame."""
        total = 0
        for part in self.parts:
            total = crc32(part, total)
        return FrameHead(
            series=self.series,
            sequence=sequence,
            first=self.first,
            rows=self.rows,
            nbytes=self.nbytes,
            crc32=total,
        )


@dataclass(slots=True)
class _Segment:
    handle: int
    end: int
    size: int


class RevokedError(Exception):
    """Another journal has taken over from this one."""


class Numbers:
    """Numbers of segments, over all folders of a journal: each is given once, and only to who may still write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self, journal: Journal) -> int:
        """Return the next number.

        Raises
        ------
        RevokedError
            If another journal has taken over from this one.
        """
        with self._lock:
            if journal.is_revoked:
                raise RevokedError
            self._last += 1
            return self._last

    def revoke(self, journal: Journal) -> None:
        """Give a journal no more numbers: those given from now on are greater than all it has."""
        with self._lock:
            journal.is_revoked = True


class Journal:
    """The journal of one recording, being written; used by one thread.

    Parameters
    ----------
    folder : pathlib.Path
        Where its segments go.
    identity : bytes
        Of the recording.
    sync : bool
        Whether :meth:`write` returns only when the disk has it.
    numbers : Numbers
        Where segments get their numbers from.
    written : int
        Frames that are in the journal already.

    Attributes
    ----------
    folder : pathlib.Path
        Where segments go now.
    written : int
        Frames written, which is the number of the next one.
    failures : int
        How often a write or sync failed for another reason than a full disk.
    is_revoked : bool
        Whether another journal has taken over, so that this one may make no more segments.
    """

    def __init__(self, folder: Path, identity: bytes, *, sync: bool, numbers: Numbers, written: int = 0) -> None:
        self.folder = folder
        self._identity = identity
        self._sync = sync
        self._numbers = numbers
        self._segment: _Segment | None = None
        self.written = written
        self.failures = 0
        self.is_revoked = False

    def move(self, folder: Path) -> None:
        """Go on in another folder, with the next segment."""
        self._let_go()
        self.folder = folder

    def write(self, blocks: Sequence[Block]) -> None:
        """Write blocks as the next frames, all of them or, after an error, the first few: `written` tells how many.

        Those that are missing after a failed call are to be given again in the next one: they get the same numbers.

        Raises
        ------
        OSError
            If the disk is full, the system short of something, or several segments in a row have failed.
        """
        first = self.written
        heads = [block.head(self.written + at) for at, block in enumerate(blocks)]
        frames = [
            [np.frombuffer(head.pack(self._identity), np.uint8), *block.parts]
            for head, block in zip(heads, blocks, strict=True)
        ]
        failed, at_once = 0, len(frames)
        while left := frames[self.written - first :]:
            try:
                self._write(left[:at_once])
            except OSError as error:
                if is_full(error):
                    self._trim()
                self._let_go()
                if may_pass(error):
                    if at_once == 1:
                        raise
                    at_once = 1  # what fits is written, so that a little room is of use
                    continue
                failed += 1
                self.failures += 1
                if failed == ATTEMPTS:
                    raise

    def _write(self, frames: Sequence[list[Array]]) -> None:
        waiting: list[list[Array]] = []
        end = 0
        for frame in frames:
            size = sum(part.nbytes for part in frame)
            if self._segment is None or self._segment.end + end + size > self._segment.size:
                self._put(waiting)
                waiting, end = [], 0
                self._let_go()
                self._segment = self._begin(size)
            waiting.append(frame)
            end += size
        self._put(waiting)

    def _put(self, frames: list[list[Array]]) -> None:
        if self._segment is None or not frames:
            return
        buffers = [part for frame in frames for part in frame]
        end = self._segment.end
        for start in range(0, len(buffers), _BUFFERS):
            end = _write_at(self._segment.handle, buffers[start : start + _BUFFERS], end)
        if self._sync:
            os.fdatasync(self._segment.handle)
        self._segment.end = end
        self.written += len(frames)

    def _begin(self, least: int) -> _Segment:
        """Make the next segment, for a frame of at least so many bytes; a small one if the disk is nearly full."""
        least += SEGMENT_HEAD_BYTES
        size = SEGMENT_BYTES
        while size > least:
            try:
                return self._make(size)
            except OSError as error:
                if not is_full(error):
                    raise
            size //= 4
        return self._make(least)

    def _make(self, size: int) -> _Segment:
        number = self._numbers.next(self)
        path = self.folder / segment_name(number)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            _reserve(handle, size)
            head = np.frombuffer(segment_head(number, self._identity), np.uint8)
            _write_at(handle, [head], 0)
            if self._sync:
                os.fsync(handle)
                sync_folder(self.folder)
        except OSError:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise
        return _Segment(handle, SEGMENT_HEAD_BYTES, size)

    def _trim(self) -> None:
        """Give back the room of what did not become a whole frame."""
        if self._segment is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._segment.handle, self._segment.end)

    def _let_go(self) -> None:
        """Close the segment, whatever the system says to that: it was synced before, or is not trusted."""
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                os.close(segment.handle)
            except OSError:
                self.failures += 1

    def close(self) -> None:
        """Close the last segment."""
        self._let_go()


def frame_bytes(nbytes: int) -> int:
    """Return what a block of `nbytes` takes in the journal."""
    return FRAME_HEAD_BYTES + nbytes


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def may_pass(error: OSError) -> bool:
    """Whether an error may go away by itself, or when somebody makes room: nothing is wrong with the disk."""
    return is_full(error) or error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _reserve(handle: int, size: int) -> None:
    """Take the room on the disk, so that accepting data can't fail for want of it."""
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise  # else a file system that can't reserve; it grows then


def _write_at(handle: int, buffers: Sequence[Array], offset: int) -> int:
    """Write buffers one behind the other and return where they end."""
    left = list(buffers)
    while left:
        done = os.pwritev(handle, left, offset)
        if done == 0:
            raise OSError(errno.EIO, "the system wrote nothing and gave no reason")
        offset += done
        while left and done >= left[0].nbytes:
            done -= left.pop(0).nbytes
        if left and done:
            left[0] = left[0][done:]
    return offset
