"""Mending what HDMF makes of a file with links.

HDMF keeps the links of a group by the last name of their *targets*, so of two links to ``/a/data`` and ``/b/data``
one is lost; it keeps a second hard link under the first one's name; and what can't be followed is not there at all.
So the builder tree is compared with the names that were read, and what is missing is put in.
"""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdmf.backends.warnings import BrokenLinkWarning
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder, LinkBuilder, ObjectMapper, ReferenceBuilder
from hdmf.utils import check_type, get_docval

from nwbflow.links.guard import Guard, of_link
from nwbflow.links.problems import BrokenLink
from nwbflow.links.views import BarredDataset, GuardedDataset, GuardedGroup, Recorder
from nwbflow.nwb.broken import BrokenData, Fitting
from nwbflow.nwb.candidates import HDMF_TYPES

ObjectMapper.no_convert(GuardedDataset)

UNKNOWN = "unknown"
"""Text attributes of data that can't be read."""

_TEXTS = ("text", "utf", "utf8", "utf-8", "ascii", "bytes", "isodatetime", "datetime")
_FLOATS = ("float", "float32", "float64", "double")


@dataclass(frozen=True, slots=True)
class Lost:
    """A name in a file that containers have no place for, or that can't be followed.

    Parameters
    ----------
    group : GuardedGroup
        Where it is.
    name : str
        The name in there.
    problem : BrokenLink
        What is wrong.
    barred : BarredDataset or None
        The dataset, if it is one whose elements must not be read.
    """

    group: GuardedGroup
    name: str
    problem: BrokenLink
    barred: BarredDataset | None = None

    @property
    def path(self) -> str:
        """Its absolute path in the file."""
        return posixpath.join(str(self.group.name), self.name)


