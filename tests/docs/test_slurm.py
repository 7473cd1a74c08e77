"""The jobs of the page on Slurm, run by stand-ins for its commands on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from doc_pages import DOCS, code_blocks

from nwbflow.testing.simulate import neuropixels

STANDINS = Path(__file__).parent.parent / "slurm"
DATA = neuropixels(1.0, channels=64)


@pytest.fixture
def folder(tmp_path):
    """What the page says, as files, and a recording."""
    for block in code_blocks(DOCS / "how-to" / "slurm.md"):
        if block.title:
            (tmp_path / block.title).write_text(block.text + "\n", encoding="utf-8")
    DATA.tofile(tmp_path / "recording.bin")
    return tmp_path


def run(folder, *command):
    path = os.pathsep.join([str(STANDINS), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "DASK_JOBQUEUE__SLURM__SCHEDULER_OPTIONS": '{"dashboard_address": ":0"}',
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=True
    ).stdout


def job(folder, script):
    """Submit a job, and return what it printed when it has ended."""
    number = run(folder, "sbatch", script).split()[-1]
    pid = int((folder / f"job-{number}.pid").read_text())
    try:
        while _runs(pid):
            time.sleep(0.1)
    finally:
        if _runs(pid):
            os.kill(pid, signal.SIGTERM)
    return (folder / f"slurm-{number}.out").read_text()


def _runs(pid):
    return Path(f"/proc/{pid}").exists()


def written(folder):
    with h5py.File(folder / "session.nwb", "r") as file:
        return file["acquisition/probe/data"][()]


@pytest.mark.requirement("P2")
@pytest.mark.parametrize(("script", "by"), [("one-node.sh", "nwbflow"), ("several-nodes.sh", "Dask")])
def test_the_jobs_write_the_session(folder, script, by):
    printed = job(folder, script)
    assert f"encoded by {by}" in printed, printed
    assert np.array_equal(written(folder), DATA)
    assert not list(folder.glob("scheduler-*"))


@pytest.mark.requirement("P2")
def test_workers_as_jobs_write_the_session(folder):
    assert "encoded by Dask" in run(folder, sys.executable, "with_jobs.py")
    assert np.array_equal(written(folder), DATA)
    for left in folder.glob("job-*.pid"):  # their jobs have ended with the cluster
        pid = int(left.read_text())
        while _runs(pid):
            time.sleep(0.1)
