"""Which rows of a dataset can be read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import h5py
from h5py import h5d

from nwbflow.links.walk import DAMAGE
from nwbflow.model.data import Region
from nwbflow.sources.stored import chunk_offsets
from nwbflow.tools.links.copying import can_be_filtered
from nwbflow.tools.links.elements import has_objects, read
from nwbflow.tools.mend.isolated import Say

type Span = tuple[int, int]
"""Rows from the first up to, and without, the second."""

_PIECE_BYTES = 4 * 2**20
_OBJECT_ROWS = 2**12
_MOST_CORNERS = 2**20
"""Chunks that are looked for one by one where their index is broken."""
_MOST_FAILURES = 200
"""Pieces that fail one after the other, after which no more are tried."""
_FAULTS = (*DAMAGE, MemoryError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What of a dataset can be read.

    Parameters
    ----------
    total : int
        Rows it says it has; 1 if it is a single value.
    broken : tuple of Span
        What can't be read.
    unstored : tuple of Span
        What was never stored, and so would be read as the fill value.
    why : str
        What was wrong with the first broken rows.
    chunks : tuple of tuple of int
        Positions of the stored chunks that can be read.
    checked : bool
        Whether the stored bytes could be decoded here.
    """

    total: int
    broken: tuple[Span, ...] = ()
    unstored: tuple[Span, ...] = ()
    why: str = ""
    chunks: tuple[tuple[int, ...], ...] = ()
    checked: bool = True

    @property
    def kept(self) -> int:
        """Rows up to the last one that is there."""
        kept = self.total
        for start, stop in reversed(merged([*self.broken, *self.unstored])):
            if stop < kept:
                break
            kept = start
        return kept

    @property
    def damaged(self) -> tuple[Span, ...]:
        """Which of the rows that are kept are not there."""
        return tuple(span for span in merged([*self.broken, *self.unstored]) if span[0] < self.kept)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Join spans that touch.

    Parameters
    ----------
    spans : iterable of Span
        In any order.
    """
    found: list[Span] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        elif start < stop:
            found.append((start, stop))
    return found


def is_elsewhere(dataset: h5py.Dataset) -> bool:
    """Return whether the elements of a dataset are in other files or datasets.

    Parameters
    ----------
    dataset : h5py.Dataset
        Open.
    """
    settings = dataset.id.get_create_plist()
    return settings.get_layout() == h5d.VIRTUAL or bool(settings.get_external_count())


def examine(dataset: h5py.Dataset, say: Say) -> Rows:
    """Read a whole dataset, and find out what can't be read.

    Parameters
    ----------
    dataset : h5py.Dataset
        Open.
    say : callable
        Is told from time to time that this goes on.
    """
    shape = dataset.shape
    if shape is None or is_elsewhere(dataset):
        return Rows(total=0)
    if not shape:
        why = _fault(dataset, ()) or ("it was never stored" if _unallocated(dataset) else "")
        return Rows(total=1, broken=((0, 1),) if why else (), why=why)
    if math.prod(shape) == 0:
        return Rows(total=shape[0])
    if dataset.chunks is None:
        return _contiguous(dataset, say)
    return _chunked(dataset, say)


def _unallocated(dataset: h5py.Dataset) -> bool:
    return (
        dataset.id.get_create_plist().get_layout() == h5d.CONTIGUOUS
        and dataset.id.get_storage_size() == 0
        and dataset.id.get_offset() is None
    )


def _contiguous(dataset: h5py.Dataset, say: Say) -> Rows:
    total = dataset.shape[0]
    if _unallocated(dataset):
        return Rows(total=total, unstored=((0, total),))
    row_bytes = max(1, math.prod(dataset.shape[1:]) * dataset.id.get_type().get_size())
    step = max(1, _PIECE_BYTES // row_bytes)
    if has_objects(dataset.id.get_type()):
        step = min(step, _OBJECT_ROWS)
    broken, why = _spans(dataset, range(0, total, step), step, say)
    return Rows(total=total, broken=broken, why=why)


def _chunked(dataset: h5py.Dataset, say: Say) -> Rows:
    total, rows = dataset.shape[0], dataset.chunks[0]
    try:
        offsets = [offset for offset in chunk_offsets(dataset) if _inside(offset, dataset.shape)]
        broken: list[Span] = []
        why = ""
    except _FAULTS:
        offsets, broken, why = _searched(dataset, say)
    unstored = _gaps(dataset, offsets)
    checked = can_be_filtered(dataset)
    objects = has_objects(dataset.id.get_type())
    good = []
    for offset in offsets:
        say("")
        region = tuple(slice(o, min(o + c, n)) for o, c, n in zip(offset, dataset.chunks, dataset.shape, strict=True))
        fault = _fault(dataset, region) if checked else _missing(dataset, offset)
        if fault and objects and len(offset) == 1:
            spans, fault = _spans(dataset, [offset[0]], rows, say)
            broken += spans
            why = why or fault
        elif fault:
            broken.append((region[0].start, region[0].stop))
            why = why or fault
        else:
            good.append(offset)
    return Rows(
        total=total,
        broken=tuple(merged(broken)),
        unstored=tuple(_without(unstored, merged(broken))),
        why=why,
        chunks=tuple(good),
        checked=checked,
    )


def _inside(offset: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return all(o < n for o, n in zip(offset, shape, strict=True))


def _without(spans: list[Span], others: list[Span]) -> Iterator[Span]:
    """Give spans, but what is in others too."""
    for start, stop in spans:
        at = start
        for begin, end in others:
            if end <= at or begin >= stop:
                continue
            if begin > at:
                yield at, begin
            at = max(at, end)
        if at < stop:
            yield at, stop


def _searched(dataset: h5py.Dataset, say: Say) -> tuple[list[tuple[int, ...]], list[Span], str]:
    """Look for chunks one by one: some parts of the index may be whole."""
    shape, chunks = dataset.shape, dataset.chunks
    why = "the index of its chunks is broken"
    count = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    if count > _MOST_CORNERS:
        return [], [(0, shape[0])], why
    found: list[tuple[int, ...]] = []
    broken: list[Span] = []
    for corner in itertools.product(*(range(0, n, c) for n, c in zip(shape, chunks, strict=True))):
        say("")
        try:
            if dataset.id.get_chunk_info_by_coord(corner).byte_offset is not None:
                found.append(corner)
        except _FAULTS:
            broken.append((corner[0], min(corner[0] + chunks[0], shape[0])))
    return found, merged(broken), why


def _gaps(dataset: h5py.Dataset, offsets: list[tuple[int, ...]]) -> list[Span]:
    """Return the rows of which at least one chunk was never stored."""
    total, rows = dataset.shape[0], dataset.chunks[0]
    needed = math.prod(-(-n // c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
    gaps, at = [], 0
    for start, group in itertools.groupby(sorted(offsets), key=lambda offset: offset[0]):
        stop = min(start + rows, total)
        whole = sum(1 for _ in group) == needed
        gaps.append((at, start if whole else stop))
        at = stop
    return merged([*gaps, (at, total)])


def _spans(dataset: h5py.Dataset, starts: Iterable[int], step: int, say: Say) -> tuple[tuple[Span, ...], str]:
    """Read rows in blocks; of one that fails, those before the first row that fails are good."""
    total, broken, why, failures = dataset.shape[0], [], "", 0
    for start in starts:
        say("")
        stop = min(start + step, total)
        fault = _fault(dataset, _rows(dataset, start, stop))
        if not fault:
            failures = 0
            continue
        why, failures = why or fault, failures + 1
        if failures > _MOST_FAILURES:
            broken.append((start, total))
            break
        low, high = start, stop  # the rows before `low` can be read, one before `high` can't
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _fault(dataset, _rows(dataset, low, middle)) else (middle, high)
        broken.append((low, stop))
    return tuple(merged(broken)), why


def _rows(dataset: h5py.Dataset, start: int, stop: int) -> Region:
    return (slice(start, stop), *(slice(0, n) for n in dataset.shape[1:]))


def _fault(dataset: h5py.Dataset, region: Region) -> str:
    """Read; return what is wrong, or nothing."""
    try:
        read(dataset, region)
    except _FAULTS as error:
        return brief(error)
    return ""


def _missing(dataset: h5py.Dataset, offset: tuple[int, ...]) -> str:
    try:
        dataset.id.read_direct_chunk(offset)
    except _FAULTS as error:
        return brief(error)
    return ""


def brief(error: BaseException) -> str:
    """Return what HDF5 says, without the names of its functions.

    Parameters
    ----------
    error : BaseException
        What h5py raised.
    """
    text = str(error).strip("'\"")
    inner = text.rpartition("(")[2].rstrip(")") if text.endswith(")") else text
    return inner or type(error).__name__
