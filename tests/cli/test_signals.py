"""A conversion that is interrupted or told to end leaves the old file, and a valid partial one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

COMMAND = Path(sys.executable).with_name("nwbflow")
CHANNELS, CHUNK_ROWS = 4, 100


@pytest.fixture
def folder(tmp_path):
    """A recording of 20,000 chunks: far more events than a pipe nobody reads can hold."""
    random = np.random.default_rng(3)
    random.integers(-100, 100, (20_000 * CHUNK_ROWS, CHANNELS)).astype("i2").tofile(tmp_path / "raw.bin")
    (tmp_path / "r.yaml").write_text(f"rules: [{{type: ElectricalSeries, chunks: [{CHUNK_ROWS}, 4], codec: gzip}}]")
    (tmp_path / "a.nwb").write_bytes(b"the old file")
    return tmp_path


def interrupted(folder, number):
    """Start a conversion, send a signal once ten chunks are stored, and wait; return process, output and events.

    Its events go into a pipe that is read no further before the signal is sent: the conversion can't end before.
    """
    reading, writing = os.pipe()
    options = ["--dtype", "int16", "--channels", "4", "--rate", "1000", "--rules", "r.yaml", "--overwrite"]
    process = subprocess.Popen(
        [COMMAND, "convert", "raw.bin", "a.nwb", *options, "--events", f"/dev/fd/{writing}"],
        cwd=folder,
        pass_fds=[writing],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    events, stored = [], 0
    with os.fdopen(reading) as lines:
        for line in lines:
            events.append(json.loads(line))
            if events[-1]["event"] == "ChunkStored":
                stored += 1
                if stored == 10:
                    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err, events


@pytest.mark.requirement("T4", "W5", "W6")
@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
def test_a_signal_ends_a_conversion_and_keeps_what_was_written(number, code, says, folder):
    returned, out, err, events = interrupted(folder, number)
    assert returned == code
    assert out == ""
    assert err.startswith(says)
    assert "kept in a.nwb.partial beside it" in err
    assert "Traceback" not in err
    assert events[-1]["event"] == "RunFailed"
    assert (folder / "a.nwb").read_bytes() == b"the old file"
    whole = np.fromfile(folder / "raw.bin", "i2").reshape(-1, CHANNELS)
    stored = sum(event["event"] == "ChunkStored" for event in events)
    with h5py.File(folder / "a.nwb.partial") as file:
        kept = file["acquisition/ElectricalSeries/data"][...]
        assert "nwb_version" in file.attrs
    assert len(kept) >= 10 * CHUNK_ROWS
    # the signal may come between storing a chunk and saying so
    assert len(kept) in (stored * CHUNK_ROWS, (stored + 1) * CHUNK_ROWS)
    assert len(kept) < len(whole)
    assert np.array_equal(kept, whole[: len(kept)])


@pytest.mark.requirement("T3", "T4")
def test_inspect_says_how_far_an_interrupted_conversion_got(folder, nwbflow, stock):
    interrupted(folder, signal.SIGTERM)
    partial = folder / "a.nwb.partial"
    with h5py.File(partial) as file:
        rows = len(file["acquisition/ElectricalSeries/data"])
    shown = nwbflow("inspect", partial.name, folder=folder, columns=120)
    assert shown.code == 0
    assert f"/acquisition/ElectricalSeries/data: {rows} of 2000000 rows (" in shown.out
    assert "partial file:" in shown.out
    (found,) = stock(partial)
    assert found["shape"] == [rows, CHANNELS]
    assert found["invalid"] == []
    again = ("convert", "raw.bin", "b.nwb", "--dtype", "int16", "--channels", 4, "--rate", 1000)
    partial.rename(folder / "b.nwb.partial")
    refused = nwbflow(*again, folder=folder)
    assert refused.code == 1
    assert "b.nwb.partial is left from an interrupted write" in refused.err
    assert "--overwrite" in refused.err
