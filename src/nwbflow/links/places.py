"""Where a file name recorded in a link leads: beside the linking file, never in the working folder.

HDF5 itself also looks into the working folder, where a file of the same name is somebody else's; and three
environment variables can send it anywhere. Here the rules are fewer, and every place that was tried is kept
for the error's text.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nwbflow.errors import ErrorKind
from nwbflow.model.links import LinkKind, Place, Policy

PREFIX_VARIABLES = {
    LinkKind.EXTERNAL: "HDF5_EXT_PREFIX",
    LinkKind.VIRTUAL: "HDF5_VDS_PREFIX",
    LinkKind.RAW: "HDF5_EXTFILE_PREFIX",
}
"""Environment variables that put a folder in front of recorded names (HDF5 reference manual, H5Lcreate_external,
H5Pset_virtual_prefix, H5Pset_efile_prefix)."""

ORIGIN = "${ORIGIN}"
"""What HDF5 takes, at the front of the last two, for the folder of the linking file."""

AT_START = {kind: os.environ.get(variable, "") for kind, variable in PREFIX_VARIABLES.items()}
"""The variables as HDF5 found them: but for external links it looks once, when it is loaded."""

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_WINDOWS = re.compile(r"^(?:[A-Za-z]:[\\/]|\\\\)")
_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe, which would be waited for without end"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
    (stat.S_ISSOCK, "is a socket"),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be opened on behalf of a file.

    Parameters
    ----------
    policy : Policy
        Which other files.
    root : pathlib.Path or None
        The folder that ``CONTAINED`` keeps to, symbolic links resolved; ``None`` for other policies.
    """

    policy: Policy
    root: Path | None = None

    @classmethod
    def of(cls, policy: str | Policy, opened: str | Path) -> Rules:
        """Return the rules for a file that was opened by name.

        Parameters
        ----------
        policy : str or Policy
            ``"allow"``, ``"contained"`` or ``"deny"``.
        opened : str or pathlib.Path
            The file.

        Raises
        ------
        ValueError
            If there is no such policy.
        """
        chosen = Policy(policy)
        return cls(chosen, Path(os.path.realpath(opened)).parent if chosen is Policy.CONTAINED else None)


def find_file(recorded: str, kind: LinkKind, linking: str | Path, rules: Rules) -> Place:
    """Return where a recorded file name leads.

    Absolute names lead where they say; if there is nothing, and all is allowed, HDF5's second guess is made (but not
    for raw files): the same last name where relative names are looked for. Those lead from the linking file's folder,
    or, if all is allowed, first from the folders that HDF5's environment variable names.

    Parameters
    ----------
    recorded : str
        The name as stored in the link.
    kind : LinkKind
        ``EXTERNAL``, ``VIRTUAL`` or ``RAW``.
    linking : str or pathlib.Path
        The file that has the link.
    rules : Rules
        What may be opened.

    Returns
    -------
    Place
        Nothing has been opened; what a place is was asked of the file system only.
    """
    if rules.policy is Policy.DENY:
        text = "is another file, and none is opened here (links='deny')"
        return _nowhere(recorded, (), text, ErrorKind.REFUSED, by_policy=True)
    if not recorded or "\0" in recorded:
        return _nowhere(recorded, (), "is no file name", ErrorKind.MISSING)
    if _URL.match(recorded):
        return _nowhere(recorded, (), "is a URL; only files of this machine are opened", ErrorKind.REFUSED)
    if _WINDOWS.match(recorded):
        return _nowhere(recorded, (), "is a name of another machine (a Windows path)", ErrorKind.MISSING)
    tried: list[Path] = []
    for candidate in _candidates(recorded, kind, Path(linking), rules):
        tried.append(candidate)
        place = _look_at(recorded, candidate, tuple(tried), rules)
        if place is not None:
            return place
    return _nowhere(recorded, tuple(tried), "does not exist", ErrorKind.MISSING)


