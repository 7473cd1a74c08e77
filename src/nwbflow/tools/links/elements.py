"""Elements of a dataset as HDF5 has them, whatever their type: no conversion where none is needed."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from h5py import h5s, h5t

from nwbflow.model.data import Region


def has_objects(kind: Any) -> bool:
    """Return whether elements of a type have variable length or are references: what is stored are addresses.

    Parameters
    ----------
    kind : h5py TypeID
        The type.
    """
    if isinstance(kind, h5t.TypeStringID):
        return bool(kind.is_variable_str())
    if isinstance(kind, h5t.TypeCompoundID):
        return any(has_objects(kind.get_member_type(index)) for index in range(kind.get_nmembers()))
    if isinstance(kind, h5t.TypeArrayID):
        return has_objects(kind.get_super())
    return isinstance(kind, h5t.TypeVlenID | h5t.TypeReferenceID)


def read(dataset: h5py.Dataset, region: Region) -> Any:
    """Return elements: Python's objects where they have variable length or are references, else their bytes.

    Parameters
    ----------
    dataset : h5py.Dataset
        Open.
    region : tuple of slice
        Which; empty for a single value.
    """
    kind = dataset.id.get_type()
    objects = has_objects(kind)
    values = np.empty([s.stop - s.start for s in region], dataset.dtype if objects else f"V{kind.get_size()}")
    memory, stored = _selected(dataset, region)
    dataset.id.read(memory, stored, values, mtype=None if objects else kind)
    return values


def write(dataset: h5py.Dataset, region: Region, values: Any) -> None:
    """Store elements as :func:`read` gives them.

    Parameters
    ----------
    dataset : h5py.Dataset
        Its file open for writing.
    region : tuple of slice
        Which; empty for a single value.
    values : numpy.ndarray
        Of the region's shape.
    """
    kind = dataset.id.get_type()
    memory, stored = _selected(dataset, region)
    dataset.id.write(memory, stored, values, mtype=None if has_objects(kind) else kind)


def _selected(dataset: h5py.Dataset, region: Region) -> tuple[Any, Any]:
    space = dataset.id.get_space()
    if not region:
        return h5s.create(h5s.SCALAR), space
    counts = tuple(s.stop - s.start for s in region)
    space.select_hyperslab(tuple(s.start for s in region), counts)
    return h5s.create_simple(counts), space
