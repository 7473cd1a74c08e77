"""Where the chunks of a recording without a journal lie: one short record for each, written when it is safe.

HDF5's own tables say that too, but they are changed in place while a file is written, a piece at a time: a crash in
between may leave them unreadable. The bytes of a chunk are written once, where nothing was, and stay. So what is
needed to find them again, and to know them, is put down here, behind what was put down before.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nwbflow.encoding.checksum import crc32

_RECORD = struct.Struct("<IIQQQI")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """One chunk in the partial file. Those of a dataset are put down in storage order, so their number is their place.

    Parameters
    ----------
    dataset : int
        Position of its dataset among all those of the manifest.
    rows : int
        Rows of the dataset up to the end of the chunk.
    address, size : int
        Where its bytes are in the file, and how many, as stored.
    filter_mask : int
        Filters that were not applied, as HDF5 counts them.
    crc32 : int
        CRC-32 of the bytes.
    """

    dataset: int
    rows: int
    address: int
    size: int
    filter_mask: int
    crc32: int

    def pack(self, identity: bytes) -> bytes:
        """Return the record's bytes; they end with a sum that begins with the recording's identity."""
        unsigned = _RECORD.pack(self.dataset, self.filter_mask, self.rows, self.address, self.size, self.crc32)
        return unsigned + crc32(unsigned, crc32(identity)).to_bytes(4, "little")


RECORD_BYTES = _RECORD.size + 4
"""Size of a record."""


class Ledger:
    """Writes the records of one recording; used by one thread.

    Parameters
    ----------
    path : pathlib.Path
        An empty file.
    identity : bytes
        Of the recording.
    sync : bool
        Whether :meth:`write` returns only when the disk has it.
    """

    def __init__(self, path: Path, identity: bytes, *, sync: bool) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._identity = identity
        self._sync = sync

    def write(self, chunks: Sequence[StoredChunk]) -> None:
        """Put down chunks that are safe. After an error nothing more may be put down.

        Raises
        ------
        OSError
            If the disk fails or is full.
        """
        left = b"".join(chunk.pack(self._identity) for chunk in chunks)
        while left:
            left = left[os.write(self._handle, left) :]
        if self._sync:
            os.fdatasync(self._handle)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def read_ledger(path: Path, identity: bytes) -> tuple[list[StoredChunk], list[StoredChunk]]:
    """Return the records up to the first that is not whole, and those behind it: none, unless the file is damaged.

    Raises
    ------
    OSError
        If it can't be read.
    """
    data = path.read_bytes()
    found = [_unpack(data[at : at + RECORD_BYTES], identity) for at in range(0, len(data), RECORD_BYTES)]
    end = next((at for at, chunk in enumerate(found) if chunk is None), len(found))
    return _whole(found[:end]), _whole(found[end:])


def _whole(chunks: Iterable[StoredChunk | None]) -> list[StoredChunk]:
    return [chunk for chunk in chunks if chunk is not None]


def _unpack(record: bytes, identity: bytes) -> StoredChunk | None:
    if len(record) < RECORD_BYTES or crc32(record[:-4], crc32(identity)) != int.from_bytes(record[-4:], "little"):
        return None
    dataset, mask, rows, address, size, checksum = _RECORD.unpack(record[:-4])
    return StoredChunk(dataset=dataset, rows=rows, address=address, size=size, filter_mask=mask, crc32=checksum)
