"""Between those who append and the journal: bounded queues, fair to every series, and what is acknowledged."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from nwbflow.errors import DurabilityError, ErrorKind, SettingsError, SourceError
from nwbflow.model.data import Array
from nwbflow.record.blocks import count_rows
from nwbflow.record.gaps import Gaps
from nwbflow.record.journal import Block
from nwbflow.record.manifest import LiveSeries
from nwbflow.record.queues import Place, Queue, QueueState, bytes_of, size_of

BATCH_BYTES = 8 * 2**20
"""What is written to the journal at a time, at most, if several blocks wait."""


class Intake:
    """Takes blocks from any thread, gives them to the one that writes the journal, and knows what is safe.

    Parameters
    ----------
    series : sequence of LiveSeries
        In the order of the manifest.
    limit : int
        Bytes of each series that may wait.
    dropping : collection of str
        Names of the series whose blocks are dropped when their queue is full.
    """

    def __init__(self, series: Sequence[LiveSeries], limit: int, dropping: Collection[str] = ()) -> None:
        self._limit = limit
        self._gaps = Gaps(series, dropping)
        self._lock = threading.RLock()  # reentrant only so that it can tell who has it; see check_reentry
        self._work = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._queues = [
            Queue(spec, at, threading.Condition(self._lock), threading.Condition(self._lock), deque(), deque(), [])
            for at, spec in enumerate(series)
        ]
        self._next = 0
        self._frames = 0
        self._closed = False
        self._failure: tuple[str, ErrorKind] | None = None
        self._trouble: str | None = None
        self._hinders = False

    def check_reentry(self) -> None:
        """Refuse what a signal handler wants in the middle of a change that its own thread has begun.

        Raises
        ------
        SettingsError
            Kind ``LOCKED``.
        """
        try:
            self._work.notify(0)
        except RuntimeError:
            return  # this thread has not got the lock
        raise SettingsError(
            "a signal handler has interrupted append or wait, and can't append, wait or close in the middle of it; "
            "set a flag in the handler, and look at it where you append",
            kind=ErrorKind.LOCKED,
        )

    # --- those who append ---------------------------------------------------------------

    def put(self, series: int, parts: tuple[Array, ...], rows: int, timeout: float | None) -> Place:
        """Queue one block, or drop it; return what became of it. While the queue is full, this waits, or drops.

        Raises
        ------
        SourceError
            If the block is larger than the queue.
        SettingsError
            If the recorder is closed.
        DurabilityError
            If the journal can't be written any more, or not within `timeout` seconds.
        """
        queue = self._queues[series]
        block = Block(series, 0, rows, parts)
        self._check_size(queue, size_of(block))
        deadline = None if timeout is None else time.monotonic() + timeout
        self.check_reentry()
        with self._lock:
            while (place := self._placed(queue, block)) is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise self._too_slow(queue, timeout)
                queue.room.wait(left)
            return place

    def offer(self, series: int, parts: tuple[Array, ...], rows: int, call: Callable[[], None]) -> Place | None:
        """Do as :meth:`put`, but where that would wait, return ``None`` and `call` when to try again.

        Raises
        ------
        SourceError, SettingsError, DurabilityError
            As :meth:`put`.
        """
        queue = self._queues[series]
        block = Block(series, 0, rows, parts)
        self._check_size(queue, size_of(block))
        self.check_reentry()
        with self._lock:
            place = self._placed(queue, block)
            if place is None:
                queue.calls.append((0, call))
            return place

    def _placed(self, queue: Queue, block: Block) -> Place | None:
        """Queue a block or drop it; return ``None`` if it has to wait."""
        self._check(queue)
        first, rows, series = queue.rows, block.rows, block.series
        if not rows:
            return Place(first, 0)
        if queue.nbytes + size_of(block) <= self._limit:
            count_rows(block.parts, queue.spec, first)
            self._enqueue(queue, (*self._gap(series, first), replace(block, first=first)))
            return Place(first, rows)
        self._hinders = True
        if not self._gaps.drops(series):
            return None
        self._gaps.drop(series, first, rows, block.parts)
        return Place(first, 0, rows)

    def _check_size(self, queue: Queue, size: int) -> None:
        if size > self._limit:
            raise SourceError(
                f"{queue.spec.name}: a block of {size - bytes_of(0)} bytes doesn't fit into the queue of {self._limit} "
                "bytes; append smaller blocks, or make it larger (queue='256 MiB')",
                kind=ErrorKind.BOUNDS,
            )

    def _gap(self, series: int, before: int) -> tuple[Block, ...]:
        """Return the row that tells of a gap, if there is one now, for the line in which the block behind it waits."""
        row = self._gaps.row(series, before)
        return () if row is None or self._gaps.table is None else (Block(self._gaps.table, 0, 1, row),)

    def _enqueue(self, line: Queue, blocks: Sequence[Block]) -> None:
        """Let blocks wait; where a Ctrl-C comes behind that step they are taken, though nobody is told."""
        self._work.notify()
        line.waiting.extend(blocks)
        now = time.monotonic()
        for block in blocks:
            queue = self._queues[block.series]
            if queue is not line:
                queue.elsewhere += block.rows
            queue.note_arrival(now)
            queue.nbytes += size_of(block)

    def _check(self, queue: Queue) -> None:
        if self._failure is not None:
            raise self._lost(queue)
        if self._closed:
            raise SettingsError(
                f"{queue.spec.name}: the recorder is closed; nothing can be appended any more", kind=ErrorKind.CLOSED
            )

    def _lost(self, queue: Queue) -> DurabilityError:
        text, kind = self._failure or ("", ErrorKind.IO)
        return DurabilityError(
            f"{queue.spec.name}: {text}. {queue.acknowledged} rows are safe (of {queue.rows} appended): close the "
            "recorder, or run nwbflow recover, to get them; begin a new recording on another disk",
            kind=kind,
            durable=queue.acknowledged,
        )

    def _too_slow(self, queue: Queue, timeout: float | None) -> DurabilityError:
        cause = self._trouble or "the disk is slower than the data"
        kind = ErrorKind.NO_SPACE if self._trouble else ErrorKind.IO
        return DurabilityError(
            f"{queue.spec.name}: the queue is full for {timeout} s: {cause}. The block was not taken; "
            f"{queue.acknowledged} rows are safe. Append it again later, or make the queue larger",
            kind=kind,
            durable=queue.acknowledged,
        )

    def acknowledged(self, series: int) -> int:
        """Return how many rows of a series are safe; holds no lock, so that signal handlers can ask at any time."""
        return self._queues[series].acknowledged

    def states(self) -> tuple[QueueState, ...]:
        """Return how every series stands, in the order of the manifest."""
        self.check_reentry()
        with self._lock:
            now = time.monotonic()
            return tuple(
                QueueState(
                    rows=queue.rows,
                    acknowledged=queue.acknowledged,
                    nbytes=queue.nbytes,
                    limit=self._limit,
                    lag_seconds=now - queue.came[0][1] if queue.came else 0.0,
                    dropped=self._gaps.dropped(series),
                    arrivals=queue.arrivals,
                )
                for series, queue in enumerate(self._queues)
            )

    @property
    def is_closed(self) -> bool:
        """Whether no more blocks are taken."""
        return self._closed or self._failure is not None

    def wait(self, series: int, end: int, timeout: float | None) -> bool:
        """Wait until all rows below `end` are safe; return whether they are.

        Raises
        ------
        DurabilityError
            If they never will be.
        """
        queue = self._queues[series]
        deadline = None if timeout is None else time.monotonic() + timeout
        self.check_reentry()
        with self._lock:
            while queue.acknowledged < end:
                if self._failure is not None:
                    raise self._lost(queue)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                queue.settled.wait(left)
            return True

    def tell(self, series: int, end: int, call: Callable[[], None]) -> bool:
        """Call something once all rows below `end` are safe, or never will be; ``False`` if that is so already."""
        queue = self._queues[series]
        self.check_reentry()
        with self._lock:
            if queue.acknowledged >= end or self._failure is not None:
                return False
            queue.calls.append((end, call))
            return True

    # --- the one who writes the journal ---------------------------------------------------

    def take(self) -> list[Block]:
        """Wait for blocks and return some, one of each series in turn; nothing when closed and empty."""
        self.check_reentry()
        with self._lock:
            while self._failure is not None or not any(queue.waiting for queue in self._queues):
                if self._closed or self._failure is not None:
                    return []
                self._work.wait()
            taken: list[Block] = []
            size = 0
            while size < BATCH_BYTES:
                queue = self._queue_in_turn()
                if queue is None:
                    break
                taken.append(self._numbered(queue.waiting.popleft()))
                size += size_of(taken[-1])
            return taken

    def _numbered(self, block: Block) -> Block:
        """Count a block as taken; give a row that tells of a gap its number, since these wait in several lines."""
        queue = self._queues[block.series]
        if block.series == self._gaps.table:
            queue.elsewhere = max(0, queue.elsewhere - 1)
            count_rows(block.parts, queue.spec, queue.taken)
            block = replace(block, first=queue.taken)
        queue.taken = block.first + block.rows
        return block

    def _queue_in_turn(self) -> Queue | None:
        for _ in self._queues:
            queue = self._queues[self._next]
            self._next = (self._next + 1) % len(self._queues)
            if queue.waiting:
                return queue
        return None

    def settle(self, blocks: Sequence[Block]) -> None:
        """Acknowledge blocks: they are in the journal. Not after a failure: that it is the end has been said."""
        self.check_reentry()
        with self._lock:
            if self._failure is not None:
                return
            self._trouble = None
            self._hinders = False
            for block in blocks:
                queue = self._queues[block.series]
                queue.acknowledged = block.first + block.rows
                queue.nbytes = max(0, queue.nbytes - size_of(block))
                while queue.came and queue.came[0][0] <= queue.acknowledged:
                    queue.came.popleft()
            self._frames += len(blocks)
            for series in {block.series for block in blocks}:
                self._queues[series].settled.notify_all()
                self._queues[series].room.notify_all()
                self._queues[series].make_calls()
            self._progress.notify_all()

    def free(self, blocks: Sequence[Block]) -> None:
        """Give room to those who wait: these blocks do not wait any more, though they are not safe yet."""
        self.check_reentry()
        with self._lock:
            for block in blocks:
                queue = self._queues[block.series]
                queue.nbytes = max(0, queue.nbytes - size_of(block))
            for series in {block.series for block in blocks}:
                self._queues[series].room.notify_all()
                self._queues[series].make_calls()

    def reach(self, rows: Sequence[int]) -> None:
        """Acknowledge so many rows of each series. Not after a failure, as with :meth:`settle`."""
        self.check_reentry()
        with self._lock:
            if self._failure is not None:
                return
            for queue, count in zip(self._queues, rows, strict=True):
                queue.acknowledged = count
                while queue.came and queue.came[0][0] <= count:
                    queue.came.popleft()
                queue.settled.notify_all()
                queue.make_calls()

    @property
    def has_waiting(self) -> bool:
        """Whether there are blocks to take."""
        return any(queue.waiting for queue in self._queues)

    @property
    def is_short(self) -> bool:
        """Whether somebody has waited for room since something was settled, or soon will, or waits for the end."""
        return self._closed or self._hinders or any(2 * queue.nbytes > self._limit for queue in self._queues)

    def wait_in_trouble(self, text: str, seconds: float) -> bool:
        """Note that the disk is full and wait a little; return whether to try again."""
        self.check_reentry()
        with self._lock:
            self._trouble = text
            if self._closed or self._failure is not None:
                return False
            self._work.wait(seconds)
            return True

    def fail(self, text: str, kind: ErrorKind) -> None:
        """Give up: nothing that waits will be safe."""
        self.check_reentry()
        with self._lock:
            self._failure = self._failure or (text, kind)
            self._wake()

    # --- the one who folds, and the end ---------------------------------------------------

    def wait_for_frame(self, number: int, timeout: float) -> bool | None:
        """Wait until frame `number` is in the journal; return whether it ever will be, ``None`` if not yet."""
        deadline = time.monotonic() + timeout
        self.check_reentry()
        with self._lock:
            while self._frames <= number:
                if self._failure is not None or (self._closed and not self._unsettled()):
                    return False
                if not self._progress.wait(deadline - time.monotonic()):
                    return None
            return True

    def _unsettled(self) -> bool:
        return any(queue.acknowledged < queue.rows for queue in self._queues)

    def close(self) -> None:
        """Take no more blocks; gaps at the end are marked."""
        self.check_reentry()
        with self._lock:
            if not self._closed:
                self._closed = True
                for series, queue in enumerate(self._queues):
                    self._enqueue(queue, self._gap(series, queue.rows))
            self._wake()

    def gap_notes(self) -> list[str]:
        """Return what the receipt has to say of dropped blocks."""
        return self._gaps.notes()

    def first_lost(self) -> DurabilityError | None:
        """Return the error for rows that were appended and are not safe, if there are any."""
        self.check_reentry()
        with self._lock:
            lost = [queue for queue in self._queues if queue.acknowledged < queue.rows]
            return self._lost(lost[0]) if lost and self._failure is not None else None

    def _wake(self) -> None:
        for queue in self._queues:
            queue.make_calls(even_if_not_safe=self._failure is not None)
        for condition in (
            self._work,
            self._progress,
            *(q.room for q in self._queues),
            *(q.settled for q in self._queues),
        ):
            condition.notify_all()
