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


@dataclass(frozen=True, slots=True)
class _Gap:
    """The newest gap of a series, which is open until there is a row behind it, and what was dropped in all."""

    before: int
    start: float
    stop: float
    rows: int
    all_rows: int
    all_gaps: int


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
        self._newest: dict[int, _Gap] = {}

    def drops(self, series: int) -> bool:
        """Whether blocks of a series are dropped when its queue is full."""
        return series in self._numbers

    def dropped(self, series: int) -> int:
        """Return how many rows of a series were dropped."""
        gap = self._newest.get(series)
        return 0 if gap is None else gap.all_rows

    def drop(self, series: int, before: int, rows: int, parts: Sequence[Array]) -> None:
        """Count a block as dropped: `rows` rows, which would have come before row `before`."""
        spec = self._series[series]
        at = next(i for i, dataset in enumerate(spec.datasets) if dataset.field == TIMES)
        times = parts[at].view(spec.datasets[at].layout.dtype)
        start, stop = float(times[0]), float(times[-1])
        last = self._newest.get(series)
        if last is None:
            gap = _Gap(before, start, stop, rows, rows, 1)
        elif last.before == before:
            gap = _Gap(before, last.start, stop, last.rows + rows, last.all_rows + rows, last.all_gaps)
        else:
            gap = _Gap(before, start, stop, rows, last.all_rows + rows, last.all_gaps + 1)
        self._newest[series] = gap  # in one step, before or after which a Ctrl-C may come

    def row(self, series: int, before: int) -> tuple[Array, ...] | None:
        """Return the row of the table, without its number, of the gap before row `before` of a series, if one is."""
        gap = self._newest.get(series)
        if gap is None or gap.before != before or self.table is None:
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
            f"{self._series[series].name}: {gap.all_rows} rows were dropped since its queue was full, in "
            f"{gap.all_gaps} {'gap' if gap.all_gaps == 1 else 'gaps'}; {GAPS} in the file tells where"
            for series, gap in sorted(self._newest.items())
        ]
