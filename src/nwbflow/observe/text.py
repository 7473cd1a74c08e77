"""Names, sizes and times as people read them in a line of a terminal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Signs that lines are drawn with.

    Parameters
    ----------
    full, rest : str
        Of a bar, what is done and what is not.
    ellipsis : str
        In place of what did not fit.
    """

    full: str
    rest: str
    ellipsis: str


UNICODE = Glyphs("━", "─", "…")
ASCII = Glyphs("#", "-", "...")


def clean(text: str) -> str:
    """Replace what could move the cursor or change the terminal: names come from files."""
    return "".join(c if c.isprintable() else "?" for c in text)


def fit(text: str, width: int, glyphs: Glyphs, *, keep_end: bool = False) -> str:
    """Return a text of at most `width` cells, cut at one end."""
    if len(text) <= width:
        return text
    mark = glyphs.ellipsis
    room = max(0, width - len(mark))
    return mark + text[len(text) - room :] if keep_end else text[:room] + mark


def size(nbytes: float) -> str:
    """Return a size in decimal units with three digits, e.g. ``1.20 GB``."""
    return f"{int(nbytes)} B" if nbytes < 999.5 else f"{_scaled(nbytes, ('', 'k', 'M', 'G', 'T'))}B"


def number(count: float) -> str:
    """Return a number with three digits, e.g. ``12.3 M``."""
    return f"{count:.0f}" if count < 9999.5 else _scaled(count, ("", "k", "M", "G", "T"))


def hertz(rate: float) -> str:
    """Return a rate with three digits, e.g. ``30.0 kHz``."""
    return f"{_scaled(rate, ('', 'k', 'M', 'G'))}Hz"


def _scaled(value: float, prefixes: tuple[str, ...]) -> str:
    last = prefixes[-1]
    for prefix in prefixes:
        if value < 999.5 or prefix == last:
            break
        value /= 1000
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {prefix}"


def ratio_text(ratio: float) -> str:
    """Return how many times smaller something became."""
    return f"{ratio:.2f}" if ratio < 99.995 else f"{min(ratio, 99999):.0f}"


def duration(seconds: float) -> str:
    """Return how long something took, e.g. ``1.3 s`` or ``2:10``."""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else clock(seconds)


def clock(seconds: float) -> str:
    """Return a time as ``m:ss`` or ``h:mm:ss``."""
    whole = int(min(seconds, 359999.0))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
