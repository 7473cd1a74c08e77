"""One open file: how it is written, and what becomes of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from hdmf.build import BuildManager, DatasetBuilder

from nwbflow.engine.afar import Executor
from nwbflow.errors import ErrorKind, NwbflowError, SettingsError, StorageError
from nwbflow.model.events import RunFailed, RunFinished
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.candidates import path_of, types_of
from nwbflow.nwb.fill import Options, Passage, check_executor, check_verify, count_workers
from nwbflow.nwb.layouts import Wishes
from nwbflow.nwb.sending import Sending
from nwbflow.nwb.ties import ExternalPolicy, check_external
from nwbflow.observe.hub import Hub, Progress, make_observers
from nwbflow.planning.memory import parse_bytes
from nwbflow.planning.profiles import Profile, get_profile
from nwbflow.planning.rules import Rules
from nwbflow.sinks.hdf5 import disk_error, lost_writes, real_name, translated
from nwbflow.sinks.staging import StagedFile, abandon, check_target

CREATING = ("w", "w-", "x")
"""Modes that make a new file."""

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


class Session:
    """Settings and state of one of the drop-in classes.

    Parameters
    ----------
    profile, rules, workers, memory, verify, progress, external, executor
        As in :class:`nwbflow.NWBHDF5IO`.

    Attributes
    ----------
    check : callable or None
        Called with the open file or the store's root when everything is there; what it raises stops the write.

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
        external: ExternalPolicy,
        executor: Executor | None = None,
    ) -> None:
        self.external = check_external(external)
        self._executor = check_executor(executor)
        self.receipt: Receipt | None = None
        self._profile = None if profile is None else get_profile(profile)
        self._rules = Rules.load(rules)
        self._workers = count_workers(workers)
        self._memory = parse_bytes(memory)
        self._verify = check_verify(verify)
        self._observers = make_observers(progress)
        self._staged: StagedFile | None = None
        self._passage: Passage | None = None
        self._waiting: Passage | None = None
        self._hub = Hub(())
        self._hold = self._drop_leftover = False
        self._failed = False
        self.check: Callable[[Any], None] | None = None
        self.sending: Sending | None = None
        """Where the finished file goes, if not only to its path."""

    def hold(self, *, drop_leftover: bool) -> None:
        """Put the file in place only when it is closed: then closing, too, can fail without harm."""
        self._hold, self._drop_leftover = True, drop_leftover

    def open(self, path: str | Path, mode: str, options: FileOptions) -> h5py.File | None:
        """Open a file for HDMF: a new one beside `path`, to be put in its place when it is complete.

        Parameters
        ----------
        path : str or pathlib.Path
            The file.
        mode : str
            As in :class:`h5py.File`.
        options : FileOptions
            HDF5 file settings.

        Returns
        -------
        h5py.File or None
            ``None`` where HDMF opens the file itself, or refuses to.

        Raises
        ------
        TargetError
            If the path can't be written.
        SettingsError
            If h5py does not take the options.
        """
        exists = Path(path).exists()
        if mode in CREATING and (mode == "w" or not exists):
            return self._stage(path, options)
        if mode not in ("r", "r+", "a") or not (exists or (mode == "a" and options.given())):
            return None
        with _refused_options(path, options):
            return h5py.File(path, mode if exists else "x", **{"rdcc_nbytes": CHUNK_CACHE, **options.given()})

    def _stage(self, path: str | Path, options: FileOptions) -> StagedFile:
        target = check_target(path, overwrite=True)
        room = {"meta_block_size": METADATA_ROOM} if self._profile is not None and self._profile.metadata_first else {}
        with _refused_options(path, options):
            self._staged = StagedFile(target, str(path), {"rdcc_nbytes": CHUNK_CACHE, **room, **options.given()})
        return self._staged

    def ruled(self, builder: DatasetBuilder, *, manager: BuildManager) -> bool:
        """Return whether the rules say something of how a dataset is stored."""
        return bool(self._rules.match(path_of(builder), types_of(builder, manager), builder.name).rules)

    def options(self, expandable: tuple[str, ...] = EXPANDABLE) -> Options:
        """Return the settings of one write."""
        return Options(
            wishes=Wishes(profile=self._profile, rules=self._rules, expandable=tuple(expandable)),
            workers=self._workers,
            memory=self._memory,
            verify=self._verify,
            executor=self._executor,
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
        if self._failed and self._unpublished is not None:
            raise StorageError(
                f"{path}: an earlier write into this file failed, so it will not be put in place; open it anew",
                kind=ErrorKind.CLOSED,
            )
        self._hub = Hub(self._observers)
        passage = self._passage = self._new_passage(path)
        try:
            name = real_name(file)
            with _disk_errors(name, path), lost_writes(name, path):
                yield passage
            passage.fill(file, side_by_side=side_by_side)
            if self.check is not None:
                self.check(file)
            self._complete(passage)
        except BaseException as error:
            self._fail(path, error, file)
            raise
        finally:
            self._passage = None

    @property
    def staging(self) -> bool:
        """Whether a new file is being made, in the place of what has its name now."""
        return self._unpublished is not None

    @property
    def _unpublished(self) -> StagedFile | None:
        return self._staged if self._staged is not None and not self._staged.published else None

    def _new_passage(self, path: str) -> Passage:
        staged = self._unpublished
        folder = None if staged is None else staged.partial.parent
        return Passage(self._final(path), self.options(), self._hub.emit, folder, sending=self.sending)

    def _final(self, path: str) -> Path:
        return Path(path) if self.sending is None else self.sending.address

    def _complete(self, passage: Passage) -> None:
        """Put a staged file in place, now or when it is closed."""
        staged = self._unpublished
        if staged is not None and (self._hold or staged.marked_while_open):
            self._waiting = passage
            self.receipt = passage.receipt(0.0)
        else:
            self._publish(passage, staged)

    def _publish(self, passage: Passage, staged: StagedFile | None) -> None:
        started = time.perf_counter()
        if staged is not None:
            staged.publish()
            if staged.leftover is not None and self._drop_leftover:
                staged.leftover.unlink(missing_ok=True)
            elif staged.leftover is not None:
                passage.notes.append(f"what an earlier, interrupted write had left is kept in {staged.leftover}")
        published = time.perf_counter() - started
        if self.sending is not None:
            passage.sent = self.sending.send(self._hub.emit, verify=self._verify != "no")
        passage.notes += self._hub.problems
        self.receipt = passage.receipt(published)
        self._hub.emit(RunFinished(receipt=self.receipt))
        self._hub.close()

    def _fail(self, path: str, error: BaseException, file: h5py.File) -> None:
        """Keep what is sound, give up a handle that is not, and say what is left where."""
        self._failed = isinstance(error, StorageError) or not _is_empty(file)
        if isinstance(error, StorageError):
            abandon(file)
        elif file:
            try:
                with translated(path, "flushing what had arrived"):
                    file.flush()
            except StorageError as second:
                error.add_note(f"keeping what had arrived failed too: {second}")
                abandon(file)
        self._report(path, error, kept=not _is_empty(file))

    def _report(self, path: str, error: BaseException, *, kept: bool) -> None:
        staged = self._unpublished
        partial = staged.partial if staged is not None and kept else None
        if partial is not None:
            before = f"{path} is as it was before" if Path(path).exists() else f"{path} was not made"
            error.add_note(
                f"{before}. What was written so far is kept in {partial.name} beside it "
                f"(look with: nwbflow inspect {partial.name})"
            )
            if self.sending is not None:
                error.add_note(f"Nothing was sent to {self.sending.address}")
        elif self._staged is None:
            error.add_note(f"{path} was written in place: what was stored before this error is in it")
        self._hub.emit(RunFailed(path=self._final(path), partial=partial, error=f"{type(error).__name__}: {error}"))
        self._hub.close()

    @contextlib.contextmanager
    def closing(self, *, because_of_error: bool) -> Iterator[None]:
        """Surround HDMF's closing: settle what becomes of a staged file that is not in place yet."""
        staged = self._unpublished
        if staged is None or not staged:  # nothing staged, in place, or closed and settled before
            yield
            return
        finished = not self._failed and (self._waiting is not None or (self.receipt is None and not because_of_error))
        if _is_empty(staged) and (because_of_error or self._failed or Path(staged.filename).exists()):
            staged.discard()  # but PyNWB, too, leaves an empty file where none was
            finished = False
        if finished:
            try:
                staged.finish()
            except BaseException as error:
                staged.let_go()
                self._fail(staged.filename, error, staged)
                raise
        try:
            with translated(staged.filename, "closing the file"):
                yield
            if finished:
                self._publish(self._waiting or self._new_passage(staged.filename), staged)
        except BaseException as error:
            # a handle whose closing has begun is not touched again
            staged.let_go()
            self._report(staged.filename, error, kept=True)
            raise

    def give_up(self) -> None:
        """Remove a staged file that was never handed over."""
        if self._staged is not None:
            self._staged.discard()


def _is_empty(file: h5py.File) -> bool:
    return bool(file) and len(file) == 0 and len(file.attrs) == 0


@contextlib.contextmanager
def _refused_options(path: str | Path, options: FileOptions) -> Iterator[None]:
    try:
        yield
    except NwbflowError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(f"{path} can't be opened with {options.given()}: {error}", kind=ErrorKind.OPTION) from error


@contextlib.contextmanager
def _disk_errors(file: str, path: str) -> Iterator[None]:
    """Give errors of the disk in HDMF's part their own type, so that the handle is given up."""
    try:
        yield
    except Exception as error:
        if (interrupt := _interrupt_in(error)) is not None:
            raise interrupt from None  # HDMF wraps whatever comes while it sets an attribute
        found = None if isinstance(error, StorageError) else disk_error(error, file, path)
        if found is not None:
            raise found from error
        raise


def _interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error
