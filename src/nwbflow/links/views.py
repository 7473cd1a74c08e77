"""h5py's classes, with links followed by somebody else than HDF5.

HDMF and everything else that takes h5py's objects takes these. What can't be followed is not there: ``get`` gives
``None``, as h5py does for links that lead nowhere.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Never, Protocol

import h5py
import numpy as np

from nwbflow.links.chain import Chain
from nwbflow.links.problems import BrokenLink
from nwbflow.links.resolve import OpenFile, Spot, attribute_names, link_of, root_of
from nwbflow.links.storage import Extent


@dataclass(frozen=True, slots=True)
class Recorder:
    """What was read of a file.

    Parameters
    ----------
    groups : dict
        By file and path, the names that were found in each group.
    """

    groups: dict[tuple[str, str], tuple[GuardedGroup, tuple[str, ...]]]


class Follower(Protocol):
    """Follows links; see :class:`~nwbflow.links.guard.Guard`."""

    recorder: Recorder | None

    def look_up(self, group: GuardedGroup | GuardedFile, path: bytes) -> Any:
        """Return what a path leads to: a view, a :class:`BrokenLink`, or ``None`` if there is no such name."""
        ...

    def dereference(self, item: GuardedGroup | GuardedFile, reference: Any) -> Any:
        """Return the view of what a reference leads to."""
        ...


class _Names:
    """How names are looked up."""

    held: OpenFile
    chain: Chain
    address: int
    id: Any
    name: str
    _guard: Follower
    _last: tuple[str | bytes, Any] | None = None

    @property
    def guard(self) -> Follower:
        """What follows the links."""
        return self._guard

    @property
    def file(self) -> GuardedFile:
        """The file that has the object."""
        return GuardedFile(self.held, self._guard, self.chain.parent)

    def __getitem__(self, name: Any) -> Any:
        if isinstance(name, h5py.Reference):
            return self._guard.dereference(self, name)  # type: ignore[arg-type]
        found = self._found(name)
        if isinstance(found, BrokenLink):
            raise found.as_error()
        if found is None:
            raise KeyError(f"there is no {name!r} in {self.held.name}:{self.name}")
        return found

    def get(self, name: str | bytes, default: Any = None, getclass: bool = False, getlink: bool = False) -> Any:
        """Return an object, its class, its link or its link's class; `default` if there is none.

        Parameters
        ----------
        name, default, getclass, getlink
            As in :meth:`h5py.Group.get`.
        """
        if getlink:
            return self._link(name, default, getclass=getclass)
        found = self._found(name)
        self._last = (name, found)
        if found is None or isinstance(found, BrokenLink):
            return default
        if getclass:
            return next(kind for kind in (h5py.Group, h5py.Dataset, h5py.Datatype) if isinstance(found, kind))
        return found

    def __contains__(self, name: Any) -> bool:
        found = self._found(name)
        return found is not None and not isinstance(found, BrokenLink)

    def __iter__(self) -> Iterator[str]:
        names = tuple(super().__iter__())  # type: ignore[misc]
        recorder = self._guard.recorder
        if recorder is not None:
            recorder.groups[self.held.name, self.name] = (self, names)  # type: ignore[assignment]
        return iter(names)

    def require_group(self, name: Any) -> Any:
        """Return a group, made if there is none.

        Parameters
        ----------
        name
            As in :meth:`h5py.Group.require_group`.

        Raises
        ------
        nwbflow.errors.LinkError
            If there is a link that can't be followed.
        """
        self._refuse_broken(name)
        return super().require_group(name)  # type: ignore[misc]

    def require_dataset(
        self, name: Any, shape: Any, dtype: Any, exact: bool = False, maxshape: Any = None, **options: Any
    ) -> Any:
        """Return a dataset, made if there is none; one that is there is not opened a second time, past all checks.

        Parameters
        ----------
        name, shape, dtype, exact, maxshape, options
            As in :meth:`h5py.Group.require_dataset`.

        Raises
        ------
        nwbflow.errors.LinkError
            If there is a link that can't be followed.
        TypeError
            If what is there is something else.
        """
        self._refuse_broken(name)
        found = self._found(name)
        if found is None:
            return self.create_dataset(name, shape, dtype, maxshape=maxshape, **options)  # type: ignore[attr-defined]
        if not isinstance(found, h5py.Dataset):
            raise TypeError(f"{name!r} is a {type(found).__name__} already")
        wanted = (shape,) if isinstance(shape, int) else tuple(shape)
        fits = found.shape == wanted if maxshape is None else found.maxshape == maxshape
        if not fits or not (found.dtype == dtype if exact else np.can_cast(dtype, found.dtype)):
            raise TypeError(f"{name!r} is there already, with shape {found.shape} and type {found.dtype}")
        return found

    def _refuse_broken(self, name: Any) -> None:
        found = self._found(name)
        if isinstance(found, BrokenLink):
            raise found.as_error()

    def _found(self, name: Any) -> Any:
        if not isinstance(name, str | bytes):
            raise TypeError(f"objects are looked up by text, bytes or reference, not {type(name).__name__}")
        return self._guard.look_up(self, self._e(name))  # type: ignore[arg-type, attr-defined]

    def _link(self, name: str | bytes, default: Any, *, getclass: bool) -> Any:
        path = self._e(name)  # type: ignore[attr-defined]
        folder, last = posixpath.split(path.rstrip(b"/"))
        group = self._guard.look_up(self, folder) if folder else self  # type: ignore[arg-type]
        link = link_of(group.id, last) if isinstance(group, h5py.Group) else None
        if link is None:
            return default
        if getclass:
            return type(link)
        if not isinstance(link, h5py.HardLink) and self._guard.recorder is not None:
            return self._final(name) or link
        return link

    def _final(self, name: str | bytes) -> Any:
        """Return a link that leads at once to where this one leads in the end; ``None`` if that is not known."""
        last, found = self._last or (None, None)
        if last != name or not isinstance(found, _Names | GuardedDataset):
            return None
        here = found.held is self.held
        return h5py.SoftLink(found.name) if here else h5py.ExternalLink(found.held.name, found.name)


class GuardedGroup(_Names, h5py.Group):  # type: ignore[misc]
    """A group whose links are followed by us.

    Parameters
    ----------
    spot : Spot
        Where it is.
    guard : Guard
        What follows the links.
    chain : Chain
        How it was reached, itself included.
    """

    def __init__(self, spot: Spot, guard: Follower, chain: Chain) -> None:
        h5py.HLObject.__init__(self, spot.id)
        self.held, self.address, self._guard, self.chain = spot.held, spot.address, guard, chain

    @property
    def parent(self) -> Any:
        """The group that holds it."""
        return GuardedFile(self.held, self._guard, None)[posixpath.dirname(self.name)]


class GuardedFile(_Names, h5py.File):  # type: ignore[misc]
    """A file whose links are followed by us.

    Parameters
    ----------
    held : OpenFile
        The open file.
    guard : Guard
        What follows the links.
    reached : Chain or None
        The groups one went through to the object that is asked for its file.
    """

    def __init__(self, held: OpenFile, guard: Follower, reached: Chain | None) -> None:
        h5py.HLObject.__init__(self, held.file.id)
        self._libver = getattr(held.file, "_libver", (None, "latest"))
        self.held, self.address, self._guard = held, held.root, guard
        self.chain = reached or Chain(None, ("link", root_of(held).key), held.file.id)

    @property
    def file(self) -> GuardedFile:
        """Itself."""
        return self

    @property
    def parent(self) -> Any:
        """Its root group."""
        return self["/"]


class _Attributes(h5py.AttributeManager):  # type: ignore[misc]
    """An object's attributes, also where HDF5 can't list them."""

    def __iter__(self) -> Iterator[str]:
        return attribute_names(self._id)


class GuardedDataset(h5py.Dataset):  # type: ignore[misc]
    """A dataset that may be read.

    Parameters
    ----------
    spot : Spot
        Where it is.
    guard : Guard
        What follows the links.
    chain : Chain
        The groups one went through to it.
    """

    def __init__(self, spot: Spot, guard: Follower, chain: Chain) -> None:
        super().__init__(spot.id, readonly=spot.held.mode == "r")
        self.held, self._guard, self.chain = spot.held, guard, chain

    @property
    def attrs(self) -> h5py.AttributeManager:
        """Its attributes."""
        return _Attributes(self)

    @property
    def file(self) -> GuardedFile:
        """The file that has it."""
        return GuardedFile(self.held, self._guard, self.chain)

    @property
    def parent(self) -> Any:
        """The group that holds it."""
        return GuardedFile(self.held, self._guard, None)[posixpath.dirname(self.name)]


class BarredDataset(GuardedDataset):
    """A dataset whose elements must not be read; shape, type and attributes, which it has itself, may.

    Parameters
    ----------
    spot, guard, chain
        As for :class:`GuardedDataset`.
    problem : BrokenLink
        Why.
    extent : tuple or None
        Its shape and largest shape, where HDF5 must not be asked for them.
    """

    def __init__(
        self, spot: Spot, guard: Follower, chain: Chain, problem: BrokenLink, extent: Extent | None = None
    ) -> None:
        super().__init__(spot, guard, chain)
        self.problem = problem
        self._known = extent

    @property
    def shape(self) -> Any:
        """Lengths of the axes, in elements."""
        return super().shape if self._known is None else self._known[0]

    @property
    def maxshape(self) -> Any:
        """Lengths the axes may grow to."""
        return super().maxshape if self._known is None else self._known[1]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __getitem__(self, args: Any, new_dtype: Any = None) -> Never:
        raise self.problem.as_error()

    def __setitem__(self, args: Any, val: Any) -> Never:
        raise self.problem.as_error()

    def __iter__(self) -> Never:
        raise self.problem.as_error()

    def __array__(self, dtype: Any = None, copy: bool | None = True) -> Never:
        raise self.problem.as_error()

    def read_direct(self, dest: Any, source_sel: Any = None, dest_sel: Any = None) -> Never:  # noqa: ARG002
        """Refuse."""
        raise self.problem.as_error()

    def write_direct(self, source: Any, source_sel: Any = None, dest_sel: Any = None) -> Never:  # noqa: ARG002
        """Refuse."""
        raise self.problem.as_error()

    def __repr__(self) -> str:
        return f"<broken: {self.problem}>" if self else super().__repr__()
