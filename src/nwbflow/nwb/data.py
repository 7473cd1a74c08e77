"""What users hand to PyNWB's constructors: raw recordings, blocks, and settings for storing.

All of these are HDMF's own kinds (an iterator, an ``H5DataIO``), so every constructor takes them and
a file written by plain PyNWB is right too, only slower.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.data_utils import AbstractDataChunkIterator, DataChunk
from numpy.typing import DTypeLike

from nwbflow.encoding.codecs import Codec, parse_codec
from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.data import Block, Region, Source
from nwbflow.model.layout import Filter, MaxShape, Shape
from nwbflow.planning.chunks import ChunkSpec, advise_chunks, complete_chunks
from nwbflow.planning.grid import bands
from nwbflow.sinks.hdf5 import creation_list
from nwbflow.sources.arrays import RawSource, SliceSource, fit_shape
from nwbflow.sources.streams import BlockStream

FLETCHER32 = 3
FALLBACK_BAND = 32 * 2**20
"""Bytes plain PyNWB gets at a time from a source."""


class SourceData(AbstractDataChunkIterator):  # type: ignore[misc]
    """A re-readable array of any size that PyNWB's constructors accept as data.

    Parameters
    ----------
    source : Source
        What to read.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._blocks: Iterator[DataChunk] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DataChunk:
        if self._blocks is None:
            self._blocks = iter(self._read())
        try:
            return next(self._blocks)
        except StopIteration:
            self._blocks = None  # may be written again
            raise

    def _read(self) -> Iterator[DataChunk]:
        shape = self.source.shape
        if math.prod(shape) == 0:
            return
        for region in bands(shape, self.recommended_chunk_shape(), self.source.dtype.itemsize, FALLBACK_BAND):
            yield DataChunk(data=self.source.read(region), selection=region)

    def recommended_chunk_shape(self) -> Shape:
        """Return the chunk shape used where nobody asks for another."""
        return advise_chunks(self.source.shape, self.source.dtype)

    def recommended_data_shape(self) -> Shape:
        """Return the shape."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.source.dtype

    @property
    def maxshape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self.source.shape

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self.source.shape

    def __len__(self) -> int:
        return self.source.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Read a part, as one would from an array: whole numbers, slices and an ellipsis."""
        region, rest = _as_region(key, self.source.shape)
        return self.source.read(region)[rest]


def _as_region(key: Any, shape: Shape) -> tuple[Region, tuple[int | slice, ...]]:
    """Return the rectangle to be read, and what to take of it."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis not in keys:
        keys.append(Ellipsis)
    at = keys.index(Ellipsis)
    keys[at : at + 1] = [slice(None)] * (len(shape) - len(keys) + 1)
    if len(keys) != len(shape):
        raise IndexError(f"{key!r} has too many axes for an array of shape {shape}")
    region: list[slice] = []
    rest: list[int | slice] = []
    for part, length in zip(keys, shape, strict=True):
        if isinstance(part, slice):
            places = range(length)[part]
            low, high = (min(places), max(places) + 1) if places else (0, 0)
            region.append(slice(low, high))
            rest.append(slice(None, None, places.step))
        else:
            place = range(length)[part]
            region.append(slice(place, place + 1))
            rest.append(0)
    return tuple(region), tuple(rest)


class BlocksData(AbstractDataChunkIterator):  # type: ignore[misc]
    """Blocks of k rows that PyNWB's constructors accept as data.

    Parameters
    ----------
    stream : BlockStream
        The blocks.
    """

    def __init__(self, stream: BlockStream) -> None:
        self.stream = stream
        self._blocks: Iterator[Block] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DataChunk:
        if self._blocks is None:
            self._blocks = iter(self.stream)
        try:
            block = next(self._blocks)
        except StopIteration:
            self._blocks = None  # a list may be written again, and an iterator is to say that it is used up
            raise
        selection = tuple(slice(o, o + n) for o, n in zip(block.offset, block.data.shape, strict=True))
        return DataChunk(data=block.data, selection=selection)

    def recommended_chunk_shape(self) -> Shape:
        """Return the chunk shape used where nobody asks for another (never one row)."""
        return advise_chunks(self.stream.maxshape, self.stream.dtype)

    def recommended_data_shape(self) -> Shape:
        """Return the shape before the first block."""
        return tuple(n or 0 for n in self.stream.maxshape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements to be stored."""
        return self.stream.dtype

    @property
    def maxshape(self) -> MaxShape:
        """Promised shape, ``None`` where unknown."""
        return self.stream.maxshape


