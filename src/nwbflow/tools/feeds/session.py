"""The session of ``nwbflow record``: an NWB file in memory with the streams that will be recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pynwb
from pynwb.ecephys import ElectricalSeries

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.nwb.live import live
from nwbflow.tools.metadata import RecordMetadata, Stream
from nwbflow.tools.recording import VOLTS, Draft, add_device, add_electrodes, new_nwbfile


def make_session(metadata: RecordMetadata, now: datetime) -> Draft:
    """Return a session with its socket streams declared.

    Parameters
    ----------
    metadata : RecordMetadata
        The session, and the streams.
    now : datetime.datetime
        Session start where the metadata have none; with a time zone.

    Returns
    -------
    Draft
        With a note for everything that had to be assumed.

    Raises
    ------
    nwbflow.errors.SettingsError
        For streams that can't be together, or keys that don't go with them.
    """
    notes: list[str] = []
    nwbfile = new_nwbfile(
        metadata, metadata.session_description or "recorded with nwbflow record", metadata.session_start_time or now
    )
    _check(metadata.streams, metadata)
    if "device" in metadata.model_fields_set and not _electrical(metadata.streams):
        add_device(nwbfile, metadata)
    for stream in metadata.streams:
        nwbfile.add_acquisition(_series(nwbfile, stream, metadata, notes))
    return Draft(nwbfile=nwbfile, notes=tuple(notes))


def _electrical(streams: Sequence[Stream]) -> list[str]:
    return [stream.name for stream in streams if stream.kind == "electrical"]


def _check(streams: Sequence[Stream], metadata: RecordMetadata) -> None:
    names = [stream.name for stream in streams]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _bad(f"streams: two are called {twice}; give each a name of its own")
    if "series" in metadata.model_fields_set:
        raise _bad("series belongs to nwbflow convert: give unit, conversion and so on with each of the streams")
    electrical = _electrical(streams)
    if len(electrical) > 1:
        raise _bad(
            f"streams: {' and '.join(electrical)} are electrical, and one can be, since there is one electrodes table "
            "for all of its channels; declare the others as timeseries"
        )
    for key in ("electrodes", "electrode_group"):
        if key in metadata.model_fields_set and not electrical:
            raise _bad(f"{key} belongs to an electrical stream: choose kind: electrical for one, or leave it out")


def _series(nwbfile: pynwb.NWBFile, stream: Stream, metadata: RecordMetadata, notes: list[str]) -> pynwb.TimeSeries:
    if stream.channels is not None and stream.shape is not None:
        raise _bad(f"streams: {stream.name} has channels and shape; give one of them")
    data = live((None, *stream.row_shape), stream.dtype)
    described = {} if stream.description is None else {"description": stream.description}
    scaled = {"conversion": stream.conversion or 1.0, "offset": stream.offset or 0.0}
    times = {"timestamps": live((None,), "float64")} if stream.rate is None else {"rate": stream.rate}
    if stream.kind == "electrical":
        if stream.unit is not None and stream.unit not in VOLTS:
            raise _bad(f"streams: {stream.name} is electrical, so in volts, and not in {stream.unit}")
        if stream.channels is None:
            raise _bad(f"streams: {stream.name} is electrical: give its number of channels")
        electrodes = add_electrodes(nwbfile, stream.channels, metadata)
        return ElectricalSeries(name=stream.name, data=data, electrodes=electrodes, **times, **scaled, **described)
    if stream.unit is None:
        notes.append(f"streams: {stream.name} has no unit: a.u. (arbitrary units) was taken")
    return pynwb.TimeSeries(name=stream.name, data=data, unit=stream.unit or "a.u.", **times, **scaled, **described)


def _bad(problem: str) -> SettingsError:
    return SettingsError(problem, kind=ErrorKind.OPTION)
