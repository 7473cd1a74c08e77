"""What is counted of one run, for metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from nwbflow.model.events import (
    ChunkStored,
    DatasetFinished,
    DatasetVerified,
    Event,
    RunFailed,
    RunFinished,
    StreamsObserved,
    StreamState,
    Warned,
)
from nwbflow.model.receipt import DatasetReceipt

STATES = ("running", "closing", "finished", "failed")
"""What a run can be."""

type Figure = tuple[str, str, tuple[tuple[str, str], ...], float]
"""Name (``_total`` for what only grows), help, labels besides the file, value."""


@dataclass(slots=True)
class _Dataset:
    """Figures of one dataset."""

    chunks: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    encode_seconds: float = 0.0
    store_seconds: float = 0.0
    lag_seconds: float = 0.0
    verified: bool = False

    def add(self, event: ChunkStored) -> None:
        self.chunks += 1
        self.raw_bytes += event.raw_bytes
        self.stored_bytes += event.stored_bytes
        self.encode_seconds += event.encode_seconds
        self.store_seconds += event.store_seconds
        self.lag_seconds = event.lag_seconds

    def finish(self, receipt: DatasetReceipt) -> None:
        """Take over what is right: chunks may have been left out, or stored twice."""
        self.chunks = receipt.chunks
        self.raw_bytes, self.stored_bytes = receipt.raw_bytes, receipt.stored_bytes
        self.encode_seconds, self.store_seconds = receipt.encode_seconds, receipt.store_seconds
        self.lag_seconds = 0.0


@dataclass(slots=True)
class Counts:
    """What is counted of one run: an observer.

    Attributes
    ----------
    began : float
        When, in seconds since 1970.
    """

    began: float = field(default_factory=time.time)
    _datasets: dict[str, _Dataset] = field(default_factory=dict)
    _observed: StreamsObserved | None = None
    _queued: int = 0
    _warnings: int = 0
    _end: str | None = None

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`."""
        match event:
            case ChunkStored():
                self._datasets.setdefault(event.dataset, _Dataset()).add(event)
                self._queued = event.queued
            case DatasetFinished():
                self._datasets.setdefault(event.dataset, _Dataset()).finish(event.receipt)
            case DatasetVerified():
                self._datasets.setdefault(event.dataset, _Dataset()).verified = True
            case StreamsObserved():
                self._observed = event
            case Warned():
                self._warnings += 1
            case RunFinished():
                self._end, self._queued = "finished", 0
            case RunFailed():
                self._end, self._queued = "failed", 0

    @property
    def _state(self) -> str:
        if self._end is not None:
            return self._end
        return "closing" if self._observed is not None and self._observed.closing else "running"

    def figures(self) -> Iterator[Figure]:
        """Give all figures; those of one name may come apart."""
        yield "nwbflow_run_start_time_seconds", "When the run began, since 1970.", (), self.began
        for state in STATES:
            text = "1 for what the run is, 0 for what it is not."
            yield "nwbflow_run_state", text, (("state", state),), float(state == self._state)
        yield "nwbflow_warnings_total", "Warnings of the run.", (), self._warnings
        yield "nwbflow_queued_chunks", "Chunks being encoded or waiting to be stored.", (), self._queued
        raw = sum(d.raw_bytes for d in self._datasets.values())
        stored = sum(d.stored_bytes for d in self._datasets.values())
        if stored:
            yield "nwbflow_compression_ratio", "Bytes before filters for one byte after.", (), raw / stored
        for name, dataset in self._datasets.items():
            yield from _dataset_figures(name, dataset)
        if self._observed is not None:
            observed = self._observed
            yield "nwbflow_journal_bytes", "What the journal takes on its disk.", (), observed.journal_bytes
            yield "nwbflow_disk_free_bytes", "Bytes left on the journal's disk.", (), observed.disk_free
            for stream in observed.streams:
                yield from _stream_figures(stream)


def _dataset_figures(name: str, dataset: _Dataset) -> Iterator[Figure]:
    at = (("dataset", name),)
    yield "nwbflow_dataset_chunks_total", "Chunks stored.", at, dataset.chunks
    yield "nwbflow_dataset_raw_bytes_total", "Bytes stored, before filters.", at, dataset.raw_bytes
    yield "nwbflow_dataset_stored_bytes_total", "Bytes stored, after filters.", at, dataset.stored_bytes
    yield "nwbflow_dataset_encode_seconds_total", "Time spent encoding, all workers.", at, dataset.encode_seconds
    yield "nwbflow_dataset_store_seconds_total", "Time spent storing.", at, dataset.store_seconds
    yield "nwbflow_dataset_lag_seconds", "From arrival to storing, of the last chunk.", at, dataset.lag_seconds
    yield "nwbflow_dataset_verified", "1 if what was stored was read back and is right.", at, float(dataset.verified)


def _stream_figures(stream: StreamState) -> Iterator[Figure]:
    at = (("stream", stream.name),)
    yield "nwbflow_stream_appended_rows_total", "Rows appended.", at, stream.appended
    yield "nwbflow_stream_acknowledged_rows_total", "Rows that are safe.", at, stream.acknowledged
    yield "nwbflow_stream_stored_rows_total", "Rows in whole chunks of the file.", at, stream.folded
    yield "nwbflow_stream_dropped_rows_total", "Rows refused because the queue was full.", at, stream.dropped
    raw = stream.appended * stream.row_bytes
    yield "nwbflow_stream_appended_bytes_total", "Bytes appended, before filters.", at, raw
    yield "nwbflow_stream_queue_bytes", "What waits for the journal.", at, stream.queued_bytes
    yield "nwbflow_stream_queue_limit_bytes", "What may wait for the journal.", at, stream.queue_limit
    yield "nwbflow_stream_lag_seconds", "Age of the oldest row that is not safe.", at, stream.lag_seconds
    yield "nwbflow_stream_rate_hertz", "Rows a second, over the last few.", at, stream.rows_per_second
    if stream.declared_rate is not None:
        yield "nwbflow_stream_declared_rate_hertz", "Rows a second, as declared.", at, stream.declared_rate
