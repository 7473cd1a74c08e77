"""What a recovery found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_FEW = 10
"""Up to so many datasets are all printed; of more, those of at most one row are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredDataset:
    """One dataset of a recovered file.

    Parameters
    ----------
    name : str
        Absolute path inside the file.
    kept : int
        Rows in the recovered file: the first so many. A single value is one row.
    lost : int
        Rows after those that are known to have been there and can't be had. Of a recording never rows that were
        acknowledged, unless the journal itself is damaged; it is kept then.
    damaged : tuple of (int, int)
        Rows among those kept whose content is lost, from the first up to, and without, the second of each pair: they
        read as NaN, or as the fill value where there is no NaN. Only in files that another program left.
    why : str
        Why rows are lost or damaged, if that is known.
    """

    name: str
    kept: int
    lost: int
    damaged: tuple[tuple[int, int], ...] = ()
    why: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: {self.kept} rows kept"
        if self.lost:
            text += f", {self.lost} lost"
        if self.damaged:
            text += ", damaged: rows " + ", ".join(f"{start} to {stop - 1}" for start, stop in self.damaged)
        return text + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What :func:`nwbflow.recover` did.

    Parameters
    ----------
    path : pathlib.Path
        The finished file; the one that was given if there was nothing to recover.
    datasets : tuple of RecoveredDataset
        Every recorded dataset, or every dataset of a file that another program left; empty if there was nothing to
        recover.
    notes : tuple of str
        What a careful reader should know.
    journal : pathlib.Path, optional
        Where the journal is kept, if it is damaged.
    repaired : tuple of str
        What was wrong with the file, and was set right.
    lost : tuple of str
        What could not be read besides rows of datasets, and why.
    placeholders : tuple of str
        What NWB requires and was not there: it was filled with a value that says nothing.
    invalid : tuple of str
        What ``pynwb.validate`` still has to say against the finished file.
    original : pathlib.Path, optional
        Where the damaged file is now, if the finished one took its place.
    """

    path: Path
    datasets: tuple[RecoveredDataset, ...]
    notes: tuple[str, ...] = ()
    journal: Path | None = None
    repaired: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    original: Path | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be lost, damaged, or filled in."""
        harmed = any(dataset.lost or dataset.damaged for dataset in self.datasets)
        return not (harmed or self.lost or self.placeholders or self.invalid or self.journal)

    def __str__(self) -> str:
        lines = [f"{self.path}: " + ("recovered" if self.datasets else "nothing to recover")]
        few = len(self.datasets) <= _FEW
        shown = [found for found in self.datasets if few or found.kept > 1 or found.lost or found.damaged]
        lines += [f"  {dataset}" for dataset in shown]
        if len(shown) < len(self.datasets):
            lines.append(f"  and {len(self.datasets) - len(shown)} datasets of at most one row, whole")
        told = (
            ("repaired", self.repaired),
            ("lost", self.lost),
            ("placeholder", self.placeholders),
            ("not valid", self.invalid),
            ("note", self.notes),
        )
        return "\n".join([*lines, *(f"  {kind}: {text}" for kind, texts in told for text in texts)])
