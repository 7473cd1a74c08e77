"""Arrays that can be read again: in memory, sliceable, or raw on disk."""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array, Region
from nwbflow.model.layout import MaxShape, Shape
from nwbflow.sources.checks import refuse_masked
from nwbflow.sources.lazy import checked, is_dask_array, refuse_unknown_lengths

_FRESH = ("h5py", "zarr", "dask")  # packages whose slices are arrays of their own, never a buffer used again
_SAMPLE = 4096


class Sliceable(Protocol):
    """Anything with a shape, a dtype and numpy-style slicing (h5py, zarr, dask, ...)."""

    @property
    def shape(self) -> Any:
        """Lengths of the axes."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of the elements."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return the selected elements."""
        ...


class ArraySource:
    """A numpy array in memory; reading returns views.

    Parameters
    ----------
    array : numpy.ndarray
        Any shape, any strides.
    """

    in_memory = True

    def __init__(self, array: Array) -> None:
        self._array = array

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._array.dtype

    def read(self, region: Region, /) -> Array:
        """Return a view of `region`."""
        return self._array[region]


class SliceSource:
    """Any other sliceable array: h5py and zarr datasets, dask arrays, users' own.

    Parameters
    ----------
    array : Sliceable
        Read in one thread, by rectangular regions.

    Raises
    ------
    SourceError
        If a dask array doesn't know its lengths; when reading if the array gives another shape than asked for or
        masked elements, or is closed.
    """

    in_memory = False

    def __init__(self, array: Sliceable) -> None:
        refuse_unknown_lengths(array)
        self._array = checked(array) if is_dask_array(array) else array
        self._shape = tuple(int(n) for n in array.shape)
        self._dtype: np.dtype[Any] = np.dtype(array.dtype)
        self._package = type(array).__module__.partition(".")[0]

    @property
    def array(self) -> Sliceable:
        """What is sliced."""
        return self._array

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._dtype

    def read(self, region: Region, /) -> Array:
        """Return the elements of `region` as a numpy array that nobody else writes to."""
        if isinstance(self._array, h5py.Dataset) and not self._array:
            raise SourceError(
                f"the h5py dataset was closed before {show_region(region)} was read; keep its file open",
                kind=ErrorKind.CLOSED,
            )
        given = self._array[region]
        if self._package == "dask":
            given = given.compute()  # numpy would drop the mask
        refuse_masked(given, show_region(region))
        block = np.asarray(given)
        wanted = tuple(s.stop - s.start for s in region)
        if block.shape != wanted:
            raise SourceError(
                f"reading {show_region(region)} gave shape {block.shape}, expected {wanted}; "
                "the source changed or slices differently from numpy",
                kind=ErrorKind.SHAPE,
            )
        # it is still being encoded when the next one is read, perhaps into the same buffer
        return block if self._package in _FRESH and block.flags.owndata else block.copy()


class RawSource:
    """A raw binary recording: elements in C order, nothing else, after `offset` bytes.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; where the working folder goes later doesn't matter.
    dtype : numpy.dtype
        Type of the elements, byte order included (``"<i2"``).
    shape : tuple of int
        Lengths of the axes, in elements; see :func:`fit_shape`.
    offset : int
        Bytes to skip at the start (a header).

    Raises
    ------
    SourceError
        While reading, if the file ends early.
    """

    in_memory = False

    def __init__(self, path: str | Path, *, dtype: np.dtype[Any], shape: Shape, offset: int = 0) -> None:
        self.path = Path(path).absolute()
        self.offset = offset
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self._shape = shape

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._dtype

    def read(self, region: Region, /) -> Array:
        """Return the elements of `region`, read with as few system calls as it has runs."""
        counts = [s.stop - s.start for s in region]
        whole = len(region)
        while whole > 1 and counts[whole - 1] == self._shape[whole - 1]:
            whole -= 1
        out = np.empty(counts, dtype=self._dtype)
        if out.size == 0:
            return out
        # axes from `whole` on are read whole, so each run covers axis whole-1's slice
        run = math.prod(counts[whole - 1 :]) * self._dtype.itemsize
        strides = [math.prod(self._shape[axis + 1 :]) * self._dtype.itemsize for axis in range(len(counts))]
        base = self.offset + sum(s.start * stride for s, stride in zip(region, strides, strict=True))
        view = memoryview(out.reshape(-1).view(np.uint8))
        with self.path.open("rb", buffering=0) as file:
            for number, index in enumerate(np.ndindex(*counts[: whole - 1])):
                start = base + sum(i * stride for i, stride in zip(index, strides, strict=False))
                self._fill(file.fileno(), view[number * run : (number + 1) * run], start)
        return out

    def _fill(self, handle: int, view: memoryview, start: int) -> None:
        done = 0
        while done < len(view):
            got = os.preadv(handle, [view[done:]], start + done)
            if got == 0:
                raise SourceError(
                    f"{self.path} ends at byte {start + done}; it was {self._shape} {self._dtype} when the write "
                    "began. It was truncated meanwhile",
                    kind=ErrorKind.LENGTH,
                )
            done += got


