"""A link that can't be followed: what it is, where it leads, what is wrong, and the way out."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.model.links import LinkKind, Place

_WHAT = {
    LinkKind.SOFT: "a link to {target}",
    LinkKind.EXTERNAL: "a link to {target}",
    LinkKind.VIRTUAL: "a virtual dataset of {target}",
    LinkKind.RAW: "a dataset over the raw file {target}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLink:
    """A link, or a dataset whose elements lie elsewhere, that can't be read.

    Parameters
    ----------
    file : str
        The file that has it, by the name it was opened with.
    name : str
        Its path in there.
    kind : LinkKind
        What it is.
    target : str
        Where it leads, as recorded; ``file:path`` into another HDF5 file.
    reason : str
        What is wrong, as the end of a sentence.
    error : ErrorKind
        The stable name of that.
    tried : tuple of pathlib.Path
        The places that were looked at, in order.
    way_out : str
        What to do about it; a sentence.
    """

    file: str
    name: str
    kind: LinkKind
    target: str
    reason: str
    error: ErrorKind
    tried: tuple[Path, ...] = ()
    way_out: str = ""

    def __str__(self) -> str:
        what = _WHAT[self.kind].format(target=self.target)
        places = ", ".join(str(path) for path in self.tried)
        looked = f" (looked for at {places})" if places and self.error is ErrorKind.MISSING else ""
        text = f"{self.file}:{self.name} is {what}, which can't be read: {self.reason}{looked}"
        return shown(f"{text}. {self.way_out}" if self.way_out else text)

    def as_error(self) -> LinkError:
        """Return the error to raise."""
        return LinkError(str(self), kind=self.error)


def shown(text: str) -> str:
    """Return text that can be printed: bytes of names that are no UTF-8 as backslash sequences."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def misplaced(place: Place) -> str:
    """Return why a recorded file name leads nowhere, as a clause."""
    return f"{place.recorded} {place.problem}"


def way_out(place: Place, linking: str, opened: str = "") -> str:
    """Return what to do about a recorded file name that leads nowhere.

    Parameters
    ----------
    place : Place
        Where it leads.
    linking : str
        The file that has the link.
    opened : str
        The file that was asked for, if that is another one.
    """
    opened = opened or linking
    if place.by_policy:
        return f"If you trust {opened}, open it with links='allow': nwbflow.open({opened!r}, links='allow')"
    relocate = f"nwbflow links relocate {shlex.quote(place.recorded)} NEW {shlex.quote(linking)}"
    if place.kind is ErrorKind.REFUSED:
        return f"Only files on this machine's disks are read; lead it to one: {relocate}"
    if place.kind is ErrorKind.MISSING and os.path.realpath(linking) != os.path.normpath(Path(linking).absolute()):
        return (
            f"{linking} is a symbolic link to {os.path.realpath(linking)}, and names count from there. To have them "
            f"count from {Path(linking).absolute().parent} too, if you trust it: "
            f"nwbflow.open({opened!r}, links='allow'). If it was moved: {relocate}"
        )
    return f"If it was moved: {relocate}"
