"""What an NWB file must have and an unfinished one has not: found, and filled in where that is honest."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np
import pynwb

from nwbflow.links.walk import Member, walk

UNKNOWN_TIME = "1970-01-01T00:00:00+00:00"
"""What is put in place of a time that is lost: nobody takes it for the real one."""
UNKNOWN = "unknown: lost when the file was left unfinished"

_GROUPS = (
    "acquisition",
    "analysis",
    "general",
    "processing",
    "stimulus",
    "stimulus/presentation",
    "stimulus/templates",
)
_SPECIFICATIONS = "specifications"
_SERIES_PLACES = ("/acquisition", "/stimulus", "/processing", "/analysis", "/scratch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that is missing.

    Parameters
    ----------
    text : str
        What, for the report.
    fill : callable
        Puts it there.
    path : str
        Of a dataset or group that is put there; of an attribute nothing.
    placeholder : bool
        Whether what is put there says nothing.
    needed : bool
        Whether a file without it is broken.
    """

    text: str
    fill: Callable[[], None]
    path: str = ""
    placeholder: bool = False
    needed: bool = True


def is_nwb(file: h5py.File) -> bool:
    """Return whether a file is an NWB 2 file, or was to become one.

    Parameters
    ----------
    file : h5py.File
        Open.
    """
    if isinstance(file.get("nwb_version"), h5py.Dataset):
        return False  # NWB 1
    if _text(file, "nwb_version") or _text(file, "neurodata_type") == "NWBFile" or "specifications/core" in file:
        return True
    if {"acquisition", "general"} <= set(file):
        return True
    return any(_is_nwb_object(member) for member in walk(file, []))


def _is_nwb_object(member: Member) -> bool:
    """PyNWB writes data, and their unit, before it writes what a group is."""
    if member.kind not in ("group", "dataset"):
        return False
    series = member.name == "data" and member.path.startswith(_SERIES_PLACES)
    return _text(member.item, "namespace") == "core" or (series and bool(_text(member.item, "unit")))


def gaps(file: h5py.File, lost: list[str]) -> Iterator[Gap]:
    """Give what is missing, in the order in which it is to be filled; each before the next is looked for.

    Parameters
    ----------
    file : h5py.File
        An NWB file, open for writing if the gaps are filled.
    lost : list of str
        Paths of datasets of it that could not be read at all.
    """
    yield from _groups(file)
    yield from _specifications(file, lost)
    yield from _root_attributes(file)
    yield from _root_datasets(file)
    yield from _types(file)
    yield from _data(file, lost)
    yield from _times(file)


def add_note(file: h5py.File, text: str) -> None:
    """Append to the notes of an NWB file.

    Parameters
    ----------
    file : h5py.File
        Open for writing; ``/general`` is there.
    text : str
        A few lines.
    """
    general = file["general"]
    old = general["notes"][()] if isinstance(general.get("notes"), h5py.Dataset) else b""
    before = old.decode(errors="replace") if isinstance(old, bytes) else str(old)
    if "notes" in general:
        del general["notes"]
    general.create_dataset("notes", data=f"{before}\n\n{text}" if before else text, dtype=h5py.string_dtype())


def _groups(file: h5py.File) -> Iterator[Gap]:
    for name in _GROUPS:
        if name not in file:
            yield Gap(path=f"/{name}", text=f"/{name}: the group was missing; made, empty", fill=_making(file, name))


def _making(file: h5py.File, name: str) -> Callable[[], None]:
    return lambda: file.create_group(name) and None


def _specifications(file: h5py.File, lost: list[str]) -> Iterator[Gap]:
    """Without the whole of a cached specification nothing can be validated: it is taken from PyNWB, or left out."""
    present = file.get(_SPECIFICATIONS, {})
    parts = {path.split("/")[2] for path in lost if path.startswith(f"/{_SPECIFICATIONS}/") and path.count("/") > 1}
    if len(present) and not parts:
        return

    def fill() -> None:
        group = file.require_group(_SPECIFICATIONS)
        with _template() as template:
            own = template[_SPECIFICATIONS]
            for name in parts & set(group):
                del group[name]
            for name in set(own) - set(group):
                own.copy(name, group)

    what = "was incomplete" if len(present) else "was missing"
    text = f"/{_SPECIFICATIONS}: the NWB specification {what}; that of the installed PyNWB is there now"
    yield Gap(path=f"/{_SPECIFICATIONS}", text=text, fill=fill, needed=bool(parts))


def _template() -> Any:
    """Return an empty NWB file in memory, as PyNWB writes it."""
    file = h5py.File("template", "w", driver="core", backing_store=False)
    start = datetime.fromisoformat(UNKNOWN_TIME)
    empty = pynwb.NWBFile(session_description=UNKNOWN, identifier=UNKNOWN, session_start_time=start)
    pynwb.NWBHDF5IO(file=file, mode="w").write(empty)
    return file


def _root_attributes(file: h5py.File) -> Iterator[Gap]:
    values = {
        "neurodata_type": "NWBFile",
        "namespace": "core",
        "nwb_version": _version(file),
        "object_id": str(uuid.uuid4()),
    }
    for name, value in values.items():
        if not _text(file, name):
            needed = name != "object_id"  # old files have none
            yield Gap(
                text=f"/: the attribute {name} was missing; it is {value} now",
                fill=_setting(file, name, value),
                needed=needed,
            )
    if ".specloc" not in file.attrs and _SPECIFICATIONS in file:
        text = "/: the attribute .specloc was missing; it leads to the specifications now"

        def fill() -> None:
            file.attrs[".specloc"] = file[_SPECIFICATIONS].ref

        yield Gap(text=text, fill=fill, needed=False)


