"""The progress bar, seen as a terminal or a notebook would show it."""

from __future__ import annotations

import dataclasses
import gc
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import types
from fcntl import ioctl
from pathlib import Path

import pytest
import runs
from rich.console import Console

from nwbflow.model.events import DatasetStarted, Event, PartSent, RunFinished, Warned
from nwbflow.model.receipt import Receipt, SentFile
from nwbflow.observe import bar as bar_module
from nwbflow.observe.bar import ProgressBar

pytestmark = pytest.mark.requirement("M2")

SEARCH = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Clock:
    """A clock that steps half a second at every look: every event is drawn, no test waits."""

    def __init__(self, step: float = 0.5) -> None:
        self.now = 100.0
        self.step = step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    def perf_counter(self) -> float:
        return 0.0  # drawing costs nothing here


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bar_module, "time", clock)
    return clock


class Terminal:
    def __init__(self, width: int = 100, height: int = 30) -> None:
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=True, force_jupyter=False, width=width, height=height, _environ={}
        )
        self._read = 0

    def fresh(self) -> str:
        """Return the text written since the last look, without control sequences."""
        text = self.file.getvalue()[self._read :]
        self._read += len(text)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def play(terminal: Terminal, events: list[Event]) -> list[str]:
    """Return what each event drew."""
    bar = ProgressBar(console=terminal.console)
    pictures = []
    for event in events:
        bar(event)
        pictures.append(terminal.fresh())
    bar.close()
    return pictures


def test_a_known_length_shows_bytes_share_rate_ratio_and_time_left(clock: Clock) -> None:
    pictures = play(Terminal(), list(runs.run(chunks=5)))
    dataset, state = pictures[4].rstrip("\n").split("\n")  # after the third of five chunks; no total of one
    assert dataset.startswith("/acquisition/a/data")
    # one megabyte every half second
    assert re.search(r" 60%\s+3\.00 MB / 5\.00 MB\s+2 MB/s\s+ratio\s+2\.22\s+0:01 left", dataset)
    assert state == "0 of 1 dataset written, 2 chunks on their way"


def test_an_unknown_length_shows_bytes_and_rate_only(clock: Clock) -> None:
    pictures = play(Terminal(), list(runs.run(chunks=5, known=False)))
    line, _ = pictures[4].rstrip("\n").split("\n")
    assert "3.00 MB" in line
    assert "2 MB/s" in line
    assert "%" not in line
    assert "left" not in line


def test_several_datasets_have_a_total(clock: Clock) -> None:
    pictures = play(Terminal(), list(runs.run(("/a", "/b"), chunks=5)))
    first, whole, _ = pictures[4].rstrip("\n").split("\n")
    assert first.startswith("/a")
    assert whole.startswith("recording.nwb")
    assert "10.0 MB" in whole


def test_the_end_is_one_line_and_the_cursor_is_back(clock: Clock) -> None:
    terminal = Terminal()
    pictures = play(terminal, list(runs.run(chunks=5)))
    summary = "recording.nwb: 5.00 MB in 2.0 s (2 MB/s), 2.25 MB stored, ratio 2.2, verified"
    assert pictures[-1].strip().split("\n")[-1] == summary
    everything = terminal.file.getvalue()
    assert everything.count(HIDE) == everything.count(SHOW) == 1
    assert everything.index(HIDE) < everything.index(SHOW)


def test_verification_and_publishing_are_told(clock: Clock) -> None:
    pictures = play(Terminal(), list(runs.run(("/a", "/b"), chunks=1)))
    assert "2 datasets written, verifying and publishing: 0 verified" in pictures[6]
    assert "2 datasets written, verifying and publishing: 1 verified" in pictures[8]
    assert "2 datasets written and verified, publishing" in pictures[9]


def test_a_failure_says_so_in_one_line_and_gives_the_cursor_back(clock: Clock) -> None:
    terminal = Terminal()
    pictures = play(terminal, [*list(runs.run())[:4], runs.failed()])
    line = "recording.nwb: failed: /a/data: disk full (what was written is kept in recording.nwb.partial)"
    assert pictures[-1].strip().split("\n")[-1] == line
    assert terminal.file.getvalue().count(SHOW) == 1


