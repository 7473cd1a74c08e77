"""Conversion to the stored type, without loss or not at all."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array


def exact(data: Array, dtype: np.dtype[Any], *, name: str, offset: tuple[int, ...]) -> Array:
    """Return `data` as `dtype`, every value kept.

    Parameters
    ----------
    data : numpy.ndarray
        Any shape.
    dtype : numpy.dtype
        The stored type.
    name : str
        The dataset, for the error.
    offset : tuple of int
        Where the first element belongs, for the error.

    Raises
    ------
    SourceError
        If `data` are no numbers (kind ``DTYPE``) or a value would change (kind ``LOSSY``);
        the text gives the first such value and its place.
    """
    if data.dtype == dtype or _always_exact(data.dtype, dtype):
        return data.astype(dtype, copy=False)
    if data.dtype.kind not in "biufc":
        raise SourceError(
            f"{name}: data of type {data.dtype} at {offset}, expected numbers for {dtype}", kind=ErrorKind.DTYPE
        )
    cast, changed = _cast(data, dtype)
    if changed.any():
        first = np.unravel_index(int(np.argmax(changed)), data.shape)
        place = tuple(int(o + i) for o, i in zip(offset, first, strict=True))
        raise SourceError(
            f"{name}: value {data[first]} ({data.dtype}) at {place} can't be stored as {dtype} without loss. "
            f"Declare a type that holds it (dtype='{np.promote_types(data.dtype, dtype)}'), or convert the data "
            "before they are written",
            kind=ErrorKind.LOSSY,
        )
    return cast


def _always_exact(given: np.dtype[Any], stored: np.dtype[Any]) -> bool:
    # numpy calls 64-bit integers into float64 safe, though whole numbers above 2**53 change
    wide = given.kind in "iu" and given.itemsize == 8 and stored.kind in "fc" and stored.itemsize <= 16
    return not wide and bool(np.can_cast(given, stored, "safe"))


def _cast(data: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return the cast values and where they differ from the original."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        cast = data.astype(dtype)
        if data.dtype.kind in "iu" and dtype.kind in "iu":
            # a round trip would hide a change of sign between types of one size
            limits = np.iinfo(dtype)
            return cast, (data < limits.min) | (data > limits.max)
        back = cast.astype(data.dtype)
        changed = back != data
        if data.dtype.kind in "iu" and dtype.kind in "fc":
            # the largest integers round up to a power of two that has no way back
            changed |= cast.real >= float(np.iinfo(data.dtype).max)
            changed |= ~np.isfinite(cast.real)  # and the smallest may come back from infinity
        if data.dtype.kind in "fc" and dtype.kind in "iu":
            changed |= data.real >= np.iinfo(dtype).max + 1.0
        if data.dtype.kind in "fc" and dtype.kind in "fc":
            changed &= ~(np.isnan(data) & np.isnan(back))
        return cast, changed