def _version(file: h5py.File) -> str:
    """Return the version of the specification in the file, or that of the installed PyNWB."""
    core = file.get(f"{_SPECIFICATIONS}/core")
    found = sorted(core) if isinstance(core, h5py.Group) else []
    return found[-1] if found else str(pynwb.get_type_map().namespace_catalog.get_namespace("core")["version"])


def _setting(item: Any, name: str, value: str) -> Callable[[], None]:
    def fill() -> None:
        item.attrs[name] = value

    return fill


def _root_datasets(file: h5py.File) -> Iterator[Gap]:
    start = _value(file, "session_start_time") or UNKNOWN_TIME
    values = {
        "identifier": f"unknown-{uuid.uuid4()}",
        "session_description": UNKNOWN,
        "session_start_time": UNKNOWN_TIME,
        "timestamps_reference_time": start,
        "file_create_date": datetime.now(UTC).isoformat(),
    }
    for name, value in values.items():
        if name not in file:
            told = name == "file_create_date" or (name == "timestamps_reference_time" and start != UNKNOWN_TIME)
            yield Gap(
                path=f"/{name}",
                text=f"/{name} was missing; it is {value} now",
                fill=_storing(file, name, value),
                placeholder=not told,
            )


def _storing(file: h5py.File, name: str, value: str) -> Callable[[], None]:
    def fill() -> None:
        data = [value] if name == "file_create_date" else value
        file.create_dataset(name, data=data, dtype=h5py.string_dtype())

    return fill


def _types(file: h5py.File) -> Iterator[Gap]:
    """Give objects that don't say what they are, and of which it can be told."""
    for member in [*walk(file, [])]:
        if member.kind != "group" or not member.path.startswith(_SERIES_PLACES) or _text(member.item, "neurodata_type"):
            continue
        parent, _, _ = member.path.rpartition("/")
        if parent == "/processing":
            yield _typing(member.item, "ProcessingModule")
            if not _text(member.item, "description"):
                text = f"{member.path}: its description was missing; it is '{UNKNOWN}' now"
                yield Gap(text=text, fill=_setting(member.item, "description", UNKNOWN), placeholder=True)
        elif isinstance(member.item.get("data"), h5py.Dataset):
            yield _typing(member.item, "TimeSeries")


def _typing(group: h5py.Group, name: str) -> Gap:
    def fill() -> None:
        group.attrs["neurodata_type"], group.attrs["namespace"] = name, "core"
        if not _text(group, "object_id"):
            group.attrs["object_id"] = str(uuid.uuid4())
        if name == "TimeSeries":
            _describe(group)

    what = "a TimeSeries now, the most general series" if name == "TimeSeries" else f"a {name} now"
    return Gap(text=f"{group.name}: what it is was missing; it is {what}", fill=fill, placeholder=name == "TimeSeries")


def _describe(group: h5py.Group) -> None:
    defaults: dict[str, dict[str, Any]] = {
        "data": {"unit": "unknown"},
        "timestamps": {"unit": "seconds", "interval": 1},
        "starting_time": {"unit": "seconds"},
    }
    for name, attributes in defaults.items():
        for key, value in attributes.items():
            if isinstance(group.get(name), h5py.Dataset) and key not in group[name].attrs:
                group[name].attrs[key] = value


def _data(file: h5py.File, lost: list[str]) -> Iterator[Gap]:
    """Give series whose data are lost: without any they are no series, and nothing reads the rest of them."""
    for path in lost:
        parent, _, name = path.rpartition("/")
        if name == "data" and _text(file.get(parent), "neurodata_type"):

            def fill(group: h5py.Group = file[parent]) -> None:
                group.create_dataset("data", shape=(0,), maxshape=(None,), dtype="f8")
                group["data"].attrs["unit"] = "unknown"

            text = f"{path} is lost; an empty dataset is in its place"
            yield Gap(path=path, text=text, fill=fill, placeholder=True)


def _times(file: h5py.File) -> Iterator[Gap]:
    """Give series without any times some that say that they are not known: PyNWB opens no series without."""
    for member in [*walk(file, [])]:
        if (
            member.kind != "group"
            or not _is_series(member.item)
            or not isinstance(member.item.get("data"), h5py.Dataset)
        ):
            continue
        group, rows = member.item, (member.item["data"].shape or (0,))[0]
        names = [name for name in ("timestamps", "starting_time") if group.get(name, getlink=True) is not None]
        empty = names == ["timestamps"] and group["timestamps"].shape == (0,) and rows
        if names and not empty:
            continue

        def fill(group: h5py.Group = group, rows: int = rows) -> None:
            if "timestamps" in group:
                del group["timestamps"]
            group.create_dataset("timestamps", (rows,), "f8", chunks=True, maxshape=(None,), fillvalue=np.nan)
            _describe(group)

        path = f"{member.path}/timestamps"
        yield Gap(path=path, text=f"{path}: all times are lost; they are NaN now", fill=fill, placeholder=True)


def _is_series(group: h5py.Group) -> bool:
    kind, namespace = _text(group, "neurodata_type"), _text(group, "namespace")
    try:
        return bool(kind) and issubclass(pynwb.get_class(kind, namespace), pynwb.TimeSeries)
    except (ValueError, TypeError, KeyError):  # of an extension that is not installed
        return False


def _text(item: Any, name: str) -> str:
    """Return a text attribute; nothing if there is none. Some programs store it as an array with one element."""
    if item is None:
        return ""
    value = item.attrs.get(name)
    value = value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value) if isinstance(value, str) else ""


def _value(file: h5py.File, name: str) -> str:
    item = file.get(name)
    value = item[()] if isinstance(item, h5py.Dataset) and item.shape == () else b""
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
