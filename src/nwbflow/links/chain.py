"""The way to an object: to notice when it leads in a circle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The groups one went through to an object, and the object itself if it is a group.

    Parameters
    ----------
    parent : Chain or None
        Those before.
    key : tuple
        What tells the object from others, and how it was reached.
    id : h5py ObjectID
        Open identifier of the object.
    depth : int
        How many there are.
    """

    parent: Chain | None
    key: tuple[object, ...]
    id: Any
    depth: int = 0

    def earlier(self, key: tuple[object, ...]) -> Chain | None:
        """Return where an object was gone through before, or ``None``."""
        at: Chain | None = self
        while at is not None:
            if at.key == key:
                return at
            at = at.parent
        return None
