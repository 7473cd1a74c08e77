"""Recording into an NWB file: what users hold in their hands."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import pynwb

from nwbflow.errors import DurabilityError, ErrorKind, SettingsError, StorageError
from nwbflow.model.events import RunFailed, RunFinished, RunStarted
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.containers import manager_of_guests
from nwbflow.nwb.fill import count_workers
from nwbflow.nwb.laidout import LayoutIO
from nwbflow.nwb.recorded import RecordedSeries
from nwbflow.observe.hub import Hub, Progress, make_observers
from nwbflow.planning.memory import parse_bytes
from nwbflow.planning.profiles import Profile
from nwbflow.record.build import LIBVER
from nwbflow.record.folder import JournalFolder, copy_synced, file_crc32, mark_of, remove
from nwbflow.record.manifest import Manifest
from nwbflow.record.recording import Recording
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.staging import check_target, free_name, leftover_path, partial_path


def _free_beside(path: Path) -> Path:
    """Return where the structure is laid out: a name that nobody has taken, also not for an interrupted write."""
    names = (path.with_name(f"{path.name}.structure{number or ''}.nwb") for number in count())
    return next(name for name in names if not name.exists() and not partial_path(name).exists())


class Recorder:
    """Records live data into an NWB file and loses nothing it has acknowledged.

    The whole file is laid out first, beside its place. What is appended goes into a journal, from where it is
    compressed into that file meanwhile. Closing leaves an ordinary, verified NWB file, puts it in place in one step
    and removes the journal. Leaving a ``with`` block through an exception does the same: what was recorded is kept.
    After a crash, ``nwbflow recover`` makes the file from the journal.

    Parameters
    ----------
    nwbfile : pynwb.NWBFile
        What to write. Data declared with :func:`nwbflow.live` are recorded, everything else is written at once.
    path : str or pathlib.Path
        Where the file is to be. Beside it there are ``<name>.partial`` and ``<name>.journal`` meanwhile, which take
        as much disk as the finished file and the uncompressed data.
    sync : {"process", "full"}
        What rows survive once they are acknowledged: the end of this process, however it comes; or a loss of power
        as well, on a local disk that does what it is asked to.
    profile : str or Profile
        Codec and chunks of whatever says nothing itself.
    workers : int, optional
        Encoding threads; as many as there are cores by default.
    queue : int or str
        What each series may hold that the journal has not, in bytes or as ``"64 MiB"``.
    progress : bool, callable or sequence of callables
        ``True`` shows a progress bar; a callable gets every event, in a thread of the recorder.
    overwrite : bool
        Whether a file at `path` may be replaced, when the recording is finished.

    Raises
    ------
    nwbflow.errors.TargetError
        If the path can't be written, or an earlier recording to it is not finished.
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
        progress: Progress = False,
        overwrite: bool = False,
    ) -> None:
        if sync not in ("process", "full"):
            raise SettingsError(f"sync={sync!r}: give 'process' or 'full'", kind=ErrorKind.OPTION)
        self.receipt: Receipt | None = None
        self._closing = threading.RLock()  # a signal handler that closes while its thread is closing must not hang
        self._is_closing = False
        self._failed = False
        self._began = time.perf_counter()
        self._workers = count_workers(workers)
        limit = parse_bytes(queue, "queue")
        self._hub = Hub(make_observers(progress))
        self._notes: list[str] = []
        self._path = check_target(path, overwrite=overwrite)
        folder = JournalFolder.make(self._path)
        partial = partial_path(self._path)
        try:
            manifest = self._lay_out(nwbfile, folder, partial, profile)
            self._hub.emit(
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
                emit=self._hub.emit,
            )
        except BaseException:
            remove(partial)
            folder.discard()
            self._hub.close()
            raise
        self._series = {
            series.name: RecordedSeries(series.name, tuple(d.field for d in series.given), self._recording, position)
            for position, series in enumerate(manifest.series)
        }

    def _lay_out(
        self, nwbfile: pynwb.NWBFile, folder: JournalFolder, partial: Path, profile: str | Profile
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
                io.lay_out(nwbfile)
            laid_out.rename(partial)
            with translated(str(folder.path), "copying the structure"):
                copy_synced(partial, folder.structure)
            manifest = Manifest(
                identity=secrets.token_bytes(16),
                series=io.series,
                structure_bytes=folder.structure.stat().st_size,
                structure_crc32=file_crc32(folder.structure),
                replaces=mark_of(self._path) if self._path.exists() else None,
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
        wanted = "/" + name.strip("/")
        found = [series for path, series in self._series.items() if path.endswith(wanted)]
        exact = [series for series in found if series.name == wanted]
        if len(exact or found) != 1:
            known = ", ".join(self._series)
            raise KeyError(f"{name!r} is {'no' if not found else 'more than one'} live series; there are {known}")
        return (exact or found)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def acknowledged(self, name: str) -> int:
        """Return how many rows of a series are safe."""
        return self[name].acknowledged

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
            If the file could not be finished; the journal is kept for ``nwbflow recover``.
        """
        self._recording.check_process()
        self._recording.check_reentry()
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
        if self._failed:
            raise StorageError(
                f"{self._path}: closing this recorder has failed before; see that error, and nwbflow recover",
                kind=ErrorKind.CLOSED,
            )
        self._failed = True
        self.receipt, lost = self._finish()
        if lost is not None:
            raise lost
        return self.receipt

    def _finish(self) -> tuple[Receipt, DurabilityError | None]:
        try:
            built, seconds, lost = self._recording.close()
        except BaseException as error:
            if (partial := partial_path(self._path)).exists() or not self._path.exists():
                error.add_note(
                    f"The file could not be finished; everything acknowledged is in the journal beside it. When the "
                    f"cause is mended, run: nwbflow recover {self._path}"
                )
            self._hub.emit(RunFailed(path=self._path, partial=partial, error=f"{type(error).__name__}: {error}"))
            self._hub.close()
            raise
        receipt = Receipt(
            path=self._path,
            datasets=built.receipts,
            seconds=time.perf_counter() - self._began,
            structure_seconds=self._structure_seconds,
            verify_seconds=built.verify_seconds,
            publish_seconds=seconds,
            verified="stored",
            notes=(*self._notes, *built.notes, *self._hub.problems),
        )
        self._hub.emit(RunFinished(receipt=receipt))
        self._hub.close()
        return receipt, lost

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
