"""From rows to compressed chunks of an HDF5 file, a row of chunks at a time."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import h5py
import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.encoding.pipeline import FilterEncoder, encoder_for
from nwbflow.engine.chunks import padded
from nwbflow.errors import ErrorKind, StorageError, UnsupportedError, VerifyError
from nwbflow.model.data import Array
from nwbflow.model.encoding import Encoded
from nwbflow.model.events import ChunkStored, DatasetFinished, DatasetStarted, DatasetVerified, Event
from nwbflow.model.layout import Layout, Shape
from nwbflow.model.receipt import DatasetReceipt
from nwbflow.record.manifest import LiveDataset, Manifest
from nwbflow.record.reading import Received
from nwbflow.sinks.hdf5 import Hdf5Sink, translated
from nwbflow.sinks.staging import abandon


@dataclass(frozen=True, slots=True)
class _Done:
    encoded: Encoded
    crc: int
    seconds: float


def live_encoder(dataset: LiveDataset) -> FilterEncoder:
    """Return the encoder of a dataset's chunks.

    Raises
    ------
    UnsupportedError
        If only HDF5 itself can run its filters.
    """
    encoder = encoder_for(dataset.layout, effort=dataset.effort)
    if encoder is None:
        raise UnsupportedError(
            f"{dataset.name}: a recording needs a codec that can be run outside HDF5, such as 'gzip', 'gzip-fast' or "
            "(with hdf5plugin) 'zstd'",
            kind=ErrorKind.CODEC,
        )
    return encoder


class _Filling:
    """One dataset being filled, and what is remembered of its chunks."""

    def __init__(self, spec: LiveDataset, dataset: h5py.Dataset) -> None:
        self.spec = spec
        self.dataset = dataset
        self.sink = Hdf5Sink(dataset)
        self.encoder = live_encoder(spec)
        found, planned = self.sink.layout, spec.layout
        if (found.dtype, found.chunks, found.filters) != (planned.dtype, planned.chunks, planned.filters):
            raise StorageError(f"{spec.name} is {found}, planned was {planned}", kind=ErrorKind.MISMATCH)
        self.chunks: Shape = planned.chunks or ()
        self.rows = self.stored_rows = 0
        self.crcs = array("I")
        self.stored_bytes = 0
        self.encode_seconds = self.store_seconds = 0.0
        self.not_numbers = self.backward = 0
        self._open: Array | None = None
        self._last = -np.inf

    def add(self, rows: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Take rows in; give out the chunks that became complete."""
        if self.spec.field == "timestamps":
            self._count(rows)
        height = self.chunks[0]
        at = 0
        while at < len(rows):
            filled = self.rows % height
            take = min(height - filled, len(rows) - at)
            if self._open is None:
                self._open = np.empty((height, *self.spec.row_shape), self.spec.layout.dtype)
            self._open[filled : filled + take] = rows[at : at + take]
            self.rows += take
            at += take
            if filled + take == height:
                yield from self._cut(self._open, self.rows - height)
                self._open = None

    def rest(self) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Give out the chunks that are not complete."""
        filled = self.rows % self.chunks[0]
        if self._open is not None:
            yield from self._cut(self._open[:filled], self.rows - filled)
            self._open = None

    def _cut(self, band: Array, row: int) -> Iterator[tuple[tuple[int, ...], Array]]:
        axes = [range(0, n, c) for n, c in zip(self.spec.row_shape, self.chunks[1:], strict=True)]
        for place in product(*axes):
            region = tuple(slice(p, p + c) for p, c in zip(place, self.chunks[1:], strict=True))
            yield (row, *place), band[(slice(None), *region)]

    def offsets(self) -> Iterator[tuple[int, ...]]:
        """Give the place of every chunk, in the order in which they were stored."""
        shape = (self.rows, *self.spec.row_shape)
        return product(*(range(0, n, c) for n, c in zip(shape, self.chunks, strict=True)))

    def _count(self, times: Array) -> None:
        flat = times.reshape(-1).astype(float)
        self.not_numbers += int(np.isnan(flat).sum())
        flat = flat[~np.isnan(flat)]
        if len(flat):
            self.backward += int(flat[0] < self._last) + int((flat[1:] < flat[:-1]).sum())
            self._last = float(flat[-1])

    def receipt(self) -> DatasetReceipt:
        total = 0
        for crc in self.crcs:
            total = crc32(crc.to_bytes(4, "little"), total)
        return DatasetReceipt(
            name=self.spec.name,
            layout=self.layout,
            chunks=len(self.crcs),
            raw_bytes=self.rows * self.spec.row_bytes,
            stored_bytes=self.stored_bytes,
            encode_seconds=self.encode_seconds,
            store_seconds=self.store_seconds,
            encoded_by="nwbflow" if self.spec.layout.filters else "none",
            crc32=total,
        )

    @property
    def layout(self) -> Layout:
        return replace(self.spec.layout, shape=(self.rows, *self.spec.row_shape))


def _encode(encoder: FilterEncoder, chunk: Array, layout: Layout) -> _Done:
    started = time.perf_counter()
    encoded = encoder.encode(padded(chunk, layout))
    return _Done(encoded, crc32(encoded.data), time.perf_counter() - started)


class Fold:
    """Fills the live datasets of one open HDF5 file; used by one thread.

    Chunks are stored in the order in which they became complete, and each exactly once.

    Parameters
    ----------
    file : h5py.File
        With the structure, writable; closed by :meth:`finish` or :meth:`abandon`.
    manifest : Manifest
        What to fill.
    workers : int
        Encoding threads.
    emit : callable
        Takes events.
    """

    def __init__(self, file: h5py.File, manifest: Manifest, *, workers: int, emit: Callable[[Event], None]) -> None:
        self._file = file
        self._emit = emit
        self._fillings = [[_Filling(d, file[d.name]) for d in series.datasets] for series in manifest.series]
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="nwbflow-encode")
        self._pending: deque[tuple[_Filling, tuple[int, ...], Shape, float, Future[_Done]]] = deque()
        self._most = workers + 2
        for filling in self._all:
            emit(DatasetStarted(dataset=filling.spec.name, layout=filling.spec.layout, raw_bytes=None))

    @property
    def _all(self) -> Sequence[_Filling]:
        return [filling for series in self._fillings for filling in series]

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows taken in of each series."""
        return tuple(series[0].rows for series in self._fillings)

    @property
    def stored_rows(self) -> tuple[int, ...]:
        """Rows of each series whose chunks are all in the file; may be asked by any thread."""
        return tuple(min(filling.stored_rows for filling in series) for series in self._fillings)

    def take(self, block: Received) -> None:
        """Take in one block of one series.

        Raises
        ------
        StorageError
            If the file can't be written; it must be abandoned then.
        """
        for filling, rows in zip(self._fillings[block.series], block.parts, strict=True):
            for offset, chunk in filling.add(rows):
                self._submit(filling, offset, chunk)
        while self._pending and self._pending[0][-1].done():
            self._store()

    def _submit(self, filling: _Filling, offset: tuple[int, ...], chunk: Array) -> None:
        while len(self._pending) >= self._most:
            self._store()
        future = self._encoded(filling, chunk)
        self._pending.append((filling, offset, chunk.shape, time.perf_counter(), future))

    def _encoded(self, filling: _Filling, chunk: Array) -> Future[_Done]:
        try:
            return self._pool.submit(_encode, filling.encoder, chunk, filling.spec.layout)
        except RuntimeError:  # Python is about to end and starts no work in threads any more
            future: Future[_Done] = Future()
            future.set_result(_encode(filling.encoder, chunk, filling.spec.layout))
            return future

    def _store(self) -> None:
        filling, offset, lengths, began, future = self._pending.popleft()
        done = future.result()
        started = time.perf_counter()
        shape = (offset[0] + lengths[0], *filling.spec.row_shape)
        filling.sink.resize(shape)
        filling.sink.put(offset, done.encoded)
        ends = tuple(o + n for o, n in zip(offset, lengths, strict=True))
        if ends == shape:
            filling.stored_rows = ends[0]
            with translated(filling.spec.name, "flushing"):
                filling.dataset.flush()  # whole chunks, for those who watch
        filling.crcs.append(done.crc)
        filling.stored_bytes += len(done.encoded.data)
        filling.encode_seconds += done.seconds
        filling.store_seconds += time.perf_counter() - started
        self._emit(
            ChunkStored(
                dataset=filling.spec.name,
                offset=offset,
                raw_bytes=int(np.prod(lengths)) * filling.spec.layout.dtype.itemsize,
                stored_bytes=len(done.encoded.data),
                read_seconds=0.0,
                encode_seconds=done.seconds,
                store_seconds=time.perf_counter() - started,
                queued=len(self._pending),
                raw_done=ends[0] * filling.spec.row_bytes,
                lag_seconds=time.perf_counter() - began,
            )
        )

    def finish(self) -> list[DatasetReceipt]:
        """Store what is left, and close the file.

        Raises
        ------
        StorageError
            If the file can't be written; it has been abandoned then.
        """
        try:
            for filling in self._all:
                for offset, chunk in filling.rest():
                    self._submit(filling, offset, chunk)
            while self._pending:
                self._store()
            with translated(self._file.filename, "closing the file"):
                self._file.flush()
                self._file.close()
        except BaseException:
            self.abandon()
            raise
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
        receipts = [filling.receipt() for filling in self._all]
        for receipt in receipts:
            self._emit(DatasetFinished(dataset=receipt.name, receipt=receipt))
        return receipts

    def abandon(self) -> None:
        """Close the file without touching the disk again."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        abandon(self._file)

    def verify(self, file: h5py.File) -> None:
        """Compare every chunk of the finished file, opened anew, with what was sent.

        Raises
        ------
        VerifyError
            Naming the dataset and the chunk that differs.
        """
        for filling in self._all:
            started = time.perf_counter()
            name = filling.spec.name
            sink = Hdf5Sink(file[name])
            if sink.shape != filling.layout.shape:
                raise VerifyError(f"{name} has shape {sink.shape}, not {filling.layout.shape}", kind=ErrorKind.MISMATCH)
            for offset, crc in zip(filling.offsets(), filling.crcs, strict=True):
                if crc32(sink.get(offset)) != crc:
                    raise VerifyError(
                        f"{name}: the chunk at {offset} reads back different from what was stored",
                        kind=ErrorKind.MISMATCH,
                    )
            self._emit(
                DatasetVerified(dataset=name, stored_bytes=filling.stored_bytes, seconds=time.perf_counter() - started)
            )

    def notes(self) -> list[str]:
        """Return what is odd about the time stamps."""
        found = []
        for filling in self._all:
            if filling.not_numbers:
                found.append(f"{filling.spec.name}: {filling.not_numbers} time stamps are no number (NaN)")
            if filling.backward:
                found.append(f"{filling.spec.name}: time goes backwards at {filling.backward} places")
        return found
