"""How each large array is stored in Zarr: hdmf-zarr's wrapper first, then nwbflow's or HDF5's, rules, profile.

Codecs, chunks, rules and profiles are the same as for HDF5; what Zarr has in their place is worked out here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import numpy as np
import zarr
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import BuildManager, GroupBuilder
from hdmf_zarr import ZarrDataIO

from nwbflow.encoding.codecs import Codec, parse_codec
from nwbflow.encoding.plugin_names import CRC32C
from nwbflow.encoding.zarr_codecs import bit_shuffled, to_metadata, zarr_filters
from nwbflow.errors import ErrorKind, NwbflowError, SettingsError
from nwbflow.model.data import Source, Stream
from nwbflow.model.layout import Filter, Layout, MaxShape, Shape
from nwbflow.nwb.candidates import Candidate, datasets
from nwbflow.nwb.data import DataIO
from nwbflow.nwb.iterators import IteratorStream
from nwbflow.nwb.layouts import SMALL, Storage, Wishes
from nwbflow.planning.chunks import complete_chunks
from nwbflow.planning.profiles import PROFILES, Profile
from nwbflow.planning.shards import SHARD_BYTES, SHARDED_CHUNK_BYTES, plan_shards
from nwbflow.sinks.hdf5 import try_layout
from nwbflow.sinks.zarr import try_array_layout

_CODECS = {"default": ("zstd", 1), "fast": ("lz4", 5), "archive": ("zstd", 7), "cloud": ("zstd", 1)}
"""What the built-in profiles are in Zarr, where no reader lacks these: all with bits sorted by place before."""


class Worn(DataIO):
    """What a :class:`hdmf_zarr.ZarrDataIO` says, in a wrapper that the search for large arrays knows.

    Parameters
    ----------
    data : object
        What it wraps.
    settings : dict
        Keyword arguments of :meth:`zarr.Group.create_array`.
    said : bool
        Whether a user said them; else they are how the data lie in the HDF5 file they come from.
    """

    def __init__(self, data: Any, settings: dict[str, Any], *, said: bool) -> None:
        super().__init__(data)
        self.settings = settings
        self.said = said


@contextmanager
def dressed(root: GroupBuilder) -> Iterator[None]:
    """Show the search for large arrays what hdmf-zarr's wrappers, and HDF5 datasets, say of their storage."""
    originals = []
    try:
        for builder in datasets(root):
            data = builder.data
            if isinstance(data, ZarrDataIO) and not isinstance(data.data, zarr.Array | str | bytes):
                worn = Worn(data.data, dict(data.io_settings), said=True)
            elif isinstance(data, h5py.Dataset) and data and data.dtype.kind in "biuf" and data.shape:
                worn = Worn(data, dict(ZarrDataIO.from_h5py_dataset(h5dataset=data).io_settings), said=False)
            else:
                continue
            originals.append((builder, data))
            builder["data"] = worn
        yield
    finally:
        for builder, data in originals:
            builder["data"] = data


