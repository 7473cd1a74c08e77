"""Where encoded chunks go."""

from __future__ import annotations

from typing import Any, Protocol

from nwbflow.model.data import Array, Region
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Layout, Shape


class Sink(Protocol):
    """One dataset being filled; used by one thread at a time.

    After any method raised :class:`nwbflow.errors.StorageError` the sink is not used again.
    """

    @property
    def backend(self) -> str:
        """Whose own filters :meth:`write` and :meth:`read` go through, such as ``"HDF5"``."""
        ...

    @property
    def layout(self) -> Layout:
        """What was really created, read back from the file."""
        ...

    def put(self, offset: tuple[int, ...], chunk: Encoded, /) -> None:
        """Store one encoded chunk whose first element lies at `offset`."""
        ...

    def get(self, offset: tuple[int, ...], /) -> bytes:
        """Return the stored bytes of the chunk at `offset`."""
        ...

    def write(self, region: Region, data: Array, /) -> None:
        """Store decoded elements through the backend's own filters."""
        ...

    def scatter(self, selection: Any, data: Array, /) -> None:
        """Store decoded elements at any selection the backend understands."""
        ...

    def read(self, region: Region, /) -> Array:
        """Return decoded elements through the backend's own filters."""
        ...

    def resize(self, shape: Shape, /) -> None:
        """Set the dataset's present shape."""
        ...

    @property
    def shape(self) -> Shape:
        """The dataset's present shape."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Bytes the dataset takes in the file after filters."""
        ...
