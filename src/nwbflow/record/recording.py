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

from nwbflow.errors import (
    DurabilityError,
    ErrorKind,
    NwbflowError,
    SettingsError,
    StorageError,
    TargetError,
)
from nwbflow.model.events import Event, Warned
from nwbflow.record.blocks import as_rows, checked, equal_rows, parts_of
from nwbflow.record.build import Built, build, finish, open_structure, put_in_place
from nwbflow.record.fold import Fold
from nwbflow.record.folder import JournalFolder, mark_of, remove
from nwbflow.record.intake import Intake
from nwbflow.record.journal import Block, Journal, is_full, may_pass
from nwbflow.record.manifest import Manifest
from nwbflow.record.reading import JournalReader, Received

RETRY_SECONDS = 0.2
"""How often a full disk is tried again."""

PATIENCE = 50
"""How often that is tried which nothing rests on, while the system is short of descriptors."""

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
        given = as_rows(blocks, spec)
        arrays = [checked(block, dataset) for block, dataset in zip(given, spec.given, strict=True)]
        rows = equal_rows(arrays, spec)
        return self._intake.put(series, parts_of(arrays, rows, spec), rows, timeout), rows

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
        while blocks:
            first, problem = self._journal.written, None
            try:
                self._journal.write(blocks)
            except OSError as error:
                problem = error
            if done := self._journal.written - first:
                self._intake.settle(blocks[:done])
                blocks, last_try = blocks[done:], False
            if problem is None:
                continue
            full = is_full(problem)
            text = "the disk is full; free some room" if full else f"writing the journal failed: {problem}"
            if not may_pass(problem) or last_try:
                self._intake.fail(text, ErrorKind.NO_SPACE if full else ErrorKind.IO)
                return False
            if not waited:
                self._warn(f"{text}. Nothing is acknowledged until then, and recording goes on by itself")
            waited = True
            last_try = not self._intake.wait_in_trouble(text, RETRY_SECONDS)
        return True

    def _fold_along(self) -> None:
        """Fold what is in the journal into the partial file; give that up, not the recording, if it fails."""
        reader = JournalReader(self._folder.path, self._manifest)
        try:
            while self._intake.wait_for_frame(reader.expected) and not self._halting:
                self._fold.take(self._read_back(reader))
        except Exception as error:
            self._fold_error = error
            self._give_up_partial(error)
        finally:
            reader.close()

    def _read_back(self, reader: JournalReader) -> Received:
        block = _patiently(reader.read)
        if block is None:
            raise StorageError(f"{self._folder.path}: what was written does not read back", kind=ErrorKind.MISMATCH)
        return block

    def _give_up_partial(self, error: Exception) -> None:
        self._file_handle = None
        _patiently(self._fold.abandon)
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

    def close(self) -> tuple[Built, float, DurabilityError | None]:
        """Drain the queues, finish the file, verify it and put it in place; remove the journal last.

        Returns
        -------
        Built
            What was stored.
        float
            Seconds it took to put it in place.
        DurabilityError or None
            Names the rows that could not be made safe, if there are any.

        Raises
        ------
        NwbflowError
            What stopped it; the journal is kept, and can be recovered.
        """
        try:
            self._intake.close()
            self._writer.join()
            self._folder_thread.join()
            return self._put_in_place()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        """Acknowledge nothing any more, end the threads, and only then let others at the journal."""
        self._intake.fail("closing the recorder was interrupted", ErrorKind.CLOSED)
        self._halting = True
        self._writer.join()
        self._folder_thread.join()
        self._file_handle = None
        self._fold.abandon()
        _recordings.discard(self)
        self._folder.let_go()

    def _put_in_place(self) -> tuple[Built, float, DurabilityError | None]:
        if self._journal.failures:
            self._notes.append(
                f"{self._journal.failures} times the journal could not be written; it went on in a new segment"
            )
        built = self._built()
        self._check_complete(built)
        started = time.perf_counter()
        self._refuse_other_file()
        put_in_place(self._partial, self._folder.target, self._folder)
        self._folder.retire()
        _recordings.discard(self)
        lost = self._intake.first_lost()
        if lost is not None:
            lost.add_note(f"{self._folder.target} is finished, with all rows that were acknowledged")
        notes = (*self._notes, *built.notes)
        return replace(built, notes=notes), time.perf_counter() - started, lost

    def _refuse_other_file(self) -> None:
        """Refuse to replace a file that came to the path in the meantime."""
        target = self._folder.target
        if target.exists() and not (target.is_file() and mark_of(target) == self._manifest.replaces):
            raise TargetError(
                f"{target} is not what was there when the recording began, and is not replaced. What was recorded is "
                f"complete and kept in {self._folder.path}: move that file away, or make another one: nwbflow recover "
                f"{target} --output OTHER.nwb",
                kind=ErrorKind.EXISTS,
            )

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

    def check_reentry(self) -> None:
        """Refuse to close in a signal handler that has interrupted an append of the same thread.

        Raises
        ------
        SettingsError
            Kind ``LOCKED``.
        """
        self._intake.check_reentry()

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


def _patiently[T](action: Callable[[], T]) -> T:
    """Do something, again and again for a while if the system is short of descriptors or memory."""
    for _ in range(PATIENCE):
        try:
            return action()
        except OSError as error:
            cause = error.__cause__ if isinstance(error, StorageError) else error
            if not isinstance(cause, OSError) or not may_pass(cause):
                raise
            time.sleep(RETRY_SECONDS)
    return action()


def _in_forked_process() -> None:
    for recording in list(_recordings):
        recording.forked()


def _at_exit() -> None:
    for recording in list(_recordings):
        if recording.is_ours:
            recording.halt()


os.register_at_fork(after_in_child=_in_forked_process)
atexit.register(_at_exit)
