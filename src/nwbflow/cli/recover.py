"""``nwbflow recover``: what an interrupted recording left becomes a finished file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nwbflow.cli.screens import out, print_json, say
from nwbflow.record.recover import recover as recover_file


def recover(
    file: Path,
    /,
    *,
    output: Path | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Finish a recording that was interrupted: make the NWB file out of its journal.

    The file is made beside its place, read back, and put in place in one step. What
    it was made from is removed after that, so this can be repeated at will. A
    damaged journal gives what is before the damage, and is kept (.journal.damaged).

    Parameters
    ----------
    file
        The file that was recorded to, or what lies beside it (.partial, .journal).
    output
        Make this file instead, and leave all that is there as it is.
    json
        Print the result as one JSON object.
    """
    recovery = recover_file(file, output=output)
    if json:
        print_json(
            {
                "path": str(recovery.path),
                "datasets": [{"name": d.name, "kept": d.kept, "lost": d.lost} for d in recovery.datasets],
                "notes": list(recovery.notes),
                "journal": None if recovery.journal is None else str(recovery.journal),
            }
        )
    else:
        say(out(), str(recovery))
