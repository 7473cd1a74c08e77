"""Whether this user may write to a path."""

from __future__ import annotations

import os
from pathlib import Path

from nwbflow.errors import ErrorKind, TargetError


def refuse_no_folder(target: Path) -> None:
    """Refuse a path whose folder is missing.

    Raises
    ------
    TargetError
        Kind ``FOLDER``.
    """
    if not target.parent.is_dir():
        raise TargetError(f"{target.parent} does not exist; make the folder first", kind=ErrorKind.FOLDER)


def refuse_protected(target: Path) -> None:
    """Refuse a path whose folder can't be written to, and one where something is that is protected.

    Raises
    ------
    TargetError
        Kind ``PERMISSION``.
    """
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise TargetError(f"{target.parent} is read-only for you; choose another folder", kind=ErrorKind.PERMISSION)
    if target.exists() and not os.access(target, os.W_OK):
        raise TargetError(
            f"{target} is write-protected; take the protection away (chmod u+w) to replace it",
            kind=ErrorKind.PERMISSION,
        )
