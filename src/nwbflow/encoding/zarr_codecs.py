"""HDF5's filters as Zarr v3 codecs, and chunks encoded with them, outside zarr-python.

Users name codecs once, for both backends; what they ask for is a pipeline of HDF5's filters
(:mod:`nwbflow.encoding.codecs`). Only codecs that every Zarr v3 reader has are used for them:
``gzip``, ``zstd``, ``blosc`` and ``crc32c`` (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/).
Zarr has no byte or bit shuffle of its own that all read; Blosc has both, so shuffled data go into Blosc.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nwbflow.encoding import plugin_names as names
from nwbflow.encoding.checksum import crc32
from nwbflow.encoding.deflate import check_effort, deflate
from nwbflow.encoding.shuffle import shuffle
from nwbflow.errors import ErrorKind, SettingsError, SourceError
from nwbflow.model.data import Array
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Filter, Layout

BLOSC_BLOCK = 2**20
"""Bytes Blosc shuffles and compresses at a time. Its own choice, a quarter of that and less, gives larger chunks
(by 6% for recordings) more slowly."""

_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
_ZLIB, _ZSTD, _LZ4 = (names.BLOSC_COMPRESSORS.index(name) for name in ("zlib", "zstd", "lz4"))
_WAYS = "use 'gzip', 'zstd', 'lz4', 'blosc' or 'bitshuffle', or write an HDF5 file"


def crc32c(data: bytes | memoryview) -> bytes:
    """Return the CRC-32C of `data` as Zarr stores it: 4 bytes, little-endian."""
    import google_crc32c

    return int(google_crc32c.value(bytes(data))).to_bytes(4, "little")


def blosc(compressor: int, level: int, shuffled: int, itemsize: int, block: int = BLOSC_BLOCK) -> Filter:
    """Return Blosc with these settings; the fields are HDF5's, with the block size behind them."""
    return Filter(names.BLOSC, (2, 2, itemsize, 0, level, shuffled, compressor, block))


def bit_shuffled(compressor: str, level: int, itemsize: int) -> tuple[Filter, ...]:
    """Return the pipeline that suits recordings best: bits sorted by their place, then ``zstd`` or ``lz4``."""
    return (blosc(names.BLOSC_COMPRESSORS.index(compressor), level, 2, itemsize),)


def zarr_filters(filters: Sequence[Filter], itemsize: int) -> tuple[tuple[Filter, ...], tuple[str, ...]]:
    """Return what stands for a pipeline of HDF5's filters in Zarr.

    Parameters
    ----------
    filters : sequence of Filter
        As requested for HDF5, in writing order.
    itemsize : int
        Bytes of one element.

    Returns
    -------
    filters : tuple of Filter
        The pipeline in Zarr: Blosc, gzip, Zstandard, CRC-32C.
    notes : tuple of str
        Where something else is used than was asked for.

    Raises
    ------
    SettingsError
        Kind ``CODEC``: Zarr v3 has no codec for it that all readers have.
    """
    found: list[Filter] = []
    notes: list[str] = []
    shuffled = False
    for item in filters:
        if found and item.id not in (names.FLETCHER32, names.CRC32C):
            raise _error(f"{names.describe(tuple(filters))!r}: Zarr takes one compression, with a shuffle before it")
        if item.id == names.SHUFFLE:
            shuffled = itemsize > 1
        elif item.id in (names.FLETCHER32, names.CRC32C):
            found.append(Filter(names.CRC32C))
        else:
            made, note = _compression(item, shuffled, itemsize)
            shuffled = False
            found += made
            notes += [note] if note else []
    if shuffled:
        raise _error("a shuffle without a compression after it changes nothing, and Zarr has none by itself")
    return tuple(found), tuple(notes)


def hdf5_filters(filters: Sequence[Filter], itemsize: int) -> tuple[tuple[Filter, ...], tuple[str, ...]]:
    """Return what stands for a pipeline of a Zarr array in an HDF5 file that any reader opens.

    Parameters
    ----------
    filters : sequence of Filter
        As :func:`from_metadata` gives them.
    itemsize : int
        Bytes of one element.

    Returns
    -------
    filters : tuple of Filter
        Of shuffle, gzip and Fletcher-32.
    notes : tuple of str
        Where something else is used than the array has: nothing but the checksum is another one.

    Raises
    ------
    SettingsError
        Kind ``CODEC``: HDF5 has that without plugins only as another codec.
    """
    found: list[Filter] = []
    for item in filters:
        if item.id == names.CRC32C:
            found.append(Filter(names.FLETCHER32))
        elif item.id == names.DEFLATE:
            found.append(item)
        elif item.id == names.BLOSC and item.options[6] == _ZLIB and item.options[5] < 2:
            found += [Filter(names.SHUFFLE, (itemsize,))] if item.options[5] and itemsize > 1 else []
            found.append(Filter(names.DEFLATE, (item.options[4],)))
        else:
            raise _error(f"codec {names.describe((item,))!r} needs a plugin in HDF5")
    return tuple(found), ("its CRC-32C is a Fletcher-32 in HDF5",) if Filter(names.CRC32C) in filters else ()


