"""What of a source is sent to other processes of this machine: how to open it, not its elements."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import uuid
from dataclasses import dataclass
from typing import Any

import h5py

from nwbflow.model.data import Region, Source
from nwbflow.model.layout import Shape
from nwbflow.sources.arrays import RawSource, SliceSource
from nwbflow.sources.hdf5 import Hdf5Source
from nwbflow.sources.lazy import is_dask_array

PARCEL_BYTES = 2**20
"""What a pickled source may have, in bytes: more means that it holds its elements in memory."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A source on its way to another process.

    Parameters
    ----------
    pickled : bytes
        The source; of a dask array, what computes one block.
    key : str
        Its name, by which a process that has opened it finds it again; empty for what is used once.
    """

    pickled: bytes
    key: str = ""


def parcel_of(source: Source) -> Parcel | None:
    """Return what to send; ``None`` for what is better read here.

    That is so for elements in memory and raw files, which are read without Python's lock, for HDF5 datasets another
    process can't see (open for writing, in memory), and for objects that hold their elements.

    Raises
    ------
    Exception
        Whatever pickling a user's object raises.
    """
    if source.in_memory or isinstance(source, RawSource):
        return None
    if isinstance(source, SliceSource) and isinstance(source.array, h5py.Dataset):
        placed = Hdf5Source.of(source.array)
        return None if placed is None else Parcel(dumps(placed), uuid.uuid4().hex)
    try:
        return Parcel(dumps(source), uuid.uuid4().hex)
    except _TooLargeError:
        return None
    except Exception:
        if isinstance(source, SliceSource):
            raise
        return None


def part_of(array: Any, region: Region) -> Parcel:
    """Return what computes one block of a dask array, without the rest of its graph."""
    import dask

    return Parcel(dumps(dask.optimize(array[region])[0], limit=None))


def lazy(source: Source) -> Any:
    """Return the dask array behind a source; ``None`` for any other."""
    array = source.array if isinstance(source, SliceSource) else None
    return array if is_dask_array(array) else None


def pieces_of(source: Source) -> Shape | None:
    """Return the shape of the pieces in which a source is computed or stored; ``None`` where it has none."""
    array = source.array if isinstance(source, SliceSource) else None
    chunks = getattr(array, "chunks", None)
    if not isinstance(chunks, tuple) or len(chunks) != len(source.shape):
        return None
    return tuple(max(sizes, default=1) if isinstance(sizes, tuple) else int(sizes) for sizes in chunks)


class _TooLargeError(Exception):
    pass


class _Limited:
    """A file in memory that takes so many bytes, and no copy of what is more."""

    def __init__(self, limit: int | None) -> None:
        self.parts: list[bytes] = []
        self.left = limit

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.left is not None:
            self.left -= size
            if self.left < 0:
                raise _TooLargeError
        self.parts.append(bytes(data))
        return size


def dumps(value: object, limit: int | None = PARCEL_BYTES) -> bytes:
    """Pickle `value`; with cloudpickle where it is installed, which takes functions and classes of notebooks."""
    file = _Limited(limit)
    by = importlib.import_module("cloudpickle") if importlib.util.find_spec("cloudpickle") else pickle
    by.Pickler(file, protocol=5).dump(value)
    return b"".join(file.parts)
