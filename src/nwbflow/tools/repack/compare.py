"""Comparing a result with its source, object by object: what is lost, and what is there in another form."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from nwbflow.errors import ErrorKind, VerifyError
from nwbflow.links.records import ATTRIBUTE
from nwbflow.model.data import Array
from nwbflow.model.repacked import Difference
from nwbflow.tools.repack.contents import SCHEMA, Contents, Item, Kind, Ref, Value, pieces


@dataclass(slots=True)
class Comparison:
    """Compares, and notes what differs.

    Parameters
    ----------
    source, result : Contents
        What is compared.
    told : collection of str
        Places whose loss was noted already.
    moved : collection of str
        Datasets that the engine has moved and verified: their elements are not read again.
    """

    source: Contents
    result: Contents
    told: Collection[str]
    moved: Collection[str]
    lost: list[Difference] = field(default_factory=list)
    changed: list[Difference] = field(default_factory=list)
    objects: int = 0
    attributes: int = 0
    elements: int = 0

    def run(self) -> None:
        """Compare everything.

        Raises
        ------
        nwbflow.errors.VerifyError
            If elements of a dataset differ: that is no loss to report but a fault.
        """
        for path in sorted(set(self.source.types) - set(self.result.types)):
            self._lose(path, "left out: it is a committed type; datasets of it are of the same type all the same")
        for path, item in self.source.objects.items():
            found = self.result.resolve(path)
            if found is None:
                self._lose(path, "missing in the result")
                continue
            self._object(path, item, self.result.objects[found])
        for path, link in self.source.links.items():
            self._link(path, link.sort, link.to)
        extra = {path for path in self.result.objects if self.source.resolve(path) is None}
        for path in sorted(extra):
            self.changed.append(Difference(place=path, text="it is in the result only"))

    def _lose(self, place: str, text: str) -> None:
        if place not in self.told:
            self.lost.append(Difference(place=place, text=text))

    def _change(self, place: str, text: str) -> None:
        self.changed.append(Difference(place=place, text=text))

    def _link(self, path: str, sort: str, to: str) -> None:
        there = self.result.links.get(path)
        if sort == "external":
            if there is None or there.sort != "external":
                self._lose(path, f"the link to {to} is missing in the result")
            return
        target = self.source.resolve(to)
        wanted = None if target is None else self.result.resolve(target)
        if target is None and there is not None and there.to == to:
            return  # it leads nowhere in both
        if wanted is None or self.result.resolve(path) != wanted:
            self._lose(path, f"the link to {to} is missing in the result")
        elif sort == "hard" and there is not None and there.sort == "soft":
            self._change(path, "a second name of an object (hard link) is a link to it")

    def _object(self, path: str, item: Item, found: Item) -> None:
        self.objects += 1
        before, after = item.kind, found.kind
        if (before is None) != (after is None):
            self._lose(path, "it is a group in one and a dataset in the other")
            return
        if before is not None and after is not None:
            self._dataset(path, item, before, found, after)
        theirs = found.attributes()
        for name, value in item.attributes().items():
            self.attributes += 1
            at = f"{path}@{name}"
            if name not in theirs:
                self._lose(at, "missing in the result")
            elif not (name == SCHEMA and path == "/") and name != ATTRIBUTE:  # which has names of files
                self._attribute(at, value, theirs[name])
        for name in sorted(theirs.keys() - item.attributes().keys()):
            self._change(f"{path}@{name}", "it is in the result only")

    def _attribute(self, at: str, value: Value, found: Value) -> None:
        if value.problem or found.problem:
            if value.problem != found.problem:
                self._lose(at, value.problem or found.problem)
            return
        if not self._equal(value.kind, value.data, found.data):
            self._lose(at, f"its value is {found.data.tolist()!r:.60} and was {value.data.tolist()!r:.60}")
            return
        self._type(at, value.kind, found.kind)

    def _type(self, at: str, before: Kind, after: Kind) -> None:
        if before.name != after.name:
            self._change(at, f"{before.name} is {after.name} in the result")

    def _dataset(self, path: str, item: Item, before: Kind, found: Item, after: Kind) -> None:
        if item.shape != found.shape:
            raise self._fault(path, f"it has the shape {found.shape} and had {item.shape}")
        self._type(path, before, after)
        if path in self.moved or item.shape is None or before.sort == "other" or found.elsewhere:
            return
        for region in pieces(item.shape):
            mine, theirs = item.read(region), found.read(region)
            for name, kind in before.itself:
                if name not in theirs or not self._equal(kind, mine[name], theirs[name]):
                    raise self._fault(path, f"elements{f' of {name}' if name else ''} in {region} differ")
                self.elements += mine[name].size

    def _fault(self, path: str, text: str) -> VerifyError:
        return VerifyError(
            f"{path}: read back from {self.result.name}, {text}. Nothing was put in place; please report this with the "
            "versions of hdmf, hdmf-zarr and zarr",
            kind=ErrorKind.MISMATCH,
        )

    def _equal(self, kind: Kind, one: Array, other: Array) -> bool:
        if one.shape != other.shape:
            return not one.size and not other.size
        if kind.sort == "reference":
            return [self._place(ref) for ref in one.flat] == [
                self.result.resolve(ref.path) if isinstance(ref, Ref) else ref for ref in other.flat
            ]
        if one.dtype.hasobject or other.dtype.hasobject:
            return bool(one.tolist() == other.tolist())
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")

    def _place(self, ref: Ref) -> str | None:
        if not ref.path or (ref.path in self.source.types and ref.path not in self.result.types):
            return "/"  # which was told
        return self.result.resolve(ref.path)
