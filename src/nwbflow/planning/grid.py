"""Chunk-grid arithmetic: which chunks there are, what they cover, and in which order to read.

All offsets, lengths and shapes are in elements; chunks lie on a regular grid that starts at 0,
and everything is in C order (last axis fastest), as HDF5 numbers its chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

from nwbflow.model.data import Region
from nwbflow.model.layout import Shape


def grid_shape(shape: Shape, chunks: Shape) -> Shape:
    """Return the number of chunks along each axis; 0 where an axis has no elements."""
    return tuple(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))


def iter_offsets(shape: Shape, chunks: Shape) -> Iterator[tuple[int, ...]]:
    """Yield the position of the first element of every chunk, in C order."""
    return product(*(range(0, length, chunk) for length, chunk in zip(shape, chunks, strict=True)))


def chunk_region(offset: tuple[int, ...], chunks: Shape, shape: Shape) -> Region:
    """Return what the chunk at `offset` covers of an array of `shape`."""
    return tuple(
        slice(start, min(start + chunk, length)) for start, chunk, length in zip(offset, chunks, shape, strict=True)
    )


def overlapping(
    offset: tuple[int, ...], lengths: Shape, chunks: Shape
) -> Iterator[tuple[tuple[int, ...], Region, Region]]:
    """Yield every chunk that a block touches, in C order.

    Parameters
    ----------
    offset : tuple of int
        Position of the block's first element in the dataset.
    lengths : tuple of int
        Shape of the block.
    chunks : tuple of int
        Chunk shape.

    Yields
    ------
    chunk_offset : tuple of int
        Position of the chunk's first element in the dataset.
    in_block, in_chunk : tuple of slice
        The elements they share, counted from the start of the block and of the chunk.
    """
    axes = [_overlaps(start, length, chunk) for start, length, chunk in zip(offset, lengths, chunks, strict=True)]
    for parts in product(*axes):
        yield tuple(p[0] for p in parts), tuple(p[1] for p in parts), tuple(p[2] for p in parts)


def _overlaps(start: int, length: int, chunk: int) -> list[tuple[int, slice, slice]]:
    """Do :func:`overlapping` for one axis."""
    stop = start + length
    found = []
    for first in range(start - start % chunk, stop if length else 0, chunk):
        low, high = max(start, first), min(stop, first + chunk)
        found.append((first, slice(low - start, high - start), slice(low - first, high - first)))
    return found


def band_shape(shape: Shape, chunks: Shape, itemsize: int, max_bytes: int) -> Shape:
    """Return the shape of the largest region that :func:`bands` yields.

    Parameters
    ----------
    shape, chunks : tuple of int
        Shape of the array and of its chunks.
    itemsize : int
        Size of one element, in bytes.
    max_bytes : int
        Size a band should not exceed, in bytes.

    Returns
    -------
    tuple of int
        One chunk on the leading axes, several on one axis, everything on the axes behind it, so
        that bands follow each other in the order of the chunks.
    """
    band = [min(chunk, length) for chunk, length in zip(chunks, shape, strict=True)]
    whole = [*band[:1], *shape[1:]]
    for axis in range(1, len(shape)):
        # Bytes of one step along `axis`: leading axes one chunk, trailing axes in full.
        step = math.prod(whole[:axis]) * math.prod(whole[axis + 1 :]) * itemsize
        if step * shape[axis] <= max_bytes:
            break
        columns = -(-shape[axis] // chunks[axis])
        fitting = max(1, max_bytes // (step * chunks[axis]))
        even = -(-columns // -(-columns // fitting))
        whole[axis] = min(even * chunks[axis], shape[axis])
        if step * whole[axis] <= max_bytes:
            break
    return tuple(whole)


def bands(shape: Shape, chunks: Shape, itemsize: int, max_bytes: int) -> Iterator[Region]:
    """Yield the regions in which a source that can be read again is read.

    Each is a union of whole chunks (clipped to the array): one chunk along the first axis and
    the array's full width behind it if `max_bytes` allow, else fewer chunks, but at least one.
    Together they cover every element once; all chunks, band after band, come in C order.

    Parameters
    ----------
    shape, chunks, itemsize, max_bytes
        As in :func:`band_shape`.

    Yields
    ------
    tuple of slice
        The next region.
    """
    if 0 in shape:
        return
    band = band_shape(shape, chunks, itemsize, max_bytes)
    for offset in iter_offsets(shape, band):
        yield chunk_region(offset, band, shape)


def block_shape(shape: Shape, chunks: Shape, itemsize: int, max_bytes: int, least: Shape | None = None) -> Shape:
    """Return the shape of blocks of whole chunks for tasks: several chunks each, so that tasks are not too small.

    Parameters
    ----------
    shape, chunks : tuple of int
        Shape of the array and of its chunks.
    itemsize : int
        Size of one element, in bytes.
    max_bytes : int
        Size a block should not exceed, in bytes; one chunk, and `least`, may.
    least : tuple of int, optional
        What a block is to cover at least, such as the pieces in which the elements are computed.

    Returns
    -------
    tuple of int
        Multiples of the chunks, clipped to the array.
    """
    pieces = chunks if least is None else least
    block = [
        min(length, -(-max(1, piece) // chunk) * chunk)
        for length, piece, chunk in zip(shape, pieces, chunks, strict=True)
    ]
    for axis in reversed(range(len(block))):
        times = max_bytes // max(1, math.prod(block) * itemsize)
        block[axis] = min(shape[axis], block[axis] * max(1, times))
        if block[axis] < shape[axis]:
            break
    return tuple(block)
