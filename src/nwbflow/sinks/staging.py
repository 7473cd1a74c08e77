"""Writing beside the target and putting the result in place in one step."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, Any

import h5py

from nwbflow.errors import ErrorKind, SettingsError, TargetError
from nwbflow.sinks.hdf5 import translated


def check_target(path: str | Path, *, overwrite: bool) -> Path:
    """Return the real path to write, or say why it can't be written.

    Parameters
    ----------
    path : str or pathlib.Path
        Where the file is to be. A symbolic link is followed: what it points to is replaced.
    overwrite : bool
        Whether a file (or the partial file of an interrupted write) may be replaced.

    Returns
    -------
    pathlib.Path
        Absolute, links resolved.

    Raises
    ------
    TargetError
        If it is a folder or no regular file, exists without `overwrite`, is open in another
        writer, or its folder is missing or can't be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise TargetError(
            f"{target} is a folder; give a file name, such as {target}/recording.nwb", kind=ErrorKind.FOLDER
        )
    if target.exists() and not target.is_file():
        raise TargetError(f"{target} is no regular file (a device or pipe); give another path", kind=ErrorKind.FOLDER)
    if not target.parent.is_dir():
        raise TargetError(f"{target.parent} does not exist; make the folder first", kind=ErrorKind.FOLDER)
    if not overwrite:
        _refuse_existing(target)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise TargetError(f"{target.parent} is read-only for you; choose another folder", kind=ErrorKind.PERMISSION)
    for file in (target, partial_path(target)):
        _refuse_locked(file)
    return target


def partial_path(target: Path) -> Path:
    """Return where a write to `target` is prepared: beside it, so that renaming is atomic."""
    return target.with_name(target.name + ".partial")


def _refuse_existing(target: Path) -> None:
    partial = partial_path(target)
    if target.exists():
        raise TargetError(f"{target} exists; pass overwrite=True to replace it", kind=ErrorKind.EXISTS)
    if partial.exists():
        raise TargetError(
            f"{partial} is left from an interrupted write; look into it (nwbflow inspect), then delete it "
            "or pass overwrite=True",
            kind=ErrorKind.EXISTS,
        )


def _refuse_locked(file: Path) -> None:
    try:
        handle = os.open(file, os.O_RDONLY)
    except OSError:
        return  # absent, or not ours to read: creating and renaming will tell
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TargetError(
            f"{file} is open in another program (or here); close it there first", kind=ErrorKind.LOCKED
        ) from error
    except OSError:
        pass  # a file system without locks
    finally:
        os.close(handle)


class StagedFile(h5py.File):  # type: ignore[misc]
    """A new HDF5 file under its partial name that answers to the name it will have.

    Parameters
    ----------
    target : pathlib.Path
        From :func:`check_target`.
    name : str
        The path as the user gave it: links to this file are made from it.
    options : mapping
        Further keyword arguments of :class:`h5py.File`.
    """

    def __init__(self, target: Path, name: str, options: dict[str, Any]) -> None:
        self._name = name
        self._target = target
        self.partial = partial_path(target)
        self.published = False
        try:
            super().__init__(self.partial, "w", **options)
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"{name} can't be created with {options}: {error}", kind=ErrorKind.OPTION) from error
        except PermissionError as error:
            raise TargetError(f"{target.parent} can't be written: {error}", kind=ErrorKind.PERMISSION) from error
        except OSError as error:
            if "read-only" in str(error).lower():
                raise TargetError(f"{target.parent} is read-only: {error}", kind=ErrorKind.PERMISSION) from error
            with translated(str(self.partial), "creating the file"):
                raise

    @property
    def filename(self) -> str:
        """The name the file will have."""
        return self._name

    def publish(self) -> None:
        """Sync the finished file to disk and put it in place of the target, in one step.

        The handle stays usable. After this, a loss of power leaves the new file whole (on a
        disk whose sync is honest); before it, the old file.
        """
        with translated(str(self.partial), "syncing to disk"):
            self.flush()
            os.fsync(self.id.get_vfd_handle())
        if self._target.exists():
            self.partial.chmod(stat.S_IMODE(self._target.stat().st_mode))
        with translated(str(self._target), "putting the new file in place"):
            self.partial.rename(self._target)
            self.published = True
            sync_folder(self._target.parent)

    def discard(self) -> None:
        """Close and remove a partial file that holds nothing worth keeping."""
        self.close()
        self.partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def abandon(file: h5py.File) -> None:
    """Close a file whose disk failed, without touching the disk again.

    HDF5 keeps what it could not write and tries again when closing, and crashes the process at
    exit when that fails too. So its descriptor is first pointed at an empty file in memory:
    closing then succeeds, and the file on disk stays as it was when the error came.
    """
    if file and file.driver == "sec2":
        with _nowhere() as spare:
            os.dup2(spare.fileno(), file.id.get_vfd_handle())
    file.close()


def _nowhere() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("nwbflow-abandoned"), "wb")
    return tempfile.TemporaryFile()
