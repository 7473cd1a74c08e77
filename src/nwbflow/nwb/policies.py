"""What becomes of blocks of a series whose queue is full, and the table that tells of those that were dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from hdmf.build import BuildManager, GroupBuilder
from hdmf.common import MeaningsTable, VectorData
from pynwb.epoch import TimeIntervals

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.nwb.livedata import LiveDataIO
from nwbflow.nwb.tables import COLUMNS
from nwbflow.record.gaps import GAPS, TIMES
from nwbflow.record.manifest import ID, LiveSeries

type WhenFull = str | Mapping[str, str]
"""``"block"`` or ``"drop"``, for all series or by name."""

_BLOCK, _DROP = "block", "drop"
_GROUP, _TABLE = GAPS.strip("/").split("/")
_COLUMNS = {
    "start_time": ("float64", "Time of the first missing row, in seconds."),
    "stop_time": ("float64", "Time of the last missing row, in seconds."),
    "series": ("uint16", "Number of the series that has the gap."),
    "before_row": ("int64", "Row of the series before which rows are missing."),
    "missing_rows": ("int64", "How many rows are missing."),
}


def named(name: str, paths: Iterable[str]) -> str:
    """Return the path that a name means: the path itself, or the only one that ends in it.

    Raises
    ------
    KeyError
        If there is none, or more than one.
    """
    known, wanted = list(paths), "/" + name.strip("/")
    found = [path for path in known if path.endswith(wanted)]
    exact = [path for path in found if path == wanted]
    if len(exact or found) != 1:
        kind = "no" if not found else "more than one"
        raise KeyError(f"{name!r} is {kind} live series; there are {', '.join(known)}")
    return (exact or found)[0]


def dropping(when_full: WhenFull, series: Sequence[LiveSeries]) -> tuple[str, ...]:
    """Return the names of the series whose blocks are dropped.

    Raises
    ------
    SettingsError
        For policies or names that there are not, or series that have no time stamps to mark a gap with.
    """
    policies = _by_path(when_full, [spec.name for spec in series])
    wrong = sorted({str(policy) for policy in policies.values() if policy not in (_BLOCK, _DROP)})
    if wrong:
        raise SettingsError(
            f"when_full={wrong[0]!r}: give 'block' or 'drop', or a mapping of series to these", kind=ErrorKind.OPTION
        )
    chosen = [spec for spec in series if policies.get(spec.name) == _DROP]
    for spec in chosen:
        _check_has_times(spec)
    return tuple(spec.name for spec in chosen)


def _by_path(when_full: object, names: Sequence[str]) -> dict[str, object]:
    """Return the policy of each series that has one, by the series' path."""
    if isinstance(when_full, str):
        return dict.fromkeys(names, when_full)
    if not isinstance(when_full, Mapping) or not all(isinstance(name, str) for name in when_full):
        raise SettingsError(
            f"when_full={when_full!r}: give 'block' or 'drop', or a mapping of series to these", kind=ErrorKind.OPTION
        )
    policies: dict[str, object] = {}
    for name, policy in when_full.items():
        try:
            path = named(name, names)
        except KeyError as error:
            raise SettingsError(f"when_full: {error.args[0]}", kind=ErrorKind.OPTION) from error
        if policies.setdefault(path, policy) != policy:
            raise SettingsError(f"when_full: {path} is named twice, with different policies", kind=ErrorKind.OPTION)
    return policies


def _check_has_times(spec: LiveSeries) -> None:
    if not spec.is_table and any(dataset.field == TIMES for dataset in spec.datasets):
        return
    if spec.is_table:
        what = "is a table, of which nothing is dropped: name only series, as in when_full={'probe': 'drop'}"
    else:
        what = (
            "has a rate and no time stamps, so everything behind a dropped block would be at the wrong time: declare "
            "timestamps=nwbflow.live(), or let it block (with a larger queue=, or a second disk in spill=)"
        )
    raise SettingsError(f"when_full: {spec.name} {what}", kind=ErrorKind.OPTION)


@contextmanager
def gaps_table(root: GroupBuilder, manager: BuildManager, names: Sequence[str]) -> Iterator[None]:
    """Put the table of gaps into a tree, if blocks of any series may be dropped; take it out afterwards.

    Raises
    ------
    SettingsError
        If there is something else of that name.
    """
    if not names:
        yield
        return
    intervals = root.groups.get(_GROUP)
    if intervals is None:
        intervals = GroupBuilder(_GROUP)
        root.set_group(intervals)
    if _TABLE in intervals.groups or _TABLE in intervals.links:
        raise SettingsError(
            f"{GAPS} is in this file already, and is where dropped blocks are to be marked; rename that table, or "
            "leave out when_full='drop'",
            kind=ErrorKind.OPTION,
        )
    intervals.set_group(_built(manager, names))
    try:
        yield
    finally:
        del intervals.groups[_TABLE]


def _built(manager: BuildManager, names: Sequence[str]) -> GroupBuilder:
    columns = [
        VectorData(name=name, description=description, data=LiveDataIO.of((None,), np.dtype(dtype)))
        for name, (dtype, description) in _COLUMNS.items()
    ]
    table = TimeIntervals(
        name=_TABLE,
        description="Gaps in recorded series. Their rows came faster than they could be stored, and were dropped.",
        columns=columns,
    )
    numbers = VectorData(name="value", description="Number of the series.", data=np.arange(len(names), dtype="u2"))
    paths = VectorData(name="meaning", description="Path of the series in this file.", data=list(names))
    table.add_meanings_table(MeaningsTable(target=table["series"], columns=[numbers, paths]))
    built: GroupBuilder = manager.build(table, source="nwbflow", root=True)
    built.set_attribute(COLUMNS, table.colnames)
    built.datasets[ID]["data"] = LiveDataIO.of((None,), np.dtype("int64"))
    return built
