"""Recording into an NWB file: what users hold in their hands."""

from __future__ import annotations

import secrets
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import pynwb

from nwbflow.errors import DurabilityError, ErrorKind, SettingsError, UnsupportedError
from nwbflow.model.events import RunFailed, RunFinished, RunStarted
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.containers import manager_of_guests
from nwbflow.nwb.fill import count_workers
from nwbflow.nwb.laidout import LayoutIO
from nwbflow.nwb.policies import WhenFull, named
from nwbflow.nwb.rates import rate_notes
from nwbflow.nwb.recorded import RecordedSeries
from nwbflow.nwb.stores import is_store_path
from nwbflow.observe.hub import Progress, make_observers
from nwbflow.observe.relay import Relay
from nwbflow.planning.memory import parse_bytes
from nwbflow.planning.profiles import Profile
from nwbflow.record.build import LIBVER
from nwbflow.record.folder import JournalFolder, check_spill, copy_synced, file_crc32, mark_of, remove
from nwbflow.record.gaps import GAPS
from nwbflow.record.manifest import Manifest
from nwbflow.record.recording import Recording
from nwbflow.record.watch import Watch
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.staging import check_target, free_name, leftover_path, partial_path

PATIENCE = 5.0
"""Seconds that observers are waited for when the file is in place."""

BEAT_SECONDS = 0.5
"""How often observers are told how the streams stand."""


def _free_beside(path: Path) -> Path:
    """Return where the structure is laid out: a name that nobody has taken, also not for an interrupted write."""
    names = (path.with_name(f"{path.name}.structure{number or ''}.nwb") for number in count())
    return next(name for name in names if not name.exists() and not partial_path(name).exists())


def _refuse_without_journal(spill: str | Path | None, when_full: WhenFull) -> None:
    """Refuse what only a journal can do."""
    if spill is not None:
        raise SettingsError(
            "spill= is where a journal goes on, and with journal=False there is none; give one of them",
            kind=ErrorKind.OPTION,
        )
    policies = when_full.values() if isinstance(when_full, Mapping) else [when_full]
    if "drop" in policies:
        raise SettingsError(
            "when_full='drop' needs the journal, which has the mark of a gap before the rows behind it; with "
            "journal=False give when_full='block' and a queue= that is long enough, or leave journal=False out",
            kind=ErrorKind.OPTION,
        )


_running: set[Recorder] = set()


def recorders() -> tuple[Recorder, ...]:
    """Return the recorders of this process that hold a path: those not closed yet, also if no variable has them.

    Returns
    -------
    tuple of Recorder
        In no particular order; ``close()`` finishes their files.
    """
    return tuple(recorder for recorder in _running if recorder._recording.is_ours)


