"""Several datasets seen as one: how the pieces fit, and HDF5's property list of a virtual dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from h5py import h5d, h5p, h5s

from nwbflow.errors import ErrorKind, LinkError, SettingsError, UnsupportedError
from nwbflow.links.names import SAME_FILE, escaped, unescaped
from nwbflow.links.places import Rules, find_file
from nwbflow.links.targets import Target, target_of
from nwbflow.model.data import Array, Region, Source
from nwbflow.model.layout import Shape
from nwbflow.model.links import LinkKind, Policy


class Piece(Protocol):
    """What is put beside others: a dataset, or a stretch of a raw file."""

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        ...


def joined_shape(pieces: Sequence[Piece], axis: int) -> tuple[Shape, int]:
    """Return the shape of all pieces together, and the axis counted from the front.

    Parameters
    ----------
    pieces : sequence of Piece
        Their names are their text.
    axis : int
        Along which they lie one after the other; negative ones count from the last.

    Raises
    ------
    nwbflow.errors.SettingsError
        If there is no piece or no such axis.
    nwbflow.errors.LinkError
        If they differ in type, rank or the lengths of other axes, or one is empty.
    """
    if not pieces:
        raise SettingsError("there is nothing to concatenate: the list is empty", kind=ErrorKind.OPTION)
    first = pieces[0]
    rank = len(first.shape)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise SettingsError(f"axis={axis!r}: {first} has {rank} axes, of shape {first.shape}", kind=ErrorKind.OPTION)
    axis %= rank
    for number, piece in enumerate(pieces):
        if piece.dtype != first.dtype:
            raise LinkError(
                f"{piece} (number {number}) is of type {piece.dtype.str}, {first} of {first.dtype.str}; all must be "
                "of one type",
                kind=ErrorKind.DTYPE,
            )
        if len(piece.shape) != rank or any(
            n != m for at, (n, m) in enumerate(zip(piece.shape, first.shape, strict=True)) if at != axis
        ):
            raise LinkError(
                f"{piece} (number {number}) has shape {piece.shape}, {first} has {first.shape}; they may differ along "
                f"axis {axis} only",
                kind=ErrorKind.SHAPE,
            )
        if 0 in piece.shape:
            raise LinkError(
                f"{piece} (number {number}) has no elements, only the shape {piece.shape}; leave it out",
                kind=ErrorKind.SHAPE,
            )
    length = sum(piece.shape[axis] for piece in pieces)
    return (*first.shape[:axis], length, *first.shape[axis + 1 :]), axis


class JoinedSource:
    """Sources one after the other along an axis, read as one.

    Parameters
    ----------
    sources : sequence of Source
        Of equal type and equal lengths of the other axes.
    axis : int
        Counted from the front.
    """

    in_memory = False

    def __init__(self, sources: Sequence[Source], axis: int) -> None:
        self._sources = tuple(sources)
        self._axis = axis
        self._shape, _ = joined_shape(self._sources, axis)

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._sources[0].dtype

    def read(self, region: Region, /) -> Array:
        """Return the elements of `region`, from the sources it touches."""
        axis, wanted = self._axis, region[self._axis]
        out = np.empty([s.stop - s.start for s in region], dtype=self.dtype)
        start = 0
        for source in self._sources:
            stop = start + source.shape[axis]
            low, high = max(start, wanted.start), min(stop, wanted.stop)
            if low < high:
                place = (slice(None),) * axis
                here = (*region[:axis], slice(low - start, high - start), *region[axis + 1 :])
                out[(*place, slice(low - wanted.start, high - wanted.start))] = source.read(here)
            start = stop
        return out


def piece_of(given: Any) -> Target:
    """Return a dataset that is to be one piece of a virtual one; a file that is open stays the user's.

    Parameters
    ----------
    given : h5py.Dataset, HDMF's wrapper of one, or (file, path)
        The dataset.

    Raises
    ------
    nwbflow.errors.LinkError
        If it can't be found or opened by its file's name, or what it consists of is missing.
    nwbflow.errors.UnsupportedError
        If its elements are no numbers, or its name can't be recorded.
    """
    found = target_of(given)
    # by its name, as every reader will; so it may be closed before the file is written
    target = target_of((found.file, found.name))
    kind = target.dtype.kind
    if kind not in "biufc" or h5py.check_enum_dtype(target.dtype) is not None:
        raise UnsupportedError(
            f"{target} holds {'text' if h5py.check_string_dtype(target.dtype) else target.dtype}; only numbers are "
            "concatenated. Read it and give PyNWB the values",
            kind=ErrorKind.DTYPE,
        )
    if not target.shape:
        raise LinkError(f"{target} is a single value, without an axis", kind=ErrorKind.SHAPE)
    try:
        str(target.file).encode()
    except UnicodeEncodeError as error:
        raise UnsupportedError(
            f"{os.fsencode(target.file)!r}: the file's name is no UTF-8, and h5py can't read such names of virtual "
            "sources back; rename the file or its folder",
            kind=ErrorKind.OPTION,
        ) from error
    for _ in files_behind(target):
        pass
    return target


def files_behind(target: Target, above: tuple[tuple[Path, str], ...] = ()) -> Iterator[Path]:
    """Give every other file that a dataset's elements come from, where it is itself virtual or raw.

    Parameters
    ----------
    target : Target
        The dataset.
    above : tuple of (pathlib.Path, str)
        Files and names of the virtual datasets it is a source of.

    Raises
    ------
    nwbflow.errors.LinkError
        If one is missing (HDF5 would read zeros), or the sources lead back to where they came from.
    nwbflow.errors.UnsupportedError
        If one is a raw file with a relative name.
    """
    above = (*above, (target.file, target.name))
    with target.opened() as dataset:
        virtual = [(s.file_name, s.dset_name) for s in dataset.virtual_sources()] if dataset.is_virtual else []
        raw = [name for name, _, _ in dataset.external or ()]
    for name in raw:
        if not name.startswith("/"):
            raise UnsupportedError(
                f"{target} is stored in a raw file with a relative name, {name}, which HDF5 would look for in the "
                "working folder when it reads through another file. Make the name absolute first: "
                f"nwbflow links absolute {target.file}",
                kind=ErrorKind.MISSING,
            )
        yield _found(target, name, LinkKind.RAW)
    for file_name, dataset_name in dict.fromkeys(virtual):
        path = target.file if file_name == SAME_FILE else _found(target, unescaped(file_name), LinkKind.VIRTUAL)
        inner = target_of((path, unescaped(dataset_name)))
        if (inner.file, inner.name) in above:
            raise LinkError(f"{target} consists of {inner}, which consists of it in turn", kind=ErrorKind.CYCLE)
        yield path
        yield from files_behind(inner, above)


def _found(linking: Target, name: str, kind: LinkKind) -> Path:
    place = find_file(name, kind, linking.file, Rules(Policy.ALLOW))
    if place.path is None:
        raise LinkError(
            f"{linking} consists of data in other files, and {name} {place.problem}; looked at "
            f"{', '.join(map(str, place.tried)) or 'nothing'}. Mend that file first: nwbflow links relocate",
            kind=place.kind or ErrorKind.MISSING,
        )
    return place.path


def recorded_name(target: Target, own: Path) -> str:
    """Return the name of a piece's file to be recorded in the file `own`: relative to its folder, for HDF5 to parse.

    Parameters
    ----------
    target : Target
        The piece.
    own : pathlib.Path
        The final name of the file that is to have the virtual dataset; absolute, symbolic links resolved.
    """
    return SAME_FILE if target.file == own else escaped(os.path.relpath(target.file, own.parent))


def creation_list(pieces: Sequence[Target], axis: int, own: Path) -> h5p.PropDCID:
    """Return HDF5's property list for a virtual dataset of these pieces, one after the other.

    Parameters
    ----------
    pieces : sequence of Target
        Fitting together, see :func:`joined_shape`.
    axis : int
        Counted from the front.
    own : pathlib.Path
        As in :func:`recorded_name`.
    """
    shape, axis = joined_shape(pieces, axis)
    result = h5p.create(h5p.DATASET_CREATE)
    result.set_layout(h5d.VIRTUAL)
    start = [0] * len(shape)
    for piece in pieces:
        space = h5s.create_simple(shape)
        space.select_hyperslab(tuple(start), piece.shape)
        result.set_virtual(
            space,
            recorded_name(piece, own).encode(),
            escaped(piece.name).encode(),
            h5s.create_simple(piece.shape),
        )
        start[axis] += piece.shape[axis]
    return result


def missing_value(dtype: np.dtype[Any]) -> complex | None:
    """Return what readers are to get where a piece's file is missing; ``None`` is HDF5's own choice, zero.

    HDF5 reads the fill value there, without an error. NaN says that there is nothing; integers have no such value.
    """
    return {"f": float("nan"), "c": complex("nan")}.get(dtype.kind)
