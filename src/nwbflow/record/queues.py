"""What waits for the journal of one series, and how that stands."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from nwbflow.record.journal import Block, frame_bytes
from nwbflow.record.manifest import LiveSeries

BLOCK_BYTES = 500
"""What a block that waits takes besides its rows, roughly: a queue of tiny blocks is mostly this."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How the blocks of one series came.

    Parameters
    ----------
    blocks : int
        How many.
    rows : int
        Rows of all of them but the first.
    seconds : float
        Time from the first of them to the last.
    """

    blocks: int = 0
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """How one series' queue stands.

    Parameters
    ----------
    rows, acknowledged : int
        Rows that were appended, and that are safe.
    nbytes, limit : int
        What waits for the journal, and what may, in bytes.
    lag_seconds : float
        Age of the oldest row that is not safe; 0 if all are.
    dropped : int
        Rows that were refused because the queue was full.
    arrivals : Arrivals
        How its blocks came.
    """

    rows: int
    acknowledged: int
    nbytes: int
    limit: int
    lag_seconds: float
    dropped: int
    arrivals: Arrivals


@dataclass(frozen=True, slots=True)
class Place:
    """What became of one block.

    Parameters
    ----------
    first : int
        Its first row in the series; or, if it was dropped, the row before which it is missing.
    count, dropped : int
        Rows that were taken, and that were not.
    """

    first: int
    count: int
    dropped: int = 0


@dataclass(slots=True)
class Queue:
    """One series' blocks that are not acknowledged.

    A Ctrl-C may come between any two steps of those who append. So a block is taken in the one step that lets it wait,
    and how many rows there are is not counted beside that, but seen from what waits.
    """

    spec: LiveSeries
    series: int
    room: threading.Condition
    settled: threading.Condition
    waiting: deque[Block]
    came: deque[tuple[int, float]]  # last row and time of each block that is not acknowledged
    calls: list[tuple[int, Callable[[], None]]]  # what to call when rows below are safe, or anything is for nought
    nbytes: int = 0
    taken: int = 0  # rows that the journal's thread has
    elsewhere: int = 0  # rows that wait in the lines of other queues
    acknowledged: int = 0
    blocks: int = 0
    first: tuple[int, float] = (0, 0.0)  # last row and time of the first block, and of the newest
    newest: tuple[int, float] = (0, 0.0)

    def note_arrival(self, now: float) -> None:
        """Note that a block has come."""
        self.newest = self.rows, now
        self.came.append(self.newest)
        if not self.blocks:
            self.first = self.newest
        self.blocks += 1

    @property
    def arrivals(self) -> Arrivals:
        """How its blocks came."""
        return Arrivals(self.blocks, self.newest[0] - self.first[0], self.newest[1] - self.first[1])

    @property
    def rows(self) -> int:
        """Rows that were appended."""
        for block in reversed(self.waiting):
            if block.series == self.series:
                return block.first + block.rows
        return self.taken + self.elsewhere

    def make_calls(self, *, even_if_not_safe: bool = False) -> None:
        """Call those who wait for what is so now, each once."""
        due = [call for end, call in self.calls if even_if_not_safe or end <= self.acknowledged]
        self.calls = [(end, call) for end, call in self.calls if not even_if_not_safe and end > self.acknowledged]
        for call in due:
            call()


def size_of(block: Block) -> int:
    """Return what a block takes while it waits."""
    return bytes_of(block.nbytes)


def bytes_of(nbytes: int) -> int:
    """Return what a block of so many bytes takes while it waits."""
    return frame_bytes(nbytes) + BLOCK_BYTES
