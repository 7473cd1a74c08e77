"""Projected memory: decided, shown and, where it does not fit, refused before anything is written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from nwbflow.errors import ErrorKind, PlanError, SettingsError
from nwbflow.model.layout import Layout, Shape
from nwbflow.planning.grid import band_shape, grid_shape

COPIES = 3
"""Chunk sizes one chunk in flight takes: gathered, shuffled, encoded (in the worst case no smaller)."""

PLAIN_BAND_BYTES = 64 * 2**20
"""Most that is written to a contiguous dataset at a time, in bytes."""

DEFAULT_MEMORY = 2**30
"""Memory a write may take if nobody says otherwise and the machine has plenty, in bytes."""

_LEAST_DEFAULT = 64 * 2**20
# Halvings after which any band is down to one chunk.
_NARROWEST = 64
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", re.IGNORECASE)


class Feed(StrEnum):
    """How a dataset's elements arrive: there already, to be read band by band, or block by block, once."""

    MEMORY = "in memory"
    READ = "read"
    STREAM = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One dataset to be planned.

    Parameters
    ----------
    name : str
        Path inside the file.
    layout : Layout
        How it is stored.
    feed : Feed
        How its elements arrive.
    """

    name: str
    layout: Layout
    feed: Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPlan:
    """What filling one dataset will take.

    Parameters
    ----------
    name : str
        Path inside the file.
    layout : Layout
        How it is stored.
    feed : Feed
        How its elements arrive.
    band_bytes : int
        Most that is read (or, where storage is contiguous, written) at a time, in bytes: the
        ``max_bytes`` for :func:`nwbflow.planning.grid.bands`. 0 where no bands are made.
    in_flight : int
        Most chunks being encoded or waiting to be stored; streams filled side by side share the
        largest number among them.
    peak_bytes : int
        Memory beyond what was there before, at most, in bytes.
    chunks_total : int or None
        Number of chunks (0 where storage is contiguous); ``None`` while a length is unknown.
    """

    name: str
    layout: Layout
    feed: Feed
    band_bytes: int
    in_flight: int
    peak_bytes: int
    chunks_total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a whole write will take; ``str(plan)`` is a table.

    Parameters
    ----------
    datasets : tuple of DatasetPlan
        One for each request, in order.
    workers : int
        Encoding threads.
    memory : int
        Allowed, in bytes.
    peak_bytes : int
        Projected, in bytes: datasets follow each other; streams filled side by side add up.
    """

    datasets: tuple[DatasetPlan, ...]
    workers: int
    memory: int
    peak_bytes: int

    def __str__(self) -> str:
        head = ("dataset", "shape", "dtype", "chunks", "each", "count", "feed", "band", "in flight", "peak")
        table = [head, *(_row(plan) for plan in self.datasets)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        peak = f"at most {format_bytes(self.peak_bytes)} of {format_bytes(self.memory)}"
        head_line = f"datasets: {len(self.datasets)}, workers: {self.workers}, memory: {peak}"
        return "\n".join([head_line, *(f"  {line.rstrip()}" for line in lines)])


def _row(plan: DatasetPlan) -> tuple[str, ...]:
    layout = plan.layout
    return (
        plan.name,
        str(layout.shape) if plan.chunks_total is not None else str(layout.maxshape),
        layout.dtype.name,
        "contiguous" if layout.chunks is None else str(layout.chunks),
        format_bytes(layout.chunk_bytes) if layout.chunks else "-",
        "unknown" if plan.chunks_total is None else str(plan.chunks_total),
        str(plan.feed),
        format_bytes(plan.band_bytes) if plan.band_bytes else "-",
        str(plan.in_flight) if layout.chunks else "-",
        format_bytes(plan.peak_bytes),
    )


def make_plan(requests: Sequence[Request], *, workers: int, memory: int, concurrent_streams: bool) -> Plan:
    """Project the memory a write takes, and refuse what does not fit.

    The model: a chunk in flight is three chunk sizes (:data:`COPIES`). A source to be read adds
    the band being read and every band that chunks in flight still look into. A stream adds one
    open row of chunks (all that share their place on the first axis); its blocks are the
    generator's own memory. Contiguous
    storage takes one band. To fit, these are given up in turn: chunks in flight (two a worker and
    two more, down to one a worker), width of bands (down to one chunk), workers (down to one chunk
    in flight).

    Parameters
    ----------
    requests : sequence of Request
        The datasets, in the order in which they are filled.
    workers : int
        Encoding threads.
    memory : int
        Allowed, in bytes.
    concurrent_streams : bool
        Whether all streams are filled side by side, sharing what is in flight.

    Returns
    -------
    Plan
        Never above `memory`.

    Raises
    ------
    PlanError
        Kind ``MEMORY``: does not fit even at its smallest; says both numbers and the way out.
    SettingsError
        Kind ``OPTION``: fewer than one worker.
    """
    if workers < 1:
        raise SettingsError(f"workers={workers}: at least 1 is needed", kind=ErrorKind.OPTION)
    together = [at for at, request in enumerate(requests) if concurrent_streams and request.feed is Feed.STREAM]
    groups = [[at] for at in range(len(requests)) if at not in set(together)] + ([together] if together else [])
    planned: dict[int, DatasetPlan] = {}
    peak = 0
    for places in groups:
        group = [requests[at] for at in places]
        plans = _fit(group, workers, memory)
        peak = max(peak, _group_peak(plans, group))
        planned |= dict(zip(places, plans, strict=True))
    datasets = tuple(planned[at] for at in range(len(requests)))
    return Plan(datasets=datasets, workers=workers, memory=memory, peak_bytes=peak)


def _fit(group: Sequence[Request], workers: int, memory: int) -> list[DatasetPlan]:
    """Return the most generous plans for datasets filled side by side that fit, or refuse."""
    for in_flight, narrowing in _steps(group, workers):
        plans = [_plan_one(request, in_flight, narrowing) for request in group]
        if _group_peak(plans, group) <= memory:
            return plans
    raise PlanError(_refusal(group, memory), kind=ErrorKind.MEMORY)


def _least(group: Sequence[Request]) -> int:
    """Return the smallest memory in which `group` can be filled side by side."""
    return _group_peak([_plan_one(request, 1, _NARROWEST) for request in group], group)


def _steps(group: Sequence[Request], workers: int) -> Iterator[tuple[int, int]]:
    """Yield (chunks in flight, halvings of the band), the most generous first."""
    halvings = max(_band_bytes(request, 0) for request in group).bit_length()
    yield from ((n, 0) for n in range(2 * workers + 2, workers, -1))
    yield from ((workers, narrowing) for narrowing in range(halvings))
    yield from ((n, _NARROWEST) for n in range(workers, 0, -1))


def _plan_one(request: Request, in_flight: int, narrowing: int) -> DatasetPlan:
    layout = request.layout
    total = _count(request)
    if layout.chunks is not None and total is not None:
        in_flight = min(in_flight, max(1, total))
    band = _band_bytes(request, narrowing)
    held = _held_bytes(request, band, in_flight)
    return DatasetPlan(
        name=request.name,
        layout=layout,
        feed=request.feed,
        band_bytes=band,
        in_flight=1 if layout.chunks is None else in_flight,
        peak_bytes=0 if _is_empty(request) else held + COPIES * in_flight * layout.chunk_bytes,
        chunks_total=total,
    )


def _group_peak(plans: Sequence[DatasetPlan], group: Sequence[Request]) -> int:
    """Memory of datasets filled side by side: what each holds, and what they have in flight together."""
    pairs = [(plan, request) for plan, request in zip(plans, group, strict=True) if not _is_empty(request)]
    held = sum(_held_bytes(request, plan.band_bytes, plan.in_flight) for plan, request in pairs)
    places = max((plan.in_flight for plan, _ in pairs), default=0)
    for plan, _ in sorted(pairs, key=lambda pair: pair[0].layout.chunk_bytes, reverse=True):
        taken = min(places, plan.in_flight)
        held += COPIES * taken * plan.layout.chunk_bytes
        places -= taken
    return held


def _held_bytes(request: Request, band: int, in_flight: int) -> int:
    """Memory a dataset takes beside its chunks in flight."""
    layout = request.layout
    held = 0
    if layout.chunks is None:
        held += band
    elif request.feed is Feed.STREAM:
        held += math.prod(_row_of_chunks(request)) * layout.chunk_bytes
    elif band:
        shape = band_shape(layout.shape, layout.chunks, layout.dtype.itemsize, band)
        chunks_per_band = math.prod(grid_shape(shape, layout.chunks))
        # That many bands any run of `in_flight` chunks can lie in, and one more is being read.
        held += (2 + -(-(in_flight - 1) // chunks_per_band)) * band
    return held


def _band_bytes(request: Request, narrowing: int) -> int:
    """Return the size of a band halved so many times: whole chunks, or whole rows where there are no chunks."""
    layout = request.layout
    if not layout.nbytes or (layout.chunks is not None and request.feed is not Feed.READ):
        return 0
    itemsize = layout.dtype.itemsize
    row = math.prod(layout.shape[1:]) * itemsize
    if layout.chunks is None:
        return max(row, min(PLAIN_BAND_BYTES, layout.nbytes) >> narrowing)
    widest = min(layout.chunks[0], layout.shape[0]) * row
    return math.prod(band_shape(layout.shape, layout.chunks, itemsize, widest >> narrowing)) * itemsize


def _row_of_chunks(request: Request) -> Shape:
    """Return how many chunks share one place on the first axis, along each other axis."""
    layout = request.layout
    lengths = [layout.shape[axis] if most is None else most for axis, most in enumerate(layout.maxshape)]
    return tuple(max(1, count) for count in grid_shape(tuple(lengths), layout.chunks or ()))[1:]


def _count(request: Request) -> int | None:
    layout = request.layout
    if request.feed is Feed.STREAM and None in layout.maxshape:
        return None
    return 0 if layout.chunks is None else math.prod(grid_shape(layout.shape, layout.chunks))


def _is_empty(request: Request) -> bool:
    return request.layout.nbytes == 0 and not (request.feed is Feed.STREAM and None in request.layout.maxshape)


def _refusal(group: Sequence[Request], memory: int) -> str:
    """Say what `group` needs at least, what is allowed, and the way out."""
    needed = _least(group)
    largest = max(range(len(group)), key=lambda at: _least([group[at]]))
    request = group[largest]
    more = f" and {len(group) - 1} more filled side by side with it need" if len(group) > 1 else " needs"
    ways = [f"pass memory='{_round_up(needed)}'"]
    smaller = _smaller_chunks(group, largest, needed, memory)
    ways += [f"smaller chunks={smaller}" if smaller else "smaller chunks"] if request.layout.chunks else []
    amounts = f"{_round_up(needed)} at least ({_describe(request)}), allowed are {format_bytes(memory)}"
    return f"{request.name}{more} {amounts}: {', or '.join(ways)}"


def _describe(request: Request) -> str:
    layout = request.layout
    if layout.chunks is None:
        return "contiguous, one row at a time"
    row = f" in rows of {math.prod(_row_of_chunks(request))}"
    return f"chunks of {format_bytes(layout.chunk_bytes)}{row}, one in flight"


def _smaller_chunks(group: Sequence[Request], largest: int, needed: int, memory: int) -> Shape | None:
    """Return chunks with fewer rows for the largest dataset with which `group` fits, if there are any."""
    request = group[largest]
    if request.layout.chunks is None:
        return None
    # All that a dataset needs grows with the rows of its chunks.
    own = _least([request])
    chunks = (request.layout.chunks[0] * (own - (needed - memory)) // own, *request.layout.chunks[1:])
    if chunks[0] < 1:
        return None
    tried = [*group]
    tried[largest] = replace(request, layout=replace(request.layout, chunks=chunks))
    return chunks if _least(tried) <= memory else None


def parse_bytes(value: str | int | None, option: str = "memory") -> int:
    """Return a number of bytes.

    Parameters
    ----------
    value : str, int or None
        Bytes, or text such as ``"2GB"`` (10**9) or ``"512 MiB"`` (2**20), in any case; ``None``
        is :func:`default_memory`.
    option : str
        What the value was given for, for the error.

    Raises
    ------
    SettingsError
        Kind ``OPTION``: not an amount, or less than one byte.
    """
    if value is None:
        return default_memory()
    amount = 0
    if isinstance(value, int) and not isinstance(value, bool):
        amount = value
    elif isinstance(value, str) and (found := _AMOUNT.fullmatch(value)) and found[2].lower() in _UNITS:
        amount = int(Decimal(found[1]) * _UNITS[found[2].lower()])
    if amount < 1:
        raise SettingsError(
            f"{option}={value!r} is no amount of memory: give bytes, or text such as '2GB' or '512 MiB' "
            "(B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)",
            kind=ErrorKind.OPTION,
        )
    return amount


def format_bytes(amount: int) -> str:
    """Return bytes as people read them, in powers of 1000: ``"10.0 MB"``."""
    if amount < 1000:
        return f"{amount} B"
    value = float(amount)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def _round_up(amount: int) -> str:
    """Return an amount that is enough, in few digits, as :func:`parse_bytes` takes it."""
    unit, name = (10**6, "MB") if amount > 10**6 else (1000, "kB")
    return f"{-(-amount // unit)} {name}"


def default_memory() -> int:
    """Return 1 GiB or a quarter of the free memory, whichever is smaller, but at least 64 MiB; in bytes."""
    free = _free_memory()
    return DEFAULT_MEMORY if free is None else max(_LEAST_DEFAULT, min(DEFAULT_MEMORY, free // 4))


def _free_memory() -> int | None:
    """Return what can be had without swapping, in bytes; ``None`` where nobody says."""
    # Linux: sysconf counts the page cache as taken, MemAvailable does not (proc_meminfo(5)).
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else None
    except (ValueError, OSError, AttributeError):
        return None
