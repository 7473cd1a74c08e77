"""``nwbflow demo`` compares what it says it compares."""

import h5py
import numpy as np
import pytest

from nwbflow.testing.simulate import neuropixels


@pytest.mark.requirement("T4", "W3")
def test_kept_files_hold_the_simulated_recording(nwbflow, tmp_path):
    done = nwbflow("demo", "--seconds", 0.5, "--seed", 4, "--out", tmp_path / "new" / "folder", "--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    expected = neuropixels(0.5, seed=4)
    assert [run["writer"] for run in done.json["runs"]] == ["PyNWB", "nwbflow default", "nwbflow fast"]
    for run in done.json["runs"]:
        with h5py.File(run["path"]) as file:
            data = file["acquisition/ElectricalSeries/data"]
            assert np.array_equal(data[...], expected)
            assert run["stored_bytes"] == data.id.get_storage_size()
            assert run["chunks"] == list(data.chunks)
    again = nwbflow("demo", "--seconds", 0.5, "--out", tmp_path / "new" / "folder")
    assert again.code == 1
    assert "demo-pynwb.nwb exists; delete it" in again.err


@pytest.mark.requirement("T4")
@pytest.mark.parametrize("columns", [80, 120])
def test_the_screen_says_what_was_compared_and_fits(columns, nwbflow, tmp_path, monkeypatch):
    done = nwbflow("demo", "--seconds", 0.2, columns=columns)
    assert done.code == 0
    told = " ".join(done.out.split())
    for text in ("6000 x 384 int16", "on ", "core", "Compared: one write each", "plain h5py, in another process"):
        assert text in told
    for stage in ("structure", "reading", "encoding, summed over the threads", "storing", "verifying", "syncing"):
        assert stage in told
    tables = done.out.split("Compared:")[0].splitlines()
    assert max(len(line.rstrip()) for line in tables) <= columns
    assert "writing with PyNWB ..." in done.err


@pytest.mark.requirement("T4")
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ("1e9", "MB of memory; at most half"),
        ("0", "--seconds 0.0: give a length"),
        ("nan", "give a length"),
        ("1e-9", "holds nothing"),
    ],
)
def test_lengths_that_are_none(seconds, text, nwbflow):
    done = nwbflow("demo", "--seconds", seconds)
    assert (done.code, done.out) == (1, "")
    assert text in done.err
    assert "Traceback" not in done.err


def test_a_folder_that_cant_be_made(nwbflow, tmp_path):
    (tmp_path / "file").write_text("")
    done = nwbflow("demo", "--out", "file/inside", folder=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == "file/inside can't be made: Not a directory\n"
