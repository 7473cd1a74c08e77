"""The dashboard as an observer."""

from __future__ import annotations

import secrets
import socket
import sys
import weakref
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

from nwbflow.errors import ErrorKind, UnsupportedError
from nwbflow.model.events import Event
from nwbflow.observe.dashboard.access import Access, check_port
from nwbflow.observe.dashboard.board import Board
from nwbflow.observe.prometheus import Prometheus


class Dashboard:
    """Observer that shows a run on a web page, live, in any browser.

    The page is there at once, its address is printed on standard error, and it shows one run at a time: several
    may follow each other. It is served until :meth:`stop`, or the end of the ``with`` block, or until the program
    ends or lets go of the dashboard; pages that are open then keep the last state, and wait for another recorder
    at the same address.

    The server has a thread of its own. Taking an event in costs some microseconds, and nobody who looks at the page,
    or doesn't, can hold up the run.

    Parameters
    ----------
    port : int
        Where to listen; 0 is any free port.
    host : str
        The address to listen on. On the loopback address, only this machine can look, and whoever has an account
        there. On any other, a token is needed: it is part of the address that is printed.

    Raises
    ------
    nwbflow.errors.SettingsError
        Of kind ``ADDRESS`` if nobody can listen there: the port is taken, for instance.
    nwbflow.errors.UnsupportedError
        If the extra ``monitor`` is not installed.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        app, server = _rooms()
        self._metrics = Prometheus()
        sock = server.listen(host, check_port(port))
        bound, self._port = str(sock.getsockname()[0]), int(sock.getsockname()[1])
        access = Access.to(bound)
        self._host = _in_url(host if not ip_address(bound).is_unspecified else _own_address())
        self._token = access.token
        self._board = Board()
        feed = app.Feed(self._board, secrets.token_hex(8))
        self._server = server.Server(app.make_app(feed, access, self._metrics.app()), feed, sock)
        # a dashboard that was only passed on, `progress=Dashboard(8765)`, ends with what it was passed to
        self._release = weakref.finalize(self, self._server.stop, wait=False)
        self._release.atexit = False
        print(f"dashboard: {self.url}", file=sys.stderr, flush=True)

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._port

    @property
    def url(self) -> str:
        """The page's address, with the token if one is needed: who has it can look."""
        return f"http://{self._host}:{self._port}/" + ("" if self._token is None else f"?token={self._token}")

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`."""
        self._board.take(event)
        self._metrics(event)

    def stop(self) -> None:
        """End the server: open pages get the last state, and the port is free. May be called at any time."""
        self._server.stop(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Dashboard({self._port}, host={self._host!r})"  # without the token: this is what logs show


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _own_address() -> str:
    """Return where others reach this machine: its address on the way out, or else its name."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("192.0.2.1", 9))  # an address for documentation; connecting a datagram socket sends nothing
            return str(sock.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _rooms() -> tuple[Any, Any]:
    """Return the modules that need the extra."""
    try:
        from nwbflow.observe.dashboard import app, server
    except ImportError as error:
        if (error.name or "").startswith("nwbflow"):
            raise
        raise UnsupportedError(
            f'the dashboard needs {error.name}, which is not installed: pip install "nwbflow[monitor]"',
            kind=ErrorKind.PLUGIN,
        ) from error
    return app, server
