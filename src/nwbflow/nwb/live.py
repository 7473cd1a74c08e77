"""Data that will be recorded: declared on ordinary containers, before there is any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder, LinkBuilder
from numpy.typing import DTypeLike

from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.model.layout import MaxShape
from nwbflow.nwb.candidates import Candidate, datasets, path_of
from nwbflow.nwb.data import DataIO, numeric
from nwbflow.nwb.guests import links_below
from nwbflow.nwb.layouts import Storage
from nwbflow.nwb.livedata import LiveDataIO, is_live
from nwbflow.nwb.tables import check_built, column_order, is_table
from nwbflow.planning.chunks import ChunkSpec
from nwbflow.record.filling import live_encoder
from nwbflow.record.manifest import LiveDataset, LiveSeries

FIELDS = ("data", "timestamps", "control")
"""Datasets of a time series that have one row per sample."""


def live(
    shape: MaxShape = (None,), dtype: DTypeLike = "float64", chunks: ChunkSpec = None, codec: object = None
) -> DataIO:
    """Declare data that will be recorded.

    Parameters
    ----------
    shape : tuple of int or None
        Lengths of the axes, in elements; the first is ``None``, it grows: ``(None, 384)``. For time stamps ``(None,)``,
        for a column of a table ``(None,)`` or, with k values in a row, ``(None, k)``.
    dtype : numpy.dtype or what it is made of
        Type of the elements, up to 8 bytes each. (Time stamps are always stored as float64, as NWB has them.)
    chunks : tuple of int or None, int, or None
        Chunk shape in elements, as in :class:`nwbflow.DataIO`.
    codec : str, int, tuple, mapping, list or object
        As in :class:`nwbflow.DataIO`; by default the profile's.

    Returns
    -------
    DataIO
        Accepted as ``data``, ``timestamps`` or ``control`` by every time series, and as ``data`` of the columns of
        every table without rows, of which all columns must be live then. Written by anything else than a
        :class:`nwbflow.Recorder` it is a dataset without rows.

    Raises
    ------
    nwbflow.errors.SettingsError
        For a shape, type, chunks or codec that can't be recorded.
    """
    element = numeric(dtype)
    if element.kind == "c" or element.itemsize > 8 or element == np.float16:
        raise SettingsError(
            f"dtype={element}: numbers of up to 8 bytes can be recorded, floats of 4 or 8 (NWB has no others)",
            kind=ErrorKind.DTYPE,
        )
    lengths = tuple(shape)
    if not lengths or lengths[0] is not None or any(n is None or n < 1 for n in lengths[1:]):
        raise SettingsError(
            f"shape={shape}: the first axis grows, so it is None, and every other has its length, as in (None, 384)",
            kind=ErrorKind.SHAPE,
        )
    return LiveDataIO.of(lengths, element, chunks=chunks, codec=codec)


def live_candidates(root: GroupBuilder, found: Sequence[Candidate], manager: BuildManager) -> list[Candidate]:
    """Return the live datasets of a tree whose tables are completed, or say which can't be recorded.

    Raises
    ------
    SettingsError, UnsupportedError
        If one is neither data, time stamps or control of a time series nor a column of a table, or its series or
        table has other datasets with as many rows that are not live.
    """
    live = [candidate for candidate in found if is_live(candidate.builder.data)]
    known = {id(candidate.builder) for candidate in live}
    for builder in datasets(root):
        if is_live(builder.data) and id(builder) not in known:
            raise UnsupportedError(f"{path_of(builder)} can't be recorded: it is no array", kind=ErrorKind.DTYPE)
    for candidate in live:
        if is_table(candidate.builder.parent, manager):
            check_built(candidate.builder.parent, candidate.builder)
        else:
            _check(candidate, candidate.builder.parent)
    for link in links_below(root):
        _check_shared(link)
    if not live:
        raise SettingsError(
            "nothing in this file is live: declare what is to be recorded, as in "
            "TimeSeries(name=..., data=nwbflow.live(shape=(None, 384), dtype='int16'), ...)",
            kind=ErrorKind.OPTION,
        )
    return live


def _check(candidate: Candidate, group: GroupBuilder) -> None:
    if candidate.is_column or "TimeSeries" not in candidate.types or candidate.builder.name not in FIELDS:
        raise UnsupportedError(
            f"{candidate.name} can't be recorded: only data, timestamps and control of a TimeSeries, and columns of a "
            "DynamicTable (or of what is derived from these) can. Record it as one of them",
            kind=ErrorKind.OPTION,
        )
    for field in FIELDS:
        sibling: DatasetBuilder | None = group.datasets.get(field)
        if (sibling is None and field == "data") or (sibling is not None and not is_live(sibling.data)):
            raise SettingsError(
                f"{candidate.name} is live and {field} of the same series is not, so their lengths would differ: "
                f"declare it too, {field}=nwbflow.live(...), or give a rate",
                kind=ErrorKind.LENGTH,
            )


def _check_shared(link: LinkBuilder) -> None:
    """Refuse a series that has a live dataset of another one, beside a dataset that does not grow with it."""
    group = link.parent
    if link.name not in FIELDS or group is None or not is_live(getattr(link.builder, "data", None)):
        return
    for field in FIELDS:
        sibling = group.links.get(field)
        together = sibling is not None and sibling.builder.parent is link.builder.parent
        if (field in group.datasets or sibling is not None) and not together:
            raise SettingsError(
                f"{path_of(group)}: its {link.name} are {path_of(link.builder)}, which is live, and its {field} are "
                f"not of that series, so their lengths would differ: declare {link.name}=nwbflow.live(...) for each "
                "series, and append to both",
                kind=ErrorKind.LENGTH,
            )


def series_of(storages: Sequence[Storage]) -> tuple[LiveSeries, ...]:
    """Return what a journal has to know of live datasets.

    Raises
    ------
    UnsupportedError
        If only HDF5 itself can run a codec.
    """
    groups: dict[str, dict[str, LiveDataset]] = {}
    orders: dict[str, tuple[str, ...]] = {}
    for storage in storages:
        name = storage.candidate.name
        group, _, field = name.rpartition("/")
        dataset = LiveDataset(field=field, name=name, layout=storage.layout, effort=storage.effort)
        live_encoder(dataset)
        groups.setdefault(group, {})[field] = dataset
        orders[group] = column_order(storage.candidate.builder.parent) if storage.candidate.is_column else FIELDS
    return tuple(
        LiveSeries(name=name, datasets=tuple(found[field] for field in orders[name] if field in found))
        for name, found in groups.items()
    )