@pytest.mark.parametrize("end", ["close", "leave", "collect"])
def test_without_a_last_event_the_cursor_comes_back_all_the_same(clock: Clock, end: str) -> None:
    terminal = Terminal()
    bar = ProgressBar(console=terminal.console)
    stdout, stderr = sys.stdout, sys.stderr
    for event in list(runs.run())[:4]:
        bar(event)
    assert SHOW not in terminal.file.getvalue()
    if end == "close":
        bar.close()
        bar.close()
    elif end == "leave":
        with pytest.raises(ZeroDivisionError), bar:
            raise ZeroDivisionError
    else:
        del bar
        gc.collect()
    assert terminal.file.getvalue().count(SHOW) == 1
    assert (sys.stdout, sys.stderr) == (stdout, stderr)


@pytest.mark.parametrize(("width", "height"), [(200, 50), (100, 30), (80, 24), (60, 10), (40, 8), (20, 5)])
@pytest.mark.parametrize("known", [True, False])
def test_lines_fit_whatever_the_size(clock: Clock, width: int, height: int, known: bool) -> None:
    names = tuple(f"/acquisition/ElectricalSeries{i}/data" for i in range(20))
    opened: list[Event] = [runs.started(names, 5, known=known)]
    opened += [
        DatasetStarted(dataset=n, layout=runs.layout(), raw_bytes=5 * runs.CHUNK if known else None) for n in names
    ]
    opened += [runs.chunk(n, i) for i in range(5) for n in names]
    for picture in play(Terminal(width, height), opened):
        lines = picture.rstrip("\n").split("\n")
        assert len(lines) < height
        assert max(map(len, lines)) < width


def test_hundreds_of_datasets_do_not_flood(clock: Clock) -> None:
    names = tuple(f"/acquisition/s{i:03d}/data" for i in range(200))
    terminal = Terminal()
    pictures = play(terminal, list(runs.run(names, chunks=2)))
    during = pictures[1:-203]
    assert all(len(p.rstrip("\n").split("\n")) <= 3 for p in during)
    assert any("150 of 200 datasets written" in p and "49 waiting" in p for p in during)


def test_drawing_is_throttled(clock: Clock) -> None:
    clock.step = 0.001
    terminal = Terminal()
    bar = ProgressBar(console=terminal.console)
    bar(runs.started(("/a",), 2000))
    for index in range(2000):  # two seconds of this clock
        bar(runs.chunk("/a", index))
    drawn = terminal.file.getvalue().count("chunks on their way")
    assert 15 <= drawn <= 21
    bar.close()


def test_slow_drawing_is_done_less_often(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.step = 0.001
    looks = iter(range(10_000))
    monkeypatch.setattr(clock, "perf_counter", lambda: next(looks) * 0.005)  # 5 ms a drawing: every half second
    terminal = Terminal()
    bar = ProgressBar(console=terminal.console)
    bar(runs.started(("/a",), 2000))
    for index in range(2000):
        bar(runs.chunk("/a", index))
    assert 3 <= terminal.file.getvalue().count("chunks on their way") <= 5
    bar.close()


def test_warnings_stay_above_and_do_not_flood(clock: Clock) -> None:
    terminal = Terminal()
    events = list(runs.run())
    events[3:3] = [Warned(dataset=None, message=f"odd thing {i}") for i in range(9)]
    text = "".join(play(terminal, events))
    assert text.count("odd thing") == 5
    assert "10 warnings, 5 of them not shown" in text


def test_names_can_not_reach_the_terminal(clock: Clock) -> None:
    terminal = Terminal()
    name = "/a\x1b[2J\x07[red]b\n/data"
    play(terminal, [*runs.run((name,)), dataclasses.replace(runs.failed(), error="\x1b]0;title\x07")])
    assert "\x1b[2J" not in terminal.file.getvalue()
    assert "\x1b]" not in terminal.file.getvalue()
    assert "/a?[2J?[red]b?/data" in terminal.file.getvalue()


def test_a_terminal_without_unicode_gets_ascii(clock: Clock) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    console = Console(file=file, force_terminal=True, force_jupyter=False, width=100, height=30, _environ={})
    bar = ProgressBar(console=console)
    for event in runs.run(("/" + "long" * 40,), chunks=4):
        bar(event)
    assert b"###" in raw.getvalue()


def test_two_runs_one_after_the_other_begin_anew(clock: Clock) -> None:
    terminal = Terminal()
    once = play(terminal, list(runs.run(("/a",), chunks=3)))
    bar = ProgressBar(console=terminal.console)
    for _ in range(2):
        again = []
        for event in runs.run(("/a",), chunks=3):
            bar(event)
            again.append(terminal.fresh())
        assert again[2].split("\n")[0].split()[:3] == once[2].split("\n")[0].split()[:3]


@pytest.mark.parametrize("force", [{}, {"FORCE_COLOR": "1"}])
def test_piped_is_silent(force: dict[str, str]) -> None:
    code = "import runs\nfrom nwbflow.observe.bar import ProgressBar\nb = ProgressBar()\nfor e in runs.run(): b(e)\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={**os.environ, **force, "PYTHONPATH": SEARCH},
    )
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("how", ["finish", "raise", "forget", "exit"])
def test_on_a_real_terminal_the_cursor_is_back_however_the_process_ends(how: str) -> None:
    code = (
        "import sys, runs\nfrom nwbflow.observe.bar import ProgressBar\nb = ProgressBar()\n"
        "events = list(runs.run())\n"
        "for e in events[:5]: b(e)\n"
        "print('to stdout')\n"
        + {
            "finish": "for e in events[5:]: b(e)",
            "raise": "raise RuntimeError('boom')",
            "forget": "",
            "exit": "sys.exit(3)",
        }[how]
    )
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**env, "TERM": "xterm-256color", "PYTHONPATH": SEARCH},
    )
    os.close(follower)
    seen = b""
    try:
        while piece := os.read(leader, 65536):
            seen += piece
    except OSError:  # how Linux says that nobody holds the other end any more
        pass
    os.close(leader)
    stdout, _ = process.communicate()
    assert stdout == b"to stdout\n"  # redirected text stays in its own stream
    text = seen.decode()
    assert text.count(HIDE) == text.count(SHOW) == 1
    assert "writing structure" in text
    assert ("RuntimeError: boom" in text) == (how == "raise")
    assert ("5.00 MB in 2.0 s" in text) == (how == "finish")


