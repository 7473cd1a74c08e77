"""What a file says about its storage, in words and numbers; :func:`nwbflow.tools.inspect.inspect_file` makes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nwbflow.model.layout import Filter, MaxShape, Shape

type Storage = Literal["contiguous", "chunked", "compact", "external", "virtual"]
"""How a dataset's elements lie on disk; ``external`` is raw binary files, ``virtual`` other datasets."""

type LinkKind = Literal["soft", "external", "hard"]
"""``soft`` is a path in the same file, ``external`` a path in another, ``hard`` a second name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """What one dataset says about its storage.

    Parameters
    ----------
    path : str
        Absolute path inside the file.
    neurodata_type : str or None
        The dataset's own ``neurodata_type`` (table columns have one), else that of the group it lies in.
    shape, maxshape : tuple or None
        Present and largest lengths of the axes, in elements; ``None`` for a dataset without elements
        (a null dataspace).
    dtype : str
        Type of the elements, as numpy writes it; ``text``, ``object reference`` and the like where numpy has none.
    storage : {"contiguous", "chunked", "compact", "external", "virtual"}
        Where the elements are.
    sources : tuple of str
        Raw files (``external``) or ``file:dataset`` (``virtual``), as written in the file.
    chunks : tuple of int or None
        Chunk shape, in elements.
    filters : tuple of Filter
        The pipeline, in the order of writing.
    filters_text : str
        The same for readers, e.g. ``shuffle + gzip 4``.
    raw_bytes : int
        Bytes before filters. Of variable-length elements only their 16 bytes of address count.
    stored_bytes : int
        Bytes that HDF5 holds for it in this file, after filters; 0 for ``external`` and ``virtual``.
    chunks_stored, chunks_total : int or None
        Chunks in the file, and chunks the present shape needs; ``None`` unless chunked. A file half
        written has fewer than it needs; so has one that leaves chunks at the fill value on purpose.
    """

    path: str
    neurodata_type: str | None
    shape: Shape | None
    maxshape: MaxShape | None
    dtype: str
    storage: Storage
    sources: tuple[str, ...]
    chunks: Shape | None
    filters: tuple[Filter, ...]
    filters_text: str
    raw_bytes: int
    stored_bytes: int
    chunks_stored: int | None
    chunks_total: int | None

    @property
    def ratio(self) -> float | None:
        """Bytes before filters for one byte after; ``None`` where nothing is stored in this file."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else None

    @property
    def complete(self) -> bool:
        """Whether every chunk the present shape needs is in the file."""
        return self.chunks_stored is None or self.chunks_total is None or self.chunks_stored >= self.chunks_total

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-serialisable values."""
        return {**_plain(asdict(self)), "ratio": self.ratio, "complete": self.complete}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReport:
    """A name that leads to an object elsewhere; whether it is there is not looked up.

    Parameters
    ----------
    path : str
        Absolute path of the link inside the file.
    kind : {"soft", "external", "hard"}
        See :data:`LinkKind`.
    target : str
        Path inside the file the link leads to.
    file : str or None
        The other file, as written (``external`` only).
    """

    path: str
    kind: LinkKind
    target: str
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over a file.

    Parameters
    ----------
    datasets, links : int
        How many there are.
    raw_bytes, stored_bytes : int
        Before and after filters, of the datasets whose elements are in this file.
    other_bytes : int
        The rest of the file: metadata, text, attributes, unused space.
    chunks_stored, chunks_total : int
        Over all chunked datasets.
    """

    datasets: int
    links: int
    raw_bytes: int
    stored_bytes: int
    other_bytes: int
    chunks_stored: int
    chunks_total: int

    @property
    def ratio(self) -> float | None:
        """Bytes before filters for one byte after; ``None`` where nothing is stored."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What one HDF5 file says about its storage.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    file_bytes : int
        Its size.
    nwb_version : str or None
        As the file gives it; ``None`` if it is no NWB file.
    datasets : tuple of DatasetReport
        Every dataset once, by path.
    links : tuple of LinkReport
        Every soft and external link, and second names of objects, by path.
    problems : tuple of str
        What could not be read, with its path (damaged files).
    """

    path: Path
    file_bytes: int
    nwb_version: str | None
    datasets: tuple[DatasetReport, ...]
    links: tuple[LinkReport, ...]
    problems: tuple[str, ...] = ()

    @property
    def totals(self) -> Totals:
        """Sums over the datasets."""
        inside = [d for d in self.datasets if d.storage not in ("external", "virtual")]
        stored = sum(d.stored_bytes for d in inside)
        return Totals(
            datasets=len(self.datasets),
            links=len(self.links),
            raw_bytes=sum(d.raw_bytes for d in inside),
            stored_bytes=stored,
            other_bytes=max(0, self.file_bytes - stored),
            chunks_stored=sum(d.chunks_stored or 0 for d in inside),
            chunks_total=sum(d.chunks_total or 0 for d in inside),
        )

    @property
    def complete(self) -> bool:
        """Whether everything could be read and no dataset lacks a chunk."""
        return not self.problems and all(d.complete for d in self.datasets)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-serialisable values."""
        return {
            "path": str(self.path),
            "file_bytes": self.file_bytes,
            "nwb_version": self.nwb_version,
            "complete": self.complete,
            "totals": asdict(self.totals) | {"ratio": self.totals.ratio},
            "datasets": [d.to_json() for d in self.datasets],
            "links": [asdict(link) for link in self.links],
            "problems": list(self.problems),
        }


def _plain(value: Any) -> Any:
    """Make lists of tuples, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
