"""The way to Zarr for those who may not have it: hdmf-zarr is imported only when a store is asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

import pynwb

from nwbflow.engine.afar import Executor
from nwbflow.errors import ErrorKind, UnsupportedError
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.containers import manager_of_guests
from nwbflow.nwb.fill import Options, Passage
from nwbflow.nwb.session import RulesLike
from nwbflow.nwb.ties import ExternalPolicy
from nwbflow.observe.hub import Progress
from nwbflow.planning.profiles import Profile
from nwbflow.sinks.folder import check_store_target
from nwbflow.sinks.staging import check_target

SUFFIX = ".zarr"
_LEAST = (0, 14)


def is_store_path(path: object) -> bool:
    """Return whether a path is the name of a Zarr store: it ends in ``.zarr``."""
    return isinstance(path, str | Path) and Path(path).name.lower().endswith(SUFFIX)


def refuse_no_path(path: object) -> None:
    """Refuse a target that is no path of a file or a folder.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        Kind ``OPTION``: a URL, a zip file, or a store object.
    """
    # pathlib.Path makes one slash of two
    if isinstance(path, str | Path) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise UnsupportedError(
            f"{path} is a URL, and nwbflow writes to paths; write to a local disk and copy the result there",
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


def check_out(path: str | Path, *, overwrite: bool) -> Path:
    """Return the real path of a file or store to be written, or say why it can't be.

    Parameters
    ----------
    path : str or pathlib.Path
        Where it is to be.
    overwrite : bool
        Whether one that is there may be replaced.

    Raises
    ------
    nwbflow.errors.TargetError, nwbflow.errors.UnsupportedError
        As for :func:`nwbflow.write`.
    """
    refuse_no_path(path)
    if not is_store_path(path):
        return check_target(path, overwrite=overwrite)
    need_zarr()
    return check_store_target(path, overwrite=overwrite)


def passage_to(path: str | Path, target: Path, options: Options) -> Passage:
    """Return what plans a write to `path` without making it.

    Parameters
    ----------
    path : str or pathlib.Path
        As given.
    target : pathlib.Path
        From :func:`check_out`.
    options : Options
        How it would be run.
    """
    if not is_store_path(path):
        return Passage(target, options, lambda _: None, target.parent)
    from nwbflow.nwb.zarr_fill import StorePassage

    return StorePassage(target, options, lambda _: None, target.parent)


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
) -> Receipt:
    """Write an NWB file as a Zarr store; the parameters are :func:`nwbflow.write`'s.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        If hdmf-zarr is missing or too old.
    nwbflow.errors.NwbflowError
        As for :func:`nwbflow.write`.
    """
    check_out(path, overwrite=overwrite)
    from nwbflow.nwb.zarr_io import NWBZarrIO

    with NWBZarrIO(
        path,
        "w",
        manager_of_guests(nwbfile),
        profile=profile,
        rules=rules,
        workers=workers,
        memory=memory,
        verify=verify,
        progress=progress,
        external=external,
        executor=executor,
    ) as io:
        io.put_in_place(overwrite=overwrite)
        io.write(nwbfile, exhaust_dci=False)
    receipt: Receipt | None = io.receipt
    if receipt is None:
        raise AssertionError("a write that succeeded has a receipt")
    return receipt
