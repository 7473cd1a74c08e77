"""Data that pass by once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array, Block
from nwbflow.model.layout import MaxShape
from nwbflow.sources.checks import is_first_pass, refuse_masked


class BlockStream:
    """Blocks of k rows, one after another along the first axis.

    Parameters
    ----------
    blocks : iterable of array_like
        Each of shape ``(k, *shape[1:])``; k may differ from block to block.
    maxshape : tuple of int or None
        Promised shape, in elements; the first axis may be ``None``, unknown.
    dtype : numpy.dtype
        Type of the elements to be stored. Blocks of another type are taken if every value
        survives the conversion.

    Raises
    ------
    SourceError
        While iterating: a block of another rank or width, ragged rows, no numbers, more or
        fewer rows than promised, or an iterator that was used up before.
    """

    def __init__(self, blocks: Iterable[Any], *, maxshape: MaxShape, dtype: np.dtype[Any]) -> None:
        if not maxshape or any(n is None for n in maxshape[1:]):
            raise SourceError(
                f"shape {maxshape}: give every axis but the first its length, as in (None, 384)", kind=ErrorKind.SHAPE
            )
        self._blocks = blocks
        self._maxshape = maxshape
        self._dtype = np.dtype(dtype)
        self._used = False

    @property
    def blocks(self) -> Iterable[Any]:
        """What was given."""
        return self._blocks

    @property
    def maxshape(self) -> MaxShape:
        """Promised shape, ``None`` where unknown."""
        return self._maxshape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements to be stored."""
        return self._dtype

    def __iter__(self) -> Iterator[Block]:
        """Pass over the blocks once."""
        iterator = iter(self._blocks)
        if iterator is self._blocks and (not is_first_pass(iterator) or self._used):
            raise SourceError(
                "this iterator was used up by an earlier write and has nothing more to give; make a new one",
                kind=ErrorKind.EXHAUSTED,
            )
        self._used = True
        row = 0
        zeros = (0,) * (len(self._maxshape) - 1)
        for number, item in enumerate(iterator):
            data = self._check(item, number, row)
            if len(data):
                yield Block((row, *zeros), data)
            row += len(data)
        promised = self._maxshape[0]
        if promised is not None and row < promised:
            raise SourceError(
                f"promised {promised} rows, ended after {row}: give shape=({row}, ...), "
                "or None for the first axis if the length is not known beforehand",
                kind=ErrorKind.LENGTH,
            )

    def _check(self, item: Any, number: int, row: int) -> Array:
        where = f"block {number} (from row {row})"
        try:
            data = np.asarray(item)
        except ValueError as error:
            raise SourceError(f"{where} has rows of different lengths: {error}", kind=ErrorKind.SHAPE) from error
        refuse_masked(item, where)
        if data.shape[1:] != self._maxshape[1:] or data.ndim != len(self._maxshape):
            raise SourceError(
                f"{where} has shape {data.shape}, expected (k, {', '.join(map(str, self._maxshape[1:]))}): "
                "yield blocks of whole rows (one row as row[None])",
                kind=ErrorKind.SHAPE,
            )
        promised = self._maxshape[0]
        if promised is not None and row + len(data) > promised:
            raise SourceError(
                f"{where} has {len(data)} rows, but only {promised - row} of the promised {promised} are left: "
                "give the true length, or None for the first axis",
                kind=ErrorKind.LENGTH,
            )
        return data
