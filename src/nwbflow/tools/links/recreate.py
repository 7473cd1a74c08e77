"""Datasets made anew in their place: HDF5 can't change where a dataset's elements lie once it is there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5p, h5s, h5t

from nwbflow.links.walk import address, walk
from nwbflow.tools.links.references import address_of, holders, lead, like, refers, target_of


@contextmanager
def room(file: h5py.File) -> Iterator[h5py.Group]:
    """Give a group for datasets that are made anew, and remove it when they have their own names.

    Datasets without any name would do, but when a disk fails, HDF5 crashes over those.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    """
    name = next(name for number in itertools.count() if (name := f"nwbflow-anew-{number}") not in file)
    yield file.create_group(name)
    del file[name]


def name_list(name: bytes) -> h5p.PropLCID:
    """Return a property list for a name: HDF5 wants to be told if it is more than ASCII.

    Parameters
    ----------
    name : bytes
        As HDF5 has it.
    """
    settings = h5p.create(h5p.LINK_CREATE)
    if not name.isascii():
        settings.set_char_encoding(h5t.CSET_UTF8)
    return settings


def no_cache() -> h5p.PropDAID:
    """Return a property list for a dataset whose chunks go to the disk when they are written.

    From HDF5's cache they would go when the dataset is closed, where a failure can't be raised and crashes it at exit.
    """
    access = h5p.create(h5p.DATASET_ACCESS)
    access.set_chunk_cache(0, 0, 1.0)
    return access


def put_in_place(file: h5py.File, new: Mapping[str, h5py.Dataset]) -> None:
    """Give new datasets the names of old ones, all of them, and lead to them what refers to the old ones.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    new : mapping of str to h5py.Dataset
        By a path of the old dataset.
    """
    by_address = {address(file[path]): dataset for path, dataset in new.items()}

    def change(reference: h5py.Reference) -> h5py.Reference | None:
        target = target_of(reference, file)
        found = None if target is None else by_address.get(address_of(target))
        return None if found is None else like(reference, file, found.id)

    for holder in holders(file):
        lead(holder, change)
    for parent, name, old in _names(file, set(by_address)):
        del parent[name]
        parent[name] = by_address[old]


def _names(file: h5py.File, addresses: set[int]) -> list[tuple[h5py.Group, str, int]]:
    found = []
    for member in walk(file, []):
        if member.kind in ("dataset", "hard") and isinstance(member.item, h5py.Dataset):
            at = address(member.item)
            if at in addresses:
                found.append((member.parent, member.name, at))
    return found


def copy_attributes(source: Any, target: Any, *, leave_out: tuple[str, ...] = (), foreign: bool = False) -> None:
    """Copy attributes as they are stored; of those that hold references only the room.

    Parameters
    ----------
    source, target : h5py.Group, h5py.Dataset or h5py.Datatype
        The target has none of these attributes.
    leave_out : tuple of str
        Names of attributes to leave out.
    foreign : bool
        Whether the two are in different files: references are then not copied, since they would lead astray.
    """
    for index in range(h5a.get_num_attrs(source.id)):
        old = h5a.open(source.id, index=index)
        if source._d(old.name) in leave_out:
            continue
        copy_attribute(old, target, str(source.name), foreign=foreign)


def copy_attribute(old: h5a.AttrID, target: Any, source: str, *, foreign: bool = False) -> None:
    """Copy one attribute as it is stored; of one that holds references only the room.

    Parameters
    ----------
    old : h5py.h5a.AttrID
        Open.
    target : h5py.Group, h5py.Dataset or h5py.Datatype
        It has no such attribute.
    source : str
        The path of what has the attribute, for errors.
    foreign : bool
        As in :func:`copy_attributes`.
    """
    kind, space = old.get_type(), old.get_space()
    new = h5a.create(target.id, old.name, kind.copy() if foreign else kind, space)
    if space.get_simple_extent_type() == h5s.NULL or (foreign and refers(kind, source)):
        return
    if old.dtype.hasobject:
        values = np.empty(old.shape, old.dtype)
        old.read(values)
        new.write(values)
    else:  # whatever type it is, without a conversion
        raw = np.empty(old.shape, f"V{kind.get_size()}")
        old.read(raw, mtype=kind)
        new.write(raw, mtype=kind)


def with_fill_value(dataset: h5py.Dataset) -> h5p.PropDCID:
    """Return a property list for a dataset with another one's fill value, and nothing else of it.

    Parameters
    ----------
    dataset : h5py.Dataset
        The other one.
    """
    old = dataset.id.get_create_plist()
    new = h5p.create(h5p.DATASET_CREATE)
    if old.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED and not dataset.dtype.hasobject:
        value = np.empty((), dataset.dtype)
        old.get_fill_value(value)
        new.set_fill_value(value)
    return new
