"""``nwbflow convert``: a raw binary recording becomes an NWB file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from nwbflow.cli.monitor import watched
from nwbflow.cli.receipts import print_receipt, print_rows, receipt_to_json
from nwbflow.cli.screens import Bar, duration, note, out, print_json, say, shape, size
from nwbflow.encoding.codecs import describe
from nwbflow.observe.jsonl import JsonLines
from nwbflow.tools.convert import ConversionPlan, convert_raw, plan_raw
from nwbflow.tools.recording import SeriesSettings

_RECORDING = Group("The recording", sort_key=1)
_STORING = Group("How it is stored", sort_key=2)
_RUNNING = Group("How the command runs", sort_key=3)


def convert(
    raw: Path,
    out_file: Annotated[str, Parameter(name="OUT")],
    /,
    *,
    dtype: Annotated[str, Parameter(group=_RECORDING)],
    channels: Annotated[int, Parameter(group=_RECORDING)],
    rate: Annotated[float, Parameter(group=_RECORDING)],
    offset: Annotated[int, Parameter(group=_RECORDING)] = 0,
    kind: Annotated[Literal["electrical", "timeseries"], Parameter(group=_RECORDING)] = "electrical",
    name: Annotated[str | None, Parameter(group=_RECORDING)] = None,
    conversion: Annotated[float | None, Parameter(group=_RECORDING)] = None,
    unit: Annotated[str | None, Parameter(group=_RECORDING)] = None,
    metadata: Annotated[Path | None, Parameter(group=_RECORDING)] = None,
    profile: Annotated[Literal["default", "fast", "archive", "cloud"], Parameter(group=_STORING)] = "default",
    rules: Annotated[Path | None, Parameter(group=_STORING)] = None,
    in_place: Annotated[bool, Parameter(group=_STORING, negative="", show_default=False)] = False,
    overwrite: Annotated[bool, Parameter(group=_STORING, negative="", show_default=False)] = False,
    staging: Annotated[Path | None, Parameter(group=_STORING)] = None,
    workers: Annotated[int | None, Parameter(group=_RUNNING)] = None,
    memory: Annotated[str | None, Parameter(group=_RUNNING)] = None,
    verify: Annotated[Literal["stored", "full", "no"], Parameter(group=_STORING)] = "stored",
    dry_run: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
    json: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
    events: Annotated[Path | None, Parameter(group=_RUNNING)] = None,
    monitor: Annotated[str | None, Parameter(group=_RUNNING)] = None,
    no_progress: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
    quiet: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
) -> None:
    """Convert a raw binary recording (samples x channels, C order) to an NWB file.

    The file is written beside its place as OUT.partial, read back, and put in
    place in one step. An example:

    nwbflow convert a.bin a.nwb --dtype int16 --channels 384 --rate 30000

    Parameters
    ----------
    raw
        The recording. It is only read.
    out_file
        The NWB file; a Zarr store if its name ends in .zarr. Either may be an address, such as s3://bucket/a.nwb.
    dtype
        Type of the samples: int16, uint16, int32, float32, ...; '>i2' for the other byte order.
    channels
        Number of channels.
    rate
        Samples per second and channel, in Hz.
    offset
        Bytes to skip at the start (a header).
    kind
        electrical: an ElectricalSeries with an electrodes table. timeseries: a plain TimeSeries.
    name
        Name of the series; that of its type if not given.
    conversion
        What one count is, in volts (timeseries: in the unit), such as 1e-6.
    unit
        Of a timeseries' converted values, such as V or a.u.
    metadata
        YAML file with session_description, session_start_time, subject, device, electrodes, series, ...
    profile
        default: gzip any reader opens. fast: larger. archive: smaller, checksums. cloud: for remote reading.
        Stores have Blosc in place of gzip.
    rules
        YAML file with codecs and chunks by place or type.
    in_place
        Leave the samples where they are: OUT takes no time and no room, and needs RAW to be there.
    overwrite
        Replace OUT, or what an interrupted write left beside it.
    staging
        Folder with room, where an HDF5 file for an address is made, and kept until it is sent; that for temporary
        files if not given.
    workers
        Encoding threads; as many as there are cores if not given.
    memory
        What the samples may take on their way, such as 512MB; 1 GiB, or less where less is free, if not given.
    verify
        What is read back: stored bytes, every value (full), or nothing (no).
    dry_run
        Check everything and print the plan; write nothing.
    json
        Print the result as one JSON object.
    events
        Append every event of the write to this file, one JSON object a line.
    monitor
        Show the write on a web page at [HOST:]PORT; its address is printed. Port 0 is any free one.
    no_progress
        Show no progress bar (there is none either where standard error is no terminal).
    quiet
        Print nothing but notes and errors.
    """
    series = SeriesSettings(kind=kind, channels=channels, rate=rate, name=name, conversion=conversion, unit=unit)
    if dry_run:
        plan = plan_raw(
            raw,
            out_file,
            dtype=dtype,
            series=series,
            offset=offset,
            metadata=metadata,
            profile=profile,
            rules=rules,
            workers=workers,
            memory=memory,
            overwrite=overwrite,
            in_place=in_place,
            staging=staging,
        )
        _notes(plan.notes)
        if json:
            print_json(plan.to_json())
        elif not quiet:
            _print_plan(plan)
        return
    bar = [] if quiet or no_progress else [Bar()]
    with watched(monitor) as page:
        receipt = convert_raw(
            raw,
            out_file,
            dtype=dtype,
            series=series,
            offset=offset,
            metadata=metadata,
            profile=profile,
            rules=rules,
            workers=workers,
            memory=memory,
            verify=verify,
            progress=[*bar, *page, *([] if events is None else [JsonLines(events)])],
            overwrite=overwrite,
            in_place=in_place,
            staging=staging,
        )
    _notes(receipt.notes)
    if json:
        print_json(receipt_to_json(receipt))
    elif not quiet:
        print_receipt(receipt)


def _notes(notes: tuple[str, ...]) -> None:
    for text in notes:
        note(text)


def _print_plan(plan: ConversionPlan) -> None:
    start = plan.session_start_time.isoformat(timespec="seconds")
    rows = [
        ("would write", f"{plan.path}{', replacing the one that is there' if plan.replaces else ''}"),
        ("series", f"{plan.series} ({plan.series_type}), {shape(plan.shape)} {plan.dtype}, {size(plan.raw_bytes)}"),
        ("time", f"{duration(plan.seconds)} of recording, session start {start}"),
    ]
    for planned in plan.plan.datasets:
        layout = planned.layout
        each = f"{planned.chunks_total} of {shape(layout.chunks)}, {size(layout.chunk_bytes)} each"
        rows.append(("chunks", f"{'contiguous' if layout.chunks is None else each}; {describe(layout.filters)}"))
    if plan.plan.datasets:
        rows.append(
            (
                "memory",
                f"at most {size(plan.plan.peak_bytes)} of {size(plan.plan.memory)} allowed, with "
                f"{plan.plan.workers} encoding {'thread' if plan.plan.workers == 1 else 'threads'}",
            )
        )
    elif plan.in_place:
        rows.append(("chunks", "none: the samples stay where they are"))
    else:
        rows.append(("chunks", "none: so small that PyNWB writes it, uncompressed"))
    print_rows(rows)
    say(out(), "Nothing was written (dry run).")
