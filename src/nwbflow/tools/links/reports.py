"""What was done to the links of files, or would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nwbflow.links.problems import shown
from nwbflow.model.links import LinkKind

RAW_NOTE = (
    "raw files are recorded by relative names: nwbflow finds them from any folder, other programs only if started in "
    "this one, or with HDF5_EXTFILE_PREFIX='${ORIGIN}' in their environment. 'nwbflow links absolute' mends that, and "
    "so does one file with everything in it (nwbflow links embed)"
)
"""Of files whose raw files have relative names."""


def names_note(path: Path) -> Iterator[str]:
    """Give what is to be said of a file that has several names (hard links), since only one gets the changed copy.

    Parameters
    ----------
    path : pathlib.Path
        The file, before it is changed.
    """
    count = path.stat().st_nlink
    if count > 1:
        yield (f"{path} has {count} names (hard links): this one gets the changed file, the others keep the old one")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkChange:
    """Other file names in one link, virtual or raw dataset.

    Parameters
    ----------
    path : str
        Its path in the file.
    kind : LinkKind
        What it is.
    names : mapping of str to str
        The new names by the old ones, as recorded.
    """

    path: str
    kind: LinkKind
    names: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        names = {shown(old): shown(new) for old, new in self.names.items()}
        return {"path": shown(self.path), "kind": str(self.kind), "names": names}


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameReport:
    """What was recorded anew in one file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    changes : tuple of LinkChange
        By path; none if nothing had to change.
    written : bool
        Whether the file was changed: not in a dry run, nor where nothing had to.
    notes : tuple of str
        What a careful user wants to know.
    """

    path: Path
    changes: tuple[LinkChange, ...]
    written: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {
            "path": shown(str(self.path)),
            "changes": [change.to_json() for change in self.changes],
            "written": self.written,
            "notes": [shown(note) for note in self.notes],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """One link, virtual or raw dataset that became part of the file.

    Parameters
    ----------
    path : str
        Its path in the file.
    kind : LinkKind
        What it was.
    source : str
        Where its content came from.
    same_as : str
        The path it is a soft link to now, where the content is in the file already; else empty.
    nbytes : int
        Bytes that were, or would be, copied for it.
    """

    path: str
    kind: LinkKind
    source: str
    same_as: str
    nbytes: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {
            "path": shown(self.path),
            "kind": str(self.kind),
            "source": shown(self.source),
            "same_as": shown(self.same_as),
            "nbytes": self.nbytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """What was embedded in a file.

    Parameters
    ----------
    path : pathlib.Path
        The file that has it all.
    embedded : tuple of Embedded
        By path.
    written : bool
        Whether the file was written: not in a dry run, nor where nothing was to be embedded.
    notes : tuple of str
        What a careful user wants to know.
    """

    path: Path
    embedded: tuple[Embedded, ...]
    written: bool
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes that were, or would be, copied."""
        return sum(item.nbytes for item in self.embedded)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {
            "path": shown(str(self.path)),
            "embedded": [item.to_json() for item in self.embedded],
            "nbytes": self.nbytes,
            "written": self.written,
            "notes": [shown(note) for note in self.notes],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """A folder made of a file and everything it links to.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.
    files : mapping of str to pathlib.Path
        Where each file in it came from, by its name there; the bundled file first.
    nbytes : int
        Bytes of all of them.
    notes : tuple of str
        What a careful user wants to know.
    written : bool
        Whether it was made: not in a dry run.
    """

    folder: Path
    files: Mapping[str, Path]
    nbytes: int
    notes: tuple[str, ...]
    written: bool

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {
            "folder": shown(str(self.folder)),
            "files": {shown(name): shown(str(path)) for name, path in self.files.items()},
            "nbytes": self.nbytes,
            "notes": list(self.notes),
            "written": self.written,
        }
