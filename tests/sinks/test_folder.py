"""Folders are put in place in one step, and shards hold what was put into them, in whatever order it came."""

import errno
import os

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from nwbflow.encoding.zarr_codecs import zarr_encoder
from nwbflow.errors import ErrorKind, TargetError, VerifyError
from nwbflow.sinks import folder as folders
from nwbflow.sinks.folder import StagedFolder, check_store_target
from nwbflow.sinks.objects import FolderObjects, StoreObjects
from nwbflow.sinks.zarr import ZarrSink, layout_of_array


def _store(path, text):
    path.mkdir()
    (path / "zarr.json").write_text(text)
    (path / "a").mkdir()
    (path / "a" / "b").write_text(text)


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("exchange", [True, False], ids=["names exchanged", "renamed twice"])
def test_the_new_one_takes_the_place_of_the_old_one(tmp_path, exchange, monkeypatch):
    if not exchange:
        monkeypatch.setattr(folders, "_swap", lambda one, other: False)
    target = tmp_path / "x.zarr"
    _store(target, "old")
    target.chmod(0o750)
    staged = StagedFolder(check_store_target(target, overwrite=True))
    (staged.partial / "zarr.json").write_text("new")
    assert (target / "zarr.json").read_text() == "old"
    staged.publish()
    assert (target / "zarr.json").read_text() == "new"
    assert not (target / "a").exists()
    assert target.stat().st_mode & 0o777 == 0o750
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


