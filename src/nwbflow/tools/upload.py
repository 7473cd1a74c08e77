"""Finished files to object stores: what was not sent yet, and no more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from nwbflow.errors import ErrorKind, SourceError, TargetError
from nwbflow.model.address import Address
from nwbflow.model.events import RunFailed, RunFinished, RunStarted
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.fill import check_verify
from nwbflow.nwb.sending import local_path, open_place
from nwbflow.observe.hub import Hub, Progress, make_observers
from nwbflow.planning.memory import parse_bytes
from nwbflow.sinks.file_upload import FileUpload, hold
from nwbflow.sinks.occupied import refuse_recording


def upload(
    file: str | Path,
    url: str,
    *,
    memory: str | int | None = None,
    verify: str = "stored",
    progress: Progress = True,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Receipt:
    """Send a finished HDF5 file to S3, in parts that become the object in one step.

    What an interrupted call had sent, also one of :func:`nwbflow.write`, is recognised by its checksums and not sent
    again.

    Parameters
    ----------
    file : str or pathlib.Path
        The file. It is only read; but one that :func:`nwbflow.write` had made for this address, and could not send, is
        removed when it is there.
    url : str
        Where to, such as ``s3://bucket/session.nwb``.
    memory : int or str, optional
        What parts on their way may take, in bytes or as ``"512 MiB"``.
    verify : {"stored", "full", "no"}
        Whether what is there is compared with what was sent: by the server's tag, or, where that says nothing of the
        content, by reading it back (not with ``"no"``).
    progress : bool, callable or sequence of callables
        As in :func:`nwbflow.write`.
    overwrite : bool
        Whether an object that is there may be replaced. It stays until the new one is there whole.
    storage_options : mapping, optional
        As in :func:`nwbflow.write`.

    Returns
    -------
    Receipt
        What was sent.

    Raises
    ------
    nwbflow.errors.NwbflowError
        What stopped it. Nothing has changed at `url` then; the same call goes on.
    """
    path = Path(file).absolute()
    level = check_verify(verify)
    room = parse_bytes(memory)
    _refuse_unfinished(path)
    place = open_place(url, storage_options or {})
    address = Address(url)
    hub = Hub(make_observers(progress))
    started = time.perf_counter()
    with hub:
        hub.emit(RunStarted(path=address, datasets=(), raw_bytes=None, workers=0))
        try:
            sent = FileUpload(place, path, overwrite=overwrite, room=room, emit=hub.emit).run(verify=level != "no")
        except BaseException as error:
            error.add_note(f"{path} is as it was. What was sent is kept in the store for the same call, which goes on")
            hub.emit(RunFailed(path=address, partial=None, error=f"{type(error).__name__}: {error}"))
            raise
        notes = list(hub.problems)
        if path == local_path(path.parent.parent, url):
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
            notes.append(f"{path}, made for this address by an earlier call, was removed")
        receipt = Receipt(
            path=address,
            datasets=(),
            seconds=time.perf_counter() - started,
            verified=level,
            notes=tuple(notes),
            sent=sent,
        )
        hub.emit(RunFinished(receipt=receipt))
    return receipt


def _refuse_unfinished(path: Path) -> None:
    """Refuse what is no whole HDF5 file: what an interrupted write left, a recording, something else."""
    if not path.is_file():
        raise SourceError(f"{path} is no file; give the HDF5 file that is to be sent", kind=ErrorKind.MISSING)
    refuse_recording(path)
    if path.name.endswith(".partial"):
        raise SourceError(
            f"{path} is what an interrupted write left, and not whole; write it again, or make a whole file of it: "
            f"nwbflow recover {path}",
            kind=ErrorKind.INTERRUPTED,
        )
    try:
        with path.open("rb") as opened:
            hold(opened.fileno(), path)
            h5py.File(path, "r").close()
    except TargetError:
        raise
    except OSError as error:
        raise SourceError(
            f"{path} does not open as an HDF5 file, so it is not sent ({error}). If a program died while it wrote it: "
            f"nwbflow recover {path}",
            kind=ErrorKind.NOT_HDF5,
        ) from error
