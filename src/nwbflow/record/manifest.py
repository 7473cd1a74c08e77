"""What a journal holds: which datasets, of which series, in which file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nwbflow.model.layout import Layout

VERSION = 3
"""Of the journal's format; a reader refuses any other."""

ID = "id"
"""Dataset of a table that counts its rows. Nobody gives it; to a reader of the journal it is like any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDataset:
    """One dataset that grows while it is recorded.

    Parameters
    ----------
    field : str
        What it is called in its series (``data``, ``timestamps`` or ``control``) or table (a column's name, ``id``).
    name : str
        Absolute path inside the file.
    layout : Layout
        As created, with no rows.
    effort : int, str or None
        How hard its encoder works.
    """

    field: str
    name: str
    layout: Layout
    effort: int | str | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Lengths of all axes but the first, in elements."""
        return self.layout.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Size of one row before filters, in bytes."""
        return math.prod(self.row_shape) * self.layout.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSeries:
    """The datasets of one series or table; they always have equal numbers of rows.

    Parameters
    ----------
    name : str
        Absolute path of the series inside the file.
    datasets : tuple of LiveDataset
        In the order in which the journal holds them.
    """

    name: str
    datasets: tuple[LiveDataset, ...]

    @property
    def is_table(self) -> bool:
        """Whether it is a table, whose rows are counted."""
        return any(dataset.field == ID for dataset in self.datasets)

    @property
    def given(self) -> tuple[LiveDataset, ...]:
        """The datasets that whoever appends has rows for."""
        return tuple(dataset for dataset in self.datasets if dataset.field != ID)

    @property
    def row_bytes(self) -> int:
        """Size of one row of all its datasets before filters, in bytes."""
        return sum(dataset.row_bytes for dataset in self.datasets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is needed besides the journal's frames to make the file.

    Parameters
    ----------
    identity : bytes
        16 random bytes that tell this recording's frames from any other's.
    series : tuple of LiveSeries
        A frame names one by its position here.
    structure_bytes, structure_crc32 : int
        Size and CRC-32 of the file with everything but the recorded rows, kept in the journal.
    replaces : tuple of int or None
        Mark of an older file at the path that may be replaced.
    spill : pathlib.Path or None
        Folder, on another disk as a rule, that may hold segments too.
    has_journal : bool
        Whether rows go into segments first; if not, the partial file alone has them.
    """

    identity: bytes
    series: tuple[LiveSeries, ...]
    structure_bytes: int
    structure_crc32: int
    replaces: tuple[int, ...] | None = None
    spill: Path | None = None
    has_journal: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON-serialisable values; :meth:`from_json` reverses it."""
        return {
            "version": VERSION,
            "identity": self.identity.hex(),
            "structure": {"bytes": self.structure_bytes, "crc32": self.structure_crc32},
            "replaces": None if self.replaces is None else list(self.replaces),
            "spill": None if self.spill is None else str(self.spill),
            "journal": self.has_journal,
            "series": [
                {
                    "name": series.name,
                    "datasets": [
                        {"field": d.field, "name": d.name, "layout": d.layout.to_json(), "effort": d.effort}
                        for d in series.datasets
                    ],
                }
                for series in self.series
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """Build a manifest from what :meth:`to_json` returned.

        Raises
        ------
        ValueError
            If it is of another version.
        """
        if value["version"] != VERSION:
            raise ValueError(f"a journal of version {value['version']}; this nwbflow reads version {VERSION}")
        return cls(
            identity=bytes.fromhex(value["identity"]),
            structure_bytes=value["structure"]["bytes"],
            structure_crc32=value["structure"]["crc32"],
            replaces=None if value["replaces"] is None else tuple(value["replaces"]),
            spill=None if value["spill"] is None else Path(value["spill"]),
            has_journal=bool(value["journal"]),
            series=tuple(
                LiveSeries(
                    name=series["name"],
                    datasets=tuple(
                        LiveDataset(
                            field=d["field"], name=d["name"], layout=Layout.from_json(d["layout"]), effort=d["effort"]
                        )
                        for d in series["datasets"]
                    ),
                )
                for series in value["series"]
            ),
        )
