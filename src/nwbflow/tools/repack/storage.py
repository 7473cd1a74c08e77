"""How each dataset of numbers is to lie in the result: as in the source, or as profile and rules say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder

from nwbflow.encoding.codecs import describe
from nwbflow.encoding.plugin_names import CRC32C, ZARR_OTHER
from nwbflow.encoding.zarr_codecs import hdf5_filters, zarr_filters
from nwbflow.errors import SettingsError
from nwbflow.model.data import Source
from nwbflow.model.layout import Filter, Layout
from nwbflow.model.repacked import Difference
from nwbflow.nwb.candidates import datasets, is_plain, path_of, types_of
from nwbflow.nwb.copies import creation, stored_layout
from nwbflow.nwb.data import DataIO, SourceData
from nwbflow.nwb.external import copy
from nwbflow.nwb.layouts import SMALL
from nwbflow.planning.profiles import PROFILES, Profile
from nwbflow.planning.rules import Rules, Settings
from nwbflow.sinks.hdf5 import layout_of
from nwbflow.sources.arrays import as_source
from nwbflow.sources.banded import Banded, band_bytes
from nwbflow.tools.links.copying import can_be_filtered
from nwbflow.tools.repack.contents import Contents
from nwbflow.tools.repack.tree import Backend

BANDS_SHARE = 4
"""One part in so many of the memory is for a row of the source's chunks, where it has to be kept."""


@dataclass(slots=True)
class Wishes:
    """What was asked for.

    Parameters
    ----------
    profile : Profile or None
        ``None``: as in the source.
    rules : Rules
        What goes before both.
    source, target : {"HDF5", "Zarr"}
        From where, to where.
    room : int
        What a row of the source's chunks may take in memory, in bytes.
    changed : list of Difference
        Takes what the target's backend does not have.
    moved : set of str
        Takes the datasets that the engine is to write.
    """

    profile: Profile | None
    rules: Rules
    source: Backend
    target: Backend
    room: int
    changed: list[Difference] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    kept_bytes: int = 0
    notes: tuple[str, ...] = ()

    def dress(self, root: GroupBuilder, manager: BuildManager) -> None:
        """Wrap every dataset of numbers that the engine is to write in what is wished for.

        Parameters
        ----------
        root : GroupBuilder
            The tree, its data being the source's own datasets.
        manager : BuildManager
            Knows the types.
        """
        used: list[int] = []
        for builder, data in _arrays(root):
            path = path_of(builder)
            settings = self.rules.match(path, types_of(builder, manager), builder.name)
            used += settings.rules
            size = math.prod(data.shape) * data.dtype.itemsize
            if size and (size >= SMALL or settings.rules):
                wrapped = self._wrapped(path, data, settings)
                if wrapped is not None:
                    self.moved.add(path)
                    builder["data"] = wrapped
        self.notes = tuple(self.rules.unmatched(used))

    def tell(self, contents: Contents) -> None:
        """Note the codecs of what HDMF writes itself: text, tables and, into HDF5, small arrays lose theirs.

        Parameters
        ----------
        contents : Contents
            Of the source.
        """
        for path, item in contents.objects.items():
            if item.kind is None or item.kind.sort == "other" or item.shape is None or path in self.moved:
                continue
            if self.target == "Zarr" and item.kind.sort in ("number", "bool"):
                continue  # hdmf-zarr keeps it
            codec = _codec_of(item.raw)
            if codec:
                self._note(path, f"stored as HDMF stores small arrays, text and tables; its codec was {codec}")

    def _wrapped(self, path: str, data: Any, settings: Settings) -> DataIO | SourceData | None:
        """Return what is to be written; ``None`` where HDF5 has to copy a dataset as it is."""
        layout = _layout(data)
        chunks, codec, maxshape = settings.chunks, settings.codec, None
        given: SourceData = SourceData(_source(data))
        if self.same_hdf5:
            copied = copy(data)
            if self.profile is None and not settings.rules and layout.chunks is not None:
                stored = stored_layout(copied.target) if can_be_filtered(data) else None
                return None if stored is None or creation(stored, copied.target) is None else copied
            given, maxshape = copied, None if layout.chunks is None else layout.maxshape
        if self.profile is None:
            chunks = layout.chunks if chunks is None else chunks
            codec = self._codec(path, layout) if codec is None else codec
        self._band(given, layout, path)
        return DataIO(
            given,
            chunks=chunks,
            codec=codec,
            checksum=settings.checksum,
            maxshape=maxshape,
            fillvalue=layout.fillvalue if isinstance(layout.fillvalue, int | float) else None,
        )

    @property
    def same_hdf5(self) -> bool:
        """Whether chunks may be taken over as they are stored."""
        return self.source == self.target == "HDF5"

    def _band(self, given: SourceData, layout: Layout, path: str) -> None:
        """Have stored chunks decoded once, where their rows fit the memory."""
        rows = 0
        if layout.chunks is not None and layout.chunks[0] > 1:
            needed = band_bytes(layout.shape, layout.chunks, layout.dtype.itemsize)
            if needed <= self.room:
                self.kept_bytes = max(self.kept_bytes, needed)
                rows = layout.chunks[0]
        given.source = Banded(given.source, rows, path)

    def _codec(self, path: str, layout: Layout) -> Any:
        """Return the source's own codec, as far as the target's backend has it."""
        if self.same_hdf5:
            return _said(layout.filters)
        notes: tuple[str, ...] = ()
        made = layout.filters
        try:
            if self.target == "HDF5":
                made, notes = hdf5_filters(made, layout.dtype.itemsize)
            elif self.source == "HDF5" or any(item.id == ZARR_OTHER for item in made):
                notes = zarr_filters(made, layout.dtype.itemsize)[1]
        except SettingsError:
            instead = "Blosc zstd 1, bits shuffled" if self.target == "Zarr" else "shuffle + gzip 4"
            self._note(
                path,
                f"not every reader of {self.target} has its codec ({describe(layout.filters)}); stored with {instead}",
            )
            return None if self.target == "Zarr" else PROFILES["default"].codec
        for note in notes:
            self._note(path, note)
        return _said(made)

    def _note(self, path: str, text: str) -> None:
        self.changed.append(Difference(place=path, text=text))


