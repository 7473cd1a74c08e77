"""Making the finished file out of the journal, and putting it in place."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py

from nwbflow.errors import ErrorKind, StorageError
from nwbflow.model.events import Event
from nwbflow.model.receipt import DatasetReceipt
from nwbflow.record.fold import Fold
from nwbflow.record.folder import JournalFolder, copy_synced, remove, sync_file, sync_folder
from nwbflow.record.manifest import Manifest
from nwbflow.record.reading import JournalReader
from nwbflow.sinks.hdf5 import translated

LIBVER = ("v110", "v110")
"""HDF5 file version: the oldest one whose files can be read while they are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A file that is complete and verified.

    Parameters
    ----------
    receipts : tuple of DatasetReceipt
        One for each live dataset.
    notes : tuple of str
        What a careful reader should know.
    rows, beyond : tuple of int
        Rows of each series, and rows that frames in the journal which can't be used reach to.
    damaged : bool
        Whether the journal holds something, besides what a kill interrupts, that can't be used.
    verify_seconds : float
        Time spent reading back.
    """

    receipts: tuple[DatasetReceipt, ...]
    notes: tuple[str, ...]
    rows: tuple[int, ...]
    beyond: tuple[int, ...] = ()
    damaged: bool = False
    verify_seconds: float = 0.0


def open_structure(path: Path) -> h5py.File:
    """Open a file with the structure so that live datasets can be filled, and a failing write is seen at once."""
    with translated(str(path), "opening the file"):
        return h5py.File(path, "r+", libver=LIBVER, driver="nwbflow-write-through")


def build(
    folder: JournalFolder, manifest: Manifest, path: Path, *, workers: int, emit: Callable[[Event], None]
) -> Built:
    """Make the file at `path` out of the journal alone; what was at `path` is replaced.

    Raises
    ------
    StorageError, VerifyError
        If the journal can't be read, or the file not be written.
    """
    try:
        return _build(folder, manifest, path, workers=workers, emit=emit)
    except BaseException as error:
        remove(path)  # all of it is in the journal, and its room may be needed
        if isinstance(error, StorageError) and error.kind is ErrorKind.NO_SPACE:
            raise no_room(error, str(folder.path), folder.target) from error
        raise


def no_room(error: StorageError, kept: str, target: Path) -> StorageError:
    """Return the error for a full disk, which says where everything is kept."""
    return StorageError(
        f"{error}. Everything is kept in {kept}: free some room, or make the file on another disk: "
        f"nwbflow recover {target} --output OTHER/DISK/{target.name}",
        kind=ErrorKind.NO_SPACE,
    )


def _build(
    folder: JournalFolder, manifest: Manifest, path: Path, *, workers: int, emit: Callable[[Event], None]
) -> Built:
    with translated(str(path), "copying the structure"):
        remove(path)
        copy_synced(folder.structure, path)
    reader = JournalReader(folder.path, manifest)
    fold = Fold(open_structure(path), manifest, workers=workers, emit=emit)
    try:
        while (block := reader.read()) is not None:
            fold.take(block)
    except BaseException:
        fold.abandon()
        raise
    finally:
        reader.close()
    return replace(finish(fold, path), beyond=tuple(reader.beyond), damaged=reader.damaged)


def is_intact(folder: JournalFolder, manifest: Manifest) -> bool:
    """Whether all that is in a journal can be read.

    Raises
    ------
    StorageError
        As in :func:`build`.
    """
    reader = JournalReader(folder.path, manifest)
    try:
        while reader.read() is not None:
            pass
    finally:
        reader.close()
    return not reader.damaged


def finish(fold: Fold, path: Path) -> Built:
    """Store what is left, close, open again and compare everything with what was sent.

    Raises
    ------
    StorageError, VerifyError
        If the file can't be written, or what is read back is something else.
    """
    receipts = fold.finish()
    started = time.perf_counter()
    with translated(str(path), "reading back the file"), h5py.File(path, "r") as file:
        fold.verify(file)
    return Built(
        receipts=tuple(receipts),
        notes=tuple(fold.notes()),
        rows=fold.rows,
        verify_seconds=time.perf_counter() - started,
    )


def put_in_place(path: Path, target: Path, journal: JournalFolder | None, *, damaged: bool = False) -> None:
    """Sync a finished file and rename it to its final name, which `journal` is told before (and if it is `damaged`).

    Raises
    ------
    StorageError
        If the system refuses one of the steps.
    """
    with translated(str(path), "syncing to disk"):
        sync_file(path)
        if target.exists():
            path.chmod(stat.S_IMODE(target.stat().st_mode))
        if journal is not None:
            journal.announce(path, damaged=damaged)
    with translated(str(target), "putting the new file in place"):
        path.rename(target)
        sync_folder(target.parent)
