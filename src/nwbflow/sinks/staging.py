"""Writing beside the target and putting the result in place in one step."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
from h5py import h5f, h5p

from nwbflow.errors import ErrorKind, SettingsError, TargetError
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.occupied import had_not_begun, is_locked, refuse_recording
from nwbflow.sinks.permitted import refuse_no_folder, refuse_protected

_NAME_BYTES = 255


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
        writer, is being recorded or was and is not recovered, its name is too long, or its folder is
        missing or can't be written.
    """
    target = Path(os.path.realpath(path))
    if target.name:
        check_length(target, partial_path(target))
    if target.is_dir():
        raise TargetError(
            f"{target} is a folder; give a file name, such as {target}/recording.nwb", kind=ErrorKind.FOLDER
        )
    if target.exists() and not target.is_file():
        raise TargetError(f"{target} is no regular file (a device or pipe); give another path", kind=ErrorKind.FOLDER)
    refuse_no_folder(target)
    partial = partial_path(target)
    if partial.is_symlink() or (partial.exists() and not partial.is_file()):
        raise TargetError(
            f"{partial}, where the file is prepared, is a link, folder or pipe; remove it", kind=ErrorKind.EXISTS
        )
    refuse_recording(target)
    if not overwrite:
        _refuse_existing(target)
    refuse_protected(target)
    _refuse_open_here(target)
    for file in (target, partial):
        _refuse_locked(file)
    return target


def _refuse_open_here(target: Path) -> None:
    """Refuse a file this process has open: what is written may be about to be read from it."""
    if not target.exists():
        return
    for handle in h5f.get_obj_ids(h5f.OBJ_ALL, h5f.OBJ_FILE):
        name = os.fsdecode(h5f.get_name(handle))
        if Path(name).exists() and target.samefile(name):
            raise TargetError(f"{target} is open here; close it first, or write to another path", kind=ErrorKind.LOCKED)


def partial_path(target: Path) -> Path:
    """Return where a write to `target` is prepared: beside it, so that renaming is atomic."""
    return target.with_name(target.name + ".partial")


def leftover_path(target: Path) -> Path:
    """Return where the partial file of an earlier, interrupted write is put while another one is made."""
    return target.with_name(target.name + ".partial.old")


def free_name(path: Path) -> Path:
    """Return `path`, or with the first number that is free: what was left twice is kept twice."""
    names = (path, *(path.with_name(f"{path.name}.{number}") for number in range(2, 1000)))
    return next((name for name in names if not name.exists()), path)


def check_length(target: Path, beside: Path) -> None:
    """Refuse a name with which `beside`, the longest name needed beside the file, would be too long.

    Raises
    ------
    TargetError
        Kind ``OPTION``.
    """
    excess = len(os.fsencode(beside.name)) - _NAME_BYTES
    if excess > 0:
        raise TargetError(
            f"{target.name}: the name is so long that {beside.name}, which is needed beside the file, is {excess} "
            "bytes longer than names may be; give a shorter one",
            kind=ErrorKind.OPTION,
        )


def _refuse_existing(target: Path) -> None:
    partial = partial_path(target)
    if target.exists():
        raise TargetError(f"{target} exists; pass overwrite=True to replace it", kind=ErrorKind.EXISTS)
    if partial.exists() and not had_not_begun(target):
        raise TargetError(
            f"{partial} is left from an interrupted write; look into it (nwbflow inspect), then delete it "
            "or pass overwrite=True",
            kind=ErrorKind.EXISTS,
        )


def _refuse_locked(file: Path) -> None:
    if is_locked(file):
        raise TargetError(f"{file} is open in another program (or here); close it there first", kind=ErrorKind.LOCKED)


def _write_through(access: h5p.PropFAID) -> None:
    """Set up HDF5's ordinary driver such that a failing write is an error where it happens.

    By default small writes wait in a buffer until their dataset is closed; an error is then only
    printed by h5py, and HDF5 crashes at exit.
    """
    access.set_fapl_sec2()
    access.set_sieve_buf_size(0)


h5py.register_driver("nwbflow-write-through", _write_through)


