"""Files and stores written anew: other chunks, codecs, profiles, or the other backend."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pynwb

from nwbflow.errors import ErrorKind, SettingsError, TargetError
from nwbflow.links.files import open_file
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.fill import check_verify
from nwbflow.nwb.session import RulesLike
from nwbflow.nwb.stores import check_out, is_store_path, need_zarr
from nwbflow.observe.hub import Progress
from nwbflow.planning.profiles import Profile, get_profile
from nwbflow.planning.rules import Rules
from nwbflow.tools.repack.compare import Comparison
from nwbflow.tools.repack.contents import Contents
from nwbflow.tools.repack.hdf5_contents import hdf5_contents
from nwbflow.tools.repack.report import Repacked
from nwbflow.tools.repack.storage import Wishes
from nwbflow.tools.repack.stores import Run, manager_for, write_hdf5, write_zarr
from nwbflow.tools.repack.tree import Tree

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
    progress: Progress = False,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Repacked:
    run = Run(
        workers=workers,
        memory=memory,
        verify=check_verify(verify),
        progress=progress,
        overwrite=overwrite,
        storage_options=storage_options,
    )
    source = "Zarr" if Path(path).is_dir() else "HDF5"
    target = "Zarr" if is_store_path(out) else "HDF5"
    wishes = Wishes(None if profile is None else get_profile(profile), Rules.load(rules), source, target)
    check_out(out, overwrite=overwrite)
    with _opened(str(path), source) as contents:
        name = str(Path(os.path.realpath(path)))
        tree = Tree(contents, target, name, lambda item: item.raw)
        root = tree.build()
        reader: Any = pynwb.NWBHDF5IO
        if source == "Zarr":
            from hdmf_zarr import NWBZarrIO
            reader = NWBZarrIO
        manager = manager_for(str(path), reader)
        wishes.dress(root, contents, manager)
        comparisons = []

        def check(made: Any) -> None:
            if target == "HDF5":
                result = hdf5_contents(made, str(out))
            else:
                from nwbflow.tools.repack.zarr_contents import zarr_contents
                result = zarr_contents(made, str(out))
            comparison = Comparison(contents, result, {one.place for one in tree.lost}, set())
            comparison.run()
            comparisons.append(comparison)
        if target == "HDF5":
            receipt = write_hdf5(root, out, name, manager, run, check)
        else:
            receipt = write_zarr(root, out, name, manager, profile or "default", run, check)
    c = comparisons[0]
    return Repacked(path=Path(out), receipt=receipt, lost=(*tree.lost, *c.lost), changed=(*wishes.changed, *c.changed), objects=c.objects, attributes=c.attributes, elements=c.elements, raw_copied=0)


@contextlib.contextmanager
def _opened(path, source):
    if source == "HDF5":
        with open_file(path) as file:
            yield hdf5_contents(file, path)
    else:
        import zarr
        from nwbflow.tools.repack.zarr_contents import zarr_contents
        yield zarr_contents(zarr.open_group(path, mode="r"), path)
