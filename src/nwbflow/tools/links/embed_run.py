"""Carrying out an embedding in an open file."""

from __future__ import annotations

from typing import Any

import h5py
from h5py import h5d, h5g, h5o, h5p, h5s

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.problems import misplaced
from nwbflow.links.records import ATTRIBUTE, drop_record
from nwbflow.links.resolve import Spot
from nwbflow.links.survey import Survey, encoded, raw_parts, virtual_parts
from nwbflow.model.layout import Filter
from nwbflow.model.links import LinkKind
from nwbflow.sinks.hdf5 import filters_of
from nwbflow.tools.links.copying import (
    Blocks,
    Elements,
    RawBytes,
    StoredChunks,
    Stretch,
    can_be_filtered,
    copy_whole,
    create_like,
    verify_copy,
)
from nwbflow.tools.links.embed_plan import EmbedPlan, Node, item_of
from nwbflow.tools.links.recreate import copy_attributes, name_list, no_cache, put_in_place, room, with_fill_value
from nwbflow.tools.links.references import (
    address_of,
    has_own_references,
    holders_of,
    like,
    target_of,
    translated_into,
)


class Embedding:
    """Makes what was planned, and verifies it.

    Parameters
    ----------
    plan : EmbedPlan
        What to make.
    """

    def __init__(self, plan: EmbedPlan) -> None:
        self._plan = plan
        self._copied: list[tuple[str, Blocks, bytes]] = []
        self._referring: list[Node] = []

    def run(self, file: h5py.File, survey: Survey) -> None:
        """Change a copy of the file.

        Parameters
        ----------
        file : h5py.File
            The copy, open for writing.
        survey : Survey
            Of the file itself.
        """
        self._local(file, survey)
        for path in self._plan.replaced:
            parent = file[_parent(path)]
            if isinstance(parent.get(_name(path), getlink=True), h5py.ExternalLink):
                del parent[_name(path)]
                drop_record(parent, _name(path))
        before = ""
        for node in self._plan.nodes:
            if node.kind in ("group", "dataset", "mapped", "type"):
                if node.file != before:  # of many files, not all can be open
                    survey.let_go()
                before = node.file
                self._object(node, file, survey)
        for node in self._plan.nodes:
            if node.kind in ("soft", "hard"):
                file[_parent(node.path)][_name(node.path)] = (
                    h5py.SoftLink(node.to) if node.kind == "soft" else file[node.to]
                )
        for node in self._referring:
            survey.let_go()
            self._lead(node, file, survey)

    def verify(self, file: h5py.File) -> None:
        """Read back what was copied.

        Parameters
        ----------
        file : h5py.File
            The finished copy, opened anew.

        Raises
        ------
        nwbflow.errors.VerifyError
            If it is not what was read from the sources.
        """
        for path, blocks, digest in self._copied:
            verify_copy(blocks, file[path], digest)

    def _local(self, file: h5py.File, survey: Survey) -> None:
        """Make virtual and raw datasets of the file itself anew."""
        nodes = [node for node in self._plan.nodes if node.kind == "local"]
        if not nodes:
            return
        with room(file) as group:
            new: dict[str, h5py.Dataset] = {}
            for node in nodes:
                old = file[node.path]
                made = self._plain(node, survey, group, str(len(group)).encode(), old.id.get_type())
                copy_attributes(old, made, leave_out=(ATTRIBUTE,))
                new[node.path] = made
            put_in_place(file, new)

    def _object(self, node: Node, file: h5py.File, survey: Survey) -> None:
        spot = survey.again(node.file, node.name)
        parent, name = file[_parent(node.path)], encoded(_name(node.path))
        source = item_of(spot.id)
        if node.kind == "type":
            h5o.copy(spot.id, b".", parent.id, name, h5p.create(h5p.OBJECT_COPY), name_list(name))
        elif node.kind == "dataset" and not can_be_filtered(source):
            copy_whole(source, parent, name)
            file[node.path].attrs.pop(ATTRIBUTE, None)
            self._copied.append((node.path, StoredChunks(source), StoredChunks(source).digest(source)))
        else:
            if node.kind == "group":
                made: Any = h5py.Group(h5g.create(parent.id, name, name_list(name), _like_group(source)))
            elif node.kind == "mapped":
                kind = survey.dataset(spot).id.get_type().copy()
                del source, spot  # while it is open, HDF5 opens it in no other way
                made = self._plain(node, survey, parent, name, kind)
                source = survey.dataset(survey.again(node.file, node.name))  # that may have closed it
            else:
                made = self._ordinary(node, source, parent, name)
            copy_attributes(source, made, leave_out=(ATTRIBUTE,), foreign=True)
        if next(iter(holders_of(source)), None) is not None:
            self._referring.append(node)

    def _ordinary(self, node: Node, source: h5py.Dataset, parent: h5py.Group, name: bytes) -> h5py.Dataset:
        made, blocks = create_like(source, parent, name)
        if blocks is not None and not has_own_references(source):
            self._copied.append((node.path, blocks, blocks.copy(made)))
        return made

    def _plain(self, node: Node, survey: Survey, parent: h5py.Group, name: bytes, kind: Any) -> h5py.Dataset:
        """Make an ordinary dataset of a virtual or raw one, without attributes."""
        layout = _like_sources(node, survey)
        spot = survey.again(node.file, node.name)
        source = survey.dataset(spot)
        virtual = source.id.get_create_plist().get_layout() == h5d.VIRTUAL
        settings = with_fill_value(source)
        if layout is not None:
            _lay_out(settings, source, layout)
        shape = tuple(int(n) for n in source.shape)
        longest = source.maxshape if settings.get_layout() == h5d.CHUNKED else shape
        space = h5s.create(h5s.SCALAR)
        if shape:
            space = h5s.create_simple(shape, tuple(h5s.UNLIMITED if n is None else int(n) for n in longest))
        made = h5py.Dataset(h5d.create(parent.id, name, kind, space, settings, name_list(name), no_cache()))
        blocks = Elements(source) if virtual else RawBytes(_stretches(source, spot, survey))
        self._copied.append((node.path, blocks, blocks.copy(made)))
        return made

    def _lead(self, node: Node, file: h5py.File, survey: Survey) -> None:
        """Store what refers to other objects, led to where those are now."""
        spot = survey.again(node.file, node.name)
        item = item_of(spot.id)

        def change(reference: h5py.Reference) -> h5py.Reference:
            target = target_of(reference, item)
            path = self._plan.paths[spot.held.identity, address_of(target)]
            return like(reference, item, file[path].id)

        for holder in holders_of(item):
            translated_into(holder, file[node.path], change)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _like_group(group: h5py.Group) -> Any:
    """Return a property list for a group that keeps the same orders. HDF5's own copy would have the old addresses."""
    old, new = group.id.get_create_plist(), h5p.create(h5p.GROUP_CREATE)
    new.set_link_creation_order(old.get_link_creation_order())
    new.set_attr_creation_order(old.get_attr_creation_order())
    return new


