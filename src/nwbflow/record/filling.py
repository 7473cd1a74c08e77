"""One dataset of a recording being filled: rows in, chunks out."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import h5py
import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.encoding.pipeline import FilterEncoder, encoder_for
from nwbflow.errors import ErrorKind, StorageError, UnsupportedError
from nwbflow.model.data import Array
from nwbflow.model.layout import Layout, Shape
from nwbflow.model.receipt import DatasetReceipt
from nwbflow.record.manifest import LiveDataset
from nwbflow.record.preview import Showing
from nwbflow.sinks.hdf5 import Hdf5Sink


def live_encoder(dataset: LiveDataset) -> FilterEncoder:
    """Return the encoder of a dataset's chunks.

    Raises
    ------
    UnsupportedError
        If only HDF5 itself can run its filters.
    """
    encoder = encoder_for(dataset.layout, effort=dataset.effort)
    if encoder is None:
        raise UnsupportedError(
            f"{dataset.name}: a recording needs a codec that can be run outside HDF5, such as 'gzip', 'gzip-fast' or "
            "(with hdf5plugin) 'zstd'",
            kind=ErrorKind.CODEC,
        )
    return encoder


class Filling:
    """One dataset being filled, and what is remembered of its chunks."""

    def __init__(self, spec: LiveDataset, dataset: h5py.Dataset) -> None:
        self.spec = spec
        self.dataset = dataset
        self.sink = Hdf5Sink(dataset)
        self.encoder = live_encoder(spec)
        found, planned = self.sink.layout, spec.layout
        if (found.dtype, found.chunks, found.filters) != (planned.dtype, planned.chunks, planned.filters):
            raise StorageError(f"{spec.name} is {found}, planned was {planned}", kind=ErrorKind.MISMATCH)
        self.chunks: Shape = planned.chunks or ()
        self.rows = self.stored_rows = 0
        self.crcs = array("I")
        self.stored_bytes = 0
        self.encode_seconds = self.store_seconds = 0.0
        self.not_numbers = self.backward = 0
        self.waiting = 0
        self.showing = Showing()
        self._open: Array | None = None
        self._last = -np.inf

    def add(self, rows: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Take rows in; give out the chunks that became complete."""
        if self.spec.field == "timestamps":
            self._count(rows)
        height = self.chunks[0]
        at = 0
        while at < len(rows):
            filled = self.rows % height
            take = min(height - filled, len(rows) - at)
            if self._open is None:
                self._open = np.empty((height, *self.spec.row_shape), self.spec.layout.dtype)
            self._open[filled : filled + take] = rows[at : at + take]
            self.rows += take
            at += take
            if filled + take == height:
                yield from self._cut(self._open, self.rows - height)
                self._open = None

    def rest(self) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Give out the chunks that are not complete."""
        filled = self.rows % self.chunks[0]
        if self._open is not None:
            yield from self._cut(self._open[:filled], self.rows - filled)
            self._open = None

    def present(self) -> list[tuple[tuple[int, ...], Array]]:
        """Return a copy of the chunks that are not complete."""
        filled = self.rows % self.chunks[0]
        return [] if self._open is None else list(self._cut(self._open[:filled].copy(), self.rows - filled))

    def _cut(self, band: Array, row: int) -> Iterator[tuple[tuple[int, ...], Array]]:
        axes = [range(0, n, c) for n, c in zip(self.spec.row_shape, self.chunks[1:], strict=True)]
        for place in product(*axes):
            region = tuple(slice(p, p + c) for p, c in zip(place, self.chunks[1:], strict=True))
            yield (row, *place), band[(slice(None), *region)]

    def offsets(self) -> Iterator[tuple[int, ...]]:
        """Give the place of every chunk, in the order in which they were stored."""
        shape = (self.rows, *self.spec.row_shape)
        return product(*(range(0, n, c) for n, c in zip(shape, self.chunks, strict=True)))

    def _count(self, times: Array) -> None:
        flat = times.reshape(-1).astype(float)
        self.not_numbers += int(np.isnan(flat).sum())
        flat = flat[~np.isnan(flat)]
        if len(flat):
            self.backward += int(flat[0] < self._last) + int((flat[1:] < flat[:-1]).sum())
            self._last = float(flat[-1])

    def receipt(self) -> DatasetReceipt:
        """Return what is to be told of the finished dataset."""
        total = 0
        for crc in self.crcs:
            total = crc32(crc.to_bytes(4, "little"), total)
        return DatasetReceipt(
            name=self.spec.name,
            layout=self.layout,
            chunks=len(self.crcs),
            raw_bytes=self.rows * self.spec.row_bytes,
            stored_bytes=self.stored_bytes,
            encode_seconds=self.encode_seconds,
            store_seconds=self.store_seconds,
            encoded_by="nwbflow" if self.spec.layout.filters else "none",
            crc32=total,
        )

    @property
    def layout(self) -> Layout:
        """How the dataset lies in the file, with the rows it has."""
        return replace(self.spec.layout, shape=(self.rows, *self.spec.row_shape))
