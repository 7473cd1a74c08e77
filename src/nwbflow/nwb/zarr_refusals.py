"""What can't be in a Zarr store: links, and data that stay in other files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import zarr
from hdmf.build import GroupBuilder
from hdmf.data_utils import DataIO as HdmfDataIO

from nwbflow.errors import ErrorKind, LinkError, SettingsError, UnsupportedError
from nwbflow.nwb.candidates import datasets, path_of
from nwbflow.nwb.external import LinkedData
from nwbflow.nwb.guests import links_below
from nwbflow.nwb.mapping import MappedData

POLICIES = (None, "error", "copy")


def check_store_policy(policy: object) -> None:
    """Refuse what ``external=`` can't be for a Zarr store.

    Raises
    ------
    UnsupportedError
        For ``"link"``.
    SettingsError
        If it is no policy.
    """
    if policy == "link":
        raise UnsupportedError(
            "external='link': links from a Zarr store are not supported yet; pass external='copy', or write an "
            "HDF5 file",
            kind=ErrorKind.FOREIGN,
        )
    if policy not in POLICIES:
        raise SettingsError(f"external={policy!r}: give 'error' or 'copy'", kind=ErrorKind.OPTION)


def refuse_other_files(
    root: GroupBuilder, own: str, exported: str | None, policy: str | None, written: Callable[[Any], bool]
) -> None:
    """Refuse links and data of other files that a Zarr store can't have, or that nobody asked for.

    Parameters
    ----------
    root : GroupBuilder
        What is about to be written.
    own : str
        The store.
    exported : str or None
        The file it is exported from.
    policy : {None, "error", "copy"}
        What becomes of data of other files that come without a word.
    written : callable
        Whether a builder is in the store already.

    Raises
    ------
    UnsupportedError
        Naming every dataset that is to be a link or to stay where it is.
    LinkError
        Naming every dataset and container of another file, if they are to be refused.
    """
    linked, foreign = _found(root, written)
    if linked:
        raise UnsupportedError(
            f"{own}: a Zarr store can't link to data in other files yet:"
            + "".join(f"\n    {name}  ({where})" for name, where in linked.items())
            + "\nUse nwbflow.copy(...) or nwbflow.raw(...) in their place, or write an HDF5 file",
            kind=ErrorKind.FOREIGN,
        )
    guests = _guests(root, own, exported, written)
    in_hdf5 = {name: where for name, (source, where) in guests.items() if Path(source).is_file()}
    if in_hdf5:
        raise UnsupportedError(
            f"{own}: these were read from HDF5 files, and a Zarr store can't link to them:"
            + "".join(f"\n    {name}  ({where})" for name, where in in_hdf5.items())
            + "\nMake new containers with data=nwbflow.copy(old.data), or export the file they are in",
            kind=ErrorKind.FOREIGN,
        )
    if guests and policy == "copy" and exported is None:  # hdmf-zarr would link them
        raise UnsupportedError(
            f"{own}: these were read from other stores, and containers can't be copied as a whole:"
            + "".join(f"\n    {name}  ({where})" for name, (_, where) in guests.items())
            + "\nMake new ones with data=nwbflow.DataIO(old.data), or export the store they are in; "
            "nwbflow.NWBZarrIO without external= links them",
            kind=ErrorKind.FOREIGN,
        )
    refused = {} if policy != "error" or exported is not None else foreign | {n: w for n, (_, w) in guests.items()}
    if refused:
        raise LinkError(
            f"{own}: these belong to other files:"
            + "".join(f"\n    {name}  ({where})" for name, where in refused.items())
            + "\nSay what is to become of them: nwbflow.copy(data) for data of HDF5 files, nwbflow.DataIO(data) for "
            "those of stores, external='copy' for both; containers must be made anew with such data",
            kind=ErrorKind.FOREIGN,
        )


def _found(root: GroupBuilder, written: Callable[[Any], bool]) -> tuple[dict[str, str], dict[str, str]]:
    """Return datasets to be links, and those whose data are open datasets of other files, with where they are."""
    linked: dict[str, str] = {}
    foreign: dict[str, str] = {}
    for builder in datasets(root):
        given = builder.data
        data = given.data if isinstance(given, HdmfDataIO) else given
        if written(builder):
            continue
        if isinstance(data, LinkedData):
            linked[path_of(builder)] = str(data.target)
        elif isinstance(data, MappedData):
            linked[path_of(builder)] = data.where()
        elif isinstance(given, h5py.Dataset) and given:
            foreign[path_of(builder)] = f"{given.file.filename}:{given.name}"
        elif isinstance(given, zarr.Array):
            foreign[path_of(builder)] = f"{given.store}:{given.name}"
    return linked, foreign


def _guests(
    root: GroupBuilder, own: str, exported: str | None, written: Callable[[Any], bool]
) -> dict[str, tuple[str, str]]:
    """Return links to containers of other files: path, file, and file and path."""
    ours = {os.path.realpath(path) for path in (own, exported) if path is not None}
    return {
        path_of(link): (str(link.builder.source), f"{link.builder.source}:{path_of(link.builder)}")
        for link in links_below(root)
        if not written(link) and link.builder.source is not None and os.path.realpath(link.builder.source) not in ours
    }
