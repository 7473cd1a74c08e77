"""Names of files and datasets as virtual datasets record them."""

from __future__ import annotations

SAME_FILE = "."
"""HDF5's name for the file that has the virtual dataset."""


def escaped(name: str) -> str:
    """Return a file's or dataset's name as HDF5 wants it in a virtual dataset, where ``%b`` stands for a number."""
    return name.replace("%", "%%")


def unescaped(name: str) -> str:
    """Return the name that a virtual dataset's source has in truth; :func:`escaped` reverses it."""
    return name.replace("%%", "%")
