"""Making the finished file of a recording without a journal: out of the chunks of its partial file, as they are."""

from __future__ import annotations

import math
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from pathlib import Path

import h5py
import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.errors import ErrorKind, StorageError, VerifyError
from nwbflow.model.data import Array
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Layout
from nwbflow.model.receipt import DatasetReceipt
from nwbflow.record.build import Built, no_room, open_structure
from nwbflow.record.filling import live_encoder
from nwbflow.record.folder import JournalFolder, copy_synced, remove
from nwbflow.record.ledger import StoredChunk, read_ledger
from nwbflow.record.manifest import LiveDataset, Manifest
from nwbflow.sinks.hdf5 import Hdf5Sink, translated
from nwbflow.sinks.staging import abandon

REBUILDING = ".recovering"
"""What the new file is called, behind its name, until it is put in place."""


@dataclass(slots=True)
class _Copy:
    """One dataset of the new file, and what must be in it."""

    spec: LiveDataset
    chunks: Sequence[StoredChunk]
    dataset: h5py.Dataset
    rows: int = 0
    crcs: array[int] = field(default_factory=lambda: array("I"))
    stored_bytes: int = 0
    edge: Array | None = None
    """The rows of the last row of chunks, if it was cut: HDF5 has stored them anew."""

    @property
    def height(self) -> int:
        return (self.spec.layout.chunks or (1,))[0]

    @property
    def width(self) -> int:
        """Chunks in a row of chunks."""
        lengths = zip(self.spec.row_shape, (self.spec.layout.chunks or ())[1:], strict=True)
        return math.prod(-(-n // c) for n, c in lengths)

    @property
    def whole(self) -> int:
        """Rows that were taken over as they were stored."""
        return self.rows if self.edge is None else self.rows - len(self.edge)

    @property
    def layout(self) -> Layout:
        return replace(self.spec.layout, shape=(self.rows, *self.spec.row_shape))

    def offsets(self) -> Iterator[tuple[int, ...]]:
        """Give the place of every chunk, in storage order."""
        bands = len(self.chunks) // self.width
        axes = zip(self.spec.row_shape, (self.spec.layout.chunks or ())[1:], strict=True)
        return product(range(0, bands * self.height, self.height), *(range(0, n, c) for n, c in axes))


def rebuild(folder: JournalFolder, manifest: Manifest, partial: Path, path: Path) -> Built:
    """Make the file at `path` out of the chunks of the partial file; what was at `path` is replaced.

    HDF5 is not asked to read the partial file: the ledger says where the bytes of each chunk are, and what their sum
    is. They are taken over as they are, up to the first that is missing or different. Every series is cut to the
    shortest of its datasets.

    Raises
    ------
    StorageError, VerifyError
        If what is there can't be read, or the file not be written.
    """
    try:
        return _rebuild(folder, manifest, partial, path)
    except BaseException as error:
        remove(path)
        if isinstance(error, StorageError) and error.kind is ErrorKind.NO_SPACE:
            raise no_room(error, f"{partial.name} and {folder.path.name}", folder.target) from error
        raise


def _rebuild(folder: JournalFolder, manifest: Manifest, partial: Path, path: Path) -> Built:
    with translated(str(folder.ledger), "reading where the chunks are"):
        chunks, behind = read_ledger(folder.ledger, manifest.identity)
    with translated(str(path), "copying the structure"):
        remove(path)
        copy_synced(folder.structure, path)
    source = _opened(partial, needed=bool(chunks))
    file = open_structure(path)
    try:
        copies = _copies(manifest, chunks, file)
        for copy in copies:
            _take_over(copy, source)
        damaged = bool(behind) or any(len(copy.crcs) < len(copy.chunks) for copy in copies)
        _cut(manifest, copies)
        with translated(str(path), "closing the file"):
            file.close()
    except BaseException:
        abandon(file)
        raise
    finally:
        if source is not None:
            os.close(source)
    return _checked(manifest, copies, path, _beyond(manifest, [*chunks, *behind]), damaged=damaged)


def _opened(partial: Path, *, needed: bool) -> int | None:
    try:
        return os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if not needed:
            return None
        raise StorageError(
            f"{partial} can't be read: {error}. It has the rows of this recording, which was made without a journal: "
            "put it back, and recover again",
            kind=ErrorKind.IO,
        ) from error


def _copies(manifest: Manifest, chunks: Sequence[StoredChunk], file: h5py.File) -> list[_Copy]:
    specs = [dataset for series in manifest.series for dataset in series.datasets]
    found: list[list[StoredChunk]] = [[] for _ in specs]
    for chunk in chunks:
        found[chunk.dataset].append(chunk)
    return [_Copy(spec, own, file[spec.name]) for spec, own in zip(specs, found, strict=True)]


def _take_over(copy: _Copy, source: int | None) -> None:
    """Copy the chunks of a dataset that are right, and find out how many rows are whole."""
    sink, width = Hdf5Sink(copy.dataset), copy.width
    whole = copy.chunks[: len(copy.chunks) // width * width]
    if source is None or not whole:
        return
    sink.resize((whole[-1].rows, *copy.spec.row_shape))
    for offset, chunk in zip(copy.offsets(), whole, strict=True):
        data = _read(source, chunk)
        if len(data) != chunk.size or crc32(data) != chunk.crc32:
            break
        sink.put(offset, Encoded(data, chunk.filter_mask))
        copy.crcs.append(chunk.crc32)
        copy.stored_bytes += chunk.size
    bands = len(copy.crcs) // width
    copy.rows = whole[bands * width - 1].rows if bands else 0


def _read(source: int, chunk: StoredChunk) -> bytes:
    """Return the bytes of a chunk; nothing where the disk can't be read (a bad sector), as if they were damaged."""
    try:
        return os.pread(source, chunk.size, chunk.address)
    except OSError:
        return b""


def _cut(manifest: Manifest, copies: Sequence[_Copy]) -> None:
    """Cut every series to the rows that all its datasets have."""
    left = iter(copies)
    for series in manifest.series:
        own = list(islice(left, len(series.datasets)))
        rows = min(copy.rows for copy in own)
        for copy in own:
            _shorten(copy, rows)


def _shorten(copy: _Copy, rows: int) -> None:
    start = rows - rows % copy.height
    if rows < copy.rows and start < rows:
        live_encoder(copy.spec)  # which lets HDF5 have its filter
        with translated(copy.spec.name, "reading the rows where it is cut"):
            copy.edge = np.asarray(copy.dataset[start:rows])
    Hdf5Sink(copy.dataset).resize((rows, *copy.spec.row_shape))  # HDF5 clears what is cut off, in the last chunk too
    copy.rows = rows


def _beyond(manifest: Manifest, chunks: Sequence[StoredChunk]) -> tuple[int, ...]:
    """Return the rows that chunks of each series reach to."""
    owners = [at for at, series in enumerate(manifest.series) for _ in series.datasets]
    rows = [0] * len(manifest.series)
    for chunk in chunks:
        rows[owners[chunk.dataset]] = max(rows[owners[chunk.dataset]], chunk.rows)
    return tuple(rows)


def _checked(
    manifest: Manifest, copies: Sequence[_Copy], path: Path, beyond: tuple[int, ...], *, damaged: bool
) -> Built:
    """Open the file anew and compare everything with what was recorded."""
    started = time.perf_counter()
    with translated(str(path), "reading back the file"), h5py.File(path, "r") as file:
        for copy in copies:
            _compare(copy, file[copy.spec.name])
    ends = np.cumsum([len(series.datasets) for series in manifest.series])
    return Built(
        receipts=tuple(_receipt(copy) for copy in copies),
        notes=(),
        rows=tuple(copies[end - 1].rows for end in ends),
        beyond=beyond,
        damaged=damaged,
        verify_seconds=time.perf_counter() - started,
    )


def _compare(copy: _Copy, dataset: h5py.Dataset) -> None:
    sink = Hdf5Sink(dataset)
    same = sink.shape == copy.layout.shape
    for offset, expected in zip(copy.offsets(), copy.crcs, strict=False):
        if offset[0] >= copy.whole or not same:
            break
        same = crc32(sink.get(offset)) == expected
    if copy.edge is not None:
        same = same and np.asarray(dataset[copy.whole :]).tobytes() == copy.edge.tobytes()
    if not same:
        raise VerifyError(
            f"{copy.spec.name} reads back different from what was stored; what was recorded is kept. Recover again, "
            "perhaps on another disk (output=, --output)",
            kind=ErrorKind.MISMATCH,
        )


def _receipt(copy: _Copy) -> DatasetReceipt:
    bands = -(-copy.rows // copy.height)
    total = 0
    for crc in copy.crcs[: bands * copy.width]:
        total = crc32(crc.to_bytes(4, "little"), total)
    return DatasetReceipt(
        name=copy.spec.name,
        layout=copy.layout,
        chunks=bands * copy.width,
        raw_bytes=copy.rows * copy.spec.row_bytes,
        stored_bytes=copy.stored_bytes,
        encoded_by="its source",
        crc32=total,
    )
