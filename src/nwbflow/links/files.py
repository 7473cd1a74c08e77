"""Opening HDF5 files that somebody else made, with errors that say what is wrong with them."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Literal

import h5py

from nwbflow.errors import ErrorKind, LinkError


def open_file(path: str | Path, mode: Literal["r", "r+"] = "r", *, locking: bool | str | None = None) -> h5py.File:
    """Open an HDF5 file.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    mode : {"r", "r+"}
        Reading, or changing in place.
    locking : bool or str, optional
        As in :class:`h5py.File`.

    Returns
    -------
    h5py.File
        To be closed by the caller.

    Raises
    ------
    nwbflow.errors.LinkError
        No such file, no regular file, not permitted, not HDF5, being written by another process, or damaged.
    """
    path = Path(path)
    _look(path)
    if not h5py.is_hdf5(path):
        raise LinkError(
            f"{path} is not an HDF5 file: it has no HDF5 signature (empty, of another format, or cut at the front)",
            kind=ErrorKind.NOT_HDF5,
        )
    try:
        return h5py.File(path, mode, locking=locking)
    except OSError as error:
        raise _explained(path, error) from error


def _look(path: Path) -> None:
    """Refuse what can't be a file of data before it is opened: opening a pipe waits for ever."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise LinkError(f"{path} is a folder, not an HDF5 file{_store_hint(path)}", kind=ErrorKind.FOLDER)
        if not stat.S_ISREG(kind):
            raise LinkError(f"{path} is no regular file (a device, pipe or socket)", kind=ErrorKind.REFUSED)
        with path.open("rb"):
            pass
    except LinkError:
        raise
    except FileNotFoundError as error:
        if path.is_symlink():
            text = (
                f"{path} is a symbolic link to {path.readlink()}, which is not there; restore that, or remove the link"
            )
            raise LinkError(text, kind=ErrorKind.MISSING) from error
        raise LinkError(f"{path}: there is no such file; check the path", kind=ErrorKind.MISSING) from error
    except PermissionError as error:
        raise LinkError(f"{path} may not be read by this user", kind=ErrorKind.PERMISSION) from error
    except OSError as error:
        raise LinkError(f"{path} can't be read: {error.strerror or error}", kind=ErrorKind.IO) from error
    except ValueError as error:  # a NUL in the name
        raise LinkError(f"{str(path)!r} is no file name: {error}", kind=ErrorKind.MISSING) from error


def _store_hint(folder: Path) -> str:
    """Say how a folder is read if it is a Zarr store."""
    if (folder / "zarr.json").is_file():
        return f": it is a Zarr store; read it with nwbflow.NWBZarrIO({str(folder)!r}, 'r')"
    if any((folder / name).is_file() for name in (".zgroup", ".zarray", ".zmetadata")):
        return f": it is a Zarr v2 store; read it with hdmf_zarr.NWBZarrV2IO({str(folder)!r}, 'r')"
    return ""


def _explained(path: Path, error: OSError) -> LinkError:
    text = str(error)
    if error.errno in (errno.EAGAIN, errno.EACCES):
        return LinkError(
            f"{path} is being written by another process; inspect it when that is done (HDF5: {text})",
            kind=ErrorKind.LOCKED,
        )
    if "already open for" in text and "write" not in text.split("already open for")[1].split(maxsplit=1)[0]:
        return LinkError(f"{path} is open here for reading only; close it first (HDF5: {text})", kind=ErrorKind.LOCKED)
    if "already open for write" in text:
        return LinkError(
            f"{path} is marked as open for writing; if its writer is gone, clear the mark in a copy: "
            f"h5clear -s --increment=0 COPY (HDF5: {text})",
            kind=ErrorKind.LOCKED,
        )
    return LinkError(f"{path} is HDF5 but can't be opened: damaged or cut off (HDF5: {text})", kind=ErrorKind.IO)
