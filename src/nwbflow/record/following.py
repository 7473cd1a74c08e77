"""Following a journal from another process: what is in it, and what has become of its recorder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

import h5py

from nwbflow.errors import ErrorKind, StorageError
from nwbflow.record.finished import FinishedSeries, choose
from nwbflow.record.folder import PUBLISHING, mark_of
from nwbflow.record.frames import FrameHead
from nwbflow.record.manifest import LiveSeries, Manifest
from nwbflow.record.reading import JournalReader, Received
from nwbflow.sinks.staging import JOURNAL_MANIFEST, journal_path, partial_path

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
        self._mark: tuple[int, ...] | None = None
        self.row = 0
        self.ended = False
        self._keep_hold()

    @classmethod
    def begin(cls, target: Path, series: str) -> Following | None:
        """Follow the recording to `target`, if there is one and data may have been accepted.

        Raises
        ------
        SettingsError
            If there is no such series.
        StorageError
            If its manifest can't be read.
        """
        path = journal_path(target)
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            manifest = Manifest.from_json(json.loads(_content(JOURNAL_MANIFEST, folder)))
        except FileNotFoundError:
            os.close(folder)
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            os.close(folder)
            raise StorageError(
                f"{path / JOURNAL_MANIFEST} can't be read: {type(error).__name__}: {error}", kind=ErrorKind.IO
            ) from error
        try:
            return cls(target, folder, manifest, series)
        except BaseException:
            os.close(folder)
            raise

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
        """Keep hold of the file that will be the finished one, and of the mark it is to be known by.

        The file first: if it is not there any more because it is in place, the mark has been made before.
        """
        partial = partial_path(self._target)
        if self._file is None or not _is_at(self._file, partial):
            self._hold(partial)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # as a rule it is not there yet
            self._mark = tuple(json.loads(_content(PUBLISHING, self._folder))["mark"])

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
        self._keep_hold()
        file, self._file = self._file, None
        if file is None or not (_is_at(file, self._target) or _is_whole(file)):
            if file is not None:
                os.close(file)
            file = self._by_mark()
        if file is None:
            return None
        return FinishedSeries(file, self._target, self.spec.name, {d.field: d.name for d in self.spec.datasets})

    def _by_mark(self) -> int | None:
        try:
            if self._mark is not None and mark_of(self._target) == self._mark:
                return os.open(self._target, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass
        return None

    def _let_go_of_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def close(self) -> None:
        """Close everything."""
        self._reader.close()
        self._let_go_of_file()
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)


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


def _is_whole(handle: int) -> bool:
    """Whether a file that is not at its path (somebody has moved it) was finished: HDF5 marks those that were not."""
    if os.fstat(handle).st_nlink == 0:
        return False
    try:
        with os.fdopen(os.dup(handle), "rb") as file, h5py.File(file, "r"):
            return True
    except OSError:
        return False
