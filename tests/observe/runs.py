"""Made-up runs: the events of a write, without a write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nwbflow.model.events import (
    ChunkStored,
    DatasetFinished,
    DatasetStarted,
    DatasetVerified,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
    Warned,
)
from nwbflow.model.layout import Filter, Layout
from nwbflow.model.receipt import DatasetReceipt, Receipt

PATH = Path("data") / "recording.nwb"
CHUNK = 1_000_000
STORED = 450_000


def layout(rows: int = 500) -> Layout:
    return Layout(
        shape=(rows, 384),
        maxshape=(None, 384),
        dtype=np.dtype("<i2"),
        chunks=(100, 384),
        filters=(Filter(2, (2,)), Filter(1, (4,))),
        fillvalue=float("nan"),
    )


def chunk(dataset: str, index: int) -> ChunkStored:
    return ChunkStored(
        dataset=dataset,
        offset=(index * 100, 0),
        raw_bytes=CHUNK,
        stored_bytes=STORED,
        read_seconds=0.01,
        encode_seconds=0.02,
        store_seconds=0.003,
        queued=2,
        raw_done=(index + 1) * CHUNK,
        lag_seconds=0.1,
    )


def started(names: tuple[str, ...], chunks: int, *, known: bool = True) -> RunStarted:
    return RunStarted(path=PATH, datasets=names, raw_bytes=len(names) * chunks * CHUNK if known else None, workers=2)


def failed() -> RunFailed:
    return RunFailed(
        path=PATH, partial=PATH.with_name("recording.nwb.partial"), error="/a/data: disk full\nsecond line"
    )


def run(names: tuple[str, ...] = ("/acquisition/a/data",), chunks: int = 5, *, known: bool = True) -> Iterator[Event]:
    """Yield every kind of event of a run that goes well."""
    yield started(names, chunks, known=known)
    receipts = []
    for name in names:
        yield DatasetStarted(dataset=name, layout=layout(), raw_bytes=chunks * CHUNK if known else None)
        for index in range(chunks):
            yield chunk(name, index)
        receipt = DatasetReceipt(
            name=name, layout=layout(), chunks=chunks, raw_bytes=chunks * CHUNK, stored_bytes=chunks * STORED
        )
        receipts.append(receipt)
        yield DatasetFinished(dataset=name, receipt=receipt)
    yield Warned(dataset=names[0], message="stored with HDF5's own filters")
    for name in names:
        yield DatasetVerified(dataset=name, stored_bytes=chunks * STORED, seconds=0.1)
    yield RunFinished(receipt=Receipt(path=PATH, datasets=tuple(receipts), seconds=2.0, verified="stored"))