def _compression(item: Filter, shuffled: bool, itemsize: int) -> tuple[list[Filter], str]:
    sorting = 1 if shuffled else 0
    if item.id == names.DEFLATE:
        level = item.options[0] if item.options else 4
        return [blosc(_ZLIB, level, 1, itemsize, 0) if shuffled else Filter(names.DEFLATE, (level,))], ""
    if item.id == names.ZSTD:
        level = _signed(item.options[0]) if item.options else 3
        if not shuffled:
            return [Filter(names.ZSTD, (level & 0xFFFFFFFF,))], ""
        return [blosc(_ZSTD, min(9, max(1, level)), 1, itemsize)], _capped("zstd", level)
    if item.id == names.LZ4:
        return [blosc(_LZ4, 5, sorting, itemsize)], ""
    if item.id == names.BITSHUFFLE:
        return _bitshuffle(item, itemsize)
    if item.id in (names.BLOSC, names.BLOSC2):
        return _blosc(item, shuffled, itemsize)
    raise _error(f"codec {names.describe((item,))!r} has no counterpart in Zarr that all readers know")


def _bitshuffle(item: Filter, itemsize: int) -> tuple[list[Filter], str]:
    own = item.options if len(item.options) < 5 else item.options[3:]
    kind = names.BITSHUFFLE_COMPRESSORS.get(own[1] if len(own) > 1 else 2, "")
    if not kind:
        raise _error("bitshuffle without a compression after it is none of Zarr's; give cname='lz4' or cname='zstd'")
    level = own[2] if len(own) > 2 else 5 if kind == "lz4" else 3
    code = names.BLOSC_COMPRESSORS.index(kind)
    return [blosc(code, min(9, max(1, level)), 2, itemsize)], _capped("bitshuffle", level)


def _blosc(item: Filter, shuffled: bool, itemsize: int) -> tuple[list[Filter], str]:
    level, own, code = names.blosc_settings(item.options)
    if code >= len(names.BLOSC_COMPRESSORS) or names.BLOSC_COMPRESSORS[code] == "snappy" or own > 2 or shuffled:
        raise _error(f"codec {names.describe((item,))!r} can't be had in Zarr as it is")
    block = item.options[7] if item.id == names.BLOSC and len(item.options) > 7 else BLOSC_BLOCK
    note = "Zarr has no Blosc 2; the same settings are used with Blosc" if item.id == names.BLOSC2 else ""
    return [blosc(code, level, own, itemsize, block)], note


def _capped(codec: str, level: int) -> str:
    return f"{codec} level {level} is {min(9, max(1, level))} in Zarr's Blosc" if not 1 <= level <= 9 else ""


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _error(message: str) -> SettingsError:
    return SettingsError(f"{message}; {_WAYS}", kind=ErrorKind.CODEC)


def to_metadata(filters: Sequence[Filter]) -> list[dict[str, Any]]:
    """Return the codecs as Zarr's metadata have them, those behind ``bytes``; :func:`from_metadata` reverses it."""
    made: list[dict[str, Any]] = []
    for item in filters:
        if item.id == names.CRC32C:
            made.append({"name": "crc32c"})
        elif item.id == names.DEFLATE:
            made.append({"name": "gzip", "configuration": {"level": item.options[0]}})
        elif item.id == names.ZSTD:
            made.append(
                {"name": "zstd", "configuration": {"level": _signed(item.options[0]), "checksum": False}},
            )
        else:
            _, _, itemsize, _, level, sorting, code, block = item.options
            settings = {"cname": names.BLOSC_COMPRESSORS[code], "clevel": level, "shuffle": _SHUFFLES[sorting]}
            made.append({"name": "blosc", "configuration": {**settings, "typesize": itemsize, "blocksize": block}})
    return made


def from_metadata(codecs: Sequence[Mapping[str, Any]], itemsize: int) -> tuple[Filter, ...]:
    """Return what an array's codecs are; ``ZARR_OTHER`` stands for a pipeline that zarr-python has to run.

    Parameters
    ----------
    codecs : sequence of mapping
        ``name`` and ``configuration`` of every codec, ``bytes`` included.
    itemsize : int
        Bytes of one element.
    """
    foreign = (Filter(names.ZARR_OTHER),)
    if not codecs or codecs[0]["name"] != "bytes":
        return foreign
    if itemsize > 1 and codecs[0].get("configuration", {}).get("endian", "little") != "little":
        return foreign
    found: list[Filter] = []
    for codec in codecs[1:]:
        item = _known(codec["name"], codec.get("configuration", {}), itemsize)
        if item is None:
            return foreign
        found.append(item)
    return tuple(found)


