"""What is in an HDF5 file, dataset by dataset: shapes, chunks, filters, sizes, links, and how far a write got.

Only what the file says about itself is read: no data, and no other file. Links to other files,
external raw storage and virtual sources are named, never opened.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5t

from nwbflow.encoding.codecs import describe
from nwbflow.errors import ErrorKind, LinkError, TargetError, UnsupportedError
from nwbflow.links.files import open_file
from nwbflow.links.walk import DAMAGE, Member, walk
from nwbflow.model.layout import Filter
from nwbflow.sinks.occupied import journal_path
from nwbflow.tools.storage_report import DatasetReport, FileReport, LinkKind, LinkReport, Storage, Totals

__all__ = ["DatasetReport", "FileReport", "LinkKind", "LinkReport", "Storage", "Totals", "inspect_file"]

_STORAGE: dict[int, Storage] = {h5d.COMPACT: "compact", h5d.CHUNKED: "chunked", h5d.VIRTUAL: "virtual"}
_POINTER_BYTES = 8  # a variable-length element in memory, as h5py asks for its size
_HEAP_BYTES = 16  # the same on disk: length, heap address, index (HDF5 file format, "Variable-length Types")


def inspect_file(path: str | Path) -> FileReport:
    """Report on every dataset and link of an HDF5 file.

    Works on any HDF5 file, NWB or not, and on the ``.partial`` file that a failed or killed
    write left: there, chunks stored against chunks needed tell how far it got.

    Parameters
    ----------
    path : str or pathlib.Path
        The file. It is opened for reading only.

    Returns
    -------
    FileReport
        By dataset and in total.

    Raises
    ------
    nwbflow.errors.TargetError
        No such file, a folder, not permitted, being written by another process, or damaged beyond opening.
    nwbflow.errors.UnsupportedError
        Not an HDF5 file.
    """
    path = Path(path)
    with _opened(path) as file:
        found = _Report()
        found.run(file)
        return FileReport(
            path=path,
            file_bytes=path.stat().st_size,
            nwb_version=_nwb_version(file),
            datasets=tuple(sorted(found.datasets, key=lambda d: d.path)),
            links=tuple(sorted(found.links, key=lambda link: link.path)),
            problems=tuple(found.problems),
        )


def _opened(path: Path) -> h5py.File:
    try:
        return open_file(path)
    except LinkError as error:
        if error.kind is ErrorKind.NOT_HDF5:
            raise UnsupportedError(str(error), kind=error.kind) from error
        target = path.absolute().with_name(path.absolute().name.removesuffix(".partial")) if path.name else path
        if error.kind is ErrorKind.LOCKED and journal_path(target).exists():
            raise TargetError(
                f"{path} belongs to a recording that is running, or was interrupted: then finish it with "
                f"nwbflow recover {target}",
                kind=ErrorKind.LOCKED,
            ) from error
        raise TargetError(str(error), kind=error.kind) from error


class _Report:
    """What was found on the way through a file."""

    def __init__(self) -> None:
        self.datasets: list[DatasetReport] = []
        self.links: list[LinkReport] = []
        self.problems: list[str] = []

    def run(self, file: h5py.File) -> None:
        """Note everything that hard links reach from the root."""
        for found in walk(file, self.problems):
            if found.kind == "soft":
                self.links.append(LinkReport(path=found.path, kind="soft", target=found.link.path))
            elif found.kind == "external":
                target, other = found.link.path, str(found.link.filename)
                self.links.append(LinkReport(path=found.path, kind="external", target=target, file=other))
            elif found.kind == "hard":
                self.links.append(LinkReport(path=found.path, kind="hard", target=found.first))
            elif found.kind == "dataset":
                self._dataset(found)

    def _dataset(self, found: Member) -> None:
        try:
            self.datasets.append(_dataset(found.item, found.path, _attribute(found.parent, "neurodata_type")))
        except DAMAGE as error:
            self.problems.append(f"{found.path}: {type(error).__name__}: {error}")


def _dataset(dataset: h5py.Dataset, path: str, group_type: str | None) -> DatasetReport:
    settings = dataset.id.get_create_plist()
    external = settings.get_external_count()
    storage: Storage = "external" if external else _STORAGE.get(settings.get_layout(), "contiguous")
    filters = tuple(_filters(settings))
    shape, chunks = dataset.shape, dataset.chunks
    chunked = chunks is not None and shape is not None
    return DatasetReport(
        path=path,
        neurodata_type=_attribute(dataset, "neurodata_type") or group_type,
        shape=shape,
        maxshape=dataset.maxshape,
        dtype=_dtype(dataset),
        storage=storage,
        sources=tuple(_sources(dataset, settings, external)),
        chunks=chunks,
        filters=filters,
        filters_text=describe(filters),
        raw_bytes=0 if shape is None else math.prod(shape) * _disk_bytes(dataset.id.get_type()),
        stored_bytes=0 if storage in ("external", "virtual") else dataset.id.get_storage_size(),
        chunks_stored=dataset.id.get_num_chunks() if chunked else None,
        chunks_total=math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)) if chunked else None,
    )


def _filters(settings: Any) -> Iterator[Filter]:
    for index in range(settings.get_nfilters()):
        number, _, options, _ = settings.get_filter(index)
        yield Filter(number, tuple(options))


def _sources(dataset: h5py.Dataset, settings: Any, external: int) -> Iterator[str]:
    for index in range(external):
        name = settings.get_external(index)[0]
        yield name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    if dataset.is_virtual:
        names = Counter(f"{source.file_name}:{source.dset_name}" for source in dataset.virtual_sources())
        yield from names


def _dtype(dataset: h5py.Dataset) -> str:
    kind = dataset.id.get_type()
    if isinstance(kind, h5t.TypeStringID):
        return "text" if kind.is_variable_str() else f"text of {kind.get_size()} bytes"
    if isinstance(kind, h5t.TypeReferenceID):
        return "object reference" if kind.equal(h5t.STD_REF_OBJ) else "reference"
    try:
        dtype = dataset.dtype
    except TypeError:  # a type numpy has no name for
        return f"{type(kind).__name__.removeprefix('Type').removesuffix('ID').lower()} of {kind.get_size()} bytes"
    element = h5py.check_vlen_dtype(dtype)
    return str(dtype) if element is None else f"lists of {np.dtype(element)}"


def _disk_bytes(kind: Any) -> int:
    """Return the size of one element on disk."""
    return int(kind.get_size()) + (_HEAP_BYTES - _POINTER_BYTES) * _pointers(kind)


def _pointers(kind: Any) -> int:
    """Return how many variable-length texts one element holds: they are larger on disk than in memory."""
    if isinstance(kind, h5t.TypeStringID):
        return int(kind.is_variable_str())
    if isinstance(kind, h5t.TypeCompoundID):
        return sum(_pointers(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
    if isinstance(kind, h5t.TypeArrayID):
        return int(math.prod(kind.get_array_dims())) * _pointers(kind.get_super())
    return 0


def _attribute(member: Any, name: str) -> str | None:
    """Return a text attribute, however it was written: text, bytes or an array of one of them."""
    try:
        return _text(member.attrs.get(name))
    except (OSError, RuntimeError, ValueError, TypeError):
        return None


def _text(value: Any) -> str | None:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return str(value) if isinstance(value, str) else None


def _nwb_version(file: h5py.File) -> str | None:
    version = _attribute(file, "nwb_version")
    try:
        return version or _nwb1_version(file)
    except DAMAGE:  # the walk has named it already
        return None


def _nwb1_version(file: h5py.File) -> str | None:
    """Return what NWB 1 files say in a dataset instead of an attribute."""
    if not isinstance(file.get("nwb_version", getlink=True), h5py.HardLink):
        return None
    member = file["nwb_version"]
    own = isinstance(member, h5py.Dataset) and not (member.external or member.is_virtual)
    return _text(member[()]) if own and member.size == 1 and member.id.get_type().get_size() <= 1024 else None
