"""Settings for single datasets, by place in the file or by neurodata type, from a mapping or a file."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nwbflow.errors import ErrorKind, SettingsError

type Scalar = bool | int | float | str
type CodecTable = dict[str, Scalar | list[Scalar]]
type CodecValue = str | int | CodecTable
type CodecSpec = CodecValue | list[CodecValue]
"""A codec as it is written in a rule: name, HDF5 filter id, table with options, or a pipeline of those."""

_ALLOWED = {
    "": "a table with the keys version and rules",
    "version": "the number 1",
    "rules": "a list of rules",
    "location": "text that starts with /, such as /acquisition/ElectricalSeries*/data",
    "type": "the name of a neurodata type, such as TwoPhotonSeries",
    "dataset": "the name of a dataset, such as data",
    "codec": "a name such as gzip, a filter id, a table such as {name: gzip, level: 6}, a list of those, or none",
    "chunks": "whole numbers of at least 1, or null where free, such as [null, 64]",
    "checksum": "true or false",
}
_OTHER_NAMES = {"compression": "codec", "filters": "codec", "fletcher32": "checksum", "path": "location"}
_SETTINGS = ("codec", "chunks", "checksum")

_Text = Annotated[str, Field(strict=True, min_length=1)]
_Location = Annotated[str, Field(strict=True, pattern=r"^/")]
_Length = Annotated[int, Field(strict=True, ge=1)]
_Flag = Annotated[bool, Field(strict=True)]
_Plain = Annotated[bool, Field(strict=True)] | Annotated[int, Field(strict=True)] | float | _Text


def _check_table(table: CodecTable) -> CodecTable:
    if ("name" in table) == ("id" in table):
        raise ValueError("is a table without a name: give name, or id for a filter's number")
    return table


def _from_pair(value: Any) -> Any:
    """Write Python's ``("gzip", 6)`` as a table: in a file, a list is a pipeline."""
    match value:
        case (str(), int()) if isinstance(value, tuple):
            return {"name": value[0], "level": value[1]}
    return value


_Table = Annotated[dict[str, _Plain | list[_Plain]], AfterValidator(_check_table)]
_Number = Annotated[int, Field(strict=True, ge=0)]
# Below 10 a number is a level of gzip, and whoever writes [gzip, 6] means one filter, not two.
_Filter = _Text | Annotated[int, Field(strict=True, ge=10)] | _Table


