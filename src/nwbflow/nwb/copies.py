"""How a dataset of another file is copied: its stored chunks as they are, anew, or by HDF5 itself."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np
from h5py import h5t, h5z

from nwbflow.errors import ErrorKind, UnsupportedError
from nwbflow.links.targets import Target
from nwbflow.model.layout import Filter, Layout
from nwbflow.nwb.candidates import is_plain, numeric_type
from nwbflow.sinks.hdf5 import creation_list, layout_of, try_layout


def stored_layout(target: Target | None) -> Layout | None:
    """Return how a dataset's chunks lie in its own file; ``None`` where it has none that could be taken over."""
    if target is None:
        return None
    with target.opened() as dataset:
        if dataset.chunks is None or dataset.is_virtual or not _is_what_numpy_says(dataset):
            return None
        return None if _has_bare_edges(dataset) else layout_of(dataset)


def creation(stored: Layout, target: Target) -> dict[str, Any] | None:
    """Return keyword arguments with which h5py creates a dataset that can take over the chunks of another.

    Parameters
    ----------
    stored : Layout
        From :func:`stored_layout`.
    target : Target
        The other dataset.

    Returns
    -------
    dict or None
        ``None`` where h5py, or a filter's own preparation, makes something else of every request.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        If a filter is not installed here.
    """
    missing = [item.id for item in stored.filters if not h5z.filter_avail(item.id)]
    if missing:
        raise UnsupportedError(
            f"{target} is stored with HDF5 filter {missing[0]}, which is not installed here: "
            "pip install nwbflow[codecs]",
            kind=ErrorKind.PLUGIN,
        )
    create: dict[str, Any] = {
        "shape": stored.shape,
        "dtype": stored.dtype,
        "maxshape": stored.maxshape,
        "chunks": stored.chunks,
    }
    if stored.fillvalue is not None:
        create["fillvalue"] = stored.fillvalue
    made = _filters(create, stored.filters)
    if made is not None and made != stored.filters:
        # some filters put values of their own in front of those they are given, each time
        given = [
            Filter(old.id, old.options[len(new.options) - len(old.options) :])
            for old, new in zip(stored.filters, made, strict=True)
        ]
        made = _filters(create, tuple(given))
        return {**create, "dcpl": creation_list(tuple(given))} if made == stored.filters else None
    return None if made is None else {**create, "dcpl": creation_list(stored.filters)}


def _filters(create: dict[str, Any], filters: tuple[Filter, ...]) -> tuple[Filter, ...] | None:
    try:
        made = try_layout({**create, "dcpl": creation_list(filters)}).filters
    except (ValueError, TypeError, RuntimeError, OSError):  # a filter refuses what it has made itself
        return None
    return made if len(made) == len(filters) else None


def copied_by_hdf5(declared: Any, target: Target) -> bool:
    """Return whether HDF5 itself has to copy a dataset, with everything it is made of.

    So it is for text and other elements that are no plain numbers, for single values, and for chunks that no request
    of ours could recreate.

    Parameters
    ----------
    declared : object
        The type the schema asks for, as HDMF has it; numbers of another type have to be converted instead.
    target : Target
        The dataset.
    """
    if not is_plain(target.dtype) or not target.shape:
        return True
    wanted = numeric_type(declared) if declared is not None else target.dtype
    if wanted is None or wanted.newbyteorder("=") != target.dtype.newbyteorder("="):
        return False
    with target.opened() as dataset:
        if dataset.is_virtual or dataset.external:
            return False
        if not _is_what_numpy_says(dataset):
            return True
        if dataset.chunks is None:
            return False
    stored = stored_layout(target)
    return stored is None or creation(stored, target) is None


def same_fill(one: Layout, other: Layout) -> bool:
    """Return whether two layouts have the same fill value; NaN is NaN."""
    a, b = (0 if layout.fillvalue is None else layout.fillvalue for layout in (one, other))
    return bool(a == b or (a != a and b != b))  # noqa: PLR0124 - only NaN differs from itself


def _is_what_numpy_says(dataset: h5py.Dataset) -> bool:
    """Return whether the type in the file is just that of numpy, without bits left out or moved."""
    return bool(dataset.id.get_type().equal(h5t.py_create(np.dtype(dataset.dtype), logical=True)))


def _has_bare_edges(dataset: h5py.Dataset) -> bool:
    """Return whether chunks at the edge may be stored without filters (H5Pset_chunk_opts), which h5py can't ask for."""
    if not dataset.id.get_create_plist().get_nfilters():
        return False
    raw = math.prod(dataset.chunks) * dataset.dtype.itemsize
    found: list[bool] = []

    def look(info: Any) -> None:
        partial = any(o + c > n for o, c, n in zip(info.chunk_offset, dataset.chunks, dataset.shape, strict=True))
        found.append(partial and info.size == raw and info.filter_mask == 0)

    dataset.id.chunk_iter(look)
    return any(found)
