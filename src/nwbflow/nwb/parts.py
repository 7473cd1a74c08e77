"""Data of which each rank of an MPI program has a part."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pynwb
from hdmf.build import GroupBuilder

from nwbflow.encoding.checksum import crc32
from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.data import Array, Region, Source
from nwbflow.model.layout import Shape
from nwbflow.nwb.candidates import Candidate, find, path_of
from nwbflow.nwb.data import SourceData
from nwbflow.parallel.manifest import Described, Holding, Manifest, Scouted
from nwbflow.sources.arrays import as_source
from nwbflow.sources.parts import PartSource

SAMPLE_BYTES = 2**20
"""How much is compared of each end of a whole array that is not in memory, in bytes."""


def part(data: Any, *, start: int | Sequence[int], shape: Shape) -> SourceData:
    """Declare the part of a dataset that this rank of an MPI program has.

    Parameters
    ----------
    data : array_like or SourceData
        This rank's elements: a numpy array, a memory map, anything sliceable with shape and dtype, or
        :func:`nwbflow.raw`. It may have no rows.
    start : int or sequence of int
        Where the first of them lies in the whole dataset, in elements: a row, or a place on every axis.
    shape : tuple of int
        Lengths of the whole dataset, in elements; the same on every rank.

    Returns
    -------
    SourceData
        Accepted as ``data`` by every PyNWB constructor, where it counts as the whole dataset. It can be written by
        :func:`nwbflow.write` with :func:`nwbflow.parallel.mpi` only.

    Raises
    ------
    nwbflow.errors.SettingsError
        If `data` can't be read again, or lie outside of `shape`.
    """
    mine = _readable(data)
    whole = tuple(int(n) for n in shape)
    first = (int(start), *(0 for _ in whole[1:])) if isinstance(start, int | np.integer) else tuple(map(int, start))
    ranks = {len(whole), len(first), len(mine.shape)}
    if (
        len(ranks) != 1
        or not whole
        or any(o < 0 or o + n > length for o, n, length in zip(first, mine.shape, whole, strict=True))
    ):
        raise SettingsError(
            f"a part of shape {mine.shape} at {start} doesn't lie in a dataset of shape {shape}: start is where its "
            "first element lies in the whole, shape the whole's",
            kind=ErrorKind.PARTS,
        )
    return SourceData(PartSource(mine, first, whole))


def _readable(data: Any) -> Source:
    if isinstance(data, SourceData):
        return data.source
    if isinstance(data, list | tuple):
        return as_source(np.asarray(data))
    if hasattr(data, "shape") and hasattr(data, "dtype") and hasattr(data, "__getitem__"):
        return as_source(data)
    raise SettingsError(
        f"a part of type {type(data).__name__} can't be read again: give an array, anything with shape, dtype and "
        "slicing, or nwbflow.raw(...)",
        kind=ErrorKind.OPTION,
    )


def scout(nwbfile: pynwb.NWBFile) -> Scouted:
    """Return what a file is made of, as far as the ranks that write it must agree; nothing is written or changed.

    Parameters
    ----------
    nwbfile : pynwb.NWBFile
        This rank's.
    """
    manager = pynwb.get_manager()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when it is written
        # as for an export: HDMF notes no file on the containers
        root = manager.build(nwbfile, source="", root=True, export=True)
    found = find(root, manager, lambda _: False)
    seen: dict[int, str] = {}
    datasets = {candidate.name: _described(candidate, seen) for candidate in found}
    sources = {c.name: c.data for c in found if isinstance(c.data, Source)}
    return Scouted(Manifest(paths=frozenset(_paths(root)), datasets=datasets), sources)


def _described(candidate: Candidate, seen: dict[int, str]) -> Described:
    data = candidate.data
    twin = seen.setdefault(id(data), candidate.name)
    if not isinstance(data, Source):
        return Described(
            holding=Holding.STREAM, shape=data.maxshape, dtype=str(data.dtype), region=(), twin=twin, crc=None
        )
    if isinstance(data, PartSource):
        return Described(
            holding=Holding.PART, shape=data.shape, dtype=str(data.dtype), region=data.region, twin=twin, crc=None
        )
    everything = tuple(slice(0, n) for n in data.shape)
    return Described(
        holding=Holding.ALL,
        shape=data.shape,
        dtype=str(data.dtype),
        region=everything,
        twin=candidate.name,
        crc=_sum(data, everything),
    )


def _sum(source: Source, everything: Region) -> int:
    """Return a sum of all elements, or of the ends of what would have to be read."""
    if source.in_memory:
        return _bytes_of(source.read(everything), 0)
    row = max(1, int(np.prod(source.shape[1:], dtype=np.int64)) * source.dtype.itemsize)
    rows = min(source.shape[0], max(1, SAMPLE_BYTES // row))
    total = _bytes_of(source.read((slice(0, rows), *everything[1:])), 0)
    return _bytes_of(source.read((slice(source.shape[0] - rows, source.shape[0]), *everything[1:])), total)


def _bytes_of(data: Array, before: int) -> int:
    return crc32(np.ascontiguousarray(data).reshape(-1).view(np.uint8), before)


def _paths(group: GroupBuilder) -> Iterator[str]:
    """Give the path of everything below a group."""
    for child in group.groups.values():
        yield path_of(child)
        yield from _paths(child)
    for item in (*group.datasets.values(), *group.links.values()):
        yield path_of(item)
