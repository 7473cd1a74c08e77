"""Ending what runs until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from nwbflow.cli.codes import TERMINATED

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Stopper:
    """Sets an event at the first Ctrl-C or SIGTERM; the second raises, as it would anywhere else."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        for number in _ENDING:
            self._before[number] = signal.signal(number, self._first)
        return self

    def _first(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        for each in _ENDING:
            signal.signal(each, _second)
        self.event.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _second(number: int, frame: FrameType | None) -> None:
    del frame
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(TERMINATED)
