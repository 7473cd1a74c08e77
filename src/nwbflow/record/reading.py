"""Reading the journal in order, while it is written or after a crash."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.errors import ErrorKind, StorageError
from nwbflow.model.data import Array
from nwbflow.record.frames import FRAME_HEAD_BYTES, SEGMENT_HEAD_BYTES, FrameHead, segment_head
from nwbflow.record.manifest import Manifest


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

    Attributes
    ----------
    expected : int
        Number of the next frame.
    rows : list of int
        Rows read of each series.
    beyond : list of int
        Rows of each series that whole frames behind a gap reach to; more than `rows` only where frames before
        them are damaged or missing.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self._path: Path | None = None
        self._handle: int | None = None
        self._offset = 0
        self.expected = 0
        self.rows = [0] * len(manifest.series)
        self.beyond = [0] * len(manifest.series)

    def read(self) -> Received | None:
        """Return the next block, or ``None`` where the journal ends (for now).

        Raises
        ------
        StorageError
            If a segment can't be read, or holds what this recording can't have written.
        """
        try:
            while True:
                found = self._next_frame()
                if found is None:
                    if not self._open_next():
                        return None
                    continue
                head, payload = found
                if head.sequence > self.expected:
                    self.beyond[head.series] = max(self.beyond[head.series], head.first + head.rows)
                elif head.sequence == self.expected:
                    return self._take(head, payload)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{self._path}: the journal can't be read: {error}", kind=ErrorKind.IO) from error

    def _take(self, head: FrameHead, payload: Array) -> Received:
        series = self._manifest.series[head.series]
        if head.first != self.rows[head.series] or head.nbytes != head.rows * series.row_bytes:
            raise StorageError(
                f"{self._path}: frame {head.sequence} does not follow on what was read of {series.name}; please report "
                "this, and keep the folder",
                kind=ErrorKind.MISMATCH,
            )
        parts, at = [], 0
        for dataset in series.datasets:
            size = head.rows * dataset.row_bytes
            part = payload[at : at + size].view(dataset.layout.dtype).reshape(head.rows, *dataset.row_shape)
            parts.append(part)
            at += size
        self.expected += 1
        self.rows[head.series] += head.rows
        return Received(head.series, head.first, tuple(parts))

    def _next_frame(self) -> tuple[FrameHead, Array] | None:
        """Return the next frame of this segment whose checksums are right."""
        while self._handle is not None:
            packed = os.pread(self._handle, FRAME_HEAD_BYTES, self._offset)
            head = FrameHead.unpack(packed, self._manifest.identity)
            if head is None or head.series >= len(self._manifest.series):
                return None
            payload = self._payload(self._handle, head.nbytes)
            if payload is None:
                return None
            self._offset += FRAME_HEAD_BYTES + head.nbytes
            if crc32(payload) == head.crc32:
                return head, payload
            self.beyond[head.series] = max(self.beyond[head.series], head.first + head.rows)
        return None

    def _payload(self, handle: int, nbytes: int) -> Array | None:
        start = self._offset + FRAME_HEAD_BYTES
        if start + nbytes > os.fstat(handle).st_size:
            return None
        payload = np.empty(nbytes, np.uint8)
        done = 0
        while done < nbytes:
            got = os.preadv(handle, [payload[done:]], start + done)
            if got == 0:
                return None
            done += got
        return payload

    def _open_next(self) -> bool:
        """Go on to the next segment, if there is one; a later one exists only when this one is finished."""
        for path in sorted(self._folder.glob("*.segment")):
            if self._path is not None and path.name <= self._path.name:
                continue
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.close()
            self._path, self._handle, self._offset = path, handle, SEGMENT_HEAD_BYTES
            number = int(path.name.split(".")[0])
            if os.pread(handle, SEGMENT_HEAD_BYTES, 0) == segment_head(number, self._manifest.identity):
                return True
            self._offset = os.fstat(handle).st_size  # its making was interrupted: nothing was accepted into it
            return True
        return False

    def close(self) -> None:
        """Close the segment that is open."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
