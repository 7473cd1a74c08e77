"""Raw binary recordings to NWB files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pynwb

from nwbflow.errors import ErrorKind, SettingsError, SourceError, TargetError, UnsupportedError
from nwbflow.model.address import is_address
from nwbflow.model.layout import Shape
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.data import raw
from nwbflow.nwb.fill import Options, check_verify, count_workers
from nwbflow.nwb.layouts import Wishes
from nwbflow.nwb.mapping import link_raw
from nwbflow.nwb.session import EXPANDABLE, RulesLike
from nwbflow.nwb.stores import check_out, is_store_path, passage_to
from nwbflow.nwb.write import write
from nwbflow.observe.hub import Progress
from nwbflow.planning.memory import Plan, parse_bytes
from nwbflow.planning.profiles import Profile, get_profile
from nwbflow.planning.rules import Rules
from nwbflow.sinks.staging import partial_path
from nwbflow.tools.metadata import Metadata, load_metadata
from nwbflow.tools.recording import Draft, SeriesSettings, make_draft

type MetadataLike = Mapping[str, Any] | str | Path | Metadata | None
"""What ``metadata=`` accepts; see :func:`nwbflow.tools.metadata.load_metadata`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionPlan:
    """What a conversion would do; nothing was written.

    Parameters
    ----------
    path : pathlib.Path
        The file that would be there.
    replaces : bool
        Whether a file is there now.
    series : str
        Path of the series inside the file.
    series_type : str
        Its neurodata type.
    shape : tuple of int
        Samples x channels, or samples.
    dtype : str
        Type of the stored elements.
    seconds : float
        Length of the recording.
    raw_bytes : int
        Its size before filters, in bytes.
    session_start_time : datetime.datetime
        As it would be stored.
    plan : Plan
        Chunks, filters and memory of what nwbflow would write; empty for a recording so small that it is PyNWB's.
    in_place : bool
        Whether the samples would stay where they are.
    notes : tuple of str
        What was assumed, and rules that matched nothing.
    """

    path: Path
    replaces: bool
    series: str
    series_type: str
    shape: Shape
    dtype: str
    seconds: float
    raw_bytes: int
    session_start_time: datetime
    plan: Plan
    in_place: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-serialisable values."""
        return {
            "path": str(self.path),
            "replaces": self.replaces,
            "series": self.series,
            "series_type": self.series_type,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "seconds": self.seconds,
            "raw_bytes": self.raw_bytes,
            "session_start_time": self.session_start_time.isoformat(),
            "workers": self.plan.workers,
            "memory": self.plan.memory,
            "peak_bytes": self.plan.peak_bytes,
            "datasets": [
                {
                    "name": d.name,
                    "layout": d.layout.to_json(),
                    "chunks_total": d.chunks_total,
                    "in_flight": d.in_flight,
                    "peak_bytes": d.peak_bytes,
                }
                for d in self.plan.datasets
            ],
            "in_place": self.in_place,
            "notes": list(self.notes),
        }


def convert_raw(
    raw_path: str | Path,
    out: str | Path,
    *,
    dtype: str,
    series: SeriesSettings,
    offset: int = 0,
    metadata: MetadataLike = None,
    profile: str | Profile = "default",
    rules: RulesLike = None,
    workers: int | None = None,
    memory: str | int | None = None,
    verify: str = "stored",
    progress: Progress = False,
    overwrite: bool = False,
    in_place: bool = False,
    staging: str | Path | None = None,
) -> Receipt:
    """Convert a raw binary recording to an NWB file, in bounded memory.

    Parameters
    ----------
    raw_path : str or pathlib.Path
        The recording: samples x channels in C order, nothing between or after them. It is only read.
    out : str or pathlib.Path
        The NWB file; a Zarr store if the name ends in ``.zarr``. Either may be at an address (``s3://...``).
    dtype : str
        Type of the elements, byte order included, such as ``"int16"`` or ``">i2"``; integers and floats.
    series : SeriesSettings
        Channels, rate and what kind of series it becomes.
    offset : int
        Bytes to skip at the start (a header).
    metadata : mapping, path or Metadata, optional
        What the recording can't say about itself; a YAML file. What it and `series` both give, `series` decides.
    profile, rules, workers, memory, verify, progress, overwrite, staging
        As in :func:`nwbflow.write`.
    in_place : bool
        Whether the samples stay where they are: `out` then needs the recording (:func:`nwbflow.link_raw`).

    Returns
    -------
    Receipt
        Its notes say what had to be assumed, such as the session's start.

    Raises
    ------
    nwbflow.errors.NwbflowError
        What is wrong with the request, the recording or the target, or what stopped the write.
        An older file at `out` is then as it was.
    """
    check_verify(verify)
    _refuse_own_source(raw_path, out)
    check_out(out, overwrite=overwrite, staging=staging)
    _refuse_in_place_store(out, in_place=in_place)
    draft = _load(raw_path, dtype, series, offset, metadata, in_place=in_place)
    if in_place:
        _refuse_storage(profile, rules)
    receipt = write(
        draft.nwbfile,
        out,
        profile=profile,
        rules=rules,
        workers=workers,
        memory=memory,
        verify=verify,
        progress=progress,
        overwrite=overwrite,
        staging=staging,
    )
    return replace(receipt, notes=(*draft.notes, *receipt.notes))


def plan_raw(
    raw_path: str | Path,
    out: str | Path,
    *,
    dtype: str,
    series: SeriesSettings,
    offset: int = 0,
    metadata: MetadataLike = None,
    profile: str | Profile = "default",
    rules: RulesLike = None,
    workers: int | None = None,
    memory: str | int | None = None,
    overwrite: bool = False,
    in_place: bool = False,
    staging: str | Path | None = None,
) -> ConversionPlan:
    """Check and plan what :func:`convert_raw` would do, and write nothing.

    Parameters
    ----------
    raw_path, out, dtype, series, offset, metadata, profile, rules, workers, memory, overwrite, in_place, staging
        As in :func:`convert_raw`.

    Returns
    -------
    ConversionPlan
        What would be written, how, and in how much memory.

    Raises
    ------
    nwbflow.errors.NwbflowError
        Whatever :func:`convert_raw` would refuse before it writes.
    """
    _refuse_own_source(raw_path, out)
    target = check_out(out, overwrite=overwrite, staging=staging)
    _refuse_in_place_store(out, in_place=in_place)
    draft = _load(raw_path, dtype, series, offset, metadata, in_place=in_place)
    if in_place:
        _refuse_storage(profile, rules)
    wishes = Wishes(profile=get_profile(profile), rules=Rules.load(rules), expandable=EXPANDABLE)
    options = Options(
        wishes=wishes, workers=count_workers(workers), memory=parse_bytes(memory), verify=check_verify("stored")
    )
    passage = passage_to(out, target, options, staging)
    if not in_place:
        manager = pynwb.get_manager()
        root = manager.build(draft.nwbfile, source=str(target), root=True)
        passage.prepare(root, manager, lambda _: False, options, side_by_side=True)
    held = draft.nwbfile.acquisition[series.series_name]
    shape = tuple(held.data.shape)
    return ConversionPlan(
        path=target if is_address(out) else Path(out),
        replaces=overwrite if is_address(out) else target.exists(),
        series=f"/acquisition/{held.name}",
        series_type=held.neurodata_type,
        shape=shape,
        dtype=str(held.data.dtype.newbyteorder("=")),
        seconds=shape[0] / series.rate,
        raw_bytes=int(np.prod(shape)) * held.data.dtype.itemsize,
        session_start_time=draft.nwbfile.session_start_time,
        plan=passage.plan,
        in_place=in_place,
        notes=(*draft.notes, *passage.notes),
    )


def _refuse_in_place_store(out: str | Path, *, in_place: bool) -> None:
    if in_place and is_address(out) and not is_store_path(out):
        raise UnsupportedError(
            f"{out}: from an object store samples that stay where they are can't be read; leave in_place away",
            kind=ErrorKind.FOREIGN,
        )
    if in_place and is_store_path(out):
        raise UnsupportedError(
            f"{out}: in a Zarr store samples can't stay where they are; give the name of an HDF5 file, such as "
            f"{Path(out).with_suffix('')}, or leave in_place away",
            kind=ErrorKind.FOREIGN,
        )


def _refuse_storage(profile: str | Profile, rules: RulesLike) -> None:
    """Refuse settings that can't apply where nothing is stored."""
    if profile != "default" or rules is not None:
        raise SettingsError(
            "samples that stay in place have neither codec nor chunks: leave profile and rules away, or in_place",
            kind=ErrorKind.OPTION,
        )


def _load(
    raw_path: str | Path, dtype: str, series: SeriesSettings, offset: int, metadata: MetadataLike, *, in_place: bool
) -> Draft:
    element = _element(dtype)
    open_raw = link_raw if in_place else raw
    data = open_raw(raw_path, dtype=element, shape=(None, *series.width), offset=offset)
    if not data.shape[0]:
        raise SourceError(f"{raw_path} holds no samples after an offset of {offset} bytes", kind=ErrorKind.LENGTH)
    path = Path(raw_path)
    return make_draft(
        data,
        element,
        series,
        load_metadata(metadata),
        origin=path.name,
        made=datetime.fromtimestamp(path.stat().st_mtime).astimezone(),
    )


def _element(dtype: str) -> np.dtype[Any]:
    """Parse a type of numbers that NWB can hold."""
    try:
        element: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # numpy evaluates text with commas and brackets
        element = np.dtype("O")
    if element.kind not in "iuf" or element.itemsize > 8 or element == np.float16 or element.shape:
        raise SettingsError(
            f"dtype={dtype!r} is no type of a recording: give int8 to int64, uint8 to uint64, float32 or float64; "
            "for the other byte order '>i2' and the like",
            kind=ErrorKind.DTYPE,
        )
    return element


def _refuse_own_source(raw_path: str | Path, out: str | Path) -> None:
    """Never write over the recording itself, under whatever name."""
    target = Path(os.path.realpath(out))
    for file in (target, partial_path(target)):
        if Path(raw_path).exists() and file.exists() and file.samefile(raw_path):
            raise TargetError(
                f"{file} is the recording itself and would be overwritten; give another file name",
                kind=ErrorKind.EXISTS,
            )
