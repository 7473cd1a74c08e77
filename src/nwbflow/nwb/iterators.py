"""HDMF's iterators as streams: what they promise is checked against what they give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from hdmf.data_utils import AbstractDataChunkIterator, DataChunk, DataChunkIterator, GenericDataChunkIterator

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Block, Scatter
from nwbflow.model.layout import MaxShape, Shape
from nwbflow.sources.checks import is_first_pass, refuse_masked


class IteratorStream:
    """Any :class:`hdmf.data_utils.AbstractDataChunkIterator`, in any order, dense or sparse.

    Parameters
    ----------
    iterator : AbstractDataChunkIterator
        Drained once.

    Raises
    ------
    SourceError
        While iterating: a block that doesn't fit its selection, a selection out of bounds, an
        iterator that gives nothing (used up), or one of HDMF's own that ends early.
    """

    def __init__(self, iterator: AbstractDataChunkIterator) -> None:
        self._iterator = iterator
        self._origin = getattr(iterator, "watched", iterator)  # of a DataChunkProcessor
        maxshape = iterator.maxshape
        self._maxshape: MaxShape = tuple(None if n is None else int(n) for n in maxshape)
        self._dtype: np.dtype[Any] = np.dtype(iterator.dtype)

    @property
    def maxshape(self) -> MaxShape:
        """Promised shape, ``None`` where unknown."""
        return self._maxshape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._dtype

    @property
    def recommended_chunks(self) -> Shape | None:
        """Chunk shape the iterator recommends, if it does."""
        chunks = self._iterator.recommended_chunk_shape()
        return None if chunks is None else tuple(int(n) for n in chunks)

    def __iter__(self) -> Iterator[Block | Scatter]:
        """Pass over the iterator once."""
        delivered, reached = 0, [0] * len(self._maxshape)
        again = not is_first_pass(self._origin)
        for number, chunk in enumerate(self._iterator):
            block = as_block(chunk, self._maxshape, f"chunk {number}")
            ends = ends_of(block)
            reached = [max(a, b) for a, b in zip(reached, ends, strict=True)]
            delivered += block.data.size
            yield block
        self._check_end(delivered, tuple(reached), again=again)

    def _check_end(self, delivered: int, reached: Shape, *, again: bool) -> None:
        promised = math.prod(n for n in self._maxshape if n is not None)
        if delivered == 0 and (again or (promised > 0 and None not in self._maxshape)):
            raise SourceError(
                f"the iterator promised shape {self._maxshape} and gave nothing: it was used up by an earlier write. "
                "Make a new one",
                kind=ErrorKind.EXHAUSTED,
            )
        if isinstance(self._origin, GenericDataChunkIterator) and delivered < promised:
            raise SourceError(
                f"the iterator promised shape {self._maxshape} and gave {delivered} of {promised} elements: "
                "it was partly used up before, or its _get_maxshape is wrong",
                kind=ErrorKind.LENGTH,
            )
        axis = getattr(self._origin, "iter_axis", 0)
        if isinstance(self._origin, DataChunkIterator):
            length = self._maxshape[axis]
            if length is not None and reached[axis] < length:
                raise SourceError(
                    f"the iterator promised {length} rows (maxshape {self._maxshape}) and ended after "
                    f"{reached[axis]}: give the true length, or None for the axis",
                    kind=ErrorKind.LENGTH,
                )


def ends_of(block: Block | Scatter) -> Sequence[int]:
    """Return where a block ends on every axis."""
    if isinstance(block, Scatter):
        return block.bounds
    return tuple(o + n for o, n in zip(block.offset, block.data.shape, strict=True))


def as_block(chunk: DataChunk, maxshape: MaxShape, what: str) -> Block | Scatter:
    """Return HDMF's chunk as a dense block where its selection is one, else as it is.

    Raises
    ------
    SourceError
        If data and selection differ in size, or the selection is out of bounds.
    """
    refuse_masked(chunk.data, f"{what} at {chunk.selection}")
    data = np.asarray(chunk.data)
    selection = chunk.selection
    if isinstance(selection, np.ndarray) and selection.dtype == bool and selection.ndim == len(maxshape) > 1:
        _check_size(data, int(selection.sum()), selection.shape, what)
        if any(limit is not None and n > limit for n, limit in zip(selection.shape, maxshape, strict=True)):
            raise SourceError(
                f"{what}: a mask of shape {selection.shape} is out of bounds of the promised shape {maxshape}",
                kind=ErrorKind.BOUNDS,
            )
        return Scatter(selection, data, selection.shape)
    parts = _expand(selection, len(maxshape), what)
    if all(isinstance(part, int) or (isinstance(part, slice) and part.step in (None, 1)) for part in parts):
        return _dense(data, parts, maxshape, what)
    return _scattered(data, parts, maxshape, what)


def _expand(selection: Any, rank: int, what: str) -> list[Any]:
    """Return one part per axis, ellipsis and missing axes spelt out."""
    parts = list(selection) if isinstance(selection, tuple) else [selection]
    if any(part is Ellipsis for part in parts):
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (rank - len(parts) + 1)
    parts += [slice(None)] * (rank - len(parts))
    if len(parts) != rank:
        raise SourceError(f"{what}: selection {selection} has {len(parts)} axes, the data {rank}", kind=ErrorKind.SHAPE)
    odd = [part for part in parts if not isinstance(part, int | np.integer | slice | list | tuple | np.ndarray)]
    if odd:
        raise SourceError(
            f"{what}: selection {selection!r} has {odd[0]!r}, which is no number, slice, list or mask",
            kind=ErrorKind.SHAPE,
        )
    return [int(part) if isinstance(part, int | np.integer) else part for part in parts]


def _dense(data: Any, parts: list[Any], maxshape: MaxShape, what: str) -> Block:
    lengths_given = iter(data.shape)
    starts, lengths = [], []
    for axis, (part, limit) in enumerate(zip(parts, maxshape, strict=True)):
        if isinstance(part, int):
            start, length = part, 1
        else:
            given = next(lengths_given, 1)
            start = part.start or 0
            length = (part.stop - start) if part.stop is not None else (given if limit is None else limit - start)
        if start < 0 or length < 0 or (limit is not None and start + length > limit):
            raise SourceError(
                f"{what}: selection {parts} is out of bounds on axis {axis} of the promised shape {maxshape}",
                kind=ErrorKind.BOUNDS,
            )
        starts.append(start)
        lengths.append(length)
    if [n for n in data.shape if n != 1] != [n for n in lengths if n != 1]:
        raise SourceError(
            f"{what}: data of shape {data.shape} don't fill their selection of shape {tuple(lengths)} at "
            f"{tuple(starts)}: yield data of exactly the selection's shape",
            kind=ErrorKind.SHAPE,
        )
    return Block(tuple(starts), data.reshape(lengths))


def _scattered(data: Any, parts: list[Any], maxshape: MaxShape, what: str) -> Scatter:
    counts, bounds, chosen = [], [], []
    for part, limit, extent in zip(parts, maxshape, (*data.shape, *(1,) * len(parts)), strict=False):
        if isinstance(part, slice):
            stop = part.stop if part.stop is not None else (limit if limit is not None else extent)
            places: Any = range(part.start or 0, stop, part.step or 1)
        elif isinstance(part, int):
            places = [part]
        else:
            listed = np.asarray(part)
            # h5py wants a mask to be as long as the dataset, which grows here
            places = np.flatnonzero(listed) if listed.dtype == bool else listed
        chosen.append(part if isinstance(part, slice | int) else places)
        counts.append(len(places))
        bounds.append(int(max(places)) + 1 if len(places) else 0)
        if len(places) and (min(places) < 0 or (limit is not None and bounds[-1] > limit)):
            raise SourceError(
                f"{what}: selection {parts} is out of bounds of the promised shape {maxshape}", kind=ErrorKind.BOUNDS
            )
    _check_size(data, math.prod(counts), tuple(counts), what)
    return Scatter(tuple(chosen), data, tuple(bounds))


def _check_size(data: Any, size: int, shape: Shape, what: str) -> None:
    if data.size != size:
        raise SourceError(
            f"{what}: data of shape {data.shape} don't fill their selection of {size} elements {shape}",
            kind=ErrorKind.SHAPE,
        )
