"""Where a progress bar is drawn: a terminal, a notebook's output, or nowhere."""

from __future__ import annotations

import importlib
import io
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

_PATIENCE = 1.0  # seconds that closing waits for a drawing


class Screen(Protocol):
    """A few lines that are drawn over themselves."""

    def show(self, lines: Sequence[Text], /) -> None:
        """Replace the lines shown by `lines`."""
        ...

    def say(self, line: Text, /) -> None:
        """Leave `line` for good, above the lines shown."""
        ...

    def close(self) -> None:
        """Give the terminal back: the lines go, the cursor returns. :meth:`say` still works."""
        ...


def make_screen(console: Console, *, given: bool) -> Screen | None:
    """Return where to draw, or ``None`` where nobody is looking.

    Parameters
    ----------
    console : rich.console.Console
        The console to draw on.
    given : bool
        Whether the user made it: then it is taken at its word.
    """
    if console.is_jupyter:
        return _Notebook()
    # rich also says "terminal" where only FORCE_COLOR is set, so standard error itself is asked
    if console.is_terminal and not console.is_dumb_terminal and (given or _is_terminal(sys.stderr)):
        return _Terminal(console)
    return None


class _Terminal:
    """Lines at the bottom of a terminal; what is printed meanwhile goes above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # a redirected stdout is left alone, or its text would end up on standard error
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=_is_terminal(sys.stdout))
        self._process = os.getpid()
        self._drawing = threading.Lock()
        self._live.start()

    def show(self, lines: Sequence[Text], /) -> None:
        with self._drawing:
            self._live.update(Group(*lines), refresh=True)

    def say(self, line: Text, /) -> None:
        with self._drawing:
            self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        if os.getpid() != self._process:
            return  # forked from the one that draws: the lines are not ours
        # also called at the interpreter's exit, when the thread that draws may wait for a stopped terminal for ever
        if self._drawing.acquire(timeout=_PATIENCE):
            try:
                self._live.stop()
            finally:
                self._drawing.release()


class _Notebook:
    """Output of a notebook cell, replaced in place through IPython's display protocol.

    Needs no widgets, so it also works where ipywidgets is missing or its front end is not
    installed. Where no IPython shell runs, nothing is shown.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._said: list[Text] = []
        self._lines: Sequence[Text] = ()

    def show(self, lines: Sequence[Text], /) -> None:
        self._lines = lines
        self._draw()

    def say(self, line: Text, /) -> None:
        self._said.append(line)
        self._draw()

    def close(self) -> None:
        self._lines = ()

    def _draw(self) -> None:
        try:
            ipython = importlib.import_module("IPython")
            output = importlib.import_module("IPython.display")
        except ImportError:
            return
        if ipython.get_ipython() is None:
            return
        content = output.HTML(_html([*self._said, *self._lines]))
        if self._handle is None:
            self._handle = output.display(content, display_id=True)
        else:
            self._handle.update(content)


def _html(lines: Sequence[Text]) -> str:
    console = Console(file=io.StringIO(), record=True, width=120, force_jupyter=False, force_terminal=True)
    for line in lines:
        console.print(line, soft_wrap=True)
    return console.export_html(
        inline_styles=True, code_format='<pre style="white-space:pre;line-height:normal">{code}</pre>'
    )


def _is_terminal(file: Any) -> bool:
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError):  # None where there is no console, or closed
        return False
