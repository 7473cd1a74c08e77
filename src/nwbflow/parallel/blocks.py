"""The blocks in which datasets are given to workers elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nwbflow.engine.afar import Kit
from nwbflow.model.data import Region, Source
from nwbflow.model.layout import Shape
from nwbflow.planning.grid import block_shape, chunk_region, iter_offsets

BLOCK_BYTES = 16 * 2**20
"""What a task takes in before compression, in bytes: some tenths of a second of work."""

ROWS_BYTES = 4 * BLOCK_BYTES
"""Up to this size, in bytes, a task takes whole rows: most sources read all columns to give some."""


def regions(kit: Kit, source: Source, least: Shape | None) -> Iterator[Region]:
    """Yield regions of whole chunks that cover a dataset once, in storage order.

    Parameters
    ----------
    kit : Kit
        The dataset.
    source : Source
        Its elements.
    least : tuple of int or None
        What each should cover at least: the pieces in which elements are computed or stored.
    """
    shape = kit.layout.shape
    if 0 in shape:
        return
    itemsize = max(source.dtype.itemsize, kit.layout.dtype.itemsize)
    first = kit.chunks[0] if least is None else max(kit.chunks[0], least[0])
    rows = (min(first, shape[0]), *shape[1:])
    if math.prod(rows) * itemsize <= ROWS_BYTES:
        least = rows
    block = block_shape(shape, kit.chunks, itemsize, BLOCK_BYTES, least)
    for offset in iter_offsets(shape, block):
        yield chunk_region(offset, block, shape)
