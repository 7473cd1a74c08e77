"""``nwbflow recover``: what a crash left becomes a finished file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nwbflow.cli.screens import out, print_json, say
from nwbflow.tools.recover import recover as recover_file


def recover(
    file: Path,
    /,
    *,
    output: Path | None = None,
    in_place: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Make a finished file out of what a crash left, of nwbflow or of other programs.

    A recording that was interrupted is made out of its journal, beside its
    place, read back, and put in place in one step. What it was made from is
    removed after that, so this can be repeated at will. A damaged journal gives
    what is before the damage, and is kept (.journal.damaged).

    Of any other HDF5 file (of a killed writer, cut off, damaged) all that can be
    read goes into a new file, NAME.recovered.nwb; FILE stays as it is. Lost rows
    are named; what NWB requires and is missing is filled in. A file that is
    whole is left alone.

    Parameters
    ----------
    file
        What was recorded to, or lies beside it (.partial, .journal); or a
        damaged file.
    output
        Make this file instead, and leave all that is there as it is.
    in_place
        Put the mended file in FILE's place; the damaged one is kept as NAME.damaged.
    json
        Print the result as one JSON object.
    """
    recovery = recover_file(file, output=output, in_place=in_place)
    if not json:
        say(out(), str(recovery))
        return
    datasets = [
        {"name": d.name, "kept": d.kept, "lost": d.lost, "damaged": [list(span) for span in d.damaged], "why": d.why}
        for d in recovery.datasets
    ]
    print_json(
        {
            "path": str(recovery.path),
            "datasets": datasets,
            "repaired": list(recovery.repaired),
            "lost": list(recovery.lost),
            "placeholders": list(recovery.placeholders),
            "invalid": list(recovery.invalid),
            "notes": list(recovery.notes),
            "journal": None if recovery.journal is None else str(recovery.journal),
            "original": None if recovery.original is None else str(recovery.original),
        }
    )
