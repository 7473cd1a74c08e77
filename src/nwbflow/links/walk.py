"""Going through all names of a file once; no link to elsewhere is followed, and no data are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import h5py

type MemberKind = Literal["soft", "external", "hard", "group", "dataset", "other"]
"""``hard`` is a second name of an object that was met before, ``other`` a committed type or a link unknown to h5py."""

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises, depending on where the damage is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One name in a group.

    Parameters
    ----------
    path : str
        Its absolute path in the file.
    parent : h5py.Group
        The group that has it.
    name : str
        The name in there.
    kind : {"soft", "external", "hard", "group", "dataset", "other"}
        What it is.
    link : h5py.SoftLink, h5py.ExternalLink or None
        What a link says.
    item : h5py object or None
        The object; ``None`` for links.
    first : str
        Of a second name the path under which the object was met first, else empty.
    """

    path: str
    parent: h5py.Group
    name: str
    kind: MemberKind
    link: Any = None
    item: Any = None
    first: str = ""


def walk(start: h5py.Group, problems: list[str]) -> Iterator[Member]:
    """Give every name that hard links reach from a group, in h5py's order.

    Without recursion: depth and circles are the file's choice.

    Parameters
    ----------
    start : h5py.Group
        The group; of a file the root. Paths are those below it: its own is ``/``.
    problems : list of str
        Takes what can't be read, with its path; it is left out.

    Yields
    ------
    Member
        Every object once as what it is, and again under other names as ``hard``.
    """
    seen = {address(start): "/"}
    waiting = [_members(start, "", seen, problems)]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            continue
        yield found
        if found.kind == "group":
            waiting.append(_members(found.item, found.path, seen, problems))


def address(item: Any) -> int:
    """Return where an object is in its file: two names of one object have one address.

    Parameters
    ----------
    item : h5py.Group, h5py.Dataset or h5py.Datatype
        Open.
    """
    return int(h5py.h5o.get_info(item.id).addr)


def _members(group: h5py.Group, prefix: str, seen: dict[int, str], problems: list[str]) -> Iterator[Member]:
    try:
        names = sorted(group)
    except DAMAGE as error:
        problems.append(f"{prefix or '/'}: {type(error).__name__}: {error}")
        return
    for name in names:
        path = f"{prefix}/{name}"
        try:
            found = _member(group, name, path, seen)
        except DAMAGE as error:
            problems.append(f"{path}: {type(error).__name__}: {error}")
            continue
        yield found


def _member(group: h5py.Group, name: str, path: str, seen: dict[int, str]) -> Member:
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.SoftLink):
        return Member(path=path, parent=group, name=name, kind="soft", link=link)
    if isinstance(link, h5py.ExternalLink):
        return Member(path=path, parent=group, name=name, kind="external", link=link)
    item = group[name]
    first = seen.setdefault(address(item), path)
    if first != path:
        return Member(path=path, parent=group, name=name, kind="hard", item=item, first=first)
    kind: MemberKind = "other"
    if isinstance(item, h5py.Dataset | h5py.Group):
        kind = "dataset" if isinstance(item, h5py.Dataset) else "group"
    return Member(path=path, parent=group, name=name, kind=kind, item=item)
