"""The dataset a user wants to link or copy: where it is, and what it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nwbflow.errors import ErrorKind, LinkError, SettingsError
from nwbflow.links.files import open_file
from nwbflow.links.guard import Guard
from nwbflow.links.places import Rules
from nwbflow.links.resolve import attribute_names
from nwbflow.links.views import BarredDataset, GuardedDataset, GuardedFile
from nwbflow.model.layout import MaxShape, Shape
from nwbflow.model.links import Policy

type TargetLike = h5py.Dataset | tuple[str | Path, str] | Any
"""An open h5py dataset (or what PyNWB wraps one in), or a pair of a file's name and a path inside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A dataset in an HDF5 file, as it was when it was looked at.

    Parameters
    ----------
    file : pathlib.Path
        The file that holds it, absolute, symbolic links resolved.
    name : str
        Its absolute path in there.
    shape, maxshape : tuple
        Lengths of its axes, in elements.
    dtype : numpy.dtype
        Type of its elements.
    attributes : mapping
        Its attributes, as h5py gives them; object references as :class:`ReferenceTo`.
    dataset : h5py.Dataset or None
        The open dataset, where the user gave one.
    """

    file: Path
    name: str
    shape: Shape
    maxshape: MaxShape
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]
    dataset: h5py.Dataset | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"

    @contextlib.contextmanager
    def opened(self) -> Iterator[h5py.Dataset]:
        """Give the open dataset: the user's own, or one that is closed again afterwards.

        Raises
        ------
        nwbflow.errors.LinkError
            If it can't be opened (any more), or is another one by now.
        """
        if self.dataset is not None:
            if not self.dataset:
                raise LinkError(f"{self} was closed; keep its file open until it is written", kind=ErrorKind.CLOSED)
            yield self.dataset
            return
        with _guarded(self.file) as file:
            dataset = _inside(file, self.name)
            if dataset.shape != self.shape or dataset.dtype != self.dtype:
                raise LinkError(
                    f"{self} was {self.shape} {self.dtype} when it was given, and is {dataset.shape} {dataset.dtype} "
                    "now; give it again",
                    kind=ErrorKind.CHANGED,
                )
            yield dataset


@dataclass(frozen=True, slots=True)
class ReferenceTo:
    """An object reference, by the path it leads to."""

    path: str

    def __str__(self) -> str:
        return f"reference to {self.path or 'nothing'}"


def target_of(given: TargetLike) -> Target:
    """Return what a user's target is.

    Parameters
    ----------
    given : h5py.Dataset, HDMF's wrapper of one, or (file, path)
        An open dataset stays open and is the user's to close. A file given by name is opened and closed here.

    Returns
    -------
    Target
        Links on the way are followed: it is the dataset at their end.

    Raises
    ------
    nwbflow.errors.LinkError
        The file is missing, no regular file, unreadable, no HDF5 file, damaged or being written; in it the path is
        missing, a broken link or a group; the dataset is closed or has no elements to link (null dataspace).
    nwbflow.errors.SettingsError
        If `given` is something else.
    """
    if isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(g, str | os.PathLike) for g in given):
        with _guarded(Path(given[0])) as file:
            found = _facts(_inside(file, str(given[1])))
        return Target(**found)
    dataset = given
    while dataset is not None and not isinstance(dataset, h5py.Dataset):
        dataset = getattr(dataset, "dataset", None)
    if dataset is None:
        raise SettingsError(
            f"a target is an open h5py dataset or a pair ('file.nwb', '/path/in/it'), not {type(given).__name__}",
            kind=ErrorKind.OPTION,
        )
    if not dataset:
        raise LinkError("the h5py dataset given as a target is closed; keep its file open", kind=ErrorKind.CLOSED)
    refuse_incomplete(dataset)
    return Target(**_facts(dataset), dataset=dataset)


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[GuardedFile]:
    """Open a file by name, such that its links and the files its data lie in are found as by nwbflow's reader."""
    guard = Guard(Rules(Policy.ALLOW))
    with open_file(path) as file:
        try:
            yield guard.view(file)
        finally:
            guard.close_targets()


def refuse_incomplete(dataset: h5py.Dataset) -> None:
    """Refuse an open dataset whose elements lie in other files, if those are not there: HDF5 would read zeros.

    Parameters
    ----------
    dataset : h5py.Dataset
        Opened by anybody.

    Raises
    ------
    nwbflow.errors.LinkError
        If a file is missing or too short, or would be looked for in the working folder.
    """
    if isinstance(dataset, BarredDataset):
        raise dataset.problem.as_error()
    elsewhere = not isinstance(dataset, GuardedDataset) and (dataset.is_virtual or dataset.external)
    if elsewhere and Path(dataset.file.filename).exists():
        guard = Guard(Rules(Policy.ALLOW))
        try:
            _inside(guard.view(dataset.file), str(dataset.name))
        finally:
            guard.close_targets()


def _inside(file: GuardedFile, name: str) -> h5py.Dataset:
    where = f"{file.filename}:{name}"
    try:
        found = file[name]
    except LinkError:
        raise
    except KeyError as error:
        raise LinkError(
            f"{where} does not exist; see what is there: nwbflow inspect {file.filename}", kind=ErrorKind.MISSING
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise LinkError(f"{where} can't be opened: {error}", kind=ErrorKind.IO) from error
    if isinstance(found, BarredDataset):
        raise found.problem.as_error()
    if not isinstance(found, h5py.Dataset):
        raise LinkError(
            f"{where} is a group; a dataset is needed, such as {where.rstrip('/')}/data", kind=ErrorKind.SHAPE
        )
    if found.shape is None:
        raise LinkError(f"{where} is an empty dataset, without a shape", kind=ErrorKind.SHAPE)
    return found


def _facts(dataset: h5py.Dataset) -> dict[str, Any]:
    return {
        "file": Path(os.path.realpath(dataset.file.filename)),
        "name": str(dataset.name),
        "shape": tuple(int(n) for n in dataset.shape),
        "maxshape": tuple(None if n is None else int(n) for n in dataset.maxshape),
        "dtype": np.dtype(dataset.dtype),
        "attributes": attributes_of(dataset),
    }


def attributes_of(item: h5py.Dataset | h5py.Group) -> dict[str, Any]:
    """Return an object's attributes, object references by the path they lead to.

    Parameters
    ----------
    item : h5py.Dataset or h5py.Group
        Open.
    """
    found: dict[str, Any] = {}
    for name in attribute_names(item.id):
        value = item.attrs[name]
        if isinstance(value, h5py.Reference):
            value = ReferenceTo(_path_of(item, value))
        found[name] = value
    return found


def _path_of(item: h5py.Dataset | h5py.Group, reference: h5py.Reference) -> str:
    try:
        return str(item.file[reference].name) if reference else ""
    except (KeyError, ValueError, OSError, RuntimeError, LinkError):  # what it led to is gone, or out of reach
        return "(nothing)"
