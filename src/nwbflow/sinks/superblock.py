"""The superblock of an HDF5 file: what a writer that died left wrong in it, and how that is set right.

Laid out as in the HDF5 File Format Specification 3.0, section II.A, "Format Signature and Superblock". Two of its
fields go stale when a writer dies: the mark that the file is open for writing (the file consistency flags, because of
which HDF5 refuses to open the file), and the address of the file's end (beyond which HDF5 refuses to read). Versions
2 and 3 end with a checksum, which has to be set right with them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nwbflow.errors import ErrorKind, StorageError, UnsupportedError
from nwbflow.sinks.hdf5 import translated

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NEWEST = 3
"""Highest version there is."""

_FIRST_BLOCK = 512
"""Where a superblock may be besides at the file's beginning: here, and at every doubling of it."""
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What a superblock says.

    Parameters
    ----------
    start : int
        Where it is in the file, in bytes: what is before it is a user's own.
    raw : bytes
        Itself, as stored, up to the last field that is needed.
    version : int
        0 to 3.
    address_bytes : int
        How long addresses are.
    flags : int
        File consistency flags: 1 for open for writing, 4 for open for writing to readers that follow (SWMR).
    base : int
        Address from which addresses in the file are counted.
    end : int
        Where the file ends, as it says itself; counted as `base` is.
    checksum : int or None
        As stored; ``None`` before version 2.
    """

    start: int
    raw: bytes
    version: int
    address_bytes: int
    flags: int
    base: int
    end: int
    checksum: int | None

    @property
    def marked(self) -> bool:
        """Whether it says that the file is open for writing: it is, or its writer died."""
        return self.flags != 0

    @property
    def sound(self) -> bool:
        """Whether the checksum is right, where there is one."""
        return self.checksum is None or self.checksum == lookup3(self.raw[:-4])

    def problems(self, size: int) -> tuple[str, ...]:
        """Say what is wrong.

        Parameters
        ----------
        size : int
            Of the file, in bytes.
        """
        found = []
        if not self.sound:
            found.append("the checksum of the superblock is wrong")
        if self.marked:
            found.append("it is marked as open for writing, though its writer has gone")
        stated = self._stated_size()
        if stated > size:
            found.append(f"it is cut off: {size} bytes, of {stated} that it says it has")
        elif stated < size:
            found.append(f"it says that it ends at byte {stated}, and has {size}: a writer did not get to its end")
        return tuple(found)

    def mended(self, size: int) -> bytes:
        """Return the superblock as it should be for a file of `size` bytes.

        The end is set to the size, whichever was larger. A file that is longer than it says was written to by somebody
        who died before saying so: what is there is to be readable. A file that is shorter lacks what was behind; let
        it be read as missing, which HDF5 does where an address lies beyond the end. Making the file longer
        instead would turn what is missing into zeros, and nobody could tell them from data.

        New objects must not be put into a file that was cut off: HDF5 would give them the room of what is missing.
        """
        new = bytearray(self.raw)
        length = self.address_bytes
        flags, flag_bytes, end = _places(self.version, length)
        new[flags : flags + flag_bytes] = bytes(flag_bytes)
        new[end : end + length] = (size - self.start + self.base).to_bytes(length, "little")
        if self.checksum is not None:
            new[-4:] = lookup3(bytes(new[:-4])).to_bytes(4, "little")
        return bytes(new)

    def _stated_size(self) -> int:
        return self.end - self.base + self.start


def read_superblock(path: str | Path) -> Superblock:
    """Read the superblock of a file, without HDF5.

    Parameters
    ----------
    path : str or pathlib.Path
        A regular file.

    Returns
    -------
    Superblock
        See :meth:`Superblock.problems` for what is wrong with it.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        No HDF5 file, or of a version that is not known (kind ``NOT_HDF5``).
    nwbflow.errors.StorageError
        Cut off within the superblock, unreadable, or with fields that can't be (kind ``IO``).
    """
    with translated(str(path), "reading its superblock"):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read(handle, str(path))
        finally:
            os.close(handle)


def mend_superblock(path: str | Path) -> tuple[str, ...]:
    """Set the superblock of a file right, in place, in one write; nothing else is touched.

    Nobody may have the file open. Keep in mind that it is the caller who knows that its writer has gone.

    Parameters
    ----------
    path : str or pathlib.Path
        The file: a copy, or one that is not needed as it was.

    Returns
    -------
    tuple of str
        What was wrong; empty if nothing was, and nothing written then.

    Raises
    ------
    nwbflow.errors.UnsupportedError, nwbflow.errors.StorageError
        As in :func:`read_superblock`; also if writing fails.
    """
    found = read_superblock(path)
    size = Path(path).stat().st_size
    problems = found.problems(size)
    if problems:
        with translated(str(path), "writing its superblock"):
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                new = found.mended(size)
                if os.pwrite(handle, new, found.start) != len(new):
                    raise OSError("only a part of the superblock was written")
                os.fsync(handle)
            finally:
                os.close(handle)
    return problems


def lookup3(data: bytes, start: int = 0) -> int:
    """Return Bob Jenkins' ``hashlittle`` of 2006 (public domain, "lookup3"): HDF5's checksum of metadata.

    Parameters
    ----------
    data : bytes
        What to sum.
    start : int
        Sum to go on from.
    """
    a = b = c = (0xDEADBEEF + len(data) + start) & _MASK
    if not data:
        return c
    last = (len(data) - 1) // 12 * 12  # where the last block begins: it has 1 to 12 bytes
    for at in range(0, last, 12):
        a, b, c = _mix(a + _word(data, at), b + _word(data, at + 4), c + _word(data, at + 8))
    return _final(a + _word(data, last), b + _word(data, last + 4), c + _word(data, last + 8))


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _turned(value: int, bits: int) -> int:
    value &= _MASK
    return (value << bits | value >> (32 - bits)) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):  # one round each; the three change places
        a = ((a - c) & _MASK) ^ _turned(c, bits)
        c = (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _turned(b, bits)) & _MASK
        a, b, c = b, c, a
    return b  # what was changed last has moved on by one place


def _read(handle: int, name: str) -> Superblock:
    size = os.fstat(handle).st_size
    start = _find(handle, size)
    if start is None:
        text = f"{name} is not an HDF5 file: it has no HDF5 signature (empty, of another format, or cut at the front)"
        raise UnsupportedError(text, kind=ErrorKind.NOT_HDF5)
    head = os.pread(handle, 16, start)
    if len(head) < 16:
        raise _damaged(name, "it ends within its superblock")
    version = head[8]
    if version > NEWEST:
        text = f"{name} has a superblock of version {version}, which is not known: damaged, or of a later HDF5"
        raise UnsupportedError(text, kind=ErrorKind.NOT_HDF5)
    length = head[9] if version >= 2 else head[13]
    if length not in (2, 4, 8):
        raise _damaged(name, f"its superblock says that addresses have {length} bytes")
    flags, flag_bytes, end = _places(version, length)
    whole = end + length if version < 2 else end + 2 * length + 4
    raw = os.pread(handle, whole, start)
    if len(raw) < whole:
        raise _damaged(name, "it ends within its superblock")
    base = end - 2 * length

    def number(at: int, count: int) -> int:
        return int.from_bytes(raw[at : at + count], "little")

    return Superblock(
        start=start,
        raw=raw,
        version=version,
        address_bytes=length,
        flags=number(flags, flag_bytes),
        base=number(base, length),
        end=number(end, length),
        checksum=number(whole - 4, 4) if version >= 2 else None,
    )


def _find(handle: int, size: int) -> int | None:
    at = 0
    while at < size:
        if os.pread(handle, len(SIGNATURE), at) == SIGNATURE:
            return at
        at = at * 2 or _FIRST_BLOCK
    return None


def _places(version: int, length: int) -> tuple[int, int, int]:
    """Return where the flags are, how many bytes they have, and where the end's address is.

    Before it are the base address and one other: that of the free-space index, or of the superblock's extension.
    """
    if version >= 2:
        return 11, 1, 12 + 2 * length
    fields = 24 if version == 0 else 28
    return 20, 4, fields + 2 * length


def _damaged(name: str, why: str) -> StorageError:
    return StorageError(f"{name}: {why}; it can't be opened. Look for another copy of it", kind=ErrorKind.IO)
