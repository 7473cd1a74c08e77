"""The thread that writes the journal, and where it goes on when a disk is full, fails or stalls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nwbflow.errors import ErrorKind
from nwbflow.record.intake import Intake
from nwbflow.record.journal import Block, Journal, Numbers, is_full, may_pass

RETRY_SECONDS = 0.2
"""How often a full disk is tried again."""

STALL_SECONDS = 1.0
"""How long one write may take, while those who append have to wait for it, before the spill folder is used."""


class _RelievedError(Exception):
    """Another thread has taken over."""


class _Shift:
    """One thread's time of writing, and the blocks it has taken on that are not acknowledged."""

    def __init__(self, journal: Journal, left: Sequence[Block] = ()) -> None:
        self.journal = journal
        self.left = list(left)
        self.first = journal.written
        self.since: float | None = None
        self.news: str | None = None


class JournalWriter:
    """Writes the journal until the intake is closed and empty, and acknowledges what is in it.

    With a second place it goes on there in a new segment when the first is full or fails. A disk that stalls holds the
    thread that writes to it; another thread takes over then, and writes again what is not acknowledged. What the first
    one does after that counts for nothing: it can't acknowledge, make segments, or write anything but the frames it
    had, where it had begun to.

    Parameters
    ----------
    intake : Intake
        Where the blocks come from.
    places : sequence of pathlib.Path
        The journal's folder, and the one it spills to, if there is one.
    identity : bytes
        Of the recording.
    sync : bool
        Whether rows are acknowledged only when the disk has them.
    warn : callable
        Takes a text for those who watch and for the receipt.
    """

    def __init__(
        self, intake: Intake, places: Sequence[Path], identity: bytes, *, sync: bool, warn: Callable[[str], None]
    ) -> None:
        self._intake = intake
        self._places = tuple(places)
        self._lost: set[Path] = set()
        self._warn = warn
        self._numbers = Numbers()
        self._identity, self._sync = identity, sync
        self._lock = threading.Lock()  # held for moments only, and never while a disk is asked for anything
        self._ended = threading.Event()
        self._journals: list[Journal] = []
        self._shift = _Shift(self._journal(self._places[0], 0))
        self._thread = self._thread_of(self._shift)
        self._guard = threading.Thread(target=self._watch, name="nwbflow-stall", daemon=True)

    def _thread_of(self, shift: _Shift) -> threading.Thread:
        return threading.Thread(target=self._work, args=(shift,), name="nwbflow-journal", daemon=True)

    def _journal(self, place: Path, written: int) -> Journal:
        journal = Journal(place, self._identity, sync=self._sync, numbers=self._numbers, written=written)
        self._journals.append(journal)
        return journal

    @property
    def failures(self) -> int:
        """How often a write or sync failed for another reason than a full disk."""
        return sum(journal.failures for journal in self._journals)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        if len(self._places) > 1:
            self._guard.start()

    def join(self) -> None:
        """Wait until everything is written, or given up. A thread that a disk holds is not waited for."""
        self._ended.wait()
        if self._thread.is_alive():
            self._thread.join()
        if self._guard.is_alive():
            self._guard.join()

    # --- a shift ----------------------------------------------------------------------------

    def _work(self, shift: _Shift) -> None:
        try:
            while self._takes_on(shift) and self._write_until_done(shift):
                pass
        except _RelievedError:
            pass
        except Exception as error:
            if shift is self._shift:
                text = f"the journal's thread has failed ({type(error).__name__}: {error})"
                self._intake.fail(text, ErrorKind.IO)
        finally:
            shift.journal.close()
            if shift is self._shift:
                self._ended.set()

    def _takes_on(self, shift: _Shift) -> bool:
        if not shift.left:
            blocks = self._intake.take()
            with self._lock:
                shift.left = blocks
        return bool(shift.left)

    def _write_until_done(self, shift: _Shift) -> bool:
        """Write the blocks of a shift; wait while there is no room anywhere. Return whether they are safe."""
        waited = last_try = moved = False
        while shift.left:
            problem = self._try(shift)
            if self._settle(shift):
                last_try = moved = False
            if problem is None:
                continue
            full = is_full(problem)
            text = "the disk is full; free some room" if full else f"writing the journal failed: {problem}"
            if not moved and self._goes_elsewhere(shift, problem):
                moved = full  # and tried once before there is a wait
                continue
            if not may_pass(problem) or last_try:
                self._intake.fail(text, ErrorKind.NO_SPACE if full else ErrorKind.IO)
                return False
            if not waited:
                self._warn(f"{text}. Nothing is acknowledged until then, and recording goes on by itself")
            waited, moved = True, False
            last_try = not self._intake.wait_in_trouble(text, RETRY_SECONDS)
        return True

    def _try(self, shift: _Shift) -> OSError | None:
        with self._lock:
            self._check_on(shift)
            shift.since = time.monotonic()
        try:
            shift.journal.write(shift.left)
        except OSError as error:
            return error
        finally:
            shift.since = None
        return None

    def _settle(self, shift: _Shift) -> int:
        """Acknowledge what is written, unless another thread has taken over."""
        with self._lock:
            self._check_on(shift)
            done = shift.journal.written - shift.first
            if done:
                self._intake.settle(shift.left[:done])
            shift.left, shift.first = shift.left[done:], shift.journal.written
            news, shift.news = (shift.news, None) if done else (None, shift.news)
        if news:
            self._warn(news)
        return done

    def _check_on(self, shift: _Shift) -> None:
        if shift is not self._shift:
            raise _RelievedError

    # --- elsewhere --------------------------------------------------------------------------

    def _other_place(self, journal: Journal) -> Path | None:
        return next((place for place in self._places if place not in self._lost | {journal.folder}), None)

    def _goes_elsewhere(self, shift: _Shift, problem: OSError) -> bool:
        """Go on in the other place, if there is one and the problem is this one's; not back to one that failed."""
        full, here = is_full(problem), shift.journal.folder
        if not full and may_pass(problem):
            return False
        if not full:
            self._lost.add(here)
        other = self._other_place(shift.journal)
        if other is None:
            return False
        shift.journal.move(other)
        shift.news = f"{'the disk is full' if full else problem} ({here}); the journal goes on in {other}"
        return True

    def _watch(self) -> None:
        while not self._ended.wait(STALL_SECONDS / 4):
            with self._lock:
                self._relieve()

    def _relieve(self) -> None:
        """Let another thread take over if this one is held by its disk, and somebody waits for it."""
        old = self._shift
        since, other = old.since, self._other_place(old.journal)
        if since is None or other is None or not self._intake.is_short:
            return
        if (seconds := time.monotonic() - since) < STALL_SECONDS:
            return
        self._numbers.revoke(old.journal)
        self._lost.add(old.journal.folder)
        self._shift = _Shift(self._journal(other, old.first), old.left)
        self._shift.news = (
            f"{old.journal.folder} has not answered for {seconds:.1f} s and is not written to any more; the journal "
            f"goes on in {other}"
        )
        self._thread = self._thread_of(self._shift)
        try:
            self._thread.start()
        except RuntimeError as error:  # no memory for one, or Python is about to end
            self._intake.fail(f"{old.journal.folder} has not answered, and {error}", ErrorKind.IO)
            self._ended.set()
