"""What a Zarr store of hdmf-zarr's holds (https://hdmf-zarr.readthedocs.io, "Storage specification")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from nwbflow.model.data import Array, Region
from nwbflow.model.layout import Shape
from nwbflow.tools.repack.contents import Contents, Kind, Link, Ref, Value, number_kind

_BOOKS = ("_LINKS", "_DTYPE", "_REFERENCE_FIELDS", "_ARRAY_DIMENSIONS")
"""Attributes in which hdmf-zarr keeps what Zarr has no place for."""

_TEXT = Kind("text", "text")
_REFERENCE = Kind("reference", "reference")


@dataclass(slots=True)
class ZarrItem:
    """A group or array of a store; see :class:`~nwbflow.tools.repack.contents.Item`.

    Parameters
    ----------
    path : str
        Where it is.
    raw : zarr.Group or zarr.Array
        The object.
    """

    path: str
    raw: Any

    @property
    def kind(self) -> Kind | None:
        """What its elements are."""
        if not isinstance(self.raw, zarr.Array):
            return None
        if self.raw.attrs.get("_DTYPE") == "object_reference":
            return _REFERENCE
        said: Any = self.raw.attrs.get("_REFERENCE_FIELDS", ())
        return _kind(np.dtype(self.raw.dtype), tuple(said))

    @property
    def shape(self) -> Shape | None:
        """Lengths of its axes."""
        return tuple(int(n) for n in self.raw.shape) if isinstance(self.raw, zarr.Array) else None

    @property
    def elsewhere(self) -> bool:
        """Never: stores have no such arrays."""
        return False

    def attributes(self) -> Mapping[str, Value]:
        """Return its attributes."""
        return {name: _value(value) for name, value in self.raw.attrs.asdict().items() if name not in _BOOKS}

    def read(self, region: Region, /) -> dict[str, Array]:
        """Return elements by field."""
        kind = self.kind
        values = np.asarray(self.raw[region if region else ()])
        if kind is None or not kind.fields:
            return {"": _plain(values, kind or _TEXT)}
        return {name: _plain(values[name], sub) for name, sub in kind.fields}


def _kind(dtype: np.dtype[Any], references: tuple[str, ...]) -> Kind:
    if dtype.names is not None and dtype.fields is not None:
        fields = tuple(
            (name, _REFERENCE if name in references else _kind(dtype.fields[name][0], ())) for name in dtype.names
        )
        return Kind("compound", "{" + ", ".join(f"{name}: {kind.name}" for name, kind in fields) + "}", fields)
    if dtype.kind in "TUO":
        return _TEXT
    if dtype.kind == "b":
        return Kind("bool", "bool")
    return number_kind(dtype) if dtype.kind in "iuf" else Kind("other", dtype.name)


def _plain(values: Array, kind: Kind) -> Array:
    if kind.sort in ("number", "bool", "other"):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    found = np.empty(values.shape, object)
    flat = found.reshape(-1)
    for at, value in enumerate(values.reshape(-1)):
        flat[at] = Ref(str(value)) if kind.sort == "reference" else str(value)
    return found


def _value(value: Any) -> Value:
    """Return an attribute's value, which is JSON."""
    if isinstance(value, dict) and "_REFERENCE" in value:
        found = np.empty((), object)
        found[()] = Ref(str(value["_REFERENCE"]["path"]))
        return Value(_REFERENCE, found)
    if isinstance(value, dict) or value is None:
        return Value(Kind("other", "JSON"), np.empty(0), "it is JSON that HDF5 has no type for")
    try:
        array = np.array(value)
    except ValueError:
        return Value(Kind("other", "JSON"), np.empty(0), "it is a list of unequal parts")
    if array.dtype.kind == "U" and all(isinstance(one, str) for one in np.array(value, dtype=object).flat):
        return Value(_TEXT, array.astype(object))
    if array.dtype.kind in "biuf":
        kind = Kind("bool", "bool") if array.dtype.kind == "b" else Kind("number", array.dtype.name)
        return Value(kind, array)
    return Value(Kind("other", "JSON"), np.empty(0), "it is JSON that HDF5 has no type for")


def zarr_contents(root: zarr.Group, name: str) -> Contents:
    """Return what a store holds.

    Parameters
    ----------
    root : zarr.Group
        Its root.
    name : str
        What errors call it.
    """
    contents = Contents(name)
    contents.objects["/"] = ZarrItem("/", root)
    for path, member in sorted(root.members(max_depth=None)):
        contents.objects[f"/{path}"] = ZarrItem(f"/{path}", member)
    for path, item in list(contents.objects.items()):
        for link in item.raw.attrs.get("_LINKS", ()):  # type: ignore[attr-defined]
            at = f"{path.rstrip('/')}/{link['name']}"
            own = link.get("source", ".") == "."
            contents.links[at] = Link(
                "soft" if own else "external", str(link["path"]) if own else f"{link['source']}:{link['path']}"
            )
    return contents
