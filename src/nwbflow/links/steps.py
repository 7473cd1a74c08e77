"""What is counted and kept while one name is followed."""

from __future__ import annotations

from dataclasses import dataclass, field

from nwbflow.model.links import Place

MOST_LINKS = 16
"""Links followed for one name, as in HDF5 (H5Pset_nlinks); more are a circle."""


@dataclass(slots=True)
class Steps:
    """The links followed for one name.

    Parameters
    ----------
    left : int
        How many may still be.
    crossed : list of (Place, str)
        Where external links on the way led, and the file that has each.
    """

    left: int = MOST_LINKS
    crossed: list[tuple[Place, str]] = field(default_factory=list)
