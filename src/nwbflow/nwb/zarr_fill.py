"""One write through hdmf-zarr: decide, plan, reserve, fill, verify."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import h5py
import numpy as np
import zarr
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder
from hdmf.data_utils import AbstractDataChunkIterator, DataChunk, GenericDataChunkIterator
from hdmf.data_utils import DataIO as HdmfDataIO
from hdmf_zarr import ZarrDataIO

from nwbflow.encoding.plugin_names import ZARR_OTHER
from nwbflow.encoding.zarr_codecs import zarr_encoder
from nwbflow.engine.job import Job
from nwbflow.engine.run import fill
from nwbflow.errors import ErrorKind, PlanError, StorageError
from nwbflow.model.data import Source
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Filter, Layout, Shape
from nwbflow.nwb.candidates import Candidate, datasets, find
from nwbflow.nwb.copies import same_fill
from nwbflow.nwb.fill import Options, Passage
from nwbflow.nwb.layouts import Storage
from nwbflow.nwb.reservations import planned_job
from nwbflow.nwb.zarr_layouts import Decider, dressed, reserve_bytes
from nwbflow.planning.memory import DatasetPlan, format_bytes
from nwbflow.planning.shards import SHARD_BYTES
from nwbflow.sinks.zarr import StoredArray, ZarrSink
from nwbflow.sources.banded import Banded

SHARDS_SHARE = 4
"""One part in so many of the memory is for encoded chunks that wait for their shards to become complete."""


class _Nothing(AbstractDataChunkIterator):  # type: ignore[misc]
    """An iterator that says what is to be created, and gives nothing."""

    def __init__(self, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._shape = shape
        self._dtype = dtype

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DataChunk:
        raise StopIteration

    def recommended_chunk_shape(self) -> Shape | None:
        """Return nothing: the chunks are given with the other settings."""
        return None

    def recommended_data_shape(self) -> Shape:
        """Return the shape to create."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._dtype

    @property
    def maxshape(self) -> Shape:
        """The shape to create."""
        return self._shape


