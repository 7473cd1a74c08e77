"""Elements from one dataset to another: stored chunks as they are, everything else piece by piece."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import h5py
import numpy as np
from h5py import h5d, h5o, h5p, h5z

from nwbflow.errors import ErrorKind, LinkError, VerifyError
from nwbflow.links.fingerprint import Pieces, element_bytes
from nwbflow.model.data import Region
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Shape
from nwbflow.sources.stored import stored_chunks
from nwbflow.tools.links.elements import has_objects, read, write
from nwbflow.tools.links.recreate import name_list, no_cache

_PIECE_BYTES = 4 * 2**20
_ADDRESS_BYTES = 16


class Blocks(Protocol):
    """How elements are copied, and compared afterwards."""

    def copy(self, target: h5py.Dataset) -> bytes:
        """Store the elements; return a digest of what was read."""
        ...

    def digest(self, target: h5py.Dataset) -> bytes:
        """Return the same of what is stored."""
        ...


@dataclass(frozen=True, slots=True)
class StoredChunks:
    """The chunks of a dataset as they are stored.

    Parameters
    ----------
    source : h5py.Dataset
        Chunked.
    """

    source: h5py.Dataset

    def copy(self, target: h5py.Dataset) -> bytes:
        """Store the chunks without decoding them."""
        digest = hashlib.blake2b()
        for offset, encoded in _stored(self.source):
            data = bytes(encoded.data)
            target.id.write_direct_chunk(offset, data, encoded.filter_mask)
            digest.update(f"{offset} {encoded.filter_mask}\n".encode() + data)
        return digest.digest()

    def digest(self, target: h5py.Dataset) -> bytes:
        """Read the chunks back."""
        digest = hashlib.blake2b()
        for offset, encoded in _stored(target):
            digest.update(f"{offset} {encoded.filter_mask}\n".encode() + bytes(encoded.data))
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of a dataset, through HDF5.

    Parameters
    ----------
    source : h5py.Dataset
        Any.
    """

    source: h5py.Dataset

    def copy(self, target: h5py.Dataset) -> bytes:
        """Store the elements, in whole chunks if the target has chunks."""
        return self._run(self.source, target, target)

    def digest(self, target: h5py.Dataset) -> bytes:
        """Read the elements back."""
        return self._run(target, target, None)

    def _run(self, source: h5py.Dataset, like: h5py.Dataset, target: h5py.Dataset | None) -> bytes:
        digest = hashlib.blake2b()
        objects = has_objects(source.id.get_type())
        for region in regions(like):
            with _reading(source):
                values = read(source, region)
            digest.update(element_bytes(source, values) if objects else values.tobytes())
            if target is not None:
                write(target, region, values)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a raw file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    offset, nbytes : int
        Where they are.
    """

    path: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class RawBytes:
    """The bytes of raw files, one after the other.

    Parameters
    ----------
    stretches : sequence of Stretch
        As many bytes as the dataset has.
    """

    stretches: Sequence[Stretch]

    def copy(self, target: h5py.Dataset) -> bytes:
        """Store the bytes as elements in C order."""
        digest = hashlib.blake2b()
        item = target.id.get_type().get_size()
        reader = self._read()
        next(reader)
        for region in regions(target):
            shape = tuple(s.stop - s.start for s in region)
            data = reader.send(math.prod(shape) * item)
            digest.update(data)
            write(target, region, np.frombuffer(data, f"V{item}").reshape(shape))
        return digest.digest()

    def digest(self, target: h5py.Dataset) -> bytes:
        """Read the elements back."""
        return Elements(target).digest(target)

    def _read(self) -> Any:
        """Give as many bytes as are asked for, through all stretches."""
        found = b""
        wanted = yield found
        for stretch in self.stretches:
            with _opened(stretch.path) as file:
                file.seek(stretch.offset)
                left = stretch.nbytes
                while left:
                    data = file.read(min(left, wanted - len(found)))
                    if not data:
                        raise LinkError(f"{stretch.path} became shorter while it was read", kind=ErrorKind.LENGTH)
                    left -= len(data)
                    found += data
                    if len(found) == wanted:
                        wanted = yield found
                        found = b""


@contextmanager
def _reading(dataset: h5py.Dataset) -> Iterator[None]:
    """Tell a source that can't be read from a disk that can't be written."""
    try:
        yield
        os.close(os.open(os.devnull, os.O_RDONLY))  # sources that HDF5 could not open for want of handles are no error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        out = "; let more files be open at once: ulimit -n 65536" if "Too many open files" in str(error) else ""
        text = f"{dataset.file.filename}:{dataset.name} can't be read: {error}{out}"
        raise LinkError(text, kind=ErrorKind.IO) from error


def _stored(dataset: h5py.Dataset) -> Iterator[tuple[Shape, Encoded]]:
    with _reading(dataset):
        yield from stored_chunks(dataset)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise LinkError(f"{path} can't be read: {error.strerror or error}", kind=ErrorKind.IO) from error


def regions(dataset: h5py.Dataset) -> Iterator[Region]:
    """Cut a dataset: into its chunks if it has any, else into pieces of 4 MiB that follow each other.

    Parameters
    ----------
    dataset : h5py.Dataset
        Not without a shape.
    """
    shape: Shape = tuple(int(n) for n in dataset.shape)
    if dataset.chunks is None:
        kind = dataset.id.get_type()
        item = _ADDRESS_BYTES if has_objects(kind) else max(1, kind.get_size())
        yield from Pieces(shape, max(1, _PIECE_BYTES // item))
        return
    starts = (range(0, n, c) for n, c in zip(shape, dataset.chunks, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(a + c, n)) for a, c, n in zip(corner, dataset.chunks, shape, strict=True))


def verify_copy(blocks: Blocks, target: h5py.Dataset, digest: bytes) -> None:
    """Read back what was stored.

    Parameters
    ----------
    blocks : Blocks
        What copied it.
    target : h5py.Dataset
        The copy, in its file opened anew.
    digest : bytes
        Of what was read from the source.

    Raises
    ------
    nwbflow.errors.VerifyError
        If it differs.
    """
    if blocks.digest(target) != digest:
        raise VerifyError(
            f"{target.name}: what was read back differs from what was read from its source; nothing was replaced. Try "
            "again, and look into the disk and the memory of this machine if it happens again",
            kind=ErrorKind.MISMATCH,
        )


def create_like(source: h5py.Dataset, parent: h5py.Group, name: bytes) -> tuple[h5py.Dataset, Blocks | None]:
    """Make a dataset like one of another file, without attributes and elements.

    Parameters
    ----------
    source : h5py.Dataset
        With its elements in its own file.
    parent : h5py.Group
        Where it is to be.
    name : bytes
        Its name there.

    Returns
    -------
    dataset : h5py.Dataset
        The same shape, type, chunks, filters and fill value.
    blocks : Blocks or None
        What copies the elements; ``None`` if there are none.
    """
    kind = source.id.get_type().copy()  # of a committed type, what it says
    settings = (source.id.get_create_plist(), name_list(name), no_cache())
    dataset = h5py.Dataset(h5d.create(parent.id, name, kind, source.id.get_space(), *settings))
    if source.shape is None:
        return dataset, None
    return dataset, StoredChunks(source) if source.chunks is not None and not has_objects(kind) else Elements(source)


def can_be_filtered(dataset: h5py.Dataset) -> bool:
    """Return whether all filters of a dataset can be used here.

    Parameters
    ----------
    dataset : h5py.Dataset
        Any.
    """
    settings = dataset.id.get_create_plist()
    return all(h5z.filter_avail(settings.get_filter(index)[0]) for index in range(settings.get_nfilters()))


def copy_whole(source: h5py.Dataset, parent: h5py.Group, name: bytes) -> None:
    """Have HDF5 copy a dataset with its attributes: it needs no filter for that, but can't be interrupted.

    Parameters
    ----------
    source : h5py.Dataset
        In another file.
    parent : h5py.Group
        Where it is to be.
    name : bytes
        Its name there.
    """
    h5o.copy(source.id, b".", parent.id, name, h5p.create(h5p.OBJECT_COPY), name_list(name))
