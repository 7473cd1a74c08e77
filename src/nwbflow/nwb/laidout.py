"""Laying out the file of a recording: everything but the live rows."""

from __future__ import annotations

from typing import Any

import pynwb
from hdmf.build import GroupBuilder
from hdmf.common import DynamicTable

from nwbflow.nwb.candidates import find
from nwbflow.nwb.io import NWBHDF5IO
from nwbflow.nwb.layouts import Storage, decide
from nwbflow.nwb.live import live_candidates, series_of
from nwbflow.nwb.policies import WhenFull, dropping, gaps_table
from nwbflow.nwb.rates import declared_rates
from nwbflow.nwb.tables import check_tables, tables_completed
from nwbflow.record.manifest import LiveSeries


class LayoutIO(NWBHDF5IO):
    """Writes the structure, and tells what in it is live.

    Attributes
    ----------
    series : tuple of LiveSeries
        What will be recorded.
    dropping : tuple of str
        Names of the series whose blocks are dropped when their queue is full.
    rates : dict
        Declared rate of each series that has one, in hertz, by its path.
    """

    series: tuple[LiveSeries, ...]
    dropping: tuple[str, ...]
    rates: dict[str, float]
    _columns: dict[str, tuple[str, ...]]
    _when_full: WhenFull

    def lay_out(self, nwbfile: pynwb.NWBFile, when_full: WhenFull) -> None:
        """Write everything of a session but live rows.

        Raises
        ------
        SettingsError, UnsupportedError
            If something live can't be recorded, or not in the way that `when_full` says.
        """
        tables = [child for child in nwbfile.all_children() if isinstance(child, DynamicTable)]
        check_tables(tables)
        self._when_full = when_full
        self._columns = {table.object_id: tuple(table.colnames) for table in tables}
        self.write(nwbfile, exhaust_dci=False)

    def write_builder(self, builder: Any, **kwargs: Any) -> None:
        """Write a tree, as HDMF asks for it."""
        with tables_completed(builder, self.manager, self._columns):
            self.dropping = dropping(self._when_full, series_of(self._storages(builder)))
            with gaps_table(builder, self.manager, self.dropping):
                storages = self._storages(builder)
                self.rates = declared_rates(storages)
                self.series = series_of(storages)
                super().write_builder(builder, **kwargs)

    def _storages(self, builder: GroupBuilder) -> list[Storage]:
        live = live_candidates(builder, find(builder, self.manager, self.get_written), self.manager)
        return decide(live, self._session.options().wishes, self.manager)
