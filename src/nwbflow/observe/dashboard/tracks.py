"""What the page needs to remember of the last seconds: rates, their history, the disk."""

from __future__ import annotations

import shutil
from collections import deque
from contextlib import suppress
from pathlib import Path

HISTORY_SECONDS = 120
"""How far back the curves on the page go."""

_RATE_SECONDS = 10.0
_DISK_SECONDS = 60.0
_LEAST_DISK_SECONDS = 5.0


class Slope:
    """How fast a number changes, over the last seconds.

    Parameters
    ----------
    window : float
        Seconds looked back at.
    """

    def __init__(self, window: float = _RATE_SECONDS) -> None:
        self._window = window
        self._points: deque[tuple[float, float]] = deque()

    def note(self, now: float, value: float) -> None:
        """Remember `value` at the time `now`; at most forty points are kept."""
        step = self._window / 40
        if len(self._points) > 1 and now - self._points[-2][0] < step:
            self._points[-1] = (now, value)
            return
        self._points.append((now, value))
        while len(self._points) > 2 and now - self._points[1][0] >= self._window:
            self._points.popleft()

    @property
    def seconds(self) -> float:
        """Time between the oldest and the newest point."""
        return self._points[-1][0] - self._points[0][0] if self._points else 0.0

    def per_second(self, now: float) -> float:
        """Return the change per second until `now`; 0 where nothing is known yet, or nothing moved for long."""
        if len(self._points) < 2 or now - self._points[-1][0] > self._window:
            return 0.0
        (since, before), (_, after) = self._points[0], self._points[-1]
        return (after - before) / (now - since) if now > since else 0.0


class History:
    """One value a second, of the last two minutes; ``None`` where nothing came."""

    def __init__(self) -> None:
        self._end = 0
        self._values: deque[float | None] = deque(maxlen=HISTORY_SECONDS)

    def note(self, clock: float, value: float) -> None:
        """Remember `value` for the second of `clock` (seconds since 1970)."""
        second = int(clock)
        if self._values and second <= self._end:
            self._values[-1] = value
            return
        if self._values:
            self._values.extend([None] * min(second - self._end - 1, HISTORY_SECONDS))
        self._values.append(value)
        self._end = second

    def to_json(self) -> dict[str, object]:
        """Return the last second and the values until then, in four digits."""
        return {"end": self._end, "values": [None if v is None else float(f"{v:.4g}") for v in self._values]}


class Disk:
    """Room on the disk, and how long it will last."""

    def __init__(self) -> None:
        self.free: int | None = None
        self._slope = Slope(_DISK_SECONDS)
        self._asked = 0.0

    def ask(self, now: float, path: Path) -> None:
        """Look at the disk that `path` is on, at most once a second."""
        if now - self._asked < 1:
            return
        self._asked = now
        with suppress(OSError):
            self.note(now, shutil.disk_usage(path.parent).free)

    def note(self, now: float, free: int) -> None:
        """Remember how many bytes are free."""
        self.free = free
        self._slope.note(now, free)

    def seconds_left(self, now: float) -> float | None:
        """Return when the disk will be full if all goes on like this; ``None`` if it doesn't fill, or is not known."""
        if self.free is None or self._slope.seconds < _LEAST_DISK_SECONDS:
            return None
        shrinking = -self._slope.per_second(now)
        return self.free / shrinking if shrinking > 0 else None
