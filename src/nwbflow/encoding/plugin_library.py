"""hdf5plugin's own filter libraries, called without HDF5.

Every HDF5 filter plugin is a shared library with one documented entry, ``H5PLget_plugin_info``
(``H5PLextern.h``), that returns a table with the filter's C function (``H5Z_class2_t`` of
``H5Zdevelop.h``). Calling that function here gives the very bytes HDF5 would have stored, in
any thread: :mod:`ctypes` releases the GIL and HDF5's lock is never taken. This holds for
filters whose forward path keeps no shared state and makes no call into HDF5, as read in the
sources that hdf5plugin is built from; :mod:`nwbflow.encoding.plugins` lists them. One that
refuses a chunk notes an error with HDF5, so chunks known to be refused are not handed over.

The input is copied to C memory because a filter frees it and returns memory of its own.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Buffer
from pathlib import Path
from typing import Any

import numpy as np

from nwbflow.model.layout import Filter

_FILTER = ctypes.CFUNCTYPE(
    ctypes.c_size_t,
    ctypes.c_uint,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_void_p),
)


class _FilterTable(ctypes.Structure):
    """``H5Z_class2_t``."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("id", ctypes.c_int),
        ("encoder_present", ctypes.c_uint),
        ("decoder_present", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("can_apply", ctypes.c_void_p),
        ("set_local", ctypes.c_void_p),
        ("filter", ctypes.c_void_p),
    )


@functools.cache
def library(number: int) -> ctypes.CDLL | None:
    """Return the shared library of the filter with this number; ``None`` if there is none here."""
    try:
        import hdf5plugin
    except ImportError:
        return None
    name = next((name for name, known in hdf5plugin.FILTERS.items() if known == number), None)
    path = Path(hdf5plugin.get_config().registered_filters.get(name, "")) if name else None
    if path is None or not path.is_file():  # not built in, or registered with HDF5 by somebody else
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


@functools.cache
def filter_function(number: int) -> Any:
    """Return the C function of the filter with this number, or ``None`` if it can't be called here."""
    found = library(number)
    # Memory passes between us and the filter, which needs the same malloc on both sides:
    # certain where a process has one C library.
    if found is None or sys.platform == "win32" or not hasattr(found, "H5PLget_plugin_info"):
        return None
    found.H5PLget_plugin_info.restype = ctypes.POINTER(_FilterTable)
    table = found.H5PLget_plugin_info().contents
    if table.version != 1 or table.id != number or not table.encoder_present:
        return None
    return _FILTER(table.filter)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    return libc


def run_filter(data: Buffer, item: Filter) -> memoryview | None:
    """Apply a filter as HDF5 does when it writes.

    Parameters
    ----------
    data : bytes-like
        C-contiguous, not empty; not changed.
    item : Filter
        Number and complete options, as the file reports them.

    Returns
    -------
    memoryview or None
        The filtered bytes; ``None`` if the filter refuses these data, where HDF5 stores them
        as they are and says so in the chunk's filter mask.
    """
    source = np.frombuffer(data, np.uint8)
    libc = _libc()
    memory = libc.malloc(source.nbytes)
    if not memory:
        raise MemoryError(f"no memory for a copy of a chunk of {source.nbytes} bytes")
    ctypes.memmove(memory, source.ctypes.data, source.nbytes)
    pointer, size = ctypes.c_void_p(memory), ctypes.c_size_t(source.nbytes)
    options = (ctypes.c_uint * len(item.options))(*item.options)
    try:
        length = filter_function(item.id)(
            0, len(item.options), options, source.nbytes, ctypes.byref(size), ctypes.byref(pointer)
        )
        if not length:
            return None
        result = np.empty(length, np.uint8)
        ctypes.memmove(result.ctypes.data, pointer, length)
    finally:
        libc.free(pointer)
    return result.data
