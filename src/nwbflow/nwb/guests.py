"""Containers of other files in a builder tree: they become links, if that is what was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
from hdmf.build import DatasetBuilder, GroupBuilder, LinkBuilder

from nwbflow.errors import ErrorKind, LinkError, UnsupportedError
from nwbflow.links.targets import target_of
from nwbflow.links.virtual import files_behind
from nwbflow.nwb.candidates import datasets, path_of
from nwbflow.nwb.ties import Circumstances


def refuse_guests(root: GroupBuilder, circumstances: Circumstances) -> None:
    """Refuse whole containers of other files, unless they are to be linked: HDMF can't copy them.

    Raises
    ------
    nwbflow.errors.LinkError, nwbflow.errors.UnsupportedError
        Naming all of them.
    """
    _refuse_what_is_replaced(root, circumstances)
    links = guests(root, circumstances)
    in_stores = {name: where for name, where in links.items() if Path(where.rpartition(":")[0]).is_dir()}
    if in_stores:
        raise UnsupportedError(
            f"{circumstances.own}: these were read from Zarr stores, and an HDF5 file can't link to them:"
            + "".join(f"\n    {name}  ({where})" for name, where in in_stores.items())
            + "\nMake new containers with data=nwbflow.DataIO(old.data), or export the store they are in",
            kind=ErrorKind.FOREIGN,
        )
    if not links or circumstances.policy in (None, "link"):
        return
    found = [f"{name}  ({where})" for name, where in links.items()]
    listed = "\n    ".join([f"{circumstances.own}: these were read from other files, so they would be links:", *found])
    if circumstances.policy == "error":
        raise LinkError(f"{listed}\nPass external='link' if that is what you want", kind=ErrorKind.FOREIGN)
    raise UnsupportedError(
        f"{listed}\nA container that belongs to another file can't be copied as a whole. Make a new one, with "
        "data=nwbflow.copy(old.data), or write with external='link' and then run: nwbflow links embed",
        kind=ErrorKind.FOREIGN,
    )


def guests(root: GroupBuilder, circumstances: Circumstances) -> dict[str, str]:
    """Return the paths of links to containers of other files that HDMF is about to make, and where they lead."""
    own = {circumstances.own, circumstances.exported}
    return {
        path_of(link): f"{link.builder.source}:{path_of(link.builder)}"
        for link in links_below(root)
        if not circumstances.written(link)
        and link.builder.source is not None
        and Path(os.path.realpath(link.builder.source)) not in own
    }


def _refuse_what_is_replaced(root: GroupBuilder, circumstances: Circumstances) -> None:
    """Refuse links to containers whose data are in the file that is being replaced: they would lead nowhere."""
    if not circumstances.replaced or circumstances.exported is not None:
        return
    for link in links_below(root):
        if not circumstances.written(link) and circumstances.own in _files_of(link.builder):
            raise LinkError(
                f"{path_of(link)}: {link.builder.source}:{path_of(link.builder)} is in {circumstances.own}, the "
                "very file that is being replaced, or has data in it. Write to another name",
                kind=ErrorKind.CYCLE,
            )


def _files_of(builder: GroupBuilder | DatasetBuilder) -> Iterator[Path]:
    """Give the files in which a container that was read, and its data, lie; none for those made in memory."""
    if builder.location is None or builder.source is None:
        return
    yield Path(os.path.realpath(builder.source))
    below = datasets(builder) if isinstance(builder, GroupBuilder) else iter([builder])
    for dataset in below:
        if isinstance(dataset.data, h5py.Dataset) and dataset.data:
            target = target_of(dataset.data)
            yield target.file
            yield from files_behind(target)
    for link in links_below(builder) if isinstance(builder, GroupBuilder) else ():
        yield from _files_of(link.builder)


def links_below(group: GroupBuilder) -> Iterator[LinkBuilder]:
    """Give every link builder of a tree."""
    for child in group.groups.values():
        yield from links_below(child)
    yield from group.links.values()
