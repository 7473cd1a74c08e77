"""Blocks as users give them: checked, and copied as they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nwbflow.encoding.cast import exact
from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array
from nwbflow.record.manifest import ID, LiveDataset, LiveSeries
from nwbflow.sources.checks import refuse_masked


def as_rows(blocks: Sequence[object], series: LiveSeries) -> Sequence[object]:
    """Return the blocks of one append to a table, of which one row may be given as bare values."""
    if not series.is_table:
        return blocks
    ranks = [len(dataset.row_shape) for dataset in series.given]
    if all(_rank(block) == rank for block, rank in zip(blocks, ranks, strict=True)):
        return [[block] for block in blocks]
    return blocks


def _rank(block: object) -> int:
    try:
        return np.ndim(block)  # type: ignore[arg-type]
    except ValueError:
        return -1  # rows of different lengths; said when it is checked


def checked(block: object, dataset: LiveDataset) -> Array:
    """Return a copy of a block as it is stored.

    Raises
    ------
    SourceError
        If it does not fit.
    """
    name = dataset.name
    refuse_masked(block, f"{name}: a block")
    try:
        given = np.asarray(block)
    except ValueError as error:
        raise SourceError(f"{name}: a block has rows of different lengths: {error}", kind=ErrorKind.SHAPE) from error
    if given.ndim == 0 or given.shape[1:] != dataset.row_shape:
        expected = ", ".join(["k", *map(str, dataset.row_shape)])
        raise SourceError(
            f"{name}: a block has shape {given.shape}, expected ({expected}): append whole rows (one row as row[None])",
            kind=ErrorKind.SHAPE,
        )
    if given.size == 0 and given.dtype.kind not in "biufc":
        given = given.astype(dataset.layout.dtype)
    stored = np.ascontiguousarray(exact(given, dataset.layout.dtype, name=name, offset=(0,) * given.ndim))
    return stored.copy() if np.may_share_memory(stored, given) else stored


def equal_rows(arrays: list[Array], series: LiveSeries) -> int:
    """Return the number of rows that the blocks of one append have.

    Raises
    ------
    SourceError
        If they have not all the same.
    """
    rows = {len(array) for array in arrays}
    if len(rows) > 1:
        found = ", ".join(f"{d.field} {len(a)}" for a, d in zip(arrays, series.given, strict=True))
        raise SourceError(
            f"{series.name}: the blocks of one append have different numbers of rows ({found}); nothing was taken",
            kind=ErrorKind.LENGTH,
        )
    return rows.pop()


def parts_of(arrays: Sequence[Array], rows: int, series: LiveSeries) -> tuple[Array, ...]:
    """Return the bytes of one append for each dataset of a series; those of the ids of a table are still empty."""
    given = iter(arrays)
    return tuple(
        np.zeros(rows * dataset.row_bytes, np.uint8) if dataset.field == ID else _as_bytes(next(given))
        for dataset in series.datasets
    )


def _as_bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)


def count_rows(parts: Sequence[Array], series: LiveSeries, first: int) -> None:
    """Fill in the ids of a table's rows, which is possible only when it is known which rows they are."""
    for part, dataset in zip(parts, series.datasets, strict=False):
        if dataset.field == ID:
            ids = part.view(dataset.layout.dtype)
            ids[:] = np.arange(first, first + len(ids))
