"""Arrays that lie in parts in several processes: whether the parts fit, and which chunks lie in one of them.

All offsets, lengths and shapes are in elements. A part is a region of the array; it may be empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product

from nwbflow.model.data import Region
from nwbflow.model.layout import Shape


def within(region: Region, start: tuple[int, ...]) -> Region:
    """Return `region` counted from `start`."""
    return tuple(slice(s.start - o, s.stop - o) for s, o in zip(region, start, strict=True))


def common(one: Region, other: Region) -> Region | None:
    """Return what two regions share; ``None`` if that is nothing."""
    shared = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return None if any(s.stop <= s.start for s in shared) else shared


def lengths_of(region: Region) -> Shape:
    """Return the shape of a region."""
    return tuple(s.stop - s.start for s in region)


def overlap(parts: Sequence[Region]) -> tuple[int, int, Region] | None:
    """Return the numbers of two parts that share elements, and what they share; ``None`` if none do."""
    filled = (at for at in range(len(parts)) if math.prod(lengths_of(parts[at])))
    order = sorted(filled, key=lambda at: parts[at][0].start)
    for place, one in enumerate(order):
        for other in order[place + 1 :]:
            if parts[other][0].start >= parts[one][0].stop:
                break
            shared = common(parts[one], parts[other])
            if shared is not None:
                return min(one, other), max(one, other), shared
    return None


def missing(parts: Sequence[Region], shape: Shape) -> tuple[int, Region | None]:
    """Return how many elements no part has, and the first rows that lack some, where parts don't overlap.

    Parameters
    ----------
    parts : sequence of tuple of slice
        Which don't overlap.
    shape : tuple of int
        Shape of the whole array.

    Returns
    -------
    count : int
        Elements in no part.
    rows : tuple of slice or None
        The first range of rows between two bounds of parts in which there are such; ``None`` if there are none.
    """
    count = math.prod(shape) - sum(math.prod(lengths_of(part)) for part in parts)
    if count == 0:
        return 0, None
    full = [part for part in parts if math.prod(lengths_of(part))]
    bounds = sorted({0, shape[0], *(s for part in full for s in (part[0].start, part[0].stop))})
    width = math.prod(shape[1:])
    for low, high in pairwise(bounds):
        there = sum(math.prod(lengths_of(part)[1:]) for part in full if part[0].start <= low and part[0].stop >= high)
        if there < width:
            return count, (slice(low, high), *(slice(0, n) for n in shape[1:]))
    return count, None


def whole_chunks(part: Region, chunks: Shape, shape: Shape) -> Region | None:
    """Return the rectangle of the chunks that lie in one part from end to end; ``None`` if none does."""
    inner = []
    for side, chunk, length in zip(part, chunks, shape, strict=True):
        start = -(-side.start // chunk) * chunk
        stop = side.stop if side.stop == length else side.stop // chunk * chunk
        if stop <= start:
            return None
        inner.append(slice(start, stop))
    return tuple(inner)


def divided_chunks(parts: Sequence[Region], chunks: Shape, shape: Shape) -> list[tuple[int, ...]]:
    """Return the offsets of the chunks that lie in more than one part, in C order."""
    found: set[tuple[int, ...]] = set()
    for part in parts:
        if math.prod(lengths_of(part)):
            found.update(_divided(part, chunks, shape))
    return sorted(found)


def _divided(part: Region, chunks: Shape, shape: Shape) -> Iterator[tuple[int, ...]]:
    """Give the chunks a part touches without having all of them; only the surface is gone through."""
    outer = [range(side.start // chunk * chunk, side.stop, chunk) for side, chunk in zip(part, chunks, strict=True)]
    inner = whole_chunks(part, chunks, shape)
    if inner is None:
        yield from product(*outer)
        return
    full = [range(side.start, side.stop, chunk) for side, chunk in zip(inner, chunks, strict=True)]
    for axis, side in enumerate(outer):
        rim = [at for at in side if at not in full[axis]]
        yield from product(*full[:axis], rim, *outer[axis + 1 :])


def runs(
    offsets: Sequence[tuple[int, ...]], chunks: Shape, shape: Shape, itemsize: int, max_bytes: int
) -> list[Region]:
    """Join chunks that follow each other along the last axis to regions.

    Parameters
    ----------
    offsets : sequence of tuple of int
        The chunks, in C order.
    chunks, shape : tuple of int
        Shape of the chunks and of the array.
    itemsize : int
        Size of one element, in bytes.
    max_bytes : int
        Size a region should not exceed, in bytes; one chunk may.
    """
    found: list[Region] = []
    step = math.prod(chunks[:-1]) * itemsize
    for offset in offsets:
        end = tuple(slice(o, min(o + c, n)) for o, c, n in zip(offset, chunks, shape, strict=True))
        last = found[-1] if found else None
        if (
            last is not None
            and last[:-1] == end[:-1]
            and last[-1].stop == end[-1].start
            and (end[-1].stop - last[-1].start) * step <= max_bytes
        ):
            found[-1] = (*last[:-1], slice(last[-1].start, end[-1].stop))
        else:
            found.append(end)
    return found