@dataclass(slots=True)
class Decider:
    """Decides how everything of one write is stored.

    Parameters
    ----------
    wishes : Wishes
        Profile and rules.
    manager : BuildManager
        Knows the types.
    shard_bytes : int
        Size of a shard that is not exceeded, in bytes before codecs.
    notes : list of (str, str)
        Datasets, and what is stored otherwise than it was asked for.
    """

    wishes: Wishes
    manager: BuildManager
    shard_bytes: int = SHARD_BYTES
    notes: list[tuple[str, str]] = field(default_factory=list)

    def decide(self, candidates: Sequence[Candidate]) -> list[Storage]:
        """Return the storage of every candidate that nwbflow writes; the others are hdmf-zarr's.

        Raises
        ------
        SettingsError
            For chunks, shards or codecs that don't fit their dataset, or that Zarr doesn't have.
        """
        decided = []
        for candidate in candidates:
            try:
                storage = self._decide_one(candidate)
            except NwbflowError as error:
                raise type(error)(f"{candidate.name}: {error}", kind=error.kind) from error
            except (ValueError, TypeError, RuntimeError, KeyError) as error:  # from trying the settings
                raise SettingsError(
                    f"{candidate.name}: an array of shape {candidate.initial} can't be created as asked: {error}",
                    kind=ErrorKind.OPTION,
                ) from error
            if storage is not None:
                decided.append(storage)
        return decided

    def _decide_one(self, candidate: Candidate) -> Storage | None:
        wrapper: Any = candidate.wrapper
        settings = self.wishes.rules.match(candidate.name, candidate.types, candidate.builder.name)
        profile = self.wishes.profile
        worn = isinstance(wrapper, Worn)
        special = (wrapper is not None and not (worn and not wrapper.said)) or bool(settings.rules)
        least = profile.min_bytes if profile is not None else SMALL
        if candidate.nbytes is not None and candidate.nbytes < (1 if special else least):
            return None
        if not isinstance(candidate.data, Source) and 0 in candidate.data.maxshape:
            return None
        if worn and (wrapper.said or (profile is None and not settings.rules)):
            return self._as_zarr_says(candidate, dict(wrapper.settings))
        if wrapper is None and profile is None and not settings.rules:
            return self._as_zarr_says(candidate, {})
        return self._as_wished(candidate, None if worn else wrapper, settings)

    def _as_zarr_says(self, candidate: Candidate, create: dict[str, Any]) -> Storage:
        """Follow hdmf-zarr to the letter, but for automatic chunks of one row."""
        data = candidate.data
        if "chunks" not in create and not isinstance(data, Source):
            create["chunks"] = _chunks_of_stream(candidate, data)
        return _storage(candidate, create, None)

    def _as_wished(self, candidate: Candidate, wrapper: H5DataIO | None, settings: Any) -> Storage:
        profile = self.wishes.profile
        chunks, codec, checksum = settings.chunks, settings.codec, settings.checksum
        create: dict[str, Any] = {}
        filters: tuple[Filter, ...] | None = None
        effort: int | str | None = None
        if isinstance(wrapper, DataIO):
            chunks = wrapper.chunks_wish if wrapper.chunks_wish is not None else chunks
            codec = wrapper.codec if wrapper.codec is not None else codec
            checksum = wrapper.checksum if wrapper.checksum is not None else checksum
            if wrapper.fillvalue is not None:
                create["fill_value"] = wrapper.fillvalue
        elif wrapper is not None:
            chunks, filters, fill = self._as_hdf5_has_it(candidate, wrapper, chunks)
            create |= {} if fill is None else {"fill_value": fill}
        if filters is None and codec is None and profile is not None and PROFILES.get(profile.name) is profile:
            filters = bit_shuffled(*_CODECS[profile.name], candidate.dtype.itemsize)
            checksum = profile.checksum if checksum is None else checksum
        elif filters is None and (codec is not None or profile is not None):
            parsed = self._parse(candidate, codec if codec is not None else getattr(profile, "codec", None))
            filters, effort = parsed.filters, parsed.effort
        if filters is not None or checksum:
            create["compressors"] = self._compressors(candidate, filters or (), checksum=bool(checksum))
        create["chunks"] = self._chunks(candidate, chunks, profile)
        if profile is not None:
            limit = candidate.data.shape if isinstance(candidate.data, Source) else candidate.data.maxshape
            shards = plan_shards(create["chunks"], limit, candidate.dtype, target_bytes=self.shard_bytes)
            create |= {} if shards is None else {"shards": shards}
        return _storage(candidate, create, effort)

    def _parse(self, candidate: Candidate, codec: Any) -> Codec:
        return parse_codec(codec, dtype=candidate.dtype, chunks=(1024, *(1 for _ in candidate.initial[1:])))

    def _compressors(
        self, candidate: Candidate, filters: Sequence[Filter], *, checksum: bool
    ) -> list[dict[str, Any]] | None:
        found, notes = zarr_filters(filters, candidate.dtype.itemsize)
        self.notes += [(candidate.name, note) for note in notes]
        if checksum and not any(item.id == CRC32C for item in found):
            found = (*found, Filter(CRC32C))
        return to_metadata(found) or None

    def _chunks(self, candidate: Candidate, wish: Any, profile: Profile | None) -> Shape:
        data = candidate.data
        most = data.shape if isinstance(data, Source) else data.maxshape
        target = None if profile is None else profile.chunk_bytes or SHARDED_CHUNK_BYTES
        if wish is None and not isinstance(data, Source) and profile is None:
            return _chunks_of_stream(candidate, data)
        present = data.shape if isinstance(data, Source) else None
        return complete_chunks(wish, most, candidate.dtype, kind=candidate.kind, target_bytes=target, present=present)

    def _as_hdf5_has_it(
        self, candidate: Candidate, wrapper: H5DataIO, chunks: Any
    ) -> tuple[Any, tuple[Filter, ...], Any]:
        """Return chunks, filters and fill value that h5py makes of the settings of HDMF's wrapper for HDF5."""
        settings = {k: v for k, v in dict(wrapper.io_settings).items() if k != "maxshape"}
        asked = settings.get("chunks")
        shape = tuple(max(1, n) for n in candidate.initial)
        layout = try_layout({"shape": shape, "dtype": candidate.dtype, **settings, "chunks": asked or True})
        given = layout.chunks if asked not in (None, True) else chunks
        return given, layout.filters, layout.fillvalue


def _chunks_of_stream(candidate: Candidate, data: Stream) -> Shape:
    """Return what an iterator recommends, or chunks that fit what it holds: Zarr's own would hold one row."""
    if isinstance(data, IteratorStream) and (theirs := data.recommended_chunks) is not None:
        return theirs
    return complete_chunks(None, data.maxshape, candidate.dtype, kind=candidate.kind)


def _storage(candidate: Candidate, create: dict[str, Any], effort: int | str | None) -> Storage:
    """Return storage that zarr-python has been asked about; it starts without rows where nothing depends on them."""
    create = {"shape": candidate.initial, "dtype": candidate.dtype.newbyteorder("="), **create}
    layout = try_array_layout(create)
    limit: MaxShape = candidate.data.shape if isinstance(candidate.data, Source) else candidate.data.maxshape
    layout = replace(layout, maxshape=limit)
    create |= {"chunks": layout.chunks} | ({} if layout.shards is None else {"shards": layout.shards})
    grow = not candidate.is_column
    if grow:
        create["shape"] = (0, *layout.shape[1:])
    return Storage(candidate=candidate, create=create, layout=layout, effort=effort, grow=grow)


def reserve_bytes(layouts: Sequence[Layout]) -> int:
    """Return what open shards may take: every shard that shares its place on the first axis is open at a time."""
    largest = 0
    for layout in layouts:
        if layout.shards is not None:
            counts = [
                1 if most is None else -(-most // shard)
                for most, shard in zip(layout.maxshape[1:], layout.shards[1:], strict=True)
            ]
            size = int(np.prod(layout.shards)) * layout.dtype.itemsize
            largest = max(largest, size * int(np.prod([max(1, count) for count in counts])))
    return largest
