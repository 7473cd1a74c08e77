"""From rows to compressed chunks of an HDF5 file, a row of chunks at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import h5py
import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.encoding.pipeline import FilterEncoder
from nwbflow.engine.chunks import padded
from nwbflow.errors import ErrorKind, VerifyError
from nwbflow.model.data import Array
from nwbflow.model.encoding import Encoded
from nwbflow.model.events import ChunkStored, DatasetFinished, DatasetStarted, DatasetVerified, Event
from nwbflow.model.layout import Layout
from nwbflow.model.receipt import DatasetReceipt
from nwbflow.record.filling import Filling
from nwbflow.record.ledger import StoredChunk
from nwbflow.record.manifest import Manifest
from nwbflow.record.preview import Budget, Preview, Showing, beside, preview
from nwbflow.record.reading import Received
from nwbflow.sinks.hdf5 import Hdf5Sink, translated
from nwbflow.sinks.staging import abandon


@dataclass(frozen=True, slots=True)
class _Done:
    encoded: Encoded
    crc: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Whole:
    """A complete chunk that is being encoded."""

    filling: Filling
    offset: tuple[int, ...]
    chunk: Array
    began: float
    done: Future[_Done]


@dataclass(frozen=True, slots=True)
class _Early:
    """A row of chunks, not complete, that is being encoded."""

    filling: Filling
    first: int
    done: Future[Preview]


_WORTH_TELLING = 2**20

_LOOK_SECONDS = 0.1
"""How often datasets are looked at for rows to be shown early: with many of them that takes longer than a block."""


def _encode(encoder: FilterEncoder, chunk: Array, layout: Layout) -> _Done:
    started = time.perf_counter()
    encoded = encoder.encode(padded(chunk, layout))
    return _Done(encoded, crc32(encoded.data), time.perf_counter() - started)


class Fold:
    """Fills the live datasets of one open HDF5 file; used by one thread.

    Chunks are stored in the order in which they became complete.

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
    early : bool
        Whether rows of slow streams are shown before their chunk is complete; only in SWMR mode.
    places : bool
        Whether to remember where complete chunks were stored; :meth:`taken_out` gives them. Not with `early`.
    """

    def __init__(
        self,
        file: h5py.File,
        manifest: Manifest,
        *,
        workers: int,
        emit: Callable[[Event], None],
        early: bool = False,
        places: bool = False,
    ) -> None:
        self._file = file
        self._early = early
        self._places: list[StoredChunk] | None = [] if places else None
        self._look_again = 0.0
        self._budget = Budget()
        self._emit = emit
        self._fillings = [[Filling(d, file[d.name]) for d in series.datasets] for series in manifest.series]
        self._numbers = {id(filling): number for number, filling in enumerate(self._all)}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="nwbflow-encode")
        self._pending: deque[_Whole | _Early] = deque()
        self._most = workers + 2
        for filling in self._all:
            emit(DatasetStarted(dataset=filling.spec.name, layout=filling.spec.layout, raw_bytes=None))

    @property
    def _all(self) -> Sequence[Filling]:
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
        self.go_on()

    def go_on(self) -> None:
        """Store what has been encoded, and show what has waited for long; to be called now and then.

        Raises
        ------
        StorageError
            As :meth:`take`.
        """
        while self._pending and self._pending[0].done.done():
            self._store()
        if self._early and (now := time.monotonic()) >= self._look_again:
            self._look_again = now + _LOOK_SECONDS
            for series in self._fillings:
                for filling in reversed(series):  # time stamps before data
                    self._show_early(filling)

    def _show_early(self, filling: Filling) -> None:
        """Encode the rows of an incomplete row of chunks, if it is time to."""
        filled, spec, showing = filling.rows % filling.chunks[0], filling.spec, filling.showing
        if filling.waiting or not filled or not showing.is_due(filled, filling.chunks[0], spec.row_bytes, self._budget):
            return
        try:
            done = self._pool.submit(
                preview, filling.encoder, spec.layout, filling.present(), filling.rows, dict(showing.stored)
            )
        except RuntimeError:
            return  # Python is about to end
        showing.pending = True
        self._pending.append(_Early(filling, filling.rows - filled, done))

    def _submit(self, filling: Filling, offset: tuple[int, ...], chunk: Array) -> None:
        while len(self._pending) >= self._most:
            self._store()
        done = self._encoded(filling, chunk)
        filling.waiting += 1
        self._pending.append(_Whole(filling, offset, chunk, time.perf_counter(), done))

    def _encoded(self, filling: Filling, chunk: Array) -> Future[_Done]:
        try:
            return self._pool.submit(_encode, filling.encoder, chunk, filling.spec.layout)
        except RuntimeError:  # Python is about to end and starts no work in threads any more
            future: Future[_Done] = Future()
            future.set_result(_encode(filling.encoder, chunk, filling.spec.layout))
            return future

    def _store(self) -> None:
        item = self._pending.popleft()
        if isinstance(item, _Early):
            self._store_early(item.filling, item.first, item.done.result())
        else:
            self._store_whole(item.filling, item.offset, item.chunk, item.began, item.done.result())

    def _store_early(self, filling: Filling, first: int, made: Preview) -> None:
        showing = filling.showing
        showing.made(made)
        if made.chunks:
            filling.sink.resize((made.rows, *filling.spec.row_shape))
        for offset, encoded in made.chunks:
            now = (len(encoded.data), crc32(encoded.data))
            if showing.stored.get(offset) != now:
                filling.sink.put(offset, encoded)
                showing.stored[offset] = now
                self._budget.wasted += now[0] if filling.spec.layout.filters else 0
        if made.chunks:
            showing.rows = made.rows - first
            with translated(filling.spec.name, "flushing"):
                filling.dataset.flush()

    def _make_way(self, filling: Filling, offset: tuple[int, ...], chunk: Array, encoded: Encoded) -> None:
        """Let a chunk not go to the very place where somebody may be reading what was shown of it."""
        size, crc = filling.showing.stored.get(offset, (-1, 0))
        if not filling.spec.layout.filters or len(encoded.data) != size or crc32(encoded.data) == crc:
            return
        aside = beside(filling.encoder, filling.spec.layout, chunk[: filling.showing.rows], size, crc)
        if aside is None:  # not filtered at all it is larger
            whole = np.ascontiguousarray(padded(chunk, filling.spec.layout))
            aside = Encoded(whole.tobytes(), (1 << len(filling.spec.layout.filters)) - 1)
        filling.sink.put(offset, aside)
        self._budget.wasted += len(aside.data)

    def _store_whole(self, filling: Filling, offset: tuple[int, ...], chunk: Array, began: float, done: _Done) -> None:
        started, lengths = time.perf_counter(), chunk.shape
        shape = (offset[0] + lengths[0], *filling.spec.row_shape)
        filling.sink.resize(shape)
        self._make_way(filling, offset, chunk, done.encoded)
        filling.sink.put(offset, done.encoded)
        filling.waiting -= 1
        self._budget.stored += len(done.encoded.data)
        ends = tuple(o + n for o, n in zip(offset, lengths, strict=True))
        if ends == shape:
            filling.stored_rows = ends[0]
            filling.showing = Showing()
            with translated(filling.spec.name, "flushing"):
                filling.dataset.flush()  # whole chunks, for those who watch
        if self._places is not None:
            self._places.append(self._place(filling, offset, ends[0], done))
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

    def _place(self, filling: Filling, offset: tuple[int, ...], rows: int, done: _Done) -> StoredChunk:
        address, size = filling.sink.place(offset)
        return StoredChunk(
            dataset=self._numbers[id(filling)],
            rows=rows,
            address=address,
            size=size,
            filter_mask=done.encoded.filter_mask,
            crc32=done.crc,
        )

    def taken_out(self) -> list[StoredChunk]:
        """Return where the chunks are that were stored since this was last asked."""
        places, self._places = self._places or [], [] if self._places is not None else None
        return places

    def drain(self) -> None:
        """Wait for what is being encoded, and store it.

        Raises
        ------
        StorageError
            As :meth:`take`.
        """
        while self._pending:
            self._store()

    def complete(self) -> None:
        """Store all that is left, also the chunks that are not full; nothing can be taken in after that.

        Raises
        ------
        StorageError
            As :meth:`take`.
        """
        for filling in self._all:
            for offset, chunk in filling.rest():
                self._submit(filling, offset, chunk)
        self.drain()

    def finish(self) -> list[DatasetReceipt]:
        """Store what is left, and close the file.

        Raises
        ------
        StorageError
            If the file can't be written; it has been abandoned then.
        """
        try:
            self.complete()
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
        """Return what is odd about the time stamps, or about the file's size."""
        found = []
        if self._budget.wasted > _WORTH_TELLING:
            found.append(
                f"{self._budget.wasted / 1e6:.1f} MB of the file are not used: incomplete chunks of slow streams were "
                "there, shown to those who watch"
            )
        for filling in self._all:
            if filling.not_numbers:
                found.append(f"{filling.spec.name}: {filling.not_numbers} time stamps are no number (NaN)")
            if filling.backward:
                found.append(f"{filling.spec.name}: time goes backwards at {filling.backward} places")
        return found
