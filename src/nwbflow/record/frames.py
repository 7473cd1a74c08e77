"""The journal's format: segments of frames, each checked by itself.

A journal is a folder of segments, numbered from 1. A segment is a head of 64 bytes, then frames one
behind the other, then nothing valid (zeros, where it was reserved). A frame carries one block of one
series: a head, then the rows of each of its datasets in the order of the manifest, so that either all of them
are there or none. All numbers are little-endian.

Frames are numbered from 0 over the whole journal. After a failed write, frames that were not
acknowledged are written again into the next segment, so a number may occur twice, with equal content.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nwbflow.encoding.checksum import crc32

SEGMENT_HEAD_BYTES = 64
"""Where the first frame of a segment begins."""

_SEGMENT = struct.Struct("<16sI16sI")
_FRAME = struct.Struct("<4sIQQQQII")
_SEGMENT_MAGIC = b"nwbflow journal\n"
_FRAME_MAGIC = b"nwbF"

FRAME_HEAD_BYTES = _FRAME.size
"""Size of a frame's head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHead:
    """What precedes a block in the journal.

    Parameters
    ----------
    series : int
        Position of the series in the manifest.
    sequence : int
        The frame's number in the journal, from 0.
    first, rows : int
        First row of the block in its series, and how many there are.
    nbytes, crc32 : int
        Size and CRC-32 of what follows.
    """

    series: int
    sequence: int
    first: int
    rows: int
    nbytes: int
    crc32: int

    def pack(self, identity: bytes) -> bytes:
        """Return the head's bytes; their sum begins with the recording's identity."""
        unsigned = _FRAME.pack(
            _FRAME_MAGIC, self.series, self.sequence, self.first, self.rows, self.nbytes, self.crc32, 0
        )[:-4]
        return unsigned + crc32(unsigned, crc32(identity)).to_bytes(4, "little")

    @classmethod
    def unpack(cls, data: bytes, identity: bytes) -> FrameHead | None:
        """Return the head in `data`, or ``None`` if there is none of this recording."""
        if len(data) < _FRAME.size or data[:4] != _FRAME_MAGIC:
            return None
        _, series, sequence, first, rows, nbytes, payload, own = _FRAME.unpack(data[: _FRAME.size])
        if crc32(data[: _FRAME.size - 4], crc32(identity)) != own:
            return None
        return cls(series=series, sequence=sequence, first=first, rows=rows, nbytes=nbytes, crc32=payload)


def find_head(data: bytes, identity: bytes) -> tuple[int, FrameHead] | None:
    """Return the first head of this recording in `data`, and where it is, or ``None``."""
    at = data.find(_FRAME_MAGIC)
    while at >= 0:
        head = FrameHead.unpack(data[at : at + FRAME_HEAD_BYTES], identity)
        if head is not None:
            return at, head
        at = data.find(_FRAME_MAGIC, at + 1)
    return None


def segment_head(number: int, identity: bytes) -> bytes:
    """Return the first bytes of a segment."""
    unsigned = _SEGMENT.pack(_SEGMENT_MAGIC, number, identity, 0)[:-4]
    return (unsigned + crc32(unsigned).to_bytes(4, "little")).ljust(SEGMENT_HEAD_BYTES, b"\0")


def segment_name(number: int) -> str:
    """Return the file name of a segment; names sort in the order of numbers."""
    return f"{number:08d}.segment"
