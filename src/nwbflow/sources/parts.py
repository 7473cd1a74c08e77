"""Arrays of which only a part is in this process; the rest is in others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array, Region, Source
from nwbflow.model.layout import Shape
from nwbflow.planning.parts import within
from nwbflow.sources.arrays import show_region


@dataclass(slots=True, eq=False)
class PartSource:
    """A rectangle of a larger array.

    Parameters
    ----------
    mine : Source
        The elements that are here.
    start : tuple of int
        Where the first of them lies in the whole array.
    shape : tuple of int
        Lengths of the whole array, in elements.

    Attributes
    ----------
    elsewhere : callable or None
        Gets what is not here, while there is somebody to get it from.
    """

    mine: Source
    start: tuple[int, ...]
    shape: Shape
    elsewhere: Callable[[Region], Array] | None = None

    in_memory = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.mine.dtype

    @property
    def region(self) -> Region:
        """What is here, in the whole array."""
        return tuple(slice(o, o + n) for o, n in zip(self.start, self.mine.shape, strict=True))

    def read(self, region: Region, /) -> Array:
        """Return the elements of `region` of the whole array.

        Raises
        ------
        SourceError
            If it is not all here, and there is nobody to ask.
        """
        own = self.region
        lengths = tuple(s.stop - s.start for s in region)
        if 0 in lengths:
            return np.empty(lengths, self.dtype)
        if all(o.start <= s.start and s.stop <= o.stop for o, s in zip(own, region, strict=True)):
            return self.mine.read(within(region, self.start))
        if self.elsewhere is not None:
            return self.elsewhere(region)
        raise self._alone()

    def check(self, name: str) -> None:
        """Raise if there is nobody to ask for what is not here.

        Parameters
        ----------
        name : str
            The dataset, for the error.

        Raises
        ------
        SourceError
            Kind ``PARTS``.
        """
        if self.elsewhere is None and self.mine.shape != self.shape:
            raise self._alone(f"{name}: ")

    def _alone(self, name: str = "") -> SourceError:
        return SourceError(
            f"{name}only {show_region(self.region)} of an array of shape {self.shape} is here. Write it on all ranks: "
            "nwbflow.write(..., executor=nwbflow.parallel.mpi(comm))",
            kind=ErrorKind.PARTS,
        )
