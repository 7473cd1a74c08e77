"""Rows from sockets into a recording."""

from __future__ import annotations

import math
import secrets
import socket
import threading
import time
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

import numpy as np

from nwbflow.errors import ErrorKind, NwbflowError, SettingsError, SourceError, UnsupportedError
from nwbflow.nwb.recorded import RecordedSeries, Ticket
from nwbflow.nwb.recorder import Recorder
from nwbflow.observe.dashboard.access import Access
from nwbflow.tools.feeds import wire
from nwbflow.tools.feeds.connection import GOODBYE_SECONDS, Connection, Limits
from nwbflow.tools.feeds.sockets import Listening, accept

TELL_SECONDS = 0.01
"""How often clients are told what is acknowledged."""

WARNINGS = (20, 200)
"""How many are told of one by one: clients that never got as far as feeding a stream, and those that did."""

END_SECONDS = 5.0
"""How long acknowledgements are waited for when the recording ends."""


class _Stream:
    """One series that may be fed, and who feeds it."""

    def __init__(self, series: RecordedSeries, form: wire.RowFormat) -> None:
        self.series = series
        self.form = form
        self.feeding = threading.Lock()  # held by the one connection that appends
        self.connection: Connection | None = None
        self.audience: Connection | None = None  # who is told what is acknowledged
        self.client = ""
        self.rows = series.acknowledged
        self.ticket: Ticket | None = None
        self.told = -1
        self.ended = False


