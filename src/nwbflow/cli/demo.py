"""``nwbflow demo``: PyNWB and nwbflow side by side on a simulated recording."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich import box
from rich.table import Table

from nwbflow.cli.monitor import watched
from nwbflow.cli.screens import duration, err, out, print_json, say, shape, size
from nwbflow.errors import ErrorKind, SettingsError, TargetError
from nwbflow.testing.simulate import neuropixels
from nwbflow.tools.demo import DemoReport, check_memory, run_demo, stages

RATE = 30000.0
CHANNELS = 384

_STAGES = {
    "structure": "structure and metadata (PyNWB's part)",
    "read": "reading the array",
    "encode": "encoding, summed over the threads",
    "store": "storing",
    "verify": "verifying",
    "publish": "syncing and putting in place",
}


def demo(
    *,
    seconds: float = 10.0,
    seed: int = 0,
    out_folder: Annotated[Path | None, Parameter(name="--out")] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    monitor: str | None = None,
    no_progress: Annotated[bool, Parameter(name=["--no-progress", "--quiet"], negative="", show_default=False)] = False,
) -> None:
    """Write a simulated recording with PyNWB and with nwbflow, and compare.

    384 channels of int16 at 30 kHz, as one Neuropixels probe gives. All files
    are read back by plain h5py in another process and compared with what was
    written. Without --out they are deleted afterwards.

    Parameters
    ----------
    seconds
        Length of the recording; one second is 23 MB.
    seed
        Of the simulation.
    out_folder
        Keep the files in this folder (it is made if missing).
    json
        Print the result as one JSON object.
    monitor
        Show nwbflow's writes on a web page at [HOST:]PORT; its address is printed. Port 0 is any free one.
    no_progress
        Don't say what is being done.
    """
    if not 0 < seconds < float("inf"):
        raise SettingsError(f"seconds={seconds}: give a length above 0", kind=ErrorKind.OPTION)

    check_memory(int(seconds * RATE) * CHANNELS * 2)

    def step(text: str) -> None:
        if not no_progress:
            say(err(), (f"{text} ...", "dim"))

    if out_folder is not None:
        make_folder(out_folder)
    with ExitStack() as stack:
        page = stack.enter_context(watched(monitor))
        keep = out_folder is not None
        folder = out_folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nwbflow-demo-")))
        step(f"simulating {duration(seconds)} of {CHANNELS} channels")
        recording = neuropixels(seconds, channels=CHANNELS, rate=RATE, seed=seed)
        report = run_demo(recording, folder, rate=RATE, keep=keep, say=step, progress=page)
    if json:
        print_json(report.to_json())
    else:
        _print(report)


def make_folder(folder: Path) -> None:
    """Make a folder for what is kept, if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"{folder} can't be made: {error.strerror or error}", kind=ErrorKind.FOLDER) from error


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
    pynwb, *ours = report.runs
    threads = "thread" if report.cores == 1 else "threads"
    say(
        console,
        "Compared: one write each, one after the other, of the same array in memory with an electrodes table. "
        f"PyNWB: {pynwb.filters}, chunks of {shape(pynwb.chunks)}, one thread; no verifying, no sync. "
        + " ".join(f"{run.writer}: {run.filters}, chunks of {shape(run.chunks)};" for run in ours)
        + f" {report.cores} encoding {threads}; verified and synced within the time. "
        "CPU is the processor time of all threads. Wall times move by a third and more on a busy machine.",
    )
    say(
        console,
        f"Verified: plain h5py, in another process, read from each of the {len(report.runs)} files exactly the values "
        f"written (SHA-256 {report.sha256[:12]}...).",
    )
    if report.kept:
        for run in report.runs:
            say(console, f"kept: {run.path}")


def _comparison(report: DemoReport) -> Table:
    table = _table("written by", "time", "MB/s", "speed", "CPU", "file", "of PyNWB's")
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
        )
    return table


def _stages(report: DemoReport) -> Table:
    """Return where nwbflow's time went."""
    runs = [(run.writer, stages(run.receipt)) for run in report.runs if run.receipt is not None]
    table = _table("where its time went", *(writer for writer, _ in runs))
    for stage, words in _STAGES.items():
        table.add_row(words, *(duration(spent[stage]) for _, spent in runs))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(first, no_wrap=True)
    for head in others:
        table.add_column(head, justify="right", no_wrap=True)
    return table
