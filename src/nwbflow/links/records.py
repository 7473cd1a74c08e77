"""What a target was when it was linked, kept as an attribute beside the link."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.targets import ReferenceTo, Target
from nwbflow.model.layout import Shape
from nwbflow.model.links import Fingerprint, LinkRecord

ATTRIBUTE = "nwbflow_links"
"""Name of the attribute: text, one JSON object of records.

For external links it is an attribute of the group that has them, and each record has its link's name. For a
virtual or raw dataset it is the dataset's own, with one record named ``""``. Text of any length fits, since HDF5
keeps it outside of the object's header, where attributes are limited to 64 kB.
"""

LONGEST = 2000
"""Attribute values whose JSON is longer than this are recorded as their digest."""


def read_records(item: h5py.Group | h5py.Dataset) -> dict[str, LinkRecord]:
    """Return the records kept on a group or dataset.

    Parameters
    ----------
    item : h5py.Group or h5py.Dataset
        Open.

    Returns
    -------
    dict of str to LinkRecord
        By the link's name; ``""`` for the dataset itself. Empty if nothing is recorded.

    Raises
    ------
    nwbflow.errors.LinkError
        If the attribute is there and is not what nwbflow writes.
    """
    if ATTRIBUTE not in item.attrs:
        return {}
    try:
        value = item.attrs[ATTRIBUTE]
        text = value.decode() if isinstance(value, bytes) else str(value)
        return {str(name): LinkRecord.from_json(record) for name, record in json.loads(text).items()}
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError) as error:
        raise LinkError(
            f"{item.file.filename}:{item.name}: its attribute {ATTRIBUTE} is no record that nwbflow wrote ({error}); "
            f"links can't be checked against it. Delete the attribute to treat them as not recorded",
            kind=ErrorKind.CHANGED,
        ) from error


def write_record(item: h5py.Group | h5py.Dataset, name: str, record: LinkRecord) -> None:
    """Keep a record beside a link, and those of other links as they are.

    Parameters
    ----------
    item : h5py.Group or h5py.Dataset
        The group that has the link, or the virtual or raw dataset; its file open for writing.
    name : str
        The link's name in its group; ``""`` for a dataset.
    record : LinkRecord
        Replaces an earlier one of that name.

    Raises
    ------
    nwbflow.errors.LinkError
        If the records that are there can't be read.
    """
    _store(item, {**read_records(item), name: record})


def drop_record(item: h5py.Group | h5py.Dataset, name: str) -> None:
    """Remove a link's record, if there is one; the attribute goes with the last.

    Parameters
    ----------
    item : h5py.Group or h5py.Dataset
        As in :func:`write_record`.
    name : str
        The link's name in its group; ``""`` for a dataset.

    Raises
    ------
    nwbflow.errors.LinkError
        If the records that are there can't be read.
    """
    records = read_records(item)
    if records.pop(name, None) is not None:
        _store(item, records)


def _store(item: h5py.Group | h5py.Dataset, records: Mapping[str, LinkRecord]) -> None:
    if records:
        values = {name: record.to_json() for name, record in records.items()}
        item.attrs[ATTRIBUTE] = json.dumps(values, allow_nan=False, ensure_ascii=True, sort_keys=True)
    elif ATTRIBUTE in item.attrs:
        del item.attrs[ATTRIBUTE]


def record_of(target: Target, fingerprints: Mapping[str, Fingerprint]) -> LinkRecord:
    """Return what is to be recorded of a dataset that is being linked.

    Parameters
    ----------
    target : Target
        The dataset, as it is now.
    fingerprints : mapping of str to Fingerprint
        Of its content; see :class:`~nwbflow.model.links.LinkRecord` for their names.
    """
    return record(target.shape, target.dtype, fingerprints, attributes=target.attributes)


def record(
    shape: Shape,
    dtype: np.dtype[Any],
    fingerprints: Mapping[str, Fingerprint],
    *,
    attributes: Mapping[str, Any] | None = None,
) -> LinkRecord:
    """Return a record made now.

    Parameters
    ----------
    shape : tuple of int
        Lengths of the axes, in elements.
    dtype : numpy.dtype
        As h5py gives it.
    fingerprints : mapping of str to Fingerprint
        See :class:`~nwbflow.model.links.LinkRecord` for their names.
    attributes : mapping, optional
        From :func:`~nwbflow.links.targets.attributes_of`; none for virtual and raw datasets, which have their own.
    """
    return LinkRecord(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        shape=shape,
        dtype=type_name(dtype),
        attributes=attributes_to_json(attributes or {}),
        fingerprints=dict(fingerprints),
    )


def type_name(dtype: np.dtype[Any]) -> str:
    """Return a type as records name it: numpy's name with the byte order, or words where numpy has none.

    Parameters
    ----------
    dtype : numpy.dtype
        As h5py gives it.
    """
    text = h5py.check_string_dtype(dtype)
    if text is not None and text.length is None:
        return "text"
    lists = h5py.check_vlen_dtype(dtype)
    if lists is not None:
        return f"lists of {type_name(np.dtype(lists))}"
    reference = h5py.check_ref_dtype(dtype)
    if reference is not None:
        return "object reference" if reference is h5py.Reference else "region reference"
    if dtype.fields is not None:
        members = (f"{name}: {type_name(member[0])}" for name, member in dtype.fields.items())
        return f"{{{', '.join(members)}}}"
    if dtype.subdtype is not None:
        return f"{type_name(dtype.subdtype[0])} x {dtype.subdtype[1]}"
    return dtype.str


def attributes_to_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON-serialisable values: equal values give equal JSON, and different ones different.

    The record itself is left out. Of values longer than 2000 characters only a digest is kept.

    Parameters
    ----------
    attributes : mapping
        From :func:`~nwbflow.links.targets.attributes_of`.
    """
    return {name: _shortened(to_json(value)) for name, value in sorted(attributes.items()) if name != ATTRIBUTE}


def to_json(value: Any) -> Any:
    """Return one attribute's value as JSON-serialisable value.

    NaN and infinities become ``{"float": "nan"}``, complex numbers pairs, object references ``{"reference": path}``
    (without a path where h5py gave none), compound values objects of their members, bytes that are no UTF-8 their
    hexadecimal digits, and a value without elements ``{"empty": type}``.

    Parameters
    ----------
    value : object
        As h5py gives it.
    """
    if isinstance(value, np.ndarray):
        return [to_json(item) for item in value] if value.ndim else to_json(value[()])
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.void):
        fields = value.dtype.names
        return {"bytes": value.tobytes().hex()} if fields is None else {n: to_json(value[n]) for n in fields}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, complex):
        return {"complex": [to_json(value.real), to_json(value.imag)]}
    if isinstance(value, ReferenceTo):
        return {"reference": value.path}
    if isinstance(value, h5py.Reference):
        return {"reference": None}
    if isinstance(value, h5py.Empty):
        return {"empty": type_name(value.dtype)}
    return value if value is None or isinstance(value, bool | int | str) else {"text": str(value)}


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"bytes": value.hex()}


def _shortened(value: Any) -> Any:
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, sort_keys=True)
    return {"blake2b": hashlib.blake2b(text.encode(), digest_size=32).hexdigest()} if len(text) > LONGEST else value
