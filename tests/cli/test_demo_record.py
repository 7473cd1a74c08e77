"""``nwbflow demo record`` records what it says, and keeps up."""

import h5py
import numpy as np
import pytest

from nwbflow.testing.simulate import neuropixels

pytestmark = pytest.mark.requirement("S7")


def test_the_rig_is_in_the_file(nwbflow, tmp_path):
    out = tmp_path / "new" / "folder"
    done = nwbflow("demo", "record", "--seconds", 0.7, "--seed", 3, "--sync", "full", "--out", out, "--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    streams = {stream["name"]: stream for stream in done.json["streams"]}
    assert [streams[name]["rows"] for name in ("probe", "camera")] == [21_000, 21]
    assert all(0 <= s["p50"] <= s["p99"] <= s["longest"] for s in streams.values())
    assert done.json["recorded_seconds"] >= 0.69  # in real time: the last rows come then
    with h5py.File(out / "demo-record.nwb") as file:
        assert np.array_equal(file["acquisition/probe/data"][:], neuropixels(0.7, seed=3))
        assert file["acquisition/camera/data"].shape == (21, 128, 128)
        assert len(file["acquisition/licks/timestamps"]) == streams["licks"]["rows"]
    again = nwbflow("demo", "record", "--seconds", 0.7, "--out", out)
    assert again.code == 1
    assert "demo-record.nwb exists; delete it or choose another folder" in " ".join(again.err.split())


@pytest.mark.parametrize("columns", [80, 120])
def test_what_it_prints_fits_and_says_what_was_verified(nwbflow, columns):
    done = nwbflow("demo", "record", "--seconds", 0.2, columns=columns)
    assert done.code == 0
    assert "Verified: plain h5py, in another process, read exactly what was sent." in done.out
    assert "safe from a kill" in " ".join(done.out.split())


def test_no_time_at_all_is_refused(nwbflow):
    done = nwbflow("demo", "record", "--seconds", 0)
    assert done.code == 1
    assert "--seconds 0.0: give a length above 0" in done.err