def _stretches(dataset: h5py.Dataset, spot: Spot, survey: Survey) -> list[Stretch]:
    found = []
    for part in raw_parts(dataset):
        place = survey.place(part, LinkKind.RAW, spot.held.name)
        if place.path is None:
            raise LinkError(misplaced(place), kind=place.kind or ErrorKind.MISSING)
        found.append(Stretch(place.path, part.offset, part.nbytes))
    return found


def _like_sources(node: Node, survey: Survey) -> tuple[tuple[int, ...], Any] | None:
    """Return chunks and property list of a virtual dataset's sources, if those are all alike."""
    spot = survey.again(node.file, node.name)
    created = spot.id.get_create_plist()
    if created.get_layout() != h5d.VIRTUAL:
        return None
    layouts: set[tuple[tuple[int, ...] | None, tuple[Filter, ...]]] = set()
    example = None
    for part in list(virtual_parts(created)):
        if part.numbered:
            return None
        source = h5py.Dataset(survey.end_of(part, LinkKind.VIRTUAL, survey.again(node.file, node.name).held).id)
        example = source.id.get_create_plist()
        layouts.add((source.chunks, filters_of(example)))
        survey.let_go()  # of many sources, not all can be open
    if len(layouts) != 1 or example is None:
        return None
    ((chunks, _),) = layouts
    return None if chunks is None else (chunks, example)


def _lay_out(settings: Any, dataset: h5py.Dataset, layout: tuple[tuple[int, ...], Any]) -> None:
    """Give what becomes of a virtual dataset the chunks and filters of its sources, where they fit."""
    chunks, example = layout
    if len(chunks) != len(dataset.shape) or not all(dataset.shape):
        return
    lengths = zip(chunks, dataset.shape, dataset.maxshape, strict=True)
    settings.set_chunk(tuple(int(c) if m is None else min(int(c), int(n)) for c, n, m in lengths))
    for index in range(example.get_nfilters()):
        number, flags, options, _ = example.get_filter(index)
        settings.set_filter(number, flags, options)
