"""Contents as a tree of HDMF's builders, which either backend writes.

HDMF's own reading is not used for it: that leaves out what it can't read, names links after their targets, and knows no
object with two names.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import h5py
import numpy as np
from hdmf.build import DatasetBuilder, GroupBuilder, LinkBuilder, ReferenceBuilder

from nwbflow.errors import ErrorKind, UnsupportedError
from nwbflow.model.data import Array, Region
from nwbflow.model.repacked import Difference
from nwbflow.tools.repack.contents import SCHEMA, Contents, Item, Kind, Ref, Value, not_utf8, pieces

_NO_NAMES = re.compile(r"\\|^(\.\.|zarr\.json)$")

type Backend = Literal["HDF5", "Zarr"]


class Elements:
    """Elements of a dataset that HDMF reads when it writes them, and only then.

    Parameters
    ----------
    item : Item
        The dataset: text or compound.
    """

    def __init__(self, item: Item) -> None:
        self._item = item
        self._held: Array | None = None
        kind = item.kind
        if kind is None or item.shape is None:
            raise TypeError(f"{item.path} has no elements")
        self.shape = item.shape
        self.ndim = len(item.shape)
        self.dtype: np.dtype[Any] = np.dtype(object)
        if kind.fields:
            self.dtype = np.dtype([(name, _numpy(sub)) for name, sub in kind.fields])

    def __len__(self) -> int:
        """Return the number of rows, and have them ready.

        It is the last that HDMF asks before it hands this to h5py, which holds HDF5's lock while it takes the elements:
        zarr-python's threads must not be waited for then, since Python may have them close an object of h5py's.
        """
        if self._held is None:
            self._held = self._read(tuple(slice(0, n) for n in self.shape))
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int) and self.ndim == 1:
            return self._read((slice(key, key + 1),))[0]
        return self.__array__()[key]

    def __iter__(self) -> Iterator[Any]:
        for region in pieces(self.shape):
            yield from self._read(region)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        del copy
        whole = self._held if self._held is not None else self._read(tuple(slice(0, n) for n in self.shape))
        self._held = None
        return whole if dtype is None else whole.astype(dtype)

    def _read(self, region: Region) -> Array:
        fields = self._item.read(region)
        if "" in fields:
            return fields[""]
        values = np.empty(next(iter(fields.values())).shape, self.dtype)
        for name, found in fields.items():
            values[name] = found
        return values


def _numpy(kind: Kind) -> Any:
    return object if kind.sort == "text" else np.dtype(kind.number)


@dataclass(slots=True)
class Tree:
    """Makes a tree of builders.

    Parameters
    ----------
    contents : Contents
        Of the source.
    backend : {"HDF5", "Zarr"}
        Who is to write it.
    source : str
        The name that tells HDMF that links stay inside.
    lost : list of Difference
        Takes what can't be written.
    """

    contents: Contents
    backend: Backend
    source: str
    lost: list[Difference] = field(default_factory=list)
    _builders: dict[str, Any] = field(default_factory=dict)

    def build(self) -> GroupBuilder:
        """Return the root; what can't be written is left out of it and noted in ``lost``.

        Raises
        ------
        nwbflow.errors.UnsupportedError
            If there are names that a store can't have.
        """
        self._refuse_names()
        for path, item in self.contents.objects.items():
            self._builders[path] = self._group(path) if item.kind is None else None
        for path, item in self.contents.objects.items():
            if item.kind is not None:
                self._dataset(path, item, item.kind)
        self._place()
        for path, item in self.contents.objects.items():
            if (builder := self._builders.get(path)) is not None:
                builder.attributes.update(self._attributes(path, item))
        root: GroupBuilder = self._builders["/"]
        return root

    def _refuse_names(self) -> None:
        every = (*self.contents.objects, *self.contents.links)
        found = [p for p in every if self.backend == "Zarr" and _NO_NAMES.search(posixpath.basename(p))]
        if found:
            listed = "".join(f"\n    {path}" for path in found)
            raise UnsupportedError(
                f"{self.contents.name}: a Zarr store can't have names with a backslash in them, nor '..' and "
                f"'zarr.json':{listed}\nGive them other names in a copy of the file",
                kind=ErrorKind.OPTION,
            )

    def _group(self, path: str) -> GroupBuilder:
        name = posixpath.basename(path) or "root"
        builder = GroupBuilder(name, source=self.source)
        builder.location = posixpath.dirname(path) if path != "/" else None
        return builder

    def _dataset(self, path: str, item: Item, kind: Kind) -> None:
        del self._builders[path]
        why = self._impossible(item, kind)
        if why:
            self.lost.append(Difference(place=path, text=f"left out: {why}"))
            return
        growing = None  # so that rows can be added to columns, as HDMF makes them
        if self.backend == "HDF5" and item.shape and "neurodata_type" in item.attributes():
            growing = (None, *item.shape[1:])
        builder = DatasetBuilder(
            posixpath.basename(path), source=self.source, dtype=self._dtype(kind), matched_spec_shape=growing
        )
        builder.location = posixpath.dirname(path)
        self._builders[path] = builder

    def _impossible(self, item: Item, kind: Kind) -> str:
        """Return why a dataset can't be written; empty if it can."""
        if item.shape is None:
            return f"{self.backend} has no dataset with a type and no shape"
        if kind.sort == "other":
            return f"{self.backend} has no elements that are {kind.name}"
        if any(sub.sort == "reference" for _, sub in kind.fields) and not item.shape:
            return f"{self.backend} has no single compound value with a reference in it"
        if len(item.shape) > 1 and kind.sort in ("reference", "compound"):
            return f"HDMF writes {kind.sort} elements along one axis only"
        texts = [name for name, sub in kind.itself if sub.sort == "text"]
        for region in pieces(item.shape) if texts else ():
            found = item.read(region)
            if why := next(filter(None, (not_utf8(found[name]) for name in texts)), ""):
                return why
        return ""

    def _dtype(self, kind: Kind) -> Any:
        if kind.fields:
            return [{"name": name, "dtype": self._dtype(sub)} for name, sub in kind.fields]
        if kind.sort == "reference":
            return DatasetBuilder.OBJECT_REF_TYPE
        return "utf8" if kind.sort == "text" else kind.number

    def _place(self) -> None:
        """Give every builder to its group, with its elements and links."""
        for path, builder in self._builders.items():
            if path == "/":
                continue
            parent = self._builders[posixpath.dirname(path)]
            if isinstance(builder, GroupBuilder):
                parent.set_group(builder)
            else:
                item = self.contents.objects[path]
                if item.kind is not None:
                    builder["data"] = self._data(path, item, item.kind)
                parent.set_dataset(builder)
        for path, link in self.contents.links.items():
            target = self.contents.resolve(link.to)
            builder = None if target is None else self._builders.get(target)
            if builder is None:
                gone = "which is not there" if target is None else "which is left out"
                self.lost.append(Difference(place=path, text=f"left out: it is a link to {link.to}, {gone}"))
                continue
            made = LinkBuilder(builder, name=posixpath.basename(path), source=self.source)
            made.location = posixpath.dirname(path)
            self._builders[posixpath.dirname(path)].set_link(made)

    def _data(self, path: str, item: Item, kind: Kind) -> Any:
        if kind.sort in ("number", "bool"):
            return item.raw if item.shape else item.read(())[""][()]
        if kind.sort == "reference":
            return self._references(path, item)
        if any(sub.sort == "reference" for _, sub in kind.fields):
            return self._rows(path, item, kind)
        if not item.shape:
            values = item.read(())
            return values[""][()] if "" in values else _single(values, kind)
        return Elements(item)

    def _references(self, path: str, item: Item) -> Any:
        found = [self._reference(path, ref) for ref in item.read(tuple(slice(0, n) for n in item.shape or ()))[""].flat]
        return found if item.shape else found[0]

    def _rows(self, path: str, item: Item, kind: Kind) -> list[tuple[Any, ...]]:
        values = item.read((slice(0, (item.shape or (0,))[0]),))
        columns = [
            [self._reference(path, ref) for ref in values[name]] if sub.sort == "reference" else list(values[name])
            for name, sub in kind.fields
        ]
        return list(zip(*columns, strict=True))

    def _reference(self, path: str, ref: Ref) -> ReferenceBuilder:
        builder = self._builders.get(self.contents.resolve(ref.path) or "") if ref.path else None
        if builder is None:
            astray = Difference(place=path, text="references in it that lead nowhere lead to the root now")
            if astray not in self.lost[-1:]:  # a table may have very many
                self.lost.append(astray)
            builder = self._builders["/"]
        return ReferenceBuilder(builder)

    def _attributes(self, path: str, item: Item) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for name, value in item.attributes().items():
            at = f"{path}@{name}"
            if name == SCHEMA and path == "/":
                found |= self._schema(value)
            elif value.problem:
                self.lost.append(Difference(place=at, text=f"left out: {value.problem}"))
            elif value.kind.sort == "reference" and value.data.shape:
                self.lost.append(
                    Difference(place=at, text="left out: HDMF writes no list of references as an attribute")
                )
            elif value.kind.sort == "reference":
                said: Any = value.data[()]
                target = self._builders.get(self.contents.resolve(said.path) or "")
                if target is None:
                    self.lost.append(Difference(place=at, text="left out: it is a reference that leads nowhere"))
                else:
                    found[name] = ReferenceBuilder(target)
            else:
                found[name] = _plain_value(value, self.backend)
        return found

    def _schema(self, value: Value) -> Mapping[str, Any]:
        """Return where the cached schema is, as the backend has it."""
        said = value.data[()]
        path = said.path if isinstance(said, Ref) else f"/{str(said).strip('/')}"
        target = self._builders.get(path)
        if target is None:
            return {}
        return {SCHEMA: ReferenceBuilder(target) if self.backend == "HDF5" else path.strip("/")}


def _single(values: Mapping[str, Array], kind: Kind) -> Array:
    found = np.empty((), [(name, _numpy(sub)) for name, sub in kind.fields])
    for name, value in values.items():
        found[name] = value
    return found


def _plain_value(value: Value, backend: Backend) -> Any:
    if value.kind.sort == "text":
        if backend == "HDF5" and value.data.ndim > 1:
            return value.data.astype(h5py.string_dtype())  # of lists in lists HDMF makes what h5py does not take
        return value.data.tolist() if value.data.shape else str(value.data[()])
    return value.data if value.data.shape else value.data[()]
