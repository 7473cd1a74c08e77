"""Recording without a journal: the thread that brings blocks straight into the partial file."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nwbflow.errors import ErrorKind, StorageError
from nwbflow.record.fold import Fold
from nwbflow.record.intake import Intake
from nwbflow.record.journal import Block, is_full
from nwbflow.record.ledger import Ledger
from nwbflow.record.manifest import Manifest
from nwbflow.record.reading import Received


class DirectWriter:
    """Fills the partial file until the intake is closed and empty, and acknowledges rows whose chunks are in it.

    The bytes of the chunks come first, then the records of where they are, then it is said that they are safe. The
    first error is the end: neither file is touched again, and nothing more is acknowledged.

    Parameters
    ----------
    intake : Intake
        Where the blocks come from.
    fold : Fold
        Fills the file; remembers where it has stored chunks.
    manifest : Manifest
        What is recorded.
    file : int
        Descriptor of the file.
    ledger : pathlib.Path
        Where to put down where the chunks are.
    sync : bool
        Whether rows are acknowledged only when the disk has them.

    Attributes
    ----------
    failures : int
        How often a write or sync failed: once at most.
    """

    def __init__(self, intake: Intake, fold: Fold, manifest: Manifest, file: int, ledger: Path, *, sync: bool) -> None:
        self._intake, self._fold, self._manifest = intake, fold, manifest
        self._file, self._sync = file, sync
        self._ledger = Ledger(ledger, manifest.identity, sync=sync)
        self.failures = 0
        self._thread = threading.Thread(target=self._work, name="nwbflow-direct", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until everything is in the file, or given up."""
        self._thread.join()

    def _work(self) -> None:
        try:
            while blocks := self._intake.take():
                self._take(blocks)
            self._fold.complete()
            self._commit()
        except Exception as error:
            self.failures += 1
            self._intake.fail(*_told(error))
            self._fold.abandon()
        finally:
            self._ledger.close()

    def _take(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self._fold.take(self._typed(block))
        self._intake.free(blocks)
        if not self._intake.has_waiting:
            self._fold.drain()  # nobody else would, before the next block comes
        self._commit()

    def _typed(self, block: Block) -> Received:
        datasets = self._manifest.series[block.series].datasets
        parts = [
            np.frombuffer(part, dataset.layout.dtype).reshape(block.rows, *dataset.row_shape)
            for part, dataset in zip(block.parts, datasets, strict=True)
        ]
        return Received(block.series, block.first, tuple(parts))

    def _commit(self) -> None:
        chunks = self._fold.taken_out()
        if not chunks:
            return
        if self._sync:
            os.fdatasync(self._file)
        self._ledger.write(chunks)
        self._intake.reach(self._fold.stored_rows)


def _told(error: Exception) -> tuple[str, ErrorKind]:
    """Say what has ended the recording."""
    if isinstance(error, StorageError):
        full = error.kind is ErrorKind.NO_SPACE
    else:
        full = isinstance(error, OSError) and is_full(error)
    if full:
        return "the disk is full, and without a journal that is the end of the recording", ErrorKind.NO_SPACE
    return f"the file could not be written ({type(error).__name__}: {error})", ErrorKind.IO
