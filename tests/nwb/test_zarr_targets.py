"""What a store may replace, and what is said of paths where there can be none."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from support import session
from zarr.storage import LocalStore, MemoryStore

import nwbflow
from nwbflow.errors import ErrorKind, LinkError, TargetError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")

DATA = np.arange(3000, dtype="i2").reshape(-1, 3)


def blocks(then):
    """Return data that run `then` in the middle."""

    def pieces():
        yield DATA[:500]
        then()
        yield DATA[500:]

    return nwbflow.blocks(pieces(), shape=(None, 3), dtype="i2")


def write(nwbfile, path, way):
    if way == "write":
        nwbflow.write(nwbfile, path, progress=False)
        return
    with nwbflow.NWBZarrIO(str(path), way) as io:
        io.write(nwbfile)


def data_in(path):
    return zarr.open_group(path, mode="r")["acquisition/a/data"][...]


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("way", ["write", "w-", "x"])
def test_a_store_that_comes_to_the_path_meanwhile_is_not_replaced(tmp_path, way):
    theirs, path = tmp_path / "theirs.nwb.zarr", tmp_path / "s.nwb.zarr"
    nwbflow.write(session(a=DATA[:7]), theirs, progress=False)
    given = session(a=blocks(lambda: shutil.copytree(theirs, path)))
    with pytest.raises(TargetError, match="made by another program") as caught:
        write(given, path, way)
    assert caught.value.kind is ErrorKind.EXISTS
    assert np.array_equal(data_in(path), DATA[:7])
    assert np.array_equal(data_in(tmp_path / "s.nwb.zarr.partial"), DATA)


@pytest.mark.requirement("P4")
def test_with_overwrite_it_is_replaced(tmp_path):
    theirs, path = tmp_path / "theirs.nwb.zarr", tmp_path / "s.nwb.zarr"
    nwbflow.write(session(a=DATA[:7]), theirs, progress=False)
    given = session(a=blocks(lambda: shutil.copytree(theirs, path)))
    nwbflow.write(given, path, progress=False, overwrite=True)
    assert np.array_equal(data_in(path), DATA)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.nwb.zarr", "theirs.nwb.zarr"]


@pytest.mark.parametrize(
    "path", ["ftp://host/s.nwb.zarr", "file:///s.nwb.zarr", "http://host/s.nwb", Path("s3://bucket/s.nwb.zarr")]
)
def test_a_url_is_called_one(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsupportedError, match="is a URL"):
        nwbflow.write(session(a=DATA), path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_zip_file_is_not_made_an_hdf5_file(tmp_path):
    with pytest.raises(UnsupportedError, match=r"write to s\.nwb\.zarr, and zip that"):
        nwbflow.write(session(a=DATA), tmp_path / "s.nwb.zarr.zip", progress=False)
    assert not list(tmp_path.iterdir())


def test_store_objects_are_sent_to_the_class_that_takes_them(tmp_path):
    for store in (MemoryStore(), LocalStore(tmp_path / "s.nwb.zarr")):
        with pytest.raises(UnsupportedError, match=r"nwbflow\.NWBZarrIO\(store"):
            nwbflow.write(session(a=DATA), store, progress=False)
    assert not list(tmp_path.iterdir())


def test_readers_of_files_say_how_a_store_is_read(tmp_path):
    path = tmp_path / "s.nwb.zarr"
    nwbflow.write(session(a=DATA), path, progress=False)
    older = tmp_path / "older.zarr"
    zarr.open_group(older, mode="w", zarr_format=2)
    with pytest.raises(LinkError, match=r"it is a Zarr store; read it with nwbflow\.NWBZarrIO\("):
        nwbflow.open(path)
    with pytest.raises(LinkError, match="NWBZarrV2IO"):
        nwbflow.open(older)
    with pytest.raises(TargetError, match="can be watched"):
        nwbflow.tail(path, "a")


def test_nothing_is_recorded_into_a_store(tmp_path):
    nwbfile = session(a=nwbflow.live(shape=(None, 3), dtype="i2"))
    with pytest.raises(UnsupportedError, match="recordings are made as HDF5 files"):
        nwbflow.Recorder(nwbfile, tmp_path / "s.nwb.zarr")
    assert not list(tmp_path.iterdir())
