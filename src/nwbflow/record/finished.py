"""The rows of one series of a file that is finished, a row of chunks at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from nwbflow.errors import ErrorKind, SettingsError, StorageError
from nwbflow.model.data import Array

_BLOCK_BYTES = 8 * 2**20
"""Size of a block where nothing is chunked."""


class FinishedSeries:
    """Reads the rows of one series.

    Parameters
    ----------
    file : int
        Descriptor of the file; taken over. It is read through this one, so it does not matter what is done to the
        file's name meanwhile, and nothing is locked.
    path : pathlib.Path
        What the file is called, for texts.
    series : str
        Its name, or enough of the end of its path.
    datasets : mapping of str to str, optional
        Path of each dataset inside the file by what it is called in the series. What has as many rows as the series
        by default.

    Raises
    ------
    SettingsError
        If there is no such series, or more than one.
    StorageError
        If it is no HDF5 file, damaged, or not finished.
    """

    def __init__(self, file: int, path: Path, series: str, datasets: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._bytes = os.fdopen(file, "rb")
        try:
            self._file = h5py.File(self._bytes, "r")
            if datasets is None:
                self.series, self._datasets = _found(self._file, path, series)
            else:
                self.series, self._datasets = series, {field: self._file[name] for field, name in datasets.items()}
        except (OSError, RuntimeError, KeyError) as error:
            self._bytes.close()
            raise StorageError(
                f"{path} can't be read: {error}. If it was left by a crash: nwbflow recover {path}", kind=ErrorKind.IO
            ) from error
        except BaseException:
            self._bytes.close()
            raise
        self.rows = min(len(dataset) for dataset in self._datasets.values())
        self._step = _step(list(self._datasets.values()))

    @property
    def fields(self) -> tuple[str, ...]:
        """What its datasets are called."""
        return tuple(self._datasets)

    def read(self, first: int) -> dict[str, Array]:
        """Return the rows from `first` to the end of its row of chunks; nothing at the end of the series.

        Raises
        ------
        StorageError
            If the file is damaged there.
        """
        if first >= self.rows:
            return {}
        end = min((first // self._step + 1) * self._step, self.rows)
        try:
            return {field: np.asarray(dataset[first:end]) for field, dataset in self._datasets.items()}
        except (OSError, RuntimeError) as error:
            raise StorageError(
                f"{self._path}: rows {first} to {end} of {self.series} can't be read: {error}", kind=ErrorKind.IO
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._bytes.close()


def choose(names: list[str], wanted: str, path: Path) -> str:
    """Return the one path that is, or ends with, the name of a series.

    Raises
    ------
    SettingsError
        If none does, or several do.
    """
    end = "/" + wanted.strip("/")
    found = [name for name in names if name.endswith(end)]
    exact = [name for name in found if name == end]
    if len(exact or found) != 1:
        problem = "has no series" if not found else "has more than one series"
        known = ", ".join(found or names) or "none"
        raise SettingsError(f"{path} {problem} {wanted!r}; there are: {known}", kind=ErrorKind.OPTION)
    return (exact or found)[0]


def _found(file: h5py.File, path: Path, wanted: str) -> tuple[str, dict[str, h5py.Dataset]]:
    """Find a series or table in a file nobody can tell more of."""
    groups: dict[str, h5py.Group] = {}

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and _rows(item) is not None:
            groups["/" + name] = item

    file.visititems(look)
    name = choose(list(groups), wanted, path)
    rows, group = _rows(groups[name]), groups[name]
    candidates = {field: group[field] for field in group if isinstance(group.get(field), h5py.Dataset)}
    return name, {
        field: dataset
        for field, dataset in candidates.items()
        if dataset.shape and len(dataset) == rows and dataset.dtype.kind in "biufc"
    }


def _rows(group: h5py.Group) -> int | None:
    """Return how many rows a series or table has, ``None`` if it is neither."""
    for field in ("data", "id"):
        dataset = group.get(field)
        if isinstance(dataset, h5py.Dataset) and dataset.shape and (field == "data" or "colnames" in group.attrs):
            return len(dataset)
    return None


def _step(datasets: list[h5py.Dataset]) -> int:
    """Return how many rows are read at a time: a row of chunks of the largest dataset."""
    widths = [max(1, int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize) for dataset in datasets]
    largest = datasets[widths.index(max(widths))]
    return int(largest.chunks[0]) if largest.chunks else max(1, _BLOCK_BYTES // max(widths))
