"""Waiting in an event loop for what other threads do, without a thread for it."""

from __future__ import annotations

import asyncio
import contextlib


class Call:
    """Something a coroutine waits for, and any thread can say once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def __call__(self) -> None:
        """Let the coroutine go on; from any thread, and when its loop is closed already."""
        with contextlib.suppress(RuntimeError):  # nobody waits in a loop that is closed
            self._loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until somebody says it."""
        await self._future
