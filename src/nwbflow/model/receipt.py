"""What a write did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nwbflow.model.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReceipt:
    """What was stored for one dataset.

    Parameters
    ----------
    name : str
        Absolute path inside the file.
    layout : Layout
        Final shape, type, chunks and filters.
    chunks : int
        Number of chunks stored (1 where storage is contiguous).
    raw_bytes, stored_bytes : int
        Bytes before and after filters.
    read_seconds, encode_seconds, store_seconds : float
        Time spent waiting for data, encoding (summed over workers), and storing.
    encoded_by : str
        ``"nwbflow"`` (in parallel, outside HDF5), ``"Dask"`` (the same, by the workers of a cluster), ``"processes"``
        (of this machine), ``"MPI"`` (by the ranks of a program), ``"HDF5"`` or ``"zarr-python"`` (its own filters,
        one thread),
        ``"none"`` (no filters) or ``"its source"`` (a copy: the chunks were taken over as they were).
    unwritten : int
        Elements no block ever covered, at least; they read as the fill value. Exact unless blocks overlap.
    crc32 : int
        CRC-32 over the stored chunks' CRC-32 values in storage order.
    """

    name: str
    layout: Layout
    chunks: int
    raw_bytes: int
    stored_bytes: int
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    store_seconds: float = 0.0
    encoded_by: str = "nwbflow"
    unwritten: int = 0
    crc32: int = 0

    @property
    def ratio(self) -> float:
        """Bytes before filters for one byte after."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFile:
    """A finished file that was sent to an object store.

    Parameters
    ----------
    size : int
        Of the file, in bytes.
    parts, kept : int
        Parts it was sent in, and how many of them an earlier, interrupted call had sent.
    tag : str
        What the server calls its content: for most, the MD5 of the parts' MD5s and their number.
    seconds : float
        Wall time of sending and comparing.
    """

    size: int
    parts: int
    kept: int
    tag: str
    seconds: float

    def __str__(self) -> str:
        kept = f", {self.kept} of them sent before" if self.kept else ""
        parts = f"{self.parts} {'part' if self.parts == 1 else 'parts'}"
        return f"sent: {self.size / 1e6:.1f} MB in {parts}{kept}, {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What one write did, as a whole.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    datasets : tuple of DatasetReceipt
        The large arrays, in the order of their completion.
    seconds, structure_seconds, fill_seconds, verify_seconds, publish_seconds : float
        Wall time: whole, structure and metadata (PyNWB's part), large arrays, verification,
        and sync plus rename.
    verified : str
        ``"stored"``, ``"full"`` or ``"no"``.
    sent : SentFile or None
        What was sent, where a finished file went to an object store.
    linked : mapping of str to str
        Paths of what is not in the file itself (links, datasets over other files' data), each with where it is.
    notes : tuple of str
        What a careful reader should know: settings that could not be met as asked, filters
        run by HDF5, elements never written.
    """

    path: Path
    datasets: tuple[DatasetReceipt, ...]
    seconds: float
    structure_seconds: float = 0.0
    fill_seconds: float = 0.0
    verify_seconds: float = 0.0
    publish_seconds: float = 0.0
    verified: str = "no"
    linked: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())
    sent: SentFile | None = None

    @property
    def raw_bytes(self) -> int:
        """Bytes of the large arrays before filters."""
        return sum(d.raw_bytes for d in self.datasets)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the large arrays after filters."""
        return sum(d.stored_bytes for d in self.datasets)

    @property
    def ratio(self) -> float:
        """Bytes before filters for one byte after."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else 1.0

    def __str__(self) -> str:
        mb = 1e6
        speed = f", {self.raw_bytes / mb / self.seconds:.0f} MB/s" if self.seconds > 0 and self.raw_bytes else ""
        lines = [
            f"{self.path}: {self.raw_bytes / mb:.1f} MB in, {self.stored_bytes / mb:.1f} MB stored "
            f"(ratio {self.ratio:.2f}), {self.seconds:.2f} s{speed}, verified: {self.verified}"
        ]
        lines += [
            f"  {d.name}: {d.layout.shape} {d.layout.dtype}, {d.chunks} chunks of {d.layout.chunks}, "
            f"ratio {d.ratio:.2f}, encoded by {d.encoded_by}"
            for d in self.datasets
        ]
        if self.sent is not None:
            lines.append(f"  {self.sent}")
        lines += [f"  linked: {name} -> {where}" for name, where in self.linked.items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
