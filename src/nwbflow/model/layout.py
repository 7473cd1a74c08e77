"""How one dataset lies on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

type Shape = tuple[int, ...]
"""Lengths of all axes, in elements."""

type MaxShape = tuple[int | None, ...]
"""Largest lengths of all axes, in elements; ``None`` is unlimited."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a chunk's pipeline, as HDF5 records it.

    Parameters
    ----------
    id : int
        Registered HDF5 filter number (https://portal.hdfgroup.org/documentation/hdf5/latest/_h5_f__p_l_u_g.html),
        e.g. 1 deflate, 2 shuffle, 3 fletcher32, 32015 Zstandard.
    options : tuple of int
        The filter's client data (``cd_values``), in order.
    """

    id: int
    options: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Shape, type, chunks and filters of one dataset; hashable, printable, JSON both ways.

    Parameters
    ----------
    shape : tuple of int
        Lengths of the axes when complete, in elements. For data of unknown length the
        unknown axes hold what is known so far (0 at first).
    maxshape : tuple of int or None
        Largest lengths; ``None`` is unlimited.
    dtype : numpy.dtype
        Type of the stored elements, byte order included.
    chunks : tuple of int or None
        Chunk shape in elements; ``None`` is contiguous storage.
    filters : tuple of Filter
        Pipeline in the order in which it is applied when writing.
    fillvalue : int, float, bool, complex or None
        Value of elements never written; ``None`` is HDF5's default, zero.
    shards : tuple of int or None
        Shape, in elements, of the whole chunks that are stored together as one object (Zarr); ``None`` where each
        chunk is stored for itself.
    """

    shape: Shape
    maxshape: MaxShape
    dtype: np.dtype[Any]
    chunks: Shape | None
    filters: tuple[Filter, ...] = ()
    fillvalue: int | float | bool | complex | None = None
    shards: Shape | None = None

    @property
    def chunk_bytes(self) -> int:
        """Size of one full chunk before filters, in bytes (0 where storage is contiguous)."""
        return 0 if self.chunks is None else math.prod(self.chunks) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Size of the whole array before filters, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """Return the layout as JSON-serialisable values; :meth:`from_json` reverses it."""
        fill = self.fillvalue
        return {
            "shape": list(self.shape),
            "maxshape": list(self.maxshape),
            "dtype": self.dtype.str,
            "chunks": None if self.chunks is None else list(self.chunks),
            "filters": [{"id": f.id, "options": list(f.options)} for f in self.filters],
            "fillvalue": [fill.real, fill.imag] if isinstance(fill, complex) else fill,
            "shards": None if self.shards is None else list(self.shards),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """Build a layout from what :meth:`to_json` returned."""
        fill, shards = value["fillvalue"], value.get("shards")
        return cls(
            shape=tuple(value["shape"]),
            maxshape=tuple(value["maxshape"]),
            dtype=np.dtype(value["dtype"]),
            chunks=None if value["chunks"] is None else tuple(value["chunks"]),
            filters=tuple(Filter(f["id"], tuple(f["options"])) for f in value["filters"]),
            fillvalue=complex(*fill) if isinstance(fill, list) else fill,
            shards=None if shards is None else tuple(shards),
        )
