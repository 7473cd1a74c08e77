"""One HDF5 dataset being filled, and what its creation property list says."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5z

from nwbflow.encoding.codecs import is_mandatory
from nwbflow.errors import ErrorKind, NwbflowError, SourceError, StorageError
from nwbflow.model.data import Array, Region
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Filter, Layout, Shape

_FULL = ("No space left", f"errno = {errno.ENOSPC}", "Disk quota exceeded", "File too large")


def real_name(file: h5py.File) -> str:
    """Return the name HDF5 opened a file by, as its error texts give it."""
    return os.fsdecode(h5f.get_name(file.id))


def disk_error(error: BaseException, file: str, name: str) -> StorageError | None:
    """Return the :class:`StorageError` for a write into `file` that failed under HDMF, or ``None``.

    HDMF hides causes, and runs code of users whose own errors must stay theirs: so it is HDF5's
    text, which names the file, that decides.

    Parameters
    ----------
    error : BaseException
        What was raised; what caused it is looked at too.
    file : str
        From :func:`real_name`.
    name : str
        What the text is to call the file.
    """
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if "errno = " in text and f"filename = '{file}'" in text:
            return _failed(cause, name, "writing the structure")
        cause = cause.__cause__ or cause.__context__
    return None


def _failed(error: BaseException, name: str, doing: str) -> StorageError:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or any(sign in str(error) for sign in _FULL):
        text = f"{name}: the disk is full ({doing}). Free some space or choose another disk, and write again"
        return StorageError(text, kind=ErrorKind.NO_SPACE)
    text = f"{name}: {doing} failed: {error}. The file handle is not used again; write again from the source"
    return StorageError(text, kind=ErrorKind.IO)


@contextmanager
def translated(name: str, doing: str) -> Iterator[None]:
    """Turn what h5py raises while storing into a :class:`StorageError` naming the dataset.

    Parameters
    ----------
    name : str
        The dataset's or file's name.
    doing : str
        What was being done, for the text.

    Raises
    ------
    StorageError
        Of kind ``NO_SPACE`` where the disk is full, else ``IO``.
    """
    try:
        yield
    except NwbflowError:
        raise
    except (OSError, RuntimeError, ValueError, SystemError) as error:
        raise _failed(error, name, doing) from error


class _Watch:
    """Hears of errors Python could not raise, for whichever writes are under way.

    One hook for all: writes in several threads begin and end in any order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: dict[str, list[BaseException]] = {}
        self._before: Callable[[Any], object] = sys.unraisablehook

    def begin(self, file: str) -> list[BaseException]:
        with self._lock:
            if sys.unraisablehook != self._hear:
                self._before, sys.unraisablehook = sys.unraisablehook, self._hear
            return self._lost.setdefault(file, [])

    def end(self, file: str) -> None:
        with self._lock:
            self._lost.pop(file, None)
            if not self._lost and sys.unraisablehook == self._hear:
                sys.unraisablehook = self._before

    def _hear(self, unraisable: Any) -> None:
        text = str(unraisable.exc_value)
        for file, lost in self._lost.copy().items():
            if f"filename = '{file}'" in text:
                lost.append(unraisable.exc_value)
                return
        self._before(unraisable)


_watch = _Watch()


@contextmanager
def lost_writes(file: str, name: str) -> Iterator[None]:
    """Raise for writes that fail where Python can't raise: when h5py lets go of a dataset.

    HDF5 keeps small writes back until a dataset is closed. h5py closes datasets when they are
    garbage collected, and an error there is only printed; the data are lost all the same.

    Parameters
    ----------
    file : str
        From :func:`real_name`.
    name : str
        What the text is to call the file.

    Raises
    ------
    StorageError
        If a write was lost meanwhile.
    """
    lost = _watch.begin(file)
    try:
        yield
    except BaseException as error:
        if lost and not isinstance(error, StorageError):
            raise _failed(lost[0], name, "writing the structure") from error
        raise
    finally:
        _watch.end(file)
    if lost:
        raise _failed(lost[0], name, "writing the structure")


