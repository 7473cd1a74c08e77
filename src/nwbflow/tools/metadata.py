"""What a recording can't say about itself: the metadata files of ``nwbflow convert`` and ``nwbflow record``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from nwbflow.errors import ErrorKind, SettingsError

RESERVED_COLUMNS = ("id", "group", "group_name", "name", "description", "colnames", "columns", "namespace", "object_id")
"""Names in the electrodes table that are not columns of one's own: made from the rest, or the table's own fields."""

_DURATION = re.compile(
    r"P(?=.)(\d+(\.\d+)?Y)?(\d+(\.\d+)?M)?(\d+(\.\d+)?W)?(\d+(\.\d+)?D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?"
)

_TEXT = "text (in quotes, if it looks like a number)"
_A_NAME = "a name without '/' and ':'"
_MOMENT = "date, time and time zone, such as 2024-05-01T14:30:00+02:00"
_ALLOWED = {
    "session_start_time": _MOMENT,
    "date_of_birth": _MOMENT,
    "experimenter": "a name, such as 'Last, First', or a list of names",
    "keywords": "a list of words",
    "subject": "a table, such as {subject_id: m12, species: Mus musculus, sex: F, age: P90D}",
    "sex": "M, F, U (unknown) or O (other)",
    "age": "an ISO 8601 duration, such as P90D (90 days), or a range, such as P90D/P120D",
    "name": _A_NAME,
    "model": _A_NAME,
    "device": "a table, such as {name: probe, description: ..., manufacturer: ...}",
    "electrode_group": "a table, such as {name: shank0, description: ..., location: CA1}",
    "electrodes": "a table of columns, each with one value for all channels or a list with one for each",
    "series": "a table, such as {description: ..., unit: V, conversion: 1.0e-6, offset: 0.0}",
    "conversion": "a number: what one count is, in the series' unit, such as 1.0e-6",
    "offset": "a number, in the series' unit",
    "streams": "a list of tables, such as [{name: probe, dtype: int16, channels: 384, rate: 30000}]",
    "dtype": "int8 to int64, uint8 to uint64, float32 or float64",
    "channels": "a whole number of channels, at least 1",
    "shape": "a list of lengths of one row, such as [480, 640]",
    "rate": "rows per second, in Hz, above 0",
    "kind": "timeseries or electrical",
}


def _moment(value: Any) -> datetime:
    """Parse ISO 8601 with a time zone; a clock without one is not a moment."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(found, datetime) or found.utcoffset() is None:
        raise ValueError("no moment")
    return found


def _age(value: str) -> str:
    """Check an ISO 8601 duration, or a range of two."""
    first, *last = value.split("/", 1)
    if not _DURATION.fullmatch(first) or (last and last[0] and not _DURATION.fullmatch(last[0])):
        raise ValueError("no duration")
    return value


def is_name(text: str) -> bool:
    """Tell whether an object of an NWB file can be called `text` (HDMF forbids slashes and colons, HDF5 dots alone)."""
    return bool(text.strip()) and text not in (".", "..") and not any(c in text for c in "/:\0")


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError("no name")
    return value


def _not_whole(value: Any) -> Any:
    """Refuse integers: one too large for 64 bits would become a float that is not quite it."""
    if isinstance(value, int):
        raise ValueError("an integer")
    return value


type Scalar = (
    Annotated[str, Field(strict=True)]
    | Annotated[bool, Field(strict=True)]
    | Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
    | Annotated[float, BeforeValidator(_not_whole), Field(strict=True)]
)
"""One value of an electrodes column."""

