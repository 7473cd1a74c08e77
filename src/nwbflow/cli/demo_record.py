"""``nwbflow demo record``: a simulated rig, recorded in real time."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from rich import box
from rich.table import Table

from nwbflow.cli.demo import CHANNELS, RATE, make_folder
from nwbflow.cli.monitor import watched
from nwbflow.cli.screens import Bar, duration, err, out, print_json, say, size
from nwbflow.errors import ErrorKind, SettingsError, TargetError
from nwbflow.testing.simulate import neuropixels, two_photon
from nwbflow.tools.demo import check_memory
from nwbflow.tools.demo_record import FRAME_RATE, RecordReport, Simulated, run_rig

_NAME = "demo-record.nwb"
_LICKS_PER_SECOND = 6.0


def demo_record(
    *,
    seconds: float = 10.0,
    seed: int = 0,
    sync: Literal["process", "full"] = "process",
    out_folder: Annotated[Path | None, Parameter(name="--out")] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    monitor: str | None = None,
    no_progress: Annotated[bool, Parameter(name=["--no-progress", "--quiet"], negative="", show_default=False)] = False,
) -> None:
    """Record a simulated rig in real time: a probe, a camera and a lick sensor.

    384 channels of int16 at 30 kHz, frames of 128 x 128 at 30 Hz, and licks when
    they happen. The file is read back by plain h5py in another process and
    compared with what was sent. Without --out it is deleted afterwards.

    Parameters
    ----------
    seconds
        How long; one second is 24 MB.
    seed
        Of the simulation.
    sync
        What acknowledged rows survive: the end of the process, or a loss of power as well (full).
    out_folder
        Keep the file in this folder (it is made if missing).
    json
        Print the result as one JSON object.
    monitor
        Show the recording on a web page at [HOST:]PORT; its address is printed. Port 0 is any free one.
    no_progress
        Don't say what is being done.
    """
    if not 0 < seconds < float("inf"):
        raise SettingsError(f"seconds={seconds}: give a length above 0", kind=ErrorKind.OPTION)
    check_memory(int(seconds * RATE) * CHANNELS * 2)
    if out_folder is not None:
        make_folder(out_folder)
        if (out_folder / _NAME).exists():
            raise TargetError(f"{out_folder / _NAME} exists; delete it or choose another folder", kind=ErrorKind.EXISTS)
    with ExitStack() as stack:
        page = stack.enter_context(watched(monitor))
        folder = out_folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nwbflow-demo-")))
        if not no_progress:
            say(err(), (f"simulating {duration(seconds)} of a rig, then recording it in real time ...", "dim"))
        bar = [Bar(warnings=True)] if sys.stderr.isatty() and not no_progress else []
        report = run_rig(
            folder / _NAME,
            _rig(seconds, seed),
            seconds,
            sync=sync,
            keep=out_folder is not None,
            progress=[*bar, *page],
        )
    if json:
        print_json(report.to_json())
    else:
        _print(report)


def _rig(seconds: float, seed: int) -> list[Simulated]:
    random = np.random.default_rng(seed)
    probe = neuropixels(seconds, channels=CHANNELS, rate=RATE, seed=seed)
    frames = two_photon(max(1, int(seconds * FRAME_RATE)), seed=seed)
    shutter = np.arange(len(frames)) / FRAME_RATE + random.normal(0, 0.0005, len(frames)).clip(-0.005, 0.005)
    licks = np.sort(random.uniform(0, seconds, random.poisson(seconds * _LICKS_PER_SECOND)))
    return [
        Simulated(name="probe", data=probe, times=np.arange(len(probe)) / RATE, rate=RATE),
        Simulated(name="camera", data=frames, times=shutter.clip(0), rate=None),
        Simulated(name="licks", data=random.gamma(2.0, 0.2, len(licks)), times=licks, rate=None),
    ]


def _print(report: RecordReport) -> None:
    console = out()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("stream", no_wrap=True)
    for head in ("rows", "recorded", "stored", "p50", "p99", "longest"):
        table.add_column(head, justify="right", no_wrap=True)
    for stream in report.streams:
        lags = (f"{1000 * lag:.1f} ms" for lag in (stream.p50, stream.p99, stream.longest))
        table.add_row(stream.name, str(stream.rows), size(stream.raw_bytes), size(stream.stored_bytes), *lags)
    console.print(table)
    survive = "a loss of power" if report.sync == "full" else "a kill"
    say(
        console,
        f"{duration(report.seconds)} of a rig were recorded, and safe from {survive}, within "
        f"{duration(report.recorded_seconds)}: {report.real_time_factor:.2f} of real time. p50, p99 and longest: from "
        f"appending a block until it is safe. Completing, verifying and publishing took "
        f"{duration(report.closing_seconds)}.",
    )
    say(console, "Verified: plain h5py, in another process, read exactly what was sent.")
    if report.kept:
        say(console, f"kept: {report.path}")
