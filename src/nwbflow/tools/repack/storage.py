"""How each dataset of numbers is to lie in the result: as in the source, or as profile and rules say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder

from nwbflow.encoding.codecs import describe
from nwbflow.encoding.zarr_codecs import hdf5_filters, zarr_filters
from nwbflow.errors import SettingsError
from nwbflow.model.layout import Filter, Layout
from nwbflow.nwb.candidates import datasets, is_plain, path_of, types_of
from nwbflow.nwb.data import DataIO
from nwbflow.nwb.external import copy
from nwbflow.nwb.layouts import SMALL
from nwbflow.planning.profiles import PROFILES, Profile
from nwbflow.planning.rules import Rules
from nwbflow.sinks.hdf5 import layout_of
from nwbflow.tools.repack.contents import Contents
from nwbflow.tools.repack.report import Difference
from nwbflow.tools.repack.tree import Backend


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
    changed : list of Difference
        Takes what the target's backend does not have.
    """

    profile: Profile | None
    rules: Rules
    source: Backend
    target: Backend
    changed: list[Difference] = field(default_factory=list)

    def dress(self, root: GroupBuilder, contents: Contents, manager: BuildManager) -> None:
        """Wrap every dataset of numbers that nwbflow is to write in what it wishes for.

        Parameters
        ----------
        root : GroupBuilder
            The tree, its data being the source's own datasets.
        contents : Contents
            Of the source.
        manager : BuildManager
            Knows the types.
        """
        for builder, data in _arrays(root):
            settings = self.rules.match(path_of(builder), types_of(builder, manager), builder.name)
            size = math.prod(data.shape) * data.dtype.itemsize
            if size and (size >= SMALL or settings.rules):
                builder["data"] = self._wrapped(path_of(builder), data, settings)

    def _wrapped(self, path: str, data: Any, settings: Any) -> DataIO:
        layout = _layout(data)
        chunks, codec, checksum = settings.chunks, settings.codec, settings.checksum
        if self.profile is None:
            chunks = layout.chunks if chunks is None else chunks
            kept = self._codec(path, layout) if codec is None else None
            codec = kept if codec is None else codec
        maxshape = None
        if self.target == "HDF5" and isinstance(data, h5py.Dataset) and data.chunks is not None:
            maxshape = layout.maxshape
        same = self.source == self.target == "HDF5"
        return DataIO(
            copy(data) if same else data,
            chunks=chunks,
            codec=codec,
            checksum=checksum,
            maxshape=maxshape,
            fillvalue=layout.fillvalue if isinstance(layout.fillvalue, int | float) else None,
        )

    def _codec(self, path: str, layout: Layout) -> Any:
        """Return the source's own codec, as far as the target's backend has it."""
        if self.source == self.target:
            return _said(layout.filters)
        item = layout.dtype.itemsize
        try:
            made, notes = (zarr_filters if self.target == "Zarr" else hdf5_filters)(layout.filters, item)
        except SettingsError as error:
            self._note(path, f"{self.target} has not its codec, {describe(layout.filters)}; stored as by default")
            del error
            return None if self.target == "Zarr" else PROFILES["default"].codec
        for note in notes:
            self._note(path, note)
        return _said(layout.filters if self.target == "Zarr" else made)

    def _note(self, path: str, text: str) -> None:
        self.changed.append(Difference(place=path, text=text))


def _said(filters: tuple[Filter, ...]) -> Any:
    return [(item.id, item.options) for item in filters] or "none"


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


def by_path(root: GroupBuilder) -> Mapping[str, DatasetBuilder]:
    """Return all dataset builders by their paths."""
    return {path_of(builder): builder for builder in datasets(root)}
