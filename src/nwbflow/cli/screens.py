"""What all commands print with: consoles, JSON, notes, sizes, and the progress bar."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from nwbflow.model.events import Event, RunFailed, RunFinished, Warned
from nwbflow.observe.bar import ProgressBar

DIM = "bright_black"


class _Console(Console):
    """A console that leaves a closed pipe to :func:`nwbflow.cli.main`."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


def out() -> Console:
    """Return the console for results: standard output."""
    return _Console(highlight=False, emoji=False, markup=False)


def err() -> Console:
    """Return the console for everything else: standard error."""
    return _Console(stderr=True, highlight=False, emoji=False, markup=False)


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print a text, wrapped in a terminal and left whole elsewhere."""
    clean = [(_clean(p), "") if isinstance(p, str) else (_clean(p[0]), p[1]) for p in parts]
    console.print(Text.assemble(*clean), soft_wrap=not console.is_terminal)


def note(text: str) -> None:
    """Print what a careful user wants to know."""
    say(err(), ("note: ", "yellow"), text)


def show_warnings_as_notes() -> None:
    """Print Python's warnings (PyNWB gives some) in one line without their place in the source."""

    def show(message: Warning | str, *place: object, **more: object) -> None:
        del place, more
        say(err(), ("warning: ", "yellow"), str(message))

    warnings.showwarning = show


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


class Bar:
    """The progress bar without its parting words: the command says those itself.

    Also leaves out warnings: they are printed once, with the result.

    Parameters
    ----------
    warnings : bool
        Whether to show them when they come: a recording may take hours.
    """

    def __init__(self, *, warnings: bool = False) -> None:
        self._bar = ProgressBar()
        self._warnings = warnings

    def __call__(self, event: Event, /) -> None:
        """Pass on what moves the bar."""
        if isinstance(event, RunFinished | RunFailed):
            self._bar.close()
        elif self._warnings or not isinstance(event, Warned):
            self._bar(event)

    def close(self) -> None:
        """Give the terminal back."""
        self._bar.close()


def size(count: float) -> str:
    """Return bytes in decimal units with three digits, e.g. ``1.20 GB``."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f} {unit}"


def shape(lengths: tuple[int | None, ...] | None) -> str:
    """Return a shape as it is read, e.g. ``300000 x 384``."""
    if lengths is None:
        return "no elements"
    return " x ".join("?" if n is None else str(n) for n in lengths) if lengths else "one value"


def ratio(value: float | None) -> str:
    """Return a compression ratio in few digits."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 99.995 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """Return a time with its unit, e.g. ``12.5 s`` or ``1:02:03``."""
    if seconds < 99.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes} min {rest} s"


def _clean(text: str) -> str:
    """Replace what could move the cursor or change the terminal: names come from files."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def clean(text: str) -> Text:
    """Return a table's cell of text that comes from a file."""
    return Text(_clean(text))
