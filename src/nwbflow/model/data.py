"""Where data come from: things that can be read again, and things that pass by once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nwbflow.model.layout import MaxShape, Shape

type Region = tuple[slice, ...]
"""One slice per axis, start and stop given, step 1."""

type Array = np.ndarray[Any, np.dtype[Any]]
"""Any numpy array."""


@runtime_checkable
class Source(Protocol):
    """An array that can be read again: verifying, resuming and retrying depend on it."""

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether :meth:`read` returns views at no cost and may be called from any thread."""
        ...

    def read(self, region: Region, /) -> Array:
        """Return the elements of `region`, of exactly its shape."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """A dense rectangle of a stream.

    Parameters
    ----------
    offset : tuple of int
        Position of the first element on every axis.
    data : numpy.ndarray
        The elements; as many axes as the dataset.
    """

    offset: tuple[int, ...]
    data: Array


@dataclass(frozen=True, slots=True)
class Scatter:
    """Elements of a stream at positions that are no dense rectangle (steps, lists, masks).

    Parameters
    ----------
    selection : object
        An h5py selection.
    data : numpy.ndarray
        The elements, of the selection's shape.
    bounds : tuple of int
        Smallest dataset shape that holds the selection.
    """

    selection: Any
    data: Array
    bounds: Shape


@runtime_checkable
class Stream(Protocol):
    """Data that pass by once, block by block; the length may be unknown."""

    @property
    def maxshape(self) -> MaxShape:
        """Promised shape; ``None`` where unknown."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        ...

    def __iter__(self) -> Iterator[Block | Scatter]:
        """Start the one pass."""
        ...
