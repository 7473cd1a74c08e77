"""Reading a file so that nothing is opened on its behalf that must not be.

Names are looked up by us: see :mod:`~nwbflow.links.resolve`, and :mod:`~nwbflow.links.storage` for datasets whose
elements lie in other files. The guard remembers what could not be followed, and why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
from h5py import h5i, h5o, h5r

from nwbflow.errors import ErrorKind
from nwbflow.links.chain import Chain
from nwbflow.links.places import Rules
from nwbflow.links.problems import BrokenLink
from nwbflow.links.resolve import Files, Locking, Resolver, Spot, link_of, name_of, root_of
from nwbflow.links.storage import Examiner, reopened
from nwbflow.links.views import BarredDataset, GuardedDataset, GuardedFile, GuardedGroup, Recorder
from nwbflow.model.links import LinkKind

DEEPEST = 200
"""Groups inside each other; real files have about ten, Python's stack ends at about a thousand calls."""


class Guard:
    """Follows links for one file that was opened, and keeps what could not be followed.

    Parameters
    ----------
    rules : Rules
        What may be opened.
    locking : bool or str, optional
        As in :class:`h5py.File`, for the files that links lead to.
    """

    def __init__(self, rules: Rules, locking: Locking = None) -> None:
        self.rules = rules
        self.recorder: Recorder | None = None
        self._files = Files(rules, locking)
        self._resolver = Resolver(self._files)
        self._examiner = Examiner(self._files, self._resolver)
        self._problems: dict[tuple[str, str], BrokenLink] = {}
        self._barred: dict[tuple[str, str], BarredDataset] = {}

    def view(self, file: h5py.File) -> GuardedFile:
        """Return the view of a file; it shares the file's identifier, so closing one closes the other.

        Parameters
        ----------
        file : h5py.File
            Open, on this machine's disks.
        """
        return GuardedFile(self._files.start(file, str(Path(file.filename).absolute())), self, None)

    @property
    def problems(self) -> tuple[BrokenLink, ...]:
        """What could not be followed so far, in the order in which it was met."""
        return tuple(self._problems.values())

    def problem(self, file: str, name: str) -> BrokenLink | None:
        """Return what is wrong with a link or dataset; ``None`` if nothing is, or it was not looked at."""
        return self._problems.get((file, name))

    @contextlib.contextmanager
    def reading(self) -> Iterator[Recorder]:
        """Surround a walk through everything: circles are cut, and what is met is recorded.

        Links then tell where they lead in the end, by names that can be looked up in the file they lead to: HDMF
        looks there for the name it finds in the link, which fails for relative links, and where links follow each
        other through several files.
        """
        self.recorder = Recorder({})
        try:
            yield self.recorder
        finally:
            self.recorder = None

    def close_targets(self) -> None:
        """Close the files that links led to."""
        self._files.close()

    def look_up(self, group: GuardedGroup | GuardedFile, path: bytes) -> Any:
        """Return what a path leads to: a view, a :class:`BrokenLink`, or ``None`` if there is no such name."""
        here = Spot(group.held, group.id, group.address)
        if not path.strip(b"/.") and b".." not in path:  # two dots are a name like others
            return self._start(group, path)
        if b"/" in path:
            found: Any = self._resolver.walk(here, path)
        else:
            found = self._resolver.step(here, path)
        if isinstance(found, Spot):
            found = self._view(found, group, path)
        if isinstance(found, BrokenLink):
            found = of_link(found, group, path)
            self._problems[found.file, found.name] = found
        return found

    def dereference(self, item: GuardedGroup | GuardedFile, reference: Any) -> Any:
        """Return the view of what a reference leads to.

        Raises
        ------
        ValueError
            If it leads nowhere.
        nwbflow.errors.LinkError
            If references lead in a circle, or the object must not be read.
        """
        try:
            identifier = h5r.dereference(reference, item.id)
        except KeyError:  # perhaps a dataset that was opened with a property list: names can be looked up with it
            name = h5r.get_name(reference, item.id)
            if name is None:
                raise
            return item[name]
        if identifier is None:
            raise ValueError("Invalid HDF5 object reference")
        found = self._view(Spot(item.held, identifier, int(h5o.get_info(identifier).addr)), item, None)
        if isinstance(found, BrokenLink):
            raise found.as_error()
        return found

    def _start(self, group: GuardedGroup | GuardedFile, path: bytes) -> Any:
        """Return the view of a path without names: of the root group, or of the group itself."""
        if not path.startswith(b"/") and isinstance(group, GuardedGroup):
            return group if path else None
        root = root_of(group.held)
        spot = Spot(root.held, h5o.open(root.id, b"/"), root.address)
        chain = group.chain if group.chain.parent is None else Chain(group.chain, ("link", root.key), spot.id)
        return GuardedGroup(spot, self, chain)

    def _view(self, spot: Spot, group: GuardedGroup | GuardedFile, path: bytes | None) -> Any:
        """Return the view of an object that `path`, or a reference, in a group led to."""
        kind = h5i.get_type(spot.id)
        if kind == h5i.DATASET:
            return self._dataset(spot, group.chain)
        if kind == h5i.DATATYPE:
            return h5py.Datatype(spot.id)
        if kind == h5i.FILE:
            spot = Spot(spot.held, h5o.open(spot.id, b"/"), spot.address)
        # a reference to what one is in is sound; to follow it a second time is not
        key = ("reference", spot.key) if path is None else ("link", spot.key)
        chain = Chain(group.chain, key, spot.id, group.chain.depth + 1)
        earlier = group.chain.earlier(key) if self.recorder is not None else None
        if earlier is not None:
            here = name_of(spot.held, earlier.id)
            return _circle(group, path, spot, f"it leads back to {here}, through which it was reached")
        if chain.depth > DEEPEST:
            return _circle(group, path, spot, f"it lies more than {DEEPEST} groups deep")
        return GuardedGroup(spot, self, chain)

    def _dataset(self, spot: Spot, chain: Chain) -> GuardedDataset | BrokenLink:
        verdict = self._examiner.examine(spot)
        problem = verdict.problem
        if problem is None:
            opened = spot if spot.key in self._resolver.access else reopened(spot, verdict)
            if isinstance(opened, Spot):
                access = verdict.access()
                if access is not None:
                    self._resolver.access[spot.key] = access
                return GuardedDataset(opened, self, chain)
            problem = opened
        self._problems[problem.file, problem.name] = problem
        barred = BarredDataset(spot, self, chain, problem, verdict.extent)
        self._barred[problem.file, problem.name] = barred
        return barred if _can_be_shown(barred) else problem

    def barred(self, problem: BrokenLink) -> BarredDataset | None:
        """Return the dataset a problem is about; ``None`` if it is about a link."""
        return self._barred.get((problem.file, problem.name))


