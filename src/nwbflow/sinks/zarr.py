"""One Zarr array being filled, and what its metadata say."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from nwbflow.encoding.zarr_codecs import from_metadata
from nwbflow.errors import ErrorKind, SourceError, VerifyError
from nwbflow.model.data import Array, Region
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Layout, MaxShape, Shape
from nwbflow.planning.grid import grid_shape, iter_offsets
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.objects import objects_of
from nwbflow.sinks.shards import ABSENT, index_bytes, parse_index, shard_parts

_SUMMED_INDEX = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]

type _Offset = tuple[int, ...]


class ZarrSink:
    """Stores chunks of one open Zarr array; chunks of one shard are collected and written together.

    Parameters
    ----------
    array : zarr.Array
        Created, empty or not; its store open for writing.
    limit : tuple of int or None
        How long the axes will be at most, in elements; tells when a shard at the edge is complete.
    room : int
        Bytes of encoded chunks that may wait for their shards to become complete. Beyond it the shard that waits
        longest is written as it is, and once more when the rest of it comes.
    """

    backend = "zarr-python"

    def __init__(self, array: zarr.Array[Any], *, limit: MaxShape, room: int) -> None:
        self._array = array
        self._name = "/" + array.path.strip("/")
        self._layout = layout_of_array(array)
        self._objects = objects_of(array.store, array.path)
        self._limit = limit
        self._room = room
        self._shape: Shape = self._layout.shape
        self._open: OrderedDict[_Offset, dict[int, Any]] = OrderedDict()
        self._changed: set[_Offset] = set()
        self._waiting = 0
        self._uncounted = False
        self._sizes: dict[_Offset, int] = {}
        self._index: tuple[_Offset, Any] | None = None
        chunks = self._layout.chunks or self._shape
        self._grid = (1,) * len(chunks)
        if self._layout.shards is not None:
            self._grid = grid_shape(self._layout.shards, chunks)

    @property
    def layout(self) -> Layout:
        """What was really created."""
        return self._layout

    @property
    def shape(self) -> Shape:
        """The array's present shape; in the store from the next :meth:`flush` on."""
        return self._shape

    @property
    def stored_bytes(self) -> int:
        """Bytes of the objects stored so far, and of the chunks that wait for their shards."""
        if self._uncounted:
            units = self._layout.shards or self._layout.chunks or self._shape
            places = np.ndindex(*grid_shape(self._shape, units))
            self._sizes = {at: self._objects.size(self._key(at)) for at in places}
            self._uncounted = False
        return sum(self._sizes.values()) + sum(
            memoryview(part).nbytes for at in self._changed for part in self._open[at].values()
        )

    def put(self, offset: _Offset, chunk: Encoded, /) -> None:
        """Store one encoded chunk, or keep it until its shard is complete."""
        at, number = self._place(offset)
        with translated(self._name, f"storing the chunk at {offset}"):
            if self._layout.shards is None:
                self._sizes[at] = self._objects.put(self._key(at), [chunk.data])
                return
            shard = self._open.get(at)
            if shard is None:
                shard = self._open[at] = self._reload(at)
            self._waiting += memoryview(chunk.data).nbytes - memoryview(shard.get(number, b"")).nbytes
            shard[number] = chunk.data
            self._changed.add(at)
            if len(shard) >= self._complete(at):
                self._close(at)
            while self._waiting > self._room and self._open:
                self._close(next(iter(self._open)))

    def get(self, offset: _Offset, /) -> bytes:
        """Return the stored bytes of the chunk at `offset`, from the store.

        Raises
        ------
        VerifyError
            If the shard's own index is damaged, or the chunk is not there.
        """
        found = self.find(offset)
        if found is None:
            raise VerifyError(
                f"{self._name}: the chunk at {offset} is not in the store any more. Write again, to another disk if "
                "it recurs",
                kind=ErrorKind.MISMATCH,
            )
        return found

    def find(self, offset: _Offset, /) -> bytes | None:
        """Return the stored bytes of the chunk at `offset`, from the store; ``None`` if there is none."""
        at, number = self._place(offset)
        with translated(self._name, f"reading back the chunk at {offset}"):
            if at in self._changed:
                self._write(at)
            if self._layout.shards is None:
                return self._objects.get(self._key(at))
            if not self._objects.size(self._key(at)):
                return None
            place, size = (int(n) for n in self._index_of(at)[number])
            return None if place == ABSENT else self._objects.get(self._key(at), place, size)

    def write(self, region: Region, data: Array, /) -> None:
        """Store decoded elements through zarr-python."""
        with translated(self._name, f"storing {region}"):
            self.flush()
            self._array[region] = data
            units = self._layout.shards or self._layout.chunks or self._shape
            first = tuple(s.start // n for s, n in zip(region, units, strict=True))
            last = tuple((s.stop - 1) // n for s, n in zip(region, units, strict=True))
            for index in np.ndindex(*(b - a + 1 for a, b in zip(first, last, strict=True))):
                at = tuple(int(a + i) for a, i in zip(first, index, strict=True))
                self._sizes[at] = self._objects.size(self._key(at))
            self._index = None

    def scatter(self, selection: Any, data: Array, /) -> None:
        """Store decoded elements at any selection numpy understands."""
        try:
            with translated(self._name, f"storing {selection}"):
                self.flush()
                self._forget()
                self._uncounted = True
                if isinstance(selection, np.ndarray) and selection.dtype == bool and selection.ndim > 1:
                    full = np.zeros(self._shape, bool)
                    full[tuple(slice(0, n) for n in selection.shape)] = selection
                    self._array.set_mask_selection(full, data.reshape(-1))
                else:
                    self._array.set_orthogonal_selection(selection, data)
        except (TypeError, IndexError) as error:
            raise SourceError(
                f"{self._name}: data of shape {data.shape} can't be stored at {selection}: {error}",
                kind=ErrorKind.SHAPE,
            ) from error

    def read(self, region: Region, /) -> Array:
        """Return decoded elements through zarr-python."""
        with translated(self._name, f"reading back {region}"):
            self.flush()
            return np.asarray(self._array[region])

    def resize(self, shape: Shape, /) -> None:
        """Set the array's present shape; the store learns of it in :meth:`flush`."""
        self._shape = shape

    def flush(self) -> None:
        """Bring everything into the store: incomplete shards, and the shape.

        Raises
        ------
        StorageError
            If that fails.
        """
        with translated(self._name, "storing shards and shape"):
            for at in sorted(self._changed):
                self._write(at)
            if self._shape != tuple(self._array.shape):
                self._array.resize(self._shape)

    def _place(self, offset: _Offset) -> tuple[_Offset, int]:
        """Return which object a chunk belongs to, and its number there."""
        chunks = self._layout.chunks or self._shape
        index = tuple(o // c for o, c in zip(offset, chunks, strict=True))
        at = tuple(i // n for i, n in zip(index, self._grid, strict=True))
        within = tuple(i % n for i, n in zip(index, self._grid, strict=True))
        return at, int(np.ravel_multi_index(within, self._grid))

    def _key(self, at: _Offset) -> str:
        return str(self._array.metadata.encode_chunk_key(at))

    def _complete(self, at: _Offset) -> int:
        """Return how many chunks of a shard will come."""
        shards, chunks = self._layout.shards or (), self._layout.chunks or ()
        ends = (n if n is None else n - i * s for i, s, n in zip(at, shards, self._limit, strict=True))
        lengths = (s if end is None else min(s, end) for s, end in zip(shards, ends, strict=True))
        return math.prod(max(0, -(-n // c)) for n, c in zip(lengths, chunks, strict=True)) or math.prod(self._grid)

    def _close(self, at: _Offset) -> None:
        if at in self._changed:
            self._write(at)
        self._waiting -= sum(memoryview(part).nbytes for part in self._open.pop(at).values())

    def _write(self, at: _Offset) -> None:
        self._sizes[at] = self._objects.put(self._key(at), shard_parts(self._open[at], math.prod(self._grid)))
        self._changed.discard(at)
        self._index = None

    def _forget(self) -> None:
        """Let go of what is in the store, before somebody else changes it there."""
        self._open.clear()
        self._waiting = 0
        self._index = None

    def _reload(self, at: _Offset) -> dict[int, Any]:
        """Return the chunks of a shard that was stored before."""
        whole = self._objects.get(self._key(at))
        count = math.prod(self._grid)
        if whole is None:
            return {}
        index = parse_index(whole[-index_bytes(count) :], count)
        if index is None:  # writing it anew would lose what is in it
            raise self._damaged(at)
        chunks = {
            number: whole[int(place) : int(place + size)]
            for number, (place, size) in enumerate(index)
            if int(place) != ABSENT
        }
        self._waiting += sum(map(len, chunks.values()))
        return chunks

    def _damaged(self, at: _Offset) -> VerifyError:
        return VerifyError(
            f"{self._name}: the index of the shard {self._key(at)} reads back different from what was stored. "
            "Write again, to another disk if it recurs",
            kind=ErrorKind.MISMATCH,
        )

    def _index_of(self, at: _Offset) -> Any:
        if self._index is None or self._index[0] != at:
            count = math.prod(self._grid)
            found = self._objects.get(self._key(at), -index_bytes(count))
            index = None if found is None else parse_index(found, count)
            if index is None:
                raise self._damaged(at)
            self._index = (at, index)
        return self._index[1]


class StoredArray:
    """An array of a store as a source, which also gives its chunks as they are stored.

    Parameters
    ----------
    array : zarr.Array
        Of Zarr v3.
    """

    in_memory = False

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        self._sink = ZarrSink(array, limit=tuple(int(n) for n in array.shape), room=0)

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self._sink.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._sink.layout.dtype

    @property
    def layout(self) -> Layout:
        """How it lies in its store."""
        return self._sink.layout

    def read(self, region: Region, /) -> Array:
        """Return decoded elements."""
        return np.asarray(self._array[region])

    def chunks(self) -> Iterator[tuple[_Offset, Encoded]]:
        """Give every stored chunk with its offset; those never written are left out."""
        for offset in iter_offsets(self.shape, self.layout.chunks or self.shape):
            found = self._sink.find(offset)
            if found is not None:
                yield offset, Encoded(found)


def layout_of_array(array: zarr.Array[Any]) -> Layout:
    """Return how an existing array lies in its store."""
    dtype = np.dtype(array.dtype)
    metadata = array.metadata.to_dict()
    codecs: Any = metadata.get("codecs", ())
    shards = array.shards
    chunks = tuple(int(n) for n in array.chunks)
    if shards is not None:
        settings = codecs[0].get("configuration", {}) if len(codecs) == 1 else {}
        usual = settings.get("index_location", "end") == "end" and _plain(settings.get("index_codecs")) == _SUMMED_INDEX
        codecs = settings.get("codecs", ()) if usual else ()
    fill = np.asarray(array.fill_value).item() if dtype.kind in "biuf" else None
    shape = tuple(int(n) for n in array.shape)
    return Layout(
        shape=shape,
        maxshape=(None,) * len(shape),  # every axis may grow
        dtype=dtype,
        chunks=chunks,
        filters=from_metadata(_plain(codecs), dtype.itemsize),
        fillvalue=fill or None,
        shards=None if shards is None else tuple(int(n) for n in shards),
    )


def _plain(codecs: Any) -> list[dict[str, Any]]:
    return [dict(codec) for codec in codecs or ()]


def try_array_layout(create: Mapping[str, Any]) -> Layout:
    """Return the layout zarr-python gives an array created with `create`, without touching any store.

    Parameters
    ----------
    create : mapping
        Keyword arguments of :meth:`zarr.Group.create_array`.
    """
    return layout_of_array(zarr.create_array(MemoryStore(), **create))
