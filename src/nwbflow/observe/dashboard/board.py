"""What is known of a run: fed by its events, read by the page's server."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nwbflow.model.events import (
    ChunkStored,
    DatasetFinished,
    DatasetStarted,
    DatasetVerified,
    Event,
    PartSent,
    RunFailed,
    RunFinished,
    RunStarted,
    StreamsObserved,
    Warned,
)
from nwbflow.model.layout import Layout
from nwbflow.model.receipt import Receipt
from nwbflow.observe.dashboard.streams import Streams
from nwbflow.observe.dashboard.tracks import Disk, History, Slope
from nwbflow.observe.room import seconds_to_full

_MOST_DATASETS = 60  # shown; all are counted
_MOST_WARNINGS = 50
_OVER = ("finished", "failed")


@dataclass(slots=True)
class _Dataset:
    """How far one dataset is, in bytes before filters."""

    name: str
    layout: Layout | None = None
    total: int | None = None
    done: int = 0
    seen: int = 0  # of the chunks that were told; a slow listener is not told of each
    stored: int = 0
    chunks: int = 0
    state: str = "waiting"
    slope: Slope = field(default_factory=Slope)

    def to_json(self, now: float) -> dict[str, Any]:
        rate = self.slope.per_second(now) if self.state == "writing" else 0.0
        return {
            "name": self.name,
            "state": self.state,
            "shape": None if self.layout is None else self.layout.shape,
            "dtype": None if self.layout is None else str(self.layout.dtype),
            "raw_total": self.total,
            "raw_done": self.done,
            "stored": self.stored,
            "chunks": self.chunks,
            "ratio": _ratio(self.seen, self.stored),
            "bytes_per_second": rate,
            "left_seconds": _left(self.total, self.done, rate),
        }


class Board:
    """The state of the newest run, kept up to date by its events.

    Taking an event in costs a few microseconds and never waits for anybody who looks: what is sent is put together
    by the thread that sends it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = 0
        self._runs = 0
        self._reset()

    def _reset(self) -> None:
        self._path: Path | None = None
        self._state = "waiting"
        self._recording = False
        self._began, self._ended = time.monotonic(), 0.0
        self._clock = time.time()
        self._workers = 0
        self._raw_total: int | None = None
        self._done = self._seen = self._stored = self._queued = 0
        self._datasets: dict[str, _Dataset] = {}
        self._warnings: deque[dict[str, Any]] = deque(maxlen=_MOST_WARNINGS)
        self._warned = 0
        self._receipt: dict[str, Any] | None = None
        self._failure: dict[str, Any] | None = None
        self._slope = Slope()
        self._history = History()
        self._disk = Disk()
        self._observation: StreamsObserved | None = None
        self._streams = Streams()

    @property
    def version(self) -> int:
        """How many events were taken in."""
        return self._version

    def take(self, event: Event) -> None:
        """Take one event in; may be called from any thread."""
        now = time.monotonic()
        with self._lock:
            self._version += 1
            match event:
                case ChunkStored():
                    self._chunk(event, now)
                case StreamsObserved():
                    self._observed(event, now)
                case RunStarted():
                    self._start(event)
                case DatasetStarted():
                    self._state = self._state if self._recording else "writing"
                    dataset = self._dataset(event.dataset)
                    dataset.layout, dataset.total, dataset.state = event.layout, event.raw_bytes, "writing"
                    dataset.slope.note(now, 0)
                case DatasetFinished():
                    self._written(event, now)
                case DatasetVerified():
                    self._dataset(event.dataset).state = "verified"
                case PartSent():
                    self._state = "sending"
                case Warned():
                    self._warn(event.dataset, event.message)
                case RunFinished():
                    self._finish(event.receipt)
                case RunFailed():
                    self._end("failed")
                    partial = None if event.partial is None else str(event.partial)
                    self._failure = {"error": event.error, "partial": partial}

    def _start(self, event: RunStarted) -> None:
        self._reset()
        self._runs += 1
        self._path, self._workers, self._raw_total = event.path, event.workers, event.raw_bytes
        self._state = "structure"
        self._datasets = {name: _Dataset(name) for name in event.datasets}

    def _dataset(self, name: str) -> _Dataset:
        return self._datasets.setdefault(name, _Dataset(name))

    def _chunk(self, event: ChunkStored, now: float) -> None:
        dataset = self._dataset(event.dataset)
        self._done += event.raw_done - dataset.done
        self._seen += event.raw_bytes
        self._stored += event.stored_bytes
        self._queued = event.queued
        dataset.done = event.raw_done
        dataset.seen += event.raw_bytes
        dataset.stored += event.stored_bytes
        dataset.chunks += 1
        dataset.slope.note(now, dataset.done)
        if not self._recording:
            self._moved(now)

    def _moved(self, now: float) -> None:
        self._slope.note(now, self._done)
        self._history.note(time.time(), self._slope.per_second(now))
        if self._path is not None:
            self._disk.ask(now, self._path)

    def _written(self, event: DatasetFinished, now: float) -> None:
        dataset, receipt = self._dataset(event.dataset), event.receipt
        self._done += receipt.raw_bytes - dataset.done
        self._seen += receipt.raw_bytes - dataset.seen
        self._stored += receipt.stored_bytes - dataset.stored
        dataset.done = dataset.seen = receipt.raw_bytes
        dataset.stored, dataset.chunks = receipt.stored_bytes, receipt.chunks
        dataset.layout, dataset.state = receipt.layout, "written"
        if not self._recording:
            self._moved(now)
            if all(d.state in ("written", "verified") for d in self._datasets.values()):
                self._state = "verifying"

    def _observed(self, event: StreamsObserved, now: float) -> None:
        if self._state in _OVER:
            return
        self._recording = True
        self._state = "closing" if event.closing else "recording"
        self._path = event.path
        self._observation = event
        self._disk.note(now, event.disk_free)
        clock = time.time()
        self._streams.take(event, now, clock)
        if not event.closing:
            self._history.note(clock, self._streams.bytes_per_second)

    def _warn(self, dataset: str | None, text: str) -> None:
        self._warned += 1
        self._warnings.append({"number": self._warned, "time": time.time(), "dataset": dataset, "text": text})

    def _finish(self, receipt: Receipt) -> None:
        self._end("finished")
        self._path = receipt.path
        size = None
        with suppress(OSError):
            size = receipt.path.stat().st_size
        self._receipt = {
            "path": str(receipt.path),
            "datasets": len(receipt.datasets),
            "raw_bytes": receipt.raw_bytes,
            "stored_bytes": receipt.stored_bytes,
            "file_bytes": size,
            "ratio": receipt.ratio,
            "seconds": receipt.seconds,
            "verified": receipt.verified,
            "notes": receipt.notes,
        }

    def _end(self, state: str) -> None:
        self._state, self._ended = state, time.monotonic()

    # --- what the page gets -------------------------------------------------------------------

    def to_json(self, *, history: bool) -> dict[str, Any]:
        """Return all that is known, as JSON-serialisable values.

        Parameters
        ----------
        history : bool
            Whether the last two minutes are told as well.
        """
        now = time.monotonic()
        with self._lock:
            shown = self._shown()
            return {
                "now": time.time(),
                "run": self._run(now),
                "streams": self._streams.to_json(over=self._state in _OVER),
                "datasets": [dataset.to_json(now) for dataset in shown],
                "datasets_total": len(self._datasets),
                "datasets_done": sum(d.state in ("written", "verified") for d in self._datasets.values()),
                "warnings": list(self._warnings),
                "warnings_total": self._warned,
                "receipt": self._receipt,
                "failure": self._failure,
                **({"history": self._histories()} if history else {}),
            }

    def _histories(self) -> dict[str, Any]:
        return {"all": self._history.to_json(), "streams": self._streams.histories()}

    def _shown(self) -> list[_Dataset]:
        """Return datasets to show, in the file's order; of many, those that are being written and their neighbours."""
        every = list(self._datasets.values())
        if len(every) <= _MOST_DATASETS:
            return every
        first = next((n for n, dataset in enumerate(every) if dataset.state == "writing"), 0)
        first = max(0, min(first - 5, len(every) - _MOST_DATASETS))
        return every[first : first + _MOST_DATASETS]

    def _run(self, now: float) -> dict[str, Any]:
        over = self._state in _OVER
        if self._recording:
            rate, done = self._streams.bytes_per_second, self._streams.safe_bytes
        else:
            rate, done = self._slope.per_second(now), self._done
        rate = 0.0 if over else rate
        return {
            "number": self._runs,
            "kind": "recording" if self._recording else "write",
            "state": self._state,
            "file": None if self._path is None else self._path.name,
            "path": None if self._path is None else str(self._path),
            "began": self._clock,
            "seconds": (self._ended if over else now) - self._began,
            "workers": self._workers,
            "raw_total": self._raw_total,
            "raw_done": done,
            "folded_bytes": self._done,
            "stored": self._stored,
            "ratio": _ratio(self._seen, self._stored),
            "bytes_per_second": rate,
            "left_seconds": _left(self._raw_total, self._done, rate),
            "chunks_queued": self._queued,
            "queued_bytes": self._streams.queued_bytes,
            "journal_bytes": 0 if self._observation is None else self._observation.journal_bytes,
            "disk_free": self._disk.free,
            "disk_seconds": None if over else self._disk_seconds(now),
        }

    def _disk_seconds(self, now: float) -> float | None:
        """Return when the disk will be full: of a write, it is seen from the disk alone."""
        if self._observation is None:
            return self._disk.seconds_left(now)
        return seconds_to_full(self._observation, self._seen, self._stored)


def _ratio(raw: int, stored: int) -> float | None:
    return raw / stored if stored else None


def _left(total: int | None, done: int, rate: float) -> float | None:
    return max(0, total - done) / rate if total is not None and rate > 0 else None