_Text = Annotated[str, Field(strict=True, min_length=1)]
_Name = Annotated[_Text, AfterValidator(_name)]
_Moment = Annotated[datetime, BeforeValidator(_moment)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Subject(_Table):
    """Whom the recording was made from; fields as in :class:`pynwb.file.Subject`."""

    subject_id: _Text | None = None
    description: _Text | None = None
    species: _Text | None = None
    sex: Literal["M", "F", "U", "O"] | None = None
    age: Annotated[_Text, AfterValidator(_age)] | None = None
    date_of_birth: _Moment | None = None
    genotype: _Text | None = None
    strain: _Text | None = None
    weight: _Text | None = None


class Device(_Table):
    """What it was made with; manufacturer and model become a :class:`pynwb.device.DeviceModel`."""

    name: _Name = "Device"
    description: _Text | None = None
    manufacturer: _Text | None = None
    model: _Name | None = None


class ElectrodeGroup(_Table):
    """Where the electrodes were."""

    name: _Name = "ElectrodeGroup"
    description: _Text = "unknown"
    location: _Text = "unknown"


class Series(_Table):
    """What the numbers mean: value = count * conversion + offset, in `unit`."""

    description: _Text | None = None
    unit: _Text | None = None
    conversion: _Number | None = None
    offset: _Number | None = None


class Stream(Series):
    """One stream that clients send over a socket.

    Parameters
    ----------
    name : str
        Its name, and its series'.
    dtype : str
        Type of the elements.
    channels, shape : int and list of int, optional
        Number of channels, or the shape of one row (a camera's frame); neither: single values.
    rate : float, optional
        Rows per second, in Hz. Without one, each row comes with a time stamp.
    kind : {"timeseries", "electrical"}
        What kind of series it becomes.
    """

    name: _Name
    dtype: Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]
    channels: Annotated[int, Field(strict=True, ge=1)] | None = None
    shape: list[Annotated[int, Field(strict=True, ge=1)]] | None = None
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    kind: Literal["timeseries", "electrical"] = "timeseries"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row; empty for single values."""
        return tuple(self.shape or ()) if self.channels is None else (self.channels,)


class Metadata(_Table):
    """The metadata file: everything may be left out.

    Parameters
    ----------
    session_description, identifier, session_id, experiment_description, lab, institution : str, optional
        As in :class:`pynwb.NWBFile`.
    session_start_time : datetime.datetime, optional
        With a time zone.
    experimenter, keywords : str or list of str, optional
        As in :class:`pynwb.NWBFile`.
    subject, device, electrode_group, series : table, optional
        See the classes of these names.
    electrodes : table of columns
        For each column one value for all channels, or a list with one for each. Columns the NWB schema does not
        know are added with their name as description.
    """

    session_description: _Text | None = None
    session_start_time: _Moment | None = None
    identifier: _Text | None = None
    session_id: _Text | None = None
    experiment_description: _Text | None = None
    experimenter: _Text | list[_Text] | None = None
    keywords: list[_Text] | None = None
    lab: _Text | None = None
    institution: _Text | None = None
    subject: Subject | None = None
    device: Device = Device()
    electrode_group: ElectrodeGroup = ElectrodeGroup()
    electrodes: dict[_Name, Scalar | list[Scalar]] = Field(default_factory=dict)
    series: Series = Series()


class RecordMetadata(Metadata):
    """The metadata file of ``nwbflow record``: also the streams that come over sockets.

    Parameters
    ----------
    streams : list of Stream
        One table for each.
    """

    streams: list[Stream] = Field(default_factory=list)


def load_metadata(source: Mapping[str, Any] | str | Path | Metadata | None) -> Metadata:
    """Read metadata; see :func:`load`."""
    return load(Metadata, source)


def load[M: Metadata](model: type[M], source: Mapping[str, Any] | str | Path | M | None) -> M:
    """Read metadata of one kind.

    Parameters
    ----------
    model : type
        :class:`Metadata`, or :class:`RecordMetadata`.
    source : mapping, path, Metadata or None
        A mapping of the same form as a file, the path of a YAML (or JSON) file, or ``None`` for no metadata.

    Raises
    ------
    nwbflow.errors.SettingsError
        The file can't be read or parsed, or a key or value is not allowed; names the file, the key's path
        (``subject.sex``) and what is allowed.
    """
    if source is None:
        return model()
    if isinstance(source, Metadata):
        return source
    origin = "metadata" if isinstance(source, Mapping) else str(source)
    value = dict(source) if isinstance(source, Mapping) else _read(Path(source))
    if not isinstance(value, dict):
        raise SettingsError(
            f"{origin}: the whole is {_short(value)}: give a table with keys such as session_description",
            kind=ErrorKind.OPTION,
        )
    try:
        metadata = model.model_validate(value)
    except ValidationError as error:
        raise SettingsError(f"{origin}: {_explain(model, error, value)}", kind=ErrorKind.OPTION) from None
    _refuse_taken(metadata, origin)
    return metadata


def _refuse_taken(metadata: Metadata, origin: str) -> None:
    """Refuse names that mean something else where they would be stored."""
    taken = [(f"electrodes.{name}", "is a field of the table itself") for name in metadata.electrodes]
    taken = [found for found in taken if found[0].removeprefix("electrodes.") in RESERVED_COLUMNS]
    if metadata.device.name == "models":
        taken.append(("device.name models", "is where NWB keeps device models"))
    if metadata.electrode_group.name == "electrodes":
        taken.append(("electrode_group.name electrodes", "is where NWB keeps the electrodes table"))
    if taken:
        place, why = taken[0]
        raise SettingsError(f"{origin}: {place} {why}; choose another name", kind=ErrorKind.OPTION)


class _Constructor(SafeConstructor):
    """Leaves moments as they are written: whether a time zone was given must stay visible."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)