class StagedFile(h5py.File):  # type: ignore[misc]
    """An HDF5 file under its partial name that answers to the name it will have.

    Parameters
    ----------
    target : pathlib.Path
        From :func:`check_target`.
    name : str
        The path as the user gave it: links to this file are made from it.
    options : mapping
        Further keyword arguments of :class:`h5py.File`.
    copied : pathlib.Path, optional
        A file beside the target that is to take its place when it has been changed. Without it the file is made anew.
    """

    def __init__(self, target: Path, name: str, options: dict[str, Any], *, copied: Path | None = None) -> None:
        self._name = name
        self._target = target
        self._guard: int | None = None
        self.partial = partial_path(target) if copied is None else copied
        self.published = False
        self.leftover = free_name(leftover_path(target)) if copied is None and self.partial.exists() else None
        if self.leftover is not None:
            self.partial.rename(self.leftover)
        mode = "x" if copied is None else "r+"
        try:
            super().__init__(self.partial, mode, driver="nwbflow-write-through", **options)
        except BaseException as error:
            self._put_leftover_back()
            self._explain(error, options)
            raise
        self._made = self.partial.stat()

    def _explain(self, error: BaseException, options: dict[str, Any]) -> None:
        if isinstance(error, ValueError | TypeError | KeyError):
            text = f"{self._name} can't be created with {options}: {error}"
            raise SettingsError(text, kind=ErrorKind.OPTION) from error
        if isinstance(error, PermissionError) or "read-only" in str(error).lower():
            raise TargetError(f"{self._target.parent} can't be written: {error}", kind=ErrorKind.PERMISSION) from error
        with translated(str(self.partial), "creating the file"):
            raise error

    def _put_leftover_back(self) -> None:
        if self.leftover is not None and not self.partial.exists():
            self.leftover.rename(self.partial)

    @property
    def filename(self) -> str:
        """The name the file will have."""
        return self._name

    @property
    def marked_while_open(self) -> bool:
        """Whether the file carries a mark while it is open for writing, which readers refuse.

        Superblocks from version 3 on (``libver="latest"``) do; such a file is put in place after closing.
        """
        return int(self.id.get_create_plist().get_version()[0]) >= 3

    def publish(self) -> None:
        """Sync the finished file to disk and put it in place of the target, in one step.

        An open handle stays usable. After this, a loss of power leaves the new file whole (on a
        disk whose sync is honest); before it, the old file.

        Raises
        ------
        StorageError
            If syncing or renaming fails.
        """
        with translated(str(self.partial), "syncing to disk"):
            if self:
                self.flush()
                self._mark_closed()
            self._check_still_ours()
            _sync(self.partial, os.O_RDWR)
        if self._target.exists():
            self.partial.chmod(stat.S_IMODE(self._target.stat().st_mode))
        with translated(str(self._target), "putting the new file in place"):
            self._check_still_ours()
            self.partial.rename(self._target)
        self.published = True
        self.let_go()
        with translated(str(self._target.parent), "syncing the folder (the new file is in place)"):
            _sync(self._target.parent, os.O_RDONLY | os.O_DIRECTORY)

    def _check_still_ours(self) -> None:
        """Refuse to publish what another write has put in the place of this one."""
        try:
            if self._guard is not None:
                fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)  # HDF5 gives its lock up on closing
            ours = os.path.samestat(self.partial.stat(), self._made)
        except OSError as error:
            ours = not isinstance(error, BlockingIOError | FileNotFoundError)  # else a file system without locks
        if not ours:
            raise TargetError(
                f"{self.partial} was taken by another write to the same path while this one ran; "
                "let one finish before the other begins",
                kind=ErrorKind.LOCKED,
            )

    def finish(self) -> None:
        """Bring everything to disk such that closing has nothing left to do there, and so can't fail.

        HDF5 is left in a state that crashes the process when the last write of its closing fails.
        Files marked while open have to be closed by HDF5 itself.

        Raises
        ------
        StorageError
            If a write fails; the handle is still sound then.
        """
        with translated(str(self.partial), "writing the last metadata"):
            self.flush()
            self._guard = os.dup(self.id.get_vfd_handle())  # shares HDF5's lock, which must outlive its descriptor
            if not self.marked_while_open:
                self._mark_closed()
                _redirect(self)

    def _mark_closed(self) -> None:
        """Clear the consistency flags, as HDF5 does when closing.

        Bytes 20 to 23 of superblock versions 0 and 1 (HDF5 File Format Specification 3.0, II.A);
        version 2 has none, later ones are marked and closed by HDF5.
        """
        if int(self.id.get_create_plist().get_version()[0]) < 2:
            handle = os.open(self.partial, os.O_RDWR)
            try:
                os.pwrite(handle, bytes(4), 20)
            finally:
                os.close(handle)

    def discard(self) -> None:
        """Close and remove a partial file that holds nothing worth keeping; an earlier one comes back."""
        self.close()
        self.let_go()
        self.partial.unlink(missing_ok=True)
        self._put_leftover_back()

    def let_go(self) -> None:
        """Give up the lock on the partial file, so that another write may take its place."""
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
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
    if file:
        _redirect(file)
        with _no_size_limit():
            _settle(file)
            file.close()


def _settle(file: h5py.File) -> None:
    """Bring HDF5's cache into order, so that closing does not fail half-way.

    If flushing a dataset fails, the cache's list of what is to be written stays switched on
    (``H5C__flush_marked_entries`` of HDF5 1.14). The next flush of the file complains of that, and switches it off.
    Closing complains of it too, but has freed the file by then, and whoever touches it next, HDF5's own exit
    included, crashes the process.
    """
    with contextlib.suppress(RuntimeError, OSError):
        file.flush()


@contextlib.contextmanager
def _no_size_limit() -> Iterator[None]:
    """Lift a limit on file sizes (``ulimit -f``): it holds for files in memory too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _redirect(file: h5py.File) -> None:
    if file.driver == "sec2":
        with _nowhere() as spare:
            os.dup2(spare.fileno(), file.id.get_vfd_handle())


def _nowhere() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("nwbflow-abandoned"), "wb")
    return tempfile.TemporaryFile()
