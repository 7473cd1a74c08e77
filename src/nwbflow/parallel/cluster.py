"""A Dask cluster: who is there, who can do it, and what it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent import futures
from contextlib import suppress
from functools import partial
from typing import Any

from distributed import Client, Future
from distributed.protocol.pickle import dumps

from nwbflow.engine.afar import Batch, Kit
from nwbflow.errors import ErrorKind, ExecutorError
from nwbflow.model.data import Source
from nwbflow.model.layout import Layout
from nwbflow.parallel.flow import Flow, lazy, unpicklable
from nwbflow.parallel.tasks import failed_on, version
from nwbflow.planning.grid import chunk_region

_GLANCE = 0.1
_ANSWER = 5.0
_START = 120.0
_DIRECT = 10.0
_LOOK = 1.0


class _SlowError(Exception):
    pass


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
        self._count: int | None = None
        self._looked = self._seen = time.monotonic()

    @property
    def workers(self) -> int:
        """Threads of all workers, when last looked; at least 1."""
        return max(1, self._count or 0)

    def begin(self) -> None:
        """Wait for a worker, and compare versions.

        Raises
        ------
        ExecutorError
            If none comes, or one can't do it.
        """
        self.fresh()
        self._wait_for_one()
        here = version()
        try:
            found = self._ask(partial(self.client.run, version, on_error="return", asynchronous=True), _START)
        except OSError as error:
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

    def takes(self, source: Source, /) -> bool:  # noqa: ARG002 - the protocol's
        """Return True: what workers can't read themselves is sent to them."""
        return True

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
                raise unpicklable(name, error) from error

    def run(self, kit: Kit, source: Source, /) -> Generator[Batch | None]:
        """Yield every block once, in storage order; ``None`` now and then while waiting.

        Raises
        ------
        ExecutorError
            If there is no worker, or no scheduler, for longer than the patience.
        NwbflowError, Exception
            What a task raised, with a note of dataset and block.
        """
        flow = Flow(self, kit, source)
        try:
            yield from flow.batches()
        finally:
            flow.release()

    # --- who is there -------------------------------------------------------------------

    @property
    def _where(self) -> str:
        scheduler = self.client.scheduler
        return f"the scheduler at {scheduler.address}" if scheduler is not None else "a scheduler that is gone"

    def _wait_for_one(self) -> None:
        """Wait for a worker. A task waits with us: clusters that grow on demand start no worker without one."""
        call: Future | None = None
        try:
            while not self._threads():
                self._give_up("before anything was written")
                if self.client.status == "running" and (call is None or call.status == "cancelled"):
                    call = self.client.submit(version, pure=False)
                time.sleep(_GLANCE)
        finally:
            self.forget([] if call is None else [call])

    def watch(self, doing: str) -> None:
        """Raise if there has been no worker, or no scheduler, for too long; looks once a second."""
        if time.monotonic() - self._looked < _LOOK:
            return
        threads = self._threads()
        self._looked = time.monotonic()
        if threads:
            self._seen = self._looked
        else:
            self._give_up(doing)

    def fresh(self) -> None:
        """Begin to count the time without workers anew."""
        self._seen = time.monotonic()

    def _give_up(self, doing: str) -> None:
        gone = self.client.status in ("closed", "closing")
        if gone or time.monotonic() - self._seen > self.patience:
            what = "is gone" if gone else "doesn't answer" if self._count is None else "has no workers"
            raise ExecutorError(
                f"{doing}: {self._where} {what}, for {time.monotonic() - self._seen:.0f} s now. See to the cluster, "
                "and write again; patience= of nwbflow.parallel.dask says how long to wait for workers",
                kind=ErrorKind.WORKERS,
            )

    def _threads(self) -> int | None:
        """Return how many threads all workers have; ``None`` without an answer."""
        self._count = None
        if self.client.status == "running":
            with suppress(OSError):
                self._count = int(sum(self._ask(partial(self.client.nthreads, asynchronous=True), _ANSWER).values()))
        return self._count

    # --- what it answers ----------------------------------------------------------------

    def _ask(self, question: Callable[[], Any], timeout: float) -> Any:
        return self.client.sync(question, callback_timeout=timeout)

    def _wait(self, question: Callable[[], Any], doing: str, limit: float) -> Generator[None, None, Any]:
        """Return the answer to a question that may take long; the cluster is watched meanwhile.

        Raises
        ------
        _SlowError
            After `limit` seconds.
        ExecutorError
            If the cluster is gone.
        OSError, CancelledError
            If the connection went.
        """
        started = time.monotonic()
        # the client's own calls would wait for a scheduler that is gone as long as the client may reconnect
        answer = asyncio.run_coroutine_threadsafe(question(), self.client.loop.asyncio_loop)
        try:
            while not futures.wait([answer], timeout=_GLANCE).done:
                if time.monotonic() - started > limit:
                    raise _SlowError
                self.watch(doing)
                yield None
            return answer.result()
        finally:
            answer.cancel()

    def fetch(self, future: Future, doing: str) -> Generator[None, None, Any]:
        """Return a result, from the worker itself where that can be reached; raises as :meth:`send`."""
        return (yield from self._directly(partial(self.client.gather, future, asynchronous=True), doing))

    def send(self, block: Any, doing: str) -> Generator[None, None, Any]:
        """Send a block of elements to one of the workers.

        Raises
        ------
        ExecutorError
            If the cluster is gone.
        OSError, CancelledError
            If the connection went, or the worker.
        """
        if self.client.status != "running":
            raise ConnectionError
        ask = partial(self.client.scatter, block, hash=False, timeout=_ANSWER, asynchronous=True)
        return (yield from self._directly(ask, doing))

    def _directly(self, ask: Callable[..., Any], doing: str) -> Generator[None, None, Any]:
        if self.direct:
            try:
                return (yield from self._wait(partial(ask, direct=True), doing, _DIRECT))
            except _SlowError:
                self.direct = False  # workers behind a wall: through the scheduler from now on
            except OSError:
                pass  # not to be reached: through the scheduler this time
        return (yield from self._wait(partial(ask, direct=False), doing, float("inf")))

    def blame(self, future: Future) -> str:
        """Return which workers a task failed on; empty if nobody says."""
        try:
            names = self._ask(partial(self.client.run_on_scheduler, failed_on, future.key, asynchronous=True), _ANSWER)
        except Exception:  # only a hint
            return ""
        return ", ".join(names)

    def forget(self, given: list[Future]) -> None:
        """Let go of tasks; the scheduler forgets them."""
        if given and self.client.status == "running":
            with suppress(OSError):  # nobody is there who could forget
                self._ask(partial(self.client.cancel, given, asynchronous=True), _ANSWER)
