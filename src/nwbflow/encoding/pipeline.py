"""From one chunk to the bytes HDF5 would store, for any pipeline whose filters are known here.

Deflate, shuffle and Fletcher-32 come from this package, hdf5plugin's filters from
:mod:`nwbflow.encoding.plugins`. A filter neither knows makes the whole pipeline HDF5's own
business.
"""

from __future__ import annotations

from collections.abc import Buffer, Callable
from dataclasses import dataclass, field

import numpy as np

from nwbflow.encoding.deflate import check_effort, deflate
from nwbflow.encoding.fletcher32 import append_fletcher32
from nwbflow.encoding.plugins import plugin_encoder
from nwbflow.encoding.shuffle import shuffle
from nwbflow.errors import ErrorKind, SourceError, UnsupportedError
from nwbflow.model.data import Array
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Filter, Layout

DEFLATE = 1
SHUFFLE = 2
FLETCHER32 = 3

type _Step = Callable[[Buffer], Buffer | None]
"""One filter: bytes in, bytes out; ``None`` leaves the filter out for this chunk."""


@dataclass(frozen=True)
class FilterEncoder:
    """Encodes the chunks of one dataset; made by :func:`encoder_for`.

    Thread-safe; picklable (the filters are looked up again where it is unpickled).

    Parameters
    ----------
    layout : Layout
        The dataset's dtype, chunks and filters.
    effort : int, str or None
        Effort of deflate; ``None`` is the level recorded with the filter.
    """

    layout: Layout
    effort: int | str | None = None
    _steps: tuple[_Step, ...] = field(default=(), repr=False, compare=False)

    def encode(self, chunk: Array, /) -> Encoded:
        """Return the chunk as HDF5 would store it.

        Parameters
        ----------
        chunk : numpy.ndarray
            One full-size chunk of the layout's dtype, byte order included; views with any
            strides are fine.

        Returns
        -------
        Encoded
            Owns its memory: `chunk` may be reused at once.

        Raises
        ------
        SourceError
            If `chunk` is of another shape or dtype than the layout's chunks.
        """
        self._check(chunk)
        data: Buffer = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
        source, mask = data, 0
        for index, step in enumerate(self._steps):
            filtered = step(data)
            if filtered is None:
                mask |= 1 << index
            else:
                data = filtered
        if data is source:  # it may be the caller's own memory
            return Encoded(bytes(data), mask)
        return Encoded(data if isinstance(data, bytes | bytearray) else memoryview(data), mask)

    def _check(self, chunk: Array) -> None:
        if chunk.shape != self.layout.chunks:
            raise SourceError(
                f"a chunk of shape {chunk.shape} was given to the encoder of a dataset with chunks of shape "
                f"{self.layout.chunks}; chunks at the edge are to be padded to full size",
                kind=ErrorKind.SHAPE,
            )
        if chunk.dtype != self.layout.dtype:
            raise SourceError(
                f"a chunk of dtype {chunk.dtype.str} was given to the encoder of a dataset of dtype "
                f"{self.layout.dtype.str}; convert it first",
                kind=ErrorKind.DTYPE,
            )

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (self.layout, self.effort))


def encoder_for(layout: Layout, *, effort: int | str | None = None) -> FilterEncoder | None:
    """Return an encoder for a dataset's chunks, if its filters can run outside HDF5.

    Parameters
    ----------
    layout : Layout
        How the dataset lies on disk; filters with complete options, as the file reports them.
    effort : int, str or None
        How hard deflate tries: 0 to 9 or ``"fast"`` (:func:`nwbflow.encoding.deflate.deflate`);
        ``None`` is the level in the filter's options.

    Returns
    -------
    FilterEncoder or None
        ``None`` if storage is contiguous or HDF5 itself has to run one of the filters.

    Raises
    ------
    SettingsError
        If there is no such effort.
    """
    if effort is not None:
        check_effort(effort)
    if layout.chunks is None:
        return None
    steps: list[_Step] = []
    planes = 1
    for item in layout.filters:
        step = _step(item, layout, planes, effort)
        if step is None:
            return None
        steps.append(step)
        if item.id == SHUFFLE:
            # Only the first shuffle leaves planes that deflate can tell apart.
            planes = _itemsize(item, layout) if planes == 1 else 1
        elif item.id != FLETCHER32:
            planes = 1
    return FilterEncoder(layout, effort, tuple(steps))


def _restore(layout: Layout, effort: int | str | None) -> FilterEncoder:
    encoder = encoder_for(layout, effort=effort)
    if encoder is None:
        raise UnsupportedError(
            f"an encoder for the filters {[f.id for f in layout.filters]} was sent to a process that can't run them: "
            "install the same packages (nwbflow[codecs]) there",
            kind=ErrorKind.PLUGIN,
        )
    return encoder


def _itemsize(item: Filter, layout: Layout) -> int:
    # h5py records the size when the dataset is created; before that the options are empty.
    return item.options[0] if item.options else layout.dtype.itemsize


def _step(item: Filter, layout: Layout, planes: int, effort: int | str | None) -> _Step | None:
    if item.id == DEFLATE:
        level = effort if effort is not None else item.options[0] if item.options else 4
        # HDF5 leaves deflate out for a chunk that grows by more than 0.1% (H5Zdeflate.c). Deflate's
        # stored blocks grow it by less, so no chunk needs a mask, which some readers ignore.
        return lambda data: deflate(data, planes=planes, effort=level)
    if item.id == SHUFFLE:
        itemsize = _itemsize(item, layout)
        return lambda data: shuffle(data, itemsize)
    if item.id == FLETCHER32:
        return append_fletcher32
    plugin = plugin_encoder(item)
    return None if plugin is None else lambda data: plugin(data, layout, item)
