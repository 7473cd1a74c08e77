"""Following names through a file's links, without HDF5 following any: we open the files that links lead to."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
from h5py import h5a, h5d, h5i, h5l, h5o

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.files import open_file
from nwbflow.links.places import Rules, find_file
from nwbflow.links.problems import BrokenLink, misplaced, way_out
from nwbflow.links.steps import MOST_LINKS, Steps
from nwbflow.model.links import LinkKind, Place

type Locking = bool | str | None
"""As in :class:`h5py.File`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A file that is open on behalf of the one that was asked for.

    Parameters
    ----------
    file : h5py.File
        Plain: HDF5 would follow its links.
    name : str
        What it was opened by, which relative names in it count from.
    identity : tuple of int
        Device and inode.
    mode : {"r", "r+"}
        Reading, or changing in place.
    root : int
        Address of its root group.
    """

    file: h5py.File
    name: str
    identity: tuple[int, int]
    mode: Literal["r", "r+"]
    root: int

    @classmethod
    def of(cls, file: h5py.File, name: str) -> OpenFile:
        """Return the facts of a file that was opened by `name`."""
        mode: Literal["r", "r+"] = "r" if file.mode == "r" else "r+"
        return cls(file=file, name=name, identity=_identity(name), mode=mode, root=int(h5o.get_info(file.id).addr))


type Key = tuple[tuple[int, int], int]
"""A file's identity and an address in it."""


@dataclass(frozen=True, slots=True)
class Spot:
    """An object that was found.

    Parameters
    ----------
    held : OpenFile
        The file that has it.
    id : h5py ObjectID
        Its open identifier; of the file itself for the root group.
    address : int
        Where it is in the file.
    """

    held: OpenFile
    id: Any
    address: int

    @property
    def key(self) -> Key:
        """What tells it from all other objects."""
        return (self.held.identity, self.address)


type Found = Spot | BrokenLink | None
"""What a name leads to; ``None`` if there is no such name."""


class Files:
    """The files opened on behalf of one, each once.

    Parameters
    ----------
    rules : Rules
        What may be opened.
    locking : bool or str, optional
        As in :class:`h5py.File`.
    """

    def __init__(self, rules: Rules, locking: Locking = None) -> None:
        self.rules = rules
        self._locking = locking
        self._main: OpenFile | None = None
        self._targets: dict[tuple[int, int], OpenFile] = {}

    def start(self, file: h5py.File, name: str) -> OpenFile:
        """Take the file that was asked for; it stays the caller's to close."""
        self._main = OpenFile.of(file, name)
        return self._main

    @property
    def opened(self) -> str:
        """What the file that was asked for was opened by; empty if none was."""
        return "" if self._main is None else self._main.name

    def target(self, place: Place, mode: Literal["r", "r+"]) -> OpenFile:
        """Return the file at a place, opened if it was not, to stay open.

        Parameters
        ----------
        place : Place
            Where it is.
        mode : {"r", "r+"}
            That of the file that has the link; if it can't be opened for writing, it is for reading.

        Raises
        ------
        nwbflow.errors.LinkError
            See :func:`~nwbflow.links.files.open_file`.
        """
        name = _name(place)
        identity = _identity(name)
        held = self._known(identity)
        if held is None:
            held = self._targets[identity] = self._open(name, mode)
        return held

    @contextlib.contextmanager
    def visit(self, place: Place) -> Iterator[OpenFile]:
        """Give the file at a place for reading, closed afterwards if it was not open before.

        Raises
        ------
        nwbflow.errors.LinkError
            As for :meth:`target`.
        """
        name = _name(place)
        identity = _identity(name)
        held = self._known(identity)
        if held is not None:
            yield held
            return
        held = self._targets[identity] = self._open(name, "r")
        try:
            yield held
        finally:
            del self._targets[identity]
            held.file.close()

    def close(self) -> None:
        """Close what links led to."""
        for held in self._targets.values():
            held.file.close()
        self._targets.clear()

    def _known(self, identity: tuple[int, int]) -> OpenFile | None:
        if self._main is not None and identity == self._main.identity:
            return self._main
        held = self._targets.get(identity)
        return held if held is not None and held.file else None

    def _open(self, name: str, mode: Literal["r", "r+"]) -> OpenFile:
        if mode == "r+" and os.access(name, os.W_OK):
            with contextlib.suppress(LinkError):  # open elsewhere, perhaps for reading
                return OpenFile.of(open_file(name, "r+", locking=self._locking), name)
        return OpenFile.of(open_file(name, "r", locking=self._locking), name)


