"""Files and stores written anew: other chunks, codecs, profiles, or the other backend."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.model.address import is_address
from nwbflow.model.receipt import Receipt
from nwbflow.model.repacked import Difference, Repacked
from nwbflow.nwb.fill import check_verify, count_workers
from nwbflow.nwb.session import RulesLike
from nwbflow.nwb.stores import check_out, is_store_path
from nwbflow.observe.hub import Progress
from nwbflow.planning.memory import parse_bytes
from nwbflow.planning.profiles import Profile, get_profile
from nwbflow.planning.rules import Rules
from nwbflow.tools.repack.compare import Comparison
from nwbflow.tools.repack.contents import Contents
from nwbflow.tools.repack.damage import damage_named
from nwbflow.tools.repack.hdf5_contents import hdf5_contents
from nwbflow.tools.repack.hdf5_files import rewrite_hdf5
from nwbflow.tools.repack.opening import embedded, opened, outside, refuse_itself, refuse_linked, refuse_outside
from nwbflow.tools.repack.storage import BANDS_SHARE, Wishes
from nwbflow.tools.repack.stores import Run, manager_of, write_hdf5, write_zarr
from nwbflow.tools.repack.tree import Backend, Tree

_SORTED = "names in it are in the order of the alphabet now"

type Links = Literal["keep", "embed"]


def repack(
    path: str | Path,
    out: str | Path,
    *,
    profile: str | Profile | None = None,
    rules: RulesLike = None,
    links: Links = "keep",
    workers: int | None = None,
    memory: str | int | None = None,
    verify: str = "stored",
    progress: Progress = True,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Repacked:
    """Write an NWB file or Zarr store anew: with other chunks or codecs, or in the other backend.

    Within a backend, chunks that stay as they are are copied without decoding them; between HDF5 files everything else
    (attributes, object ids, references, links, text, tables, what PyNWB doesn't know) is copied as it is stored, too.
    To and from Zarr stores, HDMF and hdmf-zarr write the structure. Large arrays go through nwbflow's engine in any
    case, in parallel and in bounded memory. Before the result appears, it is compared with the source, object by
    object: what the other backend has no place for, or another form, is listed in what is returned.

    Parameters
    ----------
    path : str or pathlib.Path
        The file or store; it is only read.
    out : str or pathlib.Path
        The new one: a Zarr store if the name ends in ``.zarr``, also at an address (``s3://...``), else an HDF5 file.
    profile : str or Profile, optional
        Codec and chunks of large arrays, as in :func:`nwbflow.write`. Without it, chunks and codecs are the source's,
        as far as the other backend has them; stores get shards.
    rules : mapping, path or Rules, optional
        Settings by place or neurodata type, which go before profile and source.
    links : {"keep", "embed"}
        What becomes of links to other files, virtual datasets and those in raw files: the same in the new file, which
        only HDF5 files can have, or copies of what they lead to. These are made in a file beside `out` first.
    workers, memory, verify, progress, overwrite, storage_options
        As in :func:`nwbflow.write`. Text, and tables with references or text, are held in memory one at a time besides.

    Returns
    -------
    Repacked
        What was stored, what is lost, and what has another form; printable.

    Raises
    ------
    nwbflow.errors.NwbflowError
        What is wrong with the request, the source or the target, or what stopped it. What was at `out` is then as it
        was.
    """
    if links not in ("keep", "embed"):
        raise SettingsError(f"links={links!r}: give 'keep' or 'embed'", kind=ErrorKind.OPTION)
    memory = parse_bytes(memory)
    run = Run(
        workers=count_workers(workers),
        memory=memory,
        verify=check_verify(verify),
        progress=progress,
        overwrite=overwrite,
        storage_options=storage_options,
    )
    source: Backend = "Zarr" if not is_address(path) and Path(path).is_dir() else "HDF5"
    target: Backend = "Zarr" if is_store_path(out) or is_address(out) else "HDF5"
    room = memory // BANDS_SHARE
    wishes = Wishes(None if profile is None else get_profile(profile), Rules.load(rules), source, target, room)
    refuse_itself(path, out)
    if not is_address(out):
        check_out(out, overwrite=overwrite)
    with _not_too_deep(path), opened(path, source) as contents:
        leads_out = bool(outside(contents))
        if leads_out and source == "HDF5":
            refuse_linked(path, out)
        if not (leads_out and links == "embed" and source == "HDF5"):
            if not wishes.same_hdf5:
                refuse_outside(contents, source, target)
            return _Task(contents, out, wishes, run).run()
    with _not_too_deep(path), embedded(path, out, overwrite=overwrite) as whole, opened(whole, source) as contents:
        return _Task(contents, out, wishes, run).run()


@contextmanager
def _not_too_deep(path: str | Path) -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise UnsupportedError(
            f"{path} has groups inside each other to a depth that HDMF does not take", kind=ErrorKind.CYCLE
        ) from error


@dataclass(slots=True)
class _Task:
    """One source on its way.

    Parameters
    ----------
    contents : Contents
        Of the source, which is open.
    out : str or pathlib.Path
        Where to.
    wishes : Wishes
        What was asked for.
    asked : Run
        How it is run.
    """

    contents: Contents
    out: str | Path
    wishes: Wishes
    asked: Run
    lost: tuple[Difference, ...] = ()
    comparison: Comparison | None = None

    def run(self) -> Repacked:
        """Do it."""
        if self.wishes.source == "HDF5":
            self._look_at_file(self.contents.objects["/"].raw)
        manager = manager_of(self.contents, self.wishes.source, self.wishes.changed)
        with damage_named(self.contents, self.wishes.moved):
            if self.wishes.same_hdf5:
                receipt = rewrite_hdf5(
                    self.contents, Path(self.out), self.wishes, manager=manager, asked=self.asked, check=self.check
                )
            else:
                receipt = self._through_hdmf(manager)
        done = self.comparison
        if done is None:
            raise AssertionError("a write that succeeded was compared")
        return Repacked(
            path=receipt.path,
            receipt=replace(receipt, notes=(*self.wishes.notes, *receipt.notes)),
            lost=(*self.lost, *done.lost),
            changed=(*self.wishes.changed, *done.changed),
            objects=done.objects,
            attributes=done.attributes,
            elements=done.elements,
            raw_copied=sum(dataset.encoded_by == "its source" for dataset in receipt.datasets),
        )

    def _look_at_file(self, root: Any) -> None:
        """Note what an HDF5 file has around its contents, and no result has."""
        if root.file.userblock_size:
            text = f"left out: {root.file.userblock_size} bytes that are no HDF5, in front of the file (user block)"
            self.lost = (Difference(place="/", text=text),)
        if root.id.get_create_plist().get_link_creation_order():
            self.wishes.changed.append(Difference(place="/", text=_SORTED))

    def _through_hdmf(self, manager: Any) -> Receipt:
        wishes = self.wishes
        for path, item in self.contents.objects.items():
            group: Any = item.raw
            in_file = wishes.source == "HDF5" and item.kind is None and path != "/"
            if in_file and group.id.get_create_plist().get_link_creation_order():
                wishes.changed.append(Difference(place=path, text=_SORTED))
        name = os.path.realpath(self.contents.name)
        tree = Tree(self.contents, wishes.target, name)
        root = tree.build()
        self.lost += tuple(tree.lost)
        wishes.dress(root, manager)
        wishes.tell(self.contents)
        run = self.asked.less(wishes.kept_bytes)
        if wishes.target == "HDF5":
            return write_hdf5(root, self.out, name, manager=manager, profile=wishes.profile, run=run, check=self.check)
        profile = wishes.profile if wishes.profile is not None else "default"
        return write_zarr(root, self.out, name, manager=manager, profile=profile, run=run, check=self.check)

    def check(self, made: Any) -> None:
        """Compare what was made with the source, before it is put in place."""
        result = _contents_of(made, str(self.out))
        told = {one.place for one in self.lost}
        self.comparison = Comparison(self.contents, result, told, self.wishes.moved)
        self.comparison.run()


def _contents_of(made: Any, name: str) -> Contents:
    if hasattr(made, "store"):
        from nwbflow.tools.repack.zarr_contents import zarr_contents

        return zarr_contents(made, name)
    return hdf5_contents(made, name)
