"""The file format of one shard: encoded chunks, then where each of them lies.

From "Sharding codec" of the Zarr v3 specification, with its index at the end, little-endian and summed
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html), as zarr-python makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nwbflow.encoding.zarr_codecs import crc32c

ABSENT = 2**64 - 1
"""Place and length of a chunk that is not there; it reads as the fill value."""

_CRC = 4


def index_bytes(count: int) -> int:
    """Return the size of the index of a shard of `count` chunks, in bytes."""
    return 16 * count + _CRC


def shard_parts(chunks: Mapping[int, Any], count: int) -> list[Any]:
    """Return what a shard consists of, to be written one after the other.

    Parameters
    ----------
    chunks : mapping of int to bytes-like
        Encoded chunks by their number in the shard, in C order.
    count : int
        Number of chunks a shard has room for.
    """
    index = np.full((count, 2), ABSENT, "<u8")
    parts = []
    at = 0
    for number in sorted(chunks):
        size = memoryview(chunks[number]).nbytes
        index[number] = at, size
        at += size
        parts.append(chunks[number])
    head = index.tobytes()
    return [*parts, head + crc32c(head)]


def parse_index(data: bytes, count: int) -> Any:
    """Return the index of a shard, (count, 2) with place and length in bytes; ``None`` if it is damaged.

    Parameters
    ----------
    data : bytes
        The last :func:`index_bytes` of the shard.
    count : int
        Number of chunks a shard has room for.
    """
    if len(data) != index_bytes(count) or crc32c(data[:-_CRC]) != data[-_CRC:]:
        return None
    return np.frombuffer(data[:-_CRC], "<u8").reshape(count, 2)