class StoreReservation(ZarrDataIO):  # type: ignore[misc]
    """Stands in a builder for large data while hdmf-zarr writes the structure.

    hdmf-zarr creates an array for an iterator from what its wrapper says, and then takes what the iterator gives:
    here, nothing.

    Parameters
    ----------
    storage : Storage
        How the array is to be created.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(data=_Nothing(storage.create["shape"], storage.create["dtype"]))
        self.storage = storage

    @property
    def io_settings(self) -> dict[str, Any]:
        """Keyword arguments of :meth:`zarr.Group.create_array`."""
        return dict(self.storage.create)


@contextmanager
def reserved_in_store(root: GroupBuilder, storages: Sequence[Storage]) -> Iterator[list[StoreReservation]]:
    """Swap every large array of a tree for a reservation, and back afterwards.

    Small datasets of HDF5 files that were read through nwbflow are shown in hdmf-zarr's wrapper, which it would make
    itself if it knew them.
    """
    reservations = [StoreReservation(storage) for storage in storages]
    standins: dict[int, tuple[DatasetBuilder, Any]] = {
        id(r.storage.candidate.builder): (r.storage.candidate.builder, r) for r in reservations
    }
    for builder in datasets(root):
        data = builder.data
        if id(builder) not in standins and isinstance(data, h5py.Dataset) and not ZarrDataIO.is_h5py_dataset(data):
            standins[id(builder)] = (builder, ZarrDataIO.from_h5py_dataset(h5dataset=data))
    originals = [(builder, builder["data"]) for builder, _ in standins.values()]
    try:
        for builder, standin in standins.values():
            builder["data"] = standin
        yield reservations
    finally:
        for builder, original in originals:
            builder["data"] = original


@dataclass(slots=True)
class StorePassage(Passage):
    """One builder tree on its way into one Zarr store.

    Parameters
    ----------
    kept : list of StoreReservation
        What is to be filled.
    jobs : int
        Processes hdmf-zarr was asked to use, for the iterators it can use them for.
    take_arrays : bool
        Whether Zarr arrays that come as data without a wrapper are copied; else hdmf-zarr links them, or in exports
        takes them over with their chunks and codecs.
    unseen : bool
        Whether nothing of it is found by a reader before all of it is there: then incomplete shards wait.
    """

    kept: list[StoreReservation] = field(default_factory=list)
    jobs: int = 1
    take_arrays: bool = False
    unseen: bool = False
    _sinks: list[ZarrSink] = field(default_factory=list)

    def prepare(
        self,
        root: GroupBuilder,
        manager: BuildManager,
        written: Callable[[Any], bool],
        options: Options,
        *,
        side_by_side: bool,
    ) -> list[Storage]:
        """Decide how everything is stored and refuse what can't be; nothing is written yet.

        Raises
        ------
        SettingsError, PlanError, SourceError
            What is wrong with the request, the memory it takes, or the data.
        """
        with dressed(root):
            found = find(root, manager, written)
        found = [candidate for candidate in found if not self._is_for_hdmf_zarr(candidate)]
        streams = sum(not isinstance(c.data, Source) for c in found) if side_by_side else 1
        share = options.memory // SHARDS_SHARE
        decider = Decider(options.wishes, manager, min(SHARD_BYTES, max(1, share // max(1, streams))))
        storages = decider.decide(found)
        kept_back = reserve_bytes([s.layout for s in storages]) * max(1, streams)
        kept_back = min(kept_back, share)
        try:
            self._plan(found, storages, options, options.memory - kept_back, side_by_side=side_by_side)
        except PlanError as error:
            if kept_back:
                error.add_note(f"of the memory, {format_bytes(kept_back)} are kept for shards that are not complete")
            raise
        for name, text in decider.notes:
            self.say(name, text)
        return storages

    def _is_for_hdmf_zarr(self, candidate: Candidate) -> bool:
        """Whether a dataset is left to hdmf-zarr: to link it, or to its processes, which were asked for."""
        if isinstance(candidate.builder.data, zarr.Array) and not self.take_arrays:
            return True
        data = _unwrapped(candidate.builder.data)
        left = self.jobs > 1 and isinstance(data, GenericDataChunkIterator)
        if left:
            self.say(
                candidate.name,
                f"left to hdmf-zarr, as number_of_jobs={self.jobs} asks; it was not verified. Without it, nwbflow "
                "encodes in threads",
            )
        return left

    def fill_store(self, root: zarr.Group, *, side_by_side: bool) -> None:
        """Fill what was reserved.

        Parameters
        ----------
        root : zarr.Group
            The store's root, open for writing.
        side_by_side : bool
            Whether streams are drained each in a thread of its own.

        Raises
        ------
        SourceError, StorageError, VerifyError
            What stopped it. What had arrived is stored then, unless storing itself failed.
        """
        self.structure_seconds = time.perf_counter() - self.began
        started = time.perf_counter()
        passing = any(not isinstance(r.storage.candidate.data, Source) for r in self.kept)
        threads = side_by_side and len(self.kept) > 1
        plans = {plan.name: plan for plan in self.plan.datasets}
        room = self.options.memory // SHARDS_SHARE // max(1, len(self.kept) if side_by_side and passing else 1)
        jobs = [
            self._job(root, r, plans[r.storage.candidate.name], room, aside=threads and r.storage.candidate.live)
            for r in self.kept
        ]
        try:
            settings = self._settings(self._flush_sinks, passing=passing)
            tallies = fill(jobs, replace(settings, checkpoint_seconds=math.inf) if self.unseen else settings, self.emit)
        except StorageError:
            raise
        except BaseException:
            self._flush_sinks()
            raise
        self._flush_sinks()
        self.fill_seconds = time.perf_counter() - started
        self._verify(tallies)
        self._note(tallies)
        self.kept, self._sinks = [], []

    def _flush_sinks(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def _job(
        self, root: zarr.Group, reservation: StoreReservation, plan: DatasetPlan, room: int, *, aside: bool
    ) -> Job:
        storage = reservation.storage
        name, layout = storage.candidate.name, storage.layout
        try:  # from the store itself: metadata that were put together earlier don't know it
            array = zarr.open_array(root.store, path=f"{root.path}/{name}".strip("/"), mode="r+", zarr_format=3)
        except FileNotFoundError as error:
            raise StorageError(f"{name}: hdmf-zarr did not create the array", kind=ErrorKind.MISMATCH) from error
        if not isinstance(_unwrapped(storage.candidate.builder.data), AbstractDataChunkIterator):
            # as hdmf-zarr notes the type of arrays; of iterators it notes '<i2' and the like
            array = array.update_attributes({"_DTYPE": layout.dtype.type.__name__})
        sink = ZarrSink(array, limit=layout.maxshape, room=room)
        _compare(name, sink.layout, layout)
        self._sinks.append(sink)
        encoder = zarr_encoder(layout, storage.effort)
        if encoder is None and layout.shards is not None:
            layout = replace(layout, chunks=layout.shards)  # zarr-python is given whole shards
        return planned_job(storage, plan, layout, sink, encoder, aside=aside, stored=_stored(storage, sink.layout))


def _stored(storage: Storage, layout: Layout) -> Callable[[], Iterator[tuple[Shape, Encoded]]] | None:
    """Return what gives the chunks of another store's array, if they are what this one's would be."""
    data = storage.candidate.data
    source = data.inner if isinstance(data, Banded) else data
    if not isinstance(source, StoredArray) or Filter(ZARR_OTHER) in layout.filters:
        return None
    there = source.layout
    facts = [(x.dtype.newbyteorder("="), x.chunks, x.filters) for x in (there, layout)]
    same = facts[0] == facts[1] and source.shape == storage.layout.shape and same_fill(there, layout)
    return source.chunks if same else None


def _unwrapped(data: Any) -> Any:
    return data.data if isinstance(data, HdmfDataIO) else data


def _compare(name: str, found: Layout, planned: Layout) -> None:
    """Refuse an array that is not as planned: encoded chunks must be what its metadata say."""
    facts = [(x.dtype, x.chunks, x.shards, x.filters) for x in (found, planned)]
    if facts[0] != facts[1]:
        raise StorageError(
            f"{name}: hdmf-zarr created {found}, planned was {planned}. Nothing was stored; please report this with "
            "the versions of hdmf-zarr and zarr",
            kind=ErrorKind.MISMATCH,
        )
