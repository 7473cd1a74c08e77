"""Blocks that are computed and encoded in other processes: what is sent there, and what comes back."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nwbflow.engine.chunks import Finished, encode_chunk
from nwbflow.model.data import Array, Source
from nwbflow.model.encoding import Encoded, Encoder
from nwbflow.model.layout import Layout, Shape
from nwbflow.planning.grid import overlapping


@dataclass(frozen=True, slots=True)
class Kit:
    """All it takes to encode chunks of one dataset, wherever; picklable.

    Parameters
    ----------
    name : str
        The dataset, for errors.
    layout : Layout
        What it is when complete; with chunks.
    encoder : Encoder
        Makes the stored bytes.
    keep_raw_crc : bool
        Whether to sum the elements too, for full verification.
    """

    name: str
    layout: Layout
    encoder: Encoder
    keep_raw_crc: bool

    @property
    def chunks(self) -> Shape:
        """Shape of the chunks, in elements."""
        return self.layout.chunks or self.layout.shape


@dataclass(frozen=True, slots=True)
class Batch:
    """The chunks of one block, encoded.

    Parameters
    ----------
    chunks : tuple of (tuple of int, Finished)
        Offsets and what is to be stored there.
    read_seconds : float
        Time spent getting the elements.
    """

    chunks: tuple[tuple[tuple[int, ...], Finished], ...]
    read_seconds: float = 0.0


class Executor(Protocol):
    """Workers elsewhere that compute and encode, while this process stores."""

    @property
    def name(self) -> str:
        """What the receipt calls them."""
        ...

    @property
    def workers(self) -> int:
        """How many blocks they can work on at a time, at present."""
        ...

    def begin(self) -> None:
        """Make sure that there are workers, and that they can do it; before anything is written."""
        ...

    def takes(self, source: Source, /) -> bool:
        """Whether they are given this source; the threads of this process take the others."""
        ...

    def check(self, name: str, source: Source, layout: Layout, /) -> None:
        """Refuse a source they take but can't be given; before anything is written."""
        ...

    def run(self, kit: Kit, source: Source, /) -> Generator[Batch | None]:
        """Yield every block of whole chunks once, in order; ``None`` now and then while waiting for one."""
        ...


def encode_block(kit: Kit, offset: tuple[int, ...], data: Array, read_seconds: float = 0.0) -> Batch:
    """Encode a block of whole chunks (clipped to the array); runs in a worker."""
    return Batch(tuple(_encoded(kit, offset, data)), read_seconds)


def _encoded(kit: Kit, start: tuple[int, ...], data: Array) -> Iterator[tuple[tuple[int, ...], Finished]]:
    for offset, in_block, _ in overlapping(start, data.shape, kit.chunks):
        finished = encode_chunk(
            data[in_block],
            offset,
            name=kit.name,
            layout=kit.layout,
            encoder=kit.encoder,
            keep_raw_crc=kit.keep_raw_crc,
        )
        given = finished.encoded
        if isinstance(given.data, memoryview):  # which can't be sent
            encoded = Encoded(bytes(given.data), given.filter_mask)
            finished = Finished(encoded, finished.chunk, finished.seconds)
        yield offset, finished


def nothing() -> np.ndarray[Any, np.dtype[Any]]:
    """Return what stands for elements that never were in this process."""
    return np.empty(0)