class Rule(BaseModel):
    """One rule: where it applies, and what it sets. What is left out is not touched.

    Parameters
    ----------
    location : str, optional
        Path of a dataset inside the file; ``*``, ``?`` and ``[…]`` stand for characters of one
        name, ``**`` for any number of names.
    type : str, optional
        Neurodata type of the object or of one it is derived from. With `location`, both must hold.
    dataset : str, optional
        Name of the dataset inside an object of `type`.
    codec : str, int, dict or list, optional
        Codec, as anywhere in nwbflow; ``"none"`` stores without filters.
    chunks : int or tuple of int or None, optional
        Chunk shape in elements, ``None`` where free; a number alone is the rows of a chunk.
    checksum : bool, optional
        Whether each chunk carries a Fletcher-32 checksum.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"anyOf": [{"required": ["location"]}, {"required": ["type"]}]},
    )

    location: _Location | None = None
    type: _Text | None = None
    dataset: _Text | None = None
    codec: Annotated[
        _Text | _Number | _Table | Annotated[list[_Filter], Field(min_length=1)] | None, BeforeValidator(_from_pair)
    ] = None
    chunks: _Length | Annotated[tuple[_Length | None, ...], Field(min_length=1)] | None = None
    checksum: _Flag | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.location is None and self.type is None:
            raise ValueError("says not where it applies: give location or type")
        if self.dataset is not None and self.type is None:
            raise ValueError("dataset goes with type; with location, give the dataset's whole path")
        if all(getattr(self, name) is None for name in _SETTINGS):
            raise ValueError(f"sets nothing: give {', '.join(_SETTINGS[:-1])} or {_SETTINGS[-1]}")
        return self

    def applies(self, location: str, types: Sequence[str], dataset: str) -> bool:
        """Tell whether the rule holds for a dataset; parameters as in :meth:`Rules.match`."""
        if self.location is not None and not _glob(_names(location), _names(self.location)):
            return False
        if self.type is not None and self.type not in types:
            return False
        return self.dataset is None or self.dataset == dataset

    def __str__(self) -> str:
        keys = ("location", "type", "dataset")
        return ", ".join(f"{key} {getattr(self, key)}" for key in keys if getattr(self, key) is not None)


class _RulesFile(BaseModel):
    """A list of rules for nwbflow; where several hold for a dataset, the later one wins."""

    model_config = ConfigDict(extra="forbid", title="nwbflow rules")

    version: Literal[1] = 1
    rules: list[Rule] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the rules say about one dataset; ``None`` is nothing.

    Parameters
    ----------
    codec : str, int, dict, list or None
        Codec, as a user would write it.
    chunks : int, tuple of int or None, or None
        Chunk shape in elements, ``None`` where free; a number alone is the rows of a chunk.
    checksum : bool or None
        Whether each chunk carries a Fletcher-32 checksum.
    rules : tuple of int
        Places of the rules that hold, for :meth:`Rules.unmatched`.
    """

    codec: CodecSpec | None = None
    chunks: int | tuple[int | None, ...] | None = None
    checksum: bool | None = None
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in order; later ones win.

    Parameters
    ----------
    rules : tuple of Rule
        The rules.
    origin : str
        Where they come from, for messages.
    """

    rules: tuple[Rule, ...] = ()
    origin: str = field(default="rules", compare=False)

    @classmethod
    def load(cls, source: Mapping[str, Any] | str | Path | Rules | None) -> Rules:
        """Read rules.

        Parameters
        ----------
        source : mapping, path, Rules or None
            A mapping of the same form as a file, the path of a YAML (``.yaml``, ``.yml``) or
            JSON (``.json``) file, rules as they are, or ``None`` for no rules.

        Raises
        ------
        SettingsError
            Kind ``RULES``: the file can't be read or parsed, or a key or value is not allowed;
            names the file, the key's path (``rules[1].codec``) and what is allowed.
        """
        if source is None:
            return cls()
        if isinstance(source, Rules):
            return source
        if isinstance(source, Mapping):
            return cls._parse(dict(source), "rules")
        if isinstance(source, str | Path):
            path = Path(source)
            return cls._parse(_read(path), str(path))
        raise SettingsError(
            f"rules={source!r}: give a mapping, or the path of a YAML or JSON file", kind=ErrorKind.RULES
        )

    @classmethod
    def _parse(cls, value: Any, origin: str) -> Rules:
        try:
            _refuse_nulls(value)
            parsed = _RulesFile.model_validate({} if value is None else value)  # an empty file is None
        except ValidationError as error:
            raise SettingsError(f"{origin}: {_explain(error, value)}", kind=ErrorKind.RULES) from None
        except ValueError as error:
            raise SettingsError(f"{origin}: {error}", kind=ErrorKind.RULES) from None
        return cls(tuple(parsed.rules), origin)

    def match(self, location: str, types: Sequence[str], dataset: str) -> Settings:
        """Return what the rules say about one dataset.

        Parameters
        ----------
        location : str
            Path of the dataset inside the file, e.g. ``"/acquisition/ElectricalSeries/data"``.
        types : sequence of str
            Neurodata type of the object that holds it, and all it is derived from.
        dataset : str
            Name of the dataset, e.g. ``"data"``.
        """
        holding = [at for at, rule in enumerate(self.rules) if rule.applies(location, types, dataset)]
        values: dict[str, Any] = {}
        for at in holding:
            found = {name: getattr(self.rules[at], name) for name in _SETTINGS}
            values |= {name: value for name, value in found.items() if value is not None}
        return Settings(**copy.deepcopy(values), rules=tuple(holding))

    def unmatched(self, used: Iterable[int]) -> tuple[str, ...]:
        """Describe the rules that held for no dataset, so that a typing error shows.

        Parameters
        ----------
        used : iterable of int
            The ``rules`` of all :class:`Settings` that :meth:`match` returned.
        """
        seen = set(used)
        return tuple(
            f"{self.origin}: rules[{at}] ({rule}) matched nothing"
            for at, rule in enumerate(self.rules)
            if at not in seen
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return the rules as plain values that JSON and YAML can hold; :meth:`load` reverses it."""
        return {"version": 1, "rules": [rule.model_dump(mode="json", exclude_unset=True) for rule in self.rules]}

    def dump(self, path: str | Path) -> None:
        """Write the rules as YAML or, where the name ends in ``.json``, as JSON.

        Raises
        ------
        SettingsError
            Kind ``RULES``: the name ends in neither.
        OSError
            The file can't be written.
        """
        target = Path(path)
        if _format(target) == "json":
            target.write_text(json.dumps(self.to_mapping(), indent=2) + "\n", encoding="utf-8")
            return
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False  # in flow style ruamel writes ":0" so that it can't read it
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel types it as None
        with target.open("w", encoding="utf-8") as file:
            yaml.dump(self.to_mapping(), file)


