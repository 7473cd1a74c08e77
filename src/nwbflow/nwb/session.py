"""One open file: how it is written, and what becomes of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from nwbflow.errors import ErrorKind, SettingsError, StorageError
from nwbflow.model.events import RunFailed, RunFinished
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.fill import Options, Passage, check_verify, count_workers
from nwbflow.nwb.layouts import Wishes
from nwbflow.observe.hub import Hub, Progress, make_observers
from nwbflow.planning.memory import parse_bytes
from nwbflow.planning.profiles import Profile, get_profile
from nwbflow.planning.rules import Rules
from nwbflow.sinks.hdf5 import disk_error
from nwbflow.sinks.staging import StagedFile, abandon, check_target

EXPANDABLE = ("VectorData", "ElementIdentifiers")
"""HDMF's default: types whose datasets can be appended to."""

CHUNK_CACHE = 32 * 2**20
"""Chunk cache HDMF opens files with, in bytes."""

METADATA_ROOM = 2 * 2**20
"""Room kept for metadata before the large data in files made for remote reading, in bytes."""

type RulesLike = Mapping[str, Any] | str | Path | Rules | None
"""A mapping, a YAML or JSON file, rules already loaded, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """HDF5 file settings that PyNWB has no way to give; ``None`` is HDF5's default.

    The names and meanings are :class:`h5py.File`'s.
    """

    libver: str | tuple[str, str] | None = None
    locking: bool | str | None = None
    fs_strategy: str | None = None
    fs_page_size: int | None = None
    page_buf_size: int | None = None
    rdcc_nbytes: int | None = None

    def given(self) -> dict[str, Any]:
        """Return the options that were given."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


def open_with(path: str | Path, mode: str, options: FileOptions) -> h5py.File:
    """Open a file with the options given, and HDMF's chunk cache otherwise.

    Raises
    ------
    SettingsError
        If h5py does not take them.
    """
    try:
        return h5py.File(path, mode, **{"rdcc_nbytes": CHUNK_CACHE, **options.given()})
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(f"{path} can't be opened with {options.given()}: {error}", kind=ErrorKind.OPTION) from error


class Session:
    """Settings and state of one of the drop-in classes.

    Parameters
    ----------
    profile, rules, workers, memory, verify, progress
        As in :func:`nwbflow.write`.

    Raises
    ------
    SettingsError
        For any of them.
    """

    def __init__(
        self,
        *,
        profile: str | Profile | None,
        rules: RulesLike,
        workers: int | None,
        memory: str | int | None,
        verify: str,
        progress: Progress,
    ) -> None:
        self.receipt: Receipt | None = None
        self._profile = None if profile is None else get_profile(profile)
        self._rules = Rules.load(rules)
        self._workers = count_workers(workers)
        self._memory = parse_bytes(memory)
        self._verify = check_verify(verify)
        self._observers = make_observers(progress)
        self._staged: StagedFile | None = None
        self._passage: Passage | None = None
        self._failed = False

    def stage(self, path: str | Path, options: FileOptions) -> StagedFile:
        """Open a new file beside `path`, to be put in its place when it is complete.

        Raises
        ------
        TargetError
            If the path can't be written.
        """
        target = check_target(path, overwrite=True)
        room = {"meta_block_size": METADATA_ROOM} if self._profile is not None and self._profile.metadata_first else {}
        self._staged = StagedFile(target, str(path), {"rdcc_nbytes": CHUNK_CACHE, **room, **options.given()})
        return self._staged

    def options(self, expandable: tuple[str, ...] = EXPANDABLE) -> Options:
        """Return the settings of one write."""
        return Options(
            wishes=Wishes(profile=self._profile, rules=self._rules, expandable=tuple(expandable)),
            workers=self._workers,
            memory=self._memory,
            verify=self._verify,
        )

    @contextlib.contextmanager
    def writing(self, file: h5py.File, path: str, *, side_by_side: bool) -> Iterator[Passage]:
        """Surround HDMF's writing: the outermost use fills, verifies and publishes when HDMF is done.

        Parameters
        ----------
        file : h5py.File
            Open for writing.
        path : str
            Its final name.
        side_by_side : bool
            Whether streams are drained each in a thread of its own.

        Raises
        ------
        NwbflowError
            What stopped it; other errors pass with a note.
        """
        if self._passage is not None:
            yield self._passage
            return
        with Hub(self._observers) as hub:
            passage = self._passage = Passage(Path(path), self.options(), hub.emit)
            try:
                with _disk_errors(path):
                    yield passage
                self._complete(passage, file, hub, side_by_side=side_by_side)
            except BaseException as error:
                self._fail(file, path, error, hub)
                raise
            finally:
                self._passage = None

    def _complete(self, passage: Passage, file: h5py.File, hub: Hub, *, side_by_side: bool) -> None:
        staged = self._staged if self._staged is not None and not self._staged.published else None
        passage.fill(file, side_by_side=side_by_side, in_place=staged is None)
        started = time.perf_counter()
        if staged is not None and not self._failed:
            staged.publish()
        passage.notes += hub.problems
        self.receipt = passage.receipt(time.perf_counter() - started)
        hub.emit(RunFinished(receipt=self.receipt))

    def _fail(self, file: h5py.File, path: str, error: BaseException, hub: Hub) -> None:
        self._failed = True
        partial = None
        if isinstance(error, StorageError):
            abandon(file)
        else:
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                file.flush()
        if self._staged is not None and not self._staged.published and not _is_empty(file):
            partial = self._staged.partial
            error.add_note(
                f"{path} is as it was before. What was written so far is kept in {partial.name} beside it "
                f"(look with: nwbflow inspect {partial.name})"
            )
        elif self._staged is None or self._staged.published:
            error.add_note(f"{path} was written in place: what was stored before this error is in it")
        hub.emit(RunFailed(path=Path(path), partial=partial, error=f"{type(error).__name__}: {error}"))

    def close(self, *, because_of_error: bool) -> None:
        """Settle what becomes of a staged file that no write has published."""
        staged = self._staged
        if staged is None or staged.published or not staged:
            return
        if _is_empty(staged):
            if because_of_error or self._failed or Path(staged.filename).exists():
                staged.discard()
            else:
                staged.publish()  # PyNWB leaves an empty file too
        elif not (self._failed or because_of_error):
            staged.publish()  # written by other means than write()


def _is_empty(file: h5py.File) -> bool:
    return bool(file) and len(file) == 0 and len(file.attrs) == 0


@contextlib.contextmanager
def _disk_errors(path: str) -> Iterator[None]:
    """Give errors of the disk in HDMF's part their own type, so that the handle is given up."""
    try:
        yield
    except Exception as error:
        found = disk_error(error, path, "writing the structure") if not isinstance(error, StorageError) else None
        if found is not None:
            raise found from error
        raise
