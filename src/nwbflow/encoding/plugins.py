"""hdf5plugin's filters outside HDF5: many threads at a time, without HDF5's lock.

Blosc, Blosc2, Zstandard, LZ4, Bitshuffle (with LZ4, Zstandard or nothing) and bzip2 are
encoded here by the code hdf5plugin would have used itself. Other filters are left to HDF5:
:func:`plugin_encoder` returns ``None`` for them.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Buffer, Callable

import numpy as np

from nwbflow.encoding import plugin_names as names
from nwbflow.encoding.plugin_library import filter_function, library, run_filter
from nwbflow.model.layout import Filter, Layout

type PluginEncode = Callable[[Buffer, Layout, Filter], memoryview | None]
"""Chunk bytes, the dataset's layout and the filter with complete options to the filtered bytes;
``None`` where the filter refuses the chunk: HDF5 then stores it without this filter and sets the
filter's bit in the chunk's mask."""

_BLOSC_OVERHEAD = 16  # BLOSC_MAX_OVERHEAD, the header
_BLOSC_MAX = 2**31 - 1 - _BLOSC_OVERHEAD
_FRAME_BLOCK_SIZE = 53  # where a Blosc2 frame holds it, as 4 big-endian bytes (README_CFRAME_FORMAT.rst)

_lock = threading.Lock()
_blosc2_blocks: dict[tuple[int, ...], int] = {}


def plugin_encoder(item: Filter, /) -> PluginEncode | None:
    """Return the function that encodes with a filter of hdf5plugin, outside HDF5.

    Parameters
    ----------
    item : Filter
        Number and complete options, as the file reports them after creation.

    Returns
    -------
    callable or None
        Thread-safe, releases the GIL, picklable; ``None`` if HDF5 has to run this filter:
        one not covered, hdf5plugin not installed or built without it, or a platform where it
        can't be called.
    """
    encode = _ENCODERS.get(item.id)
    if encode is None or filter_function(item.id) is None:
        return None
    if item.id == names.BLOSC:
        if not hasattr(library(item.id), "blosc_compress_ctx") or len(item.options) < 4:
            return None
        with _lock:  # Blosc looks for the processor's instructions in its first call
            _compress_blosc(bytes(64), item)
    if item.id == names.BLOSC2 and len(item.options) < 6:  # too few for the filter; HDF5 stores chunks as they are
        return None
    return encode


def _plain(data: Buffer, _layout: Layout, item: Filter, /) -> memoryview | None:
    return run_filter(data, item)


def _bitshuffle(data: Buffer, _layout: Layout, item: Filter, /) -> memoryview | None:
    # It refuses parts of elements, as after a checksum; not calling it then spares HDF5's error stack.
    partial = len(item.options) < 3 or memoryview(data).nbytes % item.options[2]
    return None if partial else run_filter(data, item)


def _blosc(data: Buffer, _layout: Layout, item: Filter, /) -> memoryview | None:
    return _compress_blosc(data, item)


def _compress_blosc(data: Buffer, item: Filter) -> memoryview | None:
    # The filter itself goes through Blosc's global lock; this entry of the same library does not.
    # Where data don't shrink the filter refuses them; with room for the header they are stored
    # inside a Blosc buffer, which also readers that ignore filter masks understand.
    source = np.frombuffer(data, np.uint8)
    level, shuffle, code = names.blosc_settings(item.options)
    if source.nbytes > _BLOSC_MAX or code >= len(names.BLOSC_COMPRESSORS):
        return None
    result = np.empty(source.nbytes + _BLOSC_OVERHEAD, np.uint8)
    length = library(names.BLOSC).blosc_compress_ctx(  # type: ignore[union-attr]
        ctypes.c_int(level),
        ctypes.c_int(shuffle),
        ctypes.c_size_t(item.options[2] or 1),
        ctypes.c_size_t(source.nbytes),
        ctypes.c_void_p(source.ctypes.data),
        ctypes.c_void_p(result.ctypes.data),
        ctypes.c_size_t(result.nbytes),
        ctypes.c_char_p(names.BLOSC_COMPRESSORS[code].encode()),
        ctypes.c_size_t(0),
        ctypes.c_int(1),
    )
    return result[:length].data if length > 0 else None


def _blosc2(data: Buffer, _layout: Layout, item: Filter, /) -> memoryview | None:
    # For chunks of two and more axes the filter works out the block size in a buffer that all
    # threads share, unless it is told. So the first chunk of each kind is encoded alone (which
    # also starts the library up alone) and its block size is given to all others.
    known = _blosc2_blocks.get(item.options)
    if known is None:
        with _lock:
            if item.options not in _blosc2_blocks:
                first = run_filter(data, item)
                if first is not None:
                    _blosc2_blocks[item.options] = _frame_block_size(first) if len(item.options) > 8 else 0
                return first
            known = _blosc2_blocks[item.options]
    return run_filter(data, Filter(item.id, (item.options[0], known, *item.options[2:])) if known else item)


def _frame_block_size(frame: memoryview) -> int:
    return int(struct.unpack_from(">i", frame, _FRAME_BLOCK_SIZE)[0])


_ENCODERS: dict[int, PluginEncode] = {
    names.BLOSC: _blosc,
    names.BLOSC2: _blosc2,
    names.ZSTD: _plain,
    names.LZ4: _plain,
    names.BITSHUFFLE: _bitshuffle,
    names.BZIP2: _plain,
}
