"""Blocks through a Dask cluster: a sliding window of tasks, their results taken in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask
import numpy as np
from distributed import Client, Future, KilledWorker, wait
from distributed.protocol.pickle import dumps

from nwbflow.engine.afar import Batch, Kit
from nwbflow.engine.intake import located
from nwbflow.errors import ErrorKind, ExecutorError, NwbflowError, SourceError
from nwbflow.model.data import Region, Source
from nwbflow.model.layout import Layout, Shape
from nwbflow.parallel.tasks import RawFile, encode_given, encode_raw, version
from nwbflow.planning.grid import block_shape, chunk_region, iter_offsets
from nwbflow.sources.arrays import RawSource, SliceSource, show_region

BLOCK_BYTES = 16 * 2**20
"""What a task takes in before compression, in bytes: some tenths of a second of work."""

ATTEMPTS = 10
"""How often one block is given out again when what had been sent for it was lost with its worker."""

_GLANCE = 0.1
_ANSWER = 5.0
_GATHER = 10.0
_START = 120.0


@dataclass(slots=True)
class _Task:
    region: Region
    future: Future
    attempts: int = 1


class DaskExecutor:
    """Computes and encodes on a Dask cluster; made by :func:`nwbflow.parallel.dask`.

    Parameters
    ----------
    client : distributed.Client
        Connected to the scheduler.
    patience : float
        Seconds to go on without a worker.
    """

    name = "Dask"

    def __init__(self, client: Client, patience: float) -> None:
        self.client = client
        self.patience = patience
        self.direct = True
        self._looked = self._seen = time.monotonic()

    @property
    def workers(self) -> int:
        """Threads of all workers, at present; at least 1."""
        return max(1, self._threads() or 0)

    def begin(self) -> None:
        """Wait for a worker, and compare versions.

        Raises
        ------
        ExecutorError
            If none comes, or one can't do it.
        """
        self._seen = time.monotonic()
        while not self._threads():
            self._give_up("before anything was written")
            time.sleep(_GLANCE)
        here = version()
        try:
            found = self._ask(partial(self.client.run, version, on_error="return", asynchronous=True), _START)
        except (OSError, TimeoutError) as error:
            raise ExecutorError(
                f"the workers of {self._where} don't answer: {error}", kind=ErrorKind.WORKERS
            ) from error
        for address, there in found.items():
            if there != here and not isinstance(there, OSError):
                raise ExecutorError(
                    f"the worker {address} can't encode for nwbflow {here[0]} on Python {here[1]}: it has {there!r}. "
                    "Give workers and scheduler the environment of this program",
                    kind=ErrorKind.WORKERS,
                )

    def check(self, name: str, source: Source, layout: Layout, /) -> None:
        """Try to pickle the first and the last block of a dask array, so that it fails before anything is written.

        Raises
        ------
        SourceError
            Kind ``PICKLE``.
        """
        array = lazy(source)
        if array is None or layout.chunks is None or 0 in layout.shape:
            return
        shape = layout.shape
        ends = [tuple(0 for _ in shape), tuple((n - 1) // c * c for n, c in zip(shape, layout.chunks, strict=True))]
        for offset in ends:
            part = array[chunk_region(offset, layout.chunks, shape)]
            try:
                dumps(dict(part.__dask_optimize__(part.__dask_graph__(), part.__dask_keys__())))
            except Exception as error:
                raise _unpicklable(name, error) from error

    def run(self, kit: Kit, source: Source, /) -> Generator[Batch | None]:
        """Yield every block once, in storage order; ``None`` now and then while waiting.

        Raises
        ------
        ExecutorError
            If there is no worker, or no scheduler, for longer than the patience.
        NwbflowError, Exception
            What a task raised, with a note of dataset and block.
        """
        run = _Run(self, kit, source)
        try:
            yield from run.batches()
        finally:
            run.release()

    # --- the cluster --------------------------------------------------------------------

    @property
    def _where(self) -> str:
        scheduler = self.client.scheduler
        return f"the scheduler at {scheduler.address}" if scheduler is not None else "a scheduler that is gone"

    def watch(self, doing: str) -> None:
        """Raise if there has been no worker, or no scheduler, for too long; looks once a second."""
        now = time.monotonic()
        if now - self._looked < 1.0:
            return
        threads = self._threads()
        self._looked = time.monotonic()
        if threads:
            self._seen = self._looked
        else:
            self._give_up(doing)

    def fresh(self) -> None:
        """Begin to count the time without workers anew."""
        self._seen = self._looked = time.monotonic()

    def _give_up(self, doing: str) -> None:
        gone = self.client.status in ("closed", "closing")
        if gone or time.monotonic() - self._seen > self.patience:
            what = (
                "is gone" if gone or self.client.status != "running" else "has no workers any more, or doesn't answer"
            )
            raise ExecutorError(
                f"{doing}: {self._where} {what}, for {time.monotonic() - self._seen:.0f} s now. See to the cluster, "
                "and write again; patience= of nwbflow.parallel.dask says how long to wait for workers",
                kind=ErrorKind.WORKERS,
            )

    def _threads(self) -> int | None:
        """Return how many threads all workers have; ``None`` without an answer."""
        if self.client.status != "running":
            return None
        try:
            return int(sum(self._ask(partial(self.client.nthreads, asynchronous=True), _ANSWER).values()))
        except (OSError, TimeoutError):
            return None

    def _ask(self, question: Callable[[], Any], timeout: float) -> Any:
        return self.client.sync(question, callback_timeout=timeout)

    def fetch(self, future: Future) -> Any:
        """Return a result, from the worker itself where that can be reached.

        Raises
        ------
        TimeoutError
            If it does not come; ask again.
        """
        ask = partial(self.client.gather, future, direct=self.direct, asynchronous=True)
        try:
            return self._ask(ask, _GATHER)
        except TimeoutError:
            self.direct = False  # workers behind a wall: through the scheduler then
            raise

    def send(self, block: Any) -> Future:
        """Send a block of elements to one of the workers."""
        return self.client.scatter(block, direct=self.direct, hash=False, timeout=_ANSWER)


class _Run:
    """One dataset on its way through the cluster."""

    def __init__(self, executor: DaskExecutor, kit: Kit, source: Source) -> None:
        self.executor, self.kit, self.source = executor, kit, source
        self.array = lazy(source)
        self.file = RawFile.of(source) if isinstance(source, RawSource) else None
        self.tasks: deque[_Task] = deque()

    def batches(self) -> Generator[Batch | None]:
        regions = self._regions()
        self.executor.fresh()
        window = 2 * self.executor.workers + 1
        more = True
        while more or self.tasks:
            while more and len(self.tasks) < window:
                region = next(regions, None)
                more = region is not None
                if region is not None:
                    yield from self._submit(region)
            if self.tasks:
                yield from self._first()

    def release(self) -> None:
        """Let go of what was not taken; the scheduler forgets it."""
        futures = [task.future for task in self.tasks]
        self.tasks.clear()
        if futures and self.executor.client.status == "running":
            self.executor.client.cancel(futures)

    def _regions(self) -> Iterator[Region]:
        shape = self.kit.layout.shape
        if 0 in shape:
            return
        least: Shape | None = None if self.array is None else tuple(max(sizes) for sizes in self.array.chunks)
        itemsize = max(self.source.dtype.itemsize, self.kit.layout.dtype.itemsize)
        block = block_shape(shape, self.kit.chunks, itemsize, BLOCK_BYTES, least)
        for offset in iter_offsets(shape, block):
            yield chunk_region(offset, block, shape)

    # --- giving out ---------------------------------------------------------------------

    def _submit(self, region: Region) -> Generator[None]:
        """Give out one more block."""
        while (task := self._given_out(region)) is None:
            self.executor.watch(self._place(region))
            yield
        self.tasks.append(task)

    def _given_out(self, region: Region) -> _Task | None:
        """Return the task for a block; ``None`` if it can't be sent at present."""
        client = self.executor.client
        try:
            if self.array is not None:
                work = dask.delayed(partial(encode_given, self.kit, region), pure=False)
                return _Task(region, client.compute(work(self.array[region])))
            if self.file is not None:
                future = client.submit(encode_raw, self.kit, region, self.file, pure=False)
                return _Task(region, future)
            data = np.ascontiguousarray(self.source.read(region))
        except Exception as error:
            raise self._placed(error, region) from error.__cause__
        try:
            sent = self.executor.send(data)
            future = client.submit(encode_given, self.kit, region, sent, pure=False)
        except (OSError, TimeoutError, CancelledError):
            return None  # no worker to send it to
        return _Task(region, future)

    def _again(self, task: _Task) -> Generator[None]:
        """Give out the first block once more."""
        if task.attempts >= ATTEMPTS:
            text = f"{self._place(task.region)} was lost with its worker {task.attempts} times"
            raise ExecutorError(f"{text}. See to the cluster, and write again", kind=ErrorKind.WORKERS)
        while (new := self._given_out(task.region)) is None:
            self.executor.watch(self._place(task.region))
            yield
        new.attempts = task.attempts + 1
        self.tasks[0] = new

    # --- taking in ----------------------------------------------------------------------

    def _first(self) -> Generator[Batch | None]:
        """Wait for the first block of the window, and hand it on."""
        task = self.tasks[0]
        while task.future.status == "pending":
            try:
                wait([task.future], timeout=_GLANCE)
            except (TimeoutError, CancelledError):
                self.executor.watch(self._place(task.region))
                yield None
        try:
            batch = self.executor.fetch(task.future)
        except TimeoutError:
            self.executor.watch(self._place(task.region))
            yield None
            return
        except CancelledError:
            # what had been sent went with its worker, or the scheduler was away
            self.executor.watch(self._place(task.region))
            yield from self._again(task)
            return
        except KilledWorker as error:
            text = f"{self._place(task.region)}: {error}"
            raise ExecutorError(f"{text}. What is stored up to here is kept", kind=ErrorKind.WORKERS) from error
        except Exception as error:
            raise self._placed(error, task.region) from error.__cause__
        if batch is None:  # the raw file is not to be seen from there
            self.file = None
            yield from self._again(task)
            return
        self.tasks.popleft()
        self.executor.fresh()
        yield batch

    def _place(self, region: Region) -> str:
        return f"{self.kit.name}: block {show_region(region)}"

    def _placed(self, error: Exception, region: Region) -> BaseException:
        if not isinstance(error, NwbflowError) and "serialize" in str(error).lower():
            return _unpicklable(self.kit.name, error)
        placed = located(error, self.kit.name, "on a worker") if isinstance(error, NwbflowError) else error
        placed.add_note(f"in the block {show_region(region)} of {self.kit.name}, computed by Dask")
        return placed


def lazy(source: Source) -> Any:
    """Return the dask array behind a source; ``None`` for any other."""
    array = source.array if isinstance(source, SliceSource) else None
    return array if dask.is_dask_collection(array) else None


def _unpicklable(name: str, error: Exception) -> SourceError:
    return SourceError(
        f"{name}: what computes it can't be pickled, so it can't be sent to workers: {type(error).__name__}: {error}. "
        "Build the dask array from what workers can open themselves (a path, not an open file), or write it without "
        "executor=",
        kind=ErrorKind.PICKLE,
    )
