"""Writing a folder beside the target and putting it in its place in one step."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nwbflow.errors import ErrorKind, TargetError
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.occupied import is_locked, journal_path
from nwbflow.sinks.permitted import refuse_no_folder, refuse_protected
from nwbflow.sinks.staging import check_length, free_name, leftover_path, partial_path

_STORE_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_HERE = -100  # AT_FDCWD
_SYNCERS = 8


def replaced_path(target: Path) -> Path:
    """Return the name under which what was replaced lies while it is being removed.

    What has this name is removed without asking, so it is one that nobody gives to a folder.
    """
    return target.with_name(target.name + ".replaced-by-nwbflow")


def is_store(path: Path) -> bool:
    """Return whether a folder is a Zarr store, of whatever version, or is empty."""
    return any((path / name).is_file() for name in _STORE_FILES) or not any(path.iterdir())


def check_store_target(path: str | Path, *, overwrite: bool, force: bool = False) -> Path:
    """Return the real path to write a store to, or say why it can't be written.

    Parameters
    ----------
    path : str or pathlib.Path
        Where the folder is to be. A symbolic link is followed: what it points to is replaced.
    overwrite : bool
        Whether a store (or the partial folder of an interrupted write) may be replaced.
    force : bool
        Whether also a file, or a folder that is no Zarr store, may be.

    Returns
    -------
    pathlib.Path
        Absolute, links resolved.

    Raises
    ------
    TargetError
        If it is a file or a folder of something else, exists without `overwrite`, is being written, its name is too
        long, or the folder it goes into is missing or can't be written.
    """
    target = Path(os.path.realpath(path))
    if not target.name:
        raise TargetError(f"{target} can't be a Zarr store; give a name in it", kind=ErrorKind.FOLDER)
    partial = partial_path(target)
    check_length(target, max(leftover_path(target), replaced_path(target), key=lambda path: len(path.name)))
    refuse_no_folder(target)
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise TargetError(
            f"{partial}, where the store is prepared, is a link or a file; remove it", kind=ErrorKind.EXISTS
        )
    if journal_path(target).exists():
        raise TargetError(
            f"{journal_path(target)} holds the data of a recording; finish it first: nwbflow recover {target}",
            kind=ErrorKind.EXISTS,
        )
    _check_what_is_there(target, overwrite=overwrite, force=force)
    refuse_protected(target)
    if partial.exists() and is_locked(partial):
        raise being_written(partial)
    return target


def being_written(partial: Path) -> TargetError:
    """Return the error for a path that another write is under way to."""
    return TargetError(
        f"{partial} is being written by another program (or here); let that end first, or give another path",
        kind=ErrorKind.LOCKED,
    )


def _check_what_is_there(target: Path, *, overwrite: bool, force: bool) -> None:
    if target.exists() and not target.is_dir() and not force:
        raise TargetError(
            f"{target} is a file, and a Zarr store is a folder; remove it, or give another name", kind=ErrorKind.EXISTS
        )
    if target.is_dir() and not force and not is_store(target):
        raise TargetError(
            f"{target} is a folder with something else in it than a Zarr store, so it is not replaced; give a new "
            f"name, such as {target / 'recording.nwb.zarr'}",
            kind=ErrorKind.FOLDER,
        )
    if overwrite:
        return
    if target.exists():
        raise TargetError(f"{target} exists; pass overwrite=True to replace it", kind=ErrorKind.EXISTS)
    if partial_path(target).exists():
        raise TargetError(
            f"{partial_path(target)} is left from an interrupted write; look into it, then delete it or pass "
            "overwrite=True",
            kind=ErrorKind.EXISTS,
        )
    if replaced_path(target).exists():
        raise TargetError(
            f"{replaced_path(target)} is the store that was {target.name} until a write was killed as it replaced it; "
            "rename it back, or pass overwrite=True to replace it",
            kind=ErrorKind.EXISTS,
        )


class StagedFolder:
    """A folder under its partial name that is going to take the place of the target.

    Parameters
    ----------
    target : pathlib.Path
        From :func:`check_store_target`.
    overwrite : bool
        Whether what is at the target when this one is put in place may be replaced.

    Raises
    ------
    TargetError
        Kind ``PERMISSION``: the folder can't be made. Kind ``LOCKED``: another write has begun meanwhile.
    """

    def __init__(self, target: Path, *, overwrite: bool = True) -> None:
        self.target = target
        self.overwrite = overwrite
        self.partial = partial_path(target)
        self.published = False
        if self.partial.exists() and is_locked(self.partial):
            raise being_written(self.partial)
        _sweep(target)
        self.leftover = free_name(leftover_path(target)) if self.partial.exists() else None
        try:
            if self.leftover is not None:
                self.partial.rename(self.leftover)
            self.partial.mkdir()
        except PermissionError as error:
            raise TargetError(f"{target.parent} can't be written: {error}", kind=ErrorKind.PERMISSION) from error
        except FileExistsError as error:
            raise TargetError(f"{self.partial} was taken by another write", kind=ErrorKind.LOCKED) from error
        except OSError as error:
            with translated(str(self.partial), "making the folder"):
                raise error
        self._guard: int | None = os.open(self.partial, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def publish(self) -> None:
        """Sync all files and folders to disk, and put the folder in place of the target.

        Where the system can exchange two names (Linux), the target is there at any time, as the old or the new one.

        Raises
        ------
        StorageError
            If syncing or renaming fails.
        TargetError
            If another write has taken the partial folder meanwhile, or if, without `overwrite`, something has been
            put at the target.
        """
        self._refuse_newcomer()
        with translated(str(self.partial), "syncing to disk"):
            self._check_still_ours()
            sync_tree(self.partial)
        if self.target.is_dir():
            self.partial.chmod(stat.S_IMODE(self.target.stat().st_mode))
        with translated(str(self.target), "putting the new store in place"):
            self._check_still_ours()
            self._refuse_newcomer()
            old = self._exchange()
        self.published = True
        self.let_go()
        with translated(str(self.target.parent), "syncing the folder (the new store is in place)"):
            _sync(self.target.parent)
        if old is not None:
            _remove(old)

    def _exchange(self) -> Path | None:
        """Give the new one the target's name; return where the old one is now."""
        if not self.target.exists():
            self.partial.rename(self.target)
            return None
        old = replaced_path(self.target)
        if _swap(self.partial, self.target):
            self.partial.rename(old)
            return old
        self.target.rename(old)
        try:
            self.partial.rename(self.target)
        except BaseException:
            old.rename(self.target)
            raise
        return old

    def _refuse_newcomer(self) -> None:
        if not self.overwrite and self.target.exists():
            raise TargetError(
                f"{self.target} was made by another program while this one wrote, so it is not replaced. The new "
                f"store is whole in {self.partial}: rename it",
                kind=ErrorKind.EXISTS,
            )

    def _check_still_ours(self) -> None:
        try:
            ours = self._guard is not None and os.path.samestat(self.partial.stat(), os.fstat(self._guard))
        except FileNotFoundError:
            ours = False
        if not ours:
            raise TargetError(
                f"{self.partial} was taken by another write to the same path while this one ran; "
                "let one finish before the other begins",
                kind=ErrorKind.LOCKED,
            )

    def discard(self) -> None:
        """Remove a partial folder that holds nothing worth keeping; an earlier one comes back."""
        self.let_go()
        _remove(self.partial)
        if self.leftover is not None and not self.partial.exists():
            self.leftover.rename(self.partial)

    def drop_leftover(self) -> None:
        """Remove what an earlier, interrupted write had left."""
        if self.leftover is not None:
            _remove(self.leftover)
            self.leftover = None

    def let_go(self) -> None:
        """Give up the lock on the partial folder, so that another write may take its place."""
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    def __del__(self) -> None:
        if getattr(self, "_guard", None) is not None:
            self.let_go()


def _sweep(target: Path) -> None:
    """Tidy up after a process that was killed while it replaced a store."""
    old = replaced_path(target)
    if old.exists() and not target.exists():
        old.rename(target)  # killed between two renames, where names can't be exchanged
    elif old.exists():
        _remove(old)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return whether this system and file system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Sync every file below a folder to disk, then every folder."""
    folders: list[Path] = []
    with ThreadPoolExecutor(_SYNCERS, thread_name_prefix="nwbflow-sync") as pool:
        list(pool.map(_sync, _files(folder, folders)))
        list(pool.map(_sync, folders))


def _files(folder: Path, folders: list[Path]) -> Iterator[Path]:
    for root, _, names in os.walk(folder, onerror=_raise):
        folders.append(Path(root))
        yield from (Path(root) / name for name in names)


def _raise(error: OSError) -> None:
    raise error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
