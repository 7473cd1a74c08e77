"""Read back what was stored and compare it with what was sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.encoding.plugin_names import may_change_values
from nwbflow.engine.job import StoredChunk, Tally
from nwbflow.errors import ErrorKind, StorageError, VerifyError
from nwbflow.model.data import Region
from nwbflow.model.events import DatasetVerified, Event

type Verification = Literal["no", "stored", "full"]
"""Nothing; stored bytes against their checksum; decoded elements against what was sent."""


def verify(tallies: Sequence[Tally], level: Verification, emit: Callable[[Event], None]) -> None:
    """Verify every dataset.

    Parameters
    ----------
    tallies : sequence of Tally
        What was stored, with checksums.
    level : {"no", "stored", "full"}
        How much to check. Chunks made by HDF5's own filters are always decoded.
    emit : callable
        Called with an event for each dataset.

    Raises
    ------
    VerifyError
        Naming the dataset and the chunk that differs.
    """
    if level == "no":
        return
    for tally in tallies:
        started = time.perf_counter()
        for offset, chunk in tally.chunks.items():
            if not tally.scattered:  # elements were added to chunks after they were summed
                _verify_chunk(tally, offset, chunk, level)
        emit(
            DatasetVerified(
                dataset=tally.job.name, stored_bytes=tally.stored_bytes, seconds=time.perf_counter() - started
            )
        )


def _verify_chunk(tally: Tally, offset: tuple[int, ...], chunk: StoredChunk, level: Verification) -> None:
    sink, name = tally.job.sink, tally.job.name
    if chunk.crc is not None and crc32(sink.get(offset)) != chunk.crc:
        raise VerifyError(
            f"{name}: the chunk at {offset} reads back different from what was stored. "
            "Write again, to another disk if it recurs",
            kind=ErrorKind.MISMATCH,
        )
    region = tuple(slice(o, o + n) for o, n in zip(offset, chunk.lengths, strict=True))
    if level == "full" and tally.job.stored is not None:
        _verify_decodes(tally, region)
    if (
        chunk.raw_crc is not None
        and (level == "full" or chunk.crc is None)
        and not may_change_values(tally.job.layout.filters)
    ):
        data = np.ascontiguousarray(sink.read(region))
        if crc32(data.reshape(-1).view(np.uint8)) != chunk.raw_crc:
            raise VerifyError(
                f"{name}: the elements of the chunk at {offset} decode to other values than were sent. "
                "Please report this with the dataset's codec and type",
                kind=ErrorKind.MISMATCH,
            )


def _verify_decodes(tally: Tally, region: Region) -> None:
    """Decode a chunk that was taken over as it was; whether it decoded in its source nobody has looked."""
    try:
        tally.job.sink.read(region)
    except StorageError as error:
        raise VerifyError(
            f"{tally.job.name}: the chunk at {tuple(s.start for s in region)} can't be decoded. It was copied as it "
            "is, so it can't be in the dataset that it was copied from either",
            kind=ErrorKind.MISMATCH,
        ) from error
