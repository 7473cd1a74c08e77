"""One dataset through a Dask cluster: a sliding window of tasks, their results taken in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
from distributed import Future, KilledWorker, wait

from nwbflow.engine.afar import Batch, Kit
from nwbflow.engine.intake import located
from nwbflow.errors import ErrorKind, ExecutorError, NwbflowError, SourceError
from nwbflow.model.data import Region, Source
from nwbflow.parallel.blocks import regions
from nwbflow.parallel.tasks import RawFile, encode_given, encode_raw, version
from nwbflow.sources.arrays import RawSource, SliceSource, show_region

if TYPE_CHECKING:
    from nwbflow.parallel.cluster import DaskExecutor

ATTEMPTS = 10
"""How often one block is given out again when what had been sent for it was lost with its worker."""

_GLANCE = 0.1


@dataclass(slots=True)
class _Task:
    region: Region
    future: Future
    attempts: int = 1


class Flow:
    """One dataset on its way through the cluster.

    Parameters
    ----------
    executor : DaskExecutor
        The cluster.
    kit : Kit
        How to encode.
    source : Source
        What.
    """

    def __init__(self, executor: DaskExecutor, kit: Kit, source: Source) -> None:
        self.executor, self.kit, self.source = executor, kit, source
        self.array = lazy(source)
        self.file = RawFile.of(source) if isinstance(source, RawSource) else None
        self.tasks: deque[_Task] = deque()

    def batches(self) -> Generator[Batch | None]:
        """Yield every block once, in storage order; ``None`` now and then while waiting."""
        left = self._regions()
        self.executor.fresh()
        more = True
        while more or self.tasks:
            # counted anew each time: jobs of a cluster begin one after another
            while more and len(self.tasks) < 2 * self.executor.workers + 1:
                region = next(left, None)
                more = region is not None
                if region is not None:
                    self.tasks.append((yield from self._submit(region)))
            if self.tasks:
                yield from self._first()

    def release(self) -> None:
        """Let go of what was not taken."""
        self.executor.forget([task.future for task in self.tasks])
        self.tasks.clear()

    def _regions(self) -> Iterator[Region]:
        least = None if self.array is None else tuple(max(sizes) for sizes in self.array.chunks)
        return regions(self.kit, self.source, least)

    # --- giving out ---------------------------------------------------------------------

    def _submit(self, region: Region, attempts: int = 1) -> Generator[None, None, _Task]:
        """Give out a block."""
        while True:
            future = yield from self._given_out(region)
            if future is not None:
                return _Task(region, future, attempts)
            self.executor.watch(self._place(region))
            time.sleep(_GLANCE)
            yield None

    def _given_out(self, region: Region) -> Generator[None, None, Future | None]:
        """Return the future of a block; ``None`` if it can't be sent at present."""
        client = self.executor.client
        if client.status != "running":
            return None
        try:
            if self.array is not None:
                work = dask.delayed(partial(encode_given, version(), self.kit, region), pure=False)
                return client.compute(work(self.array[region]))
            if self.file is not None:
                return client.submit(encode_raw, version(), self.kit, region, self.file, pure=False)
            data = np.ascontiguousarray(self.source.read(region))
        except Exception as error:
            if self.array is not None and _is_about_pickling(error):
                raise unpicklable(self.kit.name, error) from error
            raise self._placed(error, region) from error.__cause__
        try:
            sent = yield from self.executor.send(data, self._place(region))
            return client.submit(encode_given, version(), self.kit, region, sent, pure=False)
        except (OSError, CancelledError):
            return None  # no worker to send it to

    def _again(self, task: _Task) -> Generator[None]:
        """Give out the first block once more."""
        if task.attempts >= ATTEMPTS:
            text = f"{self._place(task.region)} was lost with its worker {task.attempts} times"
            raise ExecutorError(f"{text}. See to the cluster, and write again", kind=ErrorKind.WORKERS)
        self.tasks[0] = yield from self._submit(task.region, task.attempts + 1)

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
            batch = yield from self.executor.fetch(task.future, self._place(task.region))
        except Exception as error:
            if task.future.status == "error":  # asked first: what a task raises may look like a lost connection
                raise self._failed(error, task) from error.__cause__
            if not isinstance(error, OSError | CancelledError):
                raise self._placed(error, task.region) from error.__cause__
            # what had been sent went with its worker, or the scheduler was away
            self.executor.watch(self._place(task.region))
            yield from self._again(task)
            return
        if batch is None:  # the raw file is not to be seen from there
            self.file = None
            yield from self._again(task)
            return
        task.future.release()  # at once, not when the last frame that knows it goes: an error may hold frames for long
        self.tasks.popleft()
        self.executor.fresh()
        self.executor.watch(self._place(task.region))
        yield batch

    def _failed(self, error: Exception, task: _Task) -> BaseException:
        """Return what a task raised, with its place; a worker's end is an error of ours."""
        if isinstance(error, KilledWorker):
            return ExecutorError(
                f"{self._place(task.region)} was on {error.allowed_failures + 1} workers that died, the last of them "
                f"{error.last_worker.address}; it, or a block beside it, needs too much memory or crashes there: see "
                "their logs, give workers more memory or fewer threads, or make dask chunks smaller. More deaths are "
                "allowed with the scheduler's setting distributed.scheduler.allowed-failures",
                kind=ErrorKind.WORKERS,
            )
        placed = self._placed(error, task.region)
        if where := self.executor.blame(task.future):
            placed.add_note(f"on the worker {where}")
        return placed

    def _place(self, region: Region) -> str:
        return f"{self.kit.name}: block {show_region(region)}"

    def _placed(self, error: Exception, region: Region) -> BaseException:
        placed = located(error, self.kit.name, "on a worker") if isinstance(error, NwbflowError) else error
        placed.add_note(f"in the block {show_region(region)} of {self.kit.name}, computed by Dask")
        return placed


def lazy(source: Source) -> Any:
    """Return the dask array behind a source; ``None`` for any other."""
    array = source.array if isinstance(source, SliceSource) else None
    return array if dask.is_dask_collection(array) else None


def unpicklable(name: str, error: Exception) -> SourceError:
    """Return the error of a dask array that can't be sent to workers."""
    return SourceError(
        f"{name}: what computes it can't be pickled, so it can't be sent to workers: {type(error).__name__}: {error}. "
        "Build the dask array from what workers can open themselves (a path, not an open file), or write it without "
        "executor=",
        kind=ErrorKind.PICKLE,
    )


def _is_about_pickling(error: Exception) -> bool:
    return "serialize" in str(error).lower() or "pickle" in str(error).lower()
