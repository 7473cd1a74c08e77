"""Places that are no paths: addresses in an object store."""

from __future__ import annotations

from pathlib import Path, PosixPath


class Address(PosixPath):
    """The address of a store, such as ``s3://bucket/x.nwb.zarr``, where results and events have a path.

    As text it is the address; what is derived from it (``parent``) is a plain path.

    Parameters
    ----------
    url : str
        The address.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._url = url

    def with_segments(self, *segments: object) -> Path:  # type: ignore[override]
        """Return a plain path: two slashes become one in it."""
        return Path(*(str(segment) for segment in segments))

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"Address({self._url!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Address, (self._url,))


def is_address(path: object) -> bool:
    """Return whether something is an address in an object store, and not a path: it has ``://`` in it."""
    return isinstance(path, Address) or (isinstance(path, str) and "://" in path)
