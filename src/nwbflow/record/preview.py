"""Rows of a chunk that is not complete, shown early to those who watch the partial file.

HDF5 lets a chunk be stored again while others read the file: the new bytes get a new place, and the old place is
never used again, so whoever still reads there reads what was there. That has a price, the old place, and one
exception: if the new bytes are as many as the old ones, they go to the same place, and a reader could get half of each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.encoding.pipeline import FilterEncoder
from nwbflow.engine.chunks import blank
from nwbflow.model.data import Array
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Layout

SLOW_SECONDS = 20.0
"""A row of chunks that takes longer than this to fill is shown before it is complete."""

SHOW_SECONDS = 1.0
"""How often, at most."""

_FREE_BYTES, _SHARE = 16 * 2**20, 8
"""What showing may waste: so much, and this part of what has been stored."""

_AT_ONCE = 16
"""A preview is made every time if it takes at most this part of what may be wasted, else when rows have doubled."""

_IDLE = 20
"""Times as long as making it took, no other preview of a dataset is made."""

_TRIES = 50


@dataclass(slots=True)
class Budget:
    """What all previews of a file have wasted, and what may be.

    Parameters
    ----------
    stored, wasted : int
        Bytes of complete chunks, and of previews.
    """

    stored: int = 0
    wasted: int = 0

    @property
    def left(self) -> int:
        """Bytes that may still be wasted."""
        return _FREE_BYTES + self.stored // _SHARE - self.wasted


@dataclass(frozen=True, slots=True)
class Preview:
    """The chunks of an incomplete row of chunks, ready to be stored; none if that can't be done.

    Parameters
    ----------
    rows : int
        Rows of the dataset that they reach to.
    chunks : list of tuple
        Place and content of each.
    seconds : float
        What it took.
    """

    rows: int
    chunks: list[tuple[tuple[int, ...], Encoded]]
    seconds: float


@dataclass(slots=True)
class Showing:
    """What has been shown of the row of chunks of one dataset that is being filled, and when more is due.

    Parameters
    ----------
    began : float or None
        When its first row came (``time.monotonic``).
    rows : int
        Rows of it that have been shown.
    stored : dict
        Size and CRC-32 of each of its chunks as it is in the file, by place.
    pending : bool
        Whether a preview is being made.
    """

    began: float | None = None
    rows: int = 0
    stored: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)
    pending: bool = False
    _last: float = 0.0
    _seconds: float = 0.0

    def is_due(self, filled: int, height: int, row_bytes: int, budget: Budget) -> bool:
        """Whether `filled` rows of `height` are to be shown now."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        if self.pending or filled <= self.rows:
            return False
        age = now - self.began
        if age < SHOW_SECONDS or age * height < SLOW_SECONDS * filled:
            return False
        if now - self._last < max(SHOW_SECONDS, _IDLE * self._seconds):
            return False
        known = sum(size for size, _ in self.stored.values())
        cost = known * filled // self.rows if known and self.rows else filled * row_bytes
        return cost <= budget.left and (filled >= 2 * self.rows or cost * _AT_ONCE <= budget.left)

    def made(self, preview: Preview) -> None:
        """Note how long a preview took."""
        self.pending = False
        self._last, self._seconds = time.monotonic(), preview.seconds


def preview(
    encoder: FilterEncoder,
    layout: Layout,
    chunks: Iterable[tuple[tuple[int, ...], Array]],
    rows: int,
    stored: dict[tuple[int, ...], tuple[int, int]],
) -> Preview:
    """Encode incomplete chunks such that each of them can be stored in place of the one that is there.

    Parameters
    ----------
    encoder : FilterEncoder
        Of the dataset.
    layout : Layout
        Of the dataset.
    chunks : iterable of tuple
        Place and present rows of each chunk.
    rows : int
        Rows of the dataset that they reach to.
    stored : dict
        What is there, as in :class:`Showing`.
    """
    began = time.perf_counter()
    done: list[tuple[tuple[int, ...], Encoded]] = []
    for offset, present in chunks:
        encoded = beside(encoder, layout, present, *stored.get(offset, (-1, 0)))
        if encoded is None:
            done = []
            break
        done.append((offset, encoded))
    return Preview(rows, done, time.perf_counter() - began)


def beside(encoder: FilterEncoder, layout: Layout, rows: Array, size: int, crc: int) -> Encoded | None:
    """Encode an incomplete chunk such that it gets another place than one of `size` bytes, or is the same.

    What lies behind `rows` is not shown, so it can be anything. Returns ``None`` where that is of no use: for rows
    that can't be compressed.
    """
    whole = blank(layout.chunks or (), layout)
    whole[tuple(slice(0, n) for n in rows.shape)] = rows
    unseen = whole[len(rows) :].reshape(-1).view(np.uint8)
    noise = np.random.default_rng(0)
    for attempt in range(_TRIES):
        encoded = encoder.encode(whole)
        if not layout.filters:
            return encoded  # it goes to the same place, where all that can be seen stays as it is
        if len(encoded.data) >= whole.nbytes:
            return None
        if len(encoded.data) != size or crc32(encoded.data) == crc:
            return encoded
        count = min(len(unseen), 4 << attempt // 4)
        unseen[len(unseen) - count :] = np.frombuffer(noise.bytes(count), np.uint8)
    return None
