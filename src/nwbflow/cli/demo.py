"""``nwbflow demo``: PyNWB and nwbflow side by side on a simulated recording."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich import box
from rich.table import Table
from rich.text import Text

from nwbflow.cli.screens import duration, err, out, print_json, say, shape, size
from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.testing.simulate import neuropixels
from nwbflow.tools.demo import DemoReport, run_demo, stages

RATE = 30000.0


def demo(
    *,
    seconds: float = 10.0,
    seed: int = 0,
    out_folder: Annotated[Path | None, Parameter(name="--out")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    no_progress: Annotated[bool, Parameter(name=["--no-progress", "--quiet"], negative="")] = False,
) -> None:
    """Write a simulated recording with PyNWB and with nwbflow, and compare.

    384 channels of int16 at 30 kHz, as one Neuropixels probe gives. All files are read back by plain h5py in another
    process and compared with what was written.

    Parameters
    ----------
    seconds
        Length of the recording; one second is 23 MB.
    seed
        Of the simulation.
    out_folder
        Keep the files in this folder (it is made if missing). Otherwise they are deleted.
    json
        Print the result as one JSON object.
    no_progress
        Don't say what is being done.
    """
    if not 0 < seconds < float("inf"):
        raise SettingsError(f"seconds={seconds}: give a length above 0", kind=ErrorKind.OPTION)

    def step(text: str) -> None:
        if not no_progress:
            say(err(), (f"{text} ...", "dim"))

    step(f"simulating {duration(seconds)} of 384 channels")
    recording = neuropixels(seconds, rate=RATE, seed=seed)
    if out_folder is not None:
        out_folder.mkdir(parents=True, exist_ok=True)
        report = run_demo(recording, out_folder, rate=RATE, keep=True, say=step)
    else:
        with tempfile.TemporaryDirectory(prefix="nwbflow-demo-") as folder:
            report = run_demo(recording, folder, rate=RATE, say=step)
    if json:
        print_json(report.to_json())
    else:
        _print(report)


def _print(report: DemoReport) -> None:
    console = out()
    cores = "1 core" if report.cores == 1 else f"{report.cores} cores"
    say(
        console,
        (f"{shape(report.shape)} {report.dtype}", "bold"),
        f": {duration(report.seconds)} of simulated recording, {size(report.raw_bytes)}, on {cores}",
    )
    console.print(_comparison(report))
    console.print(_stages(report))
    first = report.runs[0]
    say(
        console,
        f"Compared: one write each, of the same array in memory with an electrodes table, one after the other. PyNWB "
        f"has {first.filters} in chunks of {shape(first.chunks)}, in one thread, and neither verifies nor syncs; "
        f"nwbflow's times include both, with {report.cores} encoding {'thread' if report.cores == 1 else 'threads'}. "
        "Wall times move by a third and more when the machine is busy; CPU is the time of all threads.",
    )
    say(
        console,
        f"Verified: h5py alone, in another process, read from all {len(report.runs)} files exactly the values written "
        f"(SHA-256 {report.sha256[:12]}...).",
    )
    if report.kept:
        for run in report.runs:
            say(console, f"kept: {run.path}")


def _comparison(report: DemoReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("written by", no_wrap=True)
    for head in ("time", "MB/s", "speed", "CPU", "file", "of PyNWB's"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("filters")
    first = report.runs[0]
    for run in report.runs:
        table.add_row(
            run.writer,
            duration(run.seconds),
            f"{report.raw_bytes / 1e6 / run.seconds:.0f}",
            f"{report.speed_up(run):.1f} x",
            duration(run.cpu_seconds),
            size(run.file_bytes),
            f"{100 * run.file_bytes / first.file_bytes:.1f} %",
            run.filters,
        )
    return table


def _stages(report: DemoReport) -> Table:
    """Return where nwbflow's time went."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("its time, by stage", no_wrap=True)
    heads = {"structure": "structure", "read": "read", "encode": "encode*", "store": "store", "verify": "verify"}
    for head in (*heads.values(), "sync, publish"):
        table.add_column(head, justify="right", no_wrap=True)
    for run in report.runs:
        if run.receipt is not None:
            table.add_row(run.writer, *(duration(spent) for spent in stages(run.receipt).values()))
    table.caption = Text("* summed over the encoding threads, which work side by side", "dim")
    table.caption_justify = "left"
    return table
