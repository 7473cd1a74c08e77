"""A progress bar for terminals and notebooks.

Drawing happens in the thread that announces the events, at most ten times a second, and less
often where drawing is slow: the pause after each drawing is a hundred times what the drawing
took (two seconds at most). No thread of its own, so nothing is left behind.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.text import Text

from nwbflow.model.events import (
    ChunkStored,
    DatasetFinished,
    DatasetStarted,
    DatasetVerified,
    Event,
    PartSent,
    RunFailed,
    RunFinished,
    RunStarted,
    StreamsObserved,
    Warned,
)
from nwbflow.model.receipt import Receipt
from nwbflow.observe.lines import StreamLines
from nwbflow.observe.screens import Screen, make_screen
from nwbflow.observe.text import ASCII, UNICODE, Glyphs, clean, clock, duration, fit, ratio_text, size

_SHORTEST_PAUSE = 0.1  # seconds between two drawings
_LONGEST_PAUSE = 2.0
_RECORDING_PAUSE = 0.9  # of a recording, which goes on for hours and has the processor for itself
_SHARE = 100  # a drawing may take this part of the time
_MOST_LINES = 12  # datasets shown at once, however tall the terminal
_MOST_WARNINGS = 5
_VERIFIED = {"stored": "verified", "full": "verified in full", "no": "not verified"}


@dataclass(slots=True)
class _Meter:
    """Progress of one dataset or of the whole, in bytes before filters."""

    name: str
    total: int | None
    started: float
    done: int = 0
    stored: int = 0
    finished: bool = False
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=40))

    def sample(self, now: float) -> None:
        """Remember where this stands, for the rate."""
        self.samples.append((now, self.done))

    def rate(self, now: float) -> float:
        """Return bytes per second over the last drawings (0 where nothing is known yet)."""
        since, before = self.samples[0] if self.samples else (self.started, 0)
        return (self.done - before) / (now - since) if now > since else 0.0

    def share(self) -> float | None:
        """Return the part done, 0 to 1; None where the length is unknown."""
        if self.finished:
            return 1.0
        return None if self.total is None else min(1.0, self.done / self.total) if self.total else 1.0


class ProgressBar:
    """Observer that shows a run's progress on standard error, or in the notebook's output.

    One line for every dataset being written (bytes done, percentage where the length is known,
    rate, compression ratio, time left), one for the whole, and at the end one line of summary
    that stays. Of a recording, one line for every stream (rows or time, rate, queue, lag, what is safe), one for the
    whole, and one for what is being done. Many datasets or streams don't flood the terminal: those being written (or
    in trouble) are shown, the others counted. Where standard error is neither a terminal nor a notebook, nothing is
    shown.

    Parameters
    ----------
    console : rich.console.Console or None
        Where to draw; ``None`` is standard error (looked up when a run starts).
    """

    def __init__(self, *, console: Console | None = None) -> None:
        self._given = console
        self._screen: Screen | None = None
        self._console: Console | None = None
        self._release: weakref.finalize[..., Any] | None = None
        self._reset()

    def _reset(self) -> None:
        self._file = ""
        self._whole = _Meter("", None, time.monotonic())
        self._meters: dict[str, _Meter] = {}
        self._datasets = 0
        self._finished = 0
        self._verified = 0
        self._warnings = 0
        self._queued = 0
        self._streams: StreamLines | None = None
        self._sent: PartSent | None = None
        self._next = 0.0

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`; draw if it is time."""
        now = time.monotonic()
        match event:
            case ChunkStored():
                self._stored(event, now)
            case RunStarted():
                self._start(event, now)
            case DatasetStarted():
                if not self._meters:  # the structure's time would make the rate look lower
                    self._whole.started = now
                    self._whole.samples.clear()
                self._meters[event.dataset] = _Meter(event.dataset, event.raw_bytes, now)
            case DatasetFinished():
                self._finish(event, now)
            case DatasetVerified():
                self._verified += 1
            case StreamsObserved() if self._streams is None:
                self._streams = StreamLines(event, self._datasets)
            case Warned():
                self._warn(event)
            case PartSent():
                self._sent = event
            case RunFinished():
                self._end(_summary(event.receipt, self._warnings))
            case RunFailed():
                self._end(_failure(event))
        if self._streams is not None:
            self._streams(event)
            if isinstance(event, ChunkStored):
                return  # nothing of it is in the lines; how the streams stand is told often enough
        if self._screen is not None and now >= self._next:
            self._draw(now)

    def close(self) -> None:
        """Give the terminal back: the lines go, the cursor returns. May be called at any time."""
        if self._release is not None:
            self._release()
        self._screen = self._release = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, event: RunStarted, now: float) -> None:
        self.close()
        self._reset()
        self._file = clean(event.path.name)
        self._datasets = len(event.datasets)
        self._whole = _Meter(self._file, event.raw_bytes, now)
        self._console = self._given or Console(stderr=True)
        self._screen = make_screen(self._console, given=self._given is not None)
        if self._screen is not None:
            # runs when the bar is collected and at the interpreter's exit, if nobody closed it before
            self._release = weakref.finalize(self, self._screen.close)

    def _stored(self, event: ChunkStored, now: float) -> None:
        meter = self._meters.get(event.dataset)
        if meter is None:
            meter = self._meters[event.dataset] = _Meter(event.dataset, None, now)
        self._whole.done += event.raw_done - meter.done
        self._whole.stored += event.stored_bytes
        meter.done = event.raw_done
        meter.stored += event.stored_bytes
        self._queued = event.queued

    def _finish(self, event: DatasetFinished, now: float) -> None:
        meter = self._meters.setdefault(event.dataset, _Meter(event.dataset, None, now))
        self._whole.done += event.receipt.raw_bytes - meter.done
        self._whole.stored += event.receipt.stored_bytes - meter.stored
        meter.done, meter.stored, meter.finished = event.receipt.raw_bytes, event.receipt.stored_bytes, True
        self._finished += 1

    def _warn(self, event: Warned) -> None:
        self._warnings += 1
        if self._screen is not None and self._warnings <= _MOST_WARNINGS:
            place = "" if event.dataset is None else f"{clean(event.dataset)}: "
            self._screen.say(Text.assemble(("warning ", "yellow"), place + clean(event.message)))

    def _end(self, line: Text) -> None:
        screen = self._screen
        self.close()
        if screen is not None:
            screen.say(line)

    def _draw(self, now: float) -> None:
        if self._screen is None or self._console is None:
            return
        cost = time.perf_counter()
        for meter in (self._whole, *(m for m in self._meters.values() if not m.finished)):
            meter.sample(now)
        self._screen.show(self._lines(self._console, now))
        cost = time.perf_counter() - cost
        is_calm = self._streams is not None and not self._streams.state.closing
        shortest = _RECORDING_PAUSE if is_calm else _SHORTEST_PAUSE
        self._next = now + min(_LONGEST_PAUSE, max(shortest, _SHARE * cost))

    def _lines(self, console: Console, now: float) -> list[Text]:
        width, height = console.size
        glyphs = ASCII if console.options.ascii_only else UNICODE
        room = max(1, min(_MOST_LINES, height - 4))  # below: what is left out, the whole, the state, the cursor
        if self._streams is not None:
            return self._streams.lines(width, room, glyphs)
        active = [m for m in self._meters.values() if not m.finished]
        # few enough: what is finished stays in sight
        shown = (list(self._meters.values()) if self._datasets <= room else active)[:room]
        lines = [_meter_line(m, now, width, glyphs, "green" if m.finished else "cyan") for m in shown]
        if len(active) > len(shown):
            more = f"{glyphs.ellipsis} and {len(active) - len(shown)} more being written"
            lines.append(Text(fit(more, width - 1, glyphs), "dim"))
        if self._datasets != 1 or not self._meters:  # of one dataset it would say the same again
            lines.append(_meter_line(self._whole, now, width, glyphs, "bold"))
        lines.append(Text(fit(self._state(), width - 1, glyphs), "dim"))
        return lines

    def _state(self) -> str:
        if self._sent is not None:
            sent = self._sent
            percent = int(100 * sent.bytes_done / sent.bytes_total) if sent.bytes_total else 100
            return f"sending: {size(sent.bytes_done)} of {size(sent.bytes_total)}, {percent}%"
        if not self._meters:
            return "writing structure and metadata"
        noun = "dataset" if self._datasets == 1 else "datasets"
        if self._finished < self._datasets:
            waiting = self._datasets - len(self._meters)
            text = f"{self._finished} of {self._datasets} {noun} written, {self._queued} chunks on their way"
            return text + (f", {waiting} waiting" if waiting > 0 else "")
        if self._verified < self._datasets:
            return f"{self._datasets} {noun} written, verifying and publishing: {self._verified} verified"
        return f"{self._datasets} {noun} written and verified, publishing"


