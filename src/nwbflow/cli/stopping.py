"""Ending what runs until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from nwbflow.cli.codes import TERMINATED

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Stopper:
    """Gives an event that the first Ctrl-C or SIGTERM sets; the second raises, as it would anywhere else."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> threading.Event:
        for number in _ENDING:
            self._before[number] = signal.signal(number, self._first)
        return self._event

    def _first(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        for each in _ENDING:
            signal.signal(each, _second)
        self._event.set()

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
