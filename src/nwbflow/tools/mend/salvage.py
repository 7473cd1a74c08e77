"""A new, sound file of everything that can be read in a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5p, h5s

from nwbflow.links.walk import DAMAGE, address
from nwbflow.model.recovery import RecoveredDataset
from nwbflow.tools.links.copying import copy_whole
from nwbflow.tools.links.elements import has_objects, read, write
from nwbflow.tools.links.recreate import copy_attribute, name_list, no_cache
from nwbflow.tools.links.references import Holder, has_own_references, like, refers, target_of, translated_into
from nwbflow.tools.mend.isolated import Say
from nwbflow.tools.mend.rows import Rows, brief, examine, is_elsewhere

SPECIFICATIONS = "/specifications"
FAULTS = (*DAMAGE, MemoryError, RecursionError, NotImplementedError, AttributeError)


@dataclass(slots=True, kw_only=True)
class Found:
    """What was found in a file, and what became of it.

    Parameters
    ----------
    datasets : list of RecoveredDataset
        Every dataset but those of the cached specifications.
    lost : list of str
        What else could not be read, with its path and why.
    notes : list of str
        What is kept, and a careful reader should know of.
    """

    datasets: list[RecoveredDataset] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Salvage:
    """Goes through a file; copies what can be read, if there is somewhere to copy to.

    Parameters
    ----------
    source : h5py.File
        The damaged file, open for reading.
    target : h5py.File or None
        An empty file; ``None`` to only look.
    skip : dict of str to str
        What is not to be touched, by path, and why: reading it crashed the process or hung.
    say : callable
        Is told of each path before it is touched.
    crashed : bool
        Whether its writer is known to have died. Else rows that were never stored are kept, as the fill value.
    """

    def __init__(
        self, source: h5py.File, target: h5py.File | None, skip: dict[str, str], say: Say, *, crashed: bool
    ) -> None:
        self._source, self._target, self._skip, self._say = source, target, skip, say
        self._crashed = crashed
        self._found = Found()
        self._paths: dict[int, str] = {}
        self._holders: list[tuple[Holder, str]] = []

    def run(self) -> Found:
        """Go through everything that hard links reach from the root.

        Raises
        ------
        OSError, RuntimeError, KeyError, ValueError, TypeError
            If not even the root group can be read, or the new file can't be written.
        """
        root = self._source["/"]
        self._paths[address(root)] = "/"
        self._attributes(root, "/")
        waiting: list[Iterator[str]] = [self._names(root, "")]
        while waiting:
            path = next(waiting[-1], None)
            if path is None:
                waiting.pop()
            elif isinstance(item := self._one(path), h5py.Group):
                waiting.append(self._names(item, path))
        for holder, path in self._holders:
            self._lead(holder, path)
        return self._found

    def _names(self, group: h5py.Group, prefix: str) -> Iterator[str]:
        self._say(prefix or "/")
        try:
            names = list(group)  # in the order in which they were made, where the file has it
        except FAULTS as error:
            self._lose(prefix or "/", f"what is in this group: {brief(error)}")
            return
        for name in names:
            yield f"{prefix}/{name}"

    def _one(self, path: str) -> Any:
        """See to one name; return the object if it is new."""
        self._say(path)
        if path in self._skip:
            self._lose(path, self._skip[path])
            return None
        parent, _, name = path.rpartition("/")
        try:
            group = self._source[parent or "/"]
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                self._link(path, link)
                return None
            item = group[name]
            first = self._paths.setdefault(address(item), path)
        except FAULTS as error:
            self._lose(path, brief(error))
            return None
        if first != path:
            if self._target is not None and first in self._target:
                self._target[path] = self._target[first]
            return None
        return self._object(item, path)

    def _link(self, path: str, link: Any) -> None:
        if self._target is not None:
            self._target[path] = link

    def _object(self, item: Any, path: str) -> Any:
        if isinstance(item, h5py.Group):
            self._group(item, path)
        elif isinstance(item, h5py.Dataset):
            if not self._dataset(item, path):
                return None
        elif self._target is not None:  # a committed type
            parent, name = self._place(path)
            copy_whole(item, parent, name)
            return item
        self._attributes(item, path)
        return item

    def _group(self, group: h5py.Group, path: str) -> None:
        if self._target is None:
            return
        parent, name = self._place(path)
        settings = h5p.create(h5p.GROUP_CREATE)  # the group's own has addresses of the old file in it
        with suppress(*FAULTS):
            old = group.id.get_create_plist()
            settings.set_link_creation_order(old.get_link_creation_order())
            settings.set_attr_creation_order(old.get_attr_creation_order())
        h5g.create(parent.id, name, name_list(name), settings)

    def _dataset(self, dataset: h5py.Dataset, path: str) -> bool:
        """Examine and copy; return whether there is something to keep."""
        try:
            rows = examine(dataset, self._say)
            rows = rows if self._crashed else self._with_unstored(rows, path)
            references = has_own_references(dataset)
        except FAULTS as error:
            self._lose(path, brief(error))
            return False
        single = dataset.shape == ()
        if single and not rows.kept:
            self._lose(path, rows.why)
            return False
        if not rows.checked:
            return self._unchecked(dataset, path, rows)
        kept = rows.kept if self._target is not None else rows.total
        self._note(path, rows, kept, elsewhere=is_elsewhere(dataset))
        if self._target is None:
            return True
        target = self._create(dataset, path, rows)
        if references:
            self._holders.append((Holder(dataset), path))
        elif dataset.shape is not None and not is_elsewhere(dataset):
            _copy(dataset, target, rows, self._say)
        return True

    def _with_unstored(self, rows: Rows, path: str) -> Rows:
        """Take rows that were never stored for what they are read as, and say so."""
        if rows.unstored and self._target is not None:
            spans = ", ".join(f"{start} to {stop - 1}" for start, stop in rows.unstored[:5])
            more = ", ..." if len(rows.unstored) > 5 else ""
            self._found.notes.append(
                f"{path}: rows {spans}{more} were never stored; they are the fill value, as before"
            )
        return replace(rows, unstored=())

    def _unchecked(self, dataset: h5py.Dataset, path: str, rows: Rows) -> bool:
        """Copy what can't be decoded here as it is, if it is whole."""
        if rows.broken or rows.unstored:
            self._lose(path, "it is damaged, and one of its filters is not installed here; install that and try again")
            return False
        if self._target is not None:
            copy_whole(dataset, *self._place(path))
        self._found.notes.append(
            f"{path}: one of its filters is not installed here; its bytes were kept as they are, and not checked"
        )
        return False

    def _note(self, path: str, rows: Rows, kept: int, *, elsewhere: bool) -> None:
        if path.startswith(SPECIFICATIONS) and not rows.broken:
            return
        if elsewhere:
            self._found.notes.append(f"{path}: its data are in other files; only how they are found is kept")
            return
        damaged = rows.damaged if self._target is not None else rows.broken
        why = rows.why if rows.broken else "these rows were never stored"
        self._found.datasets.append(
            RecoveredDataset(
                name=path,
                kept=kept,
                lost=rows.total - kept,
                damaged=damaged,
                why=why if damaged or kept < rows.total else "",
            )
        )

    def _create(self, source: h5py.Dataset, path: str, rows: Rows) -> h5py.Dataset:
        parent, name = self._place(path)
        kind, space, settings = source.id.get_type().copy(), source.id.get_space(), source.id.get_create_plist()
        if rows.kept < rows.total:
            shape = (rows.kept, *source.shape[1:])
            most = tuple(h5s.UNLIMITED if n is None else n for n in source.maxshape) if source.chunks else shape
            space = h5s.create_simple(shape, most)
        if rows.damaged and settings.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED and source.dtype.kind == "f":
            settings.set_fill_value(np.array(np.nan, source.dtype))
        return h5py.Dataset(h5d.create(parent.id, name, kind, space, settings, name_list(name), no_cache()))

    def _attributes(self, item: Any, path: str) -> None:
        try:
            count = h5a.get_num_attrs(item.id)
        except FAULTS as error:
            self._lose(path, f"its attributes: {brief(error)}")
            return
        for index in range(count):
            name = f"number {index}"
            try:
                attribute = h5a.open(item.id, index=index)
                name = item._d(attribute.name)
                self._attribute(item, attribute, name, path)
            except FAULTS as error:
                self._lose(path, f"its attribute {name}: {brief(error)}")

    def _attribute(self, item: Any, attribute: Any, name: str, path: str) -> None:
        if self._target is None:
            attribute.read(np.empty(attribute.shape, attribute.dtype)) if attribute.shape is not None else None
            return
        copy = self._target[path]
        try:
            copy_attribute(attribute, copy, str(item.name), foreign=True)
        except FAULTS:
            if attribute.name in [h5a.open(copy.id, index=n).name for n in range(h5a.get_num_attrs(copy.id))]:
                h5a.delete(copy.id, attribute.name)
            raise
        if refers(attribute.get_type(), str(item.name)):
            self._holders.append((Holder(item, name), path))

    def _lead(self, holder: Holder, path: str) -> None:
        """Store references, to where the objects are in the new file."""
        if self._target is None:
            return
        self._say(path)
        gone = 0

        def change(reference: h5py.Reference) -> h5py.Reference:
            nonlocal gone
            try:
                found = target_of(reference, self._source)
                name = None if found is None else self._paths.get(int(h5py.h5o.get_info(found).addr))
                if name is not None and self._target is not None and name in self._target:
                    return like(reference, self._source, self._target[name].id)
            except FAULTS:
                pass
            gone += 1
            return type(reference)()

        where = f"{path} (attribute {holder.attribute})" if holder.attribute else path
        try:
            translated_into(holder, self._target[path], change)
        except FAULTS as error:
            self._lose(where, f"its references: {brief(error)}")
            if holder.attribute:
                del self._target[path].attrs[holder.attribute]
        if gone:
            self._lose(where, f"{gone} references lead to what could not be read; they lead nowhere now")

    def _place(self, path: str) -> tuple[h5py.Group, bytes]:
        assert self._target is not None
        parent, _, name = path.rpartition("/")
        return self._target[parent or "/"], name.encode("utf-8", "surrogateescape")

    def _lose(self, path: str, why: str) -> None:
        self._found.lost.append(f"{path}: {why}")