def _meter_line(meter: _Meter, now: float, width: int, glyphs: Glyphs, style: str) -> Text:
    """Return one line of at most `width` - 1 cells; what matters least goes first where it is narrow."""
    share, rate = meter.share(), 0.0 if meter.finished else meter.rate(now)
    left = (meter.total - meter.done) / rate if meter.total is not None and rate > 0 else None
    percent = "    " if share is None else f"{int(share * 100):3d}%"
    cells = {
        "percent": percent,
        "bytes": f"{size(meter.done):>8}" + (f" / {size(meter.total):<8}" if meter.total is not None else " " * 11),
        "rate": f"{rate / 1e6:6.0f} MB/s" if rate else " " * 11,
        "ratio": f"ratio {ratio_text(meter.done / meter.stored):>5}" if meter.stored else " " * 11,
        "left": f"{clock(left)} left".ljust(12) if left is not None and not meter.finished else " " * 12,
    }
    for least in ("ratio", "bytes", "rate", "left"):
        if width - 1 - sum(len(c) + 2 for c in cells.values()) >= 16:
            break
        del cells[least]
    room = max(4, width - 1 - sum(len(c) + 2 for c in cells.values()))
    bar = min(30, room - 22) if room >= 32 else 0
    name = fit(clean(meter.name), room - (bar + 2 if bar else 0), glyphs, keep_end=True)
    line = Text(no_wrap=True, overflow="crop").append(name.ljust(room - (bar + 2 if bar else 0)), style)
    if bar:
        full = 0 if share is None else int(share * bar)
        line.append("  ").append(glyphs.full * full, "green").append(glyphs.rest * (bar - full), "dim")
    for cell in cells.values():
        line.append("  " + cell)
    return line


