"""How links are followed when a file is read, and whether they are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py

from nwbflow.errors import ErrorKind, LinkError, SettingsError
from nwbflow.links.check import check_links
from nwbflow.links.guard import Guard
from nwbflow.links.inventory import LinkState
from nwbflow.links.places import Rules
from nwbflow.model.links import Policy


@dataclass(frozen=True, slots=True)
class Reading:
    """How links are followed when a file is read.

    Parameters
    ----------
    links : Policy
        Which other files may be opened.
    verify : bool
        Whether what links lead to is compared with what was recorded when they were made.
    """

    links: Policy
    verify: bool

    @classmethod
    def of(cls, links: str, verify: bool) -> Reading:
        """Return the settings.

        Raises
        ------
        nwbflow.errors.SettingsError
            If there is no such policy.
        """
        try:
            return cls(Policy(links), bool(verify))
        except ValueError as error:
            raise SettingsError(
                f"links={links!r}: give {', '.join(repr(str(p)) for p in Policy)}", kind=ErrorKind.OPTION
            ) from error

    def guard(self, file: h5py.File, locking: bool | str | None) -> Guard | None:
        """Return what follows the links of an open file; ``None`` if it is not a plain file on a disk.

        Parameters
        ----------
        file : h5py.File
            Open.
        locking : bool or str, optional
            As in :class:`h5py.File`.

        Raises
        ------
        nwbflow.errors.SettingsError
            If its links can't be followed by us, and must not be by HDF5.
        """
        if type(file) is h5py.File and file and file.driver == "sec2" and Path(file.filename).is_file():
            return Guard(Rules.of(self.links, file.filename), locking)
        self.refuse_others()
        return None

    def refuse_others(self) -> None:
        """Refuse to promise anything for files that we can't open ourselves.

        Raises
        ------
        nwbflow.errors.SettingsError
            If something was asked for.
        """
        asked = [] if self.links is Policy.ALLOW else [f"links={str(self.links)!r}"]
        asked += ["verify_links=True"] if self.verify else []
        if asked:
            raise SettingsError(
                f"{' and '.join(asked)} can be kept up for files on a disk only, opened by name and without `driver` "
                "or `comm`. Leave it out, or give the path alone",
                kind=ErrorKind.OPTION,
            )

    def compare(self, path: str, rules: Rules) -> None:
        """Compare what a file's links lead to with what was recorded when they were made, if that was asked for.

        Parameters
        ----------
        path : str
            The file.
        rules : Rules
            What may be opened on its behalf.

        Raises
        ------
        nwbflow.errors.LinkError
            If something has changed; every difference is listed.
        """
        if not self.verify:
            return
        changed = [link for link in check_links(path, rules=rules).links if link.state is LinkState.CHANGED]
        if changed:
            listed = "\n".join("\n    ".join([link.entry.path, *link.differences]) for link in changed)
            raise LinkError(
                f"{path}: what was linked has changed since:\n{listed}\n"
                "To read it all the same, leave verify_links out",
                kind=ErrorKind.CHANGED,
            )
