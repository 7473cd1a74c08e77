"""CRC-32 of stored bytes."""

from __future__ import annotations

from typing import Any

from isal import isal_zlib

from nwbflow.model.data import Array


def crc32(data: bytes | bytearray | memoryview | Array, value: int = 0) -> int:
    """Return the CRC-32 (ISO 3309, as in zlib) of `data`, continued from `value`.

    Parameters
    ----------
    data : bytes-like or C-contiguous numpy.ndarray
        What to sum.
    value : int
        CRC-32 of what came before.
    """
    view: Any = data
    return int(isal_zlib.crc32(view, value))
