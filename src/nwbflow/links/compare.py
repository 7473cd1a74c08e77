"""What somebody says of a dataset against what the dataset says of itself, by value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nwbflow.links.targets import ReferenceTo


class _Absent:
    """Stands for a value that is not there."""

    def __repr__(self) -> str:
        return "(not there)"


ABSENT = _Absent()
"""The value of an attribute that is not there."""

_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact on which two sides don't agree.

    Parameters
    ----------
    name : str
        The attribute's name, or ``"dtype"``, ``"shape"``, ``"rows"`` and the like for facts that are no attribute.
    said, held : object
        The value on either side; ``ABSENT`` where there is none.
    structural : bool
        Whether it is about the elements themselves, so that no change of attributes can settle it.
    """

    name: str
    said: Any
    held: Any
    structural: bool = False


def same(said: Any, held: Any) -> bool:
    """Return whether two attribute values mean the same.

    NaN equals NaN; 1 equals 1.0; a value stored as 32-bit float equals the number it was rounded from; text equals
    text whether stored as bytes or characters; an array of one element equals that element (MATLAB writes those);
    references are equal if they lead to the same path.

    Parameters
    ----------
    said, held : object
        Values as Python, numpy or h5py have them.
    """
    a, b = plain(said), plain(held)
    if isinstance(a, ReferenceTo | str | _Absent) or isinstance(b, ReferenceTo | str | _Absent):
        return type(a) is type(b) and bool(a == b)
    if isinstance(a, list) or isinstance(b, list):
        return (
            isinstance(a, list)
            and isinstance(b, list)
            and len(a) == len(b)
            and all(same(x, y) for x, y in zip(_members(said), _members(held), strict=True))
        )
    if a is None or b is None:
        return a is b
    return _same_number(said, held)


def differences(said: Mapping[str, Any], held: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[Difference]:
    """Return every attribute that is said to have another value than it holds.

    Parameters
    ----------
    said : mapping
        What is said, by attribute name. What is not said is not compared.
    held : mapping
        The attributes that are there.
    defaults : mapping
        What an attribute that is not there means; one without a default means nothing.
    """
    return [
        Difference(name, plain(value), plain(held.get(name, ABSENT)))
        for name, value in sorted(said.items())
        if not same(value, held.get(name, defaults.get(name, ABSENT)))
    ]


def table(found: Sequence[Difference], said: str, held: str) -> str:
    """Return differences side by side, one a line, for an error's text.

    Parameters
    ----------
    found : sequence of Difference
        At least one.
    said, held : str
        Headings of the two sides.
    """
    rows = [("", said, held), *((d.name, show(d.said), show(d.held)) for d in found)]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"    {a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows)


def show(value: Any) -> str:
    """Return a value as it is shown to a user, shortened."""
    text = str(value) if isinstance(value, ReferenceTo) else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def plain(value: Any) -> Any:
    """Return a value as Python's own: numbers, text, lists of them; an array of one element as that element."""
    if isinstance(value, np.ndarray):
        return plain(value.reshape(-1)[0]) if value.size == 1 else [plain(item) for item in value]
    if isinstance(value, list | tuple):
        return plain(value[0]) if len(value) == 1 else [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _members(value: Any) -> list[Any]:
    return list(value)


def _same_number(said: Any, held: Any) -> bool:
    given = [_element(value) for value in (said, held)]
    a, b = (value.item() if isinstance(value, np.generic) else value for value in given)
    try:
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        narrow = {getattr(value, "dtype", None) for value in given} & {np.dtype("f4"), np.dtype("f2")}
        with np.errstate(over="ignore"):
            rounded = [(dtype.type(a), dtype.type(b)) for dtype in narrow if dtype is not None]
        return any(bool(x == y) and bool(np.isfinite(x)) for x, y in rounded)
    except (TypeError, ValueError, OverflowError):
        return False


def _element(value: Any) -> Any:
    """Return the one element of a value, with its numpy type if it has one: that says how it was rounded."""
    while isinstance(value, np.ndarray | list | tuple):
        value = value.reshape(-1)[0] if isinstance(value, np.ndarray) else value[0]
    return value
