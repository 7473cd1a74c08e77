"""How datasets over data that stay where they are come into a file: HDMF creates them, from what stands in for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import DatasetBuilder, GroupBuilder
from hdmf.data_utils import DataIO as HdmfDataIO

from nwbflow.errors import ErrorKind, LinkError, NwbflowError, SettingsError
from nwbflow.links.moved import moved
from nwbflow.links.records import record, write_record
from nwbflow.model.links import LinkRecord
from nwbflow.nwb.candidates import HDMF_TYPES, datasets, path_of
from nwbflow.nwb.data import DataIO
from nwbflow.nwb.mapping import MappedData, RawData
from nwbflow.nwb.ties import Circumstances
from nwbflow.sinks.hdf5 import translated


class Stand(H5DataIO):  # type: ignore[misc]
    """Stands in a builder for data that stay where they are, while HDMF writes.

    Parameters
    ----------
    builder : DatasetBuilder
        What it stands in.
    create : dict
        Keyword arguments of :meth:`h5py.Group.create_dataset`.
    link_record : LinkRecord or None
        To be kept with the dataset.
    where : str
        Where the data are, in a few words.
    """

    def __init__(
        self, builder: DatasetBuilder, create: dict[str, Any], link_record: LinkRecord | None, where: str
    ) -> None:
        super().__init__(shape=create["shape"], dtype=create["dtype"])
        self.builder = builder
        self.path = path_of(builder)
        self.link_record = link_record
        self.where = where
        self._create = create

    @property
    def io_settings(self) -> dict[str, Any]:
        """Keyword arguments of :meth:`h5py.Group.create_dataset`."""
        return dict(self._create)


@contextmanager
def mapped(root: GroupBuilder, circumstances: Circumstances) -> Iterator[Mapping[str, str]]:
    """Have HDMF create datasets over data that stay where they are; then keep a record with each.

    These are the data of :func:`link_raw` and :func:`concat`, and datasets of that kind that HDMF copies: their
    relative names lead elsewhere from another folder.

    Parameters
    ----------
    root : GroupBuilder
        The tree; afterwards it is as it was.
    circumstances : Circumstances
        What is being written, and how.

    Yields
    ------
    mapping of str to str
        By their paths, where the data are.

    Raises
    ------
    nwbflow.errors.LinkError, nwbflow.errors.SettingsError, nwbflow.errors.UnsupportedError
        If one of them can't be mapped; before anything is written.
    """
    c = circumstances
    stands: list[tuple[Stand, Any]] = []
    try:
        for builder in datasets(root):
            given = builder.data
            data = given.data if isinstance(given, HdmfDataIO) else given
            stand = None
            if isinstance(data, MappedData) and not c.written(builder):
                stand = _new(builder, given, data, c.own, replaced=c.replaced)
            elif (
                isinstance(data, h5py.Dataset) and data and not c.written(builder) and _copied(builder, given, data, c)
            ):
                stand = _moved(builder, data, c.own)
            if stand is not None:
                stands.append((stand, given))
                builder["data"] = stand
        yield {stand.path: stand.where for stand, _ in stands}
        for stand, _ in stands:
            _keep_record(stand)
    finally:
        for stand, given in stands:
            stand.builder["data"] = given


def _new(builder: DatasetBuilder, given: Any, data: MappedData, own: Path, *, replaced: bool) -> Stand:
    name = path_of(builder)
    try:
        if isinstance(given, HdmfDataIO) and _has_settings(given):
            raise SettingsError(
                f"it is not copied, so the settings of the {type(given).__name__} around it can't apply. Take them "
                "away, or store a copy: nwbflow.raw(...) of a raw file, nwbflow.copy(...) of a dataset",
                kind=ErrorKind.OPTION,
            )
        if not _fits(builder.dtype, data.dtype):
            wanted = getattr(builder.dtype, "__name__", builder.dtype)
            raise LinkError(
                f"the schema wants {wanted} here, {data.where()} holds {data.dtype}, and what is not copied can't be "
                "converted. Store a copy, which is: nwbflow.raw(...) of a raw file, nwbflow.copy(...) of a dataset",
                kind=ErrorKind.DTYPE,
            )
        data.check()
        # even where it is added to, its bytes are no raw file
        if own in data.files() and (replaced or isinstance(data, RawData)):
            raise LinkError(
                f"{data.where()} lies in {own}, or consists of data in it, and that is the file being written. Write "
                "to another name, or add a dataset over one that is there already with mode 'r+'",
                kind=ErrorKind.CYCLE,
            )
        create = {"shape": data.shape, "dtype": data.dtype, **data.creation(own)}
        return Stand(builder, create, record(data.shape, data.dtype, data.fingerprints(own)), data.where())
    except NwbflowError as error:
        raise type(error)(f"{name}: {error}", kind=error.kind) from error


def _copied(builder: DatasetBuilder, given: Any, dataset: h5py.Dataset, c: Circumstances) -> bool:
    """Return whether HDMF is going to copy a dataset, with HDF5's own means."""
    if isinstance(given, DataIO):
        return False  # an array like any other
    if not (given.link_data if isinstance(given, H5DataIO) else c.linking):
        return True
    file = Path(os.path.realpath(dataset.file.filename))
    return file == c.exported and path_of(builder).rpartition("/")[0] == str(dataset.parent.name).rstrip("/")


def _moved(builder: DatasetBuilder, dataset: h5py.Dataset, own: Path) -> Stand | None:
    try:
        found = moved(dataset, own)
    except NwbflowError as error:
        raise type(error)(f"{path_of(builder)}: {error}", kind=error.kind) from error
    return None if found is None else Stand(builder, found.create, found.record, found.where)


def _has_settings(wrapper: HdmfDataIO) -> bool:
    if isinstance(wrapper, DataIO):
        wishes = (wrapper.chunks_wish, wrapper.codec, wrapper.maxshape_wish, wrapper.fillvalue)
        return any(wish is not None for wish in wishes) or bool(wrapper.checksum)
    # HDMF's has some of its own making around anything that is no array
    return not isinstance(wrapper, H5DataIO) or wrapper.io_settings != H5DataIO(data=wrapper.data).io_settings


def _fits(asked: Any, held: np.dtype[Any]) -> bool:
    """Return whether a type is what HDMF asks for; it doesn't mind the byte order."""
    if asked is None:
        return True
    try:
        wanted = np.dtype(HDMF_TYPES.get(asked, asked) if isinstance(asked, str) else asked)
    except TypeError:  # text, a compound type
        return False
    return (wanted.kind, wanted.itemsize) == (held.kind, held.itemsize)


def _keep_record(stand: Stand) -> None:
    dataset: h5py.Dataset | None = stand.dataset
    if dataset is None:
        raise LinkError(
            f"{stand.path}: HDMF did not create the dataset; please report this with the versions of hdmf and pynwb",
            kind=ErrorKind.MISMATCH,
        )
    if stand.link_record is not None:
        with translated(stand.path, "recording what it leads to"):
            write_record(dataset, "", stand.link_record)
