"""Looking at the chunks of an iterator while it is written: what ``hdmf.monitor`` had, for every iterator.

HDMF dropped the module in version 5. There it took a ``DataChunkIterator`` only, saw nothing in a ``for`` loop, and
failed with an ``AttributeError`` where it meant to say that the data have not ended yet.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.data_utils import AbstractDataChunkIterator, DataChunk, DataChunkIterator

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.layout import MaxShape, Shape
from nwbflow.nwb.iterators import as_block, ends_of


class DataChunkProcessor(AbstractDataChunkIterator):  # type: ignore[misc]
    """Base class of iterators that look at every chunk of another one on its way into the file.

    A subclass has :meth:`process_data_chunk` and :meth:`compute_final_result`. Give it to a container in place of the
    data.

    Parameters
    ----------
    data : AbstractDataChunkIterator or iterable of array_like
        Any iterator of HDMF's kinds, :func:`nwbflow.blocks`, :func:`nwbflow.raw`; another iterable gives one row at a
        time, as HDMF has it.

    Attributes
    ----------
    watched : AbstractDataChunkIterator
        The iterator whose chunks are looked at.

    Raises
    ------
    nwbflow.errors.SettingsError
        If `data` are none of these.
    """

    def __init__(self, data: AbstractDataChunkIterator | Iterable[Any]) -> None:
        if isinstance(data, H5DataIO):
            raise SettingsError(
                f"{type(self).__name__} was given settings around data: put them around it instead, as in "
                f"nwbflow.DataIO({type(self).__name__}(data), chunks=...)",
                kind=ErrorKind.OPTION,
            )
        if not isinstance(data, AbstractDataChunkIterator):
            if not isinstance(data, Iterable):
                raise SettingsError(
                    f"{type(self).__name__} was given {type(data).__name__}, which can't be iterated over: give it an "
                    "iterator of HDMF's, or nwbflow.blocks(...)",
                    kind=ErrorKind.OPTION,
                )
            data = DataChunkIterator(data=data)
        self.watched: AbstractDataChunkIterator = data
        self._done = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DataChunk:
        try:
            chunk = next(self.watched)
        except StopIteration:
            self._done = True
            raise
        self.process_data_chunk(chunk)
        return chunk

    @abstractmethod
    def process_data_chunk(self, data_chunk: DataChunk) -> None:
        """Look at one chunk, which is about to be stored; called in the order in which the iterator gives them.

        Parameters
        ----------
        data_chunk : hdmf.data_utils.DataChunk
            Its ``data`` and ``selection``; not to be changed.
        """

    @abstractmethod
    def compute_final_result(self) -> Any:
        """Return what came of all chunks; called when the iterator has ended."""

    def get_final_result(self) -> Any:
        """Return what came of all chunks.

        Raises
        ------
        nwbflow.errors.SettingsError
            Kind ``EXHAUSTED``, if the iterator has not ended.
        """
        if not self._done:
            raise SettingsError(
                f"{type(self).__name__}: the iterator has not ended, so there is no final result; write the file first",
                kind=ErrorKind.EXHAUSTED,
            )
        return self.compute_final_result()

    def recommended_chunk_shape(self) -> Shape | None:
        """Return the chunk shape that the iterator recommends, if it does."""
        chunks: Shape | None = self.watched.recommended_chunk_shape()
        return chunks

    def recommended_data_shape(self) -> Shape | None:
        """Return the shape that the iterator expects at first."""
        shape: Shape | None = self.watched.recommended_data_shape()
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        dtype: np.dtype[Any] = np.dtype(self.watched.dtype)
        return dtype

    @property
    def maxshape(self) -> MaxShape:
        """Promised shape, ``None`` where unknown."""
        return tuple(self.watched.maxshape)


class NumSampleCounter(DataChunkProcessor):
    """Counts the samples of an iterator while it is written.

    Samples are rows: what the first axis (of a ``DataChunkIterator``: the one it iterates over) reaches to. So chunks
    may come in any order and may be parts of rows.

    Parameters
    ----------
    data : AbstractDataChunkIterator or iterable of array_like
        As in :class:`DataChunkProcessor`.
    """

    def __init__(self, data: AbstractDataChunkIterator | Iterable[Any]) -> None:
        super().__init__(data)
        self._axis = getattr(self.watched, "iter_axis", 0)
        self._count = 0

    def process_data_chunk(self, data_chunk: DataChunk) -> None:
        """Count one chunk."""
        ends = ends_of(as_block(data_chunk, self.maxshape, type(self).__name__))
        self._count = max(self._count, ends[self._axis])

    def compute_final_result(self) -> int:
        """Return the number of samples."""
        return self._count
