"""Reserve, then fill: PyNWB creates the datasets, empty; nwbflow fills them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import h5py
import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder

from nwbflow.encoding.pipeline import encoder_for
from nwbflow.engine.job import Job
from nwbflow.errors import ErrorKind, StorageError
from nwbflow.links.targets import Target
from nwbflow.model.data import Source
from nwbflow.model.encoding import Encoded, Encoder
from nwbflow.model.layout import Layout
from nwbflow.model.sink import Sink
from nwbflow.nwb.candidates import datasets
from nwbflow.nwb.layouts import Storage
from nwbflow.planning.memory import COPIES, DatasetPlan, Feed, Request
from nwbflow.sinks.hdf5 import Hdf5Sink
from nwbflow.sources.stored import stored_chunks


class Reservation(H5DataIO):  # type: ignore[misc]
    """Stands in a builder for large data while HDMF writes the structure.

    HDMF creates an empty dataset for an ``H5DataIO`` without data and hands it back
    (documented for filling datasets later), which is all that is needed.

    Parameters
    ----------
    storage : Storage
        How the dataset is to be created.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(shape=storage.create["shape"], dtype=storage.create["dtype"])
        self.storage = storage

    @property
    def io_settings(self) -> dict[str, Any]:
        """Keyword arguments of :meth:`h5py.Group.create_dataset`."""
        return dict(self.storage.create)


class Sheltered(H5DataIO):  # type: ignore[misc]
    """Stands in a builder for small data that HDMF writes itself.

    It shows HDMF a copy of the user's settings, which HDMF changes, and takes the chunk cache away: chunks
    would wait there until h5py lets go of the dataset, where an error of the disk can't be raised.

    Parameters
    ----------
    data : H5DataIO, list, tuple or numpy.ndarray
        The user's wrapper, or bare data.
    """

    def __init__(self, data: Any) -> None:
        wrapped = isinstance(data, H5DataIO)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user was warned when making the original
            super().__init__(data=data.data if wrapped else data, link_data=wrapped and data.link_data)
        self._settings = {"rdcc_nbytes": 1, **(data.io_settings if wrapped else {})}

    @property
    def io_settings(self) -> dict[str, Any]:
        """Keyword arguments of :meth:`h5py.Group.create_dataset`."""
        return self._settings


def _to_shelter(builder: DatasetBuilder, manager: BuildManager) -> bool:
    """Whether HDMF is going to write this at once into chunks, or to change the settings of its wrapper."""
    data = builder.data
    if isinstance(data, H5DataIO):
        return data.data is not None and not isinstance(data.data, h5py.Dataset)
    return isinstance(data, list | tuple | np.ndarray) and manager.get_builder_dt(builder) is not None


@contextmanager
def reserved(root: GroupBuilder, manager: BuildManager, storages: Sequence[Storage]) -> Iterator[list[Reservation]]:
    """Swap every large array of a tree for a reservation, shelter the small ones, and back afterwards."""
    reservations = [Reservation(storage) for storage in storages]
    standins: dict[int, tuple[DatasetBuilder, H5DataIO]] = {
        id(r.storage.candidate.builder): (r.storage.candidate.builder, r) for r in reservations
    }
    for builder in datasets(root):
        if id(builder) not in standins and _to_shelter(builder, manager):
            standins[id(builder)] = (builder, Sheltered(builder.data))
    originals = [(builder, builder["data"]) for builder, _ in standins.values()]
    try:
        for builder, standin in standins.values():
            builder["data"] = standin
        yield reservations
    finally:
        for builder, original in originals:
            builder["data"] = original


def request_of(storage: Storage) -> Request:
    """Return what the planner has to know."""
    data = storage.candidate.data
    feed = Feed.STREAM
    if isinstance(data, Source):
        feed = Feed.MEMORY if data.in_memory else Feed.READ
    # what is read may be wider than what is stored
    widest = max(data.dtype, storage.layout.dtype, key=lambda dtype: dtype.itemsize)
    return Request(name=storage.candidate.name, layout=replace(storage.layout, dtype=widest), feed=feed)


def job_of(reservation: Reservation, plan: DatasetPlan, *, aside: bool) -> Job:
    """Return the engine's job for a dataset HDMF has created.

    Raises
    ------
    StorageError
        If what was created is not what was planned.
    """
    storage = reservation.storage
    name = storage.candidate.name
    dataset: h5py.Dataset | None = reservation.dataset
    if dataset is None:
        raise StorageError(f"{name}: HDMF did not create the dataset", kind=ErrorKind.MISMATCH)
    sink = Hdf5Sink(dataset)
    _compare(name, sink.layout, storage.layout)
    layout = storage.layout
    encoder = encoder_for(layout, effort=storage.effort) if layout.chunks is not None else None
    stored = partial(_stored, storage.candidate.copied) if storage.kept and storage.candidate.copied else None
    return planned_job(storage, plan, layout, sink, encoder, aside=aside, stored=stored)


def planned_job(
    storage: Storage,
    plan: DatasetPlan,
    layout: Layout,
    sink: Sink,
    encoder: Encoder | None,
    *,
    aside: bool,
    stored: Callable[[], Iterator[tuple[tuple[int, ...], Encoded]]] | None = None,
) -> Job:
    """Return the engine's job for a dataset that is there, in the memory that was planned for it."""
    return Job(
        name=storage.candidate.name,
        data=storage.candidate.data,
        layout=layout,
        sink=sink,
        encoder=encoder,
        band_bytes=max(1, plan.band_bytes),
        open_bytes=max(layout.chunk_bytes, plan.peak_bytes - COPIES * plan.in_flight * layout.chunk_bytes),
        in_flight=plan.in_flight,
        grow=storage.grow,
        aside=aside,
        stored=stored,
    )


def _stored(target: Target) -> Iterator[tuple[tuple[int, ...], Encoded]]:
    """Give the chunks of a dataset in another file, as they are stored there."""
    with target.opened() as dataset:
        yield from stored_chunks(dataset)


def _compare(name: str, found: Layout, planned: Layout) -> None:
    """Refuse a dataset that is not as planned: encoded chunks must be what its property list says."""
    same = (found.dtype, found.chunks, found.filters) == (planned.dtype, planned.chunks, planned.filters)
    if not same:
        raise StorageError(
            f"{name}: HDMF created {found}, planned was {planned}. Nothing was stored; please report this with the "
            "versions of hdmf, pynwb and h5py",
            kind=ErrorKind.MISMATCH,
        )
