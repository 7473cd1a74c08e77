"""A finished file on its way to S3: in parts, which become the object in one step."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from nwbflow.encoding.checksum import crc32
from nwbflow.errors import ErrorKind, NwbflowError, SourceError, StorageError, TargetError, VerifyError
from nwbflow.model.events import Event, PartSent
from nwbflow.model.receipt import SentFile
from nwbflow.sinks.manifest import Manifest, Sent
from nwbflow.sinks.remote import Found
from nwbflow.sinks.s3_file import Answered, S3File

SENDERS = 8
"""Parts on their way at one time, at most."""

PART_BYTES = 8 * 2**20
"""Least size of parts."""

_MOST_PARTS = 10_000  # S3's limit
_MIB = 2**20
_ROUNDS = 3
_NOTE_SECONDS = 2.0


def part_size(size: int) -> int:
    """Return the size of the parts a file of so many bytes is sent in: whole MiB, 10,000 parts at most."""
    needed = -(-size // _MOST_PARTS)
    return PART_BYTES if needed <= PART_BYTES else -(-needed // _MIB) * _MIB


class FileUpload:
    """One file on its way.

    Parameters
    ----------
    place : S3File
        Where to.
    file : pathlib.Path
        What; it must not change meanwhile.
    overwrite : bool
        Whether an object that is there may be replaced.
    room : int
        Bytes that parts on their way may take; one always is.
    emit : callable
        Takes events, in the thread that calls :meth:`run`.
    """

    def __init__(self, place: S3File, file: Path, *, overwrite: bool, room: int, emit: Callable[[Event], None]) -> None:
        self._place = place
        self._file = file
        self._overwrite = overwrite
        self._emit = emit
        self._handle = -1
        self._size = 0
        self._part_bytes = PART_BYTES
        self._room = room
        self._manifest = Manifest()
        self._there: dict[int, Found] = {}
        self._before: dict[str, Sent] = {}
        self._kept: set[int] = set()
        self._noted = 0.0
        self._lock = threading.Lock()

    def run(self, *, verify: bool) -> SentFile:
        """Send what is missing, and make it the object.

        Parameters
        ----------
        verify : bool
            Whether to read everything back where the server's tag tells nothing of the content.

        Raises
        ------
        TargetError, StorageError, VerifyError, SourceError
            What stopped it. The object that was at the address before is as it was (but after a ``VerifyError``), and
            the parts that were sent are kept for the next call.
        """
        started = time.perf_counter()
        with self._opened():
            tag = self._begin()
            if tag is None:
                self._send_all()
                tag = self._make_object(verify=verify)
            with contextlib.suppress(NwbflowError):  # the object is whole; the next call to it removes the note
                self._place.remove_note()
        seconds = time.perf_counter() - started
        return SentFile(size=self._size, parts=self._parts, kept=len(self._kept), tag=tag, seconds=seconds)

    @property
    def _parts(self) -> int:
        return max(1, -(-self._size // self._part_bytes))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        """Hold the file, so that nobody writes to it meanwhile."""
        try:
            self._handle = os.open(self._file, os.O_RDONLY)
        except OSError as error:
            raise SourceError(f"{self._file} can't be read: {error.strerror}", kind=ErrorKind.MISSING) from error
        try:
            hold(self._handle, self._file)
            self._size = os.fstat(self._handle).st_size
            self._part_bytes = part_size(self._size)
            self._stamp = self._stamped()
            yield
        finally:
            os.close(self._handle)

    def _stamped(self) -> tuple[int, int]:
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns

    def _begin(self) -> str | None:
        """Take an interrupted upload over, or begin one; note which. Return the tag if the same is there already."""
        place = self._place
        before = Manifest.parse(place.note(), f"{place.url}.partial")
        found = place.there()
        if found is not None and not self._overwrite:
            if found != Found(self._size, self._expected()):
                raise exists(place.url)
            if before is not None and before.upload:
                place.abort(before.upload)
            self._kept = set(range(1, self._parts + 1))
            return found.etag
        there: dict[int, Found] | None = None
        if before is not None and before.upload:
            there = place.parts(before.upload)
            if there is not None and before.part_bytes != self._part_bytes:
                place.abort(before.upload)
                there = None
        if before is not None and there is not None:
            self._there, self._before = there, before.objects
            self._manifest.upload = before.upload
        else:
            self._leave_note()  # where that is refused, nothing is begun
            self._manifest.upload = place.begin()
        self._manifest.part_bytes = self._part_bytes
        self._leave_note()
        return None

    def _expected(self) -> str:
        """Return the tag that S3 would give the file."""
        return _composite([self._digest(number) for number in range(1, self._parts + 1)])

    def _digest(self, number: int) -> str:
        return hashlib.md5(self._content(number), usedforsecurity=False).hexdigest()

    def _leave_note(self) -> None:
        self._place.leave_note(self._manifest.to_bytes(Manifest(objects=self._before)))
        self._noted = time.monotonic()

    def _note(self) -> None:
        """Note what was sent so far, every two seconds, if it is still ours to note."""
        if time.monotonic() - self._noted > _NOTE_SECONDS:
            self._check_still_ours()
            self._leave_note()

    def _check_still_ours(self) -> None:
        found = Manifest.parse(self._place.note(), f"{self._place.url}.partial")
        if found is None or found.run != self._manifest.run:
            raise taken(self._place.url)

    def _send_all(self) -> None:
        """Send every part that is not there, some at a time."""
        senders = max(1, min(SENDERS, self._room // self._part_bytes, self._parts))
        done = 0
        with ThreadPoolExecutor(senders, thread_name_prefix="nwbflow-send") as pool:
            waiting: set[Future[int]] = set()
            try:
                for number in range(1, self._parts + 1):
                    waiting.add(pool.submit(self._settle, number))
                    if (
                        len(waiting) >= 2 * senders
                    ):  # those that wait take no memory, and senders are not idle meanwhile
                        done, waiting = self._taken(waiting, done)
                while waiting:
                    done, waiting = self._taken(waiting, done)
            except BaseException as error:
                self._place.ended.set()
                pool.shutdown(wait=True, cancel_futures=True)
                self._leave_last_note(error)
                raise

    def _taken(self, waiting: set[Future[int]], done: int) -> tuple[int, set[Future[int]]]:
        """Wait for the next parts, and tell of them."""
        ended, rest = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ended:
            try:
                number = future.result()
            except Answered as answer:
                raise taken(self._place.url) from answer
            done += self._length(number)
            kept = number in self._kept
            self._emit(PartSent(number=number, parts=self._parts, kept=kept, bytes_done=done, bytes_total=self._size))
        self._note()
        return done, rest

    def _leave_last_note(self, error: BaseException) -> None:
        """Note what was sent, after a failure, if that can be done; say so if it was another write's doing."""
        try:
            self._check_still_ours()
            self._leave_note()
        except NwbflowError as found:
            if found.kind is ErrorKind.LOCKED:
                raise found from error

    def _length(self, number: int) -> int:
        return min(self._part_bytes, self._size - (number - 1) * self._part_bytes)

    def _settle(self, number: int) -> int:
        """Send one part, unless the same is there."""
        data = self._content(number)
        crc, md5 = crc32(data), hashlib.md5(data, usedforsecurity=False)
        there, noted = self._there.get(number), self._before.get(str(number))
        if there is not None and there.size == len(data):
            same = Sent(len(data), crc, md5.hexdigest(), there.etag)
            if there.etag == same.md5 or noted == same:
                with self._lock:
                    self._manifest.objects[str(number)] = same
                    self._kept.add(number)
                return number
        self._place.began = True
        tag = self._place.send(self._manifest.upload, number, data, md5.digest())
        with self._lock:
            self._kept.discard(number)
            self._manifest.objects[str(number)] = Sent(len(data), crc, md5.hexdigest(), tag)
        return number

    def _content(self, number: int) -> bytes:
        at, left = (number - 1) * self._part_bytes, self._length(number)
        pieces: list[bytes] = []
        try:
            while left > 0 and (piece := os.pread(self._handle, left, at)):
                pieces.append(piece)
                at, left = at + len(piece), left - len(piece)
        except OSError as error:
            raise SourceError(f"{self._file} can't be read: {error.strerror}", kind=ErrorKind.IO) from error
        if left:
            raise changed(self._file)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _make_object(self, *, verify: bool) -> str:
        """Complete the upload; the object is there whole then, or not at all."""
        for _ in range(_ROUNDS):
            if self._stamped() != self._stamp:
                raise changed(self._file)
            self._check_still_ours()
            self._leave_note()
            tags = [self._manifest.objects[str(number)].etag for number in range(1, self._parts + 1)]
            try:
                tag = self._place.complete(self._manifest.upload, tags, replace=self._overwrite)
            except Answered as answer:
                if self._is_there():  # it was completed, and that answer got lost
                    return self._confirmed("", verify=True)
                self._told(answer)
            else:
                return self._confirmed(tag, verify=verify)
        raise StorageError(
            f"{self._place.url}: the server has other parts than were sent, again and again; see who else writes "
            "there, then do this call again",
            kind=ErrorKind.MISMATCH,
        )

    def _told(self, answer: Answered) -> None:
        """Say why there is no object, or make good what is wrong with the parts."""
        if answer.code == "PreconditionFailed":
            raise exists(self._place.url) from answer
        there = self._place.parts(self._manifest.upload)
        if there is None:
            raise taken(self._place.url) from answer
        self._there, self._before = there, {}
        self._send_all()

    def _tag(self) -> str | None:
        """Return the tag that S3 gives to an object of these parts; ``None`` where their tags are no MD5s."""
        sent = [self._manifest.objects[str(number)] for number in range(1, self._parts + 1)]
        if any(one.etag != one.md5 for one in sent):
            return None
        return _composite([one.md5 for one in sent])

    def _is_there(self) -> bool:
        """Return whether what is at the address is what was sent."""
        found = self._place.there()
        if found is None or found.size != self._size:
            return False
        return found.etag == self._tag() or self._first_difference() is None

    def _confirmed(self, tag: str, *, verify: bool) -> str:
        """Compare what the server says of the object with what was sent; return its tag."""
        found = self._place.there()
        wrong = None
        if found is None or found.size != self._size or (tag and found.etag != tag):
            wrong = "there is another object" if found is not None else "there is none"
        elif found.etag != self._tag() and verify and (number := self._first_difference()) is not None:
            wrong = f"part {number} of {self._parts} reads back different"
        if wrong is not None or found is None:
            raise VerifyError(
                f"{self._place.url} is not what was sent: {wrong}. See who else writes there, and send it again",
                kind=ErrorKind.MISMATCH,
            )
        return found.etag

    def _first_difference(self) -> int | None:
        """Return the first part that reads back different; ``None`` if none does."""
        for number in range(1, self._parts + 1):
            data = self._place.read((number - 1) * self._part_bytes, self._length(number))
            sent = self._manifest.objects[str(number)]
            if hashlib.md5(data, usedforsecurity=False).hexdigest() != sent.md5:
                return number
        return None


