"""Whether what is in the mended file is what is in the damaged one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from nwbflow.links.walk import walk
from nwbflow.model.data import Region
from nwbflow.sources.stored import chunk_offsets
from nwbflow.tools.links.elements import has_objects, read
from nwbflow.tools.links.references import has_own_references
from nwbflow.tools.mend.isolated import Say
from nwbflow.tools.mend.rows import Span, is_elsewhere

_PIECE_BYTES = 4 * 2**20
_OBJECT_ROWS = 2**12


def differing(
    source: h5py.File, mended: h5py.File, damaged: dict[str, list[Span]], filled: tuple[str, ...], say: Say
) -> list[str]:
    """Return the datasets of a mended file that differ from those of the same path in the damaged one.

    Parameters
    ----------
    source, mended : h5py.File
        Open for reading.
    damaged : dict of str to list of Span
        Rows that are known to be lost, by path.
    filled : tuple of str
        Paths of what was filled in, with all below it: that is not compared.
    say : callable
        Is told where this is.
    """
    wrong = []
    for member in walk(mended, []):
        if member.kind != "dataset" or member.path.startswith(filled):
            continue
        say(member.path)
        new, old = member.item, source.get(member.path)
        if not isinstance(old, h5py.Dataset) or new.shape is None or is_elsewhere(new) or has_own_references(new):
            continue
        if not _same(old, new, damaged.get(member.path, []), say):
            wrong.append(member.path)
    return wrong


def _same(old: h5py.Dataset, new: h5py.Dataset, damaged: list[Span], say: Say) -> bool:
    if old.id.get_type() != new.id.get_type():
        return False
    objects = has_objects(new.id.get_type())
    if new.chunks is not None and not objects and new.shape == old.shape:
        return _same_chunks(old, new, say)
    if new.chunks is None and new.shape and not new.id.get_storage_size():
        return not old.id.get_storage_size() or 0 in new.shape  # never stored: nothing to read, however large it is
    for region in _regions(new, objects=objects, damaged=damaged):
        say("")
        ours, theirs = read(new, region), read(old, region)
        if not (_equal(ours, theirs) if objects else ours.tobytes() == theirs.tobytes()):
            return False
    return True


def _same_chunks(old: h5py.Dataset, new: h5py.Dataset, say: Say) -> bool:
    for offset in chunk_offsets(new):
        say("")
        if new.id.read_direct_chunk(offset) != old.id.read_direct_chunk(offset):
            return False
    return True


def _regions(dataset: h5py.Dataset, *, objects: bool, damaged: list[Span]) -> Iterator[Region]:
    if not dataset.shape:
        yield ()
        return
    row_bytes = max(1, math.prod(dataset.shape[1:]) * dataset.id.get_type().get_size())
    step = _OBJECT_ROWS if objects else max(1, _PIECE_BYTES // row_bytes)
    rest, at = tuple(slice(0, n) for n in dataset.shape[1:]), 0
    for start, stop in [*damaged, (dataset.shape[0], dataset.shape[0])]:
        for begin in range(at, start, step):
            yield (slice(begin, min(begin + step, start)), *rest)
        at = stop


def _equal(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Compare what holds text or lists, at any depth."""
    if ours.dtype.fields is not None:
        return all(_equal(ours[name], theirs[name]) for name in ours.dtype.fields)
    return all(_equal_one(a, b) for a, b in zip(ours.reshape(-1), theirs.reshape(-1), strict=True))


def _equal_one(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, np.ndarray):
        return bool(_equal(ours, theirs) if ours.dtype.hasobject else ours.tobytes() == theirs.tobytes())
    return bool(ours == theirs) or np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
