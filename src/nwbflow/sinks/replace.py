"""Changing a file by changing a copy, which takes its place in one step."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from nwbflow.errors import ErrorKind, StorageError, TargetError
from nwbflow.sinks.hdf5 import lost_writes, real_name, translated
from nwbflow.sinks.staging import StagedFile, abandon, check_target

_FICLONE = 0x40049409
"""Linux' request to share a file's blocks instead of copying them (ioctl_ficlone(2))."""
_PIECE = 16 * 2**20
_SHARED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ENOTTY)


def edit_path(target: Path) -> Path:
    """Return where a changed copy of `target` is prepared.

    It is another name than that of interrupted writes, since what is under it holds nothing that is not in the target:
    one that a killed program left is replaced without asking.

    Parameters
    ----------
    target : pathlib.Path
        The file.
    """
    return target.with_name(target.name + ".edit.partial")


@contextmanager
def edited_copy(
    path: str | Path,
    *,
    out: str | Path | None = None,
    extra_bytes: int = 0,
    verify: Callable[[h5py.File], None] | None = None,
) -> Iterator[h5py.File]:
    """Give a copy of an HDF5 file to be changed; it takes the file's place at the end, in one step.

    The copy lies beside the file. When the caller is done, it is closed, opened again and verified, synced, given the
    file's permissions, and renamed. At every moment the path holds the old file, bit for bit, or the whole new one. If
    anything fails, the copy is removed.

    Parameters
    ----------
    path : str or pathlib.Path
        The file. A symbolic link is followed: what it points to is replaced.
    out : str or pathlib.Path, optional
        Put the changed copy there, where nothing is yet, with the file's permissions, and leave the file alone.
    extra_bytes : int
        What the changes will take on the disk, in bytes.
    verify : callable, optional
        Takes the finished copy, open for reading, and raises if it is not what it should be.

    Yields
    ------
    h5py.File
        Open for reading and writing; it answers to the name the copy will have.

    Raises
    ------
    nwbflow.errors.TargetError
        If the file (or `out`) can't be written, is open elsewhere or here, or was changed meanwhile.
    nwbflow.errors.StorageError
        If the disk is too small or fails.
    """
    source = Path(os.path.realpath(path))
    target = _checked(path if out is None else out, overwrite=out is None)
    partial = edit_path(target)
    with _held(source) as original:
        before = os.fstat(original)
        _clear(partial)
        file = _copied(original, partial, target, str(path if out is None else out), extra_bytes)
        try:
            with lost_writes(real_name(file), str(target)), translated(str(target), "changing a copy of it"):
                yield file
                file.finish()
            file.close()
            _verify(partial, verify)
            _refuse_changed(source, before)
            if out is None:
                _give_owner(partial, before)
            file.publish()
            if out is not None:
                target.chmod(_kept(before.st_mode))
        except BaseException:
            if not file.published:
                partial.unlink(missing_ok=True)
            file.let_go()
            with contextlib.suppress(OSError, RuntimeError):  # HDF5 may be beyond closing after a failed write
                abandon(file)
            raise


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a new one with the same permissions, sharing blocks where the file system can; holes stay holes.

    Parameters
    ----------
    source, target : pathlib.Path
        The target must not exist.

    Raises
    ------
    nwbflow.errors.StorageError
        If the disk fails or is full.
    """
    with translated(str(target), f"copying {source}"):
        reading = os.open(source, os.O_RDONLY)
        try:
            mode = os.fstat(reading).st_mode
            writing = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, _private(mode))
            try:
                if not _cloned(reading, writing):
                    _copy(reading, writing)
                os.fchmod(writing, _kept(mode))
            finally:
                os.close(writing)
        finally:
            os.close(reading)


def refuse_full(folder: Path, needed: int, what: str) -> None:
    """Refuse what the disk has no room for.

    Parameters
    ----------
    folder : pathlib.Path
        Where it is to be.
    needed : int
        Bytes it takes.
    what : str
        What it is, for the text.

    Raises
    ------
    nwbflow.errors.StorageError
        If there is less.
    """
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise StorageError(
            f"{what} takes {needed} bytes, and {folder} has {free} left; make room, or choose another disk",
            kind=ErrorKind.NO_SPACE,
        )


def _private(mode: int) -> int:
    """Return the permissions of a copy that is being made: its owner's, and of others none that they lack."""
    return 0o600 | (mode & 0o666)


def _kept(mode: int) -> int:
    """Return the permissions of a finished copy; whoever made it can read it."""
    return 0o400 | (stat.S_IMODE(mode) & 0o777)


