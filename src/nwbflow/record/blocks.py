"""Blocks as users give them: checked, and copied as they are stored."""

from __future__ import annotations

import numpy as np

from nwbflow.engine.cast import exact
from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array
from nwbflow.record.manifest import LiveDataset, LiveSeries
from nwbflow.sources.checks import refuse_masked


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
        found = ", ".join(f"{d.field} {len(a)}" for a, d in zip(arrays, series.datasets, strict=True))
        raise SourceError(
            f"{series.name}: the blocks of one append have different numbers of rows ({found}); nothing was taken",
            kind=ErrorKind.LENGTH,
        )
    return rows.pop()
