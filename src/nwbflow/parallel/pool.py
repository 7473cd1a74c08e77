"""Processes of this machine: a pool of them, and a dataset on its way through it."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any
from weakref import WeakKeyDictionary

from nwbflow.engine.afar import Batch, Kit
from nwbflow.engine.intake import located
from nwbflow.errors import ErrorKind, ExecutorError, NwbflowError, SourceError
from nwbflow.model.data import Region, Source
from nwbflow.model.layout import Layout
from nwbflow.parallel.blocks import regions
from nwbflow.parallel.parcels import Parcel, lazy, parcel_of, part_of, pieces_of
from nwbflow.parallel.worker import encode_part, look, prepare, ready
from nwbflow.planning.grid import chunk_region
from nwbflow.sources.arrays import show_region

KILLS = 3
"""How many processes one block may end, being the only one at work, before the write is given up."""

_GLANCE = 0.1
_GUARD = (
    'A script that starts processes is read by each of them: put what it does under if __name__ == "__main__":'
    " (https://docs.python.org/3/library/multiprocessing.html#the-spawn-and-forkserver-start-methods)"
)


def refuse_unguarded() -> None:
    """Raise in a process that only reads the script of the one that started it.

    Raises
    ------
    ExecutorError
        So it is if the script has no ``if __name__ == "__main__":``.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "__mp_main__" and frame.f_code.co_name == "<module>":
            raise ExecutorError(f"processes can't be started from here. {_GUARD}", kind=ErrorKind.WORKERS)
        frame = frame.f_back


class ProcessExecutor:
    """Reads and encodes in processes of this machine; made by :func:`nwbflow.parallel.processes`.

    Parameters
    ----------
    workers : int
        How many processes.
    """

    name = "processes"

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()
        self._parcels: WeakKeyDictionary[Source, Parcel | Exception | None] = WeakKeyDictionary()

    @property
    def workers(self) -> int:
        """Number of processes."""
        return self._workers

    def begin(self) -> None:
        """Do nothing: processes start when there is something for them."""

    def takes(self, source: Source, /) -> bool:
        """Return whether a source is read in Python or by a library with a lock, and other processes can read it."""
        return lazy(source) is not None or self.parcel(source) is not None

    def parcel(self, source: Source) -> Parcel | Exception | None:
        """Return what is sent for a source, or why it can't be; ``None`` for what is read here."""
        if source not in self._parcels:
            try:
                self._parcels[source] = parcel_of(source)
            except Exception as error:
                self._parcels[source] = error
        return self._parcels[source]

    def check(self, name: str, source: Source, layout: Layout, /) -> None:
        """Open the source in another process, or pickle its ends, so that it fails before anything is written.

        Raises
        ------
        SourceError
            Kind ``PICKLE``: it can't be sent, or opened there.
        ExecutorError
            Kind ``WORKERS``: processes can't be started.
        """
        if layout.chunks is None or 0 in layout.shape:
            return
        self._start()
        try:
            found = self._seen(source, layout)
        except BrokenProcessPool as error:
            raise ExecutorError(
                f"{name}: two processes that opened its data ended at once (crashed or killed)", kind=ErrorKind.WORKERS
            ) from error
        except Exception as error:
            raise SourceError(
                f"{name}: its data can't be opened in another process: {type(error).__name__}: {error}. Let the "
                "object hold a path, and open it when pickled (__getstate__, __setstate__), define its class in a "
                "module of its own or install cloudpickle, or write it without executor=",
                kind=ErrorKind.PICKLE,
            ) from error
        if found != (source.shape, source.dtype.str):
            raise SourceError(
                f"{name}: another process sees {found[0]} {found[1]} instead of {source.shape} {source.dtype.str}",
                kind=ErrorKind.PICKLE,
            )

    def _seen(self, source: Source, layout: Layout) -> Any:
        """Return shape and type as another process sees them."""
        array = lazy(source)
        if array is not None:
            ends = ((0,) * len(layout.shape), tuple(n - 1 - (n - 1) % c for n, c in _pairs(layout)))
            for offset in ends:
                part_of(array, chunk_region(offset, layout.chunks or layout.shape, layout.shape))
            return source.shape, source.dtype.str
        parcel = self.parcel(source)
        if isinstance(parcel, Exception):
            raise parcel
        pool, answer = self.submit(look, parcel)
        try:
            return answer.result()
        except BrokenProcessPool:  # perhaps one that had died before; if it is this source, it ends the next one too
            self.renew(pool)
            return self.submit(look, parcel)[1].result()

    def run(self, kit: Kit, source: Source, /) -> Generator[Batch | None]:
        """Yield every block once, in storage order; ``None`` now and then while waiting.

        Raises
        ------
        ExecutorError
            If a block ends every process that works on it.
        NwbflowError, Exception
            What reading raised, with a note of dataset and block.
        """
        passage = _Passage(self, kit, source)
        try:
            yield from passage.batches()
        finally:
            passage.release()

    # --- the pool -----------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._pool is not None:
                return
            pool = self._made()
        begun = [pool.submit(ready) for _ in range(self._workers)]
        try:
            for one in begun:
                one.result()
        except BrokenProcessPool as error:
            self.renew(pool)
            raise ExecutorError(
                f"processes could not be started; what they wrote to stderr says why. {_GUARD}", kind=ErrorKind.WORKERS
            ) from error

    def _made(self) -> ProcessPoolExecutor:
        # forked processes would share locks that other threads hold, and HDF5's open files
        self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"), initializer=prepare)
        return self._pool

    def submit(self, task: Any, *arguments: Any) -> tuple[ProcessPoolExecutor, Future[Any]]:
        """Give out a task; return the pool that has it, too."""
        while True:
            with self._lock:
                pool = self._pool or self._made()
            try:
                return pool, pool.submit(task, *arguments)
            except BrokenProcessPool:
                self.renew(pool)

    def renew(self, broken: ProcessPoolExecutor) -> None:
        """Let go of a pool one of whose processes ended."""
        with self._lock:
            if self._pool is broken:
                self._pool = None
        broken.shutdown(wait=False, cancel_futures=True)