def _said(filters: tuple[Filter, ...]) -> Any:
    """Return filters as :class:`~nwbflow.DataIO` takes a codec, a checksum by HDF5's name."""
    return ["fletcher32" if item.id == CRC32C else (item.id, item.options) for item in filters] or "none"


def _source(data: Any) -> Source:
    if isinstance(data, h5py.Dataset):
        return as_source(data)
    from nwbflow.sinks.zarr import StoredArray

    return StoredArray(data)


def _codec_of(data: Any) -> str:
    """Return what was chosen for a dataset or array; empty if nothing was."""
    if isinstance(data, h5py.Dataset):
        filters = layout_of(data).filters
        return describe(filters) if filters else ""
    chosen = [codec.to_dict() for codec in data.compressors]
    usual = len(chosen) == 1 and chosen[0]["name"] == "zstd" and chosen[0]["configuration"]["level"] == 0
    return "" if usual else ", ".join(str(codec["name"]) for codec in chosen)  # zarr-python's own, if nobody asks


def _layout(data: Any) -> Layout:
    if isinstance(data, h5py.Dataset):
        return layout_of(data)
    from nwbflow.sinks.zarr import layout_of_array

    return layout_of_array(data)


def _arrays(root: GroupBuilder) -> Iterator[tuple[DatasetBuilder, Any]]:
    """Give the datasets whose elements the engine can move."""
    for builder in datasets(root):
        data = builder.data
        if hasattr(data, "shape") and hasattr(data, "chunks") and is_plain(np.dtype(data.dtype)) and data.shape:
            yield builder, data
