"""One chunk from elements to bytes; runs in the pool."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from nwbflow.encoding.cast import exact
from nwbflow.encoding.checksum import crc32
from nwbflow.engine.job import Job, StoredChunk
from nwbflow.model.data import Array
from nwbflow.model.encoding import Encoded, Encoder
from nwbflow.model.layout import Layout, Shape


@dataclass(frozen=True, slots=True)
class Work:
    """One chunk's elements on their way to the encoder.

    Parameters
    ----------
    job : Job
        The dataset.
    offset : tuple of int
        Position of the chunk's first element.
    data : numpy.ndarray
        The elements inside the dataset (smaller than a chunk at the edges).
    arrived : float
        When the last of them arrived (``time.perf_counter``).
    read_seconds : float
        Time spent getting them.
    """

    job: Job
    offset: tuple[int, ...]
    data: Array
    arrived: float
    read_seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """One chunk ready to be stored."""

    encoded: Encoded
    chunk: StoredChunk
    seconds: float


def encode(work: Work, *, keep_raw_crc: bool) -> Finished:
    """Convert, pad, encode and sum one chunk.

    Raises
    ------
    SourceError
        If a value can't be stored without loss.
    """
    job = work.job
    if job.encoder is None:
        raise TypeError(f"{job.name} has no encoder")
    return encode_chunk(
        work.data, work.offset, name=job.name, layout=job.layout, encoder=job.encoder, keep_raw_crc=keep_raw_crc
    )


def encode_chunk(
    elements: Array, offset: tuple[int, ...], *, name: str, layout: Layout, encoder: Encoder, keep_raw_crc: bool
) -> Finished:
    """Convert, pad, encode and sum the elements of the chunk at `offset`; the other parameters are the job's.

    Raises
    ------
    SourceError
        If a value can't be stored without loss.
    """
    started = time.perf_counter()
    data = exact(elements, layout.dtype, name=name, offset=offset)
    raw = crc32(np.ascontiguousarray(data).reshape(-1).view(np.uint8)) if keep_raw_crc else None
    encoded = encoder.encode(padded(data, layout))
    return Finished(encoded, StoredChunk(crc32(encoded.data), raw, data.shape), time.perf_counter() - started)


def padded(data: Array, layout: Layout) -> Array:
    """Return `data` as one full chunk, edges filled with the fill value (HDF5 stores whole chunks)."""
    if layout.chunks is None or data.shape == layout.chunks:
        return data
    full = blank(layout.chunks, layout)
    full[tuple(slice(0, n) for n in data.shape)] = data
    return full


def blank(shape: Shape, layout: Layout) -> Array:
    """Return an array of the fill value."""
    if layout.fillvalue:
        return np.full(shape, layout.fillvalue, dtype=layout.dtype)
    return np.zeros(shape, dtype=layout.dtype)
