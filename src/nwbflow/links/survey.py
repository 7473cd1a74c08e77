"""What a file's links are, one after the other, each followed to its end by us."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import h5py
from h5py import h5d, h5i, h5l, h5s

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.files import open_file
from nwbflow.links.names import SAME_FILE, unescaped
from nwbflow.links.places import Rules, find_file
from nwbflow.links.problems import BrokenLink, misplaced
from nwbflow.links.records import read_records
from nwbflow.links.resolve import Files, Found, OpenFile, Resolver, Spot, root_of
from nwbflow.links.storage import Examiner, reopened
from nwbflow.links.walk import Member, address, walk
from nwbflow.model.links import LinkKind, LinkRecord, Place, Policy

type LinkType = Literal["hard", "soft", "external"]
"""How a name in a group leads to its object."""

ALLOW = Rules(Policy.ALLOW)
"""Whoever manages links means them: they are followed wherever they lead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing a link leads to, as recorded; virtual and raw datasets may have many.

    Parameters
    ----------
    file : str
        The file's name, unescaped; empty for the linking file itself.
    path : str
        Path inside it, unescaped; empty for raw files.
    key : str
        Its name in the link's record.
    offset, nbytes : int
        Of raw files: where the bytes begin, and how many there are.
    numbered : bool
        Whether it stands for any number of sources; its names are as HDF5 has them then, with ``%b``.
    """

    file: str
    path: str
    key: str
    offset: int = 0
    nbytes: int = 0
    numbered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A link, virtual or raw dataset in a file that is open.

    Parameters
    ----------
    kind : LinkKind
        What it is.
    member : Member
        Where it is.
    parts : tuple of Part
        What it says.
    end : Spot or None
        What it leads to: the object at the end of all links, or the virtual or raw dataset itself.
    problem : BrokenLink or None
        Why it can't be read.
    record : LinkRecord or None
        What was recorded when it was made.
    note : str
        What a careful user wants to know: a record that can't be read.
    """

    kind: LinkKind
    member: Member
    parts: tuple[Part, ...]
    end: Spot | None
    problem: BrokenLink | None
    record: LinkRecord | None
    note: str = ""


