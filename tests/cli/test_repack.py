"""``repack``: there and back between the backends, compared by stock readers in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import repack_files

import nwbflow as package

TESTS = Path(__file__).parents[1]
REAL = (
    "neuroconv_mock_ttl_examples.nwb",
    "pynapple_A8604-211122.nwb",
    "pynwb_hist_1.2.1_extension.nwb",
    "pynwb_hist_2.6.0_DynamicTableElectrodes.nwb",
)


@pytest.fixture(scope="module")
def compare():
    """Ask stock readers in another process what differs."""
    command = [sys.executable, str(TESTS / "repack_stock.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, **pipes) as reader:

        def ask(**paths):
            reader.stdin.write(json.dumps({name: str(path) for name, path in paths.items()}) + "\n")
            reader.stdin.flush()
            return json.loads(reader.stdout.readline())

        yield ask
        reader.stdin.close()


def repacked(nwbflow, source, target, *options):
    done = nwbflow("repack", source, target, "--json", *options)
    assert done.code == 0, done.err
    assert all(f"lost: {one['place']}: {one['text']}" in done.err for one in done.json["lost"])
    return done.json


def there_and_back(compare, source, folder):
    """Return what is said of both ways, what h5py finds differing, and what hdmf-zarr does."""
    store, back = folder / "there.nwb.zarr", folder / "back.nwb"
    before = source.read_bytes()
    told = [package.repack(source, store, progress=False), package.repack(store, back, progress=False)]
    found = compare(source=source, back=back, store=store)
    assert source.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir() if path != source) == ["back.nwb", "there.nwb.zarr"]
    return told, found["differing"], found["containers"]


@pytest.mark.requirement("T1")
@pytest.mark.parametrize("name", repack_files.FILES)
def test_what_pynwb_writes_goes_to_zarr_and_back_and_is_equal(name, compare, tmp_path):
    source = tmp_path / "source.nwb"
    repack_files.FILES[name](str(source))
    told, differing, containers = there_and_back(compare, source, tmp_path)
    assert (differing, containers) == ([], "")
    assert [one.lost for one in told] == [(), ()]
    storage = [one.text for both in told for one in both.changed]
    assert all("has its codec" in text or "Fletcher-32" in text for text in storage)


@pytest.mark.requirement("T1")
@pytest.mark.parametrize("name", REAL)
def test_real_files_go_to_zarr_and_back_and_are_equal(name, compare, realdata, tmp_path):
    source = realdata / name
    if not source.is_file():
        pytest.skip(f"{name} is not among the real recordings")
    told, differing, containers = there_and_back(compare, source, tmp_path)
    assert (differing, containers) == ([], "")
    assert [one.lost for one in told] == [(), ()]


@pytest.mark.requirement("T1")
def test_an_extension_and_its_schema_go_with_the_file(compare, tmp_path):
    folder = tmp_path / "spec"
    folder.mkdir()
    source = tmp_path / "source.nwb"
    repack_files.extension(str(source), folder)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    told, differing, containers = there_and_back(compare, source, tmp_path)
    assert (differing, containers) == ([], "")
    assert [one.lost + one.changed for one in told] == [(), ()]


@pytest.mark.requirement("T1")
def test_what_pynwb_does_not_know_goes_along_and_every_other_form_is_told(nwbflow, compare, tmp_path):
    source, store, back = (tmp_path / name for name in ("source.nwb", "there.nwb.zarr", "back.nwb"))
    repack_files.oddities(str(source))
    told = [repacked(nwbflow, source, store), repacked(nwbflow, store, back)]
    assert [one["lost"] for one in told] == [[], []]
    laboratory = "/laboratory of B"
    assert {one["place"]: one["text"] for one in told[0]["changed"]} == {
        "/@numbers": "int32 is int64 in the result",
        "/@single": "float32 is float64 in the result",
        f"{laboratory}/big endian": "int32, big-endian is int32 in the result",
        f"{laboratory}/fixed": "text of fixed length is text in the result",
        f"{laboratory}/second name": "a second name of an object (hard link) is a link to it",
    }
    assert told[1]["changed"] == []
    assert compare(source=source, back=back)["differing"] == [f"{laboratory}/big endian", f"{laboratory}/fixed"]


@pytest.mark.requirement("T1")
def test_what_a_store_has_no_place_for_is_listed_and_nothing_else_is_lost(nwbflow, compare, tmp_path):
    source, store, back = (tmp_path / name for name in ("source.nwb", "there.nwb.zarr", "back.nwb"))
    repack_files.impossible(str(source))
    told = [repacked(nwbflow, source, store), repacked(nwbflow, store, back)]
    lost = {one["place"] for one in told[0]["lost"]}
    names = ("broken", "complex", "days", "nothing", "opaque", "ragged", "regions", "type")
    assert lost == {f"/impossible/{name}" for name in names} | {"/impossible@bytes", "/impossible@empty"}
    assert not told[0]["complete"]
    assert [one["place"] for one in told[0]["changed"]] == ["/impossible/levels"]
    assert (told[1]["lost"], told[1]["changed"]) == ([], [])
    # h5py sees neither committed types nor the names of levels
    assert set(compare(source=source, back=back)["differing"]) - {"/impossible"} <= {p for p in lost if "@" not in p}

    again = repacked(nwbflow, source, tmp_path / "again.nwb")
    assert again["lost"] + again["changed"] == []
    assert compare(source=source, back=tmp_path / "again.nwb")["differing"] == []
