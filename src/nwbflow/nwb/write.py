"""The short way: one call, one file, one receipt."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pynwb

from nwbflow.engine.afar import Executor
from nwbflow.model.address import is_address
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.containers import manager_of_guests
from nwbflow.nwb.io import NWBHDF5IO
from nwbflow.nwb.parts import scout
from nwbflow.nwb.sending import Sending, plan_sending
from nwbflow.nwb.session import RulesLike
from nwbflow.nwb.stores import is_store_path, refuse_no_path, refuse_settings_of_others, write_store
from nwbflow.nwb.ties import ExternalPolicy
from nwbflow.observe.hub import Progress
from nwbflow.parallel import Ranks
from nwbflow.planning.memory import parse_bytes
from nwbflow.planning.profiles import Profile
from nwbflow.sinks.staging import check_target


def write(
    nwbfile: pynwb.NWBFile,
    path: str | Path,
    *,
    profile: str | Profile = "default",
    rules: RulesLike = None,
    workers: int | None = None,
    memory: str | int | None = None,
    verify: str = "stored",
    progress: Progress = True,
    external: ExternalPolicy = "error",
    executor: Executor | Ranks | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    staging: str | Path | None = None,
) -> Receipt:
    """Write an NWB file: large arrays compressed in parallel, verified, and put in place in one step.

    Generators and HDMF's row iterators are drained side by side, each in a thread of its own, so that a slow one
    holds nobody. Two that share a file handle or other state must be made safe for that, or written through
    :class:`NWBHDF5IO`, which drains one after another. Arrays, raw files and ``GenericDataChunkIterator`` are
    always read in the calling thread.

    Parameters
    ----------
    nwbfile : pynwb.NWBFile
        What to write; not changed, and may be written again.
    path : str or pathlib.Path
        Where to; a symbolic link is followed. A name that ends in ``.zarr`` becomes a Zarr v3 store, a folder, with
        large arrays in shards; all else an HDF5 file. The Zarr store needs ``nwbflow[zarr]``. Addresses in an object
        store need ``nwbflow[s3]``. A Zarr store, ``s3://bucket/x.nwb.zarr``, is sent as its data come, its root's
        metadata last, so that no reader finds it before it is whole. An HDF5 file, ``s3://bucket/x.nwb``, is made
        and verified in `staging`, and then sent in parts that become the object in one step. What an interrupted
        call had sent is not sent again.
    profile : str or Profile
        ``"default"`` (gzip any reader opens, as small as level 4), ``"fast"`` (up to 7% larger, much faster),
        ``"archive"`` (smaller, with checksums), ``"cloud"`` (chunks and metadata laid out for remote reading). In
        Zarr they are Blosc with sorted bits.
    rules : mapping, path or Rules, optional
        Settings by place in the file or neurodata type; a YAML or JSON file.
    workers : int, optional
        Encoding threads; as many as there are cores by default.
    memory : int or str, optional
        What large arrays may take on their way, in bytes or as ``"512 MiB"``; by default 1 GiB, or a quarter of
        what is free if that is less.
    verify : {"stored", "full", "no"}
        Stored bytes against their checksum, decoded values against what was sent, or nothing.
    progress : bool, callable or sequence of callables
        ``True`` shows a progress bar (nothing where there is no terminal or notebook); a callable gets every event.
    external : {"error", "link", "copy"}
        What becomes of data of other files (open h5py datasets, containers read from another file) that come without
        :func:`link` or :func:`copy`. A link is checked against what the container says of it.
    executor : Executor or Ranks, optional
        Who computes and encodes arrays instead of threads of this process: :func:`nwbflow.parallel.dask`. Streams
        stay here. With :func:`nwbflow.parallel.mpi`, all ranks call this together.
    overwrite : bool
        Whether a file at `path`, or what an interrupted write left beside it (or in `staging`), may be replaced. An
        old Zarr store in an object store, which can't rename, is gone when the first object is sent.
    storage_options : mapping, optional
        Settings of the object store: what ``obstore.store.from_url`` takes, such as ``endpoint``, ``region`` or
        ``client_options``. What is not in them comes from the environment (``AWS_...``).
    staging : str or pathlib.Path, optional
        Folder on a disk with room, where an HDF5 file for an object store is made, and kept until it is sent. Without
        it, the folder for temporary files, if twice as much as the arrays take before filters is free there.

    Returns
    -------
    Receipt
        Sizes, times, codecs and checks for each large array; printable.

    Raises
    ------
    nwbflow.errors.NwbflowError
        What stopped it, with dataset, place and way out. An older file at `path` is then as it was.
    """
    if isinstance(executor, Ranks):
        alone = partial(
            write,
            nwbfile,
            path,
            profile=profile,
            rules=rules,
            workers=workers,
            memory=memory,
            verify=verify,
            progress=progress,
            external=external,
            overwrite=overwrite,
            storage_options=storage_options,
            staging=staging,
        )
        return executor.together(partial(scout, nwbfile), lambda ranks: alone(executor=ranks), workers)
    refuse_no_path(path)
    refuse_settings_of_others(path, storage_options, staging)
    sending: Sending | None = None
    if is_store_path(path):
        return write_store(
            nwbfile,
            path,
            profile=profile,
            rules=rules,
            workers=workers,
            memory=memory,
            verify=verify,
            progress=progress,
            external=external,
            executor=executor,
            overwrite=overwrite,
            storage_options=storage_options,
        )
    if is_address(path):
        room = parse_bytes(memory)
        sending = plan_sending(str(path), storage_options or {}, staging, overwrite=overwrite, room=room)
    else:
        check_target(path, overwrite=overwrite)
    with (
        contextlib.nullcontext(path) if sending is None else sending.prepared() as target,
        NWBHDF5IO(
            target,
            "w",
            manager=manager_of_guests(nwbfile),
            profile=profile,
            rules=rules,
            workers=workers,
            memory=memory,
            verify=verify,
            progress=progress,
            external=external,
            executor=executor,
        ) as io,
    ):
        if sending is None:
            io.put_in_place_when_closed(drop_leftover=overwrite)
        else:
            io.send_when_closed(sending)
        io.write(nwbfile, exhaust_dci=False)
    receipt: Receipt | None = io.receipt
    if receipt is None:
        raise AssertionError("a write that succeeded has a receipt")
    return receipt
