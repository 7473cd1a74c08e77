"""Sending a store to an object store: data first, its root's metadata last."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from nwbflow.encoding.checksum import crc32
from nwbflow.errors import ErrorKind, NwbflowError, TargetError, VerifyError
from nwbflow.sinks.manifest import Manifest, Sent
from nwbflow.sinks.remote import Found, Place

SENDERS = 8
"""Objects on their way at one time."""

ROOT = "zarr.json"
METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
"""Names of the objects without which no reader finds anything, of whatever version of Zarr."""

_ZARRS = re.compile(r"(^|/)(zarr\.json|\.z(group|array|attrs|metadata)|c(/\d+)*)$")
"""Names of objects that are a Zarr store's: nothing else is ever deleted, but chunks of the older version's arrays."""

_OLDER_CHUNK = re.compile(r"(?:(.*?)/)?\d+(?:[./]\d+)*")

_NOTE_SECONDS = 2.0
_NOTE_SHARE = 20  # a note of many objects takes its time, and is left more rarely


class Uploads:
    """The objects of one store on their way to a place.

    Parameters
    ----------
    place : Place
        Where they go.
    overwrite : bool
        Whether a store that is there may be replaced.
    room : int
        Bytes that may be on their way at one time; one object always may.

    Raises
    ------
    TargetError
        If a store is there without `overwrite`, or something else, or the place can't be reached.
    """

    def __init__(self, place: Place, *, overwrite: bool, room: int) -> None:
        self._place = place
        self._there: dict[str, Found] = place.objects()
        self._before = Manifest.parse(place.get(place.beside), f"{place.url}.partial")
        self._older = {name.rpartition("/")[0] for name in self._there if name.rpartition("/")[2] == ".zarray"}
        self.replacing = any(name in self._there for name in METADATA)
        self._check(overwrite=overwrite)
        self._manifest = Manifest()
        self._room = room
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[str, Future[None]] = {}
        self._weight: dict[str, int] = {}
        self._changed = threading.Condition()
        self._failed: BaseException | None = None
        self._next_note = 0.0
        self._cached: tuple[str, bytes] | None = None
        self.begun = False
        """Whether what was there is found by readers no more."""
        self.uncertain = False
        """Whether the store may be whole: the root's metadata were sent, and no answer came."""
        self.kept, self.kept_bytes = 0, 0

    def _check(self, *, overwrite: bool) -> None:
        url = self._place.url
        if self.replacing and not overwrite:
            raise TargetError(
                f"{url} exists; pass overwrite=True to replace it (it is gone then from the first object sent on, as "
                "object stores can't rename), or give another name",
                kind=ErrorKind.EXISTS,
            )
        if self._there and not self.replacing and self._before is None:
            raise TargetError(
                f"{url} has {len(self._there)} objects of something else in it than a Zarr store, such as "
                f"{min(self._there)}, so it is not written to; give a new name",
                kind=ErrorKind.FOLDER,
            )

    @property
    def url(self) -> str:
        """The store's address."""
        return self._place.url

    def size(self, name: str) -> int:
        """Return the size of an object sent, or on its way, in bytes; 0 if there is none."""
        self._wait(name)
        sent = self._manifest.objects.get(name)
        return 0 if sent is None else sent.size

    def begin(self) -> None:
        """Leave the note beside the store, and take away what lets readers find an older one.

        Raises
        ------
        TargetError
            If the place can't be written; nothing is changed then.
        """
        self._place.put(self._place.beside, self._manifest.to_bytes(self._before))
        names = [name for name in self._there if name.rpartition("/")[2] in METADATA]
        self._place.delete([self._place.key(name) for name in names if "/" not in name])  # before all others
        self._place.began = self.begun = True
        self._place.delete([self._place.key(name) for name in names if "/" in name])
        self._there = {name: found for name, found in self._there.items() if name not in names}
        self._next_note = time.monotonic() + _NOTE_SECONDS

    def put(self, name: str, data: bytes) -> None:
        """Send an object in the background; wait while too much is on its way.

        Raises
        ------
        StorageError
            If this or an earlier object can't be sent, even after trying again.
        """
        self._wait(name)
        if time.monotonic() > self._next_note:  # before anything more is sent to a place that may be another's by now
            try:
                self._note()
            except BaseException as error:
                self._failed = self._failed or error
                raise
        with self._changed:
            self._changed.wait_for(lambda: self._failed or not self._weight or self._fits(len(data)))
            self._raise()
            self._weight[name] = len(data)
        if self._cached is not None and self._cached[0] == name:
            self._cached = None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(SENDERS, thread_name_prefix="nwbflow-send")
        self._coming[name] = self._pool.submit(self._send, name, data)

    def _fits(self, size: int) -> bool:
        return len(self._weight) < SENDERS and sum(self._weight.values()) + size <= self._room

    def _raise(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _send(self, name: str, data: bytes) -> None:
        try:
            self._raise()
            self._manifest.objects[name] = self._settled(name, data)
        except BaseException as error:
            self._failed = self._failed or error
        finally:
            with self._changed:
                self._weight.pop(name, None)
                self._changed.notify_all()

    def _settled(self, name: str, data: bytes) -> Sent:
        """Send an object, unless the same is there."""
        crc, md5 = crc32(data), hashlib.md5(data, usedforsecurity=False).hexdigest()
        there = self._there.get(name)
        noted = None if self._before is None else self._before.objects.get(name)
        if there is not None and there.size == len(data):
            same = Sent(len(data), crc, md5, there.etag)
            if there.etag == md5 or noted == same:
                with self._changed:
                    self.kept += 1
                    self.kept_bytes += len(data)
                return same
        tag = self._place.put(self._place.key(name), data) if there is not None else self._create(name, data, md5)
        self._there[name] = Found(len(data), tag)  # what was there before is not, if this name comes again
        return Sent(len(data), crc, md5, tag)

    def _create(self, name: str, data: bytes, md5: str) -> str:
        """Send an object that was not there; if one is now, see whose it is."""
        key = self._place.key(name)
        tag = self._place.create(key, data)
        if tag is not None:
            return tag
        found = self._place.look(key)
        if found is not None and found.etag == md5:
            return md5  # an answer got lost
        self._check_still_ours()
        return self._place.put(key, data)

    def get(self, name: str) -> bytes | None:
        """Return an object that was sent, from the place; ``None`` if none was.

        Raises
        ------
        StorageError, VerifyError
            If it can't be read, or has another size than what was sent.
        """
        self._wait(name)
        self._raise()
        sent = self._manifest.objects.get(name)
        if sent is None:
            return None
        if self._cached is not None and self._cached[0] == name:
            return self._cached[1]
        data = self._place.get(self._place.key(name))
        if data is None or len(data) != sent.size:
            raise VerifyError(
                f"{self.url}/{name} reads back with {0 if data is None else len(data)} of {sent.size} bytes; "
                "somebody else writes there, or the server loses data. Write again",
                kind=ErrorKind.MISMATCH,
            )
        self._cached = (name, data)  # chunks are asked for shard by shard: one request for each
        return data

    def delete(self, name: str) -> None:
        """Delete an object that was sent.

        Raises
        ------
        StorageError
            If that fails.
        """
        self._wait(name)
        if self._manifest.objects.pop(name, None) is not None:
            self._cached = None
            self._place.delete([self._place.key(name)])

    def _wait(self, name: str) -> None:
        coming = self._coming.pop(name, None)
        if coming is not None:
            coming.result()

    def settle(self) -> None:
        """Wait until everything is there.

        Raises
        ------
        StorageError
            If something could not be sent.
        """
        for name in list(self._coming):
            self._wait(name)
        self._raise()

    def finish(self, structure: Mapping[str, bytes], *, verify: bool) -> str | None:
        """Send the rest, remove what is not part of the store, and send the root's metadata as the last.

        Returns what is worth noting, if anything is.

        Parameters
        ----------
        structure : mapping of str to bytes
            The objects not sent yet, by name.
        verify : bool
            Whether to compare what is there with what was sent: by the server's tag where it is the MD5, else by
            reading it back.

        Raises
        ------
        StorageError, VerifyError, TargetError
            What stopped it; nothing reads as a store then.
        """
        self.settle()
        rest = {name: data for name, data in structure.items() if name != ROOT}
        for last in (False, True):  # metadata after what they describe
            for name, data in rest.items():
                if (name.rpartition("/")[2] in METADATA) == last:
                    self.put(name, data)
            self.settle()
        if verify:
            for name, data in rest.items():
                self._confirm(name, data)
        self._compare_with_listing()
        self._send_root(structure[ROOT], verify=verify)
        self.let_go()
        try:
            self._place.delete([self._place.beside])
        except NwbflowError as error:
            return f"{self.url}.partial, a note that is not needed any more, could not be deleted: {error}"
        return None

    def _compare_with_listing(self) -> None:
        """See that everything is there, as it was sent; delete what is no part of the store."""
        there = self._place.objects()
        for name, sent in self._manifest.objects.items():
            found = there.get(name)
            if found is None or found.size != sent.size or (sent.etag == sent.md5 and found.etag != sent.etag):
                self._check_still_ours()  # says better what happened, if it is that
                raise VerifyError(
                    f"{self.url}/{name} {'is gone' if found is None else 'is not what was sent'}; see who else writes "
                    "or deletes there, then do the same call again",
                    kind=ErrorKind.MISMATCH,
                )
        stale = [name for name in there if name not in self._manifest.objects and self._is_zarrs(name)]
        self._place.delete([self._place.key(name) for name in stale])

    def _is_zarrs(self, name: str) -> bool:
        older = _OLDER_CHUNK.fullmatch(name)
        return bool(_ZARRS.search(name)) or (older is not None and (older[1] or "") in self._older)

    def _send_root(self, data: bytes, *, verify: bool) -> None:
        """Make it a store: nobody else's root is replaced, and none is left in what somebody else has begun to fill."""
        self._check_still_ours()
        key, md5 = self._place.key(ROOT), hashlib.md5(data, usedforsecurity=False).hexdigest()
        try:
            tag = self._create(ROOT, data, md5)
        except NwbflowError:
            self.uncertain = True
            there = self._place.get(key)  # which may fail as well
            self.uncertain = False
            if there != data:
                raise
            tag = md5
        self._manifest.objects[ROOT] = Sent(len(data), crc32(data), md5, tag)
        found = self._noted()
        if found is None or found.run != self._manifest.run:
            if found is not None:
                self._place.delete([key])
            raise self._taken()
        if verify:
            try:
                self._confirm(ROOT, data)
            except VerifyError:
                self._place.delete([key])
                raise

    def _confirm(self, name: str, data: bytes) -> None:
        sent = self._manifest.objects[name]
        if sent.etag != sent.md5 and self.get(name) != data:
            raise VerifyError(
                f"{self.url}/{name} reads back different from what was sent; write again, and see who else writes "
                "there if it recurs",
                kind=ErrorKind.MISMATCH,
            )

    def _note(self) -> None:
        """Note what was sent so far, for the next run, if this one does not end."""
        began = time.monotonic()
        self._check_still_ours()
        self._place.put(self._place.beside, self._manifest.to_bytes(self._before))
        now = time.monotonic()
        self._next_note = now + max(_NOTE_SECONDS, _NOTE_SHARE * (now - began))

    def _noted(self) -> Manifest | None:
        return Manifest.parse(self._place.get(self._place.beside), f"{self.url}.partial")

    def _check_still_ours(self) -> None:
        found = self._noted()
        if found is None or found.run != self._manifest.run:
            raise self._taken()

    def _taken(self) -> TargetError:
        return TargetError(
            f"{self.url} was taken by another write to the same place while this one ran; let one finish before "
            "the other begins, then do this call again",
            kind=ErrorKind.LOCKED,
        )

    def give_up(self) -> None:
        """End the threads, and note what was sent, where that can be done."""
        self.let_go()
        unreachable = isinstance(self._failed, NwbflowError) and self._failed.kind is ErrorKind.IO
        if self.begun and not unreachable and not self.uncertain:
            with contextlib.suppress(NwbflowError):
                self._note()

    def let_go(self) -> None:
        """End the threads; what is on its way is waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
