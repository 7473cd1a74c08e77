"""Which datasets of a builder tree are large numeric arrays, and where their elements come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from hdmf.backends.hdf5 import HDF5IO, H5DataIO
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder, LinkBuilder
from hdmf.data_utils import AbstractDataChunkIterator, GenericDataChunkIterator
from hdmf.data_utils import DataIO as HdmfDataIO

from nwbflow.encoding.cast import exact
from nwbflow.errors import ErrorKind, SourceError
from nwbflow.links.targets import Target, refuse_incomplete
from nwbflow.model.data import Array, Source, Stream
from nwbflow.nwb.data import BlocksData, DataIO, SourceData
from nwbflow.nwb.external import CopiedData
from nwbflow.nwb.iterators import IteratorStream
from nwbflow.nwb.livedata import LiveData
from nwbflow.planning.chunks import SeriesKind
from nwbflow.sources.arrays import as_source
from nwbflow.sources.checks import refuse_masked

# HDMF's names that numpy doesn't have, or reads as another size
# (https://hdmf-schema-language.readthedocs.io/en/latest/description.html#dtype)
HDMF_TYPES = {"float": "f4", "double": "f8", "long": "i8", "int": "i4", "short": "i2", "uint": "u4"}
_NUMBERS = "biuf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One numeric dataset about to be written.

    Parameters
    ----------
    name : str
        Absolute path inside the file.
    builder : DatasetBuilder
        HDMF's description of it.
    data : Source or Stream
        Its elements.
    dtype : numpy.dtype
        The stored type, as HDMF would choose it.
    wrapper : H5DataIO or None
        Settings given by the user.
    is_column : bool
        Whether it is a typed dataset, such as a table's column, whose length must fit its siblings.
    types : tuple of str
        Neurodata type of the dataset or the group that holds it, and its ancestors, nearest first.
    kind : SeriesKind
        What it holds, for its chunks.
    initial : tuple of int
        The shape HDMF would give it at first, in elements.
    live : bool
        Whether the data may keep one waiting, so that others should not wait with them. HDMF's generic iterator
        slices something that is there already: it never waits, and several often share one reader, which must
        not be used from two threads.
    copied : Target or None
        The dataset of another file that this is a copy of.
    """

    name: str
    builder: DatasetBuilder
    data: Source | Stream
    dtype: np.dtype[Any]
    wrapper: H5DataIO | None
    is_column: bool
    types: tuple[str, ...]
    kind: SeriesKind
    initial: tuple[int, ...]
    live: bool
    copied: Target | None = None

    @property
    def nbytes(self) -> int | None:
        """Size in bytes; ``None`` where not all of it is known beforehand."""
        if isinstance(self.data, Source):
            return int(np.prod(self.data.shape, dtype=np.int64)) * self.dtype.itemsize
        return None


def find(root: GroupBuilder, manager: BuildManager, skip: Callable[[Any], bool]) -> list[Candidate]:
    """Return the numeric array datasets below `root`, in the order in which HDMF writes them.

    Parameters
    ----------
    root : GroupBuilder
        The tree.
    manager : BuildManager
        What made it; knows the types.
    skip : callable
        Whether a builder is in the file already.

    Raises
    ------
    SourceError
        If one iterator is the data of two datasets, or data are no numbers where they must be.
    """
    found = [c for b in datasets(root) if not skip(b) for c in [_candidate(b, manager)] if c is not None]
    _refuse_shared(found)
    return found


def links(root: GroupBuilder, skip: Callable[[Any], bool]) -> dict[str, str]:
    """Return the paths of datasets whose data lie in an open HDF5 file, and where: HDMF links or copies them."""
    found = [(b, _unwrapped(b.data)) for b in datasets(root) if not skip(b)]
    return {
        path_of(b): f"{data.file.filename}:{data.name}" for b, data in found if isinstance(data, h5py.Dataset) and data
    }


def foreign_wrappers(root: GroupBuilder, skip: Callable[[Any], bool]) -> list[tuple[str, str]]:
    """Return path and kind of wrappers whose settings HDF5 can't take: HDMF drops them in silence."""
    return [
        (path_of(b), type(b.data).__name__)
        for b in datasets(root)
        if not skip(b) and isinstance(b.data, HdmfDataIO) and not isinstance(b.data, H5DataIO)
    ]


def path_of(builder: DatasetBuilder | GroupBuilder | LinkBuilder) -> str:
    """Return the absolute path HDMF writes a builder to."""
    location = getattr(builder, "location", None)  # links that were not read have none
    if location is not None:
        parts = [location, builder.name]
    else:
        parts = []
        at: Any = builder
        while at.parent is not None:
            parts.insert(0, at.name)
            at = at.parent
    return "/" + "/".join(p.strip("/") for p in parts if p.strip("/"))