def _composite(digests: Sequence[str]) -> str:
    """Return the MD5 of MD5s, and how many they are: S3's tag of what was sent in parts."""
    whole = hashlib.md5(b"".join(bytes.fromhex(one) for one in digests), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(digests)}"


def hold(handle: int, file: Path) -> None:
    """Refuse a file that somebody writes to; keep writers away from it as long as the descriptor is open.

    Parameters
    ----------
    handle : int
        Its descriptor.
    file : pathlib.Path
        Its name, for the error.

    Raises
    ------
    TargetError
        Kind ``LOCKED``.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TargetError(
            f"{file} is open for writing, in another program or here; close it there first", kind=ErrorKind.LOCKED
        ) from error
    except OSError:
        pass  # a file system without locks


def exists(url: str) -> TargetError:
    """Return the error for an address that has an object."""
    return TargetError(
        f"{url} exists; pass overwrite=True to replace it (it stays until the new one is there whole), or give another "
        "name",
        kind=ErrorKind.EXISTS,
    )


def taken(url: str) -> TargetError:
    """Return the error for an address that somebody else sends to."""
    return TargetError(
        f"{url} was taken by another write to the same place while this one ran, or its upload was given up there; let "
        "one finish before the other begins, then do this call again",
        kind=ErrorKind.LOCKED,
    )


def changed(file: Path) -> SourceError:
    """Return the error for a file that is not what it was when sending began."""
    return SourceError(
        f"{file} changed while it was sent; nothing was put in place. Send it again", kind=ErrorKind.CHANGED
    )


__all__ = ["FileUpload", "hold", "part_size"]
