"""Messages between ranks, without anybody waiting busily.

MPI's own waits use a core as long as they last: here whoever waits looks, and sleeps in between.
"""

from __future__ import annotations

import contextlib
import pickle
import time
import traceback
import warnings
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

from nwbflow.errors import ErrorKind, ExecutorError

if TYPE_CHECKING:
    from collections.abc import Callable

NAP = 0.0005
"""Seconds between two looks."""

PATIENCE = 10.0
"""Seconds rank 0 waits, after an error, for ranks that are busy with their own data."""

_PUZZLED = 60.0
_kept: list[Any] = []  # messages that a busy rank has yet to take when rank 0 leaves


class Tag(IntEnum):
    """Kinds of messages."""

    HELLO = 1
    COMMAND = 2
    BATCH = 3
    PIECE = 4
    TROUBLE = 5
    BYE = 6


@dataclass(frozen=True, slots=True)
class Failure:
    """An error on its way to other ranks.

    Parameters
    ----------
    rank : int
        Where it was raised.
    pickled : bytes or None
        The error; ``None`` if it can't be pickled.
    text : str
        Type and text of it.
    trace : str
        Its traceback.
    """

    rank: int
    pickled: bytes | None
    text: str
    trace: str

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Failure:
        """Return what can be sent of `error`."""
        pickled = None
        with contextlib.suppress(Exception):  # whatever a user's class does
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        trace = "".join(traceback.format_exception(error))
        return cls(rank, pickled, f"{type(error).__name__}: {error}", trace)

    def error(self) -> BaseException:
        """Return the error, with a note of where it was raised."""
        found: BaseException = ExecutorError(f"rank {self.rank} raised {self.text}", kind=ErrorKind.WORKERS)
        with contextlib.suppress(Exception):
            given = pickle.loads(self.pickled or b"")
            found = given if isinstance(given, BaseException) else found
        if not any(note.startswith("raised on rank ") for note in getattr(found, "__notes__", ())):
            found.add_note(f"raised on rank {self.rank}:\n{self.trace}")
        return found


class Wire:
    """A communicator of our own between the ranks that write one file.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        The user's; all its ranks make this at the same time.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        everybody = comm.Ibarrier()  # so that nobody is waited for in Dup
        began = time.monotonic()
        warned = False
        while not everybody.Test():
            if not warned and time.monotonic() - began > _PUZZLED:
                warned = True
                warnings.warn(
                    f"rank {comm.rank} of {comm.size} has waited for {_PUZZLED:.0f} s in nwbflow.write for other "
                    "ranks: each must call it. If one has raised an error, start the program with "
                    "python -m mpi4py, which ends all ranks then",
                    RuntimeWarning,
                    stacklevel=2,
                )
            time.sleep(NAP)
        self._comm = comm.Dup()
        self._sending: list[MPI.Request] = []
        self._coming: dict[tuple[int, Tag], tuple[int, MPI.Request]] = {}
        self.rank: int = comm.rank
        self.size: int = comm.size

    @property
    def others(self) -> range:
        """All ranks but 0."""
        return range(1, self.size)

    @property
    def unsent(self) -> int:
        """How many messages have not been taken by their receivers yet."""
        self._sending = [request for request in self._sending if not request.Test()]
        return len(self._sending)

    def tell(self, message: object, rank: int, tag: Tag) -> None:
        """Send a message; it counts as sent when the other rank takes it."""
        self._sending.append(self._comm.issend(message, dest=rank, tag=tag))

    def hear(self, tag: Tag, rank: int | None = None) -> tuple[int, Any] | None:
        """Return a message and whose it is, if one is there and has come whole.

        Parameters
        ----------
        tag : Tag
            Of which kind.
        rank : int, optional
            From whom; anybody by default.
        """
        source = MPI.ANY_SOURCE if rank is None else rank
        if (source, tag) not in self._coming:
            status = MPI.Status()
            message = self._comm.improbe(source=source, tag=tag, status=status)
            if message is None:
                return None
            self._coming[source, tag] = (status.Get_source(), message.irecv())
        sender, request = self._coming[source, tag]
        whole, content = request.test()
        if not whole:
            return None
        del self._coming[source, tag]
        return sender, content

    def wait(self, tag: Tag, rank: int, meanwhile: Callable[[], None]) -> Any:
        """Wait for a message of one rank."""
        while (found := self.hear(tag, rank)) is None:
            meanwhile()
            time.sleep(NAP)
        return found[1]

    def end(self, outcome: object, *, patience: float) -> None:
        """Tell all ranks how it ended (rank 0), take what is on its way, and wait until they have heard."""
        for rank in self.others:
            self.tell(outcome, rank, Tag.COMMAND)
        gone: set[int] = set()
        deadline = time.monotonic() + patience
        while (len(gone) < self.size - 1 or self.unsent) and time.monotonic() < deadline:
            self._discard()
            while (bye := self.hear(Tag.BYE)) is not None:
                gone.add(bye[0])
            time.sleep(NAP)
        self._leave(complete=len(gone) == self.size - 1)

    def leave(self) -> None:
        """Say that the outcome was heard (all other ranks), as the last thing."""
        self.tell(None, 0, Tag.BYE)
        deadline = time.monotonic() + PATIENCE
        while self.unsent and time.monotonic() < deadline:
            time.sleep(NAP)
        self._leave(complete=not self._sending)

    def _discard(self) -> None:
        for source, tag in list(self._coming):
            if tag is not Tag.BYE:
                self.hear(tag, None if source == MPI.ANY_SOURCE else source)
        for tag in (Tag.HELLO, Tag.BATCH, Tag.PIECE, Tag.TROUBLE):
            while self.hear(tag) is not None:
                pass

    def _leave(self, *, complete: bool) -> None:
        if complete:
            self._comm.Free()
        else:
            _kept.append((self._comm, self._sending))
