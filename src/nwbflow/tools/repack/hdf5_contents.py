"""What an HDF5 file holds."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d

from nwbflow.links.walk import DAMAGE, address, walk
from nwbflow.model.data import Array, Region
from nwbflow.model.layout import Shape
from nwbflow.tools.repack.contents import Contents, Kind, Link, LinkSort, Ref, Value, not_utf8, number_kind

UNKNOWN = Kind("other", "of a type that NumPy does not have")
"""Such as integers of three bytes, and HDF5's times: h5py can't read them."""

_OTHER_NUMBERS = ("complex64", "complex128", "complex256", "float128")


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """Return what elements of a type are, as h5py gives it."""
    if dtype.names is not None:
        fields = tuple((name, kind_of(dtype.fields[name][0])) for name in dtype.names) if dtype.fields else ()
        simple = all(kind.sort not in ("other", "compound") for _, kind in fields)
        name = "{" + ", ".join(f"{name}: {kind.name}" for name, kind in fields) + "}"
        return Kind("compound" if simple else "other", name, fields)
    if dtype.subdtype is not None:
        return Kind("other", f"array of {dtype.subdtype[0]}")
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return Kind("text", "text" if text.length is None else "text of fixed length")
    reference = h5py.check_ref_dtype(dtype)
    if reference is not None:
        plain = reference is h5py.Reference
        return Kind("reference" if plain else "other", "reference" if plain else "region reference")
    ragged = h5py.check_vlen_dtype(dtype)
    if ragged is not None:
        return Kind("other", f"rows of {ragged}, of any length")
    if h5py.check_enum_dtype(dtype) is not None:
        return number_kind(dtype, enum=True)
    if dtype.kind == "b":
        return Kind("bool", "bool")
    if dtype.kind in "iuf" and dtype.name not in _OTHER_NUMBERS:
        return number_kind(dtype)
    return Kind("other", "opaque bytes" if dtype.kind == "V" else dtype.name)


@dataclass(slots=True)
class Hdf5Item:
    """A group or dataset of an HDF5 file; see :class:`~nwbflow.tools.repack.contents.Item`.

    Parameters
    ----------
    path : str
        Where it is.
    raw : h5py.Group or h5py.Dataset
        The object.
    paths : mapping of int to str
        Paths of all objects of the file, by where they lie in it.
    """

    path: str
    raw: Any
    paths: Mapping[int, str]

    @property
    def kind(self) -> Kind | None:
        """What its elements are."""
        if not isinstance(self.raw, h5py.Dataset):
            return None
        try:
            return kind_of(self.raw.dtype)
        except TypeError:
            return UNKNOWN

    @property
    def shape(self) -> Shape | None:
        """Lengths of its axes."""
        found = getattr(self.raw, "shape", None)
        return None if found is None else tuple(int(n) for n in found)

    @property
    def elsewhere(self) -> bool:
        """Whether its elements are in other datasets or files."""
        if not isinstance(self.raw, h5py.Dataset):
            return False
        created = self.raw.id.get_create_plist()
        return bool(created.get_layout() == h5d.VIRTUAL or created.get_external_count())

    def attributes(self) -> Mapping[str, Value]:
        """Return its attributes."""
        found = {}
        for index in range(h5a.get_num_attrs(self.raw.id)):
            attribute = h5a.open(self.raw.id, index=index)
            found[self.raw._d(attribute.name)] = self._value(attribute)
        return found

    def _value(self, attribute: h5a.AttrID) -> Value:
        nothing: Array = np.empty(0)
        try:
            kind = kind_of(attribute.dtype)
            if attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
                return Value(kind, nothing, "it has a type and no value")
            if kind.sort in ("other", "compound"):
                return Value(kind, nothing, f"it is of {kind.name}")
            values = np.empty(attribute.shape, attribute.dtype)
            attribute.read(values)
            said = plain(values, kind, self.raw, self.paths)
            return Value(kind, said, not_utf8(said) if kind.sort == "text" else "")
        except DAMAGE as error:
            return Value(Kind("other", "unreadable"), nothing, f"it can't be read: {error}")

    def read(self, region: Region, /) -> dict[str, Array]:
        """Return elements by field."""
        kind = kind_of(self.raw.dtype)
        values = np.asarray(self.raw[region if region else ()])
        if not kind.fields:
            return {"": plain(values, kind, self.raw, self.paths)}
        return {name: plain(values[name], sub, self.raw, self.paths) for name, sub in kind.fields}


def plain(values: Array, kind: Kind, item: Any, paths: Mapping[int, str]) -> Array:
    """Return elements as in memory: numbers in this machine's byte order, text, references by their path."""
    if kind.sort in ("number", "bool"):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    found = np.empty(values.shape, object)
    flat = found.reshape(-1)
    for at, value in enumerate(values.reshape(-1)):
        flat[at] = _reference(value, item, paths) if kind.sort == "reference" else _text(value)
    return found


def _text(value: Any) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _reference(value: Any, item: Any, paths: Mapping[int, str]) -> Ref:
    if not value:
        return Ref("")
    try:
        return Ref(paths.get(address(item.file[value]), ""))
    except DAMAGE:  # what it led to is gone
        return Ref("")


def hdf5_contents(file: h5py.File, name: str) -> Contents:
    """Return what an HDF5 file holds.

    Parameters
    ----------
    file : h5py.File
        Open; stays so as long as the contents are used.
    name : str
        What errors call it.
    """
    contents = Contents(name)
    paths: dict[int, str] = {address(file["/"]): "/"}
    contents.objects["/"] = Hdf5Item("/", file["/"], paths)
    for member in walk(file["/"], contents.problems):
        if member.kind in ("group", "dataset"):
            paths[address(member.item)] = member.path
            contents.objects[member.path] = Hdf5Item(member.path, member.item, paths)
        elif member.kind == "other":
            paths[address(member.item)] = member.path
            contents.types.append(member.path)
        elif member.kind == "hard":
            contents.links[member.path] = Link("hard", member.first)
        elif member.kind == "soft":
            to = posixpath.normpath(posixpath.join(posixpath.dirname(member.path), member.link.path))
            contents.links[member.path] = Link("soft", to)
        else:
            sort: LinkSort = "external"
            contents.links[member.path] = Link(sort, f"{member.link.filename}:{member.link.path}")
    return contents
