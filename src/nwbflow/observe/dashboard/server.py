"""The page's server: one daemon thread with its own event loop. Needs the extra ``monitor``."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import socket
import threading
import weakref
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn import Server as Uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.observe.dashboard.app import Feed

MOST_CONNECTIONS = 128
"""More are closed as they come: a recorder has better uses for file descriptors."""

_TICK = 0.5  # seconds between two messages
_GREETING = 10.0  # seconds a client has to say what it wants
_FAREWELL = 1.0  # seconds for the last message to be taken
_ROUNDS = 5  # of the event loop, from a connection's being accepted to its being known, and to its being closed
_SEND_BUFFER = 1 << 17  # bytes the system keeps for a client that doesn't read

_log = logging.getLogger("nwbflow.dashboard")
_log.addHandler(logging.NullHandler())  # a client's mistakes don't go to the terminal unless asked for

_running: weakref.WeakSet[Server] = weakref.WeakSet()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address of this machine.

    Raises
    ------
    nwbflow.errors.SettingsError
        Of kind ``ADDRESS``: the port is taken, the address is none of this machine's, or it is not permitted.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"the page can't be shown at {where}: no such host ({error}); give an address of this machine",
            kind=ErrorKind.ADDRESS,
        ) from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left is not taken
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        sock.bind(address)
        sock.listen(MOST_CONNECTIONS)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise SettingsError(
            f"the page can't be shown at {where}: {error.strerror or error}; give another port, or 0 for any free one",
            kind=ErrorKind.ADDRESS,
        ) from error
    return sock


class _Connection(H11Protocol):
    """One client's connection, within limits and out of uvicorn's log (which would show tokens)."""

    def __init__(
        self,
        config: Config,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "drop": self._drop}, _loop)
        self.logger = _log
        self.access_log = False
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a client, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._limit = self.loop.call_later(_GREETING, self._drop_if_silent)

    @property
    def _has_asked(self) -> bool:
        return bool(self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a client."""
        if self._limit is not None:
            self._limit.cancel()
        super().connection_lost(exc)

    def _drop_if_silent(self) -> None:
        if not self._has_asked:
            self._drop()

    def _drop(self) -> None:
        self.transport.abort()


class Server:
    """Serves an application from a thread of its own, until it is stopped.

    Parameters
    ----------
    app : ASGI application
        What answers.
    feed : Feed
        What is kept up to date, and ended with the server.
    sock : socket.socket
        From :func:`listen`; closed by the server.
    """

    def __init__(self, app: ASGIApp, feed: Feed, sock: socket.socket) -> None:
        self._feed = feed
        self._sock = sock
        self._uvicorn = Uvicorn(
            Config(
                app,
                http=_Connection,
                loop="asyncio",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._stopping = False
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="nwbflow-dashboard", daemon=True)
        _running.add(self)
        self._thread.start()

    def stop(self, *, wait: bool) -> None:
        """Tell every client the last state, and end; may be called again."""
        self._stopping = True
        if os.getpid() != self._process:  # forked: the thread is not there, and what wakes it is not ours
            return
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._wake.set)
        if wait and self._thread is not threading.current_thread():
            self._thread.join()

    def close_in_fork(self) -> None:
        """Let go of the port in a process forked from this one: the thread is not there."""
        self._sock.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            _log.exception("the dashboard has stopped")
        finally:
            self._sock.close()
            _running.discard(self)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self._uvicorn.serve(sockets=[self._sock]))
        while not self._stopping and not serving.done():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _TICK)
            if not self._stopping:
                self._feed.refresh()
        self._feed.end()
        await self._part()
        self._uvicorn.should_exit = True
        await serving
        await self._close_latecomers()

    async def _part(self) -> None:
        """Wait for clients to take their last message, and drop those that don't."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                while self._feed.followers:
                    await asyncio.sleep(0.02)
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort() if self._feed.followers else connection.transport.close()

    async def _close_latecomers(self) -> None:
        """Close what was accepted while the port was given up."""
        for _ in range(_ROUNDS):
            for connection in list(self._uvicorn.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)


def _stop_all() -> None:
    running = list(_running)
    for server in running:
        server.stop(wait=False)
    for server in running:
        server.stop(wait=True)


def _in_forked_process() -> None:
    for server in list(_running):
        server.close_in_fork()


atexit.register(_stop_all)  # a page that is open gets the last state also where nobody stopped the server
os.register_at_fork(after_in_child=_in_forked_process)
