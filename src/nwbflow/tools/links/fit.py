"""Whether another file has what a link leads to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import h5py
from h5py import h5i

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.check import Comparison, one_print
from nwbflow.links.problems import misplaced
from nwbflow.links.records import type_name
from nwbflow.links.storage import shape_misfit
from nwbflow.links.survey import Part, Seen, Survey
from nwbflow.model.links import LinkKind


def misfits(seen: Seen, names: Mapping[str, str], survey: Survey) -> Iterator[str]:
    """Give what is wrong with new file names of a link: not there, unreadable, or not what was linked.

    Compared are shape, type and content with what is recorded; without a record, only that it can be read, and that
    the sources of a virtual dataset have its type.

    Parameters
    ----------
    seen : Seen
        The link, virtual or raw dataset.
    names : mapping of str to str
        New names by those recorded.
    survey : Survey
        Where it was seen.
    """
    for part in seen.parts:
        if part.file in names:
            new = replace(part, file=names[part.file])
            try:
                yield from _misfits(seen, part, new, survey)
            except LinkError as error:
                yield str(error)
            survey.let_go()  # of many sources, not all can be open


def difference(seen: Seen, survey: Survey, doing: str) -> str:
    """Return in what a link leads to something else than was linked; empty if it doesn't, or that can't be known.

    Parameters
    ----------
    seen : Seen
        A link, virtual or raw dataset that can be read.
    survey : Survey
        Where it was seen. Files that links led to may be closed.
    doing : str
        What is to be done to it, for the text.
    """
    if seen.note:
        return seen.note
    if seen.record is None:
        return ""
    comparison = Comparison(full=False)
    try:
        comparison.run(seen, seen.record, survey)
    except LinkError as error:
        return str(error)
    text = "; ".join(comparison.differences)
    return f"it is not what was linked: {text}; pass force=True to {doing} it as it is now" if text else ""


def _misfits(seen: Seen, old: Part, new: Part, survey: Survey) -> Iterator[str]:
    comparison = Comparison(full=False)
    if seen.kind is LinkKind.RAW:
        _raw(seen, old, new, survey, comparison)
    else:
        _hdf5(seen, old, new, survey, comparison)
    where = f"{new.file}:{new.path}" if new.path else new.file
    for text in comparison.differences:
        yield f"{where} is not what was linked: {text}; pass force=True to link it all the same"


def _raw(seen: Seen, old: Part, new: Part, survey: Survey, comparison: Comparison) -> None:
    place = survey.place(new, LinkKind.RAW)
    if place.path is None:
        raise LinkError(misplaced(place), kind=place.kind or ErrorKind.MISSING)
    if not os.access(place.path, os.R_OK):
        raise LinkError(f"{place.path} may not be read by this user", kind=ErrorKind.PERMISSION)
    if place.path == Path(os.path.realpath(survey.path)):
        raise LinkError(f"{place.path} is the linking file itself", kind=ErrorKind.CYCLE)
    size = place.path.stat().st_size
    if size < old.offset + old.nbytes:
        raise LinkError(
            f"{place.path} is too short: {size} bytes, but bytes {old.offset} to {old.offset + old.nbytes} are linked",
            kind=ErrorKind.LENGTH,
        )
    recorded = None if seen.record is None else seen.record.fingerprints.get(old.key)
    if recorded is not None:
        comparison.raw(place.path, new, recorded)


def _hdf5(seen: Seen, old: Part, new: Part, survey: Survey, comparison: Comparison) -> None:
    if new.numbered:
        raise LinkError(
            f"{new.key} stands for any number of files, which can't be looked at; pass force=True to rename it",
            kind=ErrorKind.OPTION,
        )
    spot = survey.end_of(new, seen.kind)
    if h5i.get_type(spot.id) != h5i.DATASET:
        if seen.record is not None or seen.kind is LinkKind.VIRTUAL:
            comparison.differences.append("it is no dataset")
        return
    dataset = survey.dataset(spot)
    record = seen.record
    if seen.kind is LinkKind.EXTERNAL:
        if record is None:
            return
        comparison.structure(dataset, record)
        recorded = one_print(record, old.key)
    else:
        dtype, wanted = type_name(dataset.dtype), type_name(seen.member.item.dtype)
        if dtype != wanted:
            comparison.differences.append(f"its type is {dtype}, the virtual dataset's {wanted}")
        comparison.differences += _shapes(seen.member.item, old, dataset.shape)
        recorded = None if record is None else record.fingerprints.get(old.key)
    if recorded is not None and not comparison.differences:
        comparison.content(dataset, recorded, "")


def _shapes(virtual: h5py.Dataset, old: Part, shape: tuple[int, ...]) -> Iterator[str]:
    """Give where a source doesn't have the elements that a virtual dataset takes from it."""
    created = virtual.id.get_create_plist()
    for index in range(created.get_virtual_count()):
        key = f"{created.get_virtual_filename(index)}:{created.get_virtual_dsetname(index)}"
        if key == old.key:
            text = shape_misfit(shape, created.get_virtual_vspace(index), created.get_virtual_srcspace(index))
            if text:
                yield f"it {text}"
