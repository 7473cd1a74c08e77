"""Getting data out of sources and streams."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from nwbflow.engine.chunks import Work
from nwbflow.engine.job import Job
from nwbflow.errors import NwbflowError
from nwbflow.model.data import Block, Region, Scatter, Source, Stream
from nwbflow.model.layout import Shape
from nwbflow.planning.grid import bands, chunk_region, iter_offsets, overlapping


def read_source(job: Job) -> Iterator[Work]:
    """Read a source chunk by chunk, in storage order and bounded memory.

    Yields
    ------
    Work
        One chunk (for plain storage: one band) each.
    """
    source = job.data
    if not isinstance(source, Source):
        raise TypeError(f"{job.name} can't be read again")
    shape = job.layout.shape
    chunks = job.layout.chunks or _plain_band(shape, job)
    if source.in_memory:
        for offset in iter_offsets(shape, chunks):
            now = time.perf_counter()
            yield Work(job, offset, source.read(chunk_region(offset, chunks, shape)), now, 0.0)
        return
    itemsize = max(source.dtype.itemsize, job.layout.dtype.itemsize)
    for band in bands(shape, chunks, itemsize, job.band_bytes):
        yield from _read_band(job, source, band, chunks)


def _read_band(job: Job, source: Source, band: Region, chunks: Shape) -> Iterator[Work]:
    started = time.perf_counter()
    block = source.read(band)
    arrived = time.perf_counter()
    start = tuple(s.start for s in band)
    parts = list(overlapping(start, block.shape, chunks))
    for offset, in_block, _ in parts:
        yield Work(job, offset, block[in_block], arrived, (arrived - started) / len(parts))


def _plain_band(shape: Shape, job: Job) -> Shape:
    """Return rows to be written at a time where there are no chunks."""
    row = math.prod(shape[1:]) * job.layout.dtype.itemsize
    return (max(1, min(shape[0], job.band_bytes // max(1, row))), *(max(1, n) for n in shape[1:]))


@dataclass(frozen=True, slots=True)
class Arrived:
    """A reader thread has a block."""

    reader: Reader
    block: Block | Scatter
    waited: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A reader thread has no more, or failed."""

    reader: Reader
    error: BaseException | None


class Reader(threading.Thread):
    """Drains one stream into the inbox, one block at a time.

    The next block is asked for only when the last one was taken in: generators may reuse their
    buffer, and memory stays bounded.

    Parameters
    ----------
    job : Job
        Its data must be a stream.
    inbox : queue.SimpleQueue
        Where blocks are announced.
    """

    def __init__(self, job: Job, inbox: SimpleQueue[Arrived | Ended | None]) -> None:
        super().__init__(name=f"nwbflow-read {job.name}", daemon=True)
        self.job = job
        self._inbox = inbox
        self._taken = threading.Semaphore(0)
        self._stopping = False

    def run(self) -> None:
        """Drain the stream."""
        error: BaseException | None = None
        try:
            stream = self.job.data
            if not isinstance(stream, Stream):
                raise TypeError(f"{self.job.name} is no stream")
            waiting = time.perf_counter()
            for block in stream:
                self._inbox.put(Arrived(self, block, time.perf_counter() - waiting))
                self._taken.acquire()
                if self._stopping:
                    return
                waiting = time.perf_counter()
        except BaseException as caught:  # handed over to the thread that drives the write
            error = caught
        finally:
            self._inbox.put(Ended(self, error))

    def release(self) -> None:
        """Say that the last block was taken in."""
        self._taken.release()

    def stop(self, timeout: float) -> bool:
        """Ask the thread to end; return whether it did within `timeout` seconds."""
        self._stopping = True
        self._taken.release()
        self.join(timeout)
        return not self.is_alive()


def located(error: BaseException, name: str, where: str) -> BaseException:
    """Return `error` such that its text names the dataset and the place.

    Errors of ours get both in front; a user's own error keeps its type and gets a note.
    """
    if isinstance(error, NwbflowError) and not str(error).startswith(name):
        placed = type(error)(f"{name}: {error}", kind=error.kind)
        placed.__cause__ = error.__cause__
        return placed
    if not isinstance(error, NwbflowError):
        error.add_note(f"raised by the data of {name}, {where}")
    return error