def fit_shape(path: str | Path, *, dtype: np.dtype[Any], shape: MaxShape, offset: int = 0) -> Shape:
    """Return the full shape of a raw recording, checked against the file's size.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    dtype : numpy.dtype
        Type of the elements.
    shape : tuple of int or None
        Declared lengths of the axes, in elements; the first may be ``None``: as many samples as there are.
    offset : int
        Bytes to skip at the start.

    Returns
    -------
    tuple of int
        The shape, no axis unknown.

    Raises
    ------
    SourceError
        If the file is missing, shorter or longer than declared, or no whole number of samples.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise SourceError(f"{path}: no such file, or not a regular one", kind=ErrorKind.MISSING)
    if not shape or any(n is None for n in shape[1:]) or any(n is not None and n < 0 for n in shape) or offset < 0:
        raise SourceError(
            f"{path}: shape {shape}, offset {offset}: only the first axis may be None, and nothing negative",
            kind=ErrorKind.SHAPE,
        )
    size = path.stat().st_size - offset
    width = tuple(n for n in shape[1:] if n is not None)
    row = math.prod(width) * dtype.itemsize
    rows, left = divmod(size, row) if row else (0, size)
    declared = rows if shape[0] is None else shape[0]
    if left or size < 0:
        raise SourceError(
            f"{path}: {size} bytes after an offset of {offset} are no whole number of samples of {row} bytes "
            f"({' x '.join(map(str, width)) or '1'} of {dtype}); {left} are left. Check dtype, channels and offset",
            kind=ErrorKind.LENGTH,
        )
    if declared != rows:
        raise SourceError(
            f"{path} holds {rows} samples of {row} bytes, shape {shape} declares {declared}: "
            f"give the first axis {rows}, or None to take what is there",
            kind=ErrorKind.LENGTH,
        )
    return (declared, *width)


def show_region(region: Region) -> str:
    """Return a region as a user would type it: ``[0:100, 64:128]``."""
    return "[" + ", ".join(f"{s.start}:{s.stop}" for s in region) + "]"


def as_source(data: Array | Sliceable) -> ArraySource | SliceSource | RawSource:
    """Return the best source for an array-like: views for arrays, bounded reads for memmaps.

    A memmap straight on its file is read with plain reads: mapped pages would count as
    this process's memory, so a large recording would look like a memory leak. If another file
    has taken its name meanwhile, or none has it, the map is what is left.
    """
    if isinstance(data, np.memmap) and _maps_file(data) and _file_is_there(data):
        return RawSource(str(data.filename), dtype=data.dtype, shape=tuple(data.shape), offset=int(data.offset))
    if isinstance(data, np.ndarray):
        return ArraySource(np.asarray(data))
    return SliceSource(data)


def _maps_file(data: np.memmap[Any, np.dtype[Any]]) -> bool:
    # a view's base is another array, and its offset isn't its own; a private copy ("c") differs from the file
    base: Any = data.base
    plain = isinstance(base, mmap.mmap) and data.flags.c_contiguous and not data.dtype.hasobject
    return bool(plain and data.mode != "c" and data.filename is not None and data.ndim > 0)


def _file_is_there(data: np.memmap[Any, np.dtype[Any]]) -> bool:
    """Return whether the file of the map's name is the one mapped, judged by its size and a sample of its bytes."""
    mapped: Any = data.base
    size, start, count = mapped.size(), int(data.offset), data.nbytes
    if size < start + count:
        return True  # cut off: touching the map would kill the process, a plain read says what happened
    view = np.asarray(data).reshape(-1).view(np.uint8)
    try:
        with Path(str(data.filename)).open("rb") as file:
            return os.fstat(file.fileno()).st_size == size and all(
                os.pread(file.fileno(), _SAMPLE, start + at)[: count - at] == bytes(view[at : at + _SAMPLE])
                for at in (0, max(0, count - _SAMPLE))
            )
    except OSError:
        return False