def datasets(group: GroupBuilder) -> Iterator[DatasetBuilder]:
    """Give every dataset builder of a tree, in the order in which HDMF writes them."""
    for child in group.groups.values():
        yield from datasets(child)
    yield from group.datasets.values()


def _unwrapped(data: Any) -> Any:
    return data.data if isinstance(data, HdmfDataIO) else data


def _candidate(builder: DatasetBuilder, manager: BuildManager) -> Candidate | None:
    given = builder.data
    wrapper = given if isinstance(given, H5DataIO) else None
    data = given.data if wrapper is not None else given
    if data is None or isinstance(data, str | bytes | HdmfDataIO) or isinstance(builder.dtype, list | dict):
        return None
    name = path_of(builder)
    if isinstance(data, h5py.Dataset) and not data:
        raise SourceError(
            f"{name}: the h5py dataset given as data is closed; keep its file open", kind=ErrorKind.CLOSED
        )
    if isinstance(data, h5py.Dataset) and not isinstance(wrapper, DataIO):
        return None  # linked or copied as it is
    if isinstance(data, h5py.Dataset):
        refuse_incomplete(data)
    if isinstance(data, list | tuple):
        data = _as_numbers(data, builder.dtype, name)
    dtype = _stored_type(builder.dtype, data, name)
    supply = None if dtype is None else _supply(data, name)
    if dtype is None or supply is None:
        return None
    column = manager.get_builder_dt(builder) is not None
    if column and isinstance(data, LiveData):
        dtype = np.promote_types(dtype, data.dtype)  # of columns the schema says only the least they must hold
    types = types_of(builder, manager)
    shape = supply.shape if isinstance(supply, Source) else supply.maxshape
    return Candidate(
        name=name,
        builder=builder,
        data=supply,
        dtype=dtype,
        wrapper=wrapper,
        is_column=column,
        types=types,
        kind=_kind(builder.name, types, len(shape), column=column),
        initial=_initial(supply, data),
        live=not isinstance(supply, Source) and not isinstance(data, GenericDataChunkIterator),
        copied=data.target if isinstance(data, CopiedData) else None,
    )


def _stored_type(declared: Any, data: Any, name: str) -> np.dtype[Any] | None:
    """Return the numeric type HDMF would store, or ``None`` if it is none of ours."""
    if isinstance(data, AbstractDataChunkIterator):
        found = declared if declared is not None else data.dtype
    elif hasattr(data, "dtype") and hasattr(data, "shape"):
        if not isinstance(declared, str) and np.dtype(data.dtype).kind in "mM":
            raise SourceError(
                f"{name}: type {data.dtype} can't be stored; give numbers, such as seconds "
                "((data - start) / numpy.timedelta64(1, 's'))",
                kind=ErrorKind.DTYPE,
            )
        if len(data.shape) == 0 or getattr(data.dtype, "hasobject", False) or np.dtype(data.dtype).kind not in _NUMBERS:
            return None
        found = declared if declared is not None else _native(data)
    else:
        return None
    return numeric_type(found)


