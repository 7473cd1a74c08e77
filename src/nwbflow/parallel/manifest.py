"""What each rank is about to write, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Region, Source
from nwbflow.model.layout import MaxShape
from nwbflow.planning.parts import missing, overlap
from nwbflow.sources.arrays import show_region


class Holding(StrEnum):
    """How much of a dataset one rank has."""

    PART = "a part"
    ALL = "the whole array"
    STREAM = "an iterator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One dataset of numbers, as one rank has it.

    Parameters
    ----------
    holding : Holding
        How much of it is there.
    shape : tuple of int or None
        Of the whole dataset.
    dtype : str
        Of the elements there.
    region : tuple of slice
        What is there.
    twin : str
        The first dataset that is the same object.
    crc : int or None
        Sum of the elements, or of a sample, of a whole array.
    """

    holding: Holding
    shape: MaxShape
    dtype: str
    region: Region
    twin: str
    crc: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All one rank is about to write.

    Parameters
    ----------
    paths : frozenset of str
        Every group, dataset and link.
    datasets : mapping of str to Described
        Those of numbers, by path.
    """

    paths: frozenset[str]
    datasets: Mapping[str, Described]


@dataclass(frozen=True, slots=True)
class Scouted:
    """What a rank has, before anything is written.

    Parameters
    ----------
    manifest : Manifest
        For the others.
    sources : mapping of str to Source
        Its own elements, by dataset.
    """

    manifest: Manifest
    sources: Mapping[str, Source]


def agreed(manifests: Sequence[Manifest]) -> dict[str, tuple[Region, ...]]:
    """Return which rank has what of every dataset that lies in parts.

    Raises
    ------
    SourceError
        Kind ``PARTS``, ``SHAPE`` or ``DTYPE``: naming dataset and ranks, if the ranks don't agree.
    """
    first = manifests[0]
    for rank, other in enumerate(manifests):
        for path in sorted(first.paths ^ other.paths):
            has, lacks = (0, rank) if path in first.paths else (rank, 0)
            raise _refusal(path, f"rank {has} has it and rank {lacks} has not. Make the same containers on every rank")
        for name in first.datasets:
            _compare(name, first.datasets[name], other.datasets.get(name), rank)
    parts = [name for name, described in first.datasets.items() if described.holding is Holding.PART]
    found = {name: tuple(manifest.datasets[name].region for manifest in manifests) for name in parts}
    for name, regions in found.items():
        _check_cover(name, regions, first.datasets[name].shape)
    return found


def _compare(name: str, here: Described, there: Described | None, rank: int) -> None:
    if there is None or here.holding is not there.holding:
        what = "no numbers" if there is None else there.holding
        raise _refusal(name, f"rank 0 has {here.holding} of it, rank {rank} {what}. Declare it alike on every rank")
    if here.holding is Holding.STREAM and rank:
        raise _refusal(
            name,
            "an iterator on every rank: nobody knows which rows are whose. Give each rank's rows as "
            "nwbflow.part(rows, start=..., shape=...)",
        )
    if here.shape != there.shape:
        raise _refusal(
            name,
            f"its whole shape is {here.shape} on rank 0 and {there.shape} on rank {rank}. Where each rank has rows of "
            "its own, give them as nwbflow.part(rows, start=..., shape=...), with the same shape everywhere",
            ErrorKind.SHAPE,
        )
    if here.dtype != there.dtype:
        raise _refusal(name, f"{here.dtype} on rank 0 and {there.dtype} on rank {rank}", ErrorKind.DTYPE)
    if here.twin != there.twin:
        raise _refusal(name, f"the same object as {here.twin} on rank 0, as {there.twin} on rank {rank}")
    if here.crc != there.crc:
        raise _refusal(
            name,
            f"other values on rank {rank} than on rank 0, so those of rank {rank} would be lost. Where each rank has "
            "rows of its own, give them as nwbflow.part(rows, start=..., shape=...); else send them from one rank to "
            "all (comm.bcast)",
        )


def _check_cover(name: str, regions: Sequence[Region], shape: MaxShape) -> None:
    both = overlap(regions)
    if both is not None:
        one, other, shared = both
        raise _refusal(name, f"ranks {one} and {other} both have {show_region(shared)}. Give each element once")
    count, rows = missing(regions, tuple(n or 0 for n in shape))
    if count:
        where = "" if rows is None else f", some of them in {show_region(rows)}"
        raise _refusal(
            name,
            f"{count} elements of an array of shape {shape} are on no rank{where}. Together, the ranks' parts must "
            "make the whole of it",
        )


def _refusal(name: str, text: str, kind: ErrorKind = ErrorKind.PARTS) -> SourceError:
    return SourceError(f"{name}: {text}", kind=kind)
