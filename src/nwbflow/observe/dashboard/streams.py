"""The streams of a recording, as the page shows them."""

from __future__ import annotations

from typing import Any

from nwbflow.model.events import StreamsObserved, StreamState
from nwbflow.observe.dashboard.tracks import History

_SETTLING_SECONDS = 5.0  # before that a rate says little
_STILL_SECONDS = 3.0  # without data: silent
_AFTERGLOW_SECONDS = 10.0  # a drop stays in sight that long
_OFF = 0.05  # part by which a real rate may differ from the declared one
_LATE_SECONDS = 2.0


class _Stream:
    """One stream: its newest state and what that was like before."""

    def __init__(self, state: StreamState, now: float) -> None:
        self.state = state
        self.history = History()
        self._moved = self._met = now
        self._dropped = float("-inf")

    def take(self, state: StreamState, now: float) -> None:
        """Take in a newer state."""
        if state.appended != self.state.appended:
            self._moved = now
        if state.dropped > self.state.dropped:
            self._dropped = now
        self.state = state

    def status(self, now: float) -> str:
        """Return the one word that matters most."""
        state, declared = self.state, self.state.declared_rate
        if now - self._dropped < _AFTERGLOW_SECONDS:
            return "dropping"
        if state.queued_bytes > state.queue_limit / 2 or state.lag_seconds > _LATE_SECONDS:
            return "behind"
        if declared is None:  # of events, nobody knows when they should come
            return "steady" if state.rows_per_second > 0 else "waiting"
        if now - self._moved > _STILL_SECONDS:
            return "silent"
        if now - self._met < _SETTLING_SECONDS:
            return "starting"
        if abs(state.rows_per_second - declared) > _OFF * declared:
            return "slow" if state.rows_per_second < declared else "fast"
        return "steady"

    def to_json(self, status: str) -> dict[str, Any]:
        """Return the newest state under a `status`."""
        state, declared = self.state, self.state.declared_rate
        return {
            "name": state.name,
            "status": status,
            "appended": state.appended,
            "acknowledged": state.acknowledged,
            "acknowledged_seconds": state.acknowledged / declared if declared else None,
            "folded": state.folded,
            "row_bytes": state.row_bytes,
            "rows_per_second": state.rows_per_second,
            "declared_rate": declared,
            "queued_bytes": state.queued_bytes,
            "queue_limit": state.queue_limit,
            "lag_seconds": state.lag_seconds,
            "dropped": state.dropped,
        }


class Streams:
    """All streams of one recording."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._now = 0.0
        self._closing = False

    def take(self, event: StreamsObserved, now: float, clock: float) -> None:
        """Take in how they stand; `now` is of the monotonic clock, `clock` counts from 1970."""
        self._now, self._closing = now, event.closing
        for state in event.streams:
            if state.name not in self._streams:
                self._streams[state.name] = _Stream(state, now)
            stream = self._streams[state.name]
            stream.take(state, now)
            if not event.closing:
                stream.history.note(clock, state.rows_per_second)

    @property
    def bytes_per_second(self) -> float:
        """What comes in, before filters."""
        return sum(s.state.rows_per_second * s.state.row_bytes for s in self._streams.values())

    @property
    def safe_bytes(self) -> int:
        """What is acknowledged, before filters."""
        return sum(s.state.acknowledged * s.state.row_bytes for s in self._streams.values())

    @property
    def queued_bytes(self) -> int:
        """What waits for the journal."""
        return sum(s.state.queued_bytes for s in self._streams.values())

    def to_json(self, *, over: bool) -> list[dict[str, Any]]:
        """Return every stream, in the order of the file.

        Parameters
        ----------
        over : bool
            Whether the recording has ended.
        """
        return [stream.to_json(self._status(stream, over=over)) for stream in self._streams.values()]

    def _status(self, stream: _Stream, *, over: bool) -> str:
        drained = stream.state.acknowledged == stream.state.appended
        return "closed" if over or (self._closing and drained) else stream.status(self._now)

    def histories(self) -> dict[str, Any]:
        """Return the rates of the last two minutes, by stream."""
        return {name: stream.history.to_json() for name, stream in self._streams.items()}
