"""Observers called in a thread of their own, so that none can hold up what it watches."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.events import ChunkStored, Event, Observer, StreamsObserved
from nwbflow.observe.hub import Hub

LIMIT = 2000
"""Events that may be left out and wait at most; with more, the oldest of them is."""

PATIENCE_AT_EXIT = 2.0
"""Seconds that observers are waited for when the program ends."""

_relays: weakref.WeakSet[Relay] = weakref.WeakSet()


class Relay:
    """Takes events from any thread at once, and passes them on to observers in a thread of its own.

    :meth:`emit` never waits for an observer. Where observers are slower than the events, chunks stored and states of
    streams are left out, the oldest first, and counted; everything else is passed on.

    Parameters
    ----------
    observers : sequence of Observer
        Called in this order. One that raises, whatever it is, is dropped: in this thread it can stop nothing. Without
        observers there is no thread, and nothing is done.
    limit : int
        Events that may be left out and wait at most.
    """

    def __init__(self, observers: Sequence[Observer], *, limit: int = LIMIT) -> None:
        self._hub = Hub(observers, catch=BaseException)
        self._limit = limit
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._kept: deque[tuple[int, Event]] = deque()
        self._passing: deque[tuple[int, Event]] = deque()
        self._number = 0
        self._missed = 0
        self._busy = self._closed = False
        self._settled = True
        self._beat: Callable[[], Event] | None = None
        self._pause = self._due = 0.0
        self._has_beaten = False
        self._problems: list[str] = []
        self._thread: threading.Thread | None = None
        if observers:
            self._thread = threading.Thread(target=self._run, name="nwbflow-events", daemon=True)
            self._thread.start()
            _relays.add(self)

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to call."""
        return self._thread is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong with the observers so far, for the receipt."""
        missed = (f"observers were too slow: {self._missed} events were not shown",) if self._missed else ()
        return (*self._hub.problems, *self._problems, *missed)

    def emit(self, event: Event, /) -> None:
        """Have `event` passed on; returns at once."""
        if self._thread is None or os.getpid() != self._process:
            return
        with self._changed:
            if self._closed:
                return
            self._number += 1
            if isinstance(event, ChunkStored | StreamsObserved):
                if len(self._passing) >= self._limit:
                    self._passing.popleft()
                    self._missed += 1
                self._passing.append((self._number, event))
            else:
                self._kept.append((self._number, event))
            self._changed.notify_all()

    def beat(self, make: Callable[[], Event], seconds: float) -> None:
        """Pass on what `make` returns, every so many seconds; it is called in the observers' thread."""
        with self._changed:
            self._beat, self._pause, self._due = make, seconds, time.monotonic()
            self._changed.notify_all()

    def stop_beating(self) -> None:
        """Make nothing more; what is emitted from now on comes after all that was made."""
        with self._changed:
            self._beat = None

    def check_outside(self, what: str) -> None:
        """Refuse what an observer must not do to the run that calls it.

        Raises
        ------
        SettingsError
            Kind ``LOCKED``, if this is the observers' thread.
        """
        if threading.current_thread() is self._thread:
            raise SettingsError(
                f"an observer has called {what} of the recorder it watches, and can only watch; set a flag in the "
                f"observer (threading.Event), and call {what} where you append",
                kind=ErrorKind.LOCKED,
            )

    def settle(self, seconds: float) -> bool:
        """Wait until the observers have had everything, for so many seconds at most; return whether they have."""
        if self._thread is None or os.getpid() != self._process:
            return True
        with self._changed:
            self._settled = self._changed.wait_for(
                lambda: not (self._busy or self._kept or self._passing) or self._thread_ended(), seconds
            )
            return self._settled

    def close(self, seconds: float) -> bool:
        """Pass on what waits, close the observers and end the thread; return whether that was done in time.

        Parameters
        ----------
        seconds : float
            To wait at most; not at all if :meth:`settle` has waited in vain. An observer that does not come back is
            left behind; it holds nothing of the run.
        """
        if self._thread is None or os.getpid() != self._process:
            return True
        with self._changed:
            self._closed = True
            self._beat = None
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds if self._settled else 0.0)
        return not self._thread.is_alive()

    def _thread_ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (event := self._next()) is not None:
                self._hub.emit(event)
        finally:
            self._hub.close()
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> Event | None:
        """Wait for the next event, or until it is time to make one; nothing when closed and empty."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not (self._kept or self._passing or self._closed or self._is_due()):
                self._changed.wait(None if self._beat is None else max(0.0, self._due - time.monotonic()))
            self._busy = True
            in_turn = not (self._has_beaten and (self._kept or self._passing))  # also where observers are slow
            make = self._beat if in_turn and self._is_due() else None
            self._has_beaten = make is not None
            if make is None:
                return self._oldest()
            self._due = time.monotonic() + self._pause
        try:
            return make()
        except Exception as error:  # what is made for observers must not end what they are told besides
            self.stop_beating()
            self._problems.append(f"how the streams stand could not be told ({type(error).__name__}: {error})")
            return self._next()

    def _is_due(self) -> bool:
        return self._beat is not None and time.monotonic() >= self._due

    def _oldest(self) -> Event | None:
        if not self._kept and not self._passing:
            return None
        first = self._kept and (not self._passing or self._kept[0] < self._passing[0])
        return (self._kept if first else self._passing).popleft()[1]


def _at_exit() -> None:
    """Let observers end before Python stops their threads wherever they are, in the middle of a line perhaps."""
    deadline = time.monotonic() + PATIENCE_AT_EXIT
    for relay in list(_relays):
        relay.close(max(0.0, deadline - time.monotonic()))


atexit.register(_at_exit)
