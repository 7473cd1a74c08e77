"""Fill reserved datasets: many encoders, one writer."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np

from nwbflow.encoding.cast import exact
from nwbflow.encoding.checksum import crc32
from nwbflow.engine.afar import Executor, Kit, nothing
from nwbflow.engine.assemble import Assembler
from nwbflow.engine.chunks import Finished, Work, encode
from nwbflow.engine.intake import Arrived, Ended, Reader, located, read_source
from nwbflow.engine.job import Job, StoredChunk, Tally
from nwbflow.engine.settings import Settings
from nwbflow.errors import StorageError
from nwbflow.model.data import Array, Block, Scatter, Source, Stream
from nwbflow.model.events import ChunkStored, DatasetFinished, DatasetStarted, Event
from nwbflow.model.layout import Shape

READER_PATIENCE = 5.0
"""Seconds to wait, after a failure, for a blocked iterator to return."""


def fill(jobs: Sequence[Job], settings: Settings, emit: Callable[[Event], None]) -> list[Tally]:
    """Fill every job's dataset; one writer (the calling thread), `workers` encoders.

    Sources and streams not marked ``aside`` are taken one after another in the calling thread;
    streams marked ``aside`` each have a reader thread, so that a slow one holds nobody.

    Parameters
    ----------
    jobs : sequence of Job
        The datasets, in order.
    settings : Settings
        How to run.
    emit : callable
        Called with every event, in the calling thread.

    Returns
    -------
    list of Tally
        One for each job, in order.

    Raises
    ------
    SourceError, StorageError
        What stopped it. What had arrived by then is stored, unless storing itself failed.
    """
    run = _Run(jobs, settings, emit)
    try:
        run.loop()
    except BaseException as error:
        run.stop(error)
        raise
    finally:
        run.close()
    return run.tallies


class _Run:
    def __init__(self, jobs: Sequence[Job], settings: Settings, emit: Callable[[Event], None]) -> None:
        self.settings = settings
        self.emit = emit
        self.tallies = [Tally(job) for job in jobs]
        self.pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="nwbflow-encode")
        self._tally = {job.name: tally for job, tally in zip(jobs, self.tallies, strict=True)}
        self._assemblers: dict[str, Assembler] = {}
        self._pending: deque[tuple[Work, Future[Finished]]] = deque()
        self._inbox: SimpleQueue[Arrived | Ended | None] = SimpleQueue()
        self._readers = {job.name: Reader(job, self._inbox) for job in jobs if job.aside}
        self._alive = 0
        self._in_turn: Generator[None] = self._take_in_turn([job for job in jobs if not job.aside])
        self._checkpointed = time.monotonic()

    # --- the loop -----------------------------------------------------------------------

    def loop(self) -> None:
        for reader in self._readers.values():
            self._begin(reader.job)
            self._alive += 1
            reader.start()
        busy = True
        while True:
            self._store_ready()
            self._maybe_checkpoint()
            received = self._alive > 0 and self._receive(block=False)
            if busy:
                busy = next(self._in_turn, False) is None
            elif received:
                continue
            elif self._alive:
                self._receive(block=True)
            elif self._pending:
                self._store_next()
            else:
                return

    def close(self) -> None:
        """Let go of the pool, and of workers elsewhere."""
        self._in_turn.close()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _take_in_turn(self, jobs: Sequence[Job]) -> Generator[None]:
        """Take in the jobs one after another, giving way after every block."""
        for job in jobs:
            self._begin(job)
            if job.stored is not None:
                yield from self._take_stored(job)
            elif isinstance(job.data, Source):
                yield from self._take_source(job, job.data)
            else:
                yield from self._take_stream(job, job.data)
            self._drain()
            self._finish(job)

    def _take_source(self, job: Job, source: Source) -> Iterator[None]:
        executor, tally = self.settings.executor, self._tally[job.name]
        if executor is not None and job.encoder is not None and executor.takes(source):
            kit = Kit(job.name, job.layout, job.encoder, self.settings.keep_raw_crc)
            yield from self._take_afar(job, kit, source, executor)
            return
        try:
            for work in read_source(job):
                tally.delivered += work.data.size
                self._submit(work)
                del work  # it would keep its band in memory while the next one is read
                yield
        except StorageError:
            raise
        except Exception as error:
            raise located(error, job.name, f"after {tally.delivered} elements") from error.__cause__

    def _take_afar(self, job: Job, kit: Kit, source: Source, executor: Executor) -> Iterator[None]:
        """Store what workers elsewhere encode; each chunk is stored here and nowhere else, so only once."""
        tally = self._tally[job.name]
        tally.by = executor.name
        with closing(executor.run(kit, source)) as batches:
            for batch in batches:
                arrived = time.perf_counter()
                for offset, finished in () if batch is None else batch.chunks:
                    seconds = 0.0 if batch is None else batch.read_seconds / len(batch.chunks)
                    started = time.perf_counter()
                    work = Work(job, offset, nothing(), arrived, seconds)
                    self._put(work, finished)
                    size, spent = len(finished.encoded.data), time.perf_counter() - started
                    self._stored(work, finished.chunk, size, finished.seconds, spent)
                    tally.delivered += math.prod(finished.chunk.lengths)
                del batch  # not kept while the next one is waited for
                yield

    def _take_stored(self, job: Job) -> Iterator[None]:
        """Store chunks that need no encoding; those the source never had stay out here too."""
        tally, shape = self._tally[job.name], job.layout.shape
        chunks = iter(() if job.stored is None else job.stored())
        while True:
            started = time.perf_counter()
            try:
                offset, encoded = next(chunks)
            except StopIteration:
                break
            except Exception as error:
                raise located(error, job.name, f"after {len(tally.chunks)} chunks") from error.__cause__
            arrived = time.perf_counter()
            lengths = tuple(min(c, n - o) for o, c, n in zip(offset, job.layout.chunks or shape, shape, strict=True))
            work = Work(job, offset, np.empty(0), arrived, arrived - started)
            self._make_room(work, lengths)
            job.sink.put(offset, encoded)
            spent = time.perf_counter() - arrived
            self._stored(work, StoredChunk(crc32(encoded.data), None, lengths), len(encoded.data), 0.0, spent)
            yield
        tally.delivered = math.prod(shape)

    def _take_stream(self, job: Job, stream: Stream) -> Iterator[None]:
        blocks = iter(stream)
        while True:
            waiting = time.perf_counter()
            try:
                block = next(blocks)
            except StopIteration:
                break
            except Exception as error:
                raise located(error, job.name, self._place(job)) from error.__cause__
            self._take_block(job, block, time.perf_counter() - waiting)
            yield
        self._end_stream(job)

    def _receive(self, *, block: bool) -> bool:
        """Handle one message of the reader threads; return whether there was one."""
        try:
            message = self._inbox.get(block=block)
        except Empty:
            return False
        if isinstance(message, Arrived):
            self._take_block(message.reader.job, message.block, message.waited)
            message.reader.release()
        elif isinstance(message, Ended):
            self._alive -= 1
            job = message.reader.job
            if message.error is not None:
                raise located(message.error, job.name, self._place(job))
            self._end_stream(job)
            self._drain()
            self._finish(job)
        return True

    # --- taking in ----------------------------------------------------------------------

    def _begin(self, job: Job) -> None:
        self._tally[job.name].seconds -= time.perf_counter()
        if isinstance(job.data, Stream) and not isinstance(job.data, Source):
            self._assemblers[job.name] = Assembler(job, partial(self._reload, job))
        self.emit(DatasetStarted(dataset=job.name, layout=job.layout, raw_bytes=job.raw_bytes))

    def _take_block(self, job: Job, block: Block | Scatter, waited: float) -> None:
        assembler, tally = self._assemblers[job.name], self._tally[job.name]
        tally.largest_block = max(tally.largest_block, block.data.nbytes)
        arrived = time.perf_counter()
        if isinstance(block, Scatter):
            self._scatter(job, assembler, block)
            return
        for offset, data in assembler.add(block):
            self._submit(Work(job, offset, data, arrived, waited))
            waited = 0.0

    def _scatter(self, job: Job, assembler: Assembler, block: Scatter) -> None:
        """Store elements that form no rectangle through the sink itself, everything else settled."""
        data = exact(block.data, job.layout.dtype, name=job.name, offset=(0,) * block.data.ndim)
        assembler.extend(block.bounds)
        self._end_stream(job)
        self._drain()
        job.sink.resize(tuple(max(a, b) for a, b in zip(job.sink.shape, assembler.bounds, strict=True)))
        job.sink.scatter(block.selection, data)
        tally = self._tally[job.name]
        tally.scattered += 1
        assembler.delivered += data.size

    def _end_stream(self, job: Job) -> None:
        now = time.perf_counter()
        for offset, data in self._assemblers[job.name].flush():
            self._submit(Work(job, offset, data, now, 0.0))

    def _reload(self, job: Job, offset: tuple[int, ...]) -> Array | None:
        """Return the stored elements of a chunk that turned out not to be complete."""
        tally = self._tally[job.name]
        if any(work.job is job and work.offset == offset for work, _ in self._pending):
            self._drain()
        if offset not in tally.chunks and not tally.scattered:
            return None
        shape = job.sink.shape
        chunks = job.layout.chunks or shape
        region = tuple(slice(o, min(o + c, n)) for o, c, n in zip(offset, chunks, shape, strict=True))
        if any(s.stop <= s.start for s in region):
            return None
        return job.sink.read(region)

    def _place(self, job: Job) -> str:
        assembler = self._assemblers.get(job.name)
        return f"after row {assembler.bounds[0]}" if assembler else "before the first row"

    # --- encoding and storing -----------------------------------------------------------

    def _submit(self, work: Work) -> None:
        if work.job.encoder is None:
            self._store_plain(work)
            return
        while len(self._pending) >= work.job.in_flight:
            self._store_next()
        future = self.pool.submit(encode, work, keep_raw_crc=self.settings.keep_raw_crc)
        self._pending.append((work, future))
        if self._readers:
            future.add_done_callback(lambda _: self._inbox.put(None))  # wakes a loop that waits for blocks

    def _store_ready(self) -> None:
        while self._pending and self._pending[0][1].done():
            self._store_next()

    def _drain(self) -> None:
        while self._pending:
            self._store_next()

    def _store_next(self) -> None:
        work, future = self._pending[0]
        finished = future.result()
        started = time.perf_counter()
        self._put(work, finished)
        self._pending.popleft()  # only now: an interrupt must not lose it
        self._stored(work, finished.chunk, len(finished.encoded.data), finished.seconds, time.perf_counter() - started)

    def _put(self, work: Work, finished: Finished) -> None:
        self._make_room(work, finished.chunk.lengths)
        work.job.sink.put(work.offset, finished.encoded)

    def _store_plain(self, work: Work) -> None:
        job = work.job
        data = exact(work.data, job.layout.dtype, name=job.name, offset=work.offset)
        started = time.perf_counter()
        self._make_room(work, data.shape)
        region = tuple(slice(o, o + n) for o, n in zip(work.offset, data.shape, strict=True))
        before = job.sink.stored_bytes
        job.sink.write(region, data)
        stored = job.sink.stored_bytes - before if job.layout.chunks is not None else data.nbytes
        spent = time.perf_counter() - started
        # what has no filters is HDF5's work from end to end: summed only if all values are to be compared
        summed = job.layout.filters or self.settings.keep_raw_crc
        raw = crc32(np.ascontiguousarray(data).reshape(-1).view(np.uint8)) if summed else None
        self._stored(work, StoredChunk(None, raw, data.shape), stored, 0.0, spent)

    def _make_room(self, work: Work, lengths: Shape) -> None:
        sink = work.job.sink
        ends = (o + n for o, n in zip(work.offset, lengths, strict=True))
        sink.resize(tuple(max(a, b) for a, b in zip(sink.shape, ends, strict=True)))

    def _stored(self, work: Work, chunk: StoredChunk, stored: int, encoding: float, storing: float) -> None:
        job, tally = work.job, self._tally[work.job.name]
        raw = int(np.prod(chunk.lengths)) * job.layout.dtype.itemsize
        earlier = tally.chunks.get(work.offset)
        tally.chunks[work.offset] = chunk
        tally.raw_bytes += raw - (int(np.prod(earlier.lengths)) * job.layout.dtype.itemsize if earlier else 0)
        tally.stored_bytes += stored
        tally.read_seconds += work.read_seconds
        tally.encode_seconds += encoding
        tally.store_seconds += storing
        if earlier is None and isinstance(job.data, Source):
            tally.count_row(work.offset)
        self.emit(
            ChunkStored(
                dataset=job.name,
                offset=work.offset,
                raw_bytes=raw,
                stored_bytes=stored,
                read_seconds=work.read_seconds,
                encode_seconds=encoding,
                store_seconds=storing,
                queued=len(self._pending),
                raw_done=tally.raw_bytes,
                lag_seconds=time.perf_counter() - work.arrived,
            )
        )

    def _maybe_checkpoint(self) -> None:
        now = time.monotonic()
        if now - self._checkpointed >= self.settings.checkpoint_seconds:
            self.settings.checkpoint()
            self._checkpointed = now

    # --- ending -------------------------------------------------------------------------

    def _finish(self, job: Job) -> None:
        tally = self._tally[job.name]
        assembler = self._assemblers.pop(job.name, None)
        shape = job.layout.shape
        if assembler is not None:
            shape = tuple(max(a, b) for a, b in zip(shape, assembler.bounds, strict=True))
            tally.delivered = assembler.delivered
        job.sink.resize(shape)
        tally.shape = shape
        tally.seconds += time.perf_counter()
        self.emit(DatasetFinished(dataset=job.name, receipt=tally.receipt()))

    def stop(self, error: BaseException) -> None:
        """End all threads, and keep what had arrived if the disk is to be trusted."""
        deadline = time.monotonic() + READER_PATIENCE
        for reader in self._readers.values():
            reader.stop(0.0)
        for reader in self._readers.values():
            if reader.is_alive() and not reader.stop(max(0.0, deadline - time.monotonic())):
                error.add_note(f"{reader.job.name}: its iterator still waits for data; the thread ends when it returns")
        if isinstance(error, StorageError):
            return
        try:
            self._salvage()
        except StorageError as second:
            second.add_note("it came while what had arrived was being kept, after the error above")
            raise second from error
        except Exception as second:
            error.add_note(f"keeping what had arrived failed too: {second}")

    def _salvage(self) -> None:
        for job in [t.job for t in self.tallies if t.job.name in self._assemblers]:
            self._end_stream_in_place(job)
        lost: dict[str, int] = {}  # first row of the first lost chunk: what follows it would leave a hole
        while self._pending:
            work, future = self._pending[0]
            if work.job.name in lost or future.exception() is not None:
                lost.setdefault(work.job.name, work.offset[0])
                self._pending.popleft()
                continue
            self._store_next()
        for tally in self.tallies:
            job = tally.job
            if not job.grow or tally.shape:
                continue
            assembler = self._assemblers.get(job.name)
            rows = assembler.bounds[0] if assembler is not None else tally.complete_rows
            shape = job.sink.shape
            job.sink.resize((min(rows, shape[0], lost.get(job.name, rows)), *shape[1:]))

    def _end_stream_in_place(self, job: Job) -> None:
        now = time.perf_counter()
        for offset, data in self._assemblers[job.name].flush():
            work = Work(job, offset, data, now, 0.0)
            if job.encoder is None:
                self._store_plain(work)
            else:
                self._pending.append((work, self.pool.submit(encode, work, keep_raw_crc=False)))
