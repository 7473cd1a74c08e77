"""Objects of one array in a Zarr store, by key: files in a folder, or whatever the store makes of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from nwbflow.sinks.remote_store import RemoteStore


class Objects(Protocol):
    """Stores bytes under a key, whole or not at all, and gives them back."""

    def put(self, key: str, parts: Sequence[Any], /) -> int:
        """Store the parts one after the other as one object; return its size in bytes."""
        ...

    def get(self, key: str, /, start: int = 0, length: int | None = None) -> bytes | None:
        """Return bytes from `start` (negative: from the end), or ``None`` if there is no such object."""
        ...

    def size(self, key: str, /) -> int:
        """Return the size of an object in bytes; 0 if there is none."""
        ...


class FolderObjects:
    """Objects that are files.

    Parameters
    ----------
    folder : pathlib.Path
        The array's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[Path] = set()

    def put(self, key: str, parts: Sequence[Any], /) -> int:
        """Write a file beside its place and rename it."""
        path = self._folder / key
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        beside = path.with_name(path.name + ".partial")
        size = 0
        try:
            with beside.open("wb", buffering=0) as file:
                for part in parts:
                    size += _write(file.fileno(), part)
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        return size

    def get(self, key: str, /, start: int = 0, length: int | None = None) -> bytes | None:
        """Read from a file."""
        try:
            handle = os.open(self._folder / key, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            whole = os.fstat(handle).st_size
            at = max(0, whole + start) if start < 0 else start
            return _read(handle, at, whole - at if length is None else length)
        finally:
            os.close(handle)

    def size(self, key: str, /) -> int:
        """Return the size of a file."""
        try:
            return (self._folder / key).stat().st_size
        except FileNotFoundError:
            return 0


def _write(handle: int, part: Any) -> int:
    view = memoryview(part).cast("B")
    done = 0
    while done < view.nbytes:
        done += os.write(handle, view[done:])
    return view.nbytes


def _read(handle: int, at: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0 and (part := os.pread(handle, length, at)):
        parts.append(part)
        at += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class StoreObjects:
    """Objects of any Zarr store.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    prefix : str
        The array's path in it.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._prototype = default_buffer_prototype()

    def put(self, key: str, parts: Sequence[Any], /) -> int:
        """Store an object, put together in memory."""
        data = b"".join(parts)
        sync(self._store.set(self._prefix + key, self._prototype.buffer.from_bytes(data)))
        return len(data)

    def get(self, key: str, /, start: int = 0, length: int | None = None) -> bytes | None:
        """Ask the store for a range of bytes."""
        if length is not None and start >= 0:
            asked: Any = RangeByteRequest(start, start + length)
        else:
            asked = SuffixByteRequest(-start) if start < 0 else OffsetByteRequest(start)
        found = sync(self._store.get(self._prefix + key, self._prototype, asked))
        return None if found is None else found.to_bytes()

    def size(self, key: str, /) -> int:
        """Ask the store for an object's size."""
        if not sync(self._store.exists(self._prefix + key)):
            return 0
        return sync(self._store.getsize(self._prefix + key))


def objects_of(store: Store, path: str) -> Objects:
    """Return the objects of the array at `path`, as files where the store is a folder."""
    if isinstance(store, RemoteStore):
        return store.objects(path)
    root = getattr(store, "root", None)
    if isinstance(root, Path):
        return FolderObjects(root / path.strip("/"))
    return StoreObjects(store, path)


__all__ = ["FolderObjects", "Objects", "StoreObjects", "objects_of"]
