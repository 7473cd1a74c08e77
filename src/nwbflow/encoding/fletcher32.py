"""HDF5's Fletcher checksum (filter 3)."""

from __future__ import annotations

from collections.abc import Buffer

import numpy as np

_COLUMNS = 1024
_ROWS = 256  # sums of a block stay below 2**32, its weighted sums below 2**64
_MODULUS = 65535


def fletcher32(data: Buffer) -> int:
    """Return the checksum HDF5 computes over `data` (``H5_checksum_fletcher32`` in ``H5checksum.c``).

    Two sums modulo 65535 over big-endian 16-bit words, an odd last byte counting as the high
    byte of a word: of the words, and of the first sum after each word.

    Parameters
    ----------
    data : bytes-like
        What to sum; C-contiguous.

    Returns
    -------
    int
        Second sum in the upper, first in the lower 16 bits.

    Notes
    -----
    Swapping the bytes of a word multiplies it by 256 modulo 65535, so words are summed in
    little-endian order and both sums multiplied at the end. HDF5 folds the carry back instead
    of dividing: a sum that is a multiple of 65535 ends as 65535, and as 0 only if every word
    was zero. numpy's sums release the GIL.
    """
    source = np.frombuffer(data, np.uint8)
    words = source[: source.size // 2 * 2].view("<u2")
    whole = words.size // _COLUMNS * _COLUMNS
    first = second = 0
    columns = np.arange(_COLUMNS, dtype=np.uint64)
    for start in range(0, whole, _COLUMNS * _ROWS):
        block = words[start : min(start + _COLUMNS * _ROWS, whole)].reshape(-1, _COLUMNS)
        by_row = block.sum(axis=1, dtype=np.uint32).astype(np.uint64)
        by_column = block.sum(axis=0, dtype=np.uint32)
        # A word counts once for itself and once for every word after it.
        after = block.size - np.arange(len(block), dtype=np.uint64) * np.uint64(_COLUMNS)
        second += first * block.size + int((after * by_row).sum()) - int((columns * by_column).sum())
        first += int(by_row.sum())
    for word in words[whole:].tolist():
        first += word
        second += first
    first, second = first * 256, second * 256
    if source.size % 2:
        first += int(source[-1]) << 8
        second += first
    return _fold(second) << 16 | _fold(first)


def _fold(total: int) -> int:
    return total and (total % _MODULUS or _MODULUS)


def append_fletcher32(data: Buffer) -> bytes:
    """Return `data` with its checksum behind it, 4 bytes little-endian, as HDF5 stores it.

    Parameters
    ----------
    data : bytes-like
        The chunk after all filters before this one; C-contiguous.
    """
    return b"".join((data, fletcher32(data).to_bytes(4, "little")))
