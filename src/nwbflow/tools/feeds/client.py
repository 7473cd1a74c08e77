"""A client of ``nwbflow record``: sends rows over a socket, and loses none that it was given.

This file needs nothing but Python (3.10 or newer) and numpy: copy it to the machine that measures.

    from client import Client

    with Client(("127.0.0.1", 5005), "probe", dtype="int16", shape=(384,)) as client:
        client.send(block)          # shape (k, 384); from any thread
        client.wait()               # until all is safe

Rows are kept until the recording has acknowledged them. If the connection is lost, the client connects again, learns
how many rows the recording has, and goes on with the next.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
import uuid
from collections import deque
from contextlib import suppress
from pathlib import Path

import numpy as np

VERSION = 1
RETRY_SECONDS = 0.5
_HEAD = struct.Struct("<4sI")
_ROWS = struct.Struct("<QQ")
_WELCOME = struct.Struct("<QQ16sd")
_COUNT = struct.Struct("<Q")
_ANSWER_BYTES = 4096
_USER_TIMEOUT_MS = 20_000


class FeedError(ConnectionError):
    """The recording does not take what this client sends; the text says why, and what is safe."""


class _Lost(Exception):  # noqa: N818
    """The connection is gone; another may come."""


class _Block:
    """Rows that are not acknowledged."""

    def __init__(self, first: int, rows: int, data: memoryview, times: memoryview) -> None:
        self.first, self.rows, self.data, self.times = first, rows, data, times

    @property
    def nbytes(self) -> int:
        return len(self.data) + len(self.times)

    def drop(self, rows: int, row_bytes: int) -> None:
        """Forget the first rows."""
        self.first, self.rows = self.first + rows, self.rows - rows
        self.data, self.times = self.data[rows * row_bytes :], self.times[8 * rows :]


class Client:
    """Sends the rows of one stream to a recording.

    Parameters
    ----------
    address : tuple of str and int, str or pathlib.Path
        Host and port, or the path of a Unix socket.
    stream : str
        Name of the stream, as it was declared.
    dtype : numpy.dtype or what it is made of
        Type of the elements, as declared.
    shape : tuple of int
        Shape of one row, as declared; ``()`` for single values.
    timestamps : bool
        Whether each row has a time stamp, as declared.
    token : str
        What the recording asks for, if it can be reached from other machines.
    buffer : int
        Bytes of rows that may wait to be acknowledged; when there are more, :meth:`send` waits.
    timeout : float
        Seconds to wait for the first connection.

    Raises
    ------
    FeedError
        If the recording refuses the client, or can't be reached in time.
    """

    def __init__(
        self,
        address: tuple[str, int] | str | Path,
        stream: str,
        *,
        dtype: object,
        shape: tuple[int, ...] = (),
        timestamps: bool = False,
        token: str = "",
        buffer: int = 256 * 2**20,
        timeout: float = 10.0,
    ) -> None:
        self._address = address
        self._dtype = np.dtype(dtype)  # type: ignore[call-overload]
        self._shape = tuple(shape)
        self._timestamps = timestamps
        self._row_bytes = int(np.prod(self._shape, dtype=int)) * self._dtype.itemsize
        hello = {"version": VERSION, "stream": stream, "client": uuid.uuid4().hex, "token": token}
        rows = {"dtype": self._dtype.name, "shape": list(self._shape), "timestamps": timestamps}
        body = json.dumps({**hello, **rows}).encode()
        self._hello = _HEAD.pack(b"HELO", len(body)) + body
        self._buffer = buffer
        self._state = threading.Condition()
        self._blocks: deque[_Block] = deque()
        self._waiting_bytes = 0
        self._rows = 0  # of the recording's stream, with those sent here
        self._acknowledged = 0
        self._next = 0  # first row that goes out next
        self._frame_bytes = 0
        self._start = float("nan")
        self._recording: bytes | None = None
        self._done = self._over = False
        self._failure: FeedError | None = None
        self._trouble = ""
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"feed of {stream}", daemon=True)
        self._thread.start()
        self._await_welcome(timeout)

    def _await_welcome(self, timeout: float) -> None:
        with self._state:
            self._state.wait_for(lambda: self._recording is not None or self._failure is not None, timeout)
            text = f"{self._address}: no recording has answered within {timeout:g} s"
            late = FeedError(f"{text}: {self._trouble}" if self._trouble else text)
            failure = self._failure or (late if self._recording is None else None)
        if failure is not None:
            self._stop()
            raise failure

    # --- the user's side ------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Rows of the stream: those the recording had when this client came, and those it was given since."""
        return self._rows

    @property
    def acknowledged(self) -> int:
        """Rows of the stream that are safe."""
        return self._acknowledged

    @property
    def session_start(self) -> float:
        """What time stamps count from, in seconds since 1970 (UTC), as ``time.time()`` has them; may be NaN."""
        return self._start

    def send(self, data: object, timestamps: object = None, *, timeout: float | None = None) -> int:
        """Take a block of rows, to be sent as soon as possible; waits while too many are not acknowledged.

        Parameters
        ----------
        data : array_like
            Shape ``(k, ...)``. Copied.
        timestamps : array_like
            Shape ``(k,)``, in seconds from the session's start; exactly if the stream has time stamps.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        int
            The row of the stream that the first of them is.

        Raises
        ------
        ValueError, TimeoutError, FeedError
            If the block is not what was declared, there was no room in time, or the recording takes no more.
        """
        block = self._block(data, timestamps)
        with self._state:

            def has_room() -> bool:
                return not self._waiting_bytes or self._waiting_bytes + block.nbytes <= self._buffer

            there = self._state.wait_for(lambda: has_room() or self._failure is not None, timeout)
            self._check()
            if not there:
                raise TimeoutError(f"{self._waiting_bytes} bytes wait to be acknowledged; the block was not taken")
            block.first = self._rows
            if block.rows:
                self._rows += block.rows
                self._waiting_bytes += block.nbytes
                self._blocks.append(block)
        self._nudge()
        return block.first

    def _block(self, data: object, timestamps: object) -> _Block:
        given = np.asarray(data)
        if given.dtype.newbyteorder("=") != self._dtype.newbyteorder("=") and given.size:
            raise ValueError(f"a block of {given.dtype.name}; this stream is {self._dtype.name}: convert it")
        if given.ndim != len(self._shape) + 1 or given.shape[1:] != self._shape:
            raise ValueError(f"a block of shape {given.shape}; expected (k, {', '.join(map(str, self._shape))})")
        if (timestamps is None) == self._timestamps:
            raise ValueError("each row needs a time stamp" if self._timestamps else "this stream has no time stamps")
        times = np.array(timestamps if self._timestamps else (), dtype="<f8")
        if self._timestamps and times.shape != (len(given),):
            raise ValueError(f"time stamps of shape {times.shape} for {len(given)} rows")
        rows = given.astype(self._dtype.newbyteorder("<"), copy=True, order="C")
        return _Block(0, len(rows), memoryview(rows.tobytes()), memoryview(times.tobytes()))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was sent is acknowledged; return whether it is. FeedError if it never will be."""
        with self._state:
            self._state.wait_for(lambda: not self._blocks or self._failure is not None, timeout)
            if self._blocks:
                self._check()
            return not self._blocks

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._done:
            raise FeedError("this client is closed")

    def close(self, timeout: float | None = None) -> None:
        """Send the rest, wait until it is safe, and say that nothing more comes. FeedError if some never will be."""
        with self._state:
            self._done = True
        self._nudge()
        with self._state:
            self._state.wait_for(lambda: self._over or self._failure is not None, timeout)
            left = sum(block.rows for block in self._blocks)
        self._stop()
        if left:
            raise self._failure or FeedError(f"{left} rows are not acknowledged after {timeout:g} s")

    def _stop(self) -> None:
        with self._state:
            self._over = True
            self._state.notify_all()
        self._nudge()
        self._thread.join()
        self._wake.close()
        self._woken.close()

    def _nudge(self) -> None:
        with suppress(OSError):
            self._wake.send(b"x")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self._stop()

    # --- the thread's side ------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._over:
            try:
                with self._connect() as sock:
                    self._converse(sock)
            except FeedError as error:
                self._fail(error)
                return
            except (_Lost, OSError) as error:
                with self._state:
                    self._trouble = str(error)
                    self._state.wait_for(lambda: self._over, RETRY_SECONDS)
            except Exception as error:
                self._fail(FeedError(f"{self._address}: what answers is no recording ({error})"))
                return

    def _fail(self, error: FeedError) -> None:
        with self._state:
            self._failure = error
            self._state.notify_all()

    def _connect(self) -> socket.socket:
        if isinstance(self._address, tuple):
            sock = socket.create_connection(self._address, timeout=5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, _USER_TIMEOUT_MS)
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            if error := sock.connect_ex(str(self._address)):
                sock.close()
                raise OSError(error, os.strerror(error))
        sock.setblocking(False)
        return sock

    def _converse(self, sock: socket.socket) -> None:
        """Say hello, then send what there is and take in the answers, until it is over or the connection is lost."""
        out: list[memoryview] = [memoryview(self._hello)]
        received = bytearray()
        welcomed = said_done = False
        while not self._over:
            if not out and welcomed:
                out = self._next_frame()
                if not out and self._done and not said_done:
                    said_done, out = True, [memoryview(_HEAD.pack(b"DONE", 0))]
            readable, writable, _ = select.select([sock, self._woken], [sock] if out else [], [])
            if self._woken in readable:
                self._woken.recv(4096)
            if sock in readable:
                self._receive(sock, received)
                for kind, body in _messages(received):
                    welcomed = welcomed or kind == b"WELC"
                    self._take(kind, body, said_done=said_done)
            if sock in writable and out:
                with suppress(BlockingIOError):
                    out[0] = out[0][sock.send(out[0]) :]
                    out = out if len(out[0]) else out[1:]

    def _receive(self, sock: socket.socket, received: bytearray) -> None:
        with suppress(BlockingIOError):
            data = sock.recv(65536)
            if not data:
                raise _Lost
            received += data

    def _next_frame(self) -> list[memoryview]:
        """Return what goes out next: as many rows of one block as a message may have."""
        with self._state:
            block = next((b for b in self._blocks if b.first + b.rows > self._next), None)
            if block is None:
                return []
            skip = self._next - block.first
            each = self._row_bytes + 8 * self._timestamps
            rows = min(block.rows - skip, (self._frame_bytes - _ROWS.size) // each)
            if rows < 1:
                raise FeedError(f"a row of {each} bytes is more than the recording takes at a time")
            self._next += rows
        size = _ROWS.size + rows * each
        head = _HEAD.pack(b"ROWS", size) + _ROWS.pack(block.first + skip, rows)
        data = block.data[skip * self._row_bytes : (skip + rows) * self._row_bytes]
        times = block.times[8 * skip : 8 * (skip + rows)]
        return [part for part in (memoryview(head), data, times) if len(part)]

    def _take(self, kind: bytes, body: bytes, *, said_done: bool) -> None:
        if kind == b"WELC":
            self._welcome(*_WELCOME.unpack(body))
        elif kind == b"ACKN":
            self._acknowledge(_COUNT.unpack(body)[0])
        elif kind == b"DONE":
            self._acknowledge(_COUNT.unpack(body)[0])
            with self._state:
                self._over = said_done and not self._blocks
                self._state.notify_all()
            if not self._over:
                raise FeedError(f"the recording has ended; {self._acknowledged} rows of the stream are safe")
        elif kind == b"BUSY":
            raise _Lost(body.decode("utf-8", "replace"))
        else:
            raise FeedError(f"{self._address}: {body.decode('utf-8', 'replace')}")

    def _welcome(self, rows: int, frame_bytes: int, recording: bytes, start: float) -> None:
        """Go on where the recording is; a new recording begins with what was not acknowledged by the old."""
        with self._state:
            if recording != self._recording:
                self._recording = recording
                self._rows = self._acknowledged = rows
                for block in self._blocks:
                    block.first, self._rows = self._rows, self._rows + block.rows
            elif not self._acknowledged <= rows <= self._rows:
                raise FeedError(f"the recording has {rows} rows of the stream, and this client sent {self._rows}")
            self._next, self._frame_bytes, self._start = rows, frame_bytes, start
            self._state.notify_all()

    def _acknowledge(self, rows: int) -> None:
        with self._state:
            self._acknowledged = max(self._acknowledged, rows)
            while self._blocks and self._blocks[0].first + self._blocks[0].rows <= self._acknowledged:
                self._waiting_bytes -= self._blocks.popleft().nbytes
            if self._blocks and self._blocks[0].first < self._acknowledged:
                before = self._blocks[0].nbytes
                self._blocks[0].drop(self._acknowledged - self._blocks[0].first, self._row_bytes)
                self._waiting_bytes -= before - self._blocks[0].nbytes
            self._state.notify_all()


def _messages(received: bytearray) -> list[tuple[bytes, bytes]]:
    """Take whole messages out of what was received."""
    found = []
    while len(received) >= _HEAD.size:
        kind, length = _HEAD.unpack_from(received)
        if length > _ANSWER_BYTES:
            raise FeedError(f"what answers is no recording (it says {bytes(kind)!r})")
        if len(received) < _HEAD.size + length:
            break
        found.append((kind, bytes(received[_HEAD.size : _HEAD.size + length])))
        del received[: _HEAD.size + length]
    return found
