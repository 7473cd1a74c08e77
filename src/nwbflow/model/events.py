"""Typed events a run announces, and who may listen.

Observers of a write are called in the thread that drives it, between chunks; those of a recording in a thread of
their own, so that they hold up nothing, and some events are left out if they are too slow. They can't change
the run; an observer that raises is dropped and the run goes on, with a note in the receipt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nwbflow.model.layout import Layout
from nwbflow.model.receipt import DatasetReceipt, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The structure is about to be written; nothing large has been touched.

    Parameters
    ----------
    path : pathlib.Path
        The file that will be there at the end.
    datasets : tuple of str
        Names of the large arrays.
    raw_bytes : int or None
        Their size before filters, in bytes; ``None`` if any length is unknown.
    workers : int
        Number of encoding threads.
    """

    path: Path
    datasets: tuple[str, ...]
    raw_bytes: int | None
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStarted:
    """The first block of a dataset is about to be read.

    Parameters
    ----------
    dataset : str
        Path inside the file.
    layout : Layout
        How it is stored.
    raw_bytes : int or None
        Size before filters, in bytes; ``None`` if the length is unknown.
    """

    dataset: str
    layout: Layout
    raw_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkStored:
    """One chunk is in the file.

    Parameters
    ----------
    dataset : str
        Path inside the file.
    offset : tuple of int
        Position of the chunk's first element.
    raw_bytes, stored_bytes : int
        Bytes of the chunk before filters (elements inside the dataset only) and after.
    read_seconds, encode_seconds, store_seconds : float
        Time of each stage for this chunk.
    queued : int
        Chunks being encoded or waiting to be stored.
    raw_done : int
        Bytes before filters stored for this dataset so far.
    lag_seconds : float
        Time from the data's arrival to their being stored.
    """

    dataset: str
    offset: tuple[int, ...]
    raw_bytes: int
    stored_bytes: int
    read_seconds: float
    encode_seconds: float
    store_seconds: float
    queued: int
    raw_done: int
    lag_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFinished:
    """All chunks of a dataset are in the file (not yet verified)."""

    dataset: str
    receipt: DatasetReceipt


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVerified:
    """A dataset is verified, at the level asked for: what was to be read back is what was sent."""

    dataset: str
    stored_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSent:
    """One part of a finished file is in the object store; nobody sees the file there before all are.

    Parameters
    ----------
    number, parts : int
        Which, from 1 on, and how many there are. They come in any order.
    kept : bool
        Whether an earlier, interrupted call had sent it, so that it was not sent again.
    bytes_done, bytes_total : int
        Size of what is there by now, and of the file.
    """

    number: int
    parts: int
    kept: bool
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something a careful user wants to know; the run goes on."""

    dataset: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The file is complete and in place."""

    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """The write failed; an older file at the path is untouched.

    Parameters
    ----------
    path : pathlib.Path
        The file asked for.
    partial : pathlib.Path or None
        What was written so far, if it is kept.
    error : str
        The error's text.
    """

    path: Path
    partial: Path | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """How one series (or table) of a recording stands.

    Parameters
    ----------
    name : str
        Absolute path inside the file.
    appended, acknowledged, folded : int
        Rows that were appended, that are safe, and that are in whole chunks of the partial file.
    row_bytes : int
        Size of one row of all its datasets before filters, in bytes.
    rows_per_second : float
        Rate of appending over the last few seconds; 0 where nothing came.
    declared_rate : float or None
        Rate the series was declared with, in hertz.
    queued_bytes, queue_limit : int
        What waits for the journal, and what may.
    lag_seconds : float
        Age of the oldest row that is not safe yet; 0 if all are.
    dropped : int
        Rows that were refused because the queue was full, and are marked in the file.
    """

    name: str
    appended: int
    acknowledged: int
    folded: int
    row_bytes: int
    rows_per_second: float
    declared_rate: float | None
    queued_bytes: int
    queue_limit: int
    lag_seconds: float
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsObserved:
    """How a recording stands; announced about twice a second while it runs and while it is being closed.

    Parameters
    ----------
    path : pathlib.Path
        The file that will be there at the end.
    seconds : float
        Since the recording began.
    streams : tuple of StreamState
        Every series, in the order of the file.
    journal_bytes : int
        What the journal takes on its disk.
    disk_free : int
        Bytes left on that disk.
    closing : bool
        Whether nothing more is taken, and the file is being finished.
    """

    path: Path
    seconds: float
    streams: tuple[StreamState, ...]
    journal_bytes: int
    disk_free: int
    closing: bool


type Event = (
    RunStarted
    | DatasetStarted
    | ChunkStored
    | DatasetFinished
    | DatasetVerified
    | PartSent
    | StreamsObserved
    | Warned
    | RunFinished
    | RunFailed
)


class Observer(Protocol):
    """Anything callable with one event."""

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`; must return quickly."""
        ...