def _read(path: Path) -> Any:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        value = yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror or error}", kind=ErrorKind.OPTION) from error
    except (ValueError, YAMLError) as error:
        raise SettingsError(f"{path}: is no YAML: {error}", kind=ErrorKind.OPTION) from error
    return {} if value is None else value


def _explain(model: type[Metadata], error: ValidationError, value: Any) -> str:
    """Say once for each bad key where it is and what is allowed there."""
    found: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        keys = _real_keys(fault["loc"], value)
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
        if fault["type"] == "extra_forbidden":
            found[where] = _unknown(model, keys, where)
        elif fault["type"] == "missing":
            found[where] = f"{where} has no {fault['loc'][-1]}: give {_allowed([*keys, str(fault['loc'][-1])])}"
        else:
            found.setdefault(where, f"{where} is {_short(_at(value, keys))}: give {_allowed(keys)}")
    return "; ".join(found.values())


def _unknown(model: type[Metadata], keys: Sequence[int | str], where: str) -> str:
    tables: dict[str, type[_Table]] = {
        "subject": Subject,
        "device": Device,
        "electrode_group": ElectrodeGroup,
        "series": Series,
        "streams": Stream,
    }
    table: type[_Table] = tables[str(keys[0])] if len(keys) > 1 else model
    known = list(table.model_fields)
    near = difflib.get_close_matches(str(keys[-1]), known, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{where} is no known key{hint}: known are {', '.join(known)}"


def _allowed(keys: Sequence[int | str]) -> str:
    if keys[0] == "electrodes" and len(keys) > 1:
        if not is_name(str(keys[1])):
            return f"the column {_A_NAME}"
        return "a number, text, true or false, or a list of these"
    return _ALLOWED.get(next(str(key) for key in reversed(keys) if isinstance(key, str)), _TEXT)


def _real_keys(loc: Sequence[int | str], value: Any) -> list[int | str]:
    """Drop from pydantic's location what is no key of the file but a branch of a union."""
    keys: list[int | str] = []
    for part in loc:
        inner = _at(value, keys)
        in_list = isinstance(inner, list | tuple) and isinstance(part, int) and part < len(inner)
        if (isinstance(inner, Mapping) and part in inner) or in_list:
            keys.append(part)
    return keys


def _at(value: Any, keys: Sequence[int | str]) -> Any:
    for key in keys:
        value = value[key]
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
