"""One recording: its threads, and how it ends."""

from __future__ import annotations

import atexit
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from nwbflow.engine.cast import exact
from nwbflow.errors import DurabilityError, ErrorKind, NwbflowError, SettingsError, SourceError, StorageError
from nwbflow.model.data import Array
from nwbflow.model.events import Event, Warned
from nwbflow.record.build import Built, build, finish, open_structure, put_in_place
from nwbflow.record.fold import Fold
from nwbflow.record.folder import JournalFolder, remove
from nwbflow.record.intake import Intake
from nwbflow.record.journal import Block, Journal, is_full
from nwbflow.record.manifest import LiveDataset, LiveSeries, Manifest
from nwbflow.record.reading import JournalReader
from nwbflow.sources.checks import refuse_masked

RETRY_SECONDS = 0.2
"""How often a full disk is tried again."""

_recordings: weakref.WeakSet[Recording] = weakref.WeakSet()


class Recording:
    """Accepts blocks into the journal, folds them into the partial file, and finishes it.

    Parameters
    ----------
    folder : JournalFolder
        With structure and manifest.
    manifest : Manifest
        What is recorded.
    partial : pathlib.Path
        The file that is filled meanwhile.
    sync : bool
        Whether rows are acknowledged only when the disk has them.
    workers : int
        Encoding threads.
    limit : int
        Bytes of each series that may wait for the journal.
    emit : callable
        Takes events, from several threads but never at once.
    """

    def __init__(
        self,
        folder: JournalFolder,
        manifest: Manifest,
        partial: Path,
        *,
        sync: bool,
        workers: int,
        limit: int,
        emit: Callable[[Event], None],
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._partial = partial
        self._workers = workers
        self._emit_unsafely = emit
        self._emitting = threading.Lock()
        self._process = os.getpid()
        self._intake = Intake(manifest.series, limit)
        self._journal = Journal(folder.path, manifest.identity, sync=sync)
        self._notes: list[str] = []
        self._halting = False
        self._fold_error: BaseException | None = None
        file = open_structure(partial)
        self._file_handle: int | None = file.id.get_vfd_handle()
        self._fold = Fold(file, manifest, workers=workers, emit=self._emit)
        file.swmr_mode = True
        self._writer = threading.Thread(target=self._write, name="nwbflow-journal", daemon=True)
        self._folder_thread = threading.Thread(target=self._fold_along, name="nwbflow-fold", daemon=True)
        _recordings.add(self)
        self._writer.start()
        self._folder_thread.start()

    @property
    def manifest(self) -> Manifest:
        """What is recorded."""
        return self._manifest

    # --- appending ------------------------------------------------------------------------

    def append(self, series: int, blocks: tuple[object, ...], timeout: float | None) -> tuple[int, int]:
        """Take one block of each dataset of a series; return first row and number of rows.

        Raises
        ------
        SourceError, SettingsError, DurabilityError
            Why it was not taken.
        """
        self.check_process()
        spec = self._manifest.series[series]
        arrays = [_checked(block, dataset) for block, dataset in zip(blocks, spec.datasets, strict=True)]
        rows = _equal_rows(arrays, spec)
        parts = tuple(array.reshape(-1).view(np.uint8) if rows else np.empty(0, np.uint8) for array in arrays)
        return self._intake.put(series, parts, rows, timeout), rows

    def acknowledged(self, series: int) -> int:
        """Return how many rows of a series are safe."""
        self.check_process()
        return self._intake.acknowledged(series)

    def wait(self, series: int, end: int, timeout: float | None) -> bool:
        """Wait until the rows of a series below `end` are safe."""
        self.check_process()
        return self._intake.wait(series, end, timeout)

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that records, and not one forked from it."""
        return os.getpid() == self._process

    def check_process(self) -> None:
        """Refuse to work in a process that was forked off: the threads are not there.

        Raises
        ------
        SettingsError
            Kind ``CLOSED``.
        """
        if not self.is_ours:
            raise SettingsError(
                f"the recorder of {self._folder.target} belongs to process {self._process}, this is a process forked "
                "from it; send the blocks there (multiprocessing.Queue) and append them there",
                kind=ErrorKind.CLOSED,
            )

    # --- the threads ------------------------------------------------------------------------

    def _write(self) -> None:
        """Write the journal until the intake is closed and empty."""
        try:
            while blocks := self._intake.take():
                if not self._write_until_done(blocks):
                    return
        except Exception as error:
            self._intake.fail(f"the journal's thread has failed ({type(error).__name__}: {error})", ErrorKind.IO)
        finally:
            self._journal.close()

    def _write_until_done(self, blocks: list[Block]) -> bool:
        """Write some blocks; wait while the disk is full. Return whether they are safe."""
        waited = last_try = False
        while True:
            try:
                self._journal.write(blocks)
            except OSError as error:
                full = is_full(error)
                text = "the disk is full; free some room" if full else f"writing the journal failed: {error}"
                if not full or last_try:
                    self._intake.fail(text, ErrorKind.NO_SPACE if full else ErrorKind.IO)
                    return False
                if not waited:
                    self._warn(f"{text}. Nothing is acknowledged until then, and recording goes on by itself")
                waited = True
                last_try = not self._intake.wait_in_trouble(text, RETRY_SECONDS)
                continue
            self._intake.settle(blocks)
            return True

    def _fold_along(self) -> None:
        """Fold what is in the journal into the partial file; give that up, not the recording, if it fails."""
        reader = JournalReader(self._folder.path, self._manifest)
        try:
            while self._intake.wait_for_frame(reader.expected) and not self._halting:
                block = reader.read()
                if block is None:
                    raise StorageError(
                        f"{self._folder.path}: what was written does not read back", kind=ErrorKind.MISMATCH
                    )
                self._fold.take(block)
        except Exception as error:
            self._fold_error = error
            self._give_up_partial(error)
        finally:
            reader.close()

    def _give_up_partial(self, error: Exception) -> None:
        self._file_handle = None
        self._fold.abandon()
        remove(self._partial)  # it can't be trusted, and its room may be needed
        self._warn(
            f"the partial file could not be written ({error}); the file will be made from the journal at the end"
        )

    def _warn(self, text: str) -> None:
        self._notes.append(text)
        self._emit(Warned(dataset=None, message=text))

    def _emit(self, event: Event) -> None:
        with self._emitting:
            self._emit_unsafely(event)

    # --- the end ------------------------------------------------------------------------------

    def close(self) -> tuple[Built, float]:
        """Drain the queues, finish the file, verify it and put it in place; remove the journal last.

        Returns
        -------
        Built
            What was stored.
        float
            Seconds it took to put it in place.

        Raises
        ------
        NwbflowError
            What stopped it; the journal is kept.
        """
        self._intake.close()
        self._writer.join()
        self._folder_thread.join()
        if self._journal.failures:
            self._notes.append(
                f"{self._journal.failures} times the journal could not be written; it went on in a new segment"
            )
        built = self._built()
        self._check_complete(built)
        started = time.perf_counter()
        put_in_place(self._partial, self._folder.target, self._folder)
        self._folder.retire()
        _recordings.discard(self)
        lost = self._intake.first_lost()
        if lost is not None:
            lost.add_note(f"{self._folder.target} is finished, with all rows that were acknowledged")
            raise lost
        notes = (*self._notes, *built.notes)
        return replace(built, notes=notes), time.perf_counter() - started

    def _check_complete(self, built: Built) -> None:
        """Refuse to publish less than was acknowledged, whatever the reason may be."""
        for series, rows in enumerate(built.rows):
            durable = self.acknowledged(series)
            if rows < durable:
                raise DurabilityError(
                    f"{self._manifest.series[series].name}: of {durable} acknowledged rows the journal gives back "
                    f"{rows}. {self._folder.path} is kept; please keep it too, and look after that disk",
                    kind=ErrorKind.MISMATCH,
                    durable=rows,
                )

    def _built(self) -> Built:
        """Return the finished file: as it was folded, or made anew if that failed."""
        if self._fold_error is None:
            try:
                self._file_handle = None
                return finish(self._fold, self._partial)
            except NwbflowError as error:
                self._warn(f"the partial file was not right ({error}); the file was made from the journal again")
        return build(self._folder, self._manifest, self._partial, workers=self._workers, emit=self._emit)

    def let_go(self) -> None:
        """Give up the lock on the journal, so that it can be recovered."""
        self._folder.let_go()

    def halt(self) -> None:
        """Bring what waits into the journal and end the threads: the program ends, and nobody has closed this.

        Python stops other threads wherever they are when it ends. One that is inside HDF5 then would keep its lock,
        and the program would never end.
        """
        self._intake.close()
        self._halting = True
        self._writer.join()
        self._folder_thread.join()
        if self._fold_error is None:
            self._fold.abandon()

    def forked(self) -> None:
        """Take this process's hands off the files of the one it was forked from."""
        self._folder.let_go()
        if self._file_handle is not None:
            with tempfile.TemporaryFile() as nowhere:  # HDF5 writes what it holds when the process ends
                os.dup2(nowhere.fileno(), self._file_handle)


def _in_forked_process() -> None:
    for recording in list(_recordings):
        recording.forked()


def _at_exit() -> None:
    for recording in list(_recordings):
        if recording.is_ours:
            recording.halt()


os.register_at_fork(after_in_child=_in_forked_process)
atexit.register(_at_exit)


def _checked(block: object, dataset: LiveDataset) -> Array:
    """Return a copy of a block as it is stored.

    Raises
    ------
    SourceError
        If it does not fit.
    """
    name = dataset.name
    refuse_masked(block, f"{name}: a block")
    try:
        given = np.asarray(block)
    except ValueError as error:
        raise SourceError(f"{name}: a block has rows of different lengths: {error}", kind=ErrorKind.SHAPE) from error
    if given.ndim == 0 or given.shape[1:] != dataset.row_shape:
        expected = ", ".join(["k", *map(str, dataset.row_shape)])
        raise SourceError(
            f"{name}: a block has shape {given.shape}, expected ({expected}): append whole rows (one row as row[None])",
            kind=ErrorKind.SHAPE,
        )
    if given.size == 0 and given.dtype.kind not in "biufc":
        given = given.astype(dataset.layout.dtype)
    stored = np.ascontiguousarray(exact(given, dataset.layout.dtype, name=name, offset=(0,) * given.ndim))
    return stored.copy() if np.may_share_memory(stored, given) else stored


def _equal_rows(arrays: list[Array], series: LiveSeries) -> int:
    rows = {len(array) for array in arrays}
    if len(rows) > 1:
        found = ", ".join(f"{d.field} {len(a)}" for a, d in zip(arrays, series.datasets, strict=True))
        raise SourceError(
            f"{series.name}: the blocks of one append have different numbers of rows ({found}); nothing was taken",
            kind=ErrorKind.LENGTH,
        )
    return rows.pop()
