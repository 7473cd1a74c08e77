"""Reading the journal in order, while it is written or after a crash."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.errors import ErrorKind, StorageError
from nwbflow.model.data import Array
from nwbflow.record.frames import FRAME_HEAD_BYTES, SEGMENT_HEAD_BYTES, FrameHead, find_head
from nwbflow.record.manifest import Manifest

_BLOCK = 2**20
_TORN_BYTES = 16
"""Zeros at the end of a frame that show that its writing was interrupted: what is reserved reads as zeros."""


@dataclass(frozen=True, slots=True)
class Received:
    """One block out of the journal, its checksum right.

    Parameters
    ----------
    series : int
        Position of the series in the manifest.
    first : int
        First row in the series.
    parts : tuple of numpy.ndarray
        The rows of each dataset of the series.
    """

    series: int
    first: int
    parts: tuple[Array, ...]


class JournalReader:
    """Gives the blocks of a journal, each once, in order.

    Parameters
    ----------
    folder : pathlib.Path
        Where the segments are.
    manifest : Manifest
        Of the recording.
    wanted : callable, optional
        Told a frame's head, says whether its rows are wanted. Those of others are counted, but neither read nor
        checked.

    Attributes
    ----------
    expected : int
        Number of the next frame.
    rows : list of int
        Rows read of each series.
    beyond : list of int
        Rows of each series that frames which can't be used reach to: they are damaged or torn, or lie behind such.
    """

    def __init__(self, folder: Path, manifest: Manifest, wanted: Callable[[FrameHead], bool] | None = None) -> None:
        self._folders = segment_folders(folder, manifest)
        self._manifest = manifest
        self._wanted = wanted
        self._path: Path | None = None
        self._handle: int | None = None
        self._offset = 0
        self._unused = self._unreadable = -1
        self.expected = 0
        self.rows = [0] * len(manifest.series)
        self.beyond = [0] * len(manifest.series)

    @property
    def damaged(self) -> bool:
        """Whether something but what a kill interrupts was found where the next frame should be, or behind it."""
        return self._unused >= self.expected or self._unreadable == self.expected

    def read(self, *, growing: bool = False) -> Received | None:
        """Return the next block, or ``None`` where the journal ends (for now).

        Where the disk can't be read (a bad sector), the journal is damaged, and reading goes on behind.

        Parameters
        ----------
        growing : bool
            Whether a frame may be in the middle of being written: what is not whole is looked at again by the next
            call then, until there is a later segment, which is begun only when this one is finished.

        Raises
        ------
        StorageError
            If a segment may not be read, or holds what this recording can't have written.
        """
        try:
            while True:
                found = self._next_frame(hold=growing)
                if found is None and growing:
                    if self._next_segment() is None:
                        return None
                    found = self._next_frame(hold=False)
                if found is None:
                    if not self._open_next():
                        return None
                    continue
                head, payload = found
                if head.sequence > self.expected:
                    self._pass_over(head)
                elif head.sequence == self.expected:
                    block = self._take(head, payload)
                    if block is not None:
                        return block
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{self._path}: the journal can't be read: {error}", kind=ErrorKind.IO) from error

    def _take(self, head: FrameHead, payload: Array | None) -> Received | None:
        series = self._manifest.series[head.series]
        if head.first != self.rows[head.series] or head.nbytes != head.rows * series.row_bytes:
            raise StorageError(
                f"{self._path}: frame {head.sequence} does not follow on what was read of {series.name}; please report "
                "this, and keep the folder",
                kind=ErrorKind.MISMATCH,
            )
        self.expected += 1
        self.rows[head.series] += head.rows
        if payload is None:
            return None
        parts, at = [], 0
        for dataset in series.datasets:
            size = head.rows * dataset.row_bytes
            part = payload[at : at + size].view(dataset.layout.dtype).reshape(head.rows, *dataset.row_shape)
            parts.append(part)
            at += size
        return Received(head.series, head.first, tuple(parts))

    def _pass_over(self, head: FrameHead, *, torn: bool = False) -> None:
        self.beyond[head.series] = max(self.beyond[head.series], head.first + head.rows)
        if not torn:
            self._unused = max(self._unused, head.sequence)

    def _next_frame(self, *, hold: bool) -> tuple[FrameHead, Array | None] | None:
        """Return the next frame of this segment whose checksums are right; without its rows if they are not wanted.

        With `hold`, what is not whole is not passed over.
        """
        while self._handle is not None:
            head = self._next_head(self._handle, search=not hold)
            if head is None:
                return None
            start = self._offset + FRAME_HEAD_BYTES
            if start + head.nbytes > os.fstat(self._handle).st_size:
                if not hold:
                    self._pass_over(head)  # the segment was cut
                return None
            payload = None
            if self._wanted is None or self._wanted(head):
                payload = self._payload(self._handle, start, head.nbytes)
                if payload is None or crc32(payload) != head.crc32:
                    if hold:
                        return None
                    self._offset = start + head.nbytes
                    self._pass_over(head, torn=payload is not None and not payload[-_TORN_BYTES:].any())
                    continue
            self._offset = start + head.nbytes
            return head, payload
        return None

    def _next_head(self, handle: int, *, search: bool) -> FrameHead | None:
        """Return the next head, from here or (to `search`) from behind damage, and go there."""
        try:
            head = self._known(FrameHead.unpack(os.pread(handle, FRAME_HEAD_BYTES, self._offset), self._identity))
            return head if head is not None or not search else self._search(handle)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            if search:
                self._unreadable = self.expected  # each further try may take a disk seconds: on to the next segment
            return None

    def _search(self, handle: int) -> FrameHead | None:
        """Look for a head in the rest of the segment, which as a rule is zeros."""
        at, something = self._offset + 1, False
        while len(block := os.pread(handle, _BLOCK, at)) >= FRAME_HEAD_BYTES:
            found = find_head(block, self._identity)
            if found is not None and self._known(found[1]) is not None:
                self._offset = at + found[0]
                return found[1]
            if not something:
                skip = max(0, self._offset + FRAME_HEAD_BYTES - at)  # no more than a head is one that was torn
                something = any(block[skip:].strip(b"\0"))
            at += len(block) - FRAME_HEAD_BYTES + 1
        if something:
            self._unreadable = self.expected
        return None

    def _known(self, head: FrameHead | None) -> FrameHead | None:
        return head if head is not None and head.series < len(self._manifest.series) else None

    @property
    def _identity(self) -> bytes:
        return self._manifest.identity

    def _payload(self, handle: int, start: int, nbytes: int) -> Array | None:
        payload = np.empty(nbytes, np.uint8)
        done = 0
        while done < nbytes:
            try:
                got = os.preadv(handle, [payload[done:]], start + done)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return None
            if got == 0:
                return None
            done += got
        return payload

    def _next_segment(self) -> Path | None:
        """Return the next segment, if there is one; a later one exists only when this one is finished."""
        found = self._later_segments()
        if found and len(self._folders) > 1:
            found = self._later_segments()  # also one that was made in the first while the second was looked through
        return min(found, key=lambda path: path.name, default=None)

    def _later_segments(self) -> list[Path]:
        """Return the first later segment of every folder."""
        here, found = "" if self._path is None else self._path.name, []
        for folder in self._folders:
            with os.scandir(folder) as entries:  # of hours there are thousands, and who follows asks often
                later = (entry.name for entry in entries if entry.name.endswith(".segment") and entry.name > here)
                if (name := min(later, default=None)) is not None:
                    found.append(folder / name)
        return found

    def _open_next(self) -> bool:
        """Go on to the next segment, if there is one.

        Its head is not looked at: frames tell themselves whose they are, and one flipped bit must not hide them all.
        """
        path = self._next_segment()
        if path is None:
            return False
        self.close()
        handle = None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EIO:
                raise  # with too many files open, say, it is tried again, from here
            self._unreadable = self.expected
        self._path, self._offset, self._handle = path, SEGMENT_HEAD_BYTES, handle
        return True

    def close(self) -> None:
        """Close the segment that is open."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def segment_folders(journal: Path, manifest: Manifest) -> tuple[Path, ...]:
    """Return where the segments of a journal are; their numbers count over all of these.

    Raises
    ------
    StorageError
        If the folder to which it may have spilled is not there: part of the rows may be in it.
    """
    if manifest.spill is None:
        return (journal,)
    moved = journal / "spill"
    found = next((folder for folder in (manifest.spill, moved) if folder.is_dir()), None)
    if found is None:
        raise StorageError(
            f"{manifest.spill}, to which this recording could spill, is not there, and part of its rows may be in it: "
            f"mount that disk, or move that folder to {moved}",
            kind=ErrorKind.MISSING,
        )
    return (journal, found)
