"""What workers do; imported there."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from nwbflow.encoding.checksum import crc32
from nwbflow.engine.afar import Batch, Kit, encode_block
from nwbflow.errors import ErrorKind, ExecutorError, SourceError
from nwbflow.model.data import Region
from nwbflow.sources.arrays import RawSource, show_region
from nwbflow.sources.checks import refuse_masked

_SAMPLE = 4096


type Version = tuple[str, str]
"""The versions of nwbflow and Python."""


@cache
def version() -> Version:
    """Return the versions of nwbflow and Python here."""
    return importlib.metadata.version("nwbflow"), ".".join(map(str, sys.version_info[:2]))


def failed_on(key: object, dask_scheduler: Any = None) -> tuple[str, ...]:
    """Return the workers on which a task, or what it needs, failed; runs on the scheduler."""
    task = dask_scheduler.tasks.get(key)
    return tuple(sorted(map(str, task.exception_blame.erred_on))) if task and task.exception_blame else ()


def _refuse_other(sender: Version) -> None:
    """Raise if this worker, which may have come late, has other versions than who sent the task."""
    if sender != version():
        raise ExecutorError(
            f"sent by nwbflow {sender[0]} on Python {sender[1]} to a worker with {version()}: give workers and "
            "scheduler the environment of the program that writes",
            kind=ErrorKind.WORKERS,
        )


def encode_given(sender: Version, kit: Kit, region: Region, given: Any) -> Batch:
    """Encode a block of elements that are here already.

    Parameters
    ----------
    sender : tuple of str
        Versions of who sent it.
    kit : Kit
        How.
    region : tuple of slice
        What the block covers of the dataset.
    given : array_like
        Its elements.

    Raises
    ------
    SourceError
        If there are masked elements, values that can't be stored, or another number of them.
    ExecutorError
        If the versions are others.
    """
    _refuse_other(sender)
    refuse_masked(given, show_region(region))
    block = np.asarray(given)
    wanted = tuple(s.stop - s.start for s in region)
    if block.shape != wanted:
        raise SourceError(
            f"computing {show_region(region)} gave shape {block.shape}, expected {wanted}", kind=ErrorKind.SHAPE
        )
    return encode_block(kit, tuple(s.start for s in region), block)


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw file as it is seen from the client: its size, and a sum over its first and last bytes."""

    source: RawSource
    size: int
    sample: int

    @classmethod
    def of(cls, source: RawSource) -> RawFile | None:
        """Return what `source` reads; ``None`` if it can't be looked at."""
        try:
            return cls(source, *_look(source))
        except OSError:
            return None


def encode_raw(sender: Version, kit: Kit, region: Region, file: RawFile) -> Batch | None:
    """Read a block of a raw file and encode it; ``None`` where that file is not to be seen."""
    _refuse_other(sender)
    try:
        if _look(file.source) != (file.size, file.sample):
            return None
    except OSError:
        return None
    started = time.perf_counter()
    block = file.source.read(region)
    return encode_block(kit, tuple(s.start for s in region), block, time.perf_counter() - started)


def _look(source: RawSource) -> tuple[int, int]:
    with source.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = os.pread(file.fileno(), _SAMPLE, 0)
        return size, crc32(os.pread(file.fileno(), _SAMPLE, max(0, size - _SAMPLE)), crc32(head))
