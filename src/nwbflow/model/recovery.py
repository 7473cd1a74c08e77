"""What a recovery found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredDataset:
    """One dataset of a recovered recording.

    Parameters
    ----------
    name : str
        Absolute path inside the file.
    kept : int
        Rows in the recovered file: the first so many of the recording.
    lost : int
        Rows after those that are known to have been there and can't be had without a gap. Never rows that were
        acknowledged, unless the journal itself is damaged; it is kept then.
    """

    name: str
    kept: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What :func:`nwbflow.recover` did.

    Parameters
    ----------
    path : pathlib.Path
        The finished file.
    datasets : tuple of RecoveredDataset
        Every recorded dataset; empty if there was nothing to recover.
    notes : tuple of str
        What a careful reader should know.
    journal : pathlib.Path, optional
        Where the journal is kept, if it is damaged.
    """

    path: Path
    datasets: tuple[RecoveredDataset, ...]
    notes: tuple[str, ...] = ()
    journal: Path | None = None

    def __str__(self) -> str:
        lines = [f"{self.path}: " + ("recovered" if self.datasets else "nothing to recover")]
        for dataset in self.datasets:
            lost = f", {dataset.lost} lost" if dataset.lost else ""
            lines.append(f"  {dataset.name}: {dataset.kept} rows kept{lost}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])
