"""The store HDMF writes a structure into that is going to an object store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Any, Self

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import MemoryStore, WrapperStore

from nwbflow.sinks.uploads import METADATA, Uploads


class RemoteStore(WrapperStore[MemoryStore]):
    """The structure in memory, the chunks of large arrays on their way.

    Parameters
    ----------
    uploads : Uploads
        Where everything goes.
    """

    def __init__(self, uploads: Uploads, memory: MemoryStore | None = None) -> None:
        super().__init__(MemoryStore() if memory is None else memory)
        self._uploads = uploads
        self._filling = False

    def _with_store(self, store: MemoryStore) -> Self:
        return type(self)(self._uploads, store)

    def __str__(self) -> str:
        return self._uploads.url

    @property
    def replacing(self) -> bool:
        """Whether a store is there that goes away."""
        return self._uploads.replacing

    def objects(self, path: str) -> RemoteObjects:
        """Return the objects of the array at `path`."""
        return RemoteObjects(self._uploads, path)

    def begin(self) -> None:
        """Go on in the object store: what comes from now on is sent, but for metadata.

        Raises
        ------
        TargetError
            If the place can't be written; nothing is changed then.
        """
        self._uploads.begin()
        self._filling = True

    def finish(self, *, verify: bool) -> list[str]:
        """Send the structure, its root last; return what is worth noting.

        Raises
        ------
        StorageError, VerifyError, TargetError
            What stopped it; nothing reads as a store then.
        """
        structure = {name: value.to_bytes() for name, value in self._store._store_dict.items()}
        noted = self._uploads.finish(structure, verify=verify)
        kept, size = self._uploads.kept, self._uploads.kept_bytes
        notes = [f"{kept} objects of {size / 1e6:.1f} MB were there already, and not sent again"] if kept else []
        return notes if noted is None else [*notes, noted]

    def give_up(self) -> str:
        """End what is on its way, and say what is left."""
        self._uploads.give_up()
        if not self._uploads.begun:
            return f"{self} is as it was before: nothing was sent"
        if self._uploads.uncertain:
            return (
                f"The last object was sent, and no answer came: {self} is there whole, or not at all. Look, or do the "
                "same call with overwrite=True, which goes on from there"
            )
        gone = "The store that was there is gone" if self.replacing else f"{self} was not made"
        return f"{gone}. What was sent is kept, and found by no reader: the same call goes on from there"

    def _sends(self, key: str) -> bool:
        return self._filling and key.rpartition("/")[2] not in METADATA

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object, or part of it, from wherever it is."""
        return self.get_sync(key, prototype=prototype, byte_range=byte_range)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Do :meth:`get` without an event loop."""
        found = self._store.get_sync(key, prototype=prototype, byte_range=byte_range)
        if found is not None or not self._sends(key):
            return found
        data = self._uploads.get(key)
        if data is None:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(_part(data, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of objects."""
        return [self.get_sync(key, prototype=prototype, byte_range=asked) for key, asked in key_ranges]

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], *, prototype: BufferPrototype, **_: Any
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Return parts of one object; it is read whole, so there is nothing to be put together."""
        found = [(n, self.get_sync(key, prototype=prototype, byte_range=r)) for n, r in enumerate(byte_ranges)]
        if any(part is None for _, part in found):
            raise BaseExceptionGroup("no such object", [FileNotFoundError(key)])
        yield found

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None]]:
        for key, prototype, asked in requests:
            yield key, self.get_sync(key, prototype=prototype, byte_range=asked)

    async def exists(self, key: str) -> bool:
        """Return whether there is an object."""
        return await self._store.exists(key) or (self._sends(key) and self._uploads.size(key) > 0)

    async def set(self, key: str, value: Buffer) -> None:
        """Store an object."""
        self.set_sync(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Do :meth:`set` without an event loop."""
        if self._sends(key):
            self._uploads.put(key, value.to_bytes())
        else:
            self._store.set_sync(key, value)

    async def delete(self, key: str) -> None:
        """Delete an object."""
        self.delete_sync(key)

    def delete_sync(self, key: str) -> None:
        """Do :meth:`delete` without an event loop."""
        self._store.delete_sync(key)
        if self._sends(key):
            self._uploads.delete(key)


def _part(data: bytes, asked: ByteRequest | None) -> bytes:
    match asked:
        case RangeByteRequest():
            return data[asked.start : asked.end]
        case OffsetByteRequest():
            return data[asked.offset :]
        case SuffixByteRequest():
            return data[-asked.suffix :]
    return data


class RemoteObjects:
    """Objects of one array on their way to an object store.

    Parameters
    ----------
    uploads : Uploads
        Takes them.
    path : str
        The array's path in the store.
    """

    def __init__(self, uploads: Uploads, path: str) -> None:
        self._uploads = uploads
        self._prefix = f"{path.strip('/')}/" if path.strip("/") else ""

    def put(self, key: str, parts: Sequence[Any], /) -> int:
        """Send an object, put together in memory; it may still be on its way afterwards."""
        data = b"".join(parts)
        self._uploads.put(self._prefix + key, data)
        return len(data)

    def get(self, key: str, /, start: int = 0, length: int | None = None) -> bytes | None:
        """Read a whole object back, and return the part asked for."""
        found = self._uploads.get(self._prefix + key)
        if found is None:
            return None
        at = max(0, len(found) + start) if start < 0 else start
        return found[at:] if length is None else found[at : at + length]

    def size(self, key: str, /) -> int:
        """Return the size of an object; 0 if there is none."""
        return self._uploads.size(self._prefix + key)
