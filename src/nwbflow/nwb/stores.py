"""The way to Zarr for those who may not have it: hdmf-zarr is imported only when a store is asked for."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pynwb
from hdmf.build import BuildManager

from nwbflow.engine.afar import Executor
from nwbflow.errors import ErrorKind, PlanError, SettingsError, UnsupportedError
from nwbflow.model.address import Address, is_address
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.containers import manager_of_guests, refuse_read_from
from nwbflow.nwb.fill import Options, Passage
from nwbflow.nwb.sending import plan_sending
from nwbflow.nwb.session import RulesLike
from nwbflow.nwb.ties import ExternalPolicy
from nwbflow.observe.hub import Progress
from nwbflow.planning.memory import format_bytes, parse_bytes
from nwbflow.planning.profiles import Profile
from nwbflow.sinks.folder import check_store_target
from nwbflow.sinks.remote import SCHEMES
from nwbflow.sinks.staging import check_target

SUFFIX = ".zarr"
UPLOADS_SHARE = 4
"""One part in so many of the memory is for objects on their way to an object store."""

_LEAST = (0, 14)


def is_store_path(path: object) -> bool:
    """Return whether a path is the name of a Zarr store: it ends in ``.zarr``."""
    return isinstance(path, str | Path) and Path(path).name.lower().endswith(SUFFIX)


def refuse_no_path(path: object) -> None:
    """Refuse a target that is no path of a file or a folder.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        Kind ``OPTION``: a URL that is no object store's, a zip file, or a store object.
    """
    # pathlib.Path makes one slash of two
    url = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path)) if isinstance(path, str | Path) else None
    if url is not None and not (is_address(path) and url[1] in SCHEMES):
        raise UnsupportedError(
            f"{path} is a URL, and nwbflow writes to paths and, given as text (str), to addresses of object stores, "
            "such as s3://bucket/session.nwb.zarr; write to a local disk and copy the result there",
            kind=ErrorKind.OPTION,
        )
    if isinstance(path, str | Path) and Path(path).name.lower().endswith(f"{SUFFIX}.zip"):
        raise UnsupportedError(
            f"{path}: stores in zip files are not written; write to {Path(path).stem}, and zip that",
            kind=ErrorKind.OPTION,
        )
    if not isinstance(path, str | bytes | os.PathLike):
        raise UnsupportedError(
            f"a {type(path).__name__} is no path; nwbflow.NWBZarrIO(store, 'w', profile='default') writes to Zarr's "
            "store objects, in place",
            kind=ErrorKind.OPTION,
        )


def refuse_settings_of_others(
    path: str | Path, storage_options: Mapping[str, Any] | None, staging: str | Path | None
) -> None:
    """Refuse settings that have no meaning for a target.

    Raises
    ------
    nwbflow.errors.SettingsError
        Kind ``OPTION``.
    """
    if storage_options is not None and not is_address(path):
        raise SettingsError(
            f"{path} is a path, and storage_options are for addresses such as s3://bucket/session.nwb.zarr; leave them "
            "away",
            kind=ErrorKind.OPTION,
        )
    if staging is not None and (not is_address(path) or is_store_path(path)):
        raise SettingsError(
            f"{path} is made in its place, and staging= is for HDF5 files that are sent to an object store, such as "
            "s3://bucket/session.nwb; leave it away",
            kind=ErrorKind.OPTION,
        )


def missing_zarr() -> str | None:
    """Return why Zarr stores can't be used here; ``None`` if they can."""
    try:
        version = importlib.metadata.version("hdmf-zarr")
    except importlib.metadata.PackageNotFoundError:
        return 'Zarr stores need hdmf-zarr, which is not installed: pip install "nwbflow[zarr]"'
    found = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if found < _LEAST:
        return (
            f"Zarr stores need hdmf-zarr 0.14 or newer, which writes Zarr v3; here is {version}: "
            'pip install "nwbflow[zarr]" (into an environment of its own if others need the older one)'
        )
    return None


def zarr_class() -> type:
    """Return :class:`nwbflow.nwb.zarr_io.NWBZarrIO`, or a class that says what is missing when it is used."""
    if missing_zarr() is not None:
        return _Missing
    loaded: type = importlib.import_module("nwbflow.nwb.zarr_io").NWBZarrIO
    return loaded


def need_zarr() -> None:
    """Raise where Zarr stores can't be used.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        Kind ``PLUGIN``, with the way out.
    """
    if missing_zarr() is not None:
        raise _unsupported()


def check_out(path: str | Path, *, overwrite: bool, staging: str | Path | None = None) -> Path:
    """Return the real path of a file or store to be written, or say why it can't be.

    Parameters
    ----------
    path : str or pathlib.Path
        Where it is to be.
    overwrite : bool
        Whether one that is there may be replaced.
    staging : str or pathlib.Path, optional
        Where an HDF5 file for an object store is to be made.

    Raises
    ------
    nwbflow.errors.TargetError, nwbflow.errors.UnsupportedError
        As for :func:`nwbflow.write`.
    """
    refuse_no_path(path)
    refuse_settings_of_others(path, None, staging)
    if is_address(path) and not is_store_path(path):
        return plan_sending(str(path), {}, staging, overwrite=overwrite, room=0).address
    if is_address(path):
        _uploads(str(path), {}, overwrite=overwrite, room=0)
        return Address(str(path))
    if not is_store_path(path):
        return check_target(path, overwrite=overwrite)
    need_zarr()
    return check_store_target(path, overwrite=overwrite)


