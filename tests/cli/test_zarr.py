"""``convert`` and ``inspect`` with Zarr stores."""

import numpy as np
import pytest
import zarr

RAW = np.cumsum(np.random.default_rng(0).normal(0, 9, (60000, 16)), axis=0).astype("<i2")
OPTIONS = ("--dtype", "int16", "--channels", "16", "--rate", "1000")
DATA = "/acquisition/ElectricalSeries/data"


@pytest.mark.requirement("P4")
def test_a_recording_becomes_a_store_that_can_be_inspected(nwbflow, tmp_path):
    RAW.tofile(tmp_path / "a.bin")
    events = tmp_path / "events.jsonl"
    plan = nwbflow("convert", "a.bin", "a.nwb.zarr", *OPTIONS, "--dry-run", "--json", folder=tmp_path)
    assert plan.code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin"]
    done = nwbflow(
        "convert", "a.bin", "a.nwb.zarr", *OPTIONS, "--json", "--verify", "full", "--events", events, folder=tmp_path
    )
    assert done.code == 0, done.err
    dataset = done.json["datasets"][0]
    assert dataset["layout"]["shards"] == plan.json["datasets"][0]["layout"]["shards"]
    assert np.array_equal(zarr.open_group(tmp_path / "a.nwb.zarr", mode="r")[DATA.strip("/")][...], RAW)
    assert '"shards"' in events.read_text()

    found = nwbflow("inspect", "a.nwb.zarr", "--json", folder=tmp_path).json
    report = next(d for d in found["datasets"] if d["path"] == DATA)
    assert report["shape"] == [60000, 16]
    assert report["stored_bytes"] == sum(
        f.stat().st_size
        for f in (tmp_path / "a.nwb.zarr" / DATA.strip("/")).rglob("*")
        if f.name != "zarr.json" and f.is_file()
    )
    assert report["complete"]
    shown = nwbflow("inspect", "a.nwb.zarr", folder=tmp_path).out
    assert "blosc zstd 1" in shown
    assert "soft link" in shown

    again = nwbflow("convert", "a.bin", "a.nwb.zarr", *OPTIONS, folder=tmp_path)
    assert again.code != 0
    assert "--overwrite" in again.err
    stays = nwbflow("convert", "a.bin", "b.nwb.zarr", *OPTIONS, "--in-place", folder=tmp_path)
    assert stays.code != 0
    assert "can't stay where they are" in stays.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "a.nwb.zarr", "events.jsonl"]
    (tmp_path / "empty").mkdir()
    assert "no Zarr store" in nwbflow("inspect", "empty", folder=tmp_path).err