@pytest.mark.requirement("P4")
def test_a_kill_between_two_renames_is_put_right_by_the_next_write(tmp_path):
    target = tmp_path / "x.zarr"
    _store(tmp_path / "x.zarr.replaced-by-nwbflow", "old")
    staged = StagedFolder(check_store_target(target, overwrite=True))
    assert (target / "zarr.json").read_text() == "old"
    staged.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]
    _store(tmp_path / "x.zarr.replaced-by-nwbflow", "older")
    StagedFolder(check_store_target(target, overwrite=True)).discard()
    assert (target / "zarr.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


def test_a_store_that_waits_to_be_put_back_is_not_replaced_unasked(tmp_path):
    target = tmp_path / "x.zarr"
    waiting = tmp_path / "x.zarr.replaced-by-nwbflow"
    _store(waiting, "old")
    with pytest.raises(TargetError, match="rename it back") as caught:
        check_store_target(target, overwrite=False)
    assert caught.value.kind is ErrorKind.EXISTS
    waiting.rename(target)
    _store(tmp_path / "x.zarr.replaced", "a user's own")
    staged = StagedFolder(check_store_target(target, overwrite=True))
    (staged.partial / "zarr.json").write_text("new")
    staged.publish()
    assert (tmp_path / "x.zarr.replaced" / "zarr.json").read_text() == "a user's own"


def test_a_write_that_began_after_the_check_is_not_taken_over(tmp_path):
    target = check_store_target(tmp_path / "x.zarr", overwrite=True)
    first = StagedFolder(target)
    (first.partial / "zarr.json").write_text("first")
    with pytest.raises(TargetError, match="is being written") as caught:
        StagedFolder(target)
    assert caught.value.kind is ErrorKind.LOCKED
    first.publish()
    assert (target / "zarr.json").read_text() == "first"


@pytest.mark.requirement("P4")
def test_a_damaged_shard_is_not_written_anew_without_what_was_in_it(tmp_path):
    sink, layout = _sink(zarr.storage.LocalStore(tmp_path / "s"), 0)
    encoder = zarr_encoder(layout)
    sink.put((0, 0), encoder.encode(np.ones((5, 4), "i2")))
    shard = next(path for path in (tmp_path / "s").rglob("c/*/*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(VerifyError, match="index of the shard"):
        sink.put((5, 0), encoder.encode(np.ones((5, 4), "i2")))


def test_a_partial_folder_that_was_taken_is_not_put_in_place(tmp_path):
    staged = StagedFolder(check_store_target(tmp_path / "x.zarr", overwrite=True))
    staged.partial.rename(tmp_path / "elsewhere")
    staged.partial.mkdir()
    with pytest.raises(TargetError, match="taken by another write"):
        staged.publish()
    assert not (tmp_path / "x.zarr").exists()


def test_a_rename_that_fails_leaves_both(tmp_path, monkeypatch):
    target = tmp_path / "x.zarr"
    _store(target, "old")
    staged = StagedFolder(check_store_target(target, overwrite=True))
    (staged.partial / "zarr.json").write_text("new")

    def fails(one, other):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(other))

    monkeypatch.setattr(folders, "_swap", fails)
    with pytest.raises(OSError, match="putting the new store in place failed"):
        staged.publish()
    assert (target / "zarr.json").read_text() == "old"
    assert (staged.partial / "zarr.json").read_text() == "new"


@pytest.mark.parametrize("name", ["", "é" * 130 + ".zarr"])
def test_names_that_can_not_be(tmp_path, name):
    path = tmp_path / name if name else "/"
    with pytest.raises(TargetError) as caught:
        check_store_target(path, overwrite=True)
    assert caught.value.kind in (ErrorKind.OPTION, ErrorKind.FOLDER)


def _sink(store, room, shape=(40, 12)):
    array = zarr.create_array(store, name="a", shape=shape, chunks=(5, 4), shards=(20, 12), dtype="i2")
    return ZarrSink(array, limit=shape, room=room), layout_of_array(array)


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("room", [0, 100, 10**6], ids=["no room", "little room", "room"])
@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_chunks_in_any_order_twice_and_in_little_room(tmp_path, room, kind):
    store = zarr.storage.LocalStore(tmp_path / "s") if kind == "folder" else MemoryStore()
    sink, layout = _sink(store, room)
    encoder = zarr_encoder(layout)
    data = np.random.default_rng(0).integers(0, 99, (40, 12), dtype="i2")
    offsets = [(row, column) for row in range(0, 40, 5) for column in range(0, 12, 4)]
    order = np.random.default_rng(1).permutation(len(offsets))
    put = {}
    for number in [*order[:10], *order]:
        row, column = offsets[number]
        encoded = encoder.encode(data[row : row + 5, column : column + 4])
        sink.put((row, column), encoded)
        put[row, column] = bytes(encoded.data)
    sink.flush()
    assert {offset: sink.get(offset) for offset in offsets} == put
    assert np.array_equal(zarr.open_array(store, path="a", mode="r")[...], data)
    objects = StoreObjects(store, "a") if kind == "memory" else FolderObjects(tmp_path / "s" / "a")
    assert sink.stored_bytes == sum(objects.size(f"c/{n}/0") for n in range(2))


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("place", [3, -3], ids=["a chunk", "the index"])
def test_a_flipped_bit_is_found(tmp_path, place):
    sink, layout = _sink(zarr.storage.LocalStore(tmp_path / "s"), 10**6, shape=(20, 12))
    encoder = zarr_encoder(layout)
    sent = encoder.encode(np.ones((5, 4), "i2"))
    for row in range(0, 20, 5):
        for column in range(0, 12, 4):
            sink.put((row, column), sent)
    shard = tmp_path / "s" / "a" / "c" / "0" / "0"
    damaged = bytearray(shard.read_bytes())
    damaged[place] ^= 1
    shard.write_bytes(damaged)
    if place > 0:
        assert sink.get((0, 0)) != bytes(sent.data)
    else:
        with pytest.raises(VerifyError, match="index of the shard c/0/0"):
            sink.get((0, 0))
    shard.unlink()
    with pytest.raises(VerifyError):
        _sink_again(tmp_path).get((0, 0))


def _sink_again(tmp_path):
    array = zarr.open_array(tmp_path / "s", path="a", mode="r+")
    return ZarrSink(array, limit=array.shape, room=10**6)


def test_half_a_file_is_never_left_under_its_name(tmp_path):
    class Breaks:
        def __buffer__(self, flags):
            raise BufferError("broken")

    objects = FolderObjects(tmp_path)
    objects.put("c/0", [b"whole"])
    with pytest.raises(BufferError):
        objects.put("c/0", [b"half", Breaks()])
    assert objects.get("c/0") == b"whole"
    assert objects.get("c/0", 1, 2) == b"ho"
    assert objects.get("c/0", -2) == b"le"
    assert objects.get("c/1") is None
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["0"]
