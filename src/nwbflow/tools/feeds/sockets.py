"""Listening: TCP and Unix sockets, and who may be let in where."""

from __future__ import annotations

import os
import selectors
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from nwbflow.errors import ErrorKind, SettingsError, TargetError
from nwbflow.observe.dashboard.access import is_loopback

BACKLOG = 128
"""Connections that may wait to be accepted."""

_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Listening:
    """Sockets that listen, and what is asked of those who connect; made by :func:`listen`.

    Parameters
    ----------
    sockets : list of socket.socket
        They are listening.
    addresses : list of tuple or str
        Host and port, or path, of each: where clients connect.
    token : str or None
        What clients have to know.
    unix : pathlib.Path or None
        The path to remove at the end.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        addresses: list[tuple[str, int] | str],
        token: str | None,
        unix: Path | None,
    ) -> None:
        self.sockets, self.addresses, self.token = sockets, addresses, token
        self._unix = unix

    def close(self) -> None:
        """Listen no more. May be called again."""
        for listener in self.sockets:
            listener.close()
        if self._unix is not None:
            with suppress(OSError):
                self._unix.unlink()
            self._unix = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def listen(
    *, tcp: tuple[str, int] | None = None, unix: str | Path | None = None, token: str | None = None
) -> Listening:
    """Listen for clients: they can connect, and wait until a :class:`FeedServer` serves them.

    Parameters
    ----------
    tcp : tuple of str and int, optional
        Host and port; port 0 is any free one. Beyond this machine (loopback) a token is needed.
    unix : str or pathlib.Path, optional
        Path of a Unix socket, for this user only. What a killed process has left there is replaced.
    token : str, optional
        What every client has to know.

    Returns
    -------
    Listening
        To be given to a server, which closes it.

    Raises
    ------
    nwbflow.errors.SettingsError
        If there is nowhere to listen, or no token where one is needed.
    nwbflow.errors.TargetError
        If an address can't be listened on.
    """
    if tcp is None and unix is None:
        raise SettingsError("nowhere to listen: give tcp=(host, port) or unix=path", kind=ErrorKind.OPTION)
    found = Listening([], [], token, None)
    if tcp is not None:
        if token is None and not is_loopback(tcp[0]):
            raise SettingsError(
                f"{tcp[0]} can be reached from other machines: give a token that clients have to know, or listen on "
                "127.0.0.1",
                kind=ErrorKind.OPTION,
            )
        listener, address = _listen_tcp(*tcp)
        found.sockets.append(listener)
        found.addresses.append(address)
    if unix is not None:
        try:
            found.sockets.append(_listen_unix(Path(unix)))
        except BaseException:
            found.close()
            raise
        return Listening(found.sockets, [*found.addresses, str(unix)], token, Path(unix))
    return found


def _listen_tcp(host: str, port: int) -> tuple[socket.socket, tuple[str, int]]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise _cannot(f"{host}:{port}", error, "give another port; 0 is any free one") from error
    bound = listener.getsockname()
    return listener, (str(bound[0]), int(bound[1]))


def _listen_unix(path: Path) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)  # for this user only, from the moment it is there
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot(str(path), error, "give another path, no longer than about 100 characters") from error
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket nobody listens on any more, as a killed process leaves it; nothing else is removed."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise TargetError(f"{path} is there already, and no socket; give another path", kind=ErrorKind.EXISTS)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise _cannot(str(path), error, "give another path") from error
    raise TargetError(f"{path}: somebody listens there already; give another path", kind=ErrorKind.LOCKED)


def _cannot(where: str, error: OSError, way_out: str) -> TargetError:
    kind = ErrorKind.PERMISSION if isinstance(error, PermissionError) else ErrorKind.LOCKED
    return TargetError(f"can't listen on {where}: {error.strerror or error}; {way_out}", kind=kind)


def accept(listeners: Sequence[socket.socket], stop: socket.socket) -> Iterator[tuple[socket.socket, str]]:
    """Yield connections and who they are, until the other end of `stop` is closed."""
    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            listener.setblocking(False)
            selector.register(listener, selectors.EVENT_READ, listener)
        selector.register(stop, selectors.EVENT_READ, None)
        while True:
            ready = [key.data for key, _ in selector.select()]
            if None in ready:
                return
            for listener in ready:
                try:
                    sock, address = listener.accept()
                except OSError:
                    time.sleep(0.05)  # short of descriptors: what is open now may be closed soon
                    continue
                yield sock, _prepare(sock, address)


def _prepare(sock: socket.socket, address: object) -> str:
    """Have the system notice when the other machine is gone; return who it is."""
    if sock.family == socket.AF_UNIX:
        return "a client on this machine"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = address[:2] if isinstance(address, tuple) else (address, "")
    return f"{host}:{port}"
