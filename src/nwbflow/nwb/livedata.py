"""What stands for data that are yet to come."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from hdmf.backends.hdf5 import H5DataIO

from nwbflow.model.layout import MaxShape
from nwbflow.nwb.data import DataIO
from nwbflow.planning.chunks import ChunkSpec
from nwbflow.sources.streams import BlockStream


class LiveData(np.ndarray[Any, np.dtype[Any]]):
    """Stands for rows that a :class:`nwbflow.Recorder` will be given: an array that has none.

    An array and no iterator, because HDMF asks for the ids of a table whose columns are iterators, which nobody
    knows before there are rows, and compares the lengths of columns, which are all nought.
    """

    @classmethod
    def of(cls, lengths: MaxShape, dtype: np.dtype[Any]) -> Self:
        """Make one for rows of ``lengths[1:]``."""
        return np.empty((0, *(n or 0 for n in lengths[1:])), dtype).view(cls)

    @property
    def stream(self) -> BlockStream:
        """The same for the engine: blocks of any number of rows, so far none."""
        return BlockStream((), maxshape=(None, *self.shape[1:]), dtype=self.dtype)


class LiveDataIO(DataIO):
    """Live data with settings for how they are stored."""

    @classmethod
    def of(
        cls, lengths: MaxShape, dtype: np.dtype[Any], *, chunks: ChunkSpec = None, codec: object = None
    ) -> LiveDataIO:
        """Make one for rows of ``lengths[1:]``."""
        return cls(LiveData.of(lengths, dtype), maxshape=lengths, chunks=chunks, codec=codec)

    @property
    def shape(self) -> None:
        """Not known: a time series is not to compare its length with that of its time stamps (a table asks for it)."""
        return


def is_live(data: Any) -> bool:
    """Whether data were declared with :func:`nwbflow.live`."""
    return isinstance(data.data if isinstance(data, H5DataIO) else data, LiveData)