def _name(place: Place) -> str:
    """Return the name to open a place by: as it was written, so that names relative to it stay short."""
    if place.path is None:
        raise LinkError(misplaced(place), kind=place.kind or ErrorKind.MISSING)
    written = os.path.normpath(place.tried[-1])
    return written if os.path.realpath(written) == str(place.path) else str(place.path)


def _identity(name: str) -> tuple[int, int]:
    try:
        status = Path(name).stat()
    except OSError as error:
        raise LinkError(f"{name} can't be looked at: {error.strerror}", kind=ErrorKind.MISSING) from error
    return (status.st_dev, status.st_ino)


def root_of(held: OpenFile) -> Spot:
    """Return the root group of a file."""
    return Spot(held, held.file.id, held.root)


def name_of(held: OpenFile, identifier: Any, child: bytes = b"") -> str:
    """Return the path of an object, or of a name in a group, as h5py would give it."""
    name = h5i.get_name(identifier) or b"/"
    return held.file._d(posixpath.join(name, child) if child else name)  # type: ignore[no-any-return]


def attribute_names(identifier: Any) -> Iterator[str]:
    """Give the names of an object's attributes.

    HDF5's own way to list them opens the object once more, which it refuses for datasets that were opened with a
    folder for their raw files.

    Parameters
    ----------
    identifier : h5py GroupID or DatasetID
        Of the object.
    """
    for index in range(h5a.get_num_attrs(identifier)):
        yield _text(h5a.open(identifier, index=index).name)


def link_of(group: Any, name: bytes) -> h5py.HardLink | h5py.SoftLink | h5py.ExternalLink | None:
    """Return what a link says; nothing is followed or opened.

    Parameters
    ----------
    group : h5py GroupID
        That has it.
    name : bytes
        Its name in there.

    Returns
    -------
    h5py.HardLink, h5py.SoftLink, h5py.ExternalLink or None
        ``None`` if there is no such name, or a link of a kind that h5py does not know.
    """
    try:
        kind = group.links.get_info(name).type
    except (KeyError, RuntimeError, ValueError):
        return None
    if kind == h5l.TYPE_HARD:
        return h5py.HardLink()
    if kind == h5l.TYPE_SOFT:
        return h5py.SoftLink(_text(group.links.get_val(name)))
    if kind == h5l.TYPE_EXTERNAL:
        recorded, path = group.links.get_val(name)
        return h5py.ExternalLink(os.fsdecode(recorded), _text(path))
    return None


