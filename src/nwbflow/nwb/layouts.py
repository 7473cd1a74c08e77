"""How each large array is stored: the user's wrapper first, then rules, then the profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hdmf.backends.hdf5 import HDF5IO
from hdmf.build import BuildManager

from nwbflow.encoding.codecs import Codec, parse_codec
from nwbflow.errors import ErrorKind, NwbflowError, SettingsError
from nwbflow.model.data import Source
from nwbflow.model.layout import Layout, MaxShape, Shape
from nwbflow.nwb.candidates import Candidate
from nwbflow.nwb.copies import creation, same_fill, stored_layout
from nwbflow.nwb.data import DataIO, SourceData, with_checksum
from nwbflow.nwb.iterators import IteratorStream
from nwbflow.planning.chunks import complete_chunks
from nwbflow.planning.profiles import Profile
from nwbflow.planning.rules import Rules
from nwbflow.sinks.hdf5 import creation_list, try_layout

SMALL = 64 * 2**10
"""Arrays below this many bytes are PyNWB's to write: nothing is gained by doing it elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How one candidate is to be created.

    Parameters
    ----------
    candidate : Candidate
        The dataset.
    create : dict
        Keyword arguments of :meth:`h5py.Group.create_dataset` for the reservation.
    layout : Layout
        What h5py makes of them, at full shape.
    effort : int, str or None
        How hard the encoder works.
    grow : bool
        Whether the reservation starts with no rows and grows.
    kept : bool
        Whether the stored chunks of the dataset it is a copy of are taken over as they are.
    """

    candidate: Candidate
    create: dict[str, Any]
    layout: Layout
    effort: int | str | None
    grow: bool
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What holds for the whole write.

    Parameters
    ----------
    profile : Profile or None
        ``None`` is what plain PyNWB does.
    rules : Rules
        Settings by place or type.
    expandable : tuple of str
        Types whose datasets PyNWB makes resizable.
    """

    profile: Profile | None
    rules: Rules
    expandable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What holds for one dataset after wrapper, rules and profile were asked."""

    chunks: Any
    codec: Any
    checksum: bool

    def pipeline(self, dtype: np.dtype[Any], chunks: Shape) -> Codec:
        codec = Codec() if self.codec is None else parse_codec(self.codec, dtype=dtype, chunks=chunks)
        return with_checksum(codec, wanted=self.checksum)


def decide(candidates: Sequence[Candidate], wishes: Wishes, manager: BuildManager) -> list[Storage]:
    """Return the storage of every candidate that nwbflow writes; the others are PyNWB's.

    Raises
    ------
    SettingsError
        For chunks or codecs that don't fit their dataset.
    """
    decided = []
    for candidate in candidates:
        try:
            storage = _decide_one(candidate, wishes, manager)
        except NwbflowError as error:
            raise type(error)(f"{candidate.name}: {error}", kind=error.kind) from error
        except (ValueError, TypeError, RuntimeError) as error:  # h5py's, from trying the settings
            raise SettingsError(
                f"{candidate.name}: a dataset of shape {candidate.initial} can't be created with "
                f"{dict(candidate.wrapper.io_settings) if candidate.wrapper is not None else {}}: {error}",
                kind=ErrorKind.OPTION,
            ) from error
        if storage is not None:
            decided.append(_keep_chunks(storage))
    return decided


def _decide_one(candidate: Candidate, wishes: Wishes, manager: BuildManager) -> Storage | None:
    wrapper = candidate.wrapper
    if candidate.copied is not None and (own := _as_copied(candidate, wishes, manager)) is not None:
        return own
    settings = wishes.rules.match(candidate.name, candidate.types, candidate.builder.name)
    if isinstance(wrapper, DataIO):
        wanted = (wrapper.chunks_wish, wrapper.codec, wrapper.checksum)
        fill = {} if wrapper.fillvalue is None else {"fillvalue": wrapper.fillvalue}
        maxshape = wrapper.maxshape_wish
    elif wrapper is not None:
        return _as_h5dataio_says(candidate, dict(wrapper.io_settings), wishes, manager)
    else:
        wanted, fill, maxshape = (None, None, None), {}, None
    special = wrapper is not None or bool(settings.rules)
    profile = wishes.profile
    least = profile.min_bytes if profile is not None else SMALL
    if candidate.nbytes is not None and candidate.nbytes < (1 if special else least):
        given = candidate.builder.data if wrapper is None else wrapper.data
        if candidate.nbytes or not isinstance(given, SourceData):  # HDMF can't create an iterator's dataset of no size
            return None
    chunks_wish = wanted[0] if wanted[0] is not None else settings.chunks
    codec_wish = wanted[1] if wanted[1] is not None else settings.codec
    checksum = wanted[2] if wanted[2] is not None else settings.checksum
    if profile is not None:
        codec_wish = codec_wish if codec_wish is not None else profile.codec
        checksum = profile.checksum if checksum is None else checksum
    limit = maxshape or _limit(candidate, wishes, manager)
    wish = _Wish(chunks_wish, codec_wish, bool(checksum))
    return _assemble(candidate, limit=limit, wish=wish, fill=fill, profile=profile)


def _assemble(
    candidate: Candidate, *, limit: MaxShape | None, wish: _Wish, fill: dict[str, Any], profile: Profile | None
) -> Storage:
    data = candidate.data
    shape = candidate.initial
    most: MaxShape = limit or (shape if isinstance(data, Source) else data.maxshape)
    if len(most) != len(shape) or any(m is not None and m < s for m, s in zip(most, shape, strict=True)):
        raise SettingsError(f"maxshape={most} doesn't hold the data's shape {shape}", kind=ErrorKind.OPTION)
    create: dict[str, Any] = {"shape": shape, "dtype": candidate.dtype, **fill}
    filtered = bool(wish.pipeline(candidate.dtype, (1024, *(1 for _ in shape[1:]))).filters)
    plain = isinstance(data, Source) and limit is None and wish.chunks is None and not filtered
    if plain or (isinstance(data, Source) and 0 in most):  # HDF5 has no chunks where there is no room for one
        return Storage(candidate=candidate, create=create, layout=try_layout(create), effort=None, grow=False)
    most = tuple(n or None for n in most)
    create["maxshape"] = most
    if profile is None and wish.chunks is None and limit is not None and candidate.is_column:
        create["chunks"] = HDF5IO.compute_default_chunk_shape(shape, candidate.dtype)  # as plain PyNWB does
    elif wish.chunks is None and (theirs := _iterators_chunks(candidate, most, profile)):
        create["chunks"] = theirs
    else:
        create["chunks"] = complete_chunks(
            wish.chunks,
            most,
            candidate.dtype,
            kind=candidate.kind,
            target_bytes=profile.chunk_bytes if profile is not None else None,
            present=shape if isinstance(data, Source) else None,
        )
    codec = wish.pipeline(candidate.dtype, create["chunks"])
    if codec.filters:
        create["dcpl"] = creation_list(codec.filters)
    return _chunked(candidate, create, codec.effort)


def _as_h5dataio_says(
    candidate: Candidate, settings: dict[str, Any], wishes: Wishes, manager: BuildManager
) -> Storage | None:
    """Follow HDMF's wrapper to the letter, but for automatic chunks of one row."""
    data = candidate.data
    create: dict[str, Any] = {"shape": candidate.initial, "dtype": candidate.dtype, **settings}
    if isinstance(data, Source):
        if candidate.nbytes == 0:
            return None
        limit = _limit(candidate, wishes, manager)
        if "maxshape" not in create and limit is not None:
            create["maxshape"] = limit
        if "maxshape" in create:
            create.setdefault("chunks", True)
    else:
        create.setdefault("maxshape", data.maxshape)
        create.setdefault("chunks", True)
    if create.get("chunks") is True:
        create["chunks"] = _automatic_chunks(candidate, create.get("maxshape"), wishes)
    layout = try_layout(create)
    if layout.chunks is None:
        return Storage(candidate=candidate, create=create, layout=layout, effort=None, grow=False)
    return _chunked(candidate, {**create, "chunks": layout.chunks}, None)