def _copy(source: h5py.Dataset, target: h5py.Dataset, rows: Rows, say: Say) -> None:
    """Copy the rows that are kept: whole chunks as they are stored, all else as elements."""
    if source.shape == ():
        write(target, (), read(source, ()))
        return
    if source.chunks is None and not source.id.get_storage_size():
        return  # never stored: it has the fill value, and needs no room for that
    kept, rest = rows.kept, tuple(slice(0, n) for n in source.shape[1:])
    if source.chunks is not None and not has_objects(source.id.get_type()):
        for offset in rows.chunks:
            say("")
            _copy_chunk(source, target, offset, kept)
        return
    step = max(1, 4 * 2**20 // max(1, source.id.get_type().get_size() * int(np.prod(source.shape[1:], dtype=object))))
    at = 0
    for start, stop in [*rows.damaged, (kept, kept)]:
        for begin in range(at, start, step):
            say("")
            region = (slice(begin, min(begin + step, start)), *rest)
            write(target, region, read(source, region))
        at = stop


def _copy_chunk(source: h5py.Dataset, target: h5py.Dataset, offset: tuple[int, ...], kept: int) -> None:
    if offset[0] >= kept:
        return
    if offset[0] + source.chunks[0] <= kept or kept == source.shape[0]:
        mask, data = source.id.read_direct_chunk(offset)
        target.id.write_direct_chunk(offset, data, mask)
        return
    shape = (kept, *source.shape[1:])
    region = tuple(slice(o, min(o + c, n)) for o, c, n in zip(offset, source.chunks, shape, strict=True))
    write(target, region, read(source, region))
