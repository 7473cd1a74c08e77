"""What embedding comes to, object by object, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import h5py
import numpy as np
from h5py import h5d, h5i, h5o

from nwbflow.errors import LinkError, NwbflowError
from nwbflow.links.problems import BrokenLink
from nwbflow.links.resolve import Found, Spot, name_of
from nwbflow.links.survey import LinkType, Seen, Survey
from nwbflow.links.walk import walk
from nwbflow.model.links import LinkKind
from nwbflow.tools.links.choosing import Chosen
from nwbflow.tools.links.fit import difference
from nwbflow.tools.links.references import Holder, address_of, holders_of, references, target_of
from nwbflow.tools.links.reports import Embedded

type Key = tuple[tuple[int, int], int]
"""What tells an object from all others: device and inode of its file, and its address in there."""

type NodeKind = Literal["group", "dataset", "mapped", "local", "type", "soft", "hard"]
"""``mapped`` is a virtual or raw dataset of another file, ``local`` one of the file itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One name that is to be made.

    Parameters
    ----------
    path : str
        Where, in the file.
    kind : {"group", "dataset", "mapped", "local", "type", "soft", "hard"}
        What.
    file, name : str
        Where the object is now: the name of its file, its path in there. Empty for links.
    to : str
        Of links: the path they lead to.
    nbytes : int
        What it takes in the file.
    """

    path: str
    kind: NodeKind
    file: str = ""
    name: str = ""
    to: str = ""
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    holder: str
    key: Key
    leads_to: str
    object_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Soft:
    """A soft link in an embedded group: what becomes of it depends on what else is embedded."""

    path: str
    key: Key
    file: str
    name: str
    object_id: str
    own: bool
    is_dataset: bool


@dataclass(slots=True)
class EmbedPlan:
    """What is to be done.

    Parameters
    ----------
    nodes : list of Node
        Groups before what is in them.
    replaced : list of str
        Paths of the links that are taken out first.
    embedded : list of Embedded
        What is reported.
    paths : dict
        Where each object that is referred to, or linked to, is or will be in the file.
    """

    nodes: list[Node] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    embedded: list[Embedded] = field(default_factory=list)
    paths: dict[Key, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that the elements will take."""
        return sum(node.nbytes for node in self.nodes)


def plan_embedding(survey: Survey, only: Sequence[str], wrong: list[str], *, force: bool) -> EmbedPlan:
    """Return what embedding comes to.

    Parameters
    ----------
    survey : Survey
        Of the file.
    only : sequence of str
        Patterns of the paths to embed; none means all.
    wrong : list of str
        Takes what can't be embedded, and why.
    force : bool
        Whether targets that are not what was linked are embedded all the same.
    """
    planner = _Planner(survey, wrong)
    chosen = Chosen(only)
    for seen in survey.links():
        path = seen.member.path
        if seen.kind is LinkKind.SOFT or not chosen(path):
            continue
        place = None if seen.end is None else (seen.end.held.name, name_of(seen.end.held, seen.end.id))
        trouble = _trouble(seen, survey, force=force)
        if trouble or place is None:
            wrong.append(trouble if seen.problem is not None else f"{path}: {trouble}")
        else:
            planner.add(seen, survey.again(*place))  # comparing may have closed it
    wrong += survey.problems
    wrong += chosen.missed()
    planner.finish()
    return planner.plan


def _trouble(seen: Seen, survey: Survey, *, force: bool) -> str:
    if seen.problem is not None:
        return str(seen.problem)
    if seen.note and seen.kind is LinkKind.EXTERNAL:  # those of the group's other links stay in it
        return seen.note
    return "" if force else difference(seen, survey, "embed")


