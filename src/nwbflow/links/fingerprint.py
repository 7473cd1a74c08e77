"""What a dataset's or raw file's content is, in 32 bytes: to notice later that it is another one.

Of chunked datasets the bytes on disk are read, not the elements: that costs no decoding, and a change of one byte
is a change. So a target that was stored anew with other chunks or filters counts as changed too.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.records import type_name
from nwbflow.model.data import Region
from nwbflow.model.layout import Shape
from nwbflow.model.links import Fingerprint
from nwbflow.sources.stored import chunk_offsets

type Method = Literal["auto", "full", "sampled"]
"""How much is read: everything, 64 blocks, or everything of what is small."""

SMALL = 64 * 2**20
"""Content up to this many bytes is read whole under ``"auto"``."""

BLOCKS = 64
"""Blocks a sample has: the first, the last, and 62 spread evenly between them."""

BLOCK_BYTES = 64 * 2**10
"""Length of a block, where the content has no chunks."""

_PIECE_BYTES = 4 * 2**20
_ADDRESS_BYTES = 16  # of an element of variable length: its length, heap and index


def fingerprint_dataset(dataset: h5py.Dataset, method: Method = "auto") -> Fingerprint:
    """Return what the content of a dataset is: shape, type and stored bytes.

    The bytes are the chunks as they are stored, with their places and filter masks, in order; else the elements in
    C order, those of virtual and raw datasets as HDF5 finds them; for text and lists the values; for references the
    paths they lead to (of region references not the region).

    Parameters
    ----------
    dataset : h5py.Dataset
        Open.
    method : {"auto", "full", "sampled"}
        Read everything; or the first, the last and 62 evenly spread chunks (blocks of 64 KiB where there are no
        chunks); or, ``"auto"``, everything up to 64 MiB and a sample of more.

    Returns
    -------
    Fingerprint
        It says which of the two was done.

    Raises
    ------
    nwbflow.errors.LinkError
        If it can't be read.
    """
    where = f"{dataset.file.filename}:{dataset.name}"
    try:
        shape = tuple(int(n) for n in dataset.shape)
        header = f"{shape} {type_name(dataset.dtype)}".encode()
        if dataset.chunks is not None and not dataset.is_virtual:
            return _of_chunks(dataset, header, method)
        return _of_elements(dataset, shape, header, method)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, LinkError):
            raise
        raise LinkError(f"{where} can't be read: {error}", kind=ErrorKind.IO) from error


def content_bytes(dataset: h5py.Dataset) -> int:
    """Return how many bytes a dataset's content is, as its fingerprint has it, without reading any.

    Parameters
    ----------
    dataset : h5py.Dataset
        Open.
    """
    if dataset.chunks is not None and not dataset.is_virtual:
        return int(dataset.id.get_storage_size())
    return math.prod(int(n) for n in dataset.shape or ()) * _item_bytes(dataset)


def fingerprint_raw(path: str | Path, offset: int, nbytes: int, method: Method = "auto") -> Fingerprint:
    """Return what a stretch of a raw file is.

    Parameters
    ----------
    path : str or pathlib.Path
        A regular file.
    offset, nbytes : int
        Where the stretch begins and how long it is, in bytes.
    method : {"auto", "full", "sampled"}
        As in :func:`fingerprint_dataset`, with blocks of 64 KiB.

    Returns
    -------
    Fingerprint
        It says how much was read.

    Raises
    ------
    nwbflow.errors.LinkError
        If the file can't be read or is too short.
    """
    path = Path(path)
    chosen = _chosen(method, nbytes)
    starts: Iterable[int]
    if chosen == "full":
        step, starts = _PIECE_BYTES, range(0, nbytes, _PIECE_BYTES)
    else:
        step, starts = BLOCK_BYTES, (n * BLOCK_BYTES for n in spread(-(-nbytes // BLOCK_BYTES)))
    try:
        size = path.stat().st_size
        if size < offset + nbytes:
            raise LinkError(
                f"{path} is too short: {size} bytes, but bytes {offset} to {offset + nbytes} are linked",
                kind=ErrorKind.LENGTH,
            )
        with path.open("rb", buffering=0) as file:
            blocks = (_exactly(file, offset + at, min(step, nbytes - at)) for at in starts)
            return _fingerprint(f"{nbytes}".encode(), blocks, chosen, nbytes)
    except LinkError:
        raise
    except OSError as error:
        raise LinkError(f"{path} can't be read: {error.strerror or error}", kind=ErrorKind.IO) from error


def spread(count: int, most: int = BLOCKS) -> list[int]:
    """Return up to `most` of the numbers below `count`: the first, the last, and others evenly between.

    Parameters
    ----------
    count : int
        Blocks there are.
    most : int
        Blocks to choose.
    """
    if count <= most:
        return list(range(count))
    return [at * (count - 1) // (most - 1) for at in range(most)]


def _exactly(file: Any, at: int, count: int) -> bytes:
    file.seek(at)
    read = bytearray()
    while len(read) < count:
        more = file.read(count - len(read))
        if not more:
            raise OSError("the file ends before what is linked does")
        read += more
    return bytes(read)


def _chosen(method: Method, nbytes: int) -> Literal["full", "sampled"]:
    if method == "auto":
        return "full" if nbytes <= SMALL else "sampled"
    return method


def _fingerprint(header: bytes, blocks: Iterable[bytes], method: str, nbytes: int) -> Fingerprint:
    digest = hashlib.blake2b(header + b"\n", digest_size=32)
    for block in blocks:
        digest.update(block)
    return Fingerprint(method=method, digest=digest.hexdigest(), nbytes=nbytes)


def _of_chunks(dataset: h5py.Dataset, header: bytes, method: Method) -> Fingerprint:
    stored = chunk_offsets(dataset)
    nbytes = content_bytes(dataset)
    chosen = _chosen(method, nbytes)
    if chosen == "sampled":
        stored = [stored[n] for n in spread(len(stored))]
    return _fingerprint(header, itertools.chain.from_iterable(_chunk(dataset, c) for c in stored), chosen, nbytes)


def _chunk(dataset: h5py.Dataset, offset: Shape) -> tuple[bytes, bytes]:
    mask, content = dataset.id.read_direct_chunk(offset)
    return f"{offset} {mask}\n".encode(), bytes(content)


def _of_elements(dataset: h5py.Dataset, shape: Shape, header: bytes, method: Method) -> Fingerprint:
    item, nbytes = _item_bytes(dataset), content_bytes(dataset)
    chosen = _chosen(method, nbytes)
    pieces = Pieces(shape, max(1, (_PIECE_BYTES if chosen == "full" else BLOCK_BYTES) // item))
    wanted = range(len(pieces)) if chosen == "full" else spread(len(pieces))
    blocks = (element_bytes(dataset, dataset[pieces[n]]) for n in wanted)
    return _fingerprint(header, blocks, chosen, nbytes)


def _item_bytes(dataset: h5py.Dataset) -> int:
    return _ADDRESS_BYTES if dataset.dtype.hasobject else int(dataset.dtype.itemsize)


class Pieces(Sequence[Region]):
    """An array cut into boxes whose elements lie one after the other in C order.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    most : int
        Elements a box may have; at least 1.
    """

    def __init__(self, shape: Shape, most: int) -> None:
        self._shape = shape
        axis = len(shape)
        while axis and math.prod(shape[axis - 1 :]) <= most:
            axis -= 1
        self._axis = axis  # the boxes are whole behind it, and one element long before it
        self._empty = 0 in shape
        if axis and not self._empty:
            self._run = max(1, most // math.prod(shape[axis:]))
            self._counts = (*shape[: axis - 1], -(-shape[axis - 1] // self._run))

    def __len__(self) -> int:
        if self._empty:
            return 0
        return math.prod(self._counts) if self._axis else 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        whole = tuple(slice(0, n) for n in self._shape[self._axis :])
        if not self._axis:
            return whole
        *before, run = (int(n) for n in np.unravel_index(index, self._counts))
        start = run * self._run
        cut = slice(start, min(start + self._run, self._shape[self._axis - 1]))
        return (*(slice(n, n + 1) for n in before), cut, *whole)

    def __iter__(self) -> Iterator[Region]:
        return (self[n] for n in range(len(self)))


def element_bytes(dataset: h5py.Dataset, values: Any) -> bytes:
    """Return elements as bytes; of those that are objects in memory what they say, each with its length.

    Parameters
    ----------
    dataset : h5py.Dataset
        What they are from.
    values : array
        As h5py gives them.
    """
    array = np.asarray(values, dtype=dataset.dtype)
    if not array.dtype.hasobject:
        return array.tobytes()
    return b"".join(_bytes_of_object(dataset, item) for item in array.reshape(-1))


def _bytes_of_object(dataset: h5py.Dataset, value: Any) -> bytes:
    if isinstance(value, np.void):
        return b"".join(_bytes_of_object(dataset, value[name]) for name in value.dtype.names or ())
    if isinstance(value, h5py.Reference):
        value = str(dataset.file[value].name) if value else ""
    content = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else _flat(value)
    return f"{len(content)}:".encode() + content


def _flat(value: Any) -> bytes:
    array = np.asarray(value)
    return array.tobytes() if not array.dtype.hasobject else repr(array.tolist()).encode()
