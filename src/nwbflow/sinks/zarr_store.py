"""The store HDMF writes a staged folder's structure through."""

from __future__ import annotations

from pathlib import Path

from zarr.abc.buffer import Buffer
from zarr.storage import LocalStore, WrapperStore

from nwbflow.sinks.folder import StagedFolder
from nwbflow.sinks.hdf5 import translated


class StagedStore(WrapperStore[LocalStore]):
    """A folder under its partial name that answers to the name it will have.

    Parameters
    ----------
    store : zarr.storage.LocalStore
        Over the partial folder.
    staged : StagedFolder
        The folder. When it has been put in place, the store goes on there.
    """

    def __init__(self, store: LocalStore, staged: StagedFolder) -> None:
        super().__init__(store)
        self._staged = staged

    @classmethod
    def over(cls, staged: StagedFolder) -> StagedStore:
        """Return the store over a staged folder."""
        return cls(LocalStore(staged.partial), staged)

    def _with_store(self, store: LocalStore) -> StagedStore:
        return type(self)(store, self._staged)

    @property
    def root(self) -> Path:
        """The folder the files are in now."""
        return self._store.root

    def settle(self) -> None:
        """Go on in the place where the folder is now, if it has been put in place."""
        if self._staged.published:
            self._store.root = self._staged.target

    def __str__(self) -> str:
        return str(self._staged.target)

    async def set(self, key: str, value: Buffer) -> None:
        """Store an object; an error of the disk is told from one of the data here, where it comes up."""
        with translated(str(self), f"writing {key}"):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Store an object if there is none under its key."""
        with translated(str(self), f"writing {key}"):
            await super().set_if_not_exists(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Do :meth:`set` without an event loop."""
        with translated(str(self), f"writing {key}"):
            super().set_sync(key, value)
