"""Datasets whose elements lie elsewhere, copied into a file in another folder: relative names must go on leading there.

HDF5 copies the names as they are. From another folder they lead to nothing, or to another file of the same name, and
nothing is read as zeros.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s

from nwbflow.errors import ErrorKind, LinkError, UnsupportedError
from nwbflow.links.names import SAME_FILE, escaped
from nwbflow.links.records import read_records
from nwbflow.model.links import LinkRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A dataset that is to be created anew elsewhere.

    Parameters
    ----------
    create : dict
        Keyword arguments of :meth:`h5py.Group.create_dataset`.
    record : LinkRecord or None
        What was recorded of its sources, by their new names.
    where : str
        Where its elements are, in a few words.
    """

    create: dict[str, Any]
    record: LinkRecord | None
    where: str


def moved(dataset: h5py.Dataset, own: Path) -> Moved | None:
    """Return what a dataset has to be in another file so that its elements stay the same.

    Parameters
    ----------
    dataset : h5py.Dataset
        To be copied.
    own : pathlib.Path
        The file it is copied to; absolute, symbolic links resolved.

    Returns
    -------
    Moved or None
        ``None`` if a copy by HDF5 does.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        For datasets that can grow with the files their elements are in.
    """
    file = Path(os.path.realpath(dataset.file.filename))
    if not (dataset.is_virtual or dataset.external):
        return None
    away = os.path.relpath(file.parent, own.parent)
    return _virtual(dataset, away, own) if dataset.is_virtual else _raw(dataset, away, own)


def _raw(dataset: h5py.Dataset, away: str, own: Path) -> Moved | None:
    found = dataset.external
    names = [_rebased(name, away) for name, _, _ in found]
    if names == [name for name, _, _ in found]:
        return None
    _refuse_growing(dataset, own)
    stretches = [(name, offset, size) for name, (_, offset, size) in zip(names, found, strict=True)]
    create = {"shape": dataset.shape, "dtype": dataset.dtype, "external": stretches}
    where = f"{names[0]}{_more(len(names))} (raw)"
    return Moved(create=create, record=_record(dataset, lambda key: _rebased(key, away)), where=where)


def _virtual(dataset: h5py.Dataset, away: str, own: Path) -> Moved | None:
    old = dataset.id.get_create_plist()
    count = old.get_virtual_count()
    found = [old.get_virtual_filename(number) for number in range(count)]
    names = [_rebased(name, escaped(away)) for name in found]
    if names == found:
        return None
    _refuse_growing(dataset, own)
    create = h5p.create(h5p.DATASET_CREATE)
    create.set_layout(h5d.VIRTUAL)
    if old.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED and not dataset.dtype.hasobject:
        fill = np.zeros((), dataset.dtype)
        old.get_fill_value(fill)
        create.set_fill_value(fill)
    for number, name in enumerate(names):
        source = old.get_virtual_dsetname(number).encode()
        there, here = old.get_virtual_vspace(number), old.get_virtual_srcspace(number)
        if here.get_select_type() == h5s.SEL_ALL:  # of a shape that is not kept in the file
            here = h5s.create_simple(_lengths(there))
        create.set_virtual(there, name.encode(), source, here)
    return Moved(
        create={"shape": dataset.shape, "dtype": dataset.dtype, "dcpl": create},
        record=_record(dataset, lambda key: key if key.startswith(f"{SAME_FILE}:") else _rebased(key, escaped(away))),
        where=f"{names[0]}:{old.get_virtual_dsetname(0)}{_more(count)} (virtual)",
    )


def _refuse_growing(dataset: h5py.Dataset, own: Path) -> None:
    if dataset.maxshape != dataset.shape:
        file = dataset.file.filename
        raise UnsupportedError(
            f"{file}:{dataset.name} can grow with the files its elements are in; copied to the folder "
            f"{own.parent}, their names would lead elsewhere. Make them absolute first: nwbflow links absolute {file}; "
            "or write into the same folder",
            kind=ErrorKind.SHAPE,
        )


def _lengths(selected: h5s.SpaceID) -> tuple[int, ...]:
    """Return a shape that has as many elements as are selected: the box they fill, if they do."""
    low, high = selected.get_select_bounds()
    box = tuple(int(b) - int(a) + 1 for a, b in zip(low, high, strict=True))
    count = int(selected.get_select_npoints())
    return box if math.prod(box) == count else (count,)


def _rebased(name: str, away: str) -> str:
    return name if name.startswith("/") or name == SAME_FILE or away == os.curdir else f"{away}/{name}"


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


def _record(dataset: h5py.Dataset, renamed: Callable[[str], str]) -> LinkRecord | None:
    try:
        known = read_records(dataset).get("")
    except LinkError:  # of somebody else's making; it is copied as it is
        return None
    if known is None:
        return None
    return replace(known, fingerprints={renamed(name): found for name, found in known.fingerprints.items()})