class Hdf5Sink:
    """Stores chunks of one open h5py dataset.

    Parameters
    ----------
    dataset : h5py.Dataset
        Created, empty or not; its file open for writing.
    """

    backend = "HDF5"

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._name = str(dataset.name)
        self._layout = layout_of(dataset)

    @property
    def layout(self) -> Layout:
        """What was really created."""
        return self._layout

    def put(self, offset: tuple[int, ...], chunk: Encoded, /) -> None:
        """Store one encoded chunk whose first element lies at `offset`."""
        with translated(self._name, f"storing the chunk at {offset}"):
            self._dataset.id.write_direct_chunk(offset, chunk.data, chunk.filter_mask)

    def get(self, offset: tuple[int, ...], /) -> bytes:
        """Return the stored bytes of the chunk at `offset`."""
        with translated(self._name, f"reading back the chunk at {offset}"):
            return bytes(self._dataset.id.read_direct_chunk(offset)[1])

    def place(self, offset: tuple[int, ...], /) -> tuple[int, int]:
        """Return where in the file the stored bytes of the chunk at `offset` are, and how many."""
        with translated(self._name, f"looking for the chunk at {offset}"):
            found = self._dataset.id.get_chunk_info_by_coord(offset)
            return int(found.byte_offset), int(found.size)

    def write(self, region: Region, data: Array, /) -> None:
        """Store decoded elements through HDF5's own filters."""
        with translated(self._name, f"storing {region}"):
            self._dataset[region] = data
            if self._layout.chunks is not None:
                self._dataset.flush()  # out of HDF5's chunk cache, so that a failure shows here

    def scatter(self, selection: Any, data: Array, /) -> None:
        """Store decoded elements at any h5py selection."""
        try:
            with translated(self._name, f"storing {selection}"):
                self._dataset[selection] = data
        except TypeError as error:  # what h5py refuses before it stores anything
            raise SourceError(
                f"{self._name}: data of shape {data.shape} can't be stored at {selection}: {error}",
                kind=ErrorKind.SHAPE,
            ) from error

    def read(self, region: Region, /) -> Array:
        """Return decoded elements through HDF5's own filters."""
        with translated(self._name, f"reading back {region}"):
            return np.asarray(self._dataset[region])

    def resize(self, shape: Shape, /) -> None:
        """Set the dataset's present shape."""
        if shape != self.shape:
            with translated(self._name, f"resizing to {shape}"):
                self._dataset.id.set_extent(shape)

    @property
    def shape(self) -> Shape:
        """The dataset's present shape."""
        return tuple(int(n) for n in self._dataset.id.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes the dataset takes in the file."""
        return int(self._dataset.id.get_storage_size())


def filters_of(plist: h5p.PropDCID) -> tuple[Filter, ...]:
    """Return the pipeline of a creation property list, in writing order."""
    found = (plist.get_filter(index) for index in range(plist.get_nfilters()))
    return tuple(Filter(int(f[0]), tuple(int(v) for v in f[2])) for f in found)


def layout_of(dataset: h5py.Dataset) -> Layout:
    """Return how an existing dataset lies on disk."""
    plist = dataset.id.get_create_plist()
    fill = None
    if plist.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED and dataset.fillvalue is not None:
        fill = np.asarray(dataset.fillvalue).item()
    return Layout(
        shape=tuple(int(n) for n in dataset.shape),
        maxshape=tuple(None if n is None else int(n) for n in dataset.maxshape),
        dtype=np.dtype(dataset.dtype),
        chunks=None if dataset.chunks is None else tuple(int(n) for n in dataset.chunks),
        filters=filters_of(plist),
        fillvalue=fill,
    )


def creation_list(filters: tuple[Filter, ...]) -> h5p.PropDCID:
    """Return a creation property list with `filters`, set as h5py itself sets them."""
    plist = h5p.create(h5p.DATASET_CREATE)
    for item in filters:
        flag = h5z.FLAG_MANDATORY if is_mandatory(item) else h5z.FLAG_OPTIONAL
        plist.set_filter(item.id, flag, item.options)
    return plist


def try_layout(create: Mapping[str, Any]) -> Layout:
    """Return the layout h5py gives a dataset created with `create`, without touching any file.

    Asking h5py itself (in a file in memory) is the only way to be exactly as right as h5py,
    plugins' own defaults included, and it lets a bad request fail before anything is written.

    Parameters
    ----------
    create : mapping
        Keyword arguments of :meth:`h5py.Group.create_dataset`.
    """
    with h5py.File.in_memory() as scratch:
        return layout_of(scratch.create_dataset("x", **create))