def _pairs(layout: Layout) -> Any:
    return zip(layout.shape, layout.chunks or layout.shape, strict=True)


@dataclass(slots=True)
class _Task:
    region: Region
    pool: ProcessPoolExecutor | None = None
    future: Future[Batch] | None = None
    kills: int = 0

    def settled(self) -> bool:
        """Return whether there is a result, or an error of the task's own."""
        future = self.future
        if future is None or not future.done() or future.cancelled():
            return False
        return not isinstance(future.exception(), BrokenProcessPool)


class _Passage:
    """One dataset on its way through the pool."""

    def __init__(self, executor: ProcessExecutor, kit: Kit, source: Source) -> None:
        self.executor, self.kit, self.source = executor, kit, source
        self.array = lazy(source)
        self.tasks: deque[_Task] = deque()
        self.suspects = 0  # blocks that were on their way when a process ended: one at a time, to see which it was

    def batches(self) -> Generator[Batch | None]:
        """Yield every block once, in storage order; ``None`` now and then while waiting."""
        left = regions(self.kit, self.source, pieces_of(self.source))
        while True:
            while len(self.tasks) <= 2 * self.executor.workers and (region := next(left, None)) is not None:
                self.tasks.append(_Task(region))
            if not self.tasks:
                return
            for task in (self.tasks[0],) if self.suspects else self.tasks:
                if task.future is None:
                    self._give_out(task)
            yield from self._first()

    def release(self) -> None:
        """Let go of what was not taken."""
        for task in self.tasks:
            if task.future is not None:
                task.future.cancel()
        self.tasks.clear()

    def _give_out(self, task: _Task) -> None:
        try:
            parcel = self.executor.parcel(self.source) if self.array is None else part_of(self.array, task.region)
        except Exception as error:
            raise self._placed(error, task) from error.__cause__
        task.pool, task.future = self.executor.submit(encode_part, self.kit, task.region, parcel)

    def _first(self) -> Generator[Batch | None]:
        """Wait for the first block of the window, and hand it on."""
        task = self.tasks[0]
        future = task.future
        while future is not None and not wait([future], timeout=_GLANCE).done:
            yield None
        if future is None or not task.settled():
            self._broken(task)
            return
        try:
            batch = future.result()
        except Exception as error:
            raise self._placed(error, task) from error.__cause__
        self.tasks.popleft()
        self.suspects = max(0, self.suspects - 1)
        del task, future  # they would keep the block while it is being stored and the next one waited for
        yield batch

    def _broken(self, task: _Task) -> None:
        """Begin anew with what was on its way; which block ended the process shows when each is alone."""
        if self.suspects:
            task.kills += 1
        if task.kills >= KILLS:
            raise ExecutorError(
                f"{self.kit.name}: block {show_region(task.region)} ended {task.kills} processes that worked on "
                "nothing else: reading it crashes, or takes more memory than there is. Fewer processes, smaller "
                "chunks, or no executor=, need less",
                kind=ErrorKind.WORKERS,
            )
        if task.pool is not None:
            self.executor.renew(task.pool)
        self.suspects = len(self.tasks)
        for one in self.tasks:
            if not one.settled():
                one.future = None

    def _placed(self, error: Exception, task: _Task) -> BaseException:
        placed = located(error, self.kit.name, "in another process") if isinstance(error, NwbflowError) else error
        placed.add_note(f"in the block {show_region(task.region)} of {self.kit.name}, read in another process")
        return placed
