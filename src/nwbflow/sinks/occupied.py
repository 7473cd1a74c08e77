"""Whether somebody else is at a path: locks, and recordings that are not finished."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nwbflow.errors import ErrorKind, TargetError

JOURNAL_MANIFEST = "manifest.json"
"""What a journal has from when data may have been accepted into it."""

held_here: set[Path] = set()
"""Journals that this process records into, or recovers."""


def journal_path(target: Path) -> Path:
    """Return the folder that holds what a recording to `target` has accepted until the file is in place."""
    return target.with_name(target.name + ".journal")


def being_recorded(target: Path) -> TargetError:
    """Return the error for a path whose recording is under way, in this process or in another."""
    if journal_path(target) in held_here:
        text = (
            f"{target} is being recorded or recovered right now, by this very process ({os.getpid()}): leave the with "
            "block of its recorder, or close it; one whose variable is gone (in a notebook, say) is in "
            "nwbflow.recorders()"
        )
    else:
        text = (
            f"{target} is being recorded or recovered right now, by another program; wait until that has ended, or "
            "give another path"
        )
    return TargetError(text, kind=ErrorKind.LOCKED)


def refuse_recording(target: Path) -> None:
    """Refuse a path whose recording is under way or was interrupted: its data are nowhere else.

    Raises
    ------
    TargetError
        Kind ``LOCKED`` or ``EXISTS``.
    """
    journal = journal_path(target)
    if journal.is_dir() and is_locked(journal):
        raise being_recorded(target)
    if journal.exists() and not had_not_begun(target):
        raise TargetError(
            f"{journal} holds the data of a recording to {target.name} that is not finished. If it is "
            f"not running any more, finish it first: nwbflow recover {target}",
            kind=ErrorKind.EXISTS,
        )


def had_not_begun(target: Path) -> bool:
    """Whether a recorder was interrupted before it could accept anything: there is nothing to recover."""
    journal = journal_path(target)
    return journal.is_dir() and not (journal / JOURNAL_MANIFEST).exists()


def is_locked(file: Path) -> bool:
    """Return whether somebody holds a lock that keeps others out, as HDF5 does while it writes a file."""
    try:
        handle = os.open(file, os.O_RDONLY)
    except OSError:
        return False  # absent, or not ours to read: creating and renaming will tell
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # a file system without locks
    finally:
        os.close(handle)
    return False