def raw(path: str | Path, *, dtype: DTypeLike, shape: MaxShape, offset: int = 0) -> SourceData:
    """Use a raw binary recording as data, without loading it.

    Parameters
    ----------
    path : str or pathlib.Path
        The file: elements in C order (samples x channels), nothing between or after them.
    dtype : numpy.dtype or what it is made of
        Type of the elements, byte order included, such as ``"<i2"``.
    shape : tuple of int or None
        Lengths of the axes, in elements, such as ``(None, 384)``; the first may be ``None``: as
        many samples as the file holds.
    offset : int
        Bytes to skip at the start (a header).

    Returns
    -------
    SourceData
        Accepted as ``data`` by every PyNWB constructor.

    Raises
    ------
    nwbflow.errors.SourceError
        If the file is missing, shorter or longer than declared, or no whole number of samples.
    """
    element = numeric(dtype)
    full = fit_shape(path, dtype=element, shape=shape, offset=offset)
    return SourceData(RawSource(path, dtype=element, shape=full, offset=offset))


def blocks(iterable: Iterable[Any], *, shape: MaxShape, dtype: DTypeLike) -> BlocksData:
    """Use a generator of k-row blocks as data.

    Parameters
    ----------
    iterable : iterable of array_like
        Blocks of shape ``(k, *shape[1:])``; k may change from block to block. A block may be
        reused by the generator once the next one is asked for.
    shape : tuple of int or None
        Promised shape, in elements, such as ``(None, 384)``; the first axis ``None`` if unknown.
    dtype : numpy.dtype or what it is made of
        Type of the elements to be stored. Blocks of other types are taken as long as no value changes.

    Returns
    -------
    BlocksData
        Accepted as ``data`` by every PyNWB constructor.

    Raises
    ------
    nwbflow.errors.SourceError
        When written: ragged rows, another width, more or fewer rows than promised, values that
        don't fit.
    """
    return BlocksData(BlockStream(iterable, maxshape=tuple(shape), dtype=numeric(dtype)))


def numeric(dtype: DTypeLike) -> np.dtype[Any]:
    """Return `dtype` if it is one of numbers.

    Raises
    ------
    nwbflow.errors.SettingsError
        If it is not.
    """
    found: np.dtype[Any] = np.dtype(dtype)
    if found.kind not in "biufc":
        raise SettingsError(f"dtype={found} is no type of numbers, such as 'int16'", kind=ErrorKind.DTYPE)
    return found


