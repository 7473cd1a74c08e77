"""Dask arrays: their blocks are looked at as they are computed, because Dask puts them together whatever they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate, groupby
from typing import Any

import numpy as np

from nwbflow.encoding.cast import exact
from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.layout import Shape
from nwbflow.sources.checks import refuse_masked

type _Runs = tuple[tuple[tuple[int, int], ...], ...]
# (length, how many blocks of it) along each axis: small also where there are very many blocks


def is_dask_array(data: Any) -> bool:
    """Return whether `data` is a dask array; Dask is not imported for that."""
    return type(data).__module__.startswith("dask.") and all(
        hasattr(data, n) for n in ("chunks", "dtype", "map_blocks")
    )


def refuse_unknown_lengths(data: Any) -> None:
    """Raise if `data` is a dask array of lengths that are not known before it is computed.

    Raises
    ------
    SourceError
        Kind ``SHAPE``.
    """
    if is_dask_array(data) and any(math.isnan(length) for length in data.shape):
        raise SourceError(
            f"the shape {data.shape} of the dask array is not known before it is computed: "
            "call its compute_chunk_sizes() first",
            kind=ErrorKind.SHAPE,
        )


def checked(array: Any) -> Any:
    """Return a dask array that fails where one of its blocks is not of the declared shape, or holds other values.

    Dask itself takes the type of the first block for all, spreads blocks that are too small over their place, and
    cuts off what is too much: other elements would be stored without a word.

    Parameters
    ----------
    array : dask.array.Array
        All lengths known.
    """
    from dask.array import map_blocks

    runs = tuple(tuple((size, len(list(same))) for size, same in groupby(sizes)) for sizes in array.chunks)
    look = partial(as_declared, runs=runs, dtype=array.dtype)
    return map_blocks(look, array, dtype=array.dtype, meta=array._meta)


def as_declared(block: Any, *, runs: _Runs, dtype: np.dtype[Any], block_id: Sequence[int] | None = None) -> Any:
    """Return one computed block as its array declares it; runs where it was computed.

    Raises
    ------
    SourceError
        Another shape, masked elements, or values that the declared type can't hold.
    """
    places = [_place(run, at) for run, at in zip(runs, block_id or (), strict=True)]
    offset, wanted = tuple(start for start, _ in places), tuple(length for _, length in places)
    region = "[" + ", ".join(f"{start}:{start + length}" for start, length in places) + "]"
    refuse_masked(block, f"the block {region}")
    found: Shape | None = getattr(block, "shape", None)
    if found != wanted:
        raise SourceError(
            f"the block {region} of the dask array was computed with shape {found}, it is declared with {wanted}; "
            "what computes it must give what map_blocks(..., chunks=) or the like says",
            kind=ErrorKind.SHAPE,
        )
    if block.dtype == dtype or not isinstance(block, np.ndarray):
        return block
    return exact(block, dtype, name=f"the block {region} of the dask array", offset=offset)


def _place(runs: Iterable[tuple[int, int]], at: int) -> tuple[int, int]:
    """Return where the block of that number begins on an axis, and how long it is."""
    runs = tuple(runs)
    counts = accumulate((count for _, count in runs), initial=0)
    starts = accumulate((length * count for length, count in runs), initial=0)
    for (length, count), first, start in zip(runs, counts, starts, strict=False):
        if at < first + count:
            return start + (at - first) * length, length
    raise IndexError(at)
