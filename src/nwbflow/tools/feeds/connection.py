"""One client's socket: whole messages in, within a time; messages out, without ever waiting."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.tools.feeds import wire

GOODBYE_SECONDS = 1.0
"""How long a client is given to take a last message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may do.

    Parameters
    ----------
    clients : int
        Connections at a time.
    frame_bytes : int
        Longest body of a message.
    hello_seconds : float
        Within which a new client must have said hello.
    message_seconds : float
        Within which a message that was begun must have come whole. Between messages a client may take its time.
    """

    clients: int = 64
    frame_bytes: int = 8 * 2**20
    hello_seconds: float = 10.0
    message_seconds: float = 30.0


class Connection:
    """One client's socket.

    Parameters
    ----------
    sock : socket.socket
        Just accepted.
    peer : str
        Who it is, in words.
    """

    def __init__(self, sock: socket.socket, peer: str) -> None:
        sock.setblocking(False)
        self._socket = sock
        self.peer = peer
        self._sending = threading.Lock()
        self._unsent = b""
        self._closed = self._interrupted = False

    def receive(self, limits: Limits, *, hello: bool = False) -> tuple[bytes, bytearray] | None:
        """Return kind and body of the next message, or ``None`` where the client has gone.

        Parameters
        ----------
        limits : Limits
            What is taken.
        hello : bool
            Whether it has to be a hello, within its time; any other may begin whenever it likes.

        Raises
        ------
        SourceError
            If the message is none, is too long, or does not come whole in time.
        """
        seconds = limits.hello_seconds if hello else limits.message_seconds
        if not hello:
            self._wait(None)
        deadline = time.monotonic() + seconds
        head = self._read(wire.HEAD.size, deadline, seconds, may_end=True)
        if head is None:
            return None
        kind, length = wire.HEAD.unpack(head)
        wire.check_length(kind, length, 0 if hello else limits.frame_bytes)
        body = self._read(length, deadline, seconds)
        return None if body is None else (kind, body)

    def _read(self, count: int, deadline: float, seconds: float, *, may_end: bool = False) -> bytearray | None:
        """Return so many bytes; ``None`` where the client has gone."""
        data = bytearray(count)
        view = memoryview(data)
        done = 0
        while done < count and not self._interrupted:
            if not self._wait(deadline):
                raise self._too_slow(seconds)
            try:
                got = self._socket.recv_into(view[done:])
            except BlockingIOError:
                continue
            except OSError:
                got = 0
            if got == 0 or self._interrupted:
                if (done or not may_end) and not self._interrupted:
                    raise SourceError("the connection ended in the middle of a message", kind=ErrorKind.LENGTH)
                return None
            done += got
        return None if self._interrupted else data

    def _wait(self, deadline: float | None, event: int = select.POLLIN) -> bool:
        """Wait until there is something to read, or the end; return whether that was in time."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            poll = select.poll()
            poll.register(self._socket, event)
            return bool(poll.poll(None if timeout is None else timeout * 1000))
        except (OSError, ValueError):
            return True  # closed meanwhile, which the next call says

    def _too_slow(self, seconds: float) -> SourceError:
        return SourceError(f"no whole message came within {seconds:g} seconds", kind=ErrorKind.LENGTH)

    def send(self, message: bytes) -> bool:
        """Send a message as far as the socket takes it now, the rest with the next; return whether it is all out.

        What a client does not read never holds up anybody: a message is refused while an earlier one is not out.
        """
        with self._sending:
            if self._flush() and not self._closed:
                self._unsent = message
                return self._flush()
            return False

    def _flush(self) -> bool:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError:
                self._unsent = b""
                return True  # gone; the one who reads will notice
            self._unsent = self._unsent[sent:]
        return True

    def say_goodbye(self, message: bytes) -> None:
        """Send a last message and close.

        What the client sends meanwhile is read away for a moment: were the socket closed over it, the system would
        throw away our last message too.
        """
        deadline = time.monotonic() + GOODBYE_SECONDS
        with self._sending:
            self._unsent += message
        while not self._flushed() and self._wait(deadline, select.POLLOUT):
            pass
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        while self._wait(deadline) and self._drained():
            pass
        self.close()

    def _flushed(self) -> bool:
        with self._sending:
            return self._flush()

    def _drained(self) -> bool:
        """Read away what is there; return whether there may be more."""
        try:
            return bool(self._socket.recv(65536))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def interrupt(self) -> None:
        """Make whoever reads here find the end, also of a client that goes on sending."""
        self._interrupted = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Let go of the socket."""
        with self._sending:
            self._closed = True
            with suppress(OSError):
                self._socket.close()
