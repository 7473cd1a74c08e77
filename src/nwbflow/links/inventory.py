"""Which links a file has, where they lead, and whether that is there."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import h5py
from h5py import h5i

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.problems import BrokenLink, shown
from nwbflow.links.survey import Seen, Survey
from nwbflow.model.links import LinkKind, Place


class LinkState(StrEnum):
    """What became of what a link leads to. Members are only ever added."""

    OK = "ok"
    """It is there and can be read (and, where that was checked, is what it was)."""
    MISSING = "missing"
    """A file, or the path in it, is not there."""
    REFUSED = "refused"
    """It is nothing to be opened: a folder, pipe or device, a URL."""
    UNREADABLE = "unreadable"
    """Not permitted, not HDF5, damaged, or being written by another process."""
    SHORT = "short"
    """A raw file has fewer bytes than the dataset needs; HDF5 would read zeros."""
    CYCLE = "cycle"
    """Links lead in a circle."""
    CHANGED = "changed"
    """It is not what it was when it was linked."""


_STATES = {
    ErrorKind.MISSING: LinkState.MISSING,
    ErrorKind.REFUSED: LinkState.REFUSED,
    ErrorKind.LENGTH: LinkState.SHORT,
    ErrorKind.CYCLE: LinkState.CYCLE,
    ErrorKind.SHAPE: LinkState.CHANGED,
    ErrorKind.DTYPE: LinkState.CHANGED,
}

SUFFIXES = (".nwb", ".h5", ".hdf5")
"""Of the files looked for in folders."""


def state_of(kind: ErrorKind) -> LinkState:
    """Return the state that an error of a kind means for a link."""
    return _STATES.get(kind, LinkState.UNREADABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTarget:
    """One thing a link leads to; virtual and raw datasets may have many.

    Parameters
    ----------
    file : str
        The file's name as recorded; empty for the linking file itself.
    path : str
        Path inside it; empty for raw files.
    place : pathlib.Path or None
        The file it leads to, symbolic links resolved; ``None`` if it leads nowhere.
    """

    file: str
    path: str
    place: Path | None

    def __str__(self) -> str:
        return shown(f"{self.file}:{self.path}" if self.file and self.path else self.file or self.path)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        place = None if self.place is None else shown(str(self.place))
        return {"file": shown(self.file), "path": shown(self.path), "place": place}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEntry:
    """A link, virtual or raw dataset.

    Parameters
    ----------
    path : str
        Its path in the file.
    kind : LinkKind
        What it is.
    targets : tuple of LinkTarget
        What it leads to.
    state : LinkState
        Whether that is there, as far as can be told without reading it.
    detail : str
        What is wrong; empty if nothing is.
    mend : str
        What to do about it; empty if that is plain.
    nbytes : int or None
        Bytes that the linked elements take in memory; ``None`` for groups, and where that can't be told.
    recorded : bool
        Whether the file says what the target was when it was linked.
    """

    path: str
    kind: LinkKind
    targets: tuple[LinkTarget, ...]
    state: LinkState
    detail: str
    mend: str
    nbytes: int | None
    recorded: bool

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {
            "path": shown(self.path),
            "kind": str(self.kind),
            "targets": [target.to_json() for target in self.targets],
            "state": str(self.state),
            "detail": self.detail,
            "mend": self.mend,
            "nbytes": self.nbytes,
            "recorded": self.recorded,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The links of one file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    links : tuple of LinkEntry
        Soft and external links, virtual and raw datasets, by path.
    problems : tuple of str
        What could not be read, with its path (damaged files).
    """

    path: Path
    links: tuple[LinkEntry, ...]
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {
            "path": shown(str(self.path)),
            "links": [link.to_json() for link in self.links],
            "problems": [shown(problem) for problem in self.problems],
        }


