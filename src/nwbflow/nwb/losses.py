"""What another reader than ours has left out of a file that is exported: it does not say so itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import h5py

from nwbflow.links.guard import Guard
from nwbflow.links.problems import BrokenLink
from nwbflow.links.resolve import link_of
from nwbflow.links.views import GuardedGroup
from nwbflow.model.links import Policy
from nwbflow.nwb.mending import Lost
from nwbflow.nwb.reading import Reading


@contextlib.contextmanager
def lost_in(exported: Any) -> Iterator[Sequence[Lost]]:
    """Give what was not read of a file that is exported.

    Our readers know. For others, which leave out broken links without keeping them, the file's links are followed
    once more, if it is a plain file on a disk.

    Parameters
    ----------
    exported : HDMFIO or None
        What has read the file; ``None`` if nothing is exported.

    Yields
    ------
    sequence of Lost
        To be used before the end of the ``with`` statement.
    """
    if exported is None or hasattr(exported, "_lost"):
        yield getattr(exported, "_lost", ())
        return
    file = getattr(exported, "_file", None)
    guard = Reading(Policy.ALLOW, verify=False).guard(file, None) if isinstance(file, h5py.File) else None
    if guard is None or not isinstance(file, h5py.File):
        yield ()
        return
    try:
        yield _broken(guard, guard.view(file)["/"])
    finally:
        guard.close_targets()


def _broken(guard: Guard, root: GuardedGroup) -> list[Lost]:
    """Return the links of a file that lead nowhere."""
    found: list[Lost] = []
    seen, left = {root.address}, [root]
    while left:
        group = left.pop()
        for name in group:
            child = guard.look_up(group, group._e(name))
            if not isinstance(link_of(group.id, group._e(name)), h5py.HardLink):
                if isinstance(child, BrokenLink) and guard.barred(child) is None:
                    found.append(Lost(group, name, child))
            elif isinstance(child, GuardedGroup) and child.address not in seen:
                seen.add(child.address)
                left.append(child)
    return found
