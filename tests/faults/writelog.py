"""Log every change a process makes to the files below a folder, in order, with its data.

:file:`writelog.c` does the logging inside the process; this module compiles it, starts processes
under it and reads the log. :mod:`replay` rebuilds the folder as it was after any operation.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

MAGIC = 0x574C4F47
HEAD = struct.Struct("<IIIIQQ")


class Kind(IntEnum):
    """What an operation did; the numbers are those of :file:`writelog.c`."""

    CREATE = 1
    OPEN = 2
    WRITE = 3
    TRUNCATE = 4
    RENAME = 5
    LINK = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    FSYNC = 10
    CLOSE = 11
    FAILED = 12
    MAPPED = 13


CHANGES = frozenset(
    {
        Kind.CREATE,
        Kind.WRITE,
        Kind.TRUNCATE,
        Kind.RENAME,
        Kind.LINK,
        Kind.UNLINK,
        Kind.MKDIR,
        Kind.RMDIR,
    }
)
"""Operations after which the folder is not what it was before."""


class NoCompilerError(Exception):
    """The shim can't be compiled here; the text says why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call that touched the folder.

    Parameters
    ----------
    kind : Kind
        What it did.
    path : str
        File it did it to, relative to the folder; empty if it lies elsewhere.
    second : str
        New name, for renames and links.
    offset : int
        Position of a write, new length of a truncation (both in bytes), or flags of an opening.
    data : bytes
        What was written.
    """

    kind: Kind
    path: str
    second: str = ""
    offset: int = 0
    data: bytes = b""


@functools.cache
def shim() -> Path:
    """Compile the shim, once in a process, and return the library.

    Raises
    ------
    NoCompilerError
        If this is not Linux, or there is no working C compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        raise NoCompilerError("logging writes needs Linux and a C compiler (gcc or cc); one of them is missing here")
    folder = tempfile.mkdtemp(prefix="writelog-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = Path(folder) / "writelog.so"
    source = Path(__file__).with_name("writelog.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoCompilerError(f"{compiler} could not compile the write log: {done.stderr.strip()}")
    return library


def environment(folder: Path, log: Path, *, fail_at: int = 0, errno: int = 5) -> dict[str, str]:
    """Return the environment for a process whose changes below `folder` go to `log`.

    Parameters
    ----------
    folder : pathlib.Path
        What to watch.
    log : pathlib.Path
        Where to put the records; must lie elsewhere.
    fail_at : int
        Number (from 1) of the write to let fail, or 0 for none.
    errno : int
        How it fails; 5 is EIO.
    """
    fault = {"WRITELOG_FAIL": str(fail_at), "WRITELOG_ERRNO": str(errno)} if fail_at else {}
    watch = {"LD_PRELOAD": str(shim()), "WRITELOG_DIR": str(folder.resolve()), "WRITELOG_LOG": str(log.resolve())}
    return {**os.environ, **watch, **fault}


def record(
    arguments: Sequence[str], folder: Path, log: Path, *, fail_at: int = 0, errno: int = 5
) -> subprocess.CompletedProcess[str]:
    """Run this Python with `arguments`, logging its changes below `folder`; see :func:`environment`."""
    log.unlink(missing_ok=True)
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(folder, log, fail_at=fail_at, errno=errno),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def read_log(path: Path) -> list[Operation]:
    """Read a log.

    Raises
    ------
    ValueError
        If it is damaged, or the process changed a file through a shared mapping, which can't be seen.
    """
    content = memoryview(path.read_bytes())
    operations: list[Operation] = []
    at = 0
    while at < len(content):
        magic, kind, first, second, offset, length = HEAD.unpack_from(content, at)
        if magic != MAGIC:
            raise ValueError(f"{path} is damaged at byte {at}")
        at += HEAD.size
        names = [bytes(content[at : at + first]).decode(), bytes(content[at + first : at + first + second]).decode()]
        at += first + second
        operation = Operation(Kind(kind), names[0], names[1], offset, bytes(content[at : at + length]))
        if operation.kind is Kind.MAPPED:
            raise ValueError(f"{operation.path} was mapped into memory for writing: its changes are not in the log")
        operations.append(operation)
        at += length
    return operations
