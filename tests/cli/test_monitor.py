"""``--monitor``: a command that is watched while it writes."""

import json
import subprocess
import sys

import httpx
import numpy as np
import pytest

from nwbflow.observe import Dashboard

pytestmark = pytest.mark.requirement("M4")


def test_a_conversion_is_seen_from_outside_and_its_receipt_as_well(tmp_path):
    raw = tmp_path / "a.bin"
    np.random.default_rng(0).integers(-300, 300, 40_000_000).astype("<i2").tofile(raw)
    options = [
        "--dtype",
        "int16",
        "--channels",
        "8",
        "--rate",
        "1000",
        "--workers",
        "1",
        "--profile",
        "archive",
        "--json",
        "--monitor",
        "0",
    ]
    command = [sys.executable, "-m", "nwbflow.cli", "convert", str(raw), str(tmp_path / "a.nwb"), *options]
    states = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        name, url = process.stderr.readline().split()
        assert name == "dashboard:"
        with httpx.stream("GET", f"{url}events", timeout=60) as answer:
            lines = (line for line in answer.iter_lines() if line.startswith("data: {"))
            states = [json.loads(line[6:]) for line in lines]
        told = json.loads(process.stdout.read())
    assert process.returncode == 0
    receipt = states[-2]["receipt"]  # the very last message is the farewell
    assert states[-1] == {}
    for key in ("path", "raw_bytes", "stored_bytes", "ratio", "seconds", "verified"):
        assert receipt[key] == told[key]
    seen = [state["run"]["state"] for state in states[:-1]]
    assert {"structure", "writing"} & set(seen)  # messages come each half second, and a fast machine needs little more
    assert seen[-1] == "finished"


@pytest.mark.parametrize("where", ["a page", "localhost", "1:2:3", "65536"])
def test_what_is_no_address_fails_before_anything_is_written(where, nwbflow, recording, basic, tmp_path):
    done = nwbflow("convert", recording, tmp_path / "a.nwb", *basic, "--monitor", where)
    assert done.code == 1
    assert "8765" in done.err or "65535" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [recording.name]


def test_a_port_that_is_taken_fails_before_anything_is_written(nwbflow, recording, basic, tmp_path):
    with Dashboard(0) as other:
        done = nwbflow("convert", recording, tmp_path / "a.nwb", *basic, "--monitor", str(other.port))
    assert done.code == 1
    assert "give another port, or 0 for any free one" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [recording.name]


def test_the_demo_can_be_watched(nwbflow):
    done = nwbflow("demo", "--seconds", "0.02", "--quiet", "--json", "--monitor", "0")
    assert done.code == 0, done.err
    assert done.err.startswith("dashboard: http://127.0.0.1:")
    assert done.json["runs"]
