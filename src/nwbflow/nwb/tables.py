"""Tables that are recorded: all their columns grow together, and their ids count by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder
from hdmf.common import DynamicTable, DynamicTableRegion, VectorIndex
from pynwb.base import TimeSeriesReferenceVectorData

from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.nwb.candidates import datasets, numeric_type, path_of, types_of
from nwbflow.nwb.livedata import LiveDataIO, is_live
from nwbflow.record.manifest import ID

COLUMNS = "colnames"

_WIDEST = {"f": "float64", "i": "int64", "u": "uint64", "b": "bool"}
"""What a column is recorded as of which the schema says only the least."""


@contextmanager
def tables_completed(
    root: GroupBuilder, manager: BuildManager, columns: Mapping[str, tuple[str, ...]]
) -> Iterator[None]:
    """Let tables with a live column have live ids, and columns that the schema asks for, where nobody gave any.

    They get the names of their columns too, which HDMF leaves out of a table without rows. Everything is as it was
    afterwards.

    Parameters
    ----------
    root : GroupBuilder
        The tree.
    manager : BuildManager
        What made it.
    columns : mapping of str to tuple of str
        Names of the columns of every table, by its object's id.
    """
    tables = _tables(root, manager)
    found = [column for table in tables for column in table.datasets.values() if _follows(column)]
    names = [(table, table.attributes.get(COLUMNS, ())) for table in tables]
    originals = [(builder, builder.data) for builder in found]
    try:
        for table in tables:
            table.set_attribute(COLUMNS, columns[table.attributes["object_id"]])
        for builder in found:
            least = numeric_type(builder.dtype)
            dtype = np.dtype("int64" if builder.name == ID or least is None else _WIDEST[least.kind])
            builder["data"] = LiveDataIO.of((None,), dtype)
        yield
    finally:
        for table, before in names:
            table.set_attribute(COLUMNS, before)
        for builder, data in originals:
            builder["data"] = data


def is_table(group: GroupBuilder | None, manager: BuildManager) -> bool:
    """Whether a group is a table."""
    return group is not None and "DynamicTable" in types_of_group(group, manager)


def types_of_group(group: GroupBuilder, manager: BuildManager) -> tuple[str, ...]:
    """Return the neurodata type of a group and its ancestors, nearest first; none for a plain group."""
    return types_of(group, manager) if manager.get_builder_dt(group) is not None else ()


def check_tables(tables: Sequence[DynamicTable]) -> None:
    """Refuse tables of which one column is live and another one can't grow with it, before HDMF trips over them.

    Raises
    ------
    SettingsError, UnsupportedError
        Naming that column and what to do instead.
    """
    for table in tables:
        live = [column.name for column in table.columns if is_live(column.data)]
        if live:
            _check_columns(table, live[0])


def _check_columns(table: DynamicTable, live: str) -> None:
    for column in table.columns:
        if isinstance(column, VectorIndex | DynamicTableRegion | TimeSeriesReferenceVectorData):
            raise UnsupportedError(
                f"{table.name}/{column.name} can't be recorded: it is a {type(column).__name__}, and columns of "
                f"this table are live ({live}), but only plain columns of numbers can grow. For several "
                "values in a row declare nwbflow.live(shape=(None, 3)); for an unknown number of values give each "
                "a row of its own; for rows of another table record their numbers in a plain column",
                kind=ErrorKind.OPTION,
            )
    expected = {column["name"] for column in table.__columns__}
    for column in table.columns:
        bare = isinstance(column.data, list | tuple) and not column.data and column.name in expected
        if not is_live(column.data) and not bare:
            raise _not_live(table.name, live, column.name)


def check_built(group: GroupBuilder, live: DatasetBuilder) -> None:
    """Refuse a table with a column that can't grow with the live ones, as HDMF builds it.

    Raises
    ------
    SettingsError
        Naming that column and what to do instead.
    """
    for column in group.datasets.values():
        if not is_live(column.data):
            raise _not_live(path_of(group), live.name, column.name)


def _not_live(table: str, live: str, column: str) -> SettingsError:
    way_out = (
        f"declare every column live, as in VectorData(name={column!r}, description=..., data=nwbflow.live()); only "
        "numbers can be, so for words record a number for each and say what they mean in a MeaningsTable"
    )
    return SettingsError(
        f"{table}: column {live} is live and {column} is not, so their lengths would differ: "
        + ("leave the ids out, rows are counted from 0" if column == ID else way_out),
        kind=ErrorKind.LENGTH,
    )


def column_order(group: GroupBuilder) -> tuple[str, ...]:
    """Return the names of a table's datasets in the order in which users know them, the ids first."""
    return (ID, *map(str, group.attributes[COLUMNS]))


def _tables(root: GroupBuilder, manager: BuildManager) -> list[GroupBuilder]:
    """Return the tables with live columns."""
    groups = {id(d.parent): d.parent for d in datasets(root) if is_live(d.data)}
    return [group for group in groups.values() if is_table(group, manager)]


def _follows(column: DatasetBuilder) -> bool:
    """Whether a column without rows becomes live because others are: it is there only because a table must have it."""
    data: Any = column.data
    bare = isinstance(data, list | tuple) and not data
    return bare and (column.name == ID or numeric_type(column.dtype) is not None)
