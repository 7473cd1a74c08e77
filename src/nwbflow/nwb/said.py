"""What a container says of a dataset that is to be linked, compared with what the dataset holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder, LinkBuilder, ReferenceBuilder
from hdmf.data_utils import DataIO
from hdmf.utils import get_data_shape
from hdmf.validate.validator import check_shape, check_type

from nwbflow.links.compare import Difference, differences, plain, same
from nwbflow.links.targets import ReferenceTo, Target
from nwbflow.model.layout import Shape
from nwbflow.nwb.candidates import path_of

_IDENTITY = ("object_id", "namespace")
"""Attributes that tell objects apart, or say where their type was defined; they are the target's own."""

_SERIES_ROWS = ("data", "timestamps", "control")
"""Datasets of a TimeSeries whose first axes are one (https://nwb-schema.readthedocs.io, TimeSeries)."""

_WAVEFORMS = ("waveform_mean", "waveform_sd", "waveforms")
"""Columns of :class:`pynwb.misc.Units` whose attributes PyNWB keeps on the table."""

_TEXT = ("text", "utf", "utf8", "utf-8", "ascii", "bytes", "isodatetime", "datetime")
"""The schema language's names of types that are text (https://hdmf-schema-language.readthedocs.io)."""

_CHANNEL_ROWS = ("electrodes", "channel_conversion")
"""Datasets of an ElectricalSeries that have one element for each column of its data."""


def compare(builder: DatasetBuilder, target: Target, manager: BuildManager) -> list[Difference]:
    """Return everything in which a container and the dataset it is to link to differ.

    Parameters
    ----------
    builder : DatasetBuilder
        What the container says: attributes, and its place among its siblings.
    target : Target
        What is to be linked.
    manager : BuildManager
        What made the builder; knows the types.

    Returns
    -------
    list of Difference
        Attributes first, then what is about the elements themselves (type, shape, lengths).
    """
    said = {name: _value(value) for name, value in builder.attributes.items() if name not in _IDENTITY}
    spec = builder.matched_spec
    defaults = {a.name: a.default_value for a in spec.attributes if a.default_value is not None} if spec else {}
    return [*differences(said, target.attributes, defaults), *_structure(builder, target, manager)]


def _value(value: Any) -> Any:
    if isinstance(value, ReferenceBuilder):
        value = value.builder
    return ReferenceTo(path_of(value)) if isinstance(value, DatasetBuilder | GroupBuilder) else value


def _structure(builder: DatasetBuilder, target: Target, manager: BuildManager) -> Iterator[Difference]:
    spec = builder.matched_spec
    if spec is not None:
        if isinstance(spec.dtype, str) and not _fits(spec.dtype, target.dtype):
            yield Difference("dtype", spec.dtype, str(target.dtype), structural=True)
        if spec.shape is not None and not check_shape(spec.shape, target.shape):
            yield Difference("shape", _shapes(spec.shape), target.shape, structural=True)
    parent = builder.parent
    if not isinstance(parent, GroupBuilder) or not target.shape:
        return
    for what, expected, found in _lengths(builder, target.shape, parent, manager):
        if expected is not None and expected != found:
            yield Difference(what, expected, found, structural=True)


def _fits(declared: str, dtype: np.dtype[Any]) -> bool:
    try:
        return bool(check_type(declared, dtype))
    except (KeyError, ValueError):  # types the schema language has no name for are the validator's to judge
        return True


def _shapes(spec_shape: Any) -> str:
    """Return the shapes a schema allows as a user reads them, e.g. ``(?, 3) or (?, ?, 3)``."""
    several = spec_shape if isinstance(spec_shape[0], list | tuple) else [spec_shape]
    return " or ".join("(" + ", ".join("?" if n is None else str(n) for n in shape) + ")" for shape in several)


def _lengths(
    builder: DatasetBuilder, shape: Shape, parent: GroupBuilder, manager: BuildManager
) -> Iterator[tuple[str, int | None, int]]:
    """Give what a length is called, what the siblings say it is, and what it is in the target."""
    if builder.name in _SERIES_ROWS:
        for name in _SERIES_ROWS:
            if name != builder.name:
                yield f"rows, as {name}", _rows(parent, name), shape[0]
    if builder.name == "data" and "electrodes" in parent:
        for name in _CHANNEL_ROWS:
            yield f"channels, as {name}", _rows(parent, name), shape[1] if len(shape) > 1 else 1
    if builder.name in _CHANNEL_ROWS and len(_shape(parent, "data") or ()) > 1:
        yield "channels, as data", (_shape(parent, "data") or (0, 0))[1], shape[0]
    is_column = manager.get_builder_dt(builder) is not None and builder.name != "id"
    if is_column and "id" in parent and not _is_indexed(builder, parent):
        yield "rows, as id", _rows(parent, "id"), shape[0]


def _is_indexed(builder: DatasetBuilder, parent: GroupBuilder) -> bool:
    return any(
        isinstance(target := other.attributes.get("target"), ReferenceBuilder) and target.builder is builder
        for other in parent.datasets.values()
    )


def _rows(parent: GroupBuilder, name: str) -> int | None:
    shape = _shape(parent, name)
    return shape[0] if shape else None


