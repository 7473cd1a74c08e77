"""Datasets over data that stay where they are: raw files (external storage) and other datasets (virtual datasets).

To PyNWB they are arrays that can be read, so its own writer would store them. Ours has HDF5 note where they are.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import h5py
from hdmf.data_utils import DataIO as HdmfDataIO
from numpy.typing import DTypeLike

from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.links.fingerprint import fingerprint_dataset, fingerprint_raw
from nwbflow.links.names import escaped
from nwbflow.links.raw import RawPart, part_of, stretch_names, stretches
from nwbflow.links.targets import Target, TargetLike
from nwbflow.links.virtual import (
    JoinedSource,
    creation_list,
    files_behind,
    joined_shape,
    missing_value,
    piece_of,
    recorded_name,
)
from nwbflow.model.data import Source
from nwbflow.model.layout import MaxShape
from nwbflow.model.links import Fingerprint
from nwbflow.nwb.data import SourceData, numeric
from nwbflow.nwb.external import TargetSource


class MappedData(SourceData):
    """Data that stay where they are; PyNWB's constructors accept it, and it can be read like an array."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: it holds no data."""
        memo[id(self)] = self
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.where()}, shape={self.shape}, dtype={self.dtype.str!r})"

    def where(self) -> str:
        """Return where the data are, in a few words."""
        raise NotImplementedError

    def check(self) -> None:
        """Look whether all is still as it was when it was given.

        Raises
        ------
        nwbflow.errors.LinkError
            If not.
        """
        raise NotImplementedError

    def files(self) -> set[Path]:
        """Return the files the data lie in, symbolic links resolved."""
        raise NotImplementedError

    def creation(self, own: Path) -> dict[str, Any]:
        """Return keyword arguments of :meth:`h5py.Group.create_dataset` for a dataset in the file `own`."""
        raise NotImplementedError

    def fingerprints(self, own: Path) -> dict[str, Fingerprint]:
        """Return what the data are, by their names as recorded in the file `own`."""
        raise NotImplementedError


class RawData(MappedData):
    """Raw binary recordings, one after the other along the first axis.

    Parameters
    ----------
    parts : sequence of RawPart
        Of equal type and equal lengths of the other axes.
    """

    def __init__(self, parts: Sequence[RawPart]) -> None:
        sources: list[Source] = [part.source for part in parts]
        super().__init__(sources[0] if len(sources) == 1 else JoinedSource(sources, 0))
        self.parts = tuple(parts)

    def where(self) -> str:
        """Return where the data are, in a few words."""
        return f"{_listed([str(part) for part in self.parts])} (raw)"

    def check(self) -> None:
        """Look whether all is still as it was."""
        for part in self.parts:
            part.check()

    def files(self) -> set[Path]:
        """Return the files."""
        return {Path(os.path.realpath(part.path)) for part in self.parts}

    def creation(self, own: Path) -> dict[str, Any]:
        """Return how HDF5 is to create the dataset."""
        return {"external": stretches(self.parts, own.parent)}

    def fingerprints(self, own: Path) -> dict[str, Fingerprint]:
        """Return what the data are."""
        names = stretch_names(stretches(self.parts, own.parent))
        return {
            name: fingerprint_raw(part.path, part.offset, part.nbytes)
            for name, part in zip(names, self.parts, strict=True)
        }