def _known(name: str, settings: Mapping[str, Any], itemsize: int) -> Filter | None:
    if name == "crc32c":
        return Filter(names.CRC32C)
    if name == "gzip":
        return Filter(names.DEFLATE, (int(settings["level"]),))
    if name == "zstd" and not settings.get("checksum", False):
        return Filter(names.ZSTD, (int(settings["level"]) & 0xFFFFFFFF,))
    if name == "blosc" and settings["cname"] in names.BLOSC_COMPRESSORS and settings["shuffle"] in _SHUFFLES:
        code, sorting = names.BLOSC_COMPRESSORS.index(settings["cname"]), _SHUFFLES.index(settings["shuffle"])
        size = settings.get("typesize") or itemsize
        return blosc(code, int(settings["clevel"]), sorting, int(size), int(settings.get("blocksize", 0)))
    return None


type _Step = Callable[[Any], Any]


@dataclass(frozen=True)
class ZarrEncoder:
    """Encodes the chunks of one Zarr array; made by :func:`zarr_encoder`. Thread-safe and picklable.

    Parameters
    ----------
    layout : Layout
        The array's dtype, chunks and codecs.
    effort : int, str or None
        Effort of deflate; ``None`` is the level recorded with the codec.
    """

    layout: Layout
    effort: int | str | None = None
    _steps: tuple[_Step, ...] = field(default=(), repr=False, compare=False)

    def encode(self, chunk: Array, /) -> Encoded:
        """Return the chunk as it is stored.

        Parameters
        ----------
        chunk : numpy.ndarray
            One full-size chunk of the layout's dtype; views with any strides are fine.

        Returns
        -------
        Encoded
            Owns its memory.

        Raises
        ------
        SourceError
            If `chunk` is of another shape or dtype than the layout's chunks.
        """
        if chunk.shape != self.layout.chunks or chunk.dtype != self.layout.dtype:
            raise SourceError(
                f"a chunk of {chunk.dtype} {chunk.shape} was given to the encoder of chunks of {self.layout.dtype} "
                f"{self.layout.chunks}",
                kind=ErrorKind.SHAPE,
            )
        little = chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)
        data: Any = np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
        source = data
        for step in self._steps:
            data = step(data)
        return Encoded(bytes(data) if data is source else data)

    def __reduce__(self) -> tuple[object, ...]:
        return (zarr_encoder, (self.layout, self.effort))


def zarr_encoder(layout: Layout, effort: int | str | None = None) -> ZarrEncoder | None:
    """Return an encoder for an array's chunks; ``None`` if zarr-python itself has to run one of the codecs.

    Parameters
    ----------
    layout : Layout
        As read back from the store.
    effort : int, str or None
        How hard deflate tries (:func:`nwbflow.encoding.deflate.deflate`); ``None`` is the level of the codec.

    Raises
    ------
    SettingsError
        If there is no such effort.
    """
    if effort is not None:
        check_effort(effort)
    if layout.chunks is None or any(item.id == names.ZARR_OTHER for item in layout.filters):
        return None
    return ZarrEncoder(layout, effort, tuple(_step(item, effort) for item in layout.filters))


def _step(item: Filter, effort: int | str | None) -> _Step:
    if item.id == names.CRC32C:
        return lambda data: bytes(data) + crc32c(data)
    level = effort if effort is not None else item.options[0]
    if item.id == names.DEFLATE:
        return lambda data: _gzip(data, level)
    if item.id == names.ZSTD:
        import numcodecs.zstd

        return lambda data: numcodecs.zstd.compress(data, _signed(item.options[0]))
    _, _, itemsize, _, own, sorting, code, block = item.options
    if code == _ZLIB and sorting == 1 and own > 0:
        return lambda data: _blosc_zlib(data, itemsize, own if effort is None else effort)
    import numcodecs.blosc

    # Outside the main thread this does without Blosc's global state, and without the GIL.
    name = names.BLOSC_COMPRESSORS[code].encode()
    return lambda data: numcodecs.blosc.compress(data, name, own, sorting, block, itemsize)


def _gzip(data: Any, effort: int | str) -> bytes:
    """Return a gzip member (:rfc:`1952`) around what :func:`deflate` makes."""
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    tail = struct.pack("<II", crc32(data), memoryview(data).nbytes & 0xFFFFFFFF)
    return head + deflate(data, effort=effort)[2:-4] + tail


def _blosc_zlib(data: Any, itemsize: int, effort: int | str) -> bytes:
    """Return a Blosc buffer of one block that holds shuffled bytes, deflated by :func:`deflate`.

    Blosc's own zlib is several times slower. The format is README_CHUNK_FORMAT.rst of c-blosc 1.21: header, where
    the blocks start, then each block's length and bytes.
    """
    size = memoryview(data).nbytes
    body = deflate(shuffle(data, itemsize), planes=itemsize, effort=effort)
    head = struct.Struct("<4B3i")
    if len(body) >= size:
        return head.pack(2, 1, 2, itemsize, size, size, size + head.size) + bytes(data)
    flags = 0x01 | 0x10 | 3 << 5  # byte shuffle, one stream a block, zlib
    length = head.size + 8 + len(body)
    return head.pack(2, 1, flags, itemsize, size, size, length) + struct.pack("<ii", head.size + 4, len(body)) + body
