"""Data of other files, with a word on what is to be done with them: link, or copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

import h5py
import numpy as np

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.links.targets import Target, TargetLike, target_of
from nwbflow.model.data import Array, Region
from nwbflow.model.layout import Shape
from nwbflow.nwb.data import SourceData

type OnMismatch = Literal["error", "warn", "copy", "adopt"]
"""What to do where the container says one thing and the linked dataset another."""

ON_MISMATCH: tuple[OnMismatch, ...] = ("error", "warn", "copy", "adopt")


class TargetSource:
    """The elements of a dataset in another file; the file is open while it is being read only.

    Parameters
    ----------
    target : Target
        The dataset.
    """

    in_memory = False

    def __init__(self, target: Target) -> None:
        self.target = target

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self.target.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.target.dtype

    def read(self, region: Region, /) -> Array:
        """Return the elements of `region`."""
        with self.target.opened() as dataset:
            return np.asarray(dataset[region])


class ExternalData(SourceData):
    """A dataset of another file that PyNWB's constructors accept as data.

    Parameters
    ----------
    target : Target
        The dataset.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(TargetSource(target))
        self.target = target

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: it holds no data, and an open dataset can't be copied."""
        memo[id(self)] = self
        return self

    @contextmanager
    def opened(self) -> Iterator[h5py.Dataset]:
        """Give the open dataset."""
        with self.target.opened() as dataset:
            yield dataset


class LinkedData(ExternalData):
    """A dataset to be linked.

    Parameters
    ----------
    target : Target
        The dataset.
    on_mismatch : {"error", "warn", "copy", "adopt"}
        What to do where the container says something else.
    """

    def __init__(self, target: Target, on_mismatch: OnMismatch) -> None:
        super().__init__(target)
        self.on_mismatch: OnMismatch = on_mismatch


class CopiedData(ExternalData):
    """A dataset to be copied."""


def link(target: TargetLike, *, on_mismatch: OnMismatch = "error") -> LinkedData:
    """Use a dataset of another file as data, by a link: nothing is copied.

    A link has no attributes of its own: who reads the file gets the target's unit, conversion, and so on. So what
    the container says is compared with them when it is written. To have attributes of one's own over the same
    data, also without copying them, use :func:`concat` with this one dataset.

    Parameters
    ----------
    target : h5py.Dataset or (path, str)
        An open dataset, such as ``other.acquisition["probe"].data``, or a file's name and the path inside it. Links
        on the way are followed: the dataset at their end is linked.
    on_mismatch : {"error", "warn", "copy", "adopt"}
        What to do where the container says something else than the target: refuse the write and list every
        difference; link all the same, and warn; make a copy that has the container's attributes; or take the
        target's values over into the container. A type or shape that doesn't fit is refused, but for ``"warn"``.

    Returns
    -------
    LinkedData
        Accepted as ``data`` (or ``timestamps``, or a column's data) by every PyNWB constructor. Readable like an
        array.

    Raises
    ------
    nwbflow.errors.LinkError
        The file is missing, unreadable, no HDF5 file or being written; in it the path is missing, or a group.
    nwbflow.errors.SettingsError
        No target, or no such policy.
    """
    if on_mismatch not in ON_MISMATCH:
        raise SettingsError(
            f"on_mismatch={on_mismatch!r}: give {', '.join(map(repr, ON_MISMATCH))}", kind=ErrorKind.OPTION
        )
    return LinkedData(target_of(target), on_mismatch)


def copy(target: TargetLike) -> CopiedData:
    """Use a dataset of another file as data, by copying it when the file is written.

    Attributes are the container's own. The stored chunks are taken over as they are, without decoding them, unless
    :class:`DataIO` around it, or rules, ask for other chunks or another codec: then they are encoded anew, in
    parallel. A dataset that isn't chunked is stored as an array in memory would be. What several containers copy is
    copied once, and linked inside the file, if they say the same about it.

    Parameters
    ----------
    target : h5py.Dataset or (path, str)
        As for :func:`link`.

    Returns
    -------
    CopiedData
        Accepted as ``data`` by every PyNWB constructor. Readable like an array.

    Raises
    ------
    nwbflow.errors.LinkError, nwbflow.errors.SettingsError
        As for :func:`link`.
    """
    return CopiedData(target_of(target))