class Survey:
    """Looks at the links of one file; a context manager.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; opened for reading.
    rules : Rules
        What may be opened on its behalf.

    Raises
    ------
    nwbflow.errors.LinkError
        If the file can't be opened.
    """

    def __init__(self, path: str | Path, rules: Rules = ALLOW) -> None:
        self.path = Path(path)
        self.problems: list[str] = []
        self.file = open_file(self.path)
        self._files = Files(rules)
        self._resolver = Resolver(self._files)
        self._examiner = Examiner(self._files, self._resolver)
        self.main = self._files.start(self.file, str(self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
        self.file.close()

    @property
    def rules(self) -> Rules:
        """What may be opened."""
        return self._files.rules

    def links(self, start: h5py.Group | None = None) -> Iterator[Seen]:
        """Give every link, virtual and raw dataset. Files that one led to are closed when the next is asked for.

        Parameters
        ----------
        start : h5py.Group, optional
            A group of the file: only what is in it, by paths from there.
        """
        for member in walk(self.file if start is None else start, self.problems):
            look = self._look(member)
            if look is None:
                continue
            try:
                yield look()
            finally:
                self._files.close()

    def _look(self, member: Member) -> Callable[[], Seen] | None:
        if member.kind in ("soft", "external"):
            return lambda: self._link(member)
        if member.kind == "dataset":
            created = member.item.id.get_create_plist()
            if created.get_layout() == h5d.VIRTUAL or created.get_external_count():
                return lambda: self._mapped(member, created)
        return None

    def _link(self, member: Member) -> Seen:
        soft = member.kind == "soft"
        link = member.link
        here = Spot(self.main, member.parent.id, address(member.parent))
        found = self._resolver.step(here, encoded(member.name))
        end, problem = self._judged(found)
        records, note = ({}, "") if soft else _records(member.parent)
        file = "" if soft else str(link.filename)
        return Seen(
            kind=LinkKind.SOFT if soft else LinkKind.EXTERNAL,
            member=member,
            parts=(Part(file=file, path=str(link.path), key=f"{file}:{link.path}"),),
            end=end,
            problem=problem,
            record=records.get(member.name),
            note=note,
        )

    def _mapped(self, member: Member, created: Any) -> Seen:
        virtual = created.get_layout() == h5d.VIRTUAL
        end, problem = self._judged(Spot(self.main, member.item.id, address(member.item)))
        records, note = _records(member.item)
        return Seen(
            kind=LinkKind.VIRTUAL if virtual else LinkKind.RAW,
            member=member,
            parts=tuple(virtual_parts(created) if virtual else raw_parts(member.item)),
            end=end,
            problem=problem,
            record=records.get(""),
            note=note,
        )

    def _judged(self, found: Found) -> tuple[Spot | None, BrokenLink | None]:
        if found is None or isinstance(found, BrokenLink):
            return None, found
        if h5i.get_type(found.id) != h5i.DATASET:
            return found, None
        return found, self._examiner.examine(found).problem

    def place(self, part: Part, kind: LinkKind, linking: str | None = None) -> Place:
        """Return where a part's file is, for a link of this file or of another one."""
        return find_file(part.file, kind, linking or self.path, self._files.rules)

    def end_of(self, part: Part, kind: LinkKind, linking: OpenFile | None = None) -> Spot:
        """Return what a part of an external link or virtual dataset leads to.

        Raises
        ------
        nwbflow.errors.LinkError
            If it can't be found or read.
        """
        return self.at(self.file_of(part, kind, linking), part.path)

    def file_of(self, part: Part, kind: LinkKind, linking: OpenFile | None = None) -> OpenFile:
        """Return the file that a part of an external link or virtual dataset leads to.

        Raises
        ------
        nwbflow.errors.LinkError
            If it can't be found or opened.
        """
        held = linking or self.main
        if not part.file:
            return held
        place = self.place(part, kind, held.name)
        if place.path is None:
            raise LinkError(misplaced(place), kind=place.kind or ErrorKind.MISSING)
        return self._files.target(place, "r")

    def step(self, group: Spot, name: bytes) -> Found:
        """Return what a name in a group leads to."""
        return self._resolver.step(group, name)

    def at(self, held: OpenFile, path: str) -> Spot:
        """Return what is at a path of a file.

        Raises
        ------
        nwbflow.errors.LinkError
            If nothing is, or it can't be read.
        """
        found, problem = self._judged(self._resolver.walk(root_of(held), encoded(path)))
        if problem is not None:
            raise problem.as_error()
        if found is None:
            raise LinkError(f"there is no {path} in {held.name}", kind=ErrorKind.MISSING)
        return found

    def members(self, group: Spot) -> Iterator[tuple[str, LinkType, Found]]:
        """Give the names in a group, how each is linked, and what it leads to.

        Parameters
        ----------
        group : Spot
            In any file.
        """
        for name in sorted(h5py.Group(group.id)):
            kind = group.id.links.get_info(encoded(name)).type
            linked: LinkType = "hard" if kind == h5l.TYPE_HARD else "soft" if kind == h5l.TYPE_SOFT else "external"
            yield name, linked, self._resolver.step(group, encoded(name))

    def again(self, file: str, path: str) -> Spot:
        """Return what was found before, opened again if its file was closed.

        Parameters
        ----------
        file : str
            The name it was opened by.
        path : str
            The object's path in there.

        Raises
        ------
        nwbflow.errors.LinkError
            If it can't be read any more.
        """
        if file == self.main.name:
            return self.at(self.main, path)
        place = Place(recorded=file, path=Path(os.path.realpath(file)), tried=(Path(file),))
        return self.at(self._files.target(place, "r"), path)

    def let_go(self) -> None:
        """Close the files that links led to."""
        self._files.close()

    def judged(self, found: Found) -> BrokenLink | None:
        """Return why something that was found can't be read."""
        return self._judged(found)[1]

    def dataset(self, spot: Spot) -> h5py.Dataset:
        """Return a dataset that was found, opened such that HDF5 finds its files where we do."""
        found = reopened(spot, self._examiner.examine(spot))
        if isinstance(found, BrokenLink):
            raise found.as_error()
        return h5py.Dataset(found.id)


def encoded(name: str) -> bytes:
    """Return a name as HDF5 has it."""
    return name.encode("utf-8", "surrogateescape")


def virtual_parts(created: Any) -> Iterator[Part]:
    """Give every source of a virtual dataset once.

    Parameters
    ----------
    created : h5py PropDCID
        Its creation property list.
    """
    seen: set[tuple[str, str]] = set()
    for index in range(created.get_virtual_count()):
        try:
            pair = (created.get_virtual_filename(index), created.get_virtual_dsetname(index))
        except UnicodeDecodeError:
            pair = ("a name that is no UTF-8", "")
        if pair not in seen:
            seen.add(pair)
            key = f"{pair[0]}:{pair[1]}"
            if numbered(key):
                yield Part(file=pair[0], path=pair[1], key=key, numbered=True)
            else:
                yield Part(file="" if pair[0] == SAME_FILE else unescaped(pair[0]), path=unescaped(pair[1]), key=key)


def numbered(name: str) -> bool:
    """Return whether a name in a virtual dataset stands for any number of files or datasets.

    Parameters
    ----------
    name : str
        As HDF5 has it: ``%b`` is a number, ``%%`` a percent sign.
    """
    return "%b" in name.replace("%%", "")


def raw_parts(dataset: h5py.Dataset) -> Iterator[Part]:
    """Give every stretch of raw files that a dataset is stored in; none reaches beyond what the dataset needs.

    Parameters
    ----------
    dataset : h5py.Dataset
        Stored in raw files.
    """
    created = dataset.id.get_create_plist()
    found = [created.get_external(index) for index in range(created.get_external_count())]
    names = [os.fsdecode(name) for name, _, _ in found]
    left = math.prod(dataset.id.shape) * dataset.id.get_type().get_size()
    for name, (_, offset, size) in zip(names, found, strict=True):
        nbytes = left if size == h5s.UNLIMITED else min(left, int(size))
        left -= nbytes
        key = name if names.count(name) == 1 else f"{name} @ {offset}"
        yield Part(file=name, path="", key=key, offset=int(offset), nbytes=nbytes)


def _records(item: h5py.Group | h5py.Dataset) -> tuple[dict[str, LinkRecord], str]:
    try:
        return read_records(item), ""
    except LinkError as error:
        return {}, str(error)
