"""``nwbflow links``: which links files have, whether they hold, and what can be done about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from nwbflow.cli.codes import BROKEN_LINKS, CODES, FAILED, OK
from nwbflow.cli.links_screens import print_bundled, print_checked, print_embedded, print_listed, print_renamed
from nwbflow.cli.screens import err, print_json, say
from nwbflow.errors import ErrorKind, LinkError, SettingsError
from nwbflow.links.inventory import hdf5_files
from nwbflow.links.problems import shown
from nwbflow.tools.links import (
    RenameReport,
    bundle,
    check_links,
    embed,
    list_links,
    make_absolute,
    make_relative,
    relocate,
)

links = App(
    name="links",
    help=(
        "List, check, mend, embed and bundle links: soft and external links, virtual datasets, and datasets over raw "
        "files. Links lead from the folder of the file that has them, whatever the working folder."
    ),
    help_epilogue=(
        f"{CODES} What is changed is replaced by a changed copy in one step: however a command ends, each file is the "
        "old one or the whole new one, and the same command does the rest."
    ),
)

type Files = Annotated[list[Path], Parameter(name="FILES")]
type Flag = Annotated[bool, Parameter(negative="", show_default=False)]
type Patterns = Annotated[list[str] | None, Parameter(negative="", show_default=False)]


@links.command(name="list")
def list_(files: Files, /, *, json: Flag = False) -> int:
    """Show the links of files, where they lead, and whether that is there.

    No data are read.

    Parameters
    ----------
    files
        Files; folders are searched for *.nwb, *.h5 and *.hdf5.
    json
        Print one JSON object.
    """
    found, errors = _each(files, list_links)
    if json:
        print_json({"files": [inventory.to_json() for inventory in found], "errors": errors})
    else:
        print_listed(found)
    return _told(errors)


@links.command
def check(files: Files, /, *, full: Flag = False, json: Flag = False) -> int:
    """Check whether what links lead to is there, and still what was linked.

    Compares shape, type, attributes and content with what nwbflow recorded when
    it made the link. Of links made by other programs nothing is recorded: those
    are only looked at. Ends with exit code 3 if a link is broken or changed.

    Parameters
    ----------
    files
        Files; folders are searched for *.nwb, *.h5 and *.hdf5.
    full
        Also compare large content of which every byte was recorded.
    json
        Print one JSON object.
    """
    found, errors = _each(files, lambda path: check_links(path, full=full))
    well = all(report.ok for report in found)
    if json:
        print_json({"ok": well and not errors, "files": [report.to_json() for report in found], "errors": errors})
    else:
        print_checked(found)
    return _told(errors) or (OK if well else BROKEN_LINKS)


@links.command(name="relocate")
def relocate_(
    old: Path, new: Path, files: Files, /, *, force: Flag = False, dry_run: Flag = False, json: Flag = False
) -> None:
    """Lead links to where their targets are now.

    Whatever leads to OLD, or below it, is led to NEW, or to the same place below
    that. Relative names stay relative, absolute ones absolute. All new targets
    are looked at before the first file is changed. An example:

    nwbflow links relocate /data/raw /archive/2026/raw sessions/

    Parameters
    ----------
    old
        File or folder where targets were; also as the links have it (see list).
    new
        File or folder where they are now.
    files
        Files that have the links; folders are searched for *.nwb, *.h5, *.hdf5.
    force
        Don't look whether the new targets are there and the ones that were linked.
    dry_run
        Only say what would change.
    json
        Print one JSON object.
    """
    found = relocate(files, old, new, dry_run=dry_run, force=force)
    _renamed(found, "All links have the new names.", dry_run=dry_run, json=json)


@links.command
def relative(files: Files, /, *, only: Patterns = None, dry_run: Flag = False, json: Flag = False) -> None:
    """Record relative names where absolute ones are: files and targets can then be moved together.

    Parameters
    ----------
    files
        Files; folders are searched for *.nwb, *.h5 and *.hdf5.
    only
        Only links and datasets whose path matches, such as '/acquisition/*'. May be given several times.
    dry_run
        Only say what would change.
    json
        Print one JSON object.
    """
    found = make_relative(files, only=only or (), dry_run=dry_run)
    _renamed(found, "No link has an absolute name.", dry_run=dry_run, json=json)


@links.command
def absolute(files: Files, /, *, only: Patterns = None, dry_run: Flag = False, json: Flag = False) -> None:
    """Record absolute names where relative ones are: files can then be moved without their targets.

    Parameters
    ----------
    files
        Files; folders are searched for *.nwb, *.h5 and *.hdf5.
    only
        Only links and datasets whose path matches, such as '/acquisition/*'. May be given several times.
    dry_run
        Only say what would change.
    json
        Print one JSON object.
    """
    found = make_absolute(files, only=only or (), dry_run=dry_run)
    _renamed(found, "No link has a relative name.", dry_run=dry_run, json=json)


@links.command(name="embed")
def embed_(
    file: Annotated[Path, Parameter(name="FILE")],
    /,
    *,
    only: Patterns = None,
    force: Flag = False,
    dry_run: Flag = False,
    json: Flag = False,
) -> None:
    """Copy into a file what it links to, so that it stands alone.

    External links, virtual and raw datasets become ordinary ones. The file is
    replaced by the changed copy in one step.

    Parameters
    ----------
    file
        The file.
    only
        Only links and datasets whose path matches, such as '/acquisition/*'. May be given several times.
    force
        Embed also what is not what was linked, as it is now.
    dry_run
        Only look whether all can be embedded, and how much that is.
    json
        Print one JSON object.
    """
    report = embed(file, only=only or (), dry_run=dry_run, force=force)
    if json:
        print_json(report.to_json())
    else:
        print_embedded(report, dry_run=dry_run)


@links.command(name="bundle")
def bundle_(
    file: Annotated[Path, Parameter(name="FILE")],
    folder: Annotated[Path | None, Parameter(name="FOLDER")] = None,
    /,
    *,
    one_file: Annotated[Path | None, Parameter(show_default=False)] = None,
    force: Flag = False,
    dry_run: Flag = False,
    json: Flag = False,
) -> None:
    """Copy a file and everything it links to into a new folder (or one file) that can be sent away.

    The originals are only read.

    Parameters
    ----------
    file
        The file.
    folder
        The folder to make. In it, links have relative names.
    one_file
        Instead of a folder, make this file: a copy with everything embedded.
    force
        Take also what is not what was linked, as it is now.
    dry_run
        Only look whether all is there, and how much that is.
    json
        Print one JSON object.
    """
    if (folder is None) == (one_file is None):
        raise SettingsError("give either a folder to make, or --one-file OUT", kind=ErrorKind.OPTION)
    if one_file is not None:
        report = embed(file, out=one_file, dry_run=dry_run, force=force)
        if json:
            print_json(report.to_json())
        else:
            print_embedded(report, dry_run=dry_run)
        return
    made = bundle(file, Path(folder or ""), dry_run=dry_run, force=force)
    if json:
        print_json(made.to_json())
    else:
        print_bundled(made)


def _each[Report](files: list[Path], look: Callable[[Path], Report]) -> tuple[list[Report], list[str]]:
    """Look at each file; of several, those that can't be opened don't hide the others."""
    found: list[Report] = []
    errors: list[str] = []
    paths = hdf5_files(files, errors)
    for path in paths:
        try:
            found.append(look(path))
        except LinkError as error:
            if len(paths) == 1 and not errors:
                raise
            errors.append(shown(str(error)))
    return found, errors


def _told(errors: list[str]) -> int:
    for text in errors:
        say(err(), (text, "red"))
    return FAILED if errors else OK


def _renamed(found: tuple[RenameReport, ...], nothing: str, *, dry_run: bool, json: bool) -> None:
    if json:
        print_json({"files": [report.to_json() for report in found]})
    else:
        print_renamed(found, nothing, dry_run=dry_run)
