"""Mending what HDMF makes of a file with links.

HDMF keeps the links of a group by the last name of their *targets*, so of two links to ``/a/data`` and ``/b/data``
one is lost; it keeps a second hard link under the first one's name; and what can't be followed is not there at all.
So the builder tree is compared with the names that were read, and what is missing is put in.
"""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdmf.backends.warnings import BrokenLinkWarning
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder, LinkBuilder, ObjectMapper, ReferenceBuilder
from hdmf.spec import DatasetSpec
from hdmf.utils import check_type, get_docval

from nwbflow.errors import ErrorKind
from nwbflow.links.guard import Guard, of_link
from nwbflow.links.problems import BrokenLink
from nwbflow.links.views import BarredDataset, GuardedDataset, GuardedGroup, Recorder
from nwbflow.nwb.broken import BrokenData, Fitting
from nwbflow.nwb.candidates import HDMF_TYPES
from nwbflow.nwb.seconds import Seconds, second_name

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
        self._guests: set[int] = set()
        self._later: list[Callable[[], None]] = []
        self.lost: list[Lost] = []

    def mend(self, root: GroupBuilder) -> None:
        """Put in what can be read, and warn of what can't be.

        Parameters
        ----------
        root : GroupBuilder
            From ``read_builder``.
        """
        self._group(root, "/", None, root)
        for lost in self.lost:
            warnings.warn(str(lost.problem), BrokenLinkWarning, stacklevel=2)

    def stand_in(self) -> None:
        """Put in what stands for data that can't be read, for containers to be made of the tree.

        A tree that is not made into containers, for validation, goes without.
        """
        while self._later:
            self._later.pop(0)()

    def _group(self, builder: GroupBuilder, path: str, spec: Any, owner: GroupBuilder) -> None:
        if id(builder) in self._seen:
            return
        self._seen.add(id(builder))
        name, namespace = self._manager.get_builder_dt(builder), self._manager.get_builder_ns(builder)
        if name is not None and namespace is not None:
            spec, owner = self._spec(namespace, name), builder
        found = self._groups.get((str(builder.source), path))
        if found is not None:
            case = _Case(builder, spec, owner, self._manager)
            self._names(case, *found)
        for child in [*builder.groups.values(), *(link.builder for link in builder.links.values())]:
            if isinstance(child, GroupBuilder):
                inner = spec.get_group(child.name) if spec is not None else None
                self._group(child, posixpath.join(child.location or "/", child.name), inner, owner)

    def _spec(self, namespace: str, name: str) -> Any:
        try:
            return self._manager.namespace_catalog.get_spec(namespace, name)
        except (KeyError, ValueError):  # an extension that is not there
            return None

    def _names(self, case: _Case, group: GuardedGroup, names: tuple[str, ...]) -> None:
        builder = case.builder
        for held in (builder.groups, builder.datasets):
            for name in [name for name in held if name not in names]:  # a hard link under another one's name
                del held[name], builder.obj_type[name]
        seconds = Seconds(self._manager, case.spec, builder, self._guests)
        for held in (builder.groups, builder.links):
            for name, child in list(held.items()):
                self._leave_out_second(seconds, group, name, child)
        for name, link in list(builder.links.items()):
            if case.is_dataset(name) and isinstance(link.builder, GroupBuilder):
                self._not_data(case, group, name)
            else:
                self._target(link, group)
        lost = {lost.name for lost in self.lost if lost.group is group}
        names = tuple(name for name in names if name not in lost)
        for name in sorted(names, key=lambda name: (name.endswith("_index"), len(name))):
            child = builder.datasets.get(name)
            if child is not None and isinstance(child.data, BarredDataset):
                self._lose(group, name, child.data.problem)
                self._later.append(partial(case.bar, name, child, child.data))
            elif name not in builder.groups and name not in builder.datasets and name not in builder.links:
                self._put_in(case, seconds, group, name)

    def _leave_out_second(self, seconds: Seconds, group: GuardedGroup, name: str, child: Any) -> bool:
        """Take out of the tree, and keep as lost, what is another's second name; return whether it is."""
        reason = seconds.reason(name, child)
        if not reason:
            return False
        seconds.take_out(name)
        self._lose(group, name, second_name(group, name, child, reason))
        return True

    def _not_data(self, case: _Case, group: GuardedGroup, name: str) -> None:
        """Have a link to a group, where the schema wants a dataset, raise an error when data are asked for."""
        builder = case.builder
        problem = second_name(
            group, name, builder.links[name], "that is a group, and this is a place for data", ErrorKind.SHAPE
        )
        del builder.links[name], builder.obj_type[name]
        self._lose(group, name, problem)
        self._later.append(partial(case.put, name, problem, str(group.name), self._written))

    def _put_in(self, case: _Case, seconds: Seconds, group: GuardedGroup, name: str) -> None:
        builder = case.builder
        found = self._guard.look_up(group, group._e(name))
        if isinstance(found, BrokenLink):
            self._lose(group, name, found)
            self._later.append(partial(case.put, name, found, str(group.name), self._written))
            return
        try:
            target = self._io.get_builder(found)
        except (ValueError, TypeError):  # the cached schema, a committed type: not read at all
            return
        link = LinkBuilder(builder=target, name=name, source=builder.source)
        link.location = group.name
        if self._leave_out_second(seconds, group, name, link):
            return
        self._written(link)
        if case.is_dataset(name) and isinstance(target, GroupBuilder):
            builder.set_link(link)
            self._not_data(case, group, name)
            return
        self._target(link, group)
        builder.set_link(link)

    def _written(self, builder: Any) -> None:
        """Have HDMF take something for what is in the file already."""
        self._io._written_builders.set_written(builder)

    def _target(self, link: LinkBuilder, group: GuardedGroup) -> None:
        """See to it that a linked dataset is taken for what it is."""
        target = link.builder
        if not isinstance(target, DatasetBuilder):
            return
        barred = target.data if isinstance(target.data, BarredDataset) else None
        apart = target.parent is None
        if target.parent is not None and self._manager.get_builder_dt(target) is None:
            apart = link.name != target.name or self._manager.get_builder_dt(target.parent) is None
        if barred is not None:
            problem = of_link(barred.problem, group, group._e(link.name))
            self._lose(group, link.name, problem)
            if apart:  # else it is in this tree, and told as what it is
                standin = _detached(target, BrokenData(problem, barred))
                self._later.append(partial(link.__setitem__, "builder", standin))
        elif apart and target.parent is not None:
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
    owner : GroupBuilder
        The group whose class its datasets go into: itself, or one above.
    manager : BuildManager
        Knows the classes.
    """

    builder: GroupBuilder
    spec: Any
    owner: GroupBuilder
    manager: BuildManager

    @property
    def type_key(self) -> str:
        """The attribute that says what type something is."""
        return str(self.manager.namespace_catalog.group_spec_cls.type_key())

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the class takes."""
        try:
            return tuple(get_docval(self.manager.get_cls(self.owner).__init__))
        except (KeyError, ValueError, TypeError, RecursionError):  # none there, and HDMF can't make one
            return ()

    def is_dataset(self, name: str) -> bool:
        """Return whether the schema wants a dataset of this name."""
        return self.spec is not None and isinstance(self.spec.get_dataset(name), DatasetSpec)  # or a link's

    def bar(self, name: str, child: DatasetBuilder, barred: BarredDataset) -> None:
        """Have a dataset of this file that must not be read raise its error."""
        data = BrokenData(barred.problem, barred, self._fitting(name))
        if self.type_key in child.attributes or self._takes(name, data):
            child["data"] = data
        else:
            del self.builder.datasets[name], self.builder.obj_type[name]

    def put(self, name: str, problem: BrokenLink, location: str, written: Callable[[Any], None]) -> None:
        """Put in what stands for a dataset that is not there, if anything can."""
        data = BrokenData(problem, fitting=self._fitting(name))
        attributes = self._column(name)
        if attributes is None and not self._takes(name, data):
            return
        standin = DatasetBuilder(
            name,
            data=data,
            attributes=dict(self._unknown(name)) if attributes is None else attributes,
            source=self.builder.source,
        )
        standin.location = location
        written(standin)
        self.builder.set_dataset(standin)

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
