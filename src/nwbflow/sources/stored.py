"""The chunks of a dataset as they are stored, to be stored elsewhere without decoding them."""

from __future__ import annotations

from collections.abc import Iterator

import h5py

from nwbflow.model.encoding import Encoded


def stored_chunks(dataset: h5py.Dataset) -> Iterator[tuple[tuple[int, ...], Encoded]]:
    """Give every stored chunk of a dataset, in the order of their offsets.

    Parameters
    ----------
    dataset : h5py.Dataset
        Chunked; stays open until the last chunk was given.

    Yields
    ------
    tuple of (tuple of int, Encoded)
        Position of the chunk's first element, and its bytes after all filters with the filters left out for it.
        Chunks that were never written are left out.
    """
    for offset in chunk_offsets(dataset):
        mask, data = dataset.id.read_direct_chunk(offset)
        yield offset, Encoded(data, int(mask))


def chunk_offsets(dataset: h5py.Dataset) -> list[tuple[int, ...]]:
    """Return the positions of the first elements of all stored chunks, in order.

    Parameters
    ----------
    dataset : h5py.Dataset
        Chunked.
    """
    offsets: list[tuple[int, ...]] = []
    # asking for one chunk's place after the other takes a search each
    dataset.id.chunk_iter(lambda info: offsets.append(tuple(int(o) for o in info.chunk_offset)))
    return sorted(offsets)