class Resolver:
    """Follows names.

    Parameters
    ----------
    files : Files
        What opens files.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self.access: dict[Key, Any] = {}
        """Property lists of datasets that were opened with other ones than HDF5's default: it refuses a second kind."""

    def walk(self, start: Spot, path: bytes, steps: Steps | None = None) -> Found:
        """Return what a path leads to.

        Parameters
        ----------
        start : Spot
            A group; for paths that begin with ``/`` any object of the file.
        path : bytes
            Names, separated by ``/``.
        steps : Steps, optional
            The links followed for it so far.
        """
        steps = steps or Steps()
        at: Found = root_of(start.held) if path.startswith(b"/") else start
        for name in path.split(b"/"):
            if name in (b"", b"."):
                continue
            if not isinstance(at, Spot) or not _is_group(at.id):
                return at if isinstance(at, BrokenLink) else None
            at = self.step(at, name, steps)
        return at

    def step(self, group: Spot, name: bytes, steps: Steps | None = None) -> Found:
        """Return what one name in a group leads to."""
        try:
            info = group.id.links.get_info(name)
        except (KeyError, RuntimeError):
            if group.id.links.exists(name):
                raise
            return None
        if info.type == h5l.TYPE_HARD:
            access = self.access.get((group.held.identity, int(info.u)))
            found = h5o.open(group.id, name) if access is None else h5d.open(group.id, name, access)
            return Spot(group.held, found, int(info.u))
        steps = steps or Steps()
        steps.left -= 1
        link = _Link(group, name)
        if info.type == h5l.TYPE_SOFT:
            return self._soft(link, group.id.links.get_val(name), steps)
        if info.type == h5l.TYPE_EXTERNAL:
            recorded, path = group.id.links.get_val(name)
            return self._external(link, os.fsdecode(recorded), path, steps)
        reason = f"it is of a type ({info.type}) that HDF5 itself does not know"
        return link.broken(LinkKind.SOFT, "what it says", reason, ErrorKind.REFUSED)

    def _soft(self, link: _Link, path: bytes, steps: Steps) -> Found:
        target = _text(path)
        if steps.left < 0:
            return link.broken(LinkKind.SOFT, target, _CIRCLE, ErrorKind.CYCLE)
        found = self.walk(link.group, path, steps)
        if isinstance(found, Spot):
            return found
        if found is None:
            reason = f"there is no {target} in this file"
            return link.broken(LinkKind.SOFT, target, reason, ErrorKind.MISSING)
        return link.inherits(LinkKind.SOFT, target, found)

    def _external(self, link: _Link, recorded: str, path: bytes, steps: Steps) -> Found:
        target = f"{recorded}:{_text(path)}"
        if steps.left < 0:
            return link.broken(LinkKind.EXTERNAL, target, _CIRCLE, ErrorKind.CYCLE)
        held = link.group.held
        place = find_file(recorded, LinkKind.EXTERNAL, held.name, self._files.rules)
        if place.path is None:
            return link.broken(
                LinkKind.EXTERNAL,
                target,
                misplaced(place),
                place.kind or ErrorKind.MISSING,
                tried=place.tried,
                out=way_out(place, held.name, self._files.opened),
            )
        steps.crossed.append((place, held.name))
        try:
            other = self._files.target(place, held.mode)
        except LinkError as error:
            return link.broken(LinkKind.EXTERNAL, target, str(error), error.kind)
        found = self.walk(root_of(other), path, steps)
        if isinstance(found, Spot):
            return found
        if found is None:
            reason = f"there is no {_text(path)} in {other.name}"
            out = f"See what is there: nwbflow inspect {other.name}"
            return link.broken(LinkKind.EXTERNAL, target, reason, ErrorKind.MISSING, out=out)
        return link.inherits(LinkKind.EXTERNAL, target, found)


_CIRCLE = f"more than {MOST_LINKS} links follow each other; they lead in a circle"


@dataclass(frozen=True, slots=True)
class _Link:
    """A link that is being followed."""

    group: Spot
    name: bytes

    def broken(
        self,
        kind: LinkKind,
        target: str,
        reason: str,
        error: ErrorKind,
        *,
        tried: tuple[Path, ...] = (),
        out: str = "",
    ) -> BrokenLink:
        held = self.group.held
        return BrokenLink(
            file=held.name,
            name=name_of(held, self.group.id, self.name),
            kind=kind,
            target=target,
            reason=reason,
            error=error,
            tried=tried,
            way_out=out,
        )

    def inherits(self, kind: LinkKind, target: str, inner: BrokenLink) -> BrokenLink:
        """Return what is wrong with this link because of another one on its way."""
        if inner.error is ErrorKind.CYCLE:
            return self.broken(kind, target, inner.reason, inner.error)
        reason = f"on the way, {inner.file}:{inner.name} leads to {inner.target}, and {inner.reason}"
        return self.broken(kind, target, reason, inner.error, tried=inner.tried, out=inner.way_out)


def _is_group(identifier: Any) -> bool:
    return h5i.get_type(identifier) in (h5i.GROUP, h5i.FILE)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
