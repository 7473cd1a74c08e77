"""What writing a file anew did to what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nwbflow.model.receipt import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not in the result as it was in the source.

    Parameters
    ----------
    place : str
        Path of the object, with ``@name`` of an attribute behind it.
    text : str
        What became of it.
    """

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repacked:
    """What :func:`nwbflow.repack` did; printable.

    Parameters
    ----------
    path : pathlib.Path
        The new file or store.
    receipt : Receipt
        Sizes, times, codecs and checks of the large arrays.
    lost : tuple of Difference
        What is in the source and not in the result, because its backend has no place for it.
    changed : tuple of Difference
        What is there in another form: types of attributes, kinds of links, chunks and codecs that the backend does
        not have.
    objects, attributes, elements : int
        How many groups and datasets, attributes, and elements of datasets that were not moved by the engine, were
        compared with the source and found equal or are in `lost` or `changed`.
    raw_copied : int
        Datasets whose stored chunks were taken over as they were.
    """

    path: Path
    receipt: Receipt
    lost: tuple[Difference, ...]
    changed: tuple[Difference, ...]
    objects: int
    attributes: int
    elements: int
    raw_copied: int

    @property
    def complete(self) -> bool:
        """Whether nothing is lost."""
        return not self.lost

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.objects} groups and datasets and {self.attributes} attributes compared with the "
            f"source, {len(self.lost)} lost, {len(self.changed)} in another form"
        ]
        lines += [f"  lost: {one}" for one in self.lost]
        lines += [f"  in another form: {text}" for text in grouped(self.changed)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the differences and counts as JSON-serialisable values."""
        return {
            "path": str(self.path),
            "complete": self.complete,
            "lost": [{"place": one.place, "text": one.text} for one in self.lost],
            "changed": [{"place": one.place, "text": one.text} for one in self.changed],
            "objects": self.objects,
            "attributes": self.attributes,
            "elements": self.elements,
            "raw_copied": self.raw_copied,
        }


def grouped(differences: tuple[Difference, ...], *, shown: int = 3) -> list[str]:
    """Return one line for each kind of change, with the first few places.

    Parameters
    ----------
    differences : tuple of Difference
        The changes.
    shown : int
        Places to name; of more the number.
    """
    places: dict[str, list[str]] = {}
    for one in differences:
        places.setdefault(one.text, []).append(one.place)
    return [f"{_some(found, shown)}: {text}" for text, found in places.items()]


def _some(places: list[str], shown: int) -> str:
    more = len(places) - shown
    named = ", ".join(places if more <= 1 else places[:shown])
    return named if more <= 1 else f"{named} and {more} more"
