"""``nwbflow repack``: a file or store is written anew, also in the other backend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from nwbflow.cli.monitor import watched
from nwbflow.cli.receipts import print_rows, receipt_to_json
from nwbflow.cli.screens import Bar, duration, note, print_json, ratio, shape, size
from nwbflow.encoding.codecs import describe
from nwbflow.model.address import is_address
from nwbflow.model.repacked import Repacked, grouped
from nwbflow.observe.jsonl import JsonLines
from nwbflow.tools.inspect_store import size_on_disk
from nwbflow.tools.repack.repack import repack as repack_file

_STORING = Group("How it is stored", sort_key=1)
_RUNNING = Group("How the command runs", sort_key=2)
_SHOWN = 12


def repack(
    in_file: Annotated[str, Parameter(name="IN")],
    out_file: Annotated[str, Parameter(name="OUT")],
    /,
    *,
    profile: Annotated[Literal["default", "fast", "archive", "cloud"] | None, Parameter(group=_STORING)] = None,
    rules: Annotated[Path | None, Parameter(group=_STORING)] = None,
    links: Annotated[Literal["keep", "embed"], Parameter(group=_STORING)] = "keep",
    overwrite: Annotated[bool, Parameter(group=_STORING, negative="", show_default=False)] = False,
    verify: Annotated[Literal["stored", "full", "no"], Parameter(group=_STORING)] = "stored",
    workers: Annotated[int | None, Parameter(group=_RUNNING)] = None,
    memory: Annotated[str | None, Parameter(group=_RUNNING)] = None,
    json: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
    events: Annotated[Path | None, Parameter(group=_RUNNING)] = None,
    monitor: Annotated[str | None, Parameter(group=_RUNNING)] = None,
    no_progress: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
    quiet: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
) -> None:
    """Write a file or store anew: other chunks and codecs, or HDF5 to Zarr and back.

    The result grows beside its place, is compared with IN, and is put in place
    in one step. What OUT has no place for, or in another form, is listed on
    standard error. Examples:

    nwbflow repack session.nwb smaller.nwb --profile archive

    nwbflow repack session.nwb session.nwb.zarr

    Parameters
    ----------
    in_file
        An NWB file, or a Zarr store in a folder. It is only read.
    out_file
        The new one; a Zarr store if its name ends in .zarr, also at an address such as s3://bucket/a.nwb.zarr.
    profile
        default: gzip any reader opens. fast: larger. archive: smaller, checksums. cloud: for remote reading.
        Stores have Blosc in place of gzip. Without it, chunks and codecs stay as they are.
    rules
        YAML file with codecs and chunks by place or type.
    links
        Links to other files, virtual and raw datasets: keep (HDF5 to HDF5 only), or embed copies of what they lead to.
    overwrite
        Replace OUT if it exists, and what an earlier, interrupted run left.
    verify
        What is read back of large arrays and compared: stored bytes, every value (full), or nothing (no).
    workers
        Encoding threads; as many as there are cores if not given.
    memory
        Limit for the samples on their way, such as '512 MiB'; 1 GiB, or a quarter of what is free, if not given.
    json
        Print what was stored, lost and changed as JSON.
    events
        File for all events, one JSON object a line.
    monitor
        [HOST:]PORT of a page that shows the progress; localhost if no HOST is given.
    no_progress
        No progress bar.
    quiet
        Print nothing but notes and errors.
    """
    bar = [] if quiet or no_progress else [Bar()]
    with watched(monitor) as page:
        done = repack_file(
            in_file,
            out_file,
            profile=profile,
            rules=rules,
            links=links,
            workers=workers,
            memory=memory,
            verify=verify,
            progress=[*bar, *page, *([] if events is None else [JsonLines(events)])],
            overwrite=overwrite,
        )
    for text in done.receipt.notes:
        note(text)
    for one in done.lost:
        note(f"lost: {one}")
    for text in grouped(done.changed):
        note(f"in another form: {text}")
    if json:
        print_json(_to_json(done))
    elif not quiet:
        _print(done)


def _to_json(done: Repacked) -> dict[str, Any]:
    return {**done.to_json(), "receipt": receipt_to_json(done.receipt)}


def _print(done: Repacked) -> None:
    receipt = done.receipt
    here = "" if is_address(receipt.path) else f", {size(size_on_disk(receipt.path))}"
    rows = [("written", f"{receipt.path}{here}")]
    largest = sorted(receipt.datasets, key=lambda dataset: dataset.raw_bytes, reverse=True)
    for dataset in largest[:_SHOWN]:
        layout = dataset.layout
        by = "copied as stored" if dataset.encoded_by == "its source" else describe(layout.filters)
        stored = f"{size(dataset.raw_bytes)} as {size(dataset.stored_bytes)}, ratio {ratio(dataset.ratio)}"
        rows.append(("dataset", f"{dataset.name}, {shape(layout.shape)} {layout.dtype.name}, {by}, {stored}"))
    if len(largest) > _SHOWN:
        rows.append(("dataset", f"and {len(largest) - _SHOWN} smaller ones"))
    lost = "nothing is lost" if done.complete else f"{len(done.lost)} of them lost (see above)"
    rows.append(("compared", f"{done.objects} groups and datasets and {done.attributes} attributes; {lost}"))
    rows.append(("time", duration(receipt.seconds)))
    print_rows(rows)
