"""How a recording stands, for those who watch it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nwbflow.model.events import StreamsObserved, StreamState
from nwbflow.record.recording import Recording

WINDOW_SECONDS = 5.0
"""What rates are taken over."""

LOOK_SECONDS = 0.5
"""How often the disk is asked."""

PATIENCE_SECONDS = 1.0
"""How long its answer is waited for at the end."""


class Watch:
    """Tells how a recording stands.

    Whoever writes the recording is not held up: it is asked for a few numbers only, and the disk, which may not answer
    for a while, in a thread of its own. Until it does, its last answer is told.

    Parameters
    ----------
    recording : Recording
        The recording.
    path, journal : pathlib.Path
        The file that will be there, and the journal's folder.
    rates : mapping
        Declared rate of a series by its name, in hertz, where it has one.
    """

    def __init__(self, recording: Recording, path: Path, journal: Path, rates: Mapping[str, float]) -> None:
        self._recording = recording
        self._path = path
        self._rates = rates
        self._began = time.monotonic()
        self._before: deque[tuple[float, tuple[int, ...]]] = deque([(self._began, (0,) * len(recording.states()))])
        self._disk = _Disk(journal)

    def observed(self) -> StreamsObserved:
        """Return how it stands now; to be called by one thread."""
        now = time.monotonic()
        states = self._recording.states()
        since, before = self._window(now, tuple(state.rows for state in states))
        folded = self._recording.stored_rows()
        return StreamsObserved(
            path=self._path,
            seconds=now - self._began,
            streams=tuple(
                StreamState(
                    name=spec.name,
                    appended=state.rows,
                    acknowledged=state.acknowledged,
                    folded=folded[at],
                    row_bytes=spec.row_bytes,
                    rows_per_second=(state.rows - before[at]) / (now - since) if now > since else 0.0,
                    declared_rate=self._rates.get(spec.name),
                    queued_bytes=state.nbytes,
                    queue_limit=state.limit,
                    lag_seconds=state.lag_seconds,
                    dropped=state.dropped,
                )
                for at, (spec, state) in enumerate(zip(self._recording.manifest.series, states, strict=True))
            ),
            journal_bytes=self._disk.journal_bytes,
            disk_free=self._disk.free,
            closing=self._recording.is_closing,
        )

    def finished(self, rows: tuple[int, ...]) -> StreamsObserved:
        """Return how it stands at the end: the file has so many rows of each series, and there is no journal."""
        last = self.observed()
        streams = tuple(replace(state, folded=count) for state, count in zip(last.streams, rows, strict=True))
        return replace(last, streams=streams, journal_bytes=0, closing=True)

    def stop(self) -> None:
        """Look at the disk no more."""
        self._disk.stop()

    def _window(self, now: float, rows: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        self._before.append((now, rows))
        while len(self._before) > 2 and self._before[1][0] <= now - WINDOW_SECONDS:
            self._before.popleft()
        return self._before[0]


class _Disk:
    """Room on the disk of a folder, and what the folder takes of it; asked for in a thread, which may have to wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stopped = threading.Event()
        self.free = self.journal_bytes = 0
        self._look()
        self._thread = threading.Thread(target=self._look_again, name="nwbflow-disk", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(PATIENCE_SECONDS)  # not longer: the disk may have stalled

    def _look_again(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            room = os.statvfs(self._folder)
            sizes = [entry.stat(follow_symlinks=False).st_blocks * 512 for entry in os.scandir(self._folder)]
        except OSError:
            return  # the folder is gone, or the disk; others will notice
        self.free = room.f_bavail * room.f_frsize
        self.journal_bytes = sum(sizes)