class JoinedData(MappedData):
    """Datasets of HDF5 files, one after the other along an axis.

    Parameters
    ----------
    pieces : sequence of Target
        Of equal type and equal lengths of the other axes.
    axis : int
        Counted from the front.
    """

    def __init__(self, pieces: Sequence[Target], axis: int) -> None:
        super().__init__(JoinedSource([TargetSource(piece) for piece in pieces], axis))
        self.pieces = tuple(pieces)
        self.axis = axis

    def where(self) -> str:
        """Return where the data are, in a few words."""
        return f"{_listed([str(piece) for piece in self.pieces])} (virtual)"

    def check(self) -> None:
        """Look whether all is still as it was."""
        for piece in self.pieces:
            with piece.opened():
                pass

    def files(self) -> set[Path]:
        """Return the files."""
        return {path for piece in self.pieces for path in (piece.file, *files_behind(piece))}

    def creation(self, own: Path) -> dict[str, Any]:
        """Return how HDF5 is to create the dataset."""
        missing = missing_value(self.dtype)
        fill = {} if missing is None else {"fillvalue": missing}
        return {"dcpl": creation_list(self.pieces, self.axis, own), **fill}

    def fingerprints(self, own: Path) -> dict[str, Fingerprint]:
        """Return what the data are."""
        found = {}
        for piece in self.pieces:
            with piece.opened() as dataset:
                found[f"{recorded_name(piece, own)}:{escaped(piece.name)}"] = fingerprint_dataset(dataset)
        return found


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def link_raw(
    path: str | Path, *, dtype: DTypeLike, shape: MaxShape, offset: int = 0, relative: bool = False
) -> RawData:
    """Use a raw binary recording as data where it is, without copying it (HDF5 external storage).

    The NWB file then needs the raw file to be there. It can't have chunks or a codec. To store a copy, compressed,
    use :func:`raw`.

    Parameters
    ----------
    path : str or pathlib.Path
        The file: elements in C order (samples x channels), nothing between them. Nothing may be recording into it.
    dtype : numpy.dtype or what it is made of
        Type of the elements, byte order included, such as ``"<i2"``.
    shape : tuple of int or None
        Lengths of the axes, in elements, such as ``(None, 384)``; the first may be ``None``: as many samples as the
        file holds.
    offset : int
        Bytes to skip at the start (a header).
    relative : bool
        ``False`` records the absolute name: every reader finds the raw file, from any folder, until one of the two is
        moved (``nwbflow links relocate`` mends that). ``True`` records its name relative to the NWB file: both may be
        moved together, nwbflow finds it, but other readers look for it from their working folder, unless
        ``HDF5_EXTFILE_PREFIX='${ORIGIN}'`` is in their environment.

    Returns
    -------
    RawData
        Accepted as ``data`` by every PyNWB constructor. Readable like an array. Several are put together with
        :func:`concat`.

    Raises
    ------
    nwbflow.errors.LinkError
        If the file is missing, a folder, no regular file or unreadable; when written, if it was changed meanwhile.
    nwbflow.errors.SourceError
        If it is empty, shorter or longer than declared, or no whole number of samples.
    nwbflow.errors.SettingsError
        If type, shape or offset are none.
    """
    element = numeric(dtype)
    try:
        lengths = tuple(None if n is None else operator.index(n) for n in shape)
        skipped = operator.index(offset)
    except TypeError as error:
        raise SettingsError(
            f"shape={shape!r}, offset={offset!r}: give whole numbers, such as shape=(None, 384), offset=0",
            kind=ErrorKind.SHAPE,
        ) from error
    return RawData([part_of(path, dtype=element, shape=lengths, offset=skipped, relative=bool(relative))])


def concat(pieces: Sequence[RawData | TargetLike], *, axis: int = 0) -> RawData | JoinedData:
    """Use several datasets, or several raw files, as one, without copying them.

    Datasets of HDF5 files become a virtual dataset, raw files one dataset that is stored in all of them. Either is a
    dataset of its own: with attributes of its own, and a possible target of references. With one piece in the list it
    gives an existing dataset another unit or conversion, say.

    Parameters
    ----------
    pieces : sequence
        Either :func:`link_raw` of raw files, or datasets: each an open one, such as
        ``other.acquisition["probe"].data``, or a pair of a file's name and the path inside it. Names of HDF5 files
        are recorded relative to the file that is written. The same piece may occur twice.
    axis : int
        Along which they lie one after the other; negative ones count from the last. Raw files: 0.

    Returns
    -------
    RawData or JoinedData
        Accepted as ``data`` by every PyNWB constructor. Readable like an array.

    Raises
    ------
    nwbflow.errors.LinkError
        If a piece is missing, unreadable or a group, is empty, or differs from the first in type, rank, or length of
        an axis other than `axis`; when written, if one was changed meanwhile, or would be replaced by the file.
    nwbflow.errors.UnsupportedError
        For raw files together with HDF5 datasets, raw files along another axis than the first, and elements that are
        no numbers.
    nwbflow.errors.SettingsError
        If the list is empty, or there is no such axis.
    """
    if isinstance(pieces, str | Path | h5py.Dataset | HdmfDataIO | SourceData):
        raise SettingsError("give a list of what is to be concatenated: concat([a, b])", kind=ErrorKind.OPTION)
    given = list(pieces)
    for piece in given:
        if isinstance(piece, SourceData) and not isinstance(piece, RawData):
            raise SettingsError(
                f"{piece!r} can't be concatenated: give link_raw(...) of raw files, or the datasets themselves",
                kind=ErrorKind.OPTION,
            )
    raw = [piece for piece in given if isinstance(piece, RawData)]
    if not raw:
        found = [piece_of(piece) for piece in given]
        _, place = joined_shape(found, axis)
        return JoinedData(found, place)
    if len(raw) < len(given):
        raise UnsupportedError(
            f"{raw[0].where()} is a raw file, others of the list are not; HDF5 puts only datasets of HDF5 files "
            "together. Write an NWB file with the link_raw(...) alone first, and concat the dataset in it",
            kind=ErrorKind.OPTION,
        )
    parts = [part for piece in raw for part in piece.parts]
    _, place = joined_shape(parts, axis)
    if place != 0:
        raise UnsupportedError(
            f"axis={axis}: raw files are put together along axis 0 only, since their bytes follow each other. Write an "
            "NWB file for each, with link_raw(...), and concat the datasets in those",
            kind=ErrorKind.OPTION,
        )
    return RawData(parts)
