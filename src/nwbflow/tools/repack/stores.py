"""From one backend to the other, and from store to store: HDMF writes the structure, the engine the large arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pynwb
from hdmf.build import BuildManager, GroupBuilder

from nwbflow.errors import ErrorKind, NwbflowError, UnsupportedError
from nwbflow.model.receipt import Receipt
from nwbflow.model.repacked import Difference
from nwbflow.nwb.io import NWBHDF5IO
from nwbflow.nwb.stores import into_store
from nwbflow.observe.hub import Progress
from nwbflow.planning.profiles import Profile
from nwbflow.tools.repack.contents import SCHEMA, Contents
from nwbflow.tools.repack.tree import Backend

type Check = Callable[[Any], None]
"""Takes the open file, or the store's root, before it is put in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a write is run; the parameters are :func:`nwbflow.repack`'s."""

    workers: int
    memory: int
    verify: str
    progress: Progress
    overwrite: bool
    storage_options: Mapping[str, Any] | None

    def less(self, nbytes: int) -> Run:
        """Return the same in less memory: the rest is taken otherwise."""
        return replace(self, memory=max(1, self.memory - nbytes))


def manager_of(contents: Contents, backend: Backend, changed: list[Difference]) -> BuildManager:
    """Return a manager that knows the types of a file, as far as its own schema can be read.

    Parameters
    ----------
    contents : Contents
        Of the file or store.
    backend : {"HDF5", "Zarr"}
        What it is.
    changed : list of Difference
        Takes a note if the schema in it can't be read; it is copied all the same.
    """
    reader: Any = pynwb.NWBHDF5IO
    if backend == "Zarr":
        import hdmf_zarr

        reader = hdmf_zarr.NWBZarrIO
    manager: BuildManager = pynwb.get_manager()
    if SCHEMA in contents.objects["/"].attributes():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions that differ from PyNWB's own
                reader.load_namespaces(manager.namespace_catalog, contents.name)
        except Exception as error:  # whatever HDMF makes of a schema that it does not understand
            text = f"the schema in it can't be read, so rules by type know NWB's own types only ({error})"
            changed.append(Difference(place="/", text=text))
    return manager


def write_hdf5(
    root: GroupBuilder,
    path: str | Path,
    source: str,
    *,
    manager: BuildManager,
    profile: str | Profile | None,
    run: Run,
    check: Check,
) -> Receipt:
    """Write a tree as an HDF5 file.

    Parameters
    ----------
    root : GroupBuilder
        The tree.
    path : str or pathlib.Path
        The file.
    source : str
        The name by which links stay inside.
    manager : BuildManager
        Knows the types.
    profile : str, Profile or None
        Of arrays that say nothing themselves.
    run : Run
        How.
    check : callable
        Takes the file before it is put in place.

    Raises
    ------
    nwbflow.errors.NwbflowError
        What stopped it. An older file is then as it was.
    """
    with NWBHDF5IO(
        str(path),
        "w",
        manager=manager,
        profile=profile,
        workers=run.workers,
        memory=run.memory,
        verify=run.verify,
        progress=run.progress,
    ) as io:
        io.put_in_place_when_closed(drop_leftover=run.overwrite)
        io.check_before_publishing(check)
        with _refused(source, "HDF5"):
            io.write_builder(root, link_data=False, export_source=source)
    return _receipt(io)


@contextmanager
def _refused(source: str, backend: Backend) -> Iterator[None]:
    """Say what HDMF, or a library below it, does not write."""
    try:
        yield
    except NwbflowError:
        raise
    except Exception as error:
        cause = "" if error.__cause__ is None else f" ({error.__cause__})"
        refused = UnsupportedError(
            f"{source}: HDMF can't write something in it to {backend}: {error}{cause}. Nothing was put in place; take "
            "that out of a copy of the file",
            kind=ErrorKind.DTYPE,
        )
        refused.__notes__ = list(getattr(error, "__notes__", []))
        raise refused from error


def _receipt(io: Any) -> Receipt:
    receipt: Receipt | None = io.receipt
    if receipt is None:
        raise AssertionError("a write that succeeded has a receipt")
    return receipt


def write_zarr(
    root: GroupBuilder,
    path: str | Path,
    source: str,
    *,
    manager: BuildManager,
    profile: str | Profile,
    run: Run,
    check: Check,
) -> Receipt:
    """Write a tree as a Zarr store, also in an object store; the parameters are :func:`write_hdf5`'s.

    Raises
    ------
    nwbflow.errors.NwbflowError
        What stopped it. An older store on a disk is then as it was.
    """

    def put(io: Any) -> None:
        io.check_before_publishing(check)
        with _refused(source, "Zarr"):
            io.write_builder(root, link_data=False, export_source=source)

    return into_store(
        put,
        path,
        manager,
        profile=profile,
        rules=None,
        workers=run.workers,
        memory=run.memory,
        verify=run.verify,
        progress=run.progress,
        external=None,
        executor=None,
        overwrite=run.overwrite,
        storage_options=run.storage_options,
    )
