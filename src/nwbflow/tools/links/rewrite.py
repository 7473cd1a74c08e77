"""Other file names in the links, virtual and raw datasets of an open file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5s

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.names import SAME_FILE, escaped, unescaped
from nwbflow.links.records import read_records, write_record
from nwbflow.links.survey import encoded, numbered, raw_parts
from nwbflow.model.links import LinkKind, LinkRecord
from nwbflow.tools.links.recreate import copy_attributes, put_in_place, room, with_fill_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    """Other names for the files of one link, virtual or raw dataset.

    Parameters
    ----------
    path : str
        Its path in the file.
    kind : LinkKind
        What it is.
    names : mapping of str to str
        New names by those recorded, unescaped.
    """

    path: str
    kind: LinkKind
    names: Mapping[str, str]


def rename(file: h5py.File, renamings: Sequence[Renaming]) -> None:
    """Record other file names; everything else stays, records of what the targets were included.

    A virtual or raw dataset is made anew, with the same type, shape, attributes and names; references to it are led
    to the new one.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    renamings : sequence of Renaming
        What to record.
    """
    for renaming in renamings:
        if renaming.kind is LinkKind.EXTERNAL:
            _link(file, renaming)
    anew = [renaming for renaming in renamings if renaming.kind is not LinkKind.EXTERNAL]
    if anew:
        with room(file) as group:
            put_in_place(file, {renaming.path: _dataset(file, renaming, group) for renaming in anew})


def _link(file: h5py.File, renaming: Renaming) -> None:
    parent = file[renaming.path.rpartition("/")[0] or "/"]
    name = renaming.path.rpartition("/")[2]
    link = parent.get(name, getlink=True)
    old = str(getattr(link, "filename", ""))
    if old not in renaming.names:
        raise LinkError(
            f"{file.filename}:{renaming.path} was changed by another program since it was looked at; begin again",
            kind=ErrorKind.CHANGED,
        )
    new = renaming.names[old]
    del parent[name]
    parent[name] = h5py.ExternalLink(new, link.path)
    record = read_records(parent).get(name)
    if record is not None:
        write_record(parent, name, _renamed(record, {f"{old}:{link.path}": f"{new}:{link.path}"}))


def _renamed(record: LinkRecord, keys: Mapping[str, str]) -> LinkRecord:
    prints = {keys.get(key, key): value for key, value in record.fingerprints.items()}
    return replace(record, fingerprints=prints)


def _dataset(file: h5py.File, renaming: Renaming, group: h5py.Group) -> h5py.Dataset:
    old = file[renaming.path]
    virtual = renaming.kind is LinkKind.VIRTUAL
    settings = _virtual(old, renaming.names) if virtual else _raw(old, renaming.names)
    name = str(len(group)).encode()
    new = h5py.Dataset(h5d.create(group.id, name, old.id.get_type(), old.id.get_space(), settings))
    copy_attributes(old, new)
    record = read_records(old).get("")
    if record is not None:
        keys = dict(zip(_keys(old, virtual=virtual), _keys(new, virtual=virtual), strict=True))
        write_record(new, "", _renamed(record, keys))
    return new


def _keys(dataset: h5py.Dataset, *, virtual: bool) -> list[str]:
    """Return the names that all parts have in a record, in order, repeated ones too."""
    if not virtual:
        return [part.key for part in raw_parts(dataset)]
    created = dataset.id.get_create_plist()
    count = created.get_virtual_count()
    return [f"{created.get_virtual_filename(n)}:{created.get_virtual_dsetname(n)}" for n in range(count)]


def _raw(dataset: h5py.Dataset, names: Mapping[str, str]) -> Any:
    old, new = dataset.id.get_create_plist(), with_fill_value(dataset)
    for index in range(old.get_external_count()):
        name, offset, size = old.get_external(index)
        recorded = os.fsdecode(name)
        new.set_external(os.fsencode(names.get(recorded, recorded)), int(offset), int(size))
    return new


def _virtual(dataset: h5py.Dataset, names: Mapping[str, str]) -> Any:
    old, new = dataset.id.get_create_plist(), with_fill_value(dataset)
    new.set_layout(h5d.VIRTUAL)
    for index in range(old.get_virtual_count()):
        recorded, inside = old.get_virtual_filename(index), old.get_virtual_dsetname(index)
        file = _virtual_name(recorded, names, numbered=numbered(f"{recorded}:{inside}"))
        there, here = old.get_virtual_vspace(index), old.get_virtual_srcspace(index)
        if here.get_select_type() == h5s.SEL_ALL:
            here = h5s.create_simple(_extent(there))
        new.set_virtual(there, encoded(file), encoded(inside), here)
    return new


def _virtual_name(recorded: str, names: Mapping[str, str], *, numbered: bool) -> str:
    if recorded == SAME_FILE:
        return recorded
    if not numbered:
        name = unescaped(recorded)
        return escaped(names[name]) if name in names else recorded
    new = names.get(recorded, recorded)
    if "%" in new.replace("%%", "").replace("%b", ""):
        raise LinkError(
            f"{new} has a percent sign that HDF5 would take for a number, as it does %b; choose another folder",
            kind=ErrorKind.OPTION,
        )
    return new


def _extent(there: Any) -> tuple[int, ...]:
    """Return a shape for a source that is mapped whole: HDF5 doesn't store it, but wants as many elements again.

    Of as many axes, too: with fewer, HDF5 2.0 crashes where the mapping has no end.
    """
    if there.get_select_type() == h5s.SEL_ALL:
        return tuple(int(n) for n in there.get_simple_extent_dims())
    if there.get_select_type() == h5s.SEL_HYPERSLABS and there.is_regular_hyperslab():
        _, _, count, block = there.get_regular_hyperslab()
        return tuple(int(b) if c == h5s.UNLIMITED else int(c) * int(b) for c, b in zip(count, block, strict=True))
    return (int(np.int64(there.get_select_npoints())),)
