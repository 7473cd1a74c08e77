"""Work on files that may hang or crash HDF5, each piece in a process of its own that is watched."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

QUIET_SECONDS = 60.0
"""A process that has not said for so long where it is has hung; HDF5 takes this long with SWMR files at most."""

_SPEAK_SECONDS = 0.2
_ROOM = 4 * 2**30
_PR_SET_PDEATHSIG = 1  # of Linux: prctl(2)

type Say = Callable[[str], None]
"""Tells where the work is: the name of the object that is next."""
type Job = Callable[[Say], dict[str, Any]]
"""What is to be done; what it returns can be said in JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a piece of work ended.

    Parameters
    ----------
    result : dict or None
        What it returned; ``None`` if its process died, or the work raised.
    died : str
        What became of the process, if it died: how, in words.
    failed : str
        What the work raised.
    at : str
        Where it was last.
    """

    result: dict[str, Any] | None = None
    died: str = ""
    failed: str = ""
    at: str = ""


def isolated(job: Job, *, quiet_seconds: float = QUIET_SECONDS) -> Outcome:
    """Run a job in a forked process; to be called where there are no other threads.

    Parameters
    ----------
    job : callable
        The work.
    quiet_seconds : float
        The process is ended when it has not said anything for so long.

    Returns
    -------
    Outcome
        Whatever happened.
    """
    reading, writing = os.pipe()
    watcher = os.getpid()
    process = os.fork()
    if process == 0:
        os.close(reading)
        end_with(watcher)
        _work(job, writing)
    os.close(writing)
    try:
        return _watch(process, reading, quiet_seconds)
    finally:
        os.close(reading)


def end_with(parent: int) -> None:
    """End this process when its parent ends, however that comes: nobody would stop it where it hangs.

    Parameters
    ----------
    parent : int
        Process id of the parent.
    """
    with suppress(OSError, AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was quicker
        os._exit(1)


def _work(job: Job, writing: int) -> None:
    """Do the job and end the process, whatever happens."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)  # what HDF5 and others print when they crash
        _limit_memory()
        last, before = 0.0, ""

        def say(where: str) -> None:
            nonlocal last, before
            now = time.monotonic()
            if now - last > _SPEAK_SECONDS or (where and where != before):
                last, before = now, where or before
                _tell(writing, {"at": where})

        try:
            _tell(writing, {"result": job(say)})
        except MemoryError:
            _tell(writing, {"failed": "MemoryError: it asks for more memory than there is"})
        except Exception as error:
            notes = " ".join(getattr(error, "__notes__", []))
            _tell(writing, {"failed": f"{type(error).__name__}: {error} {notes}".strip()})
    finally:
        os._exit(0)  # closing what is damaged may crash, and nothing of it is needed


def _limit_memory() -> None:
    """Let a file that declares absurd sizes fail here instead of taking the machine's memory."""
    used = 0
    with suppress(OSError, ValueError), open("/proc/self/statm") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (used + max(most, _ROOM), resource.RLIM_INFINITY))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _tell(writing: int, line: dict[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(writing, data) :]


def _watch(process: int, reading: int, quiet_seconds: float) -> Outcome:
    at, rest, hung = "", b"", False
    last: dict[str, Any] = {}
    try:
        while True:
            ready, _, _ = select.select([reading], [], [], quiet_seconds)
            if not ready:
                hung = True
                break
            data = os.read(reading, 2**16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                last = json.loads(line)
                at = last.get("at", at) or at
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
    if "result" in last:
        return Outcome(result=last["result"], at=at)
    if "failed" in last:
        return Outcome(failed=last["failed"], at=at)
    return Outcome(died=_death(status, quiet_seconds if hung else None), at=at)


def _death(status: int, quiet_seconds: float | None) -> str:
    if quiet_seconds is not None:
        return f"reading it hung for {quiet_seconds:g} s"
    if os.WIFSIGNALED(status):
        return f"reading it crashed HDF5 ({signal.Signals(os.WTERMSIG(status)).name})"
    return "reading it ended the process"