def _as_copied(candidate: Candidate, wishes: Wishes, manager: BuildManager) -> Storage | None:
    """Return the storage of a copy of which nothing else is said: its source's, where that is chunked."""
    asked = wishes.rules.match(candidate.name, candidate.types, candidate.builder.name).rules
    stored = stored_layout(candidate.copied)
    if candidate.copied is None or candidate.wrapper is not None or asked or stored is None:
        return None
    if stored.dtype.newbyteorder("=") != candidate.dtype.newbyteorder("="):
        return None  # the schema asks for another type
    create = creation(stored, candidate.copied)
    if create is None:
        return None
    limit = _limit(candidate, wishes, manager)
    return _chunked(candidate, create if limit is None else {**create, "maxshape": limit}, None)


def _keep_chunks(storage: Storage) -> Storage:
    """Return `storage` such that chunks are taken over as they are, if its source has the same."""
    stored, layout = stored_layout(storage.candidate.copied), storage.layout
    if stored is None or (stored.dtype, stored.chunks, stored.filters) != (layout.dtype, layout.chunks, layout.filters):
        return storage
    return replace(storage, kept=same_fill(stored, layout))


def _iterators_chunks(candidate: Candidate, most: MaxShape, profile: Profile | None) -> Shape | None:
    """Return what one of HDMF's iterators recommends, or without a profile what PyNWB picks for a known length."""
    if not isinstance(candidate.data, IteratorStream):
        return None
    recommended = candidate.data.recommended_chunks
    if recommended is None and profile is None and most[0] is not None:
        recommended = HDF5IO.compute_default_chunk_shape(candidate.initial, candidate.dtype)
    return recommended if isinstance(recommended, tuple) else None


