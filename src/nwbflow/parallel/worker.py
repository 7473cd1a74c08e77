"""What processes of a pool do; imported there."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from multiprocessing.connection import wait

from nwbflow.engine.afar import Batch, Kit, encode_block
from nwbflow.model.data import Region, Source
from nwbflow.model.layout import Shape
from nwbflow.parallel.parcels import Parcel
from nwbflow.parallel.tasks import encode_given, version

_KEPT = 4
_opened: OrderedDict[str, Source] = OrderedDict()
# sources this process has opened, the last one used at the end


def prepare() -> None:
    """Make a new process one that ends with its parent, whom alone Ctrl-C is for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def ready() -> None:
    """Show that this process has started."""


def look(parcel: Parcel) -> tuple[Shape, str]:
    """Open a source, read one element, and return shape and type as they are seen from here."""

    def ask() -> tuple[Shape, str]:
        source = _source(parcel)
        source.read(tuple(slice(0, 1) for _ in source.shape))
        return source.shape, source.dtype.str

    return _portable(ask)


def encode_part(kit: Kit, region: Region, parcel: Parcel) -> Batch:
    """Read a block, or compute it, and encode it."""

    def make() -> Batch:
        started = time.perf_counter()
        if not parcel.key:
            return encode_given(version(), kit, region, pickle.loads(parcel.pickled).compute(scheduler="synchronous"))
        block = _source(parcel).read(region)
        return encode_block(kit, tuple(s.start for s in region), block, time.perf_counter() - started)

    return _portable(make)


def _source(parcel: Parcel) -> Source:
    source = _opened.pop(parcel.key, None)
    if source is None:
        source = pickle.loads(parcel.pickled)
    _opened[parcel.key] = source
    while len(_opened) > _KEPT:
        _opened.popitem(last=False)
    return source


def _portable[T](action: Callable[[], T]) -> T:
    """Return what `action` does; errors that would not survive the way back are said in words.

    An exception that can be pickled but not made again would end the whole pool.
    """
    try:
        return action()
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        raise