class Recorder:
    """Records live data into an NWB file and loses nothing it has acknowledged.

    The whole file is laid out first, beside its place. What is appended goes into a journal, from where it is
    compressed into that file meanwhile. Closing leaves an ordinary, verified NWB file, puts it in place in one step
    and removes the journal. Leaving a ``with`` block through an exception does the same: what was recorded is kept.
    After a crash, ``nwbflow recover`` makes the file from the journal. With ``journal=False`` there is none, and the
    rows are in the unfinished file alone.

    Parameters
    ----------
    nwbfile : pynwb.NWBFile
        What to write. Data declared with :func:`nwbflow.live` are recorded, everything else is written at once.
    path : str or pathlib.Path
        Where the file is to be. Beside it there are ``<name>.partial`` and ``<name>.journal`` meanwhile, which take
        as much disk as the finished file and the uncompressed data (with ``journal=False``, as the finished file).
    sync : {"process", "full"}
        What rows survive once they are acknowledged: the end of this process, however it comes; or a loss of power
        as well, on a local disk that does what it is asked to.
    profile : str or Profile
        Codec and chunks of whatever says nothing itself.
    workers : int, optional
        Encoding threads; as many as there are cores by default.
    queue : int or str
        What each series may hold that the journal has not, in bytes or as ``"64 MiB"``.
    when_full : {"block", "drop"} or mapping of str to these
        What ``append`` does while the queue of its series is full: wait, or drop the block at once and mark the gap
        in ``/intervals/recording_gaps``. By name, for some series; the others wait. Only series with live time stamps
        can be dropped from.
    progress : bool, callable or sequence of callables
        ``True`` shows a progress bar; a callable gets the events, in a thread of its own that holds up
        nothing; see :mod:`nwbflow.model.events`.
    overwrite : bool
        Whether a file at `path` may be replaced, when the recording is finished.
    spill : str or pathlib.Path, optional
        A folder on another disk, where the journal goes on when the disk of `path` is full, fails, or does not answer
        while the queue of a series fills up. It has to be there, and to be there when the file is made.
    journal : bool
        ``False`` where disk space is short: rows go straight into ``<name>.partial``, compressed. They are
        acknowledged when the chunks they are in are full and stored, in all datasets of the series, or when the
        recorder is closed; what is in the last chunks is lost in a crash. A full disk or an I/O error is the end of
        the recording, though what was acknowledged stays. Neither `spill` nor dropping go with it.

    Raises
    ------
    nwbflow.errors.TargetError
        If the path or the folder to spill to can't be written, or an earlier recording to the path is not finished.
    nwbflow.errors.SettingsError, nwbflow.errors.UnsupportedError
        For options, or live data that can't be recorded.
    """

    def __init__(
        self,
        nwbfile: pynwb.NWBFile,
        path: str | Path,
        *,
        sync: str = "process",
        profile: str | Profile = "default",
        workers: int | None = None,
        queue: int | str = "64 MiB",
        when_full: WhenFull = "block",
        progress: Progress = False,
        overwrite: bool = False,
        spill: str | Path | None = None,
        journal: bool = True,
    ) -> None:
        if sync not in ("process", "full"):
            raise SettingsError(f"sync={sync!r}: give 'process' or 'full'", kind=ErrorKind.OPTION)
        if not journal:
            _refuse_without_journal(spill, when_full)
        self.receipt: Receipt | None = None
        self._closing = threading.RLock()  # a signal handler that closes while its thread is closing must not hang
        self._is_closing = False
        self._began = time.perf_counter()
        self._workers = count_workers(workers)
        limit = parse_bytes(queue, "queue")
        observers = make_observers(progress)
        self._notes: list[str] = []
        if is_store_path(path):
            raise UnsupportedError(
                f"{path}: recordings are made as HDF5 files; give a name that ends in .nwb, and export it to a store "
                "when it is finished (nwbflow.NWBZarrIO(...).export)",
                kind=ErrorKind.OPTION,
            )
        self._path = check_target(path, overwrite=overwrite)
        self._spill = None if spill is None else check_spill(spill)
        self._has_journal = journal
        folder = JournalFolder.make(self._path)
        partial = partial_path(self._path)
        self._events = Relay(observers)
        try:
            manifest = self._lay_out(nwbfile, folder, partial, profile, when_full)
            self._events.emit(
                RunStarted(
                    path=self._path,
                    datasets=tuple(d.name for s in manifest.series for d in s.datasets),
                    raw_bytes=None,
                    workers=self._workers,
                )
            )
            self._structure_seconds = time.perf_counter() - self._began
            self._recording = Recording(
                folder,
                manifest,
                partial,
                sync=sync == "full",
                workers=self._workers,
                limit=limit,
                dropping=self._dropping,
                events=self._events,
            )
        except BaseException:
            remove(partial)
            folder.discard()
            self._events.close(PATIENCE)
            raise
        self._watch: Watch | None = None
        if self._events.is_heard:
            self._watch = Watch(self._recording, self._path, folder.path, self._rates)
            self._events.beat(self._watch.observed, BEAT_SECONDS)
        self._series = {
            series.name: RecordedSeries(series.name, tuple(d.field for d in series.given), self._recording, position)
            for position, series in enumerate(manifest.series)
            if series.name != GAPS or not self._dropping
        }
        _running.add(self)

    def _lay_out(
        self,
        nwbfile: pynwb.NWBFile,
        folder: JournalFolder,
        partial: Path,
        profile: str | Profile,
        when_full: WhenFull,
    ) -> Manifest:
        """Write everything but the live rows, and keep a copy of that in the journal."""
        if partial.exists():
            kept = free_name(leftover_path(self._path))
            partial.rename(kept)
            self._notes.append(f"what an earlier, interrupted write had left is kept in {kept}")
        # in the same folder, since links to other files are relative; PyNWB wants it called .nwb
        with translated(str(self._path), "laying out the structure"):
            laid_out = _free_beside(self._path)
        try:
            manager = manager_of_guests(nwbfile)
            with LayoutIO(laid_out, "w", manager=manager, profile=profile, workers=self._workers, libver=LIBVER) as io:
                io.put_in_place_when_closed(drop_leftover=False)
                io.lay_out(nwbfile, when_full)
                self._dropping = io.dropping
                self._rates = io.rates
            laid_out.rename(partial)
            with translated(str(folder.path), "copying the structure"):
                copy_synced(partial, folder.structure)
            identity = secrets.token_bytes(16)
            spilled = f"{self._path.name}.{identity.hex()[:8]}.spill"
            manifest = Manifest(
                identity=identity,
                series=io.series,
                structure_bytes=folder.structure.stat().st_size,
                structure_crc32=file_crc32(folder.structure),
                replaces=mark_of(self._path) if self._path.exists() else None,
                spill=None if self._spill is None else self._spill / spilled,
                has_journal=self._has_journal,
            )
            folder.begin(manifest)
        except BaseException:
            for file in (partial, laid_out, partial_path(laid_out)):
                remove(file)
            raise
        return manifest

    def __getitem__(self, name: str) -> RecordedSeries:
        """Return a series by its name, or by its path where several have the same name.

        Raises
        ------
        KeyError
            If there is no such live series, or more than one.
        """
        return self._series[named(name, self._series)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def acknowledged(self, name: str) -> int:
        """Return how many rows of a series are safe."""
        return self[name].acknowledged

    def warn(self, message: str, name: str | None = None) -> None:
        """Say what has happened to a source of rows: to those who watch, and in the receipt's notes.

        Parameters
        ----------
        message : str
            What a careful user wants to know.
        name : str, optional
            The series it is about.
        """
        self._recording.warn(message, None if name is None else self[name].name)

    def close(self) -> Receipt:
        """Finish the file: fold the rest, verify, sync, put in place, remove the journal.

        Returns
        -------
        Receipt
            What was stored; printable. Closing again returns it again.

        Raises
        ------
        nwbflow.errors.DurabilityError
            If rows that were appended could not be made safe; the file is finished with all that were, and
            ``receipt`` tells of it.
        nwbflow.errors.StorageError, nwbflow.errors.VerifyError
            If the file could not be finished. The journal is kept; when the cause is mended, close again, or run
            ``nwbflow recover``. That goes for a close that was interrupted (Ctrl-C) as well.
        """
        self._recording.check_process()
        self._recording.check_reentry()
        self._events.check_outside("close()")
        with self._closing:
            if self._is_closing:
                raise SettingsError(
                    f"{self._path}: a signal handler has interrupted close(), and can't close in the middle of it; set "
                    "a flag in the handler, and close where you append",
                    kind=ErrorKind.LOCKED,
                )
            self._is_closing = True
            try:
                return self._close_once()
            finally:
                self._is_closing = False

    def _close_once(self) -> Receipt:
        if self.receipt is not None:
            return self.receipt
        receipt, lost = self._finish()
        self._events.emit(RunFinished(receipt=receipt))
        if not self._events.close(PATIENCE):
            warnings.warn(
                f"an observer of {self._path} has not come back for {PATIENCE:.0f} seconds and was left behind; the "
                "file is complete and in place",
                RuntimeWarning,
                stacklevel=3,
            )
        if lost is not None:
            raise lost
        return receipt

    def _finish(self) -> tuple[Receipt, DurabilityError | None]:
        try:
            built, seconds, lost = self._recording.close()
            _running.discard(self)
        except BaseException as error:
            if (partial := partial_path(self._path)).exists() or not self._path.exists():
                error.add_note(
                    f"The file could not be finished; everything acknowledged is kept beside it. When the "
                    f"cause is mended, close the recorder again, or run: nwbflow recover {self._path}"
                )
            if self._recording.has_let_go:
                _running.discard(self)
            self._stop_watching()
            self._events.emit(RunFailed(path=self._path, partial=partial, error=f"{type(error).__name__}: {error}"))
            self._events.settle(PATIENCE)  # not closed: closing the recorder again is told them too
            raise
        took = time.perf_counter() - self._began
        self._stop_watching()
        if self._watch is not None:
            self._events.emit(self._watch.finished(built.rows))
        try:
            self._events.settle(PATIENCE)  # only now that the file is in place; what they raise is told in the receipt
        finally:
            self.receipt = Receipt(
                path=self._path,
                datasets=built.receipts,
                seconds=took,
                structure_seconds=self._structure_seconds,
                verify_seconds=built.verify_seconds,
                publish_seconds=seconds,
                verified="stored",
                notes=(*self._notes, *built.notes, *self._rate_notes(), *self._events.notes),
            )
        return self.receipt, lost

    def _rate_notes(self) -> list[str]:
        recording = self._recording
        states = zip(recording.manifest.series, recording.states(), strict=True)
        return rate_notes(self._rates, [(series.name, state.arrivals) for series, state in states])

    def _stop_watching(self) -> None:
        self._events.stop_beating()
        if self._watch is not None:
            self._watch.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        if not self._recording.is_ours:
            return  # an exception in a forked process is none of the file's business
        try:
            self.close()
        except BaseException as second:
            error.add_note(f"finishing the recording failed too: {type(second).__name__}: {second}")
            for note in getattr(second, "__notes__", []):
                error.add_note(note)
        else:
            error.add_note(f"what had been recorded until then is finished, in {self._path}")
