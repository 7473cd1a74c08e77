"""Shard shapes: which chunks are stored together as one object."""

from __future__ import annotations

import math

import numpy as np

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.layout import MaxShape, Shape

SHARD_BYTES = 128 * 2**20
"""Size of a shard before its codecs to aim at, in bytes: few objects, and some can still be written at a time."""

SHARDED_CHUNK_BYTES = 4 * 2**20
"""Size of a chunk inside a shard, before its codecs, in bytes. What files cost by number, shards take over; so
chunks can be as small as reading a part of a recording likes them."""


def plan_shards(
    chunks: Shape, shape: MaxShape, dtype: np.dtype[np.generic], *, target_bytes: int = SHARD_BYTES
) -> Shape | None:
    """Return the shape of shards of whole chunks, for an array stored in the order of its first axis.

    A shard is as wide as the array, so that one after another becomes complete and can be written; where that is
    more than the target, it is narrower. Along the first axis it has as many chunks as the target holds.

    Parameters
    ----------
    chunks : tuple of int
        Chunk shape in elements.
    shape : tuple of int or None
        Largest lengths in elements; ``None`` is unknown.
    dtype : numpy.dtype
        Type of the elements.
    target_bytes : int
        Size of a shard before its codecs that is not exceeded, in bytes.

    Returns
    -------
    tuple of int or None
        Multiples of `chunks`; ``None`` where all fits one chunk, or a shard would hold but one.

    Raises
    ------
    SettingsError
        Kind ``CHUNKS``: another number of axes.
    """
    if len(chunks) != len(shape):
        raise SettingsError(f"chunks={chunks} don't fit an array of shape {shape}", kind=ErrorKind.CHUNKS)
    room = max(1, target_bytes // max(1, math.prod(chunks) * dtype.itemsize))  # chunks a shard may hold
    counts = [1] * len(chunks)
    for axis in [*range(len(chunks) - 1, 0, -1), 0]:
        length = shape[axis]
        needed = room if length is None else max(1, -(-length // chunks[axis]))
        if axis and length is None:
            continue  # nobody knows how wide it will be
        counts[axis] = min(needed, room)
        room //= counts[axis]
    shards = tuple(count * chunk for count, chunk in zip(counts, chunks, strict=True))
    return None if shards == chunks else shards
