"""Gaps in series whose blocks are dropped when their queue is full: counted, and marked in the file.

What is dropped between two blocks that were taken is one gap, and one row of a table of time intervals. That row is
in the journal before the block behind the gap.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from nwbflow.model.data import Array
from nwbflow.record.manifest import ID, LiveSeries

GAPS = "/intervals/recording_gaps"
"""The table that has the gaps."""

TIMES = "timestamps"
"""Dataset that says when the rows of a series were."""


@dataclass(slots=True)
class _Gap:
    before: int
    start: float
    stop: float
    rows: int


class Gaps:
    """Remembers what was dropped.

    Parameters
    ----------
    series : sequence of LiveSeries
        In the order of the manifest, the table of gaps among them.
    dropping : collection of str
        Names of the series whose blocks are dropped, in the order in which the table numbers them.

    Attributes
    ----------
    table : int or None
        Position of the table of gaps; ``None`` if nothing is ever dropped.
    """

    def __init__(self, series: Sequence[LiveSeries], dropping: Collection[str]) -> None:
        self._series = series
        names = [spec.name for spec in series]
        self.table = names.index(GAPS) if dropping else None
        self._numbers = {names.index(name): number for number, name in enumerate(dropping)}
        self._open: dict[int, _Gap] = {}
        self._dropped = [0] * len(series)
        self._counts = [0] * len(series)

    def drops(self, series: int) -> bool:
        """Whether blocks of a series are dropped when its queue is full."""
        return series in self._numbers

    def dropped(self, series: int) -> int:
        """Return how many rows of a series were dropped."""
        return self._dropped[series]

    def drop(self, series: int, before: int, rows: int, parts: Sequence[Array]) -> None:
        """Count a block as dropped: `rows` rows, which would have come before row `before`."""
        spec = self._series[series]
        at = next(i for i, dataset in enumerate(spec.datasets) if dataset.field == TIMES)
        times = parts[at].view(spec.datasets[at].layout.dtype)
        gap = self._open.get(series)
        if gap is None:
            gap = self._open[series] = _Gap(before, float(times[0]), 0.0, 0)
            self._counts[series] += 1
        gap.stop = float(times[-1])
        gap.rows += rows
        self._dropped[series] += rows

    def end(self, series: int) -> tuple[Array, ...] | None:
        """End the gap of a series, if it has one now; return a row of the table, without its number."""
        gap = self._open.pop(series, None)
        if gap is None or self.table is None:
            return None
        values = {
            ID: 0,
            "start_time": gap.start,
            "stop_time": gap.stop,
            "series": self._numbers[series],
            "before_row": gap.before,
            "missing_rows": gap.rows,
        }
        columns = self._series[self.table].datasets
        return tuple(np.array([values[d.field]], d.layout.dtype).view(np.uint8) for d in columns)

    def notes(self) -> list[str]:
        """Return what the receipt has to say."""
        return [
            f"{self._series[series].name}: {self._dropped[series]} rows were dropped since its queue was full, in "
            f"{count} {'gap' if count == 1 else 'gaps'}; {GAPS} in the file tells where"
            for series, count in enumerate(self._counts)
            if count
        ]
