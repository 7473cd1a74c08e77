"""Array to bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nwbflow.model.data import Array


@dataclass(frozen=True, slots=True)
class Encoded:
    """One chunk, ready to be stored as it is.

    Parameters
    ----------
    data : bytes
        The chunk after all filters (a bytes-like object that owns its memory).
    filter_mask : int
        Bit *i* set: filter *i* of the pipeline was left out for this chunk.
    """

    data: bytes | bytearray | memoryview
    filter_mask: int = 0


class Encoder(Protocol):
    """Turns one chunk into the bytes HDF5 would have stored, outside HDF5.

    Implementations are thread-safe, picklable, and release the GIL where the time goes.
    """

    def encode(self, chunk: Array, /) -> Encoded:
        """Encode one full-size, C-contiguous chunk of the layout's dtype and byte order."""
        ...
