"""Passing events on to observers that can't hurt the run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.events import Event, Observer
from nwbflow.observe.bar import ProgressBar

type Progress = bool | Observer | Sequence[Observer] | None
"""What ``progress=`` accepts; see :func:`make_observers`."""


def make_observers(progress: Progress) -> tuple[Observer, ...]:
    """Turn what a user passed as ``progress=`` into observers.

    Parameters
    ----------
    progress : bool, None, callable or sequence of callables
        ``True`` is a progress bar, silent where standard error is neither a terminal nor a
        notebook; ``False`` and ``None`` are nothing; a callable is called with every event; a
        sequence holds several callables, called in its order.

    Returns
    -------
    tuple of Observer
        The observers; may be empty.

    Raises
    ------
    nwbflow.errors.SettingsError
        Anything else, with the way out.
    """
    if progress is None or progress is False:
        return ()
    if progress is True:
        return (ProgressBar(),)
    observers = tuple(progress) if isinstance(progress, Sequence) else (progress,)
    for observer in observers:
        if isinstance(observer, type):
            name = observer.__name__
            raise SettingsError(f"progress={name} is a class; pass an instance, {name}(...)", kind=ErrorKind.OPTION)
        if not callable(observer):
            raise SettingsError(
                f"progress={progress!r} can't be called with an event; pass True, False, a callable or a sequence "
                "of callables, e.g. nwbflow.observe.JsonLines('events.jsonl')",
                kind=ErrorKind.OPTION,
            )
    return observers


class Hub:
    """Calls every observer with every event; an observer that raises is dropped and the run goes on.

    ``KeyboardInterrupt``, ``SystemExit`` and other exceptions that are no :class:`Exception`
    pass through, unless `catch` says otherwise. Used as a context manager it closes the observers on leaving, so that a
    progress bar gives the terminal back also when an exception ended the run without a last event.

    Parameters
    ----------
    observers : sequence of Observer
        Called in this order. One that has a method ``close()`` has it called when it is
        dropped and when the hub is closed; what it raises then becomes a problem too.
    catch : type of BaseException
        What an observer may raise without stopping the one who emits.
    """

    def __init__(self, observers: Sequence[Observer], *, catch: type[BaseException] = Exception) -> None:
        self._observers = list(observers)
        self._catch = catch
        self._problems: list[str] = []

    @property
    def problems(self) -> tuple[str, ...]:
        """One text for every observer that was dropped or could not be closed, naming it."""
        return tuple(self._problems)

    def emit(self, event: Event, /) -> None:
        """Call every observer with `event`, in order."""
        for observer in tuple(self._observers):
            try:
                observer(event)
            except self._catch as error:
                self._observers = [kept for kept in self._observers if kept is not observer]
                self._problems.append(
                    f"observer {_name(observer)} raised {_text(error)} on {type(event).__name__} and was dropped"
                )
                with contextlib.suppress(self._catch):
                    _close(observer)

    def close(self) -> None:
        """Close the observers that can be closed; later events reach nobody."""
        observers, self._observers = self._observers, []
        for observer in observers:
            try:
                _close(observer)
            except self._catch as error:
                self._problems.append(f"observer {_name(observer)} raised {_text(error)} on being closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(observer: Observer) -> None:
    close = getattr(observer, "close", None)
    if callable(close):
        close()


def _name(observer: Observer) -> str:
    """Return a readable name: a function's own, else the class's (no address, no arguments)."""
    name = getattr(observer, "__qualname__", None)
    return name if isinstance(name, str) else type(observer).__qualname__


def _text(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