def of_link(found: BrokenLink, group: GuardedGroup | GuardedFile, path: bytes) -> BrokenLink:
    """Return the problem of a dataset as that of the link which leads to it.

    Parameters
    ----------
    found : BrokenLink
        What is wrong with the dataset.
    group : GuardedGroup or GuardedFile
        The group that has the link.
    path : bytes
        The link's name in there.
    """
    name = name_of(group.held, group.id, path)
    if b"/" in path or (found.file, found.name) == (group.held.name, name):
        return found
    link = link_of(group.id, path)
    if link is None or isinstance(link, h5py.HardLink):
        return found
    soft = isinstance(link, h5py.SoftLink)
    return replace(
        found,
        file=group.held.name,
        name=name,
        kind=LinkKind.SOFT if soft else LinkKind.EXTERNAL,
        target=link.path if soft else f"{link.filename}:{link.path}",
        reason=f"its elements lie in {found.target}, and {found.reason}",
    )


def _circle(group: GuardedGroup | GuardedFile, path: bytes | None, spot: Spot, reason: str) -> BrokenLink:
    return BrokenLink(
        file=group.held.name,
        name=name_of(group.held, group.id, path or b""),
        kind=LinkKind.SOFT,
        target=name_of(spot.held, spot.id),
        reason=reason,
        error=ErrorKind.CYCLE,
    )


def _can_be_shown(barred: BarredDataset) -> bool:
    """Return whether a reader is content with shape and type of a dataset until its user asks for elements."""
    try:
        return bool(barred) and len(barred.shape) > 0 and barred.dtype.kind in "biufc"
    except (TypeError, ValueError, OSError):
        return False
