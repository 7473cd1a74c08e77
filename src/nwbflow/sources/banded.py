"""Stored arrays read a whole row of their chunks at a time, so that none is decoded twice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nwbflow.errors import ErrorKind, LinkError, NwbflowError
from nwbflow.model.data import Array, Region, Source
from nwbflow.model.layout import Shape
from nwbflow.sources.arrays import show_region


class Banded:
    """A source that reads whole rows of stored chunks and keeps the last.

    What is asked for are rows of the chunks of the *result*; where those are cut otherwise than the stored ones, each
    stored chunk would be decoded once for every row of the result's chunks that it has a part in.

    Parameters
    ----------
    source : Source
        The stored array.
    rows : int
        Elements of a stored chunk along the first axis; 0 to keep nothing.
    name : str
        File and path, for errors.

    Raises
    ------
    nwbflow.errors.LinkError
        When it can't be read.
    """

    in_memory = False

    def __init__(self, source: Source, rows: int, name: str) -> None:
        self._source = source
        self._rows = rows
        self._name = name
        self._kept: tuple[Any, Array] | None = None

    @property
    def inner(self) -> Source:
        """The stored array."""
        return self._source

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._source.dtype

    def read(self, region: Region, /) -> Array:
        """Return the elements of `region`."""
        first, rest = region[0], region[1:]
        most = self.shape[0]
        rows = self._rows
        if not rows or (first.start % rows == 0 and (first.stop % rows == 0 or first.stop == most)):
            self._kept = None
            return self._read(region)
        found = np.empty(tuple(s.stop - s.start for s in region), self.dtype)
        at = first.start
        while at < first.stop:
            start, stop = at // rows * rows, min((at // rows + 1) * rows, most)
            end = min(stop, first.stop)
            found[at - first.start : end - first.start] = self._band(slice(start, stop), rest)[at - start : end - start]
            at = end
        if first.stop == most:
            self._kept = None
        return found

    def _read(self, region: Region) -> Array:
        try:
            return self._source.read(region)
        except NwbflowError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # of HDF5, zarr-python, or their codecs
            raise LinkError(
                f"{self._name} can't be read at {show_region(region)}: {error}. To save what can be: nwbflow recover",
                kind=ErrorKind.IO,
            ) from error

    def _band(self, rows: slice, rest: Region) -> Array:
        key = (rows.start, tuple((s.start, s.stop) for s in rest))
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # not both at a time
            self._kept = (key, self._read((rows, *rest)))
        return self._kept[1]


def band_bytes(shape: Shape, chunks: Shape, itemsize: int) -> int:
    """Return what one row of an array's chunks takes in memory."""
    return math.prod((min(chunks[0], shape[0]), *shape[1:])) * itemsize