def numeric_type(found: Any) -> np.dtype[Any] | None:
    """Return what HDMF or a user calls a type as one of numbers that are ours, else ``None``."""
    try:
        dtype: np.dtype[Any] = np.dtype(HDMF_TYPES.get(found, found) if isinstance(found, str) else found)
    except TypeError:
        return None
    return dtype if dtype.kind in _NUMBERS and dtype.itemsize <= 8 and h5py.check_enum_dtype(dtype) is None else None


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Return whether elements of `dtype` are numbers that are ours to store."""
    return numeric_type(dtype) is not None


def _native(data: Any) -> np.dtype[Any]:
    """Return the type HDMF stores an array as: its scalars', so in the machine's byte order, unless empty."""
    dtype: np.dtype[Any] = np.dtype(data.dtype)
    return dtype if data.shape[0] == 0 else dtype.newbyteorder("=")


def _as_numbers(data: Sequence[Any], declared: Any, name: str) -> Array | None:
    """Return a list as an array of the type HDMF would store, or ``None`` if it holds no numbers.

    HDMF takes the type of the first element for all: True, 2, 3 would be stored as True, True, True.
    """
    first = data
    while isinstance(first, list | tuple) and first:
        first = first[0]
    if not isinstance(first, int | float | np.number | np.bool_ | np.ndarray):
        return None
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise SourceError(
            f"{name}: the list has rows of different lengths ({error}); make them equal, or use an indexed column",
            kind=ErrorKind.SHAPE,
        ) from error
    dtype = numeric_type(declared if declared is not None else HDF5IO.get_type(data))
    if dtype is None:
        return None
    rounded = array.dtype.kind == "f" and bool((np.abs(array) >= 2.0**53).any())
    if array.dtype.kind in _NUMBERS and not rounded:
        with suppress(SourceError):
            return exact(array, dtype, name=name, offset=(0,) * array.ndim)
    # numpy rounds large integers among others, or gives up on them
    return _from_objects(np.array(data, dtype=object), dtype, name)


def _from_objects(given: Array, dtype: np.dtype[Any], name: str) -> Array | None:
    """Do the rest of :func:`_as_numbers` one Python number at a time: slow, but exact, and it names the place."""
    values = [v.item() if isinstance(v, np.generic) else v for v in given.flat]
    if not all(isinstance(value, int | float | np.longdouble) for value in values):
        return None
    lost = next((at for at, value in enumerate(values) if not _holds(dtype, value)), None)
    if lost is None:
        return given.astype(dtype)
    place = tuple(int(i) for i in np.unravel_index(lost, given.shape))
    wider = ("int64", "uint64") if all(isinstance(value, int) for value in values) else ()
    fits = (kind for kind in wider if all(_holds(np.dtype(kind), value) for value in values))
    raise SourceError(
        f"{name}: a list is stored with the type of its first element, {dtype}, which can't hold the value "
        f"{values[lost]} at {place} without loss; pass numpy.asarray(data, dtype='{next(fits, 'float64')}')",
        kind=ErrorKind.LOSSY,
    )


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    try:
        with np.errstate(all="ignore"):
            kept = dtype.type(value).item()
    except (OverflowError, ValueError):  # too large, not finite
        return False
    return bool(kept == value) or (math.isnan(kept) and math.isnan(value))


def _supply(data: Any, name: str) -> Source | Stream | None:
    refuse_masked(data, f"{name}: its data")
    if isinstance(data, SourceData):
        return data.source
    if isinstance(data, BlocksData | LiveData):
        return data.stream
    if isinstance(data, AbstractDataChunkIterator):
        return IteratorStream(data) if data.maxshape is not None else None
    try:
        return as_source(data)
    except (ValueError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{name}: its data can't be read ({error}); is their file closed?", kind=ErrorKind.CLOSED
        ) from error


def _initial(supply: Source | Stream, data: Any) -> tuple[int, ...]:
    if isinstance(supply, Source):
        return supply.shape
    advised = data.shape if isinstance(data, LiveData) else data.recommended_data_shape()
    if advised is None:
        advised = tuple(n or 0 for n in supply.maxshape)
    return tuple(int(n or 0) for n in advised)


def types_of(builder: DatasetBuilder, manager: BuildManager) -> tuple[str, ...]:
    """Return the neurodata type of a dataset or of the group that holds it, and its ancestors, nearest first."""
    for holder in (builder, builder.parent):
        name = manager.get_builder_dt(holder) if holder is not None else None
        namespace = manager.get_builder_ns(holder) if name is not None else None
        if name is not None and namespace is not None:
            try:
                return tuple(manager.namespace_catalog.get_hierarchy(namespace, name))
            except (KeyError, ValueError, TypeError):  # unknown, or no text
                return (name,) if isinstance(name, str) else ()
    return ()


def _kind(dataset: str, types: tuple[str, ...], rank: int, *, column: bool) -> SeriesKind:
    if column:
        return SeriesKind.TABLE_COLUMN
    if dataset in ("timestamps", "control") or rank == 1:
        return SeriesKind.TIMESTAMPS
    if dataset == "data" and "ElectricalSeries" in types:
        return SeriesKind.ELECTRICAL
    if dataset == "data" and "ImageSeries" in types:
        return SeriesKind.IMAGING
    return SeriesKind.GENERIC


def _refuse_shared(found: Sequence[Candidate]) -> None:
    seen: dict[int, str] = {}
    for candidate in found:
        data = _unwrapped(candidate.builder.data)
        if not isinstance(data, AbstractDataChunkIterator | LiveData) or isinstance(data, SourceData):
            continue
        inner = data.stream.blocks if isinstance(data, BlocksData) else getattr(data, "data", None)
        drained = inner if isinstance(inner, Iterator) else data
        other = seen.setdefault(id(drained), candidate.name)
        if other != candidate.name:
            raise SourceError(
                f"{candidate.name} and {other} have the same iterator as data; an iterator can be drained once. "
                "Make one for each, or link one series to the other",
                kind=ErrorKind.SHARED,
            )