def taken_instead(place: Place, linking: str | Path) -> Path | None:
    """Return the file of the working folder that HDF5 takes for an external link, where we take another; else ``None``.

    HDF5 looks beside the name the linking file was opened by, in the working folder, and then beside the file that
    this name, a symbolic link, leads to.

    Parameters
    ----------
    place : Place
        Where the link leads for us; something is there.
    linking : str or pathlib.Path
        The file that has the link, by the name it was opened by.
    """
    real = Path(os.path.realpath(linking)).parent
    if real == Path(linking).absolute().parent:
        return None
    name = PurePosixPath(place.recorded).name if place.recorded.startswith("/") else place.recorded
    if place.tried[-1] != real / name:
        return None
    here = Path.cwd() / name
    return here if here.exists() and Path(os.path.realpath(here)) != place.path else None


def prefixes(kind: LinkKind) -> tuple[str, ...]:
    """Return the folders that HDF5's environment variable puts in front of recorded names; usually none.

    Parameters
    ----------
    kind : LinkKind
        ``EXTERNAL``, ``VIRTUAL`` or ``RAW``.
    """
    value = os.environ.get(PREFIX_VARIABLES[kind], "") if kind is LinkKind.EXTERNAL else AT_START[kind]
    if kind is LinkKind.RAW:
        return (value,) if value else ()
    return tuple(part for part in value.split(":") if part)


def folders(kind: LinkKind, linking: str | Path, rules: Rules) -> list[Path]:
    """Return the folders in which a relative name is looked for, in order.

    Parameters
    ----------
    kind, linking, rules
        As for :func:`find_file`.
    """
    real = Path(os.path.realpath(linking)).parent
    if rules.policy is not Policy.ALLOW:
        return [real]
    folder = Path(linking).absolute().parent
    beside = [folder] if folder == real else [folder, real]
    named = [_expanded(prefix, folder, kind) for prefix in prefixes(kind)]
    # raw files are looked for in one place only: HDF5 puts the folder in front, whatever comes of it
    return named if named and kind is LinkKind.RAW else [*named, *beside]


def _expanded(prefix: str, folder: Path, kind: LinkKind) -> Path:
    if kind is not LinkKind.EXTERNAL and prefix.startswith(ORIGIN):
        return Path(f"{folder}/{prefix.removeprefix(ORIGIN)}")
    return Path(prefix).absolute()


def _candidates(recorded: str, kind: LinkKind, linking: Path, rules: Rules) -> list[Path]:
    if not recorded.startswith("/"):
        return [folder / recorded for folder in folders(kind, linking, rules)]
    if rules.policy is not Policy.ALLOW or kind is LinkKind.RAW:
        return [Path(recorded)]
    last = PurePosixPath(recorded).name
    return [Path(recorded), *(folder / last for folder in folders(kind, linking, rules))]


def _look_at(recorded: str, candidate: Path, tried: tuple[Path, ...], rules: Rules) -> Place | None:
    """Return what is at one place; ``None`` if nothing is there and the next place may be tried."""
    try:
        real = Path(os.path.realpath(candidate))
        if rules.root is not None and not real.is_relative_to(rules.root):
            there = "lies" if str(real) == os.path.normpath(recorded) else f"leads to {real},"
            text = f"{there} outside of {rules.root}"
            return _nowhere(recorded, tried, text, ErrorKind.REFUSED, by_policy=True)
        mode = real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return _nowhere(recorded, tried, "may not be looked at by this user", ErrorKind.PERMISSION)
    except (OSError, ValueError) as error:  # a name too long, symbolic links in a circle
        return _nowhere(recorded, tried, f"can't be looked at: {error}", ErrorKind.MISSING)
    for is_kind, text in _KINDS:
        if is_kind(mode):
            return _nowhere(recorded, tried, text, ErrorKind.REFUSED)
    return Place(recorded=recorded, path=real, tried=tried)


def _nowhere(
    recorded: str, tried: tuple[Path, ...], problem: str, kind: ErrorKind, *, by_policy: bool = False
) -> Place:
    return Place(recorded=recorded, path=None, tried=tried, problem=problem, kind=kind, by_policy=by_policy)
