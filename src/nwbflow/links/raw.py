"""Stretches of raw binary files, and how HDF5 takes them for a dataset's storage (external storage).

A dataset may be stored in several stretches, one after the other: so recordings that were split over files become one
dataset without a virtual one.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nwbflow.errors import ErrorKind, LinkError, SourceError, UnsupportedError
from nwbflow.model.layout import MaxShape, Shape
from nwbflow.sources.arrays import RawSource, fit_shape

MOST_STRETCHES = 2700
"""Stretches one dataset may have: HDF5 keeps 24 bytes for each in the object's header, where 64 KiB is the limit."""

type Stretch = tuple[str, int, int]
"""As :meth:`h5py.Group.create_dataset` takes it: file name, offset and size in bytes."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another, without reading it.

    Parameters
    ----------
    size : int
        In bytes.
    changed : int
        When it was last written to, in nanoseconds.
    inode : int
        Its number in the file system.
    """

    size: int
    changed: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPart:
    """A stretch of a raw file, as it was when it was looked at.

    Parameters
    ----------
    path : pathlib.Path
        The file, absolute; symbolic links as the user has them.
    offset : int
        Bytes before the first element.
    shape : tuple of int
        Lengths of the axes, in elements, in C order.
    dtype : numpy.dtype
        Type of the elements, byte order included.
    relative : bool
        Whether its name is recorded relative to the folder of the file that links to it.
    stamp : Stamp
        To notice that the file is another one by now.
    """

    path: Path
    offset: int
    shape: Shape
    dtype: np.dtype[Any]
    relative: bool
    stamp: Stamp

    def __str__(self) -> str:
        return str(self.path)

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def source(self) -> RawSource:
        """What reads it."""
        return RawSource(self.path, dtype=self.dtype, shape=self.shape, offset=self.offset)

    def recorded(self, folder: Path) -> str:
        """Return the name to be recorded in a file in `folder` (absolute, symbolic links resolved)."""
        if not self.relative:
            return str(self.path)
        # folders are resolved, or ".." would lead elsewhere; a file that is a link stays one
        return os.path.relpath(Path(os.path.realpath(self.path.parent)) / self.path.name, folder)

    def check(self) -> None:
        """Look whether the file still is what it was.

        Raises
        ------
        nwbflow.errors.LinkError
            If it is gone, or was changed or replaced.
        """
        now = _look(self.path)
        if now.size != self.stamp.size:
            text = f"had {self.stamp.size} bytes when it was given, and has {now.size} now"
        elif now != self.stamp:
            text = "was written to or replaced since it was given"
        else:
            return
        raise LinkError(
            f"{self.path} {text}: is something still recording into it? Call nwbflow.link_raw again when it is done",
            kind=ErrorKind.CHANGED,
        )


def part_of(path: str | Path, *, dtype: np.dtype[Any], shape: MaxShape, offset: int, relative: bool) -> RawPart:
    """Return what a raw file holds, checked against its size; it is not read.

    Parameters
    ----------
    path, dtype, shape, offset, relative
        As in :func:`nwbflow.link_raw`.

    Raises
    ------
    nwbflow.errors.LinkError
        Missing, a folder, no regular file, unreadable, or without elements.
    nwbflow.errors.SourceError
        Shorter or longer than declared, or no whole number of samples.
    """
    path = Path(path).absolute()
    stamp = _look(path)
    if offset > stamp.size:
        raise SourceError(
            f"{path} has {stamp.size} bytes, offset={offset} is behind its end; check offset", kind=ErrorKind.LENGTH
        )
    full = fit_shape(path, dtype=dtype, shape=shape, offset=offset)
    if 0 in full:
        raise SourceError(
            f"{path} has no elements: {stamp.size} bytes, of which offset={offset} skips {offset}, as {full}; "
            "there is nothing to link",
            kind=ErrorKind.LENGTH,
        )
    return RawPart(path=path, offset=offset, shape=full, dtype=dtype, relative=relative, stamp=stamp)


def stretches(parts: Sequence[RawPart], folder: Path) -> list[Stretch]:
    """Return what HDF5 is to take for a dataset's storage.

    Parameters
    ----------
    parts : sequence of RawPart
        One after the other, along the first axis.
    folder : pathlib.Path
        Of the file that is to have the dataset; absolute, symbolic links resolved.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        If they are more than HDF5 can note.
    """
    if len(parts) > MOST_STRETCHES:
        raise UnsupportedError(
            f"one dataset can be stored in {MOST_STRETCHES} raw files, these are {len(parts)}. Write an NWB file for "
            f"each {MOST_STRETCHES} of them, and nwbflow.concat those",
            kind=ErrorKind.SHAPE,
        )
    return [(part.recorded(folder), part.offset, part.nbytes) for part in parts]


def stretch_names(found: Sequence[Stretch]) -> list[str]:
    """Return a name for each stretch of a dataset, for its record: the file's, with the offset where it occurs twice.

    Parameters
    ----------
    found : sequence of (str, int, int)
        As :func:`stretches` gives them, and h5py's ``Dataset.external``.
    """
    names = [name for name, _, _ in found]
    return [name if names.count(name) == 1 else f"{name} @ {offset}" for name, offset, _ in found]


def _look(path: Path) -> Stamp:
    """Refuse what can't be a recording before it is opened: opening a pipe waits for ever."""
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise LinkError(f"{path} is a folder, not a raw file", kind=ErrorKind.FOLDER)
        if not stat.S_ISREG(about.st_mode):
            raise LinkError(f"{path} is no regular file (a device, pipe or socket)", kind=ErrorKind.REFUSED)
        with path.open("rb"):
            pass
    except LinkError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LinkError(f"{path}: there is no such file; check the path", kind=ErrorKind.MISSING) from error
    except PermissionError as error:
        raise LinkError(f"{path} may not be read by this user", kind=ErrorKind.PERMISSION) from error
    except OSError as error:
        raise LinkError(f"{path} can't be read: {error.strerror or error}", kind=ErrorKind.IO) from error
    except ValueError as error:  # a NUL in the name
        raise LinkError(f"{str(path)!r} is no file name: {error}", kind=ErrorKind.MISSING) from error
    return Stamp(size=about.st_size, changed=about.st_mtime_ns, inode=about.st_ino)
