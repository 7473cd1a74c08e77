"""From HDF5 to HDF5: everything but the large arrays is copied as it is stored; nothing passes through HDMF."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
from h5py import h5d, h5g, h5o, h5p
from hdmf.build import DatasetBuilder, GroupBuilder

from nwbflow.links.names import SAME_FILE
from nwbflow.links.survey import encoded, raw_parts, virtual_parts
from nwbflow.model.links import LinkKind
from nwbflow.nwb.layouts import Storage
from nwbflow.nwb.reservations import Reservation
from nwbflow.sinks.hdf5 import translated
from nwbflow.tools.links.copying import Blocks, can_be_filtered, copy_whole, create_like, verify_copy
from nwbflow.tools.links.recreate import copy_attributes, name_list
from nwbflow.tools.links.references import has_own_references, holders_of, like, target_of, translated_into
from nwbflow.tools.links.rewrite import Renaming, rename
from nwbflow.tools.repack.contents import Contents, Item
from nwbflow.tools.repack.hdf5_contents import UNKNOWN


def numbers(contents: Contents, source: str) -> GroupBuilder:
    """Return a tree of the datasets alone, with what tells their types: to decide how they are stored.

    Parameters
    ----------
    contents : Contents
        Of an HDF5 file.
    source : str
        Its name.
    """
    builders: dict[str, Any] = {}
    for path, item in contents.objects.items():
        name = posixpath.basename(path) or "root"
        held = item.attributes() if _typed(item.raw) else {}
        said = {key: str(held[key].data[()]) for key in ("neurodata_type", "namespace") if key in held}
        if item.kind is None:
            builders[path] = GroupBuilder(name, source=source, attributes=said)
        elif item.kind.sort in ("number", "bool") and item.shape and not item.elsewhere:
            builders[path] = DatasetBuilder(name, data=item.raw, source=source, attributes=said)
        else:
            continue
        if path != "/":
            parent = builders[posixpath.dirname(path)]
            builders[path].location = posixpath.dirname(path)
            if item.kind is None:
                parent.set_group(builders[path])
            else:
                parent.set_dataset(builders[path])
    root: GroupBuilder = builders["/"]
    return root


def _typed(item: Any) -> bool:
    return "neurodata_type" in item.attrs


@dataclass(slots=True)
class Copy:
    """A file copied object by object.

    Parameters
    ----------
    contents : Contents
        Of the source.
    source, target : pathlib.Path
        Where it is, and where the copy is going to be.
    storages : mapping of str to Storage
        How datasets are to be stored that the engine fills, by path.
    """

    contents: Contents
    source: Path
    target: Path
    storages: Mapping[str, Storage]
    reservations: list[Reservation] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)
    _copied: list[tuple[str, Blocks, bytes]] = field(default_factory=list)

    def structure(self, file: h5py.File) -> None:
        """Make everything in the new file; datasets that the engine fills stay empty.

        Raises
        ------
        nwbflow.errors.StorageError
            If the disk fails.
        """
        with translated(str(self.target), "writing the structure"):
            second = []
            for path in self._paths_in_order():
                if path in self.contents.objects:
                    self._object(file, path, self.contents.objects[path])
                elif path not in self.contents.links:
                    _copy_type(self._old(path), file[posixpath.dirname(path)], posixpath.basename(path))
                elif self.contents.links[path].sort == "hard":
                    second.append(path)
                else:
                    self._link(file, path)
            for path in second:
                self._link(file, path)
            for path, item in self.contents.objects.items():
                self._references(file, path, item.raw)
            for path in self.contents.types:
                self._references(file, path, self._old(path))
            if self.source.parent != self.target.parent and self.mapped:
                rename(file, list(self._renamings()))

    def _paths_in_order(self) -> Iterator[str]:
        """Give all paths, groups before what is in them, names in the order in which the source keeps them."""
        waiting = ["/"]
        while waiting:
            path = waiting.pop()
            yield path
            item = self.contents.objects.get(path)
            if item is not None and item.kind is None:
                names: Any = item.raw
                waiting += [f"{path.rstrip('/')}/{name}" for name in reversed(list(names))]

    def verify(self, file: h5py.File) -> None:
        """Read back what was copied as it was.

        Raises
        ------
        nwbflow.errors.VerifyError
            If it is not what was read from the source.
        """
        for path, blocks, digest in self._copied:
            verify_copy(blocks, file[path], digest)

    def _old(self, path: str) -> Any:
        return self.contents.objects["/"].raw[path]  # type: ignore[index]

    def _object(self, file: h5py.File, path: str, item: Item) -> None:
        old: Any = item.raw
        if path == "/":
            copy_attributes(old, file["/"], foreign=True)
            return
        parent, name = file[posixpath.dirname(path)], encoded(posixpath.basename(path))
        if not isinstance(old, h5py.Dataset):
            new: Any = h5py.Group(h5g.create(parent.id, name, name_list(name), _like(old)))
        elif path in self.storages:
            new = self._reserved(parent, name, self.storages[path])
        elif item.elsewhere or not can_be_filtered(old) or item.kind == UNKNOWN:
            self.mapped += [path] if item.elsewhere else []
            copy_whole(old, parent, name)
            return
        else:
            new, blocks = create_like(old, parent, name)
            if blocks is not None and not has_own_references(old):
                self._copied.append((path, blocks, blocks.copy(new)))
        copy_attributes(old, new, foreign=True)

    def _reserved(self, parent: h5py.Group, name: bytes, storage: Storage) -> h5py.Dataset:
        reservation = Reservation(storage)
        made = parent.create_dataset(name, **storage.create)
        reservation.dataset = made
        self.reservations.append(reservation)
        return made

    def _link(self, file: h5py.File, path: str) -> None:
        parent, name = file[posixpath.dirname(path)], posixpath.basename(path)
        link = self.contents.links[path]
        if link.sort == "hard":
            parent[name] = file[link.to]
            return
        old = self._old(posixpath.dirname(path)).get(name, getlink=True)
        if isinstance(old, h5py.ExternalLink):
            self.mapped.append(path)
        parent[name] = old

    def _references(self, file: h5py.File, path: str, old: Any) -> None:
        paths = self._paths()

        def change(reference: h5py.Reference) -> h5py.Reference:
            target = target_of(reference, old)
            found = None if target is None else paths.get(int(h5o.get_info(target).addr))
            return h5py.Reference() if found is None else like(reference, old, file[found].id)

        for holder in holders_of(old):
            translated_into(holder, file[path], change)

    def _paths(self) -> Mapping[int, str]:
        return self.contents.objects["/"].paths  # type: ignore[attr-defined, no-any-return]

    def _renamings(self) -> Iterator[Renaming]:
        for path in self.mapped:
            link = self.contents.links.get(path)
            if link is not None:
                old = self._old(posixpath.dirname(path)).get(posixpath.basename(path), getlink=True)
                yield Renaming(path=path, kind=LinkKind.EXTERNAL, names=self._names([str(old.filename)]))
                continue
            dataset = self._old(path)
            created = dataset.id.get_create_plist()
            virtual = created.get_layout() == h5d.VIRTUAL
            parts = virtual_parts(created) if virtual else raw_parts(dataset)
            kind = LinkKind.VIRTUAL if virtual else LinkKind.RAW
            yield Renaming(path=path, kind=kind, names=self._names([part.file for part in parts]))

    def _names(self, files: Sequence[str]) -> Mapping[str, str]:
        """Return the names of files as they are to be recorded in the new file's folder."""
        away = os.path.relpath(self.source.parent, self.target.parent)
        return {
            name: name if name in ("", SAME_FILE) or posixpath.isabs(name) or "://" in name else f"{away}/{name}"
            for name in files
        }


def _like(group: h5py.Group) -> Any:
    """Return a property list for a group that keeps the same orders."""
    old, new = group.id.get_create_plist(), h5p.create(h5p.GROUP_CREATE)
    new.set_link_creation_order(old.get_link_creation_order())
    new.set_attr_creation_order(old.get_attr_creation_order())
    return new


def _copy_type(old: Any, parent: h5py.Group, name: str) -> None:
    h5o.copy(old.id, b".", parent.id, encoded(name), h5p.create(h5p.OBJECT_COPY), name_list(encoded(name)))
