"""What the engine is asked to do, and what it keeps count of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from nwbflow.encoding.checksum import crc32
from nwbflow.model.data import Source, Stream
from nwbflow.model.encoding import Encoded, Encoder
from nwbflow.model.layout import Layout, Shape
from nwbflow.model.receipt import DatasetReceipt
from nwbflow.model.sink import Sink
from nwbflow.planning.grid import grid_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One dataset to fill.

    Parameters
    ----------
    name : str
        The dataset's path, for events and errors.
    data : Source or Stream
        Where the elements come from.
    layout : Layout
        What the dataset is when complete; for streams of unknown length the shape is the
        least it will have.
    sink : Sink
        The reserved dataset.
    encoder : Encoder or None
        ``None``: elements go through the sink's own filters.
    band_bytes : int
        How much of a re-readable source is read at a time, in bytes.
    open_bytes : int
        How much of a stream may wait for its chunks to become complete, in bytes.
    in_flight : int
        Chunks being encoded or waiting to be stored, at most.
    grow : bool
        Whether the dataset's shape follows what is stored, so that an interrupted write shows
        only what is there. Table columns keep their full length instead.
    aside : bool
        Whether a stream is drained in a thread of its own, side by side with others.
    stored : callable or None
        Gives the source's chunks, encoded already as this dataset has them, with their offsets: they are stored
        as they are.
    """

    name: str
    data: Source | Stream
    layout: Layout
    sink: Sink
    encoder: Encoder | None
    band_bytes: int
    open_bytes: int
    in_flight: int
    grow: bool
    aside: bool = False
    stored: Callable[[], Iterator[tuple[tuple[int, ...], Encoded]]] | None = None

    @property
    def raw_bytes(self) -> int | None:
        """Size before filters, in bytes; ``None`` where the length is unknown."""
        if isinstance(self.data, Source) or None not in self.data.maxshape:
            return self.layout.nbytes
        return None


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """What is remembered of a stored chunk until it is verified.

    Parameters
    ----------
    crc : int or None
        CRC-32 of the stored bytes; ``None`` where the sink's own filters made them.
    raw_crc : int or None
        CRC-32 of the elements before filters, if asked for.
    lengths : tuple of int
        How many elements of the chunk lie inside the dataset, per axis.
    """

    crc: int | None
    raw_crc: int | None
    lengths: Shape


@dataclass(slots=True)
class Tally:
    """Running figures of one job; `seconds` is its wall time, once it is done."""

    job: Job
    chunks: dict[tuple[int, ...], StoredChunk] = field(default_factory=dict)
    raw_bytes: int = 0
    stored_bytes: int = 0
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    store_seconds: float = 0.0
    complete_rows: int = 0
    delivered: int = 0
    largest_block: int = 0
    seconds: float = 0.0
    scattered: int = 0
    shape: Shape = ()
    by: str = "nwbflow"
    _rows: dict[int, int] = field(default_factory=dict)

    def count_row(self, offset: tuple[int, ...]) -> None:
        """Note a chunk that is stored: rows are complete up to the first that lacks one, in whatever order they come.

        Parameters
        ----------
        offset : tuple of int
            Of a chunk of a source, which is stored for the first time.
        """
        shape, chunks = self.job.layout.shape, self.job.layout.chunks
        if chunks is None:
            return
        wanted = math.prod(grid_shape(shape, chunks)[1:])
        self._rows[offset[0]] = self._rows.get(offset[0], 0) + 1
        while self._rows.get(self.complete_rows) == wanted:
            self.complete_rows = min(self.complete_rows + chunks[0], shape[0])

    def receipt(self) -> DatasetReceipt:
        """Return the final figures."""
        layout = self.job.sink.layout
        elements = 1
        for length in self.shape:
            elements *= length
        total = 0
        for offset in sorted(self.chunks):
            chunk = self.chunks[offset]
            total = crc32((chunk.crc or chunk.raw_crc or 0).to_bytes(4, "little"), total)
        by = self.by if self.job.encoder is not None else self.job.sink.backend
        if self.job.stored is not None:
            by = "its source"
        return DatasetReceipt(
            name=self.job.name,
            layout=replace(layout, shape=self.shape),
            chunks=len(self.chunks),
            raw_bytes=elements * layout.dtype.itemsize,
            stored_bytes=self.job.sink.stored_bytes,
            read_seconds=self.read_seconds,
            encode_seconds=self.encode_seconds,
            store_seconds=self.store_seconds,
            encoded_by=by if layout.filters or self.job.stored is not None else "none",
            unwritten=max(0, elements - self.delivered),
            crc32=total,
        )
