"""Blocks of whole chunks of a rank's part, encoded by threads of this process in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from nwbflow.engine.afar import Batch, Kit, encode_block
from nwbflow.engine.intake import located
from nwbflow.model.data import Array, Region
from nwbflow.planning.grid import block_shape, chunk_region, iter_offsets
from nwbflow.planning.parts import divided_chunks, lengths_of, runs, whole_chunks
from nwbflow.sources.arrays import show_region

BLOCK_BYTES = 4 * 2**20
"""What is encoded and sent at a time, in bytes before compression; one chunk may be more."""


def own_blocks(kit: Kit, part: Region) -> list[Region]:
    """Return the blocks of the chunks that lie in one part from end to end, in storage order."""
    shape = kit.layout.shape
    inner = whole_chunks(part, kit.chunks, shape)
    if inner is None:
        return []
    lengths = lengths_of(inner)
    block = block_shape(lengths, kit.chunks, kit.layout.dtype.itemsize, BLOCK_BYTES)
    regions = (chunk_region(offset, block, lengths) for offset in iter_offsets(lengths, block))
    return [
        tuple(slice(s.start + o.start, s.stop + o.start) for s, o in zip(region, inner, strict=True))
        for region in regions
    ]


def divided_blocks(kit: Kit, parts: Sequence[Region]) -> list[Region]:
    """Return the blocks of the chunks that lie in several parts, in storage order."""
    shape = kit.layout.shape
    offsets = divided_chunks(parts, kit.chunks, shape)
    return runs(offsets, kit.chunks, shape, kit.layout.dtype.itemsize, BLOCK_BYTES)


class Encoding:
    """Some blocks of one dataset on their way through the threads.

    Parameters
    ----------
    pool : concurrent.futures.ThreadPoolExecutor
        The threads.
    window : int
        Blocks on their way, at most.
    kit : Kit
        How to encode.
    blocks : sequence of tuple of slice
        What to encode, in order.
    read : callable
        Gives the elements of a block; called in this thread.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        window: int,
        kit: Kit,
        blocks: Sequence[Region],
        read: Callable[[Region], Array],
    ) -> None:
        self._pool, self._window, self._kit, self._read = pool, window, kit, read
        self._blocks: Iterator[Region] = iter(blocks)
        self._begun: deque[Future[Batch]] = deque()
        self.left = len(blocks)

    def feed(self, room: int | None = None) -> bool:
        """Read and give out the next block, if there is room for it; return whether that was done."""
        limit = self._window if room is None else min(self._window, room)
        if len(self._begun) >= limit or (region := next(self._blocks, None)) is None:
            return False
        started = time.perf_counter()
        try:
            data = self._read(region)
        except Exception as error:
            raise located(error, self._kit.name, f"in {show_region(region)}") from error.__cause__
        start, seconds = tuple(s.start for s in region), time.perf_counter() - started
        self._begun.append(self._pool.submit(encode_block, self._kit, start, data, seconds))
        return True

    def poll(self) -> Batch | None:
        """Return the next block in order, if it is encoded."""
        if not self._begun or not self._begun[0].done():
            return None
        self.left -= 1
        return self._begun.popleft().result()