def _shape(parent: GroupBuilder, name: str) -> Shape | None:
    """Return a sibling's shape; ``None`` where there is none, or not all of it is known, or it has no elements."""
    sibling = parent.get(name)
    if isinstance(sibling, LinkBuilder):
        sibling = sibling.builder
    if not isinstance(sibling, DatasetBuilder):
        return None
    data = sibling.data.data if isinstance(sibling.data, DataIO) else sibling.data
    shape = getattr(data, "shape", None) or get_data_shape(data, strict_no_data_load=True)
    if not shape or any(n is None for n in shape) or 0 in shape:
        return None
    return tuple(int(n) for n in shape)


def unreadable_link(builder: DatasetBuilder, target: Target, manager: BuildManager) -> str:
    """Return why a dataset could not be read back through a link; empty if it can.

    PyNWB names what it reads through a link after the target, and asks some columns of :class:`pynwb.misc.Units` for
    attributes before it follows their links. References lead to objects of the file that has them.

    Parameters
    ----------
    builder : DatasetBuilder
        What is to become a link.
    target : Target
        What it would lead to.
    manager : BuildManager
        Knows the types.
    """
    if holds_references(target.dtype) or any(isinstance(_value(v), ReferenceTo) for v in builder.attributes.values()):
        return "it holds references, which lead to objects of the other file"
    kind = manager.get_builder_dt(builder)
    if kind is None:
        return ""
    last = target.name.rpartition("/")[2]
    if last != builder.name:
        return f"PyNWB would look for a column {builder.name!r} and find one named {last!r}"
    if "neurodata_type" not in target.attributes:
        return f"PyNWB takes for a {kind} only what says so itself, by an attribute neurodata_type"
    parent = builder.parent
    if parent is not None and manager.get_builder_dt(parent) == "Units" and builder.name in _WAVEFORMS:
        return f"PyNWB asks {builder.name!r} for attributes that a link doesn't have"
    return ""


def holds_references(dtype: np.dtype[Any]) -> bool:
    """Return whether elements of `dtype` refer to objects of the file that has them."""
    if h5py.check_ref_dtype(dtype) is not None:
        return True
    listed = h5py.check_vlen_dtype(dtype)
    if listed is not None and listed is not str and listed is not bytes:
        return holds_references(np.dtype(listed))
    return any(holds_references(member[0]) for member in (dtype.fields or {}).values())


@dataclass(frozen=True, slots=True)
class Adoption:
    """One value of a target that is to be taken over into a container.

    Parameters
    ----------
    builder : DatasetBuilder
        What the container was built into.
    name : str
        The attribute.
    container : hdmf.Container
        Whose field is to change.
    field : str
        Which.
    value : object
        The target's.
    """

    builder: DatasetBuilder
    name: str
    container: Any
    field: str
    value: Any

    def apply(self) -> None:
        """Change the container."""
        self.container.fields[self.field] = self.value
        self.builder.attributes[self.name] = self.value


def adoptions(
    builder: DatasetBuilder, found: list[Difference], target: Target, manager: BuildManager
) -> tuple[list[Adoption], list[Difference]]:
    """Return what taking over the target's values means, and what can't be taken over; nothing is changed.

    Parameters
    ----------
    builder : DatasetBuilder
        As for :func:`compare`.
    found : list of Difference
        From :func:`compare`.
    target : Target
        Whose values are taken.
    manager : BuildManager
        Knows the container.

    Returns
    -------
    tuple of (list of Adoption, list of Difference)
        The second are facts about the elements, attributes that the target lacks and that have no default, values
        the schema forbids, and attributes no field of the container stands for.
    """
    spec = builder.matched_spec
    specs = {} if spec is None else {a.name: a for a in spec.attributes}
    left: list[Difference] = []
    taken: list[Adoption] = []
    for difference in found:
        name = difference.name
        attribute = None if difference.structural else specs.get(name)
        value = plain(target.attributes.get(name, getattr(attribute, "default_value", None)))
        place = None if attribute is None or not _allowed(value, attribute) else _field(builder, attribute, manager)
        if place is None:
            left.append(difference)
        else:
            taken.append(Adoption(builder, name, *place, value))
    return taken, left


def _allowed(value: Any, attribute: Any) -> bool:
    """Return whether a schema allows a value for an attribute."""
    if value is None or isinstance(value, ReferenceTo) or (attribute.shape is None and isinstance(value, list)):
        return False
    if attribute.value is not None and not same(attribute.value, value):
        return False
    if attribute.shape is not None:
        return True
    return isinstance(value, str) == (attribute.dtype in _TEXT)


def _field(builder: DatasetBuilder, attribute: Any, manager: BuildManager) -> tuple[Any, str] | None:
    """Return the container whose field has an attribute's value, and the field's name."""
    typed = manager.get_builder_dt(builder) is not None
    holder = builder if typed else builder.parent
    if holder is None or manager.get_builder_dt(holder) is None:
        return None
    container = manager.construct(holder)
    container.set_modified()  # HDMF takes what it constructs for read from a file, and would leave it out next time
    # a table's subspec repeats the attributes of the column's own type, unknown to that type's mapper
    field = manager.type_map.get_map(container).get_attribute(attribute) or (attribute.name if typed else None)
    return (container, field) if field is not None and field in container.fields else None