class _Planner:
    """Collects nodes."""

    def __init__(self, survey: Survey, wrong: list[str]) -> None:
        self.plan = EmbedPlan()
        self._survey = survey
        self._wrong = wrong
        self._references: list[_Reference] = []
        self._softs: list[_Soft] = []
        self._ids: dict[str, str] | None = None

    def add(self, seen: Seen, end: Spot) -> None:
        """Plan one link, virtual or raw dataset of the file itself, and what is at its end."""
        path, before = seen.member.path, self.plan.nbytes
        self.plan.replaced.append(path)
        source = f"{end.held.name}:{name_of(end.held, end.id)}"
        same_as = ""
        if seen.kind is not LinkKind.EXTERNAL:
            source = ", ".join(dict.fromkeys(part.key for part in seen.parts))
            nbytes = _element_bytes(h5py.Dataset(end.id))
            self.plan.nodes.append(Node(path=path, kind="local", file=end.held.name, name=path, nbytes=nbytes))
        else:
            same_as = self._link(path, end)
        self.plan.embedded.append(
            Embedded(path=path, kind=seen.kind, source=source, same_as=same_as, nbytes=self.plan.nbytes - before)
        )

    def _link(self, path: str, end: Spot) -> str:
        """Plan what a link to another file leads to; return the path of what is there already."""
        known = name_of(end.held, end.id) if end.held is self._survey.main else self.plan.paths.get(end.key, "")
        if known:
            self.plan.nodes.append(Node(path=path, kind="soft", to=known))
            return known
        self._object(path, end)
        return ""

    def _object(self, path: str, spot: Spot) -> None:
        """Plan an object and everything in it, without recursion: depth is the file's choice."""
        self.plan.paths[spot.key] = path
        waiting = [(path, spot)]
        while waiting:
            at, here = waiting.pop()
            problem = self._survey.judged(here)
            if problem is not None:
                self._wrong.append(str(problem))
                continue
            self._node(at, here)
            if h5i.get_type(here.id) in (h5i.GROUP, h5i.FILE):
                found = [self._member(f"{at}/{name}", kind, end) for name, kind, end in self._survey.members(here)]
                waiting += reversed([item for item in found if item is not None])  # to come off in order

    def _member(self, path: str, kind: LinkType, end: Found) -> tuple[str, Spot] | None:
        """Plan a name in an embedded group; return what is to be embedded under it."""
        if not isinstance(end, Spot):
            self._wrong.append(str(end) if isinstance(end, BrokenLink) else f"{path} is gone")
            return None
        if kind == "soft":
            self._softs.append(self._soft(path, end))
            return None
        own = end.held is self._survey.main
        known = name_of(end.held, end.id) if own else self.plan.paths.get(end.key, "")
        if known:
            self.plan.nodes.append(Node(path=path, kind="hard" if kind == "hard" else "soft", to=known))
            return None
        self.plan.paths[end.key] = path
        return path, end

    def _soft(self, path: str, end: Spot) -> _Soft:
        return _Soft(
            path=path,
            key=end.key,
            file=end.held.name,
            name=name_of(end.held, end.id),
            object_id=_object_id(end.id),
            own=end.held is self._survey.main,
            is_dataset=h5i.get_type(end.id) == h5i.DATASET,
        )

    def _node(self, path: str, spot: Spot) -> None:
        file, name = spot.held.name, name_of(spot.held, spot.id)
        kind, nbytes = _kind_and_size(spot)
        self.plan.nodes.append(Node(path=path, kind=kind, file=file, name=name, nbytes=nbytes))
        item = item_of(spot.id)
        try:
            for holder in holders_of(item):
                self._note_references(holder, item, spot)
        except (NwbflowError, OSError, RuntimeError, ValueError, TypeError) as error:
            self._wrong.append(f"{file}:{name}: its references can't be read: {error}")

    def _note_references(self, holder: Holder, item: Any, spot: Spot) -> None:
        where = f"{spot.held.name}:{holder}"
        for reference in references(holder):
            target = target_of(reference, item)
            if target is None:
                self._wrong.append(f"{where} has a reference to an object that is gone")
                return
            self._references.append(
                _Reference(
                    holder=where,
                    key=(spot.held.identity, address_of(target)),
                    leads_to=name_of(spot.held, target),
                    object_id=_object_id(target),
                )
            )

    def finish(self) -> None:
        """Plan soft links and references, now that it is known what is embedded."""
        for soft in self._softs:
            self._finish_soft(soft)
        wrong: dict[str, None] = {}
        for reference in self._references:
            if reference.key in self.plan.paths:
                continue
            path = self._path_of_id(reference.object_id)
            if path:
                self.plan.paths[reference.key] = path
            else:
                wrong[
                    f"{reference.holder} refers to {reference.leads_to}, which is not embedded with it, and which this "
                    "file doesn't have (no object of its object_id); link that too, or bundle instead: nwbflow links "
                    "bundle FILE FOLDER"
                ] = None
        self._wrong += wrong
        self._survey.let_go()

    def _finish_soft(self, soft: _Soft) -> None:
        path = soft.name if soft.own else self.plan.paths.get(soft.key) or self._path_of_id(soft.object_id)
        if path:
            self.plan.nodes.append(Node(path=soft.path, kind="soft", to=path))
        elif soft.is_dataset:
            try:
                self._object(soft.path, self._survey.again(soft.file, soft.name))
            except LinkError as error:
                self._wrong.append(str(error))
        else:
            self._wrong.append(
                f"{soft.path} would be a link to {soft.file}:{soft.name}, a group that is not embedded with it, and "
                "which this file doesn't have (no object of its object_id)"
            )

    def _path_of_id(self, object_id: str) -> str:
        """Return the path of the object of the file itself that has an object_id; empty if none has."""
        if not object_id:
            return ""
        if self._ids is None:
            self._ids = {}
            for member in walk(self._survey.file, []):
                if member.kind in ("group", "dataset"):
                    self._ids.setdefault(_object_id(member.item.id), member.path)
        return self._ids.get(object_id, "")


def _kind_and_size(spot: Spot) -> tuple[NodeKind, int]:
    kind = h5i.get_type(spot.id)
    if kind == h5i.DATATYPE:
        return "type", 0
    if kind != h5i.DATASET:
        return "group", 0
    created = spot.id.get_create_plist()
    if created.get_layout() == h5d.VIRTUAL or created.get_external_count():
        return "mapped", _element_bytes(h5py.Dataset(spot.id))
    return "dataset", int(spot.id.get_storage_size())


def _element_bytes(dataset: h5py.Dataset) -> int:
    return 0 if dataset.shape is None else math.prod(dataset.shape) * int(dataset.id.get_type().get_size())


def item_of(identifier: Any) -> Any:
    """Return h5py's object for an identifier.

    Parameters
    ----------
    identifier : h5py ObjectID
        Of a dataset, committed type, group or file.
    """
    kind = h5i.get_type(identifier)
    if kind == h5i.DATASET:
        return h5py.Dataset(identifier)
    if kind == h5i.DATATYPE:
        return h5py.Datatype(identifier)
    return h5py.Group(h5o.open(identifier, b".") if kind == h5i.FILE else identifier)


def _object_id(identifier: Any) -> str:
    """Return the object_id that NWB gives every typed object; empty if there is none."""
    try:
        value = item_of(identifier).attrs.get("object_id", "")
    except (OSError, RuntimeError, ValueError, TypeError):
        return ""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size == 1 else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