class FeedServer:
    """Takes rows from clients over TCP or a Unix socket, and appends them to the series of a recorder.

    Each client has a thread; it does not read while the queue of its series is full, so a client that is faster than
    the disk is slowed down and holds up nobody. Clients are told which rows are acknowledged. A client that breaks
    the format or stalls in the middle of a message is told why and dropped, which is a warning of the recording; the
    others go on. ``docs/reference/wire-format.md`` describes what goes over the socket.

    Parameters
    ----------
    recorder : Recorder
        Where rows go.
    streams : sequence of str
        Names of the series that may be fed. Their ``data`` are live, and their ``timestamps`` where they have a time
        stamp for each row.
    listening : Listening
        Where clients connect; see :func:`listen`. Closed with the server.
    session_start : datetime.datetime, optional
        What time stamps count from (``nwbfile.timestamps_reference_time``); clients are told.
    limits : Limits
        What clients may do.

    Raises
    ------
    nwbflow.errors.SettingsError
        If there is no series to feed.
    nwbflow.errors.UnsupportedError
        If a series has other live datasets than data and time stamps.
    """

    def __init__(
        self,
        recorder: Recorder,
        streams: list[str] | tuple[str, ...],
        listening: Listening,
        *,
        session_start: datetime | None = None,
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        self._recorder = recorder
        self._listening = listening
        self._limits = limits
        self._start = math.nan if session_start is None else session_start.timestamp()
        self._identity = secrets.token_bytes(16)
        self._streams = {name: _Stream(recorder[name], _format_of(recorder[name])) for name in streams}
        if not self._streams:
            raise SettingsError("no stream to feed: name at least one series of the recorder", kind=ErrorKind.OPTION)
        self._warnings = [0, 0]
        self._state = threading.Condition()
        self._connections: set[Connection] = set()
        self._threads: set[threading.Thread] = set()
        self._closing = False
        self.addresses = tuple(listening.addresses)
        self._wake, self._woken = socket.socketpair()
        self._teller = threading.Thread(target=self._tell, name="nwbflow-feeds-tell", daemon=True)
        self._accepter = threading.Thread(target=self._accept, name="nwbflow-feeds-accept", daemon=True)
        self._teller.start()
        self._accepter.start()

    # --- those who come ---------------------------------------------------------------------

    def _accept(self) -> None:
        """Take connections until the server is closed."""
        for sock, peer in accept(self._listening.sockets, self._woken):
            connection = Connection(sock, peer)
            with self._state:
                full = len(self._connections) >= self._limits.clients
                if not full:
                    self._connections.add(connection)
            if full:
                connection.send(wire.pack_text(wire.BUSY, f"{self._limits.clients} clients are connected already"))
                connection.close()
                self._warn(f"{peer} was refused: {self._limits.clients} clients are connected already", False)
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="nwbflow-feed", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        """Deal with one client until it goes."""
        who, known = connection.peer, False
        try:
            stream = self._greet(connection)
            if stream is not None:
                known = True
                who = f"{connection.peer}, which feeds {stream.series.name},"
                self._feed(connection, stream)
        except NwbflowError as error:
            if not self._closing:
                self._warn(f"{who} was dropped: {error}", known)
            connection.say_goodbye(wire.pack_text(wire.FAILED, str(error)))
        except _Busy as error:
            connection.say_goodbye(wire.pack_text(wire.BUSY, str(error)))
        finally:
            with self._state:
                if not self._closing:  # or else closing it is left to close(), which says goodbye
                    self._connections.discard(connection)
                    connection.close()
                self._threads.discard(threading.current_thread())
                self._state.notify_all()

    def _greet(self, connection: Connection) -> _Stream | None:
        """Read the hello; return what the client is to feed, or ``None`` if it has gone without one."""
        message = connection.receive(self._limits, hello=True)
        if message is None:
            return None
        kind, body = message
        if kind != wire.HELLO:
            raise wire.malformed(f"{kind.decode()} came first; a client begins with HELO")
        hello = wire.Hello.unpack(bytes(body))
        token = self._listening.token
        if token is not None and not Access(token).knows(hello.token):
            raise SourceError("the token is missing or wrong", kind=ErrorKind.PERMISSION)
        stream = self._streams.get(hello.stream)
        if stream is None:
            known = ", ".join(self._streams)
            raise SourceError(f"no stream {hello.stream[:60]!r} is recorded; there are {known}", kind=ErrorKind.MISSING)
        said = (hello.dtype, hello.shape, hello.timestamps)
        if said != (stream.form.dtype.name, stream.form.shape, stream.form.timestamps):
            raise SourceError(
                f"hello says dtype {hello.dtype[:20]!r}, shape {str(list(hello.shape))[:60]}, timestamps "
                f"{str(hello.timestamps).lower()}; {hello.stream} was declared with {stream.form.words()}",
                kind=ErrorKind.SHAPE,
            )
        self._take_over(connection, stream, hello.client)
        return stream

    def _take_over(self, connection: Connection, stream: _Stream, client: str) -> None:
        """Make this the stream's one connection; a client that comes back takes the place of its old connection."""
        with self._state:
            old = stream.connection
            if old is not None and not (client and client == stream.client):
                raise _Busy(f"{stream.series.name} is fed by {old.peer} already")
            stream.connection, stream.client = connection, client
        if old is not None:
            old.interrupt()

    # --- rows ----------------------------------------------------------------------------------

    def _feed(self, connection: Connection, stream: _Stream) -> None:
        """Append a client's rows until it says done or goes."""
        try:
            with stream.feeding:  # the old connection of the same client may be in the middle of an append
                welcome = wire.Welcome(
                    rows=stream.rows, frame_bytes=self._limits.frame_bytes, recording=self._identity, start=self._start
                )
                stream.ended = False
                connection.send(welcome.pack())
                stream.told, stream.audience = -1, connection
                while (message := connection.receive(self._limits)) is not None:
                    kind, body = message
                    if kind == wire.DONE:
                        self._finish(connection, stream)
                        return
                    if kind != wire.ROWS:
                        raise wire.malformed("a second HELO")
                    self._append(stream, wire.Rows.unpack(body, stream.form))
                if not self._closing and stream.connection is connection:
                    self._warn(f"{connection.peer}, which fed {stream.series.name}, has gone without saying DONE", True)
        finally:
            with self._state:
                if stream.audience is connection:
                    stream.audience = None
                if stream.connection is connection and not self._closing:  # close() says goodbye to it
                    stream.connection = None

    def _append(self, stream: _Stream, block: wire.Rows) -> None:
        """Append what the stream has not got yet; waits while its queue is full."""
        have = stream.rows
        if block.first > have:
            raise SourceError(
                f"rows from {block.first} on came, and the stream has {have}: send the {block.first - have} between "
                "first (connect again: the answer says where to go on)",
                kind=ErrorKind.LENGTH,
            )
        again = have - block.first
        if again >= len(block.data) > 0 or not len(block.data):
            return
        times = None if block.timestamps is None else block.timestamps[again:]
        ticket = stream.series.append(np.asarray(block.data[again:]), timestamps=times)
        stream.rows = ticket.first + ticket.count
        stream.ticket = ticket
        with self._state:
            self._state.notify_all()

    def _finish(self, connection: Connection, stream: _Stream) -> None:
        """Answer a clean end, when all rows are safe."""
        if stream.ticket is not None:
            stream.ticket.wait()
        connection.say_goodbye(wire.pack_count(wire.DONE, stream.series.acknowledged))
        with self._state:
            stream.ended = True
            self._state.notify_all()

    def _tell(self) -> None:
        """Tell clients what is acknowledged, whenever that has changed."""
        while True:
            with self._state:
                while not self._closing and not any(self._news(stream) for stream in self._streams.values()):
                    self._state.wait()
                if self._closing:
                    return
            for stream in self._streams.values():
                connection, rows = stream.audience, stream.series.acknowledged
                if connection is None or stream.told >= rows:
                    continue
                if connection.send(wire.pack_count(wire.ACKNOWLEDGED, rows)):
                    stream.told = rows
            time.sleep(TELL_SECONDS)

    def _news(self, stream: _Stream) -> bool:
        """Tell whether a client may have to be told something soon."""
        return stream.audience is not None and stream.told < stream.rows

    def _warn(self, text: str, known: bool) -> None:
        """Warn, but not without end: whoever can connect could fill the receipt. Strangers can't use up it all."""
        with self._state:
            self._warnings[known] += 1
            number = self._warnings[known]
        if number <= WARNINGS[known]:
            self._recorder.warn(text)

    # --- the end --------------------------------------------------------------------------------

    def wait_until_done(self, timeout: float | None = None) -> bool:
        """Wait until a client of every stream has said that it is done; return whether they have."""
        with self._state:
            return self._state.wait_for(lambda: all(s.ended for s in self._streams.values()), timeout)

    def close(self) -> None:
        """Take nothing more; tell clients how many of their rows are safe, and that the recording ends."""
        with self._state:
            if self._closing:
                return
            self._closing = True
            self._state.notify_all()
        self._wake.close()
        self._accepter.join()
        with self._state:
            connections, threads = tuple(self._connections), tuple(self._threads)
        self._listening.close()
        for connection in connections:
            connection.interrupt()
        self._say_goodbyes(time.monotonic() + END_SECONDS)
        for connection in connections:
            connection.close()
        for thread in threads:
            thread.join(GOODBYE_SECONDS)
        self._teller.join()
        self._woken.close()
        more = sum(max(0, seen - told) for seen, told in zip(self._warnings, WARNINGS, strict=True))
        if more:
            self._recorder.warn(f"{more} more clients were refused or dropped")

    def _say_goodbyes(self, deadline: float) -> None:
        for stream in self._streams.values():
            connection = stream.connection
            if stream.ticket is not None:
                with suppress(NwbflowError):
                    stream.ticket.wait(max(0.0, deadline - time.monotonic()))
            if connection is not None:
                connection.say_goodbye(wire.pack_count(wire.DONE, stream.series.acknowledged))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Busy(Exception):  # noqa: N818
    """Come back later."""


def _format_of(series: RecordedSeries) -> wire.RowFormat:
    types = series.row_types
    if "data" not in types or not set(types) <= {"data", "timestamps"}:
        raise UnsupportedError(
            f"{series.name} has {', '.join(types)}: over a socket come data, or data and timestamps",
            kind=ErrorKind.OPTION,
        )
    dtype, shape = types["data"]
    return wire.RowFormat(dtype=dtype, shape=shape, timestamps="timestamps" in types)
