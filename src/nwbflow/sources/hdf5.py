"""A dataset of an HDF5 file that is opened where it is read: by its place, not by a handle."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from h5py import h5o

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array, Region
from nwbflow.model.layout import Shape
from nwbflow.sources.arrays import SliceSource


class Hdf5Source:
    """A dataset of an HDF5 file open for reading, to be read in other processes of this machine.

    Parameters
    ----------
    dataset : h5py.Dataset
        From a plain file that can be opened again: see :meth:`of`.

    Raises
    ------
    SourceError
        When reading, if another file has taken its name meanwhile.
    """

    in_memory = False

    def __init__(self, dataset: h5py.Dataset) -> None:
        file = dataset.file
        self.path = Path(file.filename).absolute()
        self.name = str(dataset.name)
        self._shape: Shape = tuple(int(n) for n in dataset.shape)
        self._dtype: np.dtype[Any] = np.dtype(dataset.dtype)
        self._same = _identity(dataset)
        locks, ignore = file.id.get_access_plist().get_file_locking()
        self._locking = "best-effort" if locks and ignore else bool(locks)
        # filters of plug-ins are registered in the process that imports them
        self._plugins = "hdf5plugin" in sys.modules

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> Self | None:
        """Return the dataset as such a source; ``None`` if another process would not see what this one does."""
        file = dataset.file
        if file.driver != "sec2" or file.mode != "r" or file.swmr_mode or dataset.name is None:
            return None
        try:
            found = Path(file.filename).stat()
        except OSError:
            return None
        made = cls(dataset)
        return made if (found.st_dev, found.st_ino) == made._same[:2] else None

    @property
    def shape(self) -> Shape:
        """Lengths of the axes, in elements."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._dtype

    def read(self, region: Region, /) -> Array:
        """Return the elements of `region`; the file is open, and locked, no longer than that."""
        if self._plugins:
            importlib.import_module("hdf5plugin")
        with h5py.File(self.path, "r", locking=self._locking) as file:
            dataset = file.get(self.name)
            if not isinstance(dataset, h5py.Dataset) or _identity(dataset) != self._same:
                raise SourceError(
                    f"{self.path}:{self.name} is not the dataset any more that the write began with: its file was "
                    "replaced meanwhile",
                    kind=ErrorKind.CHANGED,
                )
            return SliceSource(dataset).read(region)


def _identity(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Return what tells a dataset from all others on this machine."""
    status = os.fstat(dataset.file.id.get_vfd_handle())
    return status.st_dev, status.st_ino, int(h5o.get_info(dataset.id).addr)
