"""Following a journal from another process: what is in it, and what has become of its recorder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

from nwbflow.errors import ErrorKind, SettingsError, StorageError
from nwbflow.record.finished import FinishedSeries, choose
from nwbflow.record.folder import ANNOUNCED, mark_of
from nwbflow.record.frames import FrameHead
from nwbflow.record.manifest import LiveSeries, Manifest
from nwbflow.record.reading import JournalReader, Received
from nwbflow.sinks.occupied import JOURNAL_MANIFEST, journal_path
from nwbflow.sinks.staging import partial_path

_MOST_TOLD = 4096

LOOK_SECONDS = 0.1
"""How often it is looked whether the recorder is still there, while nothing comes."""


class Following:
    """One series of a recording, read beside its recorder: nothing is changed, nothing held.

    Parameters
    ----------
    target : pathlib.Path
        What is recorded to.
    folder : int
        Descriptor of the journal's folder; taken over. It tells this recording from a later one of the same name.
    manifest : Manifest
        Of the recording.
    series : str
        Its name, or enough of the end of its path.

    Attributes
    ----------
    row : int
        Next row that is wanted; those before it are not read.
    ended : bool
        Whether the recorder is gone: what is in the journal is all there will be.
    """

    def __init__(self, target: Path, folder: int, manifest: Manifest, series: str) -> None:
        self._target = target
        self._folder = folder
        name = choose([known.name for known in manifest.series], series, target)
        self._position = [known.name for known in manifest.series].index(name)
        self.spec: LiveSeries = manifest.series[self._position]
        self._reader = JournalReader(journal_path(target), manifest, self._wants)
        self._looked = 0.0
        self._file: int | None = None
        self._announced: int | None = None
        self.row = 0
        self.ended = False
        self._keep_hold()

    @classmethod
    def begin(cls, target: Path, series: str) -> Following | None:
        """Follow the recording to `target`, if there is one and data may have been accepted.

        Raises
        ------
        SettingsError
            If there is no such series, or the recording has no journal to follow.
        StorageError
            If its manifest can't be read.
        """
        path = journal_path(target)
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with contextlib.ExitStack() as handles:
            handles.callback(os.close, folder)
            manifest = _manifest(folder, path)
            if manifest is None:
                return None
            if not manifest.has_journal:
                raise _no_journal(target)
            try:
                following = cls(target, folder, manifest, series)
            except StorageError:
                if _is_at(folder, path):
                    raise
                return None  # it ended in this moment
            handles.pop_all()
            return following

    def _wants(self, head: FrameHead) -> bool:
        return head.series == self._position and head.first + head.rows > self.row

    def to_end(self) -> None:
        """Pass over all that is there."""
        self.row = 2**63
        while self._reader.read(growing=True) is not None:
            pass
        self.row = self._reader.rows[self._position]

    def read(self) -> Received | None:
        """Return the next block of the series, cut to the rows that are wanted; ``None`` if there is none (yet).

        Raises
        ------
        StorageError
            If the journal can't be read.
        """
        block = self._reader.read(growing=not self.ended)
        if block is None:
            return None
        skip = max(0, self.row - block.first)
        self.row = block.first + len(block.parts[0])
        return Received(block.series, block.first + skip, tuple(part[skip:] for part in block.parts))

    def look(self) -> None:
        """Look what the recorder will leave, and, now and then, whether it is still there."""
        self._keep_hold()
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self.ended = self.ended or _is_free(self._folder)

    @property
    def gone(self) -> bool:
        """Whether the journal is no more: the file is finished, or the recording was given up."""
        return not _is_at(self._folder, journal_path(self._target))

    @property
    def damaged(self) -> bool:
        """Whether the journal holds something that can't be used, where or behind where it is being read."""
        return self._reader.damaged

    @property
    def beyond(self) -> int:
        """Rows that frames of the series which can't be used reach to."""
        return self._reader.beyond[self._position]

    def _keep_hold(self) -> None:
        """Keep hold of the file that will be the finished one, and of what will tell its mark."""
        if self._announced is None:
            with contextlib.suppress(OSError):
                self._announced = os.open(ANNOUNCED, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        partial = partial_path(self._target)
        if self._file is None or not _is_at(self._file, partial):
            self._hold(partial)

    def _hold(self, partial: Path) -> None:
        try:
            file = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        if self.gone:  # then it is, or may be, that of another recording
            os.close(file)
            return
        self._let_go_of_file()
        self._file = file

    def finished(self) -> FinishedSeries | None:
        """Return the series as it is in the finished file, if that can be told from any other; after `gone`.

        Raises
        ------
        StorageError
            If the file can't be read.
        """
        if self._file is None or not (_is_at(self._file, self._target) or self._is_announced(self._file)):
            self._let_go_of_file()
            with contextlib.suppress(OSError):
                self._file = os.open(self._target, os.O_RDONLY | os.O_CLOEXEC)
            if self._file is None or not self._is_announced(self._file):
                return None
        file, self._file = self._file, None
        return FinishedSeries(file, self._target, self.spec.name, {d.field: d.name for d in self.spec.datasets})

    def _is_announced(self, file: int) -> bool:
        """Whether a file is the one that was to be put in place, wherever it is now."""
        if self._announced is None:
            return False
        try:
            told = tuple(json.loads(os.pread(self._announced, _MOST_TOLD, 0))["mark"])
            return told == mark_of(Path(f"/proc/self/fd/{file}"))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _let_go_of_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def close(self) -> None:
        """Close everything."""
        self._reader.close()
        self._let_go_of_file()
        for handle in (self._folder, self._announced):
            if handle is not None and handle >= 0:
                os.close(handle)
        self._folder, self._announced = -1, None


def _no_journal(target: Path) -> SettingsError:
    partial = partial_path(target)
    return SettingsError(
        f"{target} is recorded without a journal (journal=False), and the journal is what is followed. Watch the "
        f"partial file: h5py.File({str(partial)!r}, 'r', libver='latest', swmr=True), with refresh() of its datasets, "
        "which have different lengths for moments; or record with the journal",
        kind=ErrorKind.OPTION,
    )


def _manifest(folder: int, path: Path) -> Manifest | None:
    """Return the manifest of a journal, if it has one: the recording has begun."""
    try:
        return Manifest.from_json(json.loads(_content(JOURNAL_MANIFEST, folder)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{path / JOURNAL_MANIFEST} can't be read: {type(error).__name__}: {error}", kind=ErrorKind.IO
        ) from error


def _content(name: str, folder: int) -> bytes:
    """Return what a small file in a folder holds."""
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        return file.read()


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file or folder is the one at a path."""
    try:
        there = path.stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(handle), there)


def _is_free(folder: int) -> bool:
    """Whether nobody holds a journal. To hear yes is to hold it for a moment, so this is asked where data stopped."""
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False  # it is held; or a file system without locks, where nobody can tell
    fcntl.flock(folder, fcntl.LOCK_UN)
    return True