def _automatic_chunks(candidate: Candidate, maxshape: MaxShape | None, wishes: Wishes) -> Shape | bool:
    """Return PyNWB's automatic chunks, or better ones where those would hold a single row."""
    theirs: Shape | bool = HDF5IO.compute_default_chunk_shape(candidate.initial, candidate.dtype)
    streamed = not isinstance(candidate.data, Source) and maxshape is not None and maxshape[0] is None
    if wishes.profile is None and not streamed:
        return theirs
    return complete_chunks(
        None,
        maxshape or candidate.initial,
        candidate.dtype,
        kind=candidate.kind,
        target_bytes=wishes.profile.chunk_bytes if wishes.profile is not None else None,
        present=None if streamed else candidate.initial,
    )


def _chunked(candidate: Candidate, create: dict[str, Any], effort: int | str | None) -> Storage:
    """Return chunked storage; it starts without rows where nothing depends on its length."""
    create.setdefault("maxshape", candidate.initial)
    layout = try_layout(create)
    grow = not candidate.is_column and len(layout.shape) > 0
    if grow:
        create = {**create, "shape": (0, *layout.shape[1:])}
        layout = replace(try_layout(create), shape=layout.shape)
    return Storage(candidate=candidate, create=create, layout=layout, effort=effort, grow=grow)


def _limit(candidate: Candidate, wishes: Wishes, manager: BuildManager) -> MaxShape | None:
    """Return the largest shape PyNWB gives a column that can be appended to; ``None`` for others."""
    builder = candidate.builder
    spec_shape = builder.matched_spec_shape
    if spec_shape is None or not candidate.is_column or not isinstance(candidate.data, Source):
        return None
    if not any(manager.is_sub_data_type(builder, name) for name in wishes.expandable):
        return None
    return tuple(None if n is None else int(n) for n in spec_shape)