class DataIO(H5DataIO):  # type: ignore[misc]
    """Data with settings for how they are stored; what is not given is left to profile and rules.

    Accepted by every PyNWB and HDMF constructor in place of the data. Copies keep every setting, and one
    wrapper may be written any number of times.

    Parameters
    ----------
    data : array_like, iterator or sliceable
        Numpy arrays, lists, h5py datasets, zarr and dask arrays, :func:`raw`, :func:`blocks`, HDMF's
        iterators. ``None`` with `shape` and `dtype` reserves a dataset to be filled later.
    chunks : tuple of int or None, int, or None
        Chunk shape in elements; ``None`` in place of a length leaves that axis to nwbflow: ``(None, 64)``.
    codec : str, int, tuple, mapping, list or object
        ``"gzip"``, ``("gzip", 6)``, ``"gzip-fast"``, ``"none"``, hdf5plugin's names, numbers or objects, or
        a list of these as a pipeline; see :func:`nwbflow.encoding.codecs.parse_codec`.
    maxshape : tuple of int or None
        Largest lengths in elements; ``None`` in place of a length is unlimited.
    checksum : bool
        Whether HDF5's Fletcher-32 checksum is stored with each chunk.
    fillvalue : int, float or bool
        Value of elements never written.
    shape : tuple of int
        Only without data: the shape to reserve.
    dtype : numpy.dtype or what it is made of
        Only without data: the type to reserve.

    Raises
    ------
    nwbflow.errors.SettingsError
        For chunks or codecs that can't be, at once.
    """

    def __init__(
        self,
        data: Any = None,
        *,
        chunks: ChunkSpec = None,
        codec: object = None,
        maxshape: MaxShape | None = None,
        checksum: bool | None = None,
        fillvalue: float | bool | None = None,
        shape: Shape | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        if data is None and shape is None:
            raise SettingsError("DataIO needs data, or shape and dtype to reserve", kind=ErrorKind.OPTION)
        if data is None:
            super().__init__(shape=shape, dtype=np.dtype(dtype))
        else:
            super().__init__(data=acceptable(data))
        self.chunks_wish = chunks
        self.codec = codec
        self.maxshape_wish = maxshape
        self.checksum = checksum
        self.fillvalue = fillvalue
        self._reserve = (shape, dtype)
        if codec is not None:
            parse_codec(codec, dtype=np.dtype("i2"), chunks=(1024,))  # a misspelt name fails here, not hours later

    @property
    def io_settings(self) -> dict[str, Any]:
        """What plain PyNWB gets to see: keyword arguments of :meth:`h5py.Group.create_dataset`."""
        settings = dict(super().io_settings) if self.data is None else {}
        stored = self._stored_type()
        if self.maxshape_wish is not None:
            settings["maxshape"] = self.maxshape_wish
        elif isinstance(self.data, AbstractDataChunkIterator):
            settings["maxshape"] = self.data.maxshape
        if self.fillvalue is not None:
            settings["fillvalue"] = self.fillvalue
        if stored is None:
            return settings
        dtype, limit, present = stored
        if self.chunks_wish is None and self.codec is None and not self.checksum and "maxshape" not in settings:
            return settings
        if 0 in limit:
            return settings  # HDF5 has no chunks where there is no room for one
        settings["chunks"] = complete_chunks(self.chunks_wish, limit, dtype, present=present)
        filters = self.filters(dtype, settings["chunks"]).filters
        if filters:
            settings["dcpl"] = creation_list(filters)
        return settings

    @property
    def maxshape(self) -> Any:
        """Largest lengths in elements; HDMF asks before it knows a name to put into an error."""
        return self.maxshape_wish or getattr(self.data, "maxshape", None) or self.shape

    def filters(self, dtype: np.dtype[Any], chunks: Shape, default: object = None) -> Codec:
        """Return the pipeline for data of `dtype` in `chunks`; `default` is the codec where none was given."""
        wanted = self.codec if self.codec is not None else default
        return with_checksum(parse_codec(wanted, dtype=dtype, chunks=chunks), wanted=bool(self.checksum))

    def _stored_type(self) -> tuple[np.dtype[Any], MaxShape, Shape] | None:
        data = self.data if self.data is not None else self
        dtype, shape = getattr(data, "dtype", None), getattr(data, "shape", None) or getattr(data, "maxshape", None)
        if dtype is None or shape is None:
            try:
                array = np.asarray(data)
            except ValueError:  # ragged; said with the dataset's name when it is written
                return None
            dtype, shape = array.dtype, array.shape
        if np.dtype(dtype).hasobject or len(shape) == 0:
            return None
        return np.dtype(dtype), self.maxshape_wish or tuple(shape), tuple(n or 0 for n in shape)

    def get_io_params(self) -> dict[str, Any]:
        """Return the settings as HDMF asks for them."""
        return {**self.io_settings, "link_data": False}

    def __copy__(self) -> Self:
        return self._with(self.data)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        result = self._with(copy.deepcopy(self.data, memo))
        memo[id(self)] = result
        return result

    def _with(self, data: Any) -> Self:
        shape, dtype = self._reserve
        return type(self)(
            data=data,
            chunks=self.chunks_wish,
            codec=self.codec,
            maxshape=self.maxshape_wish,
            checksum=self.checksum,
            fillvalue=self.fillvalue,
            shape=shape,
            dtype=dtype,
        )


def with_checksum(codec: Codec, *, wanted: bool) -> Codec:
    """Return `codec` with HDF5's checksum as its last filter, if wanted and not there already."""
    if not wanted or any(item.id == FLETCHER32 for item in codec.filters):
        return codec
    return Codec((*codec.filters, Filter(FLETCHER32)), codec.effort)


def acceptable(data: Any) -> Any:
    """Return `data` as something HDMF's constructors accept: dask arrays and the like are wrapped."""
    if isinstance(data, np.ndarray | list | tuple | AbstractDataChunkIterator) or type(data).__module__.startswith(
        ("h5py", "hdmf", "pandas")
    ):
        return data
    if hasattr(data, "shape") and hasattr(data, "dtype") and hasattr(data, "__getitem__"):
        return SourceData(SliceSource(data))
    if isinstance(data, Iterable):
        raise SettingsError(
            f"an iterable of type {type(data).__name__} says neither shape nor type: "
            "wrap it as nwbflow.blocks(iterable, shape=(None, 384), dtype='int16')",
            kind=ErrorKind.OPTION,
        )
    raise SettingsError(f"data of type {type(data).__name__} can't be stored as an array", kind=ErrorKind.OPTION)