def rules_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a rules file."""
    schema = _RulesFile.model_json_schema()
    for field_schema in schema["$defs"]["Rule"]["properties"].values():
        # Left out and null are not the same in a file.
        field_schema["anyOf"].remove({"type": "null"})
        del field_schema["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _names(path: str) -> list[str]:
    return path.strip("/").split("/")


def _glob(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match a path name by name; ``**`` stands for any number of names."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_glob(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _glob(names[1:], pattern[1:])


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise SettingsError(f"{path}: a rules file ends in .yaml, .yml or .json", kind=ErrorKind.RULES)
    return "json" if suffix == ".json" else "yaml"


def _read(path: Path) -> Any:
    """Parse a file; every failure names it."""
    name = _format(path)
    try:
        text = path.read_text(encoding="utf-8")
        if name == "json":
            return json.loads(text, object_pairs_hook=_unique)
        return YAML(typ="safe", pure=True).load(text)
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}", kind=ErrorKind.RULES) from error
    except (ValueError, YAMLError) as error:
        raise SettingsError(f"{path}: is no {name.upper()}: {error}", kind=ErrorKind.RULES) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice, as YAML does; JSON's parser would keep the last in silence."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} is there twice")
        found[key] = value
    return found


def _refuse_nulls(value: Any) -> None:
    """Refuse ``codec: null`` and the like: it might mean "none" or "leave alone"."""
    rules = value.get("rules") if isinstance(value, Mapping) else None
    for at, rule in enumerate(rules if isinstance(rules, list | tuple) else ()):
        for key in rule if isinstance(rule, Mapping) else ():
            if rule[key] is None and key in _ALLOWED:
                raise ValueError(f"rules[{at}].{key} is null: leave it out, or give {_ALLOWED[key]}")


def _explain(error: ValidationError, value: Any) -> str:
    """Say once for each bad key where it is and what is allowed there."""
    found: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        keys = _real_keys(fault["loc"], value, extra=fault["type"] == "extra_forbidden")
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
        named = next((str(key) for key in reversed(keys) if key in _ALLOWED), "")
        if fault["type"] == "extra_forbidden":
            allowed = list(Rule.model_fields if len(keys) > 1 else _RulesFile.model_fields)
            near = difflib.get_close_matches(str(keys[-1]), [*allowed, *_OTHER_NAMES], 1)
            hint = f" (did you mean {_OTHER_NAMES.get(near[0], near[0])}?)" if near else ""
            found[where] = f"{where} is no known key{hint}: known are {', '.join(allowed)}"
        elif fault["type"] == "value_error":
            found[where] = f"{where} {fault['ctx']['error']}"
        elif len(keys) == 2 and keys[0] == "rules":
            found.setdefault(where, f"{where} is {_at(value, keys)!r}: give a table, such as {{type: …, codec: …}}")
        else:
            place = f"{where} is" if where else "the whole is"
            found.setdefault(where, f"{place} {_at(value, keys)!r}: give {_ALLOWED[named]}")
    # A wrong value deep inside a codec fails every form a codec can have: keep the deepest.
    inner = tuple(found)
    return "; ".join(
        t for where, t in found.items() if not any(o.startswith((f"{where}.", f"{where}[")) for o in inner)
    )


def _real_keys(loc: Sequence[int | str], value: Any, *, extra: bool) -> list[int | str]:
    """Drop from pydantic's location what is no key of the file but a branch of a union."""
    keys: list[int | str] = []
    for part in loc:
        inner = _at(value, keys)
        in_table = isinstance(inner, Mapping) and part in inner
        in_list = isinstance(inner, list | tuple) and isinstance(part, int) and part < len(inner)
        if in_table or in_list:
            keys.append(part)
    if extra and (not keys or keys[-1] != loc[-1]):
        keys.append(loc[-1])
    return keys


def _at(value: Any, keys: Sequence[int | str]) -> Any:
    for key in keys:
        value = value[key]
    return value
