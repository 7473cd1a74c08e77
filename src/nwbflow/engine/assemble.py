"""Blocks of any size in any order become whole chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nwbflow.encoding.cast import exact
from nwbflow.engine.chunks import blank
from nwbflow.engine.job import Job
from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array, Block, Region, Stream
from nwbflow.model.layout import MaxShape, Shape
from nwbflow.planning.grid import overlapping


@dataclass(slots=True)
class _Open:
    array: Array
    filled: int = 0


@dataclass(slots=True)
class _Covered:
    low: Shape
    high: Shape
    count: int = 0


class Assembler:
    """Collects the blocks of one stream into chunks.

    A chunk is handed on when as many elements arrived as it holds. If blocks overlap, that is
    too early; elements that come later then reload the chunk from the file, which is slow but
    right. The same happens when more chunks are open than memory allows.

    Parameters
    ----------
    job : Job
        Its data must be a stream.
    reload : callable
        Returns the elements of the stored chunk at an offset, or ``None`` if none is stored.

    Attributes
    ----------
    bounds : tuple of int
        How far the data reach on every axis, in elements.
    delivered : int
        Elements covered, exactly where blocks of one chunk don't overlap. Where they do, the most that can
        be: as many as arrived for a chunk, but no more than the smallest rectangle around them holds.
    """

    def __init__(self, job: Job, reload: Callable[[tuple[int, ...]], Array | None]) -> None:
        if not isinstance(job.data, Stream) or job.layout.chunks is None:
            raise TypeError(f"{job.name} is no stream into a chunked dataset")
        self._name = job.name
        self._layout = job.layout
        self._chunks: Shape = job.layout.chunks
        self._limit: MaxShape = job.data.maxshape
        self._room = max(1, job.open_bytes // max(1, job.layout.chunk_bytes))
        self._reload = reload
        self._open: dict[tuple[int, ...], _Open] = {}
        self._covered: dict[tuple[int, ...], _Covered] = {}
        self.bounds: Shape = (0,) * len(self._chunks)
        self.delivered = 0

    def add(self, block: Block) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Take in one block; give out every chunk that became complete or had to leave."""
        self._check(block)
        data = exact(block.data, self._layout.dtype, name=self._name, offset=block.offset)
        self.extend(tuple(o + n for o, n in zip(block.offset, data.shape, strict=True)))
        for offset, in_block, in_chunk in overlapping(block.offset, data.shape, self._chunks):
            chunk = self._open.get(offset)
            if chunk is None:
                chunk = self._open[offset] = _Open(self._start(offset))
            part = data[in_block]
            chunk.array[in_chunk] = part
            chunk.filled += part.size
            self._count(offset, in_chunk, part.size)
            if chunk.filled >= math.prod(self.lengths(offset, self._limit)):
                yield offset, self._take(offset)
            elif len(self._open) > self._room:
                oldest = next(iter(self._open))
                yield oldest, self._take(oldest)

    def flush(self) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Give out every chunk still open, incomplete as it is."""
        for offset in sorted(self._open):
            yield offset, self._take(offset)

    def extend(self, bounds: Shape) -> None:
        """Note that the data reach at least to `bounds`."""
        self.bounds = tuple(max(a, b) for a, b in zip(self.bounds, bounds, strict=True))

    def lengths(self, offset: tuple[int, ...], limit: MaxShape) -> Shape:
        """Return how much of the chunk at `offset` lies inside `limit`."""
        return tuple(c if n is None else min(c, n - o) for o, c, n in zip(offset, self._chunks, limit, strict=True))

    def _count(self, offset: tuple[int, ...], place: Region, size: int) -> None:
        low, high = tuple(s.start for s in place), tuple(s.stop for s in place)
        known = self._covered.setdefault(offset, _Covered(low, high))
        known.low, known.high = tuple(map(min, known.low, low)), tuple(map(max, known.high, high))
        count = min(known.count + size, math.prod(b - a for a, b in zip(known.low, known.high, strict=True)))
        self.delivered += count - known.count
        known.count = count

    def _take(self, offset: tuple[int, ...]) -> Array:
        # beyond the bounds there is nothing but fill value, which is added again when encoding
        array = self._open.pop(offset).array
        return array[tuple(slice(0, n) for n in self.lengths(offset, self.bounds))]

    def _start(self, offset: tuple[int, ...]) -> Array:
        array = blank(self._chunks, self._layout)
        stored = self._reload(offset)
        if stored is not None:
            array[tuple(slice(0, n) for n in stored.shape)] = stored
        return array

    def _check(self, block: Block) -> None:
        if block.data.ndim != len(self._chunks):
            raise SourceError(
                f"{self._name}: a block at {block.offset} has {block.data.ndim} axes, the dataset {len(self._chunks)}",
                kind=ErrorKind.SHAPE,
            )
        for offset, length, limit in zip(block.offset, block.data.shape, self._limit, strict=True):
            if offset < 0 or (limit is not None and offset + length > limit):
                raise SourceError(
                    f"{self._name}: a block of shape {block.data.shape} at {block.offset} reaches outside the promised "
                    f"shape {self._limit}; promise the true shape, with None for axes not known beforehand",
                    kind=ErrorKind.BOUNDS,
                )