def _summary(receipt: Receipt, warnings: int) -> Text:
    """Return the line that stays when all went well."""
    if receipt.sent is not None and not receipt.datasets:
        return Text(f"{clean(receipt.path.name)}: {size(receipt.sent.size)} sent in {duration(receipt.seconds)}")
    rate = f" ({receipt.raw_bytes / receipt.seconds / 1e6:.0f} MB/s)" if receipt.seconds > 0 else ""
    text = (
        f"{clean(receipt.path.name)}: {size(receipt.raw_bytes)} in {duration(receipt.seconds)}{rate}, "
        f"{size(receipt.stored_bytes)} stored, ratio {receipt.ratio:.1f}, "
        f"{_VERIFIED.get(receipt.verified, receipt.verified)}"
    )
    if warnings > _MOST_WARNINGS:
        text += f"; {warnings} warnings, {warnings - _MOST_WARNINGS} of them not shown"
    return Text(text)


def _failure(event: RunFailed) -> Text:
    first = event.error.strip().splitlines()[0] if event.error.strip() else "no reason given"
    kept = "" if event.partial is None else f" (what was written is kept in {clean(event.partial.name)})"
    return Text.assemble(f"{clean(event.path.name)}: ", ("failed", "red"), f": {clean(first)}{kept}")
