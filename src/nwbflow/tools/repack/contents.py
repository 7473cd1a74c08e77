"""What a file or store holds, said the same way for HDF5 and Zarr: what is copied, and what is compared."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from nwbflow.links.fingerprint import Pieces
from nwbflow.model.data import Array, Region
from nwbflow.model.layout import Shape

type Sort = Literal["number", "bool", "text", "reference", "compound", "other"]
"""``other`` is what only HDF5 has: complex numbers, ragged elements, regions, opaque bytes."""

type LinkSort = Literal["hard", "soft", "external"]

SCHEMA = ".specloc"
"""The root's attribute that says where the cached schema is: a reference in HDF5, a path in Zarr."""

_PIECE = 2**19
_ENUM, _BIG = "enum of ", ", big-endian"
_MOST_LINKS = 64


@dataclass(frozen=True, slots=True)
class Kind:
    """What elements are.

    Parameters
    ----------
    sort : str
        What they are in both backends.
    name : str
        What this backend calls them, byte order aside.
    fields : tuple of (str, Kind)
        Of compound elements.
    """

    sort: Sort
    name: str
    fields: tuple[tuple[str, Kind], ...] = ()

    @property
    def number(self) -> str:
        """Numpy's name for numbers."""
        return self.name.removeprefix(_ENUM).removesuffix(_BIG)

    @property
    def itself(self) -> tuple[tuple[str, Kind], ...]:
        """The fields; of other elements one without a name."""
        return self.fields or (("", self),)


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to an object of the same file; empty where it leads nowhere."""

    path: str


@dataclass(frozen=True, slots=True)
class Value:
    """An attribute's value.

    Parameters
    ----------
    kind : Kind
        What its elements are.
    data : numpy.ndarray
        The elements: numbers, or objects (``str``, :class:`Ref`). Without axes for a single value.
    problem : str
        Why there are no elements: h5py can't read them, or they are none.
    """

    kind: Kind
    data: Array
    problem: str = ""


class Item(Protocol):
    """A group or a dataset."""

    @property
    def path(self) -> str:
        """Where it is."""
        ...

    @property
    def kind(self) -> Kind | None:
        """What its elements are; ``None`` for a group."""
        ...

    @property
    def shape(self) -> Shape | None:
        """Lengths of its axes; ``None`` where it has none, not even a single value."""
        ...

    @property
    def elsewhere(self) -> bool:
        """Whether its elements are in other datasets or files (virtual and raw datasets)."""
        ...

    @property
    def raw(self) -> object:
        """The backend's own object."""
        ...

    def attributes(self) -> Mapping[str, Value]:
        """Return its attributes, without those the backend keeps its books in."""
        ...

    def read(self, region: Region, /) -> dict[str, Array]:
        """Return elements by field; of elements without fields under an empty name."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """A second way to an object.

    Parameters
    ----------
    sort : {"hard", "soft", "external"}
        What it is in its backend.
    to : str
        A path of the same file, or file and path.
    """

    sort: LinkSort
    to: str


@dataclass(slots=True)
class Contents:
    """Everything in a file or store.

    Parameters
    ----------
    name : str
        Of the file or store.
    objects : dict of str to Item
        Every object, under the first of its paths.
    links : dict of str to Link
        Every other path.
    problems : list of str
        What can't be read, with its path.
    types : list of str
        Paths of committed types.
    """

    name: str
    objects: dict[str, Item] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)

    def resolve(self, path: str) -> str | None:
        """Return the first path of the object that a path leads to; ``None`` if there is none in here."""
        at = "/"
        waiting = [part for part in reversed(path.split("/")) if part]
        followed = 0
        while waiting:
            step = posixpath.join(at, waiting.pop())
            link = self.links.get(step)
            if link is not None:
                followed += 1
                if link.sort == "external" or followed > _MOST_LINKS:
                    return None
                at = "/"
                waiting += [part for part in reversed(link.to.split("/")) if part]
            elif step in self.objects:
                at = step
            else:
                return None
        return at


def number_kind(dtype: np.dtype[Any], *, enum: bool = False) -> Kind:
    """Return the kind of integers and floats.

    Parameters
    ----------
    dtype : numpy.dtype
        As they are stored.
    enum : bool
        Whether each has a name, too.
    """
    big = dtype.newbyteorder("=") != dtype
    return Kind("number", f"{_ENUM if enum else ''}{dtype.newbyteorder('=').name}{_BIG if big else ''}")


def not_utf8(values: Array) -> str:
    """Return that there is text which is not UTF-8; empty if there is none.

    Parameters
    ----------
    values : numpy.ndarray of object
        Text, of which bytes that are not UTF-8 are surrogates, as Python makes of names of files.
    """
    for value in values.flat:
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"it has text that is not UTF-8 ({value.encode(errors='surrogateescape')!r:.60})"
    return ""


def pieces(shape: Shape) -> Iterator[Region]:
    """Cut an array into regions of half a million elements."""
    yield from Pieces(shape, _PIECE) if shape else ((),)
