"""The page's paths, and the guard in front of them. Needs the extra ``monitor``."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nwbflow.observe.dashboard.access import Access
from nwbflow.observe.dashboard.board import Board

HEARTBEAT = 10.0
"""Seconds after which a silent stream says that it is still there."""

PATIENCE = 30.0
"""Seconds a client may leave its messages unread before it is let go."""

RETRY = 2.0
"""Seconds after which a browser comes back."""

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_NO_TOKEN = "This page needs the whole address, with its token, that was printed when the recorder started.\n"
_OTHER_HOST = "This page answers only under the names of its own machine: localhost, 127.0.0.1 or [::1].\n"


class Feed:
    """The newest state as a message, shared by all who follow it.

    Nothing is queued for anybody: who is slow misses what has been replaced by something newer.
    """

    def __init__(self, board: Board, identity: str) -> None:
        self._board = board
        self._assets = _read_assets()
        page = zlib.crc32(b"".join(body for body, _ in self._assets.values()))
        self._about = {"server": identity, "page": f"{page:08x}"}
        self._shown = -1
        self._message = b""
        self._number = 0
        self._news = asyncio.Event()
        self._ended = False
        self.followers = 0

    @property
    def assets(self) -> dict[str, tuple[bytes, str]]:
        """The page's files: content and type by name."""
        return self._assets

    def state(self, *, history: bool) -> str:
        """Return the state now, as JSON."""
        state = {**self._about, **self._board.to_json(history=history)}
        return json.dumps(state, default=str, separators=(",", ":"))

    def refresh(self) -> None:
        """Make a message of what has changed, if something has and somebody follows."""
        version = self._board.version
        if self.followers and version != self._shown:
            self._shown = version
            self._publish(_message("state", self.state(history=False)))

    def end(self) -> None:
        """Tell the last state, and that there will be no other."""
        self._ended = True
        self._publish(_message("state", self.state(history=False)) + _message("bye", "{}"))

    def _publish(self, message: bytes) -> None:
        self._message = message
        self._number += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def follow(self, send: Callable[[bytes], Any]) -> None:
        """Send the whole state and then every newer one that the client is fast enough for."""
        seen = self._number
        greeting = f"retry: {int(RETRY * 1000)}\n\n".encode() + _message("state", self.state(history=True))
        await _in_time(send(greeting))
        while not (self._ended and seen == self._number):
            if seen == self._number:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), HEARTBEAT)
            message = b": still here\n\n" if seen == self._number else self._message
            seen = self._number
            await _in_time(send(message))


class Events:
    """The path of server-sent events, as an ASGI application.

    Written out rather than built from a streamed response, since a client that doesn't read has to be noticed and
    its connection dropped.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one client until it goes, or the recorder ends."""
        if scope["method"] != "GET":
            await PlainTextResponse("GET only\n", 405, {"allow": "GET"})(scope, receive, send)
            return

        async def give(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": True})

        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._feed.followers += 1
        try:
            taken = await self._follow(receive, give)
            if taken:
                # a browser may forget what it has not looked at yet, if an answer breaks off
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._feed.followers -= 1
        if not taken and (drop := scope.get("state", {}).get("drop")):
            drop()
            await asyncio.sleep(0)  # until the server knows

    async def _follow(self, receive: Receive, give: Callable[[bytes], Any]) -> bool:
        """Give messages until the client goes, or there are no more; return False if it left them unread."""
        following = asyncio.create_task(self._feed.follow(give))
        leaving = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (following, leaving):
                task.cancel()
            results = await asyncio.gather(following, leaving, return_exceptions=True)
        return not isinstance(results[0], TimeoutError)


class Metrics:
    """The path of metrics, as an ASGI application (a plain function would be taken for an endpoint)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)


class Guard:
    """Lets a request through if it may be answered, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if self._access.token is None:
            return PlainTextResponse(_OTHER_HOST, 421) if self._access.refuses_host(headers.get("host")) else None
        name = cookie_name(scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if given is not None and self._access.knows(given[0]):
            return self._without_token(name) if scope["path"] == "/" else None
        cookie = cookie_parser(headers.get("cookie", "")).get(name)
        return None if self._access.knows(cookie) else PlainTextResponse(_NO_TOKEN, 403)

    def _without_token(self, name: str) -> Response:
        """Return an answer after which the token is in a cookie, and not in the browser's history."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(name, str(self._access.token), httponly=True, samesite="strict", path="/")
        return answer


def cookie_name(scope: Scope) -> str:
    """Return the cookie's name; browsers share cookies between ports, so it has the port in it."""
    return f"nwbflow-{(scope.get('server') or ('', 0))[1]}"


def make_app(feed: Feed, access: Access, metrics: ASGIApp) -> ASGIApp:
    """Return the whole application.

    Parameters
    ----------
    feed : Feed
        What is to be seen.
    access : Access
        Who may see it.
    metrics : ASGI application
        What answers at ``/metrics``.
    """

    def state(_: Request) -> Response:
        return Response(feed.state(history=False), media_type="application/json")

    routes = [
        Route("/events", Events(feed)),
        Route("/state.json", _quickly(state)),
        Route("/metrics", Metrics(metrics)),
    ]
    for name, (body, kind) in feed.assets.items():
        routes.append(Route("/" if name == "index.html" else f"/{name}", _file(body, kind)))
    return Guard(Starlette(routes=routes), access)


def _file(body: bytes, kind: str) -> Callable[[Request], Any]:
    return _quickly(lambda _: Response(body, media_type=kind))


def _quickly(answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """Return an endpoint that answers in the server's own thread; starlette would start others for it."""

    async def endpoint(request: Request) -> Response:
        return answer(request)

    return endpoint


def _read_assets() -> dict[str, tuple[bytes, str]]:
    folder = files("nwbflow.observe.dashboard") / "static"
    return {
        item.name: (item.read_bytes(), _TYPES[item.name.rpartition(".")[2]])
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.rpartition(".")[2] in _TYPES
    }


def _message(event: str, data: str) -> bytes:
    return f"event: {event}\ndata: {data}\n\n".encode()


async def _in_time(sending: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        await sending


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