class Mender:
    """Puts into a builder tree what HDMF has lost of a file.

    Parameters
    ----------
    io : HDF5IO
        What has read it.
    recorder : Recorder
        The names that were read.
    guard : Guard
        What followed the links.
    """

    def __init__(self, io: Any, recorder: Recorder, guard: Guard) -> None:
        self._io = io
        self._manager: BuildManager = io.manager
        self._guard = guard
        self._groups = {(str(Path(file).absolute()), path): found for (file, path), found in recorder.groups.items()}
        self._seen: set[int] = set()
        self.lost: list[Lost] = []

    def mend(self, root: GroupBuilder) -> None:
        """Mend a tree, and warn of what can't be mended.

        Parameters
        ----------
        root : GroupBuilder
            From ``read_builder``.
        """
        self._group(root, "/", None, ())
        for lost in self.lost:
            warnings.warn(str(lost.problem), BrokenLinkWarning, stacklevel=2)

    def _group(self, builder: GroupBuilder, path: str, spec: Any, arguments: tuple[Any, ...]) -> None:
        if id(builder) in self._seen:
            return
        self._seen.add(id(builder))
        spec, arguments = self._types(builder, spec, arguments)
        found = self._groups.get((str(builder.source), path))
        if found is not None:
            self._names(builder, *found, spec, arguments)
        for child in [*builder.groups.values(), *(link.builder for link in builder.links.values())]:
            if isinstance(child, GroupBuilder):
                inner = spec.get_group(child.name) if spec is not None else None
                self._group(child, posixpath.join(child.location or "/", child.name), inner, arguments)

    def _types(self, builder: GroupBuilder, spec: Any, arguments: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Return the specification of a group, and the arguments of the class its datasets go into."""
        name, namespace = self._manager.get_builder_dt(builder), self._manager.get_builder_ns(builder)
        if name is None or namespace is None:
            return spec, arguments
        try:
            found = self._manager.namespace_catalog.get_spec(namespace, name)
            return found, tuple(get_docval(self._manager.get_cls(builder).__init__))
        except (KeyError, ValueError, TypeError):  # an extension that is not there
            return None, ()

    def _names(
        self,
        builder: GroupBuilder,
        group: GuardedGroup,
        names: tuple[str, ...],
        spec: Any,
        arguments: tuple[Any, ...],
    ) -> None:
        for held in (builder.groups, builder.datasets):
            for name in [name for name in held if name not in names]:  # a hard link under another one's name
                del held[name], builder.obj_type[name]
        case = _Case(builder, spec, arguments, self._manager.namespace_catalog.group_spec_cls.type_key())
        for link in builder.links.values():
            self._target(link, group)
        for name in sorted(names, key=lambda name: (name.endswith("_index"), len(name))):
            child = builder.datasets.get(name)
            if child is not None and isinstance(child.data, BarredDataset):
                self._lose(group, name, child.data.problem)
                case.bar(name, child)
            elif name not in builder.groups and name not in builder.datasets and name not in builder.links:
                self._put_in(builder, group, name, case)

    def _put_in(self, builder: GroupBuilder, group: GuardedGroup, name: str, case: _Case) -> None:
        found = self._guard.look_up(group, group._e(name))
        if isinstance(found, BrokenLink):
            self._lose(group, name, found)
            standin = case.standin(name, found)
            if standin is not None:
                standin.source = builder.source
                standin.location = group.name
                self._io._written_builders.set_written(standin)
                builder.set_dataset(standin)
            return
        try:
            target = self._io.get_builder(found)
        except (ValueError, TypeError):  # the cached schema, a committed type: not read at all
            return
        link = LinkBuilder(builder=target, name=name, source=builder.source)
        link.location = group.name
        self._io._written_builders.set_written(link)
        self._target(link, group)
        builder.set_link(link)

    def _target(self, link: LinkBuilder, group: GuardedGroup) -> None:
        """See to it that a linked dataset is taken for what it is."""
        target = link.builder
        if not isinstance(target, DatasetBuilder):
            return
        if isinstance(target.data, BarredDataset | BrokenData):
            problem = of_link(target.data.problem, group, group._e(link.name))
            self._lose(group, link.name, problem)
            if target.parent is None:  # else it is in this tree, and told as what it is
                barred = target.data if isinstance(target.data, BarredDataset) else target.data.barred
                link["builder"] = _detached(target, BrokenData(problem, barred))
        elif target.parent is not None and self._manager.get_builder_dt(target) is None:
            named_alike = link.name == target.name and self._manager.get_builder_dt(target.parent) is not None
            if not named_alike:
                link["builder"] = _detached(target, target.data)

    def _lose(self, group: GuardedGroup, name: str, problem: BrokenLink) -> None:
        self.lost.append(Lost(group, name, problem, self._guard.barred(problem)))


def _number(named: Any, otherwise: str) -> np.dtype[Any]:
    """Return the type the schema names, if it is one of numbers."""
    try:
        return np.dtype(HDMF_TYPES.get(named, named) if isinstance(named, str) else otherwise)
    except TypeError:  # text, any number
        return np.dtype(otherwise)


def _detached(builder: DatasetBuilder, data: Any) -> DatasetBuilder:
    """Return a dataset's builder without its group: PyNWB then takes the dataset, not the series it belongs to.

    PyNWB asks that series for what it has under the *link's* name: of time stamps that are linked to another series'
    data it would read that one's time stamps.
    """
    copy = DatasetBuilder(
        builder.name,
        data=data,
        dtype=builder.dtype,
        attributes=builder.attributes,
        maxshape=builder.maxshape,
        source=builder.source,
    )
    copy.location = builder.location
    return copy


@dataclass(frozen=True, slots=True)
class _Case:
    """A group that misses something.

    Parameters
    ----------
    builder : GroupBuilder
        The group.
    spec : GroupSpec or None
        What the schema says of it.
    arguments : tuple of dict
        Arguments of the class that its datasets go into.
    type_key : str
        The attribute that says what type something is.
    """

    builder: GroupBuilder
    spec: Any
    arguments: tuple[Any, ...]
    type_key: str

    def bar(self, name: str, child: DatasetBuilder) -> None:
        """Have a dataset of this file that must not be read raise its error."""
        data = BrokenData(child.data.problem, child.data, self._fitting(name))
        if self.type_key in child.attributes or self._takes(name, data):
            child["data"] = data
        else:
            del self.builder.datasets[name], self.builder.obj_type[name]

    def standin(self, name: str, problem: BrokenLink) -> DatasetBuilder | None:
        """Return what stands for a dataset that is not there; ``None`` if nothing can."""
        data = BrokenData(problem, fitting=self._fitting(name))
        column = self._column(name)
        if column is not None:
            return DatasetBuilder(name, data=data, attributes=column)
        return (
            DatasetBuilder(name, data=data, attributes=dict(self._unknown(name))) if self._takes(name, data) else None
        )

    def _takes(self, name: str, data: BrokenData) -> bool:
        spec = self.spec.get_dataset(name) if self.spec is not None else None
        if getattr(spec, "dtype", None) in _TEXTS:
            return False  # HDMF looks into it
        return any(a["name"] == name and check_type(data, a["type"]) for a in self.arguments)

    def _fitting(self, name: str) -> Fitting:
        """Return shape and type that the class, or else the schema, allows for a dataset."""
        spec = self.spec.get_dataset(name) if self.spec is not None else None
        shapes = next((a["shape"] for a in self.arguments if a["name"] == name and "shape" in a), None)
        shapes = shapes or getattr(spec, "shape", None) or (None,)
        first = shapes[0] if isinstance(shapes[0], list | tuple) else shapes
        if name == "id" and self._columns() is not None:
            first = (self._rows(),)
        return tuple(first), _number(getattr(spec, "dtype", None), "uint8" if name.endswith("_index") else "int64")

    def _unknown(self, name: str) -> Iterator[tuple[str, Any]]:
        """Give attributes that the schema has values for where there are none: they are the target's, and unknown."""
        spec = self.spec.get_dataset(name) if self.spec is not None else None
        for attribute in spec.attributes if spec is not None else ():
            if attribute.value is not None:
                continue
            if attribute.dtype in _FLOATS:
                yield attribute.name, float("nan")
            elif attribute.dtype == "text" and (attribute.required or attribute.default_value is not None):
                yield attribute.name, UNKNOWN

    def _column(self, name: str) -> dict[str, Any] | None:
        """Return the attributes of a table's column; ``None`` if it is none."""
        columns = self._columns()
        if columns is None:
            return None
        target, _, suffix = name.rpartition("_")
        if name == "id":
            return {self.type_key: "ElementIdentifiers", "namespace": "hdmf-common"}
        if name in columns:
            return {self.type_key: "VectorData", "namespace": "hdmf-common", "description": UNKNOWN}
        indexed = self.builder.datasets.get(target)
        if suffix == "index" and indexed is not None:
            return {
                self.type_key: "VectorIndex",
                "namespace": "hdmf-common",
                "description": UNKNOWN,
                "target": ReferenceBuilder(indexed),
            }
        return None

    def _columns(self) -> list[str] | None:
        """Return the names of a table's columns; ``None`` if it is no table."""
        names = self.builder.attributes.get("colnames")
        return None if names is None else [str(name) for name in names]

    def _rows(self) -> int | None:
        """Return how many rows the columns of a table have that can be read."""
        for column in self._columns() or ():
            name = column
            while f"{name}_index" in self.builder.datasets:  # a ragged column has as many rows as its index
                name += "_index"
            found = self.builder.datasets.get(name)
            if found is not None and isinstance(found.data, h5py.Dataset) and not isinstance(found.data, BarredDataset):
                return int(found.data.shape[0])
        return None
