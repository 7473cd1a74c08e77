"""Chunk shapes: what to choose when nobody chose, and how to complete what was half chosen."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import DTypeLike

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.layout import MaxShape, Shape

type ChunkSpec = Sequence[int | None] | int | bool | None
"""A wish for chunks: one length per axis (``None`` is free), rows only, or all free."""

MAX_CHUNK_BYTES = 2**32 - 1
"""Largest chunk every HDF5 1.x release can store, in bytes (documentation of ``H5Pset_chunk``)."""

CHANNELS = 64
"""Most channels of one chunk of an electrical series.

From neuroconv's ``get_electrical_series_chunk_shape``; the measurements behind it are in
https://github.com/flatironinstitute/neurosift/issues/52#issuecomment-1671405249
"""

FEW_ROWS = 4096
"""Rows a chunk may always hold along an unlimited first axis, however few are there now."""


class SeriesKind(StrEnum):
    """What an array holds, as far as it matters for its chunks."""

    ELECTRICAL = "electrical"
    """Samples x channels (x samples of a snippet)."""
    IMAGING = "imaging"
    """Frames x height x width (x depth)."""
    TIMESTAMPS = "timestamps"
    """One value per sample."""
    TABLE_COLUMN = "table-column"
    """Rows of a table, which may grow."""
    GENERIC = "generic"
    """Anything else whose first axis is the long one."""


_TARGET = {
    SeriesKind.ELECTRICAL: 10_000_000,
    SeriesKind.IMAGING: 10_000_000,
    SeriesKind.TIMESTAMPS: 4 * 2**20,
    SeriesKind.TABLE_COLUMN: 2**20,
    SeriesKind.GENERIC: 4 * 2**20,
}
# Stands in for a trailing axis of unknown length.
_UNKNOWN = {SeriesKind.IMAGING: 512}


def advise_chunks(
    shape: MaxShape,
    dtype: DTypeLike,
    *,
    kind: str | None = None,
    target_bytes: int | None = None,
    present: Shape | None = None,
) -> Shape:
    """Return a chunk shape that suits what the array holds.

    The trailing axes are kept whole (channels in blocks of at most 64) and the first axis fills
    the target. Where not even one row fits, the largest trailing axis is halved until it does, as
    HDMF 6 does (``HDF5IO.compute_default_chunk_shape``), but rounded up, so that no sliver is left
    at the edge. Along an unlimited first axis a chunk holds two rows at the least.

    Parameters
    ----------
    shape : tuple of int or None
        Largest lengths of the axes, in elements; ``None`` is unlimited or unknown.
    dtype : numpy.dtype or what it is made of
        Type of the elements.
    kind : SeriesKind, optional
        What the array holds. Default: ``TIMESTAMPS`` for one axis, ``GENERIC`` for more.
    target_bytes : int, optional
        Size of a chunk before filters that is aimed at and not exceeded, in bytes. Default:
        10 MB for electrical and imaging series (as neuroconv), 1 MiB for table columns and
        4 MiB (as HDMF) for everything else and for every array with one axis.
    present : tuple of int, optional
        Lengths now, in elements, of data that are all there: on an unlimited axis, a chunk is not
        longer than they are, but may always hold 4096 rows. Of a stream that has only begun,
        leave it out or say 0 for its first axis.

    Returns
    -------
    tuple of int
        Chunk shape in elements: at least 1 and, where the axis is limited, at most its length.

    Raises
    ------
    SettingsError
        Kind ``CHUNKS``: no axes, an unknown `kind`, or a target below one byte or above 4 GiB.
    """
    return _fill(
        [None] * len(shape), shape, np.dtype(dtype), kind=_kind(kind, shape), target_bytes=target_bytes, present=present
    )


def complete_chunks(
    spec: ChunkSpec,
    shape: MaxShape,
    dtype: DTypeLike,
    *,
    kind: str | None = None,
    target_bytes: int | None = None,
    present: Shape | None = None,
) -> Shape:
    """Return the chunk shape that `spec` asks for, its free axes filled as by :func:`advise_chunks`.

    Parameters
    ----------
    spec : sequence of int or None, int, True or None
        One length per axis, in elements, ``None`` where free, e.g. ``(None, 64)``; or the rows of
        a chunk alone; or ``True`` or ``None``: all axes are free.
    shape, dtype, kind, target_bytes, present
        As in :func:`advise_chunks`. A length the caller gave is kept even if the chunk then
        exceeds the target.

    Returns
    -------
    tuple of int
        Chunk shape in elements.

    Raises
    ------
    SettingsError
        Kind ``CHUNKS``: wrong number of axes, a length that is not a whole number of at least 1,
        longer than an axis that is not unlimited (HDF5 refuses that), or a chunk over 4 GiB.
    """
    itemtype = np.dtype(dtype)
    given = _check_spec(spec, shape)
    chunks = _fill(given, shape, itemtype, kind=_kind(kind, shape), target_bytes=target_bytes, present=present)
    nbytes = math.prod(chunks) * itemtype.itemsize
    if nbytes > MAX_CHUNK_BYTES:
        raise _error(
            f"chunks={spec!r}: one chunk {chunks} of {itemtype} takes {nbytes / 2**30:.1f} GiB, "
            "HDF5 allows less than 4 GiB; a few MB serve most readers best"
        )
    return chunks


def _fill(
    given: Sequence[int | None],
    shape: MaxShape,
    dtype: np.dtype[np.generic],
    *,
    kind: SeriesKind,
    target_bytes: int | None,
    present: Shape | None,
) -> Shape:
    """Fill the free axes of `given`: trailing axes first, then rows up to the target."""
    items = max(1, _target(kind, len(shape), target_bytes) // max(1, dtype.itemsize))
    limits = [_limit(axis, length, present[axis] if present else 0) for axis, length in enumerate(shape)]
    # A chunk of one row costs a stream one stored chunk per row, whatever the row's size.
    rows = given[0] or (2 if limits[0] is None else 1)
    trailing = [_trailing(axis, limits[axis], kind) for axis in range(1, len(shape))]
    lengths = [rows, *(ask or free for ask, free in zip(given[1:], trailing, strict=True))]
    free = [axis for axis in range(1, len(shape)) if given[axis] is None]
    while math.prod(lengths) > items and any(lengths[axis] > 1 for axis in free):
        axis = max(free, key=lengths.__getitem__)
        lengths[axis] = -(-lengths[axis] // 2)
    if given[0] is None:
        fitting = max(rows, items // math.prod(lengths[1:]))
        lengths[0] = fitting if limits[0] is None else min(fitting, limits[0])
    return tuple(lengths)


def _limit(axis: int, length: int | None, present: int) -> int | None:
    """Longest useful chunk along one axis; ``None`` if nothing limits it."""
    if length is not None:
        return max(1, length)
    if present == 0:
        return None
    return max(present, FEW_ROWS) if axis == 0 else present


def _trailing(axis: int, limit: int | None, kind: SeriesKind) -> int:
    """Return the length to start from on a free axis other than the first."""
    length = _UNKNOWN.get(kind, CHANNELS) if limit is None else limit
    if kind is not SeriesKind.ELECTRICAL or axis != 1:
        return length
    # Even blocks: 96 channels are two of 48, where 64 would leave a padded block of 32.
    blocks = -(-length // CHANNELS)
    return -(-length // blocks)


def _target(kind: SeriesKind, rank: int, target_bytes: int | None) -> int:
    if target_bytes is None:
        one_axis = rank == 1 and kind is not SeriesKind.TABLE_COLUMN
        return _TARGET[SeriesKind.TIMESTAMPS if one_axis else kind]
    if not 1 <= target_bytes <= MAX_CHUNK_BYTES:
        raise _error(f"a target of {target_bytes} bytes per chunk: it must be at least 1 and below 4 GiB")
    return target_bytes


def _kind(kind: str | None, shape: MaxShape) -> SeriesKind:
    if not shape:
        raise _error("a dataset without axes (a scalar) has no chunks: leave chunks out")
    if kind is None:
        return SeriesKind.TIMESTAMPS if len(shape) == 1 else SeriesKind.GENERIC
    try:
        return SeriesKind(kind)
    except ValueError:
        raise _error(f"kind={kind!r}: known are {', '.join(SeriesKind)}") from None


def _check_spec(spec: ChunkSpec, shape: MaxShape) -> list[int | None]:
    """Return one length or ``None`` per axis, or say what is wrong with `spec`."""
    if spec is None or spec is True:
        return [None] * len(shape)
    if spec is False or isinstance(spec, str | bytes):
        raise _error(f"chunks={spec!r}: give one whole number or None per axis, e.g. {_example(shape)}")
    if not isinstance(spec, Sequence | np.ndarray):
        return [_length(spec, 0, spec, shape), *[None] * (len(shape) - 1)]
    if len(spec) != len(shape):
        raise _error(
            f"chunks={spec!r} has {len(spec)} axes, the dataset {shape} has {len(shape)}: "
            f"give one length or None per axis, e.g. {_example(shape)}"
        )
    return [_length(value, axis, spec, shape) for axis, value in enumerate(spec)]


def _length(value: object, axis: int, spec: ChunkSpec, shape: MaxShape) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool | np.bool):
            raise TypeError
        length = operator.index(value)  # type: ignore[arg-type]  # refuses what is no integer
    except TypeError:
        raise _error(f"chunks={spec!r}: {value!r} on axis {axis} is not a whole number; None leaves it free") from None
    if length < 1:
        raise _error(f"chunks={spec!r}: {length} on axis {axis} must be at least 1; None leaves it free")
    limit = shape[axis]
    if limit is not None and length > max(1, limit):
        raise _error(
            f"chunks={spec!r}: {length} on axis {axis} is longer than the dataset {shape}, which can't grow there: "
            f"give at most {max(1, limit)} or None, or make the axis unlimited with maxshape"
        )
    return length


def _example(shape: MaxShape) -> str:
    return str((None, *(length for length in shape[1:])))


def _error(message: str) -> SettingsError:
    return SettingsError(message, kind=ErrorKind.CHUNKS)
