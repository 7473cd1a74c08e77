"""A raw recording with its metadata, as an NWB file in memory."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pynwb
from pynwb.device import Device
from pynwb.ecephys import ElectricalSeries, ElectrodeGroup
from pynwb.file import Subject

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.tools.metadata import Metadata, Scalar, is_name

type SeriesKindName = Literal["electrical", "timeseries"]
"""``electrical``: an ElectricalSeries with an electrodes table; ``timeseries``: a plain TimeSeries."""

_NUMBER_COLUMNS = ("x", "y", "z", "imp", "rel_x", "rel_y", "rel_z")
_TEXT_COLUMNS = ("location", "filtering", "reference")
VOLTS = ("V", "v", "volt", "volts", "Volt", "Volts")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSettings:
    """The series that holds a recording; ``None`` leaves it to the metadata or a stated default.

    Parameters
    ----------
    kind : {"electrical", "timeseries"}
        What it becomes.
    channels : int
        Number of channels.
    rate : float
        Samples per second and channel, in Hz.
    name : str, optional
        Its name; by default that of its type.
    conversion : float, optional
        What one count is, in `unit`.
    unit : str, optional
        Of the converted values. An ElectricalSeries is in volts.

    Raises
    ------
    nwbflow.errors.SettingsError
        No channels, no rate, a conversion that is no number, an empty name or one with a slash.
    """

    channels: int
    rate: float
    kind: SeriesKindName = "electrical"
    name: str | None = None
    conversion: float | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("electrical", "timeseries"):
            raise _bad(f"kind={self.kind!r}: give 'electrical' or 'timeseries'")
        if self.channels < 1:
            raise _bad(f"channels={self.channels}: give at least 1")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise _bad(f"rate={self.rate}: give samples per second, above 0")
        if self.conversion is not None and not (math.isfinite(self.conversion) and self.conversion != 0):
            raise _bad(f"conversion={self.conversion}: give what one count is in the series' unit, such as 1e-6")
        if self.name is not None and not is_name(self.name):
            raise _bad(f"name={self.name!r}: give a name without '/' and ':'")

    @property
    def series_name(self) -> str:
        """Return the name the series gets."""
        return self.name or ("ElectricalSeries" if self.kind == "electrical" else "TimeSeries")

    @property
    def width(self) -> tuple[int, ...]:
        """Lengths of the axes after the first: none for a TimeSeries of one channel."""
        return () if self.kind == "timeseries" and self.channels == 1 else (self.channels,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An NWB file in memory, and what was assumed for it.

    Parameters
    ----------
    nwbfile : pynwb.NWBFile
        Ready to be written.
    notes : tuple of str
        Assumptions a careful reader should know.
    """

    nwbfile: pynwb.NWBFile
    notes: tuple[str, ...] = field(default=())


def make_draft(
    data: Any,
    dtype: np.dtype[Any],
    settings: SeriesSettings,
    metadata: Metadata,
    *,
    origin: str,
    made: datetime,
) -> Draft:
    """Put a recording and its metadata into an NWB file in memory.

    Parameters
    ----------
    data : array_like
        Shape (samples, channels), or (samples,) where ``settings.width`` is empty; anything PyNWB takes.
    dtype : numpy.dtype
        Its type.
    settings : SeriesSettings
        The series.
    metadata : Metadata
        The rest.
    origin : str
        Name of the recording, for the session's description where there is none.
    made : datetime.datetime
        Session start where the metadata has none; with a time zone.

    Returns
    -------
    Draft
        With a note for everything that had to be assumed.

    Raises
    ------
    nwbflow.errors.SettingsError
        A unit an ElectricalSeries can't have, or a column of electrodes that doesn't fit.
    """
    notes: list[str] = []
    start = metadata.session_start_time
    if start is None:
        start = made
        notes.append(
            f"no session_start_time given: the recording's modification time, {made.isoformat(timespec='seconds')}, "
            "was taken; give the true one in the metadata"
        )
    nwbfile = new_nwbfile(metadata, metadata.session_description or f"converted from {origin}", start)
    nwbfile.add_acquisition(_series(nwbfile, data, settings, metadata, notes, whole=dtype.kind != "f"))
    return Draft(nwbfile=nwbfile, notes=tuple(notes))


def new_nwbfile(metadata: Metadata, description: str, start: datetime) -> pynwb.NWBFile:
    """Return an NWB file in memory with what metadata say of the session, and nothing in it.

    Parameters
    ----------
    metadata : Metadata
        The session.
    description : str
        Of the session.
    start : datetime.datetime
        When it started; with a time zone.
    """
    return pynwb.NWBFile(
        session_description=description,
        identifier=metadata.identifier or str(uuid.uuid4()),
        session_start_time=start,
        session_id=metadata.session_id,
        experiment_description=metadata.experiment_description,
        experimenter=metadata.experimenter,
        keywords=metadata.keywords,
        lab=metadata.lab,
        institution=metadata.institution,
        subject=None if metadata.subject is None else Subject(**metadata.subject.model_dump(exclude_none=True)),
    )