class Handle:
    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, content: str) -> None:
        self.shown.append(content)


def notebook() -> Console:
    return Console(file=io.StringIO(), force_jupyter=True, width=100, height=30)


def test_in_a_notebook_one_output_is_replaced_in_place(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    displays = []

    def display(content: str, *, display_id: bool) -> Handle:
        displays.append(display_id)
        shown.append(content)
        return Handle(shown)

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = object  # type: ignore[attr-defined]
    output = types.ModuleType("IPython.display")
    output.HTML = str  # type: ignore[attr-defined]
    output.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", output)
    bar = ProgressBar(console=notebook())
    for event in runs.run(chunks=5):
        bar(event)
    assert displays == [True]
    assert "60%" in shown[3] or "60%" in shown[4]
    assert "/acquisition/a/data" in shown[3]
    assert "verified</" in shown[-1] or "verified\n" in shown[-1]
    assert "stored with HDF5&#x27;s own filters" in shown[-1] or "stored with HDF5's own filters" in shown[-1]
    assert "%" not in shown[-1]


def test_a_real_ipython_shell_takes_it(clock: Clock) -> None:
    shell = pytest.importorskip("IPython.core.interactiveshell", reason="IPython is not installed")
    capture = pytest.importorskip("IPython.utils.capture", reason="IPython is not installed")
    shell.InteractiveShell.instance()
    try:
        bar = ProgressBar(console=notebook())
        with capture.capture_output() as captured:
            for event in runs.run(chunks=5):
                bar(event)
    finally:
        shell.InteractiveShell.clear_instance()
    assert "ratio 2.2, verified" in captured.outputs[-1].data["text/html"]


def test_in_a_notebook_without_ipython_nothing_happens(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    console = notebook()
    bar = ProgressBar(console=console)
    for event in runs.run():
        bar(event)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_sending_a_finished_file_is_told_with_its_share(clock: Clock) -> None:
    parts = [PartSent(number=n, parts=2, kept=False, bytes_done=n * 10**6, bytes_total=2 * 10**6) for n in (1, 2)]
    pictures = play(Terminal(), [*list(runs.run())[:-1], *parts])
    assert "sending: 1.00 MB of 2.00 MB, 50%" in pictures[-2]
    assert "sending: 2.00 MB of 2.00 MB, 100%" in pictures[-1]


def test_the_end_of_a_file_that_was_only_sent_says_how_much(clock: Clock) -> None:
    sent = SentFile(size=2 * 10**6, parts=2, kept=0, tag="t", seconds=3.0)
    receipt = Receipt(path=runs.PATH, datasets=(), seconds=3.0, sent=sent)
    pictures = play(Terminal(), [runs.started((), 0), RunFinished(receipt=receipt)])
    assert pictures[-1].strip().split("\n")[-1] == "recording.nwb: 2.00 MB sent in 3.0 s"
