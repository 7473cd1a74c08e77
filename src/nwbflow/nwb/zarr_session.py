"""One open Zarr store: how it is written, and what becomes of it."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import zarr

from nwbflow.errors import ErrorKind, StorageError
from nwbflow.model.address import Address, is_address
from nwbflow.model.events import RunFailed, RunFinished
from nwbflow.nwb.session import CREATING, Session
from nwbflow.nwb.zarr_fill import StorePassage
from nwbflow.observe.hub import Hub
from nwbflow.sinks.folder import StagedFolder, check_store_target
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.remote_store import RemoteStore
from nwbflow.sinks.zarr_store import StagedStore


class StoreSession(Session):
    """Settings and state of :class:`nwbflow.NWBZarrIO`; the parameters are :class:`Session`'s."""

    _folder: StagedFolder | None = None
    _store: StagedStore | None = None
    _storing: StorePassage | None = None

    def stage(self, path: str, mode: str, *, force: bool) -> StagedStore | None:
        """Return a store beside `path`, to be put in its place when it is complete.

        Parameters
        ----------
        path : str
            Where the store is to be.
        mode : str
            As for :func:`zarr.open`.
        force : bool
            Whether also a file, or a folder of something else, may be replaced.

        Returns
        -------
        StagedStore or None
            ``None`` where zarr-python opens the store itself, or refuses to.

        Raises
        ------
        TargetError
            If the path can't be written.
        """
        if mode not in CREATING or (mode != "w" and Path(path).exists()):
            return None
        target = check_store_target(path, overwrite=True, force=force)
        self._folder = StagedFolder(target, overwrite=mode == "w")
        self._store = StagedStore.over(self._folder)
        return self._store

    def replace(self, *, overwrite: bool) -> None:
        """Say whether this may replace a store that comes to its path meanwhile, and leftovers of an earlier write."""
        self.hold(drop_leftover=overwrite)
        if self._folder is not None:
            self._folder.overwrite = overwrite

    @property
    def replacing(self) -> bool:
        """Whether a new store is being made, in the place of what has its name now."""
        return self._growing is not None

    @property
    def _growing(self) -> StagedFolder | None:
        return self._folder if self._folder is not None and not self._folder.published else None

    @contextlib.contextmanager
    def storing(self, root: zarr.Group, path: str, *, side_by_side: bool, consolidate: bool) -> Iterator[StorePassage]:
        """Surround hdmf-zarr's writing: the outermost use fills, verifies and publishes when it is done.

        Parameters
        ----------
        root : zarr.Group
            The store's root, open for writing.
        path : str
            Its final name.
        side_by_side : bool
            Whether streams are drained each in a thread of its own.
        consolidate : bool
            Whether all metadata are put together in the root's, as the last step.

        Raises
        ------
        NwbflowError
            What stopped it; other errors pass with a note.
        """
        if self._storing is not None:
            yield self._storing
            return
        if self._failed and self._growing is not None:
            raise StorageError(
                f"{path}: an earlier write into this store failed, so it will not be put in place; open it anew",
                kind=ErrorKind.CLOSED,
            )
        self._hub = Hub(self._observers)
        growing = self._growing
        remote = root.store if isinstance(root.store, RemoteStore) else None
        passage = self._storing = StorePassage(
            _path_of(path), self.options(), self._hub.emit, None if growing is None else growing.partial.parent
        )
        try:
            with _own_errors():
                yield passage
            if remote is not None:
                passage.unseen = True
                remote.begin()
            passage.fill_store(root, side_by_side=side_by_side)
            if consolidate:
                _consolidate(root, path)
            if self.check is not None:
                self.check(root)
            if remote is not None:
                self._send_structure(remote, passage)
            self._put_in_place(passage)
        except BaseException as error:
            self._give_up_store(path, error, remote)
            raise
        finally:
            self._storing = None

    def _put_in_place(self, passage: StorePassage) -> None:
        started = time.perf_counter()
        growing = self._growing
        if growing is not None and self._store is not None:
            growing.publish()
            self._store.settle()
            if self._drop_leftover:
                growing.drop_leftover()
            elif growing.leftover is not None:
                passage.notes.append(f"what an earlier, interrupted write had left is kept in {growing.leftover}")
        passage.notes += self._hub.problems
        self.receipt = passage.receipt(time.perf_counter() - started)
        self._hub.emit(RunFinished(receipt=self.receipt))
        self._hub.close()

    def _send_structure(self, remote: RemoteStore, passage: StorePassage) -> None:
        """Send the small rest of a store whose arrays are there, and with it make it one."""
        passage.notes += remote.finish(verify=self._verify != "no")

    def _give_up_store(self, path: str, error: BaseException, remote: RemoteStore | None) -> None:
        growing = self._growing
        self._failed = True
        kept = growing is not None and _has_content(growing.partial)
        if growing is not None and kept:
            growing.let_go()
            before = f"{path} is as it was before" if Path(path).exists() else f"{path} was not made"
            error.add_note(f"{before}. What was written so far is kept in {growing.partial.name} beside it")
        elif growing is not None:
            growing.discard()
        elif remote is not None:
            error.add_note(remote.give_up())
        else:
            error.add_note(f"{path} was written in place: what was stored before this error is in it")
        partial = growing.partial if growing is not None and kept else None
        self._hub.emit(RunFailed(path=_path_of(path), partial=partial, error=f"{type(error).__name__}: {error}"))
        self._hub.close()

    def go_in_place(self) -> None:
        """Put an empty staged store in place, for what writes single objects into it without a whole write."""
        growing = self._growing
        if growing is not None and self._store is not None and self._storing is None and not self._failed:
            growing.publish()
            self._store.settle()

    def leave(self, *, because_of_error: bool) -> None:
        """Settle what becomes of a staged store that is not in place when it is closed."""
        growing = self._growing
        if growing is None or self._failed:
            return
        if because_of_error or self.receipt is not None or Path(growing.target).exists():
            growing.discard()
        else:
            growing.publish()  # nothing was written: hdmf-zarr, too, leaves an empty store where none was

    def give_up(self) -> None:
        """Remove a staged store that was never handed over."""
        if self._growing is not None:
            self._growing.discard()


def _path_of(path: str) -> Path:
    return Address(path) if is_address(path) else Path(path)


def _consolidate(root: zarr.Group, path: str) -> None:
    with translated(path, "putting the metadata together"), warnings.catch_warnings():
        # hdmf-zarr's stores have them, though the specification doesn't yet
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(root.store, path=root.path)


def _has_content(folder: Path) -> bool:
    """Return whether there is more than the root's own metadata."""
    return folder.is_dir() and any(item.name != "zarr.json" for item in folder.iterdir())


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Take errors of the disk, and interrupts, out of what hdmf-zarr wraps around them."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, StorageError | KeyboardInterrupt):
            cause = cause.__cause__ or cause.__context__
        if cause is not None and cause is not error:
            raise cause from None
        raise
