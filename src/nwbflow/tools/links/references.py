"""Finding the references in a file, and leading them elsewhere.

A reference is an address. So whenever an object is made anew, what referred to it has to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5o, h5r, h5t

from nwbflow.errors import ErrorKind, UnsupportedError
from nwbflow.links.fingerprint import Pieces
from nwbflow.links.walk import walk
from nwbflow.tools.links.elements import read, write

_ROWS = 2**14

type Change = Callable[[h5py.Reference], h5py.Reference | None]
"""Returns what to put in place of a reference; ``None`` leaves it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A dataset or an attribute whose elements are, or contain, references.

    Parameters
    ----------
    item : h5py.Group, h5py.Dataset or h5py.Datatype
        The dataset, or what has the attribute.
    attribute : str or None
        The attribute's name.
    """

    item: Any
    attribute: str | None = None

    def __str__(self) -> str:
        return f"{self.item.name} (attribute {self.attribute})" if self.attribute is not None else str(self.item.name)


def holders(file: h5py.File) -> Iterator[Holder]:
    """Give everything in a file that holds references, objects with several names once.

    Parameters
    ----------
    file : h5py.File
        Open.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        If one is of a type that h5py can't read.
    """
    problems: list[str] = []
    yield from holders_of(file["/"])
    for member in walk(file, problems):
        if member.kind in ("group", "dataset", "other"):
            yield from holders_of(member.item)


def holders_of(item: Any) -> Iterator[Holder]:
    """Give what holds references in one object: the dataset itself, its attributes.

    Parameters
    ----------
    item : h5py.Group, h5py.Dataset or h5py.Datatype
        Open.
    """
    if isinstance(item, h5py.Dataset) and has_own_references(item):
        yield Holder(item)
    for index in range(h5a.get_num_attrs(item.id)):
        attribute = h5a.open(item.id, index=index)
        if refers(attribute.get_type(), str(item.name)):
            yield Holder(item, item._d(attribute.name))


def has_own_references(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset has references, stored in its own file."""
    created = dataset.id.get_create_plist()
    elsewhere = created.get_layout() == h5d.VIRTUAL or created.get_external_count()
    return not elsewhere and refers(dataset.id.get_type(), str(dataset.name))


def refers(kind: Any, name: str) -> bool:
    """Return whether elements of a type are, or contain, references.

    Parameters
    ----------
    kind : h5py TypeID
        The type.
    name : str
        What has it, for the error.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        If they are of a kind that h5py can't read.
    """
    if isinstance(kind, h5t.TypeReferenceID):
        if not (kind.equal(h5t.STD_REF_OBJ) or kind.equal(h5t.STD_REF_DSETREG)):
            raise UnsupportedError(
                f"{name} holds references of HDF5's new type (1.12), which h5py can't read; objects they lead to can't "
                "be made anew",
                kind=ErrorKind.DTYPE,
            )
        return True
    if isinstance(kind, h5t.TypeCompoundID):
        return any(refers(kind.get_member_type(index), name) for index in range(kind.get_nmembers()))
    return isinstance(kind, h5t.TypeVlenID | h5t.TypeArrayID) and refers(kind.get_super(), name)


def references(holder: Holder) -> Iterator[h5py.Reference]:
    """Give every reference that is not null.

    Parameters
    ----------
    holder : Holder
        What has them.
    """
    found: list[h5py.Reference] = []

    def note(reference: h5py.Reference) -> None:
        found.append(reference)

    for _, values in _blocks(holder):
        _mapped(values, note)
        yield from found
        found.clear()


def lead(holder: Holder, change: Change) -> None:
    """Change references where they are.

    Parameters
    ----------
    holder : Holder
        What has them; its file open for writing.
    change : callable
        What becomes of each.
    """
    for region, values in _blocks(holder):
        if _mapped(values, change):
            _store(holder, region, values)


def translated_into(holder: Holder, item: Any, change: Change) -> None:
    """Store what one object holds, its references changed, in another object of the same name, shape and type.

    Parameters
    ----------
    holder : Holder
        In another file.
    item : h5py.Group, h5py.Dataset or h5py.Datatype
        Its copy, whose elements or attribute are there and have not been written.
    change : callable
        Returns a reference of the copy's file for each.
    """
    for region, values in _blocks(holder):
        _mapped(values, change)
        _store(Holder(item, holder.attribute), region, values)


def _blocks(holder: Holder) -> Iterator[tuple[Any, Any]]:
    if holder.attribute is not None:
        attribute = h5a.open(holder.item.id, holder.item._e(holder.attribute))
        if attribute.get_space().get_simple_extent_type() != h5py.h5s.NULL:
            values = np.empty(attribute.shape, attribute.dtype)
            attribute.read(values)
            yield (), values
    elif holder.item.shape is not None:
        for region in Pieces(holder.item.shape, _ROWS):
            yield region, read(holder.item, region)


def _store(holder: Holder, region: Any, values: Any) -> None:
    if holder.attribute is None:
        write(holder.item, region, values)
        holder.item.flush()  # out of HDF5's chunk cache, so that a failure shows here
    else:
        h5a.open(holder.item.id, holder.item._e(holder.attribute)).write(values)


def _mapped(values: Any, change: Callable[[h5py.Reference], h5py.Reference | None]) -> bool:
    """Change references in an array, at any depth; return whether any was."""
    if values.dtype.fields is not None:
        changed = False
        for name, member in values.dtype.fields.items():
            if member[0].hasobject:
                changed |= _mapped(values[name], change)
        return changed
    if not values.dtype.hasobject:
        return False
    changed = False
    flat = values.reshape(-1)
    for at, value in enumerate(flat):
        if isinstance(value, np.ndarray):
            changed |= _mapped(value, change)
        elif isinstance(value, h5py.Reference) and value:
            new = change(value)
            if new is not None:
                values[np.unravel_index(at, values.shape)] = new
                changed = True
    return changed


def target_of(reference: h5py.Reference, item: Any) -> Any | None:
    """Return the identifier of what a reference leads to; ``None`` if that is gone.

    Parameters
    ----------
    reference : h5py.Reference
        Not null.
    item : h5py.Group, h5py.Dataset or h5py.Datatype
        Any object of its file.
    """
    try:
        return h5r.dereference(reference, item.id)
    except (OSError, RuntimeError, ValueError, KeyError):
        return None


def like(reference: h5py.Reference, item: Any, new: Any) -> h5py.Reference:
    """Return a reference to another object, to the same region of it if it has one.

    Parameters
    ----------
    reference : h5py.Reference
        The old one.
    item : h5py.Group, h5py.Dataset or h5py.Datatype
        Any object of the old one's file.
    new : h5py ObjectID
        The object, of the same shape.
    """
    if isinstance(reference, h5py.RegionReference):
        return h5r.create(new, b".", h5r.DATASET_REGION, h5r.get_region(reference, item.id))
    return h5r.create(new, b".", h5r.OBJECT)


def address_of(identifier: Any) -> int:
    """Return where an object is in its file."""
    return int(h5o.get_info(identifier).addr)
