"""Names in a file for what a builder tree has already, where PyNWB has no place for two.

PyNWB keeps one container of each name in a group, and takes the name from what a link leads to. And groups without
a type are followed by HDMF wherever they are met: two names each for twenty groups inside each other are a million
paths.
"""

from __future__ import annotations

import posixpath
from typing import Any

import h5py
from hdmf.build import BuildManager, GroupBuilder, LinkBuilder

from nwbflow.errors import ErrorKind
from nwbflow.links.problems import BrokenLink
from nwbflow.links.resolve import link_of, name_of
from nwbflow.links.views import GuardedGroup
from nwbflow.model.links import LinkKind


class Seconds:
    """What one group has, and what would be one too many.

    Parameters
    ----------
    manager : BuildManager
        Knows the types.
    spec : GroupSpec or None
        What the schema says of the group.
    builder : GroupBuilder
        The group.
    guests : set of int
        Groups of other files, without a type, that are in the tree already; what is met is added.
    """

    def __init__(self, manager: BuildManager, spec: Any, builder: GroupBuilder, guests: set[int]) -> None:
        self._manager = manager
        self._spec = spec
        self._builder = builder
        self._guests = guests
        own = [*builder.groups.values(), *builder.datasets.values()]
        self._containers = {child.name: child for child in own if manager.get_builder_dt(child) is not None}

    def reason(self, name: str, child: Any) -> str:
        """Return why a child has to be left out, as the end of a sentence; empty if it is the first, which is noted.

        Parameters
        ----------
        name : str
            In the group.
        child : GroupBuilder, DatasetBuilder or LinkBuilder
            What it is.
        """
        if self._has_place(name):
            return ""
        target = child.builder if isinstance(child, LinkBuilder) else child
        if self._manager.get_builder_dt(target) is not None:
            return self._container(child, target)
        if isinstance(target, GroupBuilder) and not self._is_here(child, target):
            return "groups without a type are read in one place only"
        return ""

    def take_out(self, name: str) -> None:
        """Take a child out of the tree, if it is there."""
        for held in (self._builder.groups, self._builder.links):
            if name in held:
                del held[name], self._builder.obj_type[name]

    def _has_place(self, name: str) -> bool:
        """Return whether the schema names a child like this."""
        if self._spec is None:
            return False
        found = (self._spec.get_group, self._spec.get_dataset, self._spec.get_link)
        return any(get(name) is not None for get in found)

    def _container(self, child: Any, target: Any) -> str:
        if not isinstance(child, LinkBuilder):
            return ""
        first = self._containers.get(target.name)
        if first is None:
            self._containers[target.name] = target
            return ""
        if first is target:
            return "that is read in this group already, and PyNWB has one name for it"
        return f"PyNWB keeps one {target.name!r} in a group, and that is {first.source}:{_path(first)} here"

    def _is_here(self, child: Any, target: GroupBuilder) -> bool:
        """Return whether this is the only place in the tree where a group without a type is."""
        if target.parent is not None:
            return child is target and target.parent is self._builder
        new = id(target) not in self._guests
        self._guests.add(id(target))
        return new


def _path(builder: Any) -> str:
    return posixpath.join(builder.location or "/", builder.name)


def second_name(
    group: GuardedGroup, name: str, child: Any, reason: str, error: ErrorKind = ErrorKind.EXISTS
) -> BrokenLink:
    """Return what is wrong with a name that has no place in the tree.

    Parameters
    ----------
    group : GuardedGroup
        That has the name.
    name : str
        The name in there.
    child : GroupBuilder or LinkBuilder
        What it leads to.
    reason : str
        Why, as the end of a sentence.
    error : ErrorKind
        The stable name of that.
    """
    link = link_of(group.id, group._e(name))
    target = child.builder if isinstance(child, LinkBuilder) else child
    recorded = _path(target)
    if isinstance(link, h5py.ExternalLink):
        recorded = f"{link.filename}:{link.path}"
    elif isinstance(link, h5py.SoftLink):
        recorded = str(link.path)
    return BrokenLink(
        file=group.held.name,
        name=name_of(group.held, group.id, group._e(name)),
        kind=LinkKind.EXTERNAL if isinstance(link, h5py.ExternalLink) else LinkKind.SOFT,
        target=recorded,
        reason=reason,
        error=error,
    )
