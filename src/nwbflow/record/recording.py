"""One recording: its threads, and how it ends."""

from __future__ import annotations

import atexit
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from nwbflow.errors import DurabilityError, ErrorKind, SettingsError, StorageError
from nwbflow.model.data import Array
from nwbflow.model.events import Warned
from nwbflow.observe.relay import Relay
from nwbflow.record.blocks import as_rows, checked, equal_rows, parts_of
from nwbflow.record.build import Built, open_structure
from nwbflow.record.calls import Call
from nwbflow.record.direct import DirectWriter
from nwbflow.record.ending import Ending
from nwbflow.record.fold import Fold
from nwbflow.record.folder import JournalFolder, remove
from nwbflow.record.intake import Intake
from nwbflow.record.journal import may_pass
from nwbflow.record.manifest import Manifest
from nwbflow.record.preview import SHOW_SECONDS
from nwbflow.record.queues import Place, QueueState
from nwbflow.record.reading import JournalReader, Received
from nwbflow.record.writing import RETRY_SECONDS, JournalWriter

PATIENCE = 50
"""How often that is tried which nothing rests on, while the system is short of descriptors."""

_recordings: weakref.WeakSet[Recording] = weakref.WeakSet()


class Recording:
    """Accepts blocks into the journal, folds them into the partial file, and finishes it.

    Without a journal, blocks go straight into the partial file.

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
    dropping : collection of str
        Names of the series whose blocks are dropped when that many wait; the table of gaps is recorded then too.
    events : Relay
        Gets events, from several threads.
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
        dropping: Collection[str],
        events: Relay,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._partial = partial
        self._events = events
        self._emit = events.emit
        self._process = os.getpid()
        self._intake = Intake(manifest.series, limit, dropping)
        self._ending = Ending(folder, manifest, partial, workers=workers, emit=events.emit)
        self._ended: tuple[Built, float, DurabilityError | None] | None = None
        self._has_begun_to_end = False
        self._notes: list[str] = []
        self._halting = False
        self._fold_error: BaseException | None = None
        file = open_structure(partial)
        self._file_handle: int | None = int(file.id.get_vfd_handle())
        early = manifest.has_journal
        self._fold = Fold(file, manifest, workers=workers, emit=self._emit, early=early, places=not early)
        file.swmr_mode = True
        self._folder_thread: threading.Thread | None = None
        self._writer: JournalWriter | DirectWriter
        if manifest.has_journal:
            places = (folder.path,) if manifest.spill is None else (folder.path, manifest.spill)
            self._writer = JournalWriter(self._intake, places, manifest.identity, sync=sync, warn=self._warn)
            self._folder_thread = threading.Thread(target=self._fold_along, name="nwbflow-fold", daemon=True)
        else:
            handle = self._file_handle
            self._writer = DirectWriter(self._intake, self._fold, manifest, handle, folder.ledger, sync=sync)
        _recordings.add(self)
        self._writer.start()
        if self._folder_thread is not None:
            self._folder_thread.start()

    def _join(self) -> None:
        """Wait for the threads."""
        self._writer.join()
        if self._folder_thread is not None:
            self._folder_thread.join()

    @property
    def _is_broken(self) -> bool:
        """Whether the partial file is not what it should be."""
        return self._fold_error is not None or (not self._manifest.has_journal and self._writer.failures > 0)

    @property
    def manifest(self) -> Manifest:
        """What is recorded."""
        return self._manifest

    # --- appending ------------------------------------------------------------------------

    def append(self, series: int, blocks: tuple[object, ...], timeout: float | None) -> Place:
        """Take one block of each dataset of a series, or drop it; return what became of it.

        Raises
        ------
        SourceError, SettingsError, DurabilityError
            Why it was not taken.
        """
        parts, rows = self._parts(series, blocks)
        return self._intake.put(series, parts, rows, timeout)

    async def append_async(self, series: int, blocks: tuple[object, ...]) -> Place:
        """Do as :meth:`append`, but wait as a coroutine does."""
        parts, rows = self._parts(series, blocks)
        while True:
            call = Call()
            place = self._intake.offer(series, parts, rows, call)
            if place is not None:
                return place
            await call.wait()

    def _parts(self, series: int, blocks: tuple[object, ...]) -> tuple[tuple[Array, ...], int]:
        self.check_process()
        self._events.check_outside("append()")
        spec = self._manifest.series[series]
        given = as_rows(blocks, spec)
        arrays = [checked(block, dataset) for block, dataset in zip(given, spec.given, strict=True)]
        rows = equal_rows(arrays, spec)
        return parts_of(arrays, rows, spec), rows

    def acknowledged(self, series: int) -> int:
        """Return how many rows of a series are safe."""
        self.check_process()
        return self._intake.acknowledged(series)

    def wait(self, series: int, end: int, timeout: float | None) -> bool:
        """Wait until the rows of a series below `end` are safe."""
        self.check_process()
        return self._intake.wait(series, end, timeout)

    async def wait_async(self, series: int, end: int) -> bool:
        """Wait, as a coroutine does, until the rows of a series below `end` are safe."""
        self.check_process()
        call = Call()
        if self._intake.tell(series, end, call):
            await call.wait()
        return self._intake.wait(series, end, 0)

    def states(self) -> tuple[QueueState, ...]:
        """Return how the queue of every series stands."""
        return self._intake.states()

    def stored_rows(self) -> tuple[int, ...]:
        """Return how many rows of every series are in whole chunks of the partial file."""
        return (0,) * len(self._manifest.series) if self._fold_error else self._fold.stored_rows

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is taken."""
        return self._intake.is_closed

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

    def _fold_along(self) -> None:
        """Fold what is in the journal into the partial file; give that up, not the recording, if it fails."""
        reader = None
        try:
            reader = JournalReader(self._folder.path, self._manifest)
            while not self._halting:
                there = self._intake.wait_for_frame(reader.expected, SHOW_SECONDS)
                if there:
                    self._fold.take(self._read_back(reader))
                elif there is None:
                    self._fold.go_on()
                else:
                    break
        except Exception as error:
            self._fold_error = error
            self._give_up_partial(error)
        finally:
            if reader is not None:
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

    def warn(self, text: str, dataset: str | None) -> None:
        """Tell those who watch, and the receipt, what a source of rows has met with."""
        self._notes.append(text if dataset is None else f"{dataset}: {text}")
        self._emit(Warned(dataset=dataset, message=text))

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
        if self._ended is not None:
            return self._ended
        again, self._has_begun_to_end = self._has_begun_to_end, True
        try:
            if again:
                self._stop()  # which may have been interrupted as well
                self._ending.take_again()
            else:
                self._intake.close()
                self._join()
            self._ended = self._finish(None if again or self._is_broken else self._fold)
        except BaseException:
            self._stop()
            raise
        _recordings.discard(self)
        return self._ended

    def _stop(self) -> None:
        """Acknowledge nothing any more, end the threads, and only then let others at the journal."""
        self._intake.fail("closing the recorder was interrupted", ErrorKind.CLOSED)
        self._halting = True
        self._join()
        self._file_handle = None
        self._fold.abandon()
        _recordings.discard(self)
        self._folder.let_go()

    @property
    def has_let_go(self) -> bool:
        """Whether others may have the journal: it is done with, or finishing has failed."""
        return not self._folder.is_held

    def _finish(self, fold: Fold | None) -> tuple[Built, float, DurabilityError | None]:
        self._file_handle = None
        acknowledged = [self.acknowledged(series) for series in range(len(self._manifest.series))]
        built, seconds = self._ending.finish(fold, acknowledged, self._warn)
        lost = self._intake.first_lost()
        if lost is not None:
            lost.add_note(f"{self._folder.target} is finished, with all rows that were acknowledged")
        failures = self._writer.failures if self._manifest.has_journal else 0
        more = [f"{failures} times the journal could not be written; it went on in a new segment"] if failures else []
        more += self._intake.gap_notes()
        return replace(built, notes=(*self._notes, *more, *built.notes)), seconds, lost

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
        self._join()
        if self._fold_error is None:
            self._fold.abandon()

    def forked(self) -> None:
        """Take this process's hands off the files of the one it was forked from."""
        self._folder.let_go()
        if self._file_handle is not None and not self._is_broken:
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