def _series(
    nwbfile: pynwb.NWBFile,
    data: Any,
    settings: SeriesSettings,
    metadata: Metadata,
    notes: list[str],
    *,
    whole: bool,
) -> pynwb.TimeSeries:
    given = metadata.series
    unit = settings.unit if settings.unit is not None else given.unit
    conversion = settings.conversion if settings.conversion is not None else given.conversion
    described = {} if given.description is None else {"description": given.description}
    scaled = {
        "conversion": 1.0 if conversion is None else conversion,
        "offset": 0.0 if given.offset is None else given.offset,
    }
    if settings.kind == "electrical":
        if unit is not None and unit not in VOLTS:
            place = f"unit={unit!r}" if settings.unit is not None else f"series.unit is {unit!r}"
            raise _bad(
                f"{place}: an ElectricalSeries is in volts; give what one count is in volts as conversion, "
                "or choose kind timeseries"
            )
        if conversion is None and whole:
            notes.append("no conversion given: one count is stored as 1 V; give volts per count, such as 1e-6")
        electrodes = add_electrodes(nwbfile, settings.channels, metadata)
        return ElectricalSeries(
            name=settings.series_name, data=data, electrodes=electrodes, rate=settings.rate, **scaled, **described
        )
    for name in ("electrodes", "electrode_group"):
        if name in metadata.model_fields_set:
            raise _bad(f"{name} belongs to an ElectricalSeries: choose kind electrical, or leave it out")
    if unit is None:
        unit = "a.u."
        notes.append("no unit given: a.u. (arbitrary units) was taken")
    if "device" in metadata.model_fields_set:
        add_device(nwbfile, metadata)
    return pynwb.TimeSeries(name=settings.series_name, data=data, unit=unit, rate=settings.rate, **scaled, **described)


def add_device(nwbfile: pynwb.NWBFile, metadata: Metadata) -> Device:
    """Make the device that metadata describe."""
    given = metadata.device
    model = None
    if given.manufacturer is not None or given.model is not None:
        model = nwbfile.create_device_model(
            name=given.model or f"{given.name} model", manufacturer=given.manufacturer or "unknown"
        )
    return nwbfile.create_device(name=given.name, description=given.description, model=model)


def add_electrodes(nwbfile: pynwb.NWBFile, channels: int, metadata: Metadata) -> Any:
    """Make device, group and electrodes table; return the region of all electrodes."""
    group = ElectrodeGroup(
        name=metadata.electrode_group.name,
        description=metadata.electrode_group.description,
        location=metadata.electrode_group.location,
        device=add_device(nwbfile, metadata),
    )
    nwbfile.add_electrode_group(group)
    columns = {"location": [metadata.electrode_group.location] * channels}
    columns |= {name: _column(name, values, channels) for name, values in metadata.electrodes.items()}
    for name in columns:
        if name not in _NUMBER_COLUMNS + _TEXT_COLUMNS:
            nwbfile.add_electrode_column(name=name, description=name)
    for row in range(channels):
        nwbfile.add_electrode(
            group=group, enforce_unique_id=False, **{name: values[row] for name, values in columns.items()}
        )
    return nwbfile.create_electrode_table_region(list(range(channels)), "all electrodes")


def _column(name: str, given: Scalar | Sequence[Scalar], channels: int) -> list[Any]:
    """Return one value for each channel, all of one type."""
    values: list[Any] = list(given) if isinstance(given, list) else [given] * channels
    if len(values) != channels:
        raise _bad(
            f"electrodes.{name} has {len(values)} values: give {channels}, one for each channel, or a single one"
        )
    kinds = {type(value) for value in values}
    if name in _NUMBER_COLUMNS or kinds == {int, float}:
        if not kinds <= {int, float}:
            raise _bad(f"electrodes.{name} holds {_first_other(values, (int, float))!r}: give numbers only")
        return [float(value) for value in values]
    if name in _TEXT_COLUMNS and kinds != {str}:
        raise _bad(f"electrodes.{name} holds {_first_other(values, (str,))!r}: give text only")
    if len(kinds) > 1:
        raise _bad(
            f"electrodes.{name} holds {values[0]!r} and {_first_other(values, (type(values[0]),))!r}: give one type"
        )
    return values


def _first_other(values: Sequence[Any], kinds: tuple[type, ...]) -> Any:
    return next(value for value in values if type(value) not in kinds)


def _bad(problem: str) -> SettingsError:
    return SettingsError(problem, kind=ErrorKind.OPTION)
