"""The folder a recording keeps its journal in: made, locked, told apart, and removed last."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from nwbflow.encoding.checksum import crc32
from nwbflow.errors import ErrorKind, StorageError, TargetError
from nwbflow.record.manifest import Manifest
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.occupied import JOURNAL_MANIFEST as MANIFEST
from nwbflow.sinks.occupied import being_recorded, held_here, journal_path
from nwbflow.sinks.staging import check_length, free_name, partial_path

STRUCTURE, PUBLISHING = "structure.nwb", "publishing.json"
ANNOUNCED = "announced.json"
"""The same as what is told when publishing, in a file that is there from the beginning: whoever watches a recording
has it open, and can read it when the folder is gone."""

SEGMENTS = "*.segment"
CHUNKS = "chunks.ledger"
"""Where the chunks are in the partial file, if there is no journal."""

LAYOUT = ".structure.nwb"
"""What the file is called, behind its name, while it is laid out."""

_BLOCK = 2**20


class JournalFolder:
    """A recording's journal, held by this process until it is let go.

    Parameters
    ----------
    target : pathlib.Path
        The file that is to be there at the end.
    lock : int
        Descriptor of the locked folder.
    """

    def __init__(self, target: Path, lock: int) -> None:
        self.target = target
        self.path = journal_path(target)
        self._spill: Path | None = None
        self._lock: int | None = lock
        held_here.add(self.path)

    @classmethod
    def make(cls, target: Path) -> JournalFolder:
        """Make the folder; one in which nothing had been accepted yet is taken over.

        Raises
        ------
        TargetError
            If a recording is running there, an earlier one is to be recovered first, or the name is too long for
            what is made beside the file.
        """
        check_length(target, partial_path(target.with_name(target.name + LAYOUT)))
        sweep(target)
        path = journal_path(target)
        if path.is_dir():
            found = cls.claim(target)
            if found.begun:
                found.let_go()
                raise TargetError(
                    f"{path} holds the data of an earlier recording; finish it first: nwbflow recover {target}",
                    kind=ErrorKind.EXISTS,
                )
            _remove_layout(target)
            shutil.rmtree(path)
            found.let_go()
        try:
            path.mkdir()
        except PermissionError as error:
            raise TargetError(f"{path} can't be made: {error}", kind=ErrorKind.PERMISSION) from error
        except OSError as error:
            with translated(str(path), "making the journal"):
                raise error
        return cls.claim(target)

    @classmethod
    def claim(cls, target: Path) -> JournalFolder:
        """Take the folder that is there.

        Raises
        ------
        TargetError
            Kind ``LOCKED``: the recording is still running, or is being recovered.
        """
        path = journal_path(target)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise being_recorded(target) from None
        except OSError:
            pass  # a file system without locks
        return cls(target, handle)

    def take_again(self, identity: bytes) -> bool:
        """Take the folder again after it was let go; return whether it is still this recording's.

        Raises
        ------
        TargetError
            As :meth:`claim`.
        FileNotFoundError
            If it is not there.
        """
        if self.is_held:
            return True
        self._lock = JournalFolder.claim(self.target)._lock
        try:
            ours = self.begun and self.manifest().identity == identity
        except BaseException:
            self.let_go()
            raise
        if not ours:
            self.let_go()
        return ours

    @property
    def is_held(self) -> bool:
        """Whether this process has it locked, through this object."""
        return self._lock is not None

    @property
    def begun(self) -> bool:
        """Whether data may have been accepted: the manifest is written last."""
        return (self.path / MANIFEST).exists()

    @property
    def structure(self) -> Path:
        """The file with everything but the recorded rows."""
        return self.path / STRUCTURE

    @property
    def ledger(self) -> Path:
        """The file that says where chunks are, of a recording without a journal."""
        return self.path / CHUNKS

    def begin(self, manifest: Manifest) -> None:
        """Make the folder it may spill to, and write the manifest: from here on data can be accepted.

        Raises
        ------
        StorageError
            If the disk fails or is full.
        """
        if manifest.spill is not None:
            self._spill = manifest.spill
            with translated(str(manifest.spill), "making the folder to spill to"):
                manifest.spill.mkdir()
                sync_folder(manifest.spill.parent)
        with translated(str(self.path), "writing the manifest"):
            (self.path / ANNOUNCED).touch()
            if not manifest.has_journal:
                self.ledger.touch()
            sync_folder(self.path)
            self._save(MANIFEST, manifest.to_json())
            sync_folder(self.path.parent)

    def manifest(self) -> Manifest:
        """Read the manifest.

        Raises
        ------
        StorageError
            If it, or the structure, is damaged.
        """
        path = self.path / MANIFEST
        try:
            manifest = Manifest.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"{path} can't be read: {type(error).__name__}: {error}. {self._way_out()}", kind=ErrorKind.IO
            ) from error
        try:
            found = (self.structure.stat().st_size, file_crc32(self.structure))
        except OSError as error:
            raise StorageError(
                f"{self.structure} can't be read: {error}. {self._way_out()}", kind=ErrorKind.IO
            ) from error
        if found != (manifest.structure_bytes, manifest.structure_crc32):
            raise StorageError(
                f"{self.structure} is damaged; its checksum is another. {self._way_out()}", kind=ErrorKind.MISMATCH
            )
        self._spill = manifest.spill
        return manifest

    def _way_out(self) -> str:
        partial = partial_path(self.target)
        way = (
            f"Without it the rows in {self.path} can't be put into a file: put an undamaged copy of it (a backup) in "
            "its place, and recover again"
        )
        if partial.exists():
            way += (
                f". What had been stored so far is in {partial.name}; look at a copy of it with "
                "h5py.File(copy, 'r', locking=False), after h5clear -s copy if it does not open"
            )
        return f"{way}. To record to this path again, move {self.path.name} and {partial.name} to another folder"

    def announce(self, built: Path, *, damaged: bool = False) -> None:
        """Note which file is about to be put in place, and whether the journal is to be kept, to know it afterwards."""
        told = {"mark": mark_of(built), "damaged": damaged}
        self._save(PUBLISHING, told)
        with contextlib.suppress(OSError):
            (self.path / ANNOUNCED).write_text(json.dumps(told))

    def published(self, replaces: tuple[int, ...] | None) -> str | None:
        """Return ``"whole"`` or ``"damaged"`` if the file at the target was made of this journal, else ``None``.

        Parameters
        ----------
        replaces : tuple of int or None
            Mark of the file that was there before. Where it can't be told from the new one, the answer is ``None``.
        """
        try:
            told = json.loads((self.path / PUBLISHING).read_bytes())
            mark, damaged = tuple(told["mark"]), bool(told.get("damaged"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # not there, or in doubt: then the file is made once more
        if mark == replaces or not self.target.exists() or mark != mark_of(self.target):
            return None
        return "damaged" if damaged else "whole"

    def keep(self) -> Path:
        """Put the journal aside, with the partial file in it, so that another recording can be made; return where."""
        kept = free_name(self.path.with_name(self.path.name + ".damaged"))
        partial = partial_path(self.target)
        if partial.exists():
            partial.rename(self.path / partial.name)
        self.path.rename(kept)
        sync_folder(kept.parent)
        self.let_go()
        return kept

    def retire(self) -> None:
        """Remove the journal, and what was spilled: the file is in place, and this is the last step."""
        sweep(self.target)
        self.path.rename(done_path(self.target))  # at once: a journal that is there in part would be recovered
        sync_folder(self.path.parent)
        sweep(self.target)
        self.let_go()

    def discard(self) -> None:
        """Remove a journal in which nothing was accepted."""
        if self._spill is not None:
            shutil.rmtree(self._spill, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)
        self.let_go()

    def let_go(self) -> None:
        """Give up the lock; a forked process does the same with its copy."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
            held_here.discard(self.path)

    def _save(self, name: str, value: dict[str, Any]) -> None:
        """Write a small file, whole or not at all, and sync it."""
        new = self.path / (name + ".new")
        with new.open("wb") as file:
            file.write(json.dumps(value, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        new.rename(self.path / name)
        sync_folder(self.path)


def sweep(target: Path) -> None:
    """Remove what is left of a journal whose file is in place: first what it spilled, which only it knows of."""
    done = done_path(target)
    try:
        spill = Manifest.from_json(json.loads((done / MANIFEST).read_bytes())).spill
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        spill = None
    if spill is not None:
        shutil.rmtree(spill, ignore_errors=True)
    shutil.rmtree(done, ignore_errors=True)


def kept_for_damage(journal: Path) -> str:
    """Say what has become of a damaged journal."""
    return (
        f"the journal is damaged, and what lies behind the damage is not in the file. It is kept in {journal}: "
        "see to that disk, and delete it when you do not need it"
    )


def _remove_layout(target: Path) -> None:
    """Remove what an interrupted layout had begun; a finished one of that name may be anybody's file, and stays."""
    for file in target.parent.iterdir():
        if file.name.startswith(f"{target.name}{LAYOUT}.partial") and file.is_file():
            remove(file)


def check_spill(path: str | Path) -> Path:
    """Return the real path of a folder to spill to.

    Raises
    ------
    TargetError
        If it is no folder, or can't be written.
    """
    folder = Path(os.path.realpath(path))
    if not folder.is_dir():
        raise TargetError(
            f"spill={folder} is no folder; make it first, or mount the disk it is on", kind=ErrorKind.FOLDER
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TargetError(f"spill={folder} is read-only for you; give another folder", kind=ErrorKind.PERMISSION)
    return folder


def mark_of(path: Path) -> tuple[int, ...]:
    """Return what tells a file from one that takes its place: its size, and sums of its front and its end.

    Of the content only, so that it holds for a copy of the whole folder too. The front has the tables of what
    lies where, which differ between any two recordings.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        front = crc32(file.read(_BLOCK))
        file.seek(max(0, size - _BLOCK))
        return (size, front, crc32(file.read(_BLOCK)))


def file_crc32(path: Path) -> int:
    """Return the CRC-32 of a file."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total = crc32(block, total)
    return total


def copy_synced(source: Path, copy: Path) -> None:
    """Copy a file's content to a new file and sync it."""
    with source.open("rb") as old, copy.open("xb") as new:
        shutil.copyfileobj(old, new, _BLOCK)
        new.flush()
        os.fsync(new.fileno())


def sync_folder(path: Path) -> None:
    """Let names made, changed or removed in a folder survive a loss of power."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Let a file's content survive a loss of power."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file that may not be there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def done_path(target: Path) -> Path:
    """Return what a journal is called while it is removed: its file is in place."""
    return target.with_name(target.name + ".journal.done")