def _checked(path: str | Path, *, overwrite: bool) -> Path:
    try:
        return check_target(path, overwrite=overwrite)
    except OSError as error:
        if isinstance(error, TargetError) or error.errno != errno.ENAMETOOLONG:
            raise
        raise TargetError(
            f"{path}: the name is so long that no copy can be made beside it ('.edit.partial' is appended); shorten it",
            kind=ErrorKind.OPTION,
        ) from error


@contextmanager
def _held(source: Path) -> Iterator[int]:
    """Keep others from changing the file in place meanwhile (where there are locks); they may read it."""
    with translated(str(source), "opening it"):
        handle = os.open(source, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetError(
                f"{source} is open for writing in another program; close it there first", kind=ErrorKind.LOCKED
            ) from error
        except OSError:
            pass  # a file system without locks
        yield handle
    finally:
        os.close(handle)


def _clear(partial: Path) -> None:
    """Remove what a killed program left; refuse what another one is at work on."""
    try:
        if partial.is_symlink() or (partial.exists() and not partial.is_file()):
            raise TargetError(
                f"{partial}, where a copy is changed, is a link, folder or pipe; remove it", kind=ErrorKind.EXISTS
            )
        handle = os.open(partial, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        partial.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise TargetError(
            f"{partial.name.removesuffix('.edit.partial')} is being changed by another program ({partial} is in use); "
            "let that finish first",
            kind=ErrorKind.LOCKED,
        ) from error
    finally:
        os.close(handle)


def _copied(original: int, partial: Path, target: Path, name: str, extra_bytes: int) -> StagedFile:
    """Make the copy and open it; nothing is left if that fails."""
    with translated(str(partial), "copying the file"):
        mode = _private(os.fstat(original).st_mode)
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    try:
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            made = os.fstat(handle)
            with translated(str(partial), "copying the file"):
                _fill(original, handle, target, extra_bytes)
        finally:
            os.close(handle)  # HDF5 takes its own lock
        file = StagedFile(target, name, {}, copied=partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if not os.path.samestat(made, partial.stat()):
        abandon(file)
        raise TargetError(f"{partial} was taken by another program; let one finish first", kind=ErrorKind.LOCKED)
    return file


def _fill(original: int, handle: int, target: Path, extra_bytes: int) -> None:
    shared = _cloned(original, handle)
    own = 0 if shared else os.fstat(original).st_blocks * 512
    refuse_full(target.parent, own + extra_bytes, f"{target}: the changed copy")
    if not shared:
        _copy(original, handle)


def _cloned(original: int, copy: int) -> bool:
    try:
        fcntl.ioctl(copy, _FICLONE, original)
    except OSError:
        return False
    return True


def _copy(original: int, copy: int) -> None:
    """Copy what is not a hole, in the kernel where that can."""
    size = os.fstat(original).st_size
    os.ftruncate(copy, size)
    for start, stop in _extents(original, size):
        at = start
        while at < stop:
            count = min(_PIECE, stop - at)
            try:
                done = os.copy_file_range(original, copy, count, at, at)
            except OSError as error:
                if error.errno not in _SHARED:
                    raise
                done = _through_memory(original, copy, at, count)
            if not done:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            at += done


def _through_memory(original: int, copy: int, at: int, count: int) -> int:
    data = os.pread(original, count, at)
    written = 0
    while written < len(data):
        written += os.pwrite(copy, data[written:], at + written)
    return written


def _extents(handle: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            start, at = at, size  # no holes on this file system
            yield start, size
            return
        at = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, at


def _verify(partial: Path, verify: Callable[[h5py.File], None] | None) -> None:
    """Open what was closed. Through Python's own file: HDF5 would want the lock that we keep."""
    with translated(str(partial), "opening the changed copy"), partial.open("rb") as raw, h5py.File(raw, "r") as file:
        if verify is not None:
            verify(file)


def _refuse_changed(source: Path, before: os.stat_result) -> None:
    """Refuse to replace what somebody has changed or replaced since it was copied."""
    try:
        now = source.stat()
    except OSError as error:
        raise TargetError(f"{source} is gone; it was there when this began", kind=ErrorKind.CHANGED) from error
    same = (now.st_mtime_ns, now.st_size) == (before.st_mtime_ns, before.st_size)
    if not os.path.samestat(now, before) or not same:
        raise TargetError(
            f"{source} was changed by another program while a copy was prepared; nothing was replaced, begin again",
            kind=ErrorKind.CHANGED,
        )


def _give_owner(partial: Path, before: os.stat_result) -> None:
    """Keep the owner where one may, such as root; the permissions follow when it is put in place."""
    made = partial.stat()
    if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(PermissionError):
            os.chown(partial, before.st_uid, before.st_gid)
            partial.chmod(stat.S_IMODE(before.st_mode))
