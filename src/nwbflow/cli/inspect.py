"""``nwbflow inspect``: what is in a file, and how far an interrupted write got."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nwbflow.cli.screens import DIM, clean, out, print_json, ratio, say, shape, size
from nwbflow.tools.inspect import inspect_file
from nwbflow.tools.inspect_store import inspect_store
from nwbflow.tools.storage_report import DatasetReport, FileReport

SMALL = 64 * 2**10
"""Complete datasets of at most this many bytes are summed up in one line."""

MOST_LINKS = 10
"""Links shown unless all are asked for."""


def inspect(
    file: Path,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Show what an HDF5 file or Zarr store (NWB or not) holds: shapes, chunks, filters, sizes, links.

    Reads no data and follows no links. For the NAME.partial an interrupted write
    left it says how far that got.

    Parameters
    ----------
    file
        The file or folder. It is only read.
    all_
        Show small datasets too, each in a row of its own.
    json
        Print the report as one JSON object.
    """
    report = inspect_store(file) if file.is_dir() else inspect_file(file)
    if json:
        print_json(report.to_json())
    else:
        _print(report, everything=all_)


def _print(report: FileReport, *, everything: bool) -> None:
    console = out()
    version = (
        f"NWB {report.nwb_version}" if report.nwb_version else f"{'Zarr' if report.path.is_dir() else 'HDF5'}, not NWB"
    )
    say(console, (str(report.path), "bold"), f"  {version}, {size(report.file_bytes)}")
    shown = [d for d in report.datasets if everything or _matters(d)]
    rest = [d for d in report.datasets if not (everything or _matters(d))]
    if shown:
        console.print(_table(shown))
    if rest:
        stored = size(sum(d.stored_bytes for d in rest))
        noun = "small dataset" if len(rest) == 1 else "small datasets"
        say(console, f"{'and' if shown else 'only'} {len(rest)} {noun}, {stored} together (--all shows them)")
    _print_links(report, console, everything=everything)
    _print_totals(report, console)
    _print_progress(report, console)
    for problem in report.problems:
        say(console, ("can't be read: ", "red"), problem)


def _print_links(report: FileReport, console: Console, *, everything: bool) -> None:
    links = report.links if everything else report.links[:MOST_LINKS]
    for link in links:
        target = f"{link.file}:{link.target}" if link.file is not None else link.target
        say(console, f"{link.kind} link {link.path} -> {target}")
    if len(report.links) > len(links):
        say(console, f"and {len(report.links) - len(links)} more links (--all shows them)")


def _matters(dataset: DatasetReport) -> bool:
    large = max(dataset.raw_bytes, dataset.stored_bytes) > SMALL
    return large or not dataset.complete or dataset.storage in ("external", "virtual") or bool(dataset.filters)


def _table(datasets: list[DatasetReport]) -> Table:
    """Return a table with two lines a row; it fits in 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column(Text("dataset\ntype"), overflow="fold")
    table.add_column(Text("shape\nelements"), overflow="fold")
    table.add_column(Text("chunks\nfilters"), overflow="fold")
    table.add_column(Text("raw\nstored"), justify="right", no_wrap=True)
    table.add_column(Text("ratio"), justify="right", no_wrap=True)
    for at, dataset in enumerate(datasets):
        table.add_row(
            _two(dataset.path, dataset.neurodata_type or ""),
            _two(shape(dataset.shape), dataset.dtype),
            _two(_chunks(dataset), _how(dataset)),
            _two(size(dataset.raw_bytes), size(dataset.stored_bytes)),
            ratio(dataset.ratio),
            end_section=at == len(datasets) - 1,
        )
    return table


def _two(first: str, second: str) -> Text:
    return Text("\n").join([clean(first), Text(clean(second).plain, DIM)]) if second else clean(first)


def _chunks(dataset: DatasetReport) -> str:
    if dataset.chunks is None:
        return dataset.storage
    missing = "" if dataset.complete else f"{dataset.chunks_stored} of "
    return f"{missing}{dataset.chunks_total} of {shape(dataset.chunks)}"


def _how(dataset: DatasetReport) -> str:
    if dataset.sources:
        more = f" and {len(dataset.sources) - 1} more" if len(dataset.sources) > 1 else ""
        return f"in {dataset.sources[0]}{more}"
    return dataset.filters_text if dataset.filters else ""


def _print_totals(report: FileReport, console: Console) -> None:
    totals = report.totals
    noun = "dataset" if totals.datasets == 1 else "datasets"
    say(
        console,
        f"{totals.datasets} {noun}: {size(totals.raw_bytes)} stored as {size(totals.stored_bytes)}, "
        f"ratio {ratio(totals.ratio)}; {size(totals.other_bytes)} of metadata, text and unused space",
    )


def _print_progress(report: FileReport, console: Console) -> None:
    """Say how far a write got, where it did not get to its end."""
    if report.path.suffix == ".partial":
        say(console, ("partial file: ", "yellow"), "what an unfinished write left (or one that is still running).")
        lines = [line for d in report.datasets if (line := _reached(d))]
        for line in lines:
            say(console, "  " + line)
        if report.problems:
            say(console, "  Not all of it can be read, so how complete it is can't be told.")
        elif not lines:
            say(console, "  All its datasets are complete as far as the file can tell.")
        return
    for dataset in report.datasets:
        if not dataset.complete:
            say(
                console,
                ("incomplete: ", "yellow"),
                f"{dataset.path} has {dataset.chunks_stored} of {dataset.chunks_total} chunks; the rest reads as the "
                "fill value",
            )


def _reached(dataset: DatasetReport) -> str | None:
    """Say how far one growing dataset got; its largest length is what was to be written."""
    if dataset.chunks is None or not dataset.shape or not dataset.maxshape:
        return None
    rows, planned = dataset.shape[0], dataset.maxshape[0]
    holes = "" if dataset.complete else f", {dataset.chunks_stored} of {dataset.chunks_total} chunks of these stored"
    if planned is None:
        if not _matters(dataset):
            return None  # a table's column: it can grow for ever, and was written whole with the structure
        return f"{dataset.path}: {rows} rows{holes}; how many were to come is not known"
    if rows == planned and dataset.complete:
        return None
    return f"{dataset.path}: {rows} of {planned} rows ({math.floor(100 * rows / planned) if planned else 100} %){holes}"
