"""Datasets that belong together, and are of different length since a writer died between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5s

from nwbflow.links.walk import walk
from nwbflow.tools.links.elements import read, write
from nwbflow.tools.links.recreate import copy_attributes, name_list, no_cache

_ROWS = 2**14


def ragged(file: h5py.File, *, crashed: bool) -> list[dict[str, int]]:
    """Find series and tables whose parts differ in length.

    Parameters
    ----------
    file : h5py.File
        Open.
    crashed : bool
        Whether its writer is known to have died. Else only what can grow, and has begun to, is looked at: other
        files have parts of different length for reasons of their own.

    Returns
    -------
    list of dict of str to int
        For each the rows that every part is to have, by the path of those that are longer.
    """
    found = []
    for member in [*walk(file, [])]:
        if member.kind != "group" or member.path.startswith("/specifications"):
            continue
        wanted = _table(member.item) if "colnames" in member.item.attrs else _series(member.item)
        longer = {path: rows for path, rows in wanted.items() if file[path].shape[0] > rows}
        if longer and (crashed or (min(wanted.values()) and any(_grows(file[path]) for path in wanted))):
            found.append(longer)
    return found


def _grows(dataset: h5py.Dataset) -> bool:
    return dataset.maxshape[0] is None or dataset.maxshape[0] > dataset.shape[0]


def _own(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """Return a dataset of a group that is no link, and has rows of its own."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    item = group[name]
    settled = isinstance(item, h5py.Dataset) and bool(item.shape) and not (item.is_virtual or item.external)
    return item if settled else None


def _series(group: h5py.Group) -> dict[str, int]:
    if "external_file" in group or "data" not in group:
        return {}
    parts = [part for name in ("data", "timestamps", "control") if (part := _own(group, name)) is not None]
    if len(parts) < 2:
        return {}
    rows = min(len(part) for part in parts)
    return {str(part.name): rows for part in parts}


def _table(group: h5py.Group) -> dict[str, int]:
    columns = [str(name) for name in np.atleast_1d(group.attrs["colnames"]) if str(name) in group]
    chains = [chain for name in ("id", *columns) if (chain := list(_chain(group, name)))]
    if len(chains) < 2:
        return {}
    wanted: dict[str, int] = {}
    rows = min(_whole(chain) for chain in chains)
    for chain in chains:
        need = rows
        for part in reversed(chain):
            wanted[str(part.name)] = need
            if part is not chain[0]:
                need = int(part[need - 1]) if need else 0
    return wanted


def _chain(group: h5py.Group, name: str) -> Iterator[h5py.Dataset]:
    """Give a column and the indexes on it, from the data up."""
    while (part := _own(group, name)) is not None:
        yield part
        name += "_index"


def _whole(chain: list[h5py.Dataset]) -> int:
    """Return how many rows of a column have everything they point to."""
    rows = len(chain[0])
    for index in chain[1:]:
        rows = int(np.searchsorted(index[:], rows, side="right"))
    return rows


def cut(dataset: h5py.Dataset, rows: int) -> None:
    """Let a dataset end after so many rows.

    Parameters
    ----------
    dataset : h5py.Dataset
        In a file open for writing.
    rows : int
        Fewer than it has.
    """
    if dataset.chunks is not None:
        dataset.id.set_extent((rows, *dataset.shape[1:]))
        return
    parent, name = dataset.parent, str(dataset.name).rpartition("/")[2]
    spare = next(spare for number in itertools.count() if (spare := f"{name}-{number}") not in parent)
    shape = (rows, *dataset.shape[1:])
    settings = (h5s.create_simple(shape), dataset.id.get_create_plist(), name_list(spare.encode()), no_cache())
    new = h5py.Dataset(h5d.create(parent.id, spare.encode(), dataset.id.get_type(), *settings))
    for start in range(0, rows, _ROWS):
        region: Any = (slice(start, min(start + _ROWS, rows)), *(slice(0, n) for n in shape[1:]))
        write(new, region, read(dataset, region))
    copy_attributes(dataset, new)
    del parent[name]
    parent.move(spare, name)
