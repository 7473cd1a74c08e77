"""The lines of a recording in a terminal: one for each stream, one for the whole, one for what is being done."""

from __future__ import annotations

from rich.text import Text

from nwbflow.model.events import ChunkStored, DatasetFinished, DatasetVerified, Event, StreamsObserved, StreamState
from nwbflow.observe.room import seconds_to_full
from nwbflow.observe.text import Glyphs, clean, clock, fit, hertz, number, ratio_text, size

_FULLER, _FULL = 0.5, 0.8  # parts of a queue from where on it is worth a colour
_LATE = 2.0  # seconds
_OFF = 0.05  # part by which a rate may be off the declared one
_SETTLED = 5.0  # seconds after which a rate means something
_NAME = 14  # cells of a name that nothing takes away
_LONG = 100 * 3600.0  # seconds that are as good as never


class StreamLines:
    """What is known of a recording, as lines.

    Parameters
    ----------
    state : StreamsObserved
        How it stands.
    datasets : int
        Number of datasets that are filled.
    """

    def __init__(self, state: StreamsObserved, datasets: int) -> None:
        self.state = state
        self._datasets = datasets
        self._finished = self._verified = 0
        self._raw = self._stored = 0

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`."""
        match event:
            case StreamsObserved():
                self.state = event
            case ChunkStored():
                self._raw += event.raw_bytes
                self._stored += event.stored_bytes
            case DatasetFinished():
                self._finished += 1
            case DatasetVerified():
                self._verified += 1

    def lines(self, width: int, most: int, glyphs: Glyphs) -> list[Text]:
        """Return the lines, each of at most `width` - 1 cells.

        Parameters
        ----------
        width : int
            Of the terminal, in cells.
        most : int
            Streams to show; if there are more, those in trouble come first.
        glyphs : Glyphs
            What the terminal can show.
        """
        streams = list(self.state.streams)
        if len(streams) > most:
            shown = set(sorted(range(len(streams)), key=lambda at: (not _in_trouble(streams[at]), at))[:most])
            streams = [stream for at, stream in enumerate(streams) if at in shown]
        rows = [_cells(stream, self.state) for stream in streams]
        names = max((len(clean(stream.name)) for stream in streams), default=0)
        kept = _kept(rows, width, names)
        widths = {cell: max(len(row[cell][0]) for row in rows) for cell in kept}
        room = width - 1 - sum(2 + widths[cell] for cell in kept)
        lines = [_line(stream.name, row, widths, room, glyphs) for stream, row in zip(streams, rows, strict=True)]
        if more := len(self.state.streams) - len(streams):
            lines.append(Text(fit(f"{glyphs.ellipsis} and {more} more streams", width - 1, glyphs), "dim"))
        lines.append(Text(fit(self._total(width - 1), width - 1, glyphs), "bold"))
        lines.append(Text(fit(self._doing(), width - 1, glyphs), "yellow" if self.state.closing else "dim"))
        return lines

    def _total(self, room: int) -> str:
        """Return the line of the whole; what matters least is left out where it is narrow."""
        state = self.state
        rate = sum(s.rows_per_second * s.row_bytes for s in state.streams)
        full = seconds_to_full(state, self._raw, self._stored)
        when = "" if full is None else ", full in more than 99 h" if full > _LONG else f", full in {clock(full)}"
        cells = {
            "name": clean(state.path.name),
            "seconds": clock(state.seconds),
            "bytes": size(sum(s.appended * s.row_bytes for s in state.streams)),
            "rate": "" if state.closing else f"{size(rate)}/s",
            "ratio": f"ratio {ratio_text(self._raw / self._stored)}" if self._stored else "",
            "disk": f"disk {size(state.disk_free)} left{when}",
        }
        for least in ("name", "ratio", "bytes", "rate"):
            text = "  ".join(filter(None, cells.values()))
            if len(text) <= room:
                return text
            del cells[least]
        return "  ".join(cells.values())

    def _doing(self) -> str:
        streams, noun = self.state.streams, "dataset" if self._datasets == 1 else "datasets"
        if not self.state.closing:
            return f"recording {len(streams)} {'stream' if len(streams) == 1 else 'streams'}"
        waiting = sum((s.appended - s.acknowledged) * s.row_bytes for s in streams)
        if self._finished < self._datasets:
            if waiting:
                return f"closing: draining, {size(waiting)} not safe yet"
            total = sum(s.appended * s.row_bytes for s in streams)
            done = sum(s.folded * s.row_bytes for s in streams)
            return f"closing: finishing, {size(total - done)} of {size(total)} not in the file yet"
        if self._verified < self._datasets:
            return f"closing: verifying, {self._verified} of {self._datasets} {noun} read back and right"
        return f"closing: {self._datasets} {noun} verified, putting the file in place"


def _in_trouble(stream: StreamState) -> bool:
    return bool(stream.dropped) or stream.lag_seconds > _LATE or stream.queued_bytes > _FULLER * stream.queue_limit


def _cells(stream: StreamState, state: StreamsObserved) -> dict[str, tuple[str, str]]:
    """Return text and style of each cell of a stream's line."""
    queue = stream.queued_bytes / stream.queue_limit if stream.queue_limit else 0.0
    style = "red" if queue >= _FULL else "yellow" if queue >= _FULLER else ""
    rate, declared = stream.rows_per_second, stream.declared_rate
    off = declared and state.seconds > _SETTLED and not state.closing and abs(rate - declared) > _OFF * declared
    safe = "all safe" if stream.acknowledged == stream.appended else f"safe {_amount(stream.acknowledged, stream)}"
    return {
        "amount": (_amount(stream.appended, stream), ""),
        "rate": ("" if state.closing else hertz(rate), "yellow" if off else ""),
        "bytes": ("" if state.closing else f"{rate * stream.row_bytes / 1e6:.2f} MB/s", ""),
        "queue": (f"queue {queue * 100:.0f}%", style),
        "lag": (f"lag {stream.lag_seconds:.1f} s", "yellow" if stream.lag_seconds > _LATE else ""),
        "safe": (safe, "" if stream.acknowledged == stream.appended else style),
        "file": (f"{stream.folded / max(1, stream.appended):.0%} in the file" if state.closing else "", ""),
        "dropped": (f"dropped {number(stream.dropped)}" if stream.dropped else "", "red"),
    }


def _amount(rows: int, stream: StreamState) -> str:
    """Return rows as time, where the series has a rate."""
    return (
        clock(rows / stream.declared_rate) if stream.declared_rate else f"{number(rows)} row{'' if rows == 1 else 's'}"
    )


def _kept(rows: list[dict[str, tuple[str, str]]], width: int, names: int) -> list[str]:
    """Return the cells there is room for; what matters least goes first."""
    widths = {cell: max((len(row[cell][0]) for row in rows), default=0) for cell in (rows[0] if rows else ())}
    kept = [cell for cell, wide in widths.items() if wide]
    for least in ("bytes", "safe", "amount", "lag", "file", "rate", "queue"):
        if width - 1 - sum(2 + widths[cell] for cell in kept) >= min(names, _NAME):
            break
        kept = [cell for cell in kept if cell != least]
    return kept


def _line(name: str, row: dict[str, tuple[str, str]], widths: dict[str, int], room: int, glyphs: Glyphs) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    line.append(fit(clean(name), max(0, room), glyphs, keep_end=True).ljust(room), "cyan")
    for cell, wide in widths.items():
        text, style = row[cell]
        line.append("  ").append(text.rjust(wide), style)
    return line