def list_links(path: str | Path) -> Inventory:
    """Return the links of a file, and whether what they lead to is there.

    Links are followed to their end, through other links and files, wherever they lead. Those of other files are not
    listed. No data are read.

    Parameters
    ----------
    path : str or pathlib.Path
        An HDF5 file. It is opened for reading only.

    Returns
    -------
    Inventory
        By path.

    Raises
    ------
    nwbflow.errors.LinkError
        If the file is missing, no regular file, unreadable, no HDF5 file, damaged or being written.
    """
    with Survey(path) as survey:
        links = tuple(sorted((entry_of(seen, survey) for seen in survey.links()), key=lambda e: e.path))
        return Inventory(path=survey.path, links=links, problems=tuple(survey.problems))


def entry_of(seen: Seen, survey: Survey) -> LinkEntry:
    """Return what is said of a link that was looked at."""
    problem = seen.problem
    return LinkEntry(
        path=seen.member.path,
        kind=seen.kind,
        targets=tuple(_targets(seen, survey)),
        state=LinkState.OK if problem is None else state_of(problem.error),
        detail="" if problem is None else _detail(problem),
        mend="" if problem is None else shown(problem.way_out),
        nbytes=_nbytes(seen),
        recorded=seen.record is not None,
    )


def _detail(problem: BrokenLink) -> str:
    looked = ", ".join(str(path) for path in problem.tried) if problem.error is ErrorKind.MISSING else ""
    return shown(f"{problem.reason} (looked for at {looked})" if looked else problem.reason)


def _targets(seen: Seen, survey: Survey) -> Iterator[LinkTarget]:
    places: dict[str, Place] = {}
    for part in seen.parts:
        if not part.file:
            yield LinkTarget(file="", path=part.path, place=Path(os.path.realpath(survey.path)))
            continue
        if part.file not in places:
            places[part.file] = survey.place(part, seen.kind)
        yield LinkTarget(file=part.file, path=part.path, place=places[part.file].path)


def _nbytes(seen: Seen) -> int | None:
    """Return the size of a dataset; that of a virtual one with sources missing may be wrong, and is not told."""
    if seen.end is None or h5i.get_type(seen.end.id) != h5i.DATASET or seen.problem is not None:
        return sum(part.nbytes for part in seen.parts) if seen.kind is LinkKind.RAW else None
    dataset = h5py.Dataset(seen.end.id)
    shape = dataset.shape
    return None if shape is None else math.prod(shape) * int(dataset.id.get_type().get_size())


def hdf5_files(paths: Sequence[str | Path], unreadable: list[str]) -> list[Path]:
    """Return files as given, and those found in folders: ``.nwb``, ``.h5`` and ``.hdf5``, at any depth.

    Parameters
    ----------
    paths : sequence of str or pathlib.Path
        Files and folders. Files are taken whatever they are called. Folders that are symbolic links are not gone
        into, unless given.
    unreadable : list of str
        Takes folders that can't be searched, and why.

    Returns
    -------
    list of pathlib.Path
        Each once, in the order given, those of a folder sorted; of several symbolic links to one file, and the file
        itself, the first. Whatever has such a name is among them, also what can't be opened, such as a symbolic link
        to what is not there.

    Raises
    ------
    nwbflow.errors.LinkError
        If a path does not exist, or a folder has no such file.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise LinkError(f"{path}: there is no such file or folder; check the path", kind=ErrorKind.MISSING)
            found.setdefault(os.path.realpath(path), path)
            continue
        before = len(unreadable)
        inside = _inside(path, unreadable)
        if not inside and len(unreadable) == before:
            names = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
            raise LinkError(f"{path} holds no file {names}; name the files themselves", kind=ErrorKind.MISSING)
        for file in inside:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _inside(folder: Path, unreadable: list[str]) -> list[Path]:
    def note(error: OSError) -> None:
        unreadable.append(f"{error.filename} can't be searched: {error.strerror}")

    found = [Path(at) / name for at, _, names in os.walk(folder, onerror=note) for name in names]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)