def passage_to(path: str | Path, target: Path, options: Options, staging: str | Path | None = None) -> Passage:
    """Return what plans a write to `path` without making it.

    Parameters
    ----------
    path : str or pathlib.Path
        As given.
    target : pathlib.Path
        From :func:`check_out`.
    options : Options
        How it would be run.
    staging : str or pathlib.Path, optional
        Where an HDF5 file for an object store would be made.
    """
    if is_address(path) and not is_store_path(path):
        sending = plan_sending(str(path), {}, staging, overwrite=True, room=0)
        return Passage(target, options, lambda _: None, sending.local.parent.parent, sending=sending)
    if not is_store_path(path):
        return Passage(target, options, lambda _: None, target.parent)
    from nwbflow.nwb.zarr_fill import StorePassage

    return StorePassage(target, options, lambda _: None, None if is_address(path) else target.parent)


class _Says(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _unsupported()


class _Missing(metaclass=_Says):
    """Stands for a class that needs hdmf-zarr where there is none."""

    def __new__(cls, *_: object, **__: object) -> _Missing:
        raise _unsupported()


def _unsupported() -> UnsupportedError:
    return UnsupportedError(missing_zarr() or "hdmf-zarr is there now; import nwbflow anew", kind=ErrorKind.PLUGIN)


def write_store(
    nwbfile: pynwb.NWBFile,
    path: str | Path,
    *,
    profile: str | Profile,
    rules: RulesLike,
    workers: int | None,
    memory: str | int | None,
    verify: str,
    progress: Progress,
    external: ExternalPolicy,
    executor: Executor | None,
    overwrite: bool,
    storage_options: Mapping[str, Any] | None,
) -> Receipt:
    """Write an NWB file as a Zarr store; the parameters are :func:`nwbflow.write`'s.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        If hdmf-zarr is missing or too old.
    nwbflow.errors.NwbflowError
        As for :func:`nwbflow.write`.
    """
    if is_address(path):
        refuse_read_from(nwbfile, str(path))

    def put(io: Any) -> None:
        io.write(nwbfile, exhaust_dci=False)

    return into_store(
        put,
        path,
        manager_of_guests(nwbfile),
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


def into_store(
    put: Callable[[Any], None],
    path: str | Path,
    manager: BuildManager | None,
    *,
    profile: str | Profile,
    rules: RulesLike,
    workers: int | None,
    memory: str | int | None,
    verify: str,
    progress: Progress,
    external: ExternalPolicy,
    executor: Executor | None,
    overwrite: bool,
    storage_options: Mapping[str, Any] | None,
) -> Receipt:
    """Make a new Zarr store; the parameters are :func:`nwbflow.write`'s but for the first and third.

    Parameters
    ----------
    put : callable
        Writes into the :class:`nwbflow.NWBZarrIO` it is given.
    manager : BuildManager or None
        What knows the types, and has read other stores that are linked.

    Raises
    ------
    nwbflow.errors.NwbflowError
        As for :func:`nwbflow.write`.
    """
    target: Any = path
    room = 0
    if is_address(path):
        allowed = parse_bytes(memory)
        room = allowed // UPLOADS_SHARE
        memory = allowed - room
        target = _remote_store(_uploads(str(path), storage_options or {}, overwrite=overwrite, room=room))
    else:
        check_out(path, overwrite=overwrite)
    from nwbflow.nwb.zarr_io import NWBZarrIO

    with (
        _share_said(room),
        NWBZarrIO(
            target,
            "w",
            manager,
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
        io.put_in_place(overwrite=overwrite)
        put(io)
    receipt: Receipt | None = io.receipt
    if receipt is None:
        raise AssertionError("a write that succeeded has a receipt")
    return receipt


def _uploads(url: str, options: Mapping[str, Any], *, overwrite: bool, room: int) -> Any:
    """Return what sends a store to an address, or say why it can't go there; nothing is changed."""
    if not is_store_path(url):
        raise UnsupportedError(
            f"{url}: only a Zarr store can be made there, under a name that ends in .zarr; make an HDF5 file on a "
            f"disk, and send it: nwbflow upload FILE {url}",
            kind=ErrorKind.OPTION,
        )
    need_zarr()
    if importlib.util.find_spec("obstore") is None:
        raise UnsupportedError(
            f'{url}: writing to object stores needs obstore, which is not installed: pip install "nwbflow[s3]"',
            kind=ErrorKind.PLUGIN,
        )
    from nwbflow.sinks.remote import Place
    from nwbflow.sinks.uploads import Uploads

    return Uploads(Place(url, options), overwrite=overwrite, room=room)


def _remote_store(uploads: Any) -> Any:
    from nwbflow.sinks.remote_store import RemoteStore

    return RemoteStore(uploads)


@contextlib.contextmanager
def _share_said(room: int) -> Iterator[None]:
    try:
        yield
    except PlanError as error:
        if room and error.kind is ErrorKind.MEMORY:
            error.add_note(f"besides, {format_bytes(room)} of memory= are kept for what is on its way to the server")
        raise
