"""What is in a Zarr store, array by array: shapes, chunks, shards, codecs, sizes, links, and how far a write got."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nwbflow.encoding.codecs import describe
from nwbflow.errors import ErrorKind, TargetError
from nwbflow.model.layout import Layout
from nwbflow.nwb.stores import need_zarr
from nwbflow.sinks.folder import is_store
from nwbflow.tools.storage_report import DatasetReport, FileReport, LinkReport


def size_on_disk(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def inspect_store(path: str | Path) -> FileReport:
    """Report on every array and link of a Zarr v3 store in a folder; no data are read.

    Parameters
    ----------
    path : str or pathlib.Path
        The folder, also the ``.partial`` one that an interrupted write left.

    Returns
    -------
    FileReport
        As for HDF5 files.

    Raises
    ------
    nwbflow.errors.TargetError
        If it is a folder of something else, or of an older Zarr.
    nwbflow.errors.UnsupportedError
        If hdmf-zarr is missing.
    """
    need_zarr()
    import zarr

    folder = Path(path)
    if not any(folder.iterdir()) or not is_store(folder):
        raise TargetError(f"{folder} is a folder, and no Zarr store", kind=ErrorKind.FOLDER)
    if not (folder / "zarr.json").is_file():
        raise TargetError(
            f"{folder} is a Zarr v2 store, which isn't inspected; hdmf_zarr.NWBZarrV2IO reads it", kind=ErrorKind.FOLDER
        )
    try:
        root = zarr.open_group(folder, mode="r", zarr_format=3, use_consolidated=False)
    except Exception as error:  # whatever zarr-python makes of it
        raise TargetError(f"{folder} can't be opened as a Zarr v3 store: {error}", kind=ErrorKind.IO) from error
    members: list[tuple[str, Any]] = [("/", root), *((f"/{p}", m) for p, m in root.members(max_depth=None))]
    groups = {name: member for name, member in members if isinstance(member, zarr.Group)}
    return FileReport(
        path=folder,
        file_bytes=size_on_disk(folder),
        nwb_version=_text(root.attrs.get("nwb_version")),
        datasets=tuple(
            sorted(
                (_report(folder, name, m, groups) for name, m in members if isinstance(m, zarr.Array)),
                key=lambda d: d.path,
            )
        ),
        links=tuple(link for name, group in sorted(groups.items()) for link in _links(name, group)),
        problems=(),
    )


def _report(folder: Path, name: str, array: Any, groups: dict[str, Any]) -> DatasetReport:
    from nwbflow.sinks.zarr import layout_of_array

    parent = groups.get(name.rpartition("/")[0] or "/")
    own = array.attrs.get("neurodata_type")
    layout = layout_of_array(array)
    filters = layout.filters if layout.dtype.kind in "biufc" else ()
    place = folder / name.strip("/")
    files = [file for file in place.rglob("*") if file.is_file() and file.name != "zarr.json"]
    scalar = layout.shape == ()
    chunks = layout.chunks or ()
    return DatasetReport(
        path=name,
        neurodata_type=_text(own) or (None if parent is None else _text(parent.attrs.get("neurodata_type"))),
        shape=layout.shape,
        maxshape=tuple(None for _ in layout.shape),
        dtype="text" if layout.dtype.kind in "TUOS" else str(layout.dtype),
        storage="contiguous" if scalar else "chunked",
        sources=(),
        chunks=None if scalar else layout.chunks,
        filters=filters,
        filters_text=describe(filters) + ("" if layout.shards is None else f", in shards of {layout.shards}"),
        raw_bytes=math.prod(layout.shape) * layout.dtype.itemsize,
        stored_bytes=sum(file.stat().st_size for file in files),
        chunks_stored=None if scalar else _count(layout, files),
        chunks_total=None if scalar else math.prod(-(-n // c) for n, c in zip(layout.shape, chunks, strict=True)),
    )


def _count(layout: Layout, files: list[Path]) -> int | None:
    """Return how many chunks the shards hold; ``None`` where each is a file: those of nothing but zeros have none."""
    from nwbflow.sinks.shards import ABSENT, index_bytes, parse_index

    if layout.shards is None:
        return None
    count = math.prod(s // c for s, c in zip(layout.shards, layout.chunks or (), strict=True))
    stored = 0
    for file in files:
        with file.open("rb") as handle:
            handle.seek(-index_bytes(count), 2)
            index = parse_index(handle.read(), count)
        stored += 0 if index is None else int(np.count_nonzero(index[:, 0] != ABSENT))
    return stored


def _links(name: str, group: Any) -> Iterator[LinkReport]:
    for link in group.attrs.get("_LINKS", ()):
        inside = link.get("source") in (".", None)
        yield LinkReport(
            path=f"{name.rstrip('/')}/{link['name']}",
            kind="soft" if inside else "external",
            target=str(link["path"]),
            file=None if inside else str(link["source"]),
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
