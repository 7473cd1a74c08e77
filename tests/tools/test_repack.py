"""Writing anew: what is copied as it is, what is encoded anew, links, refusals, and what the comparison catches."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pynwb
import pytest
import zarr
from hdmf.backends.hdf5 import H5DataIO
from linked import VALUES, content, external, raw, recording, virtual
from s3_server import options, s3_server
from support import session, write_nwb

import nwbflow
from nwbflow.errors import ErrorKind
from nwbflow.model.events import ChunkStored, RunFinished
from nwbflow.sources.arrays import ArraySource
from nwbflow.sources.banded import Banded
from nwbflow.tools.links import check_links
from nwbflow.tools.repack.compare import Comparison
from nwbflow.tools.repack.hdf5_contents import hdf5_contents

pytestmark = pytest.mark.requirement("T1")

SAMPLES = np.cumsum(np.random.default_rng(0).integers(-9, 10, (30_000, 8)), axis=0).astype("i2")
DATA = "/acquisition/{}/data"
INSIDE = "/acquisition/probe/data"


def repack(source, target, **more):
    return nwbflow.repack(source, target, **{"progress": False, **more})


@pytest.fixture
def source(tmp_path):
    """A file with three compressed series, by plain PyNWB."""
    path = tmp_path / "source.nwb"
    settings = {
        "gzip": {"compression": "gzip", "shuffle": True, "chunks": (4000, 3), "maxshape": (None, 8), "fillvalue": -1},
        "checked": {"compression": "gzip", "fletcher32": True, "chunks": (7000, 8)},
        "bare": {},
    }
    write_nwb(session(**{name: H5DataIO(SAMPLES, **given) for name, given in settings.items()}), path, pynwb.NWBHDF5IO)
    return path


def chunks(path, name):
    """Return the stored bytes of every chunk as stock h5py gives them."""
    with h5py.File(path) as file:
        dataset = file[DATA.format(name)].id
        at = [dataset.get_chunk_info(n).chunk_offset for n in range(dataset.get_num_chunks())]
        return {offset: dataset.read_direct_chunk(offset) for offset in at}


def properties(path, name):
    with h5py.File(path) as file:
        dataset = file[DATA.format(name)]
        return dataset.chunks, dataset.compression_opts, dataset.shuffle, dataset.fletcher32, dataset.maxshape


def test_chunks_that_stay_as_they_are_are_copied_as_they_are_stored(source, tmp_path):
    done = repack(source, tmp_path / "out.nwb")
    assert content(source) == content(tmp_path / "out.nwb")
    by = {dataset.name: dataset.encoded_by for dataset in done.receipt.datasets}
    assert by == {DATA.format("gzip"): "its source", DATA.format("checked"): "its source", DATA.format("bare"): "none"}
    assert (done.raw_copied, done.lost, done.changed) == (2, (), ())
    for name in ("gzip", "checked"):
        assert chunks(source, name) == chunks(tmp_path / "out.nwb", name)
        assert properties(source, name) == properties(tmp_path / "out.nwb", name)


def test_a_profile_and_rules_store_anew_what_they_are_about_and_nothing_else(source, tmp_path):
    rules = {
        "version": 1,
        "rules": [{"location": DATA.format("gzip"), "codec": {"name": "gzip", "level": 9}, "chunks": [1000, 8]}],
    }
    done = repack(source, tmp_path / "ruled.nwb", rules=rules)
    assert done.raw_copied == 1
    assert properties(tmp_path / "ruled.nwb", "gzip") == ((1000, 8), 9, True, False, (None, 8))
    assert chunks(source, "checked") == chunks(tmp_path / "ruled.nwb", "checked")

    done = repack(source, tmp_path / "archive.nwb", profile="archive", verify="full")
    assert done.receipt.verified == "full"
    for name in ("gzip", "checked", "bare"):
        assert properties(tmp_path / "archive.nwb", name)[1:4] == (6, True, True)
    assert properties(tmp_path / "archive.nwb", "gzip")[4] == (None, 8)
    for made in ("ruled.nwb", "archive.nwb"):
        assert content(source) == content(tmp_path / made)


def test_chunks_and_codecs_go_to_a_store_and_come_back(source, tmp_path):
    repack(source, tmp_path / "there.nwb.zarr")
    arrays = zarr.open_group(tmp_path / "there.nwb.zarr", mode="r")
    found = arrays["acquisition/gzip/data"]
    assert found.chunks == (4000, 3)
    assert found.shards is not None
    assert [codec.to_dict()["name"] for codec in found.compressors] == ["blosc"]
    assert arrays["acquisition/bare/data"].compressors == ()
    done = repack(tmp_path / "there.nwb.zarr", tmp_path / "back.nwb")
    assert [one.text for one in done.changed] == ["its CRC-32C is a Fletcher-32 in HDF5"]
    assert properties(tmp_path / "back.nwb", "gzip")[:4] == properties(source, "gzip")[:4]
    assert properties(tmp_path / "back.nwb", "checked")[:4] == properties(source, "checked")[:4]

    repack(source, tmp_path / "fast.nwb.zarr", profile="fast")
    again = repack(tmp_path / "fast.nwb.zarr", tmp_path / "kept.nwb.zarr")
    assert (again.lost, again.changed, again.raw_copied) == ((), (), 3)
    one, other = (zarr.open_group(tmp_path / f"{name}.nwb.zarr", mode="r")["acquisition/gzip/data"] for name in
                  ("fast", "kept"))  # fmt: skip
    assert (one.chunks, one.compressors) == (other.chunks, other.compressors)
    assert np.array_equal(other[...], SAMPLES)


def test_events_tell_of_every_chunk(source, tmp_path):
    seen = []
    done = repack(source, tmp_path / "out.nwb.zarr", progress=seen.append, workers=2)
    assert sum(event.raw_bytes for event in seen if isinstance(event, ChunkStored)) == 3 * SAMPLES.nbytes
    assert [event.receipt for event in seen if isinstance(event, RunFinished)] == [done.receipt]


def test_names_keep_their_order_and_bytes_before_the_file_are_told_of(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w", track_order=True, userblock_size=512) as file:
        file.attrs["nwb_version"] = "2.9.0"
        group = file.create_group("zoo", track_order=True)
        for name in ("zebra", "ant", "middle"):
            group.create_group(name)
        group["link"] = h5py.SoftLink("/zebra")
        group["bee"] = 2
    done = repack(tmp_path / "a.nwb", tmp_path / "b.nwb")
    assert [str(one) for one in done.lost] == [
        "/: left out: 512 bytes that are no HDF5, in front of the file (user block)"
    ]
    with h5py.File(tmp_path / "b.nwb") as file:
        assert list(file["zoo"]) == ["zebra", "ant", "middle", "link", "bee"]
    assert [str(one) for one in done.changed] == ["/: names in it are in the order of the alphabet now"]


@pytest.fixture
def linking(tmp_path):
    """An NWB file with links of every kind to files beside it."""
    data = tmp_path / "here" / "data"
    for number in range(3):
        recording(data / f"{number}.h5", VALUES + number, chunks=(50, 4), compression=3)
    VALUES.tofile(data / "raw.bin")
    path = tmp_path / "here" / "source.nwb"
    write_nwb(session(x=SAMPLES), path, pynwb.NWBHDF5IO)
    with h5py.File(path, "r+") as file:
        external(file, "/g/external", data / "0.h5", INSIDE)
        virtual(file, "/g/virtual", [(data / f"{n}.h5", INSIDE) for n in (1, 2)])
        raw(file, "/g/raw", data / "raw.bin")
        file["g/soft"] = h5py.SoftLink("/g/virtual")
        file["g/hard"] = file["acquisition/x/data"]
        file["references"] = np.array([file["g/virtual"].ref, file["g/raw"].ref, file["g"].ref], dtype=h5py.ref_dtype)
    return path


@pytest.mark.requirement("X5")
def test_links_are_kept_from_another_folder(linking, tmp_path):
    (tmp_path / "there").mkdir()
    done = repack(linking, tmp_path / "there" / "out.nwb")
    assert (done.lost, done.changed) == ((), ())
    assert content(linking) == content(tmp_path / "there" / "out.nwb")
    assert check_links(tmp_path / "there" / "out.nwb").ok


@pytest.mark.parametrize("name", ["out.nwb", "out.nwb.zarr"])
def test_links_are_embedded(linking, name, tmp_path):
    (expected,) = content(linking)
    done = repack(linking, tmp_path / name, links="embed", profile="fast")
    assert done.lost == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["here", name])
    if name.endswith(".zarr"):
        repack(tmp_path / name, tmp_path / "back.nwb")
    shutil.rmtree(linking.parent)
    (found,) = content(tmp_path / ("back.nwb" if name.endswith(".zarr") else name))
    assert [path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)] == []


def test_links_that_a_store_can_not_have_are_refused(linking, tmp_path):
    with pytest.raises(nwbflow.UnsupportedError, match=r"/g/external(.|\n)*/g/raw(.|\n)*links='embed'") as caught:
        repack(linking, tmp_path / "out.nwb.zarr")
    assert caught.value.kind is ErrorKind.FOREIGN
    (linking.parent / "data" / "0.h5").unlink()
    with pytest.raises(nwbflow.LinkError, match="nothing was embedded"):
        repack(linking, tmp_path / "out.nwb", links="embed")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("target", ["old.nwb", "old.nwb.zarr"])
def test_a_source_that_can_not_be_read_leaves_the_old_result(source, target, tmp_path):
    nwbflow.write(session(old=SAMPLES[:10]), tmp_path / target, progress=False)
    old = sorted(
        (path, path.read_bytes()) for path in [tmp_path / target, *tmp_path.glob(f"{target}/**/*")] if path.is_file()
    )
    with pytest.raises(nwbflow.TargetError, match="overwrite") as caught:
        repack(source, tmp_path / target)
    assert caught.value.kind is ErrorKind.EXISTS
    with h5py.File(source) as file:
        info = file[DATA.format("checked")].id.get_chunk_info(2)
    with source.open("r+b") as file:
        file.seek(info.byte_offset + 100)
        file.write(bytes(50))
    with pytest.raises(nwbflow.NwbflowError, match=DATA.format("checked")):
        repack(source, tmp_path / target, overwrite=True, profile="fast")
    assert old == sorted(
        (path, path.read_bytes()) for path in [tmp_path / target, *tmp_path.glob(f"{target}/**/*")] if path.is_file()
    )


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def not_nwb(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1


def folder(path):
    path.unlink()
    path.mkdir()


def old_store(path):
    folder(path)
    zarr.open_group(path, mode="w", zarr_format=2)


def strange_store(path):
    folder(path)
    zarr.open_group(path, mode="w", zarr_format=3)


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (cut, ErrorKind.IO, "damaged or cut off"),
        (lambda path: path.write_bytes(b""), ErrorKind.NOT_HDF5, "not an HDF5 file"),
        (lambda path: path.unlink(), ErrorKind.MISSING, "no such file"),
        (not_nwb, ErrorKind.NOT_HDF5, "no NWB 2 file"),
        (folder, ErrorKind.FOLDER, "no Zarr store"),
        (strange_store, ErrorKind.FOLDER, "no NWB file"),
        (old_store, ErrorKind.OPTION, "Zarr v2"),
    ],
    ids=["cut", "empty", "missing", "not NWB", "folder", "store of something else", "Zarr v2"],
)
@pytest.mark.parametrize("target", ["out.nwb", "out.nwb.zarr"])
def test_a_source_that_is_none_is_refused(spoil, kind, text, target, source, tmp_path):
    spoil(source)
    with pytest.raises(nwbflow.NwbflowError, match=text) as caught:
        repack(source, tmp_path / target)
    assert caught.value.kind is kind
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_what_is_not_finished_or_being_written_is_refused(source, tmp_path):
    shutil.copy(source, tmp_path / "x.nwb.partial")
    with pytest.raises(nwbflow.TargetError, match="interrupted") as caught:
        repack(tmp_path / "x.nwb.partial", tmp_path / "out.nwb")
    assert caught.value.kind is ErrorKind.INTERRUPTED
    (tmp_path / "y.nwb.journal").mkdir()
    (tmp_path / "y.nwb.journal" / "manifest.json").write_text("{}")
    shutil.copy(source, tmp_path / "y.nwb")
    with pytest.raises(nwbflow.TargetError, match="nwbflow recover"):
        repack(tmp_path / "y.nwb", tmp_path / "out.nwb")
    writer = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", writer, source], **pipes) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(nwbflow.LinkError, match="another process") as locked:
            repack(source, tmp_path / "out.nwb")
        assert locked.value.kind is ErrorKind.LOCKED
        other.stdin.close()
    assert not (tmp_path / "out.nwb").exists()


def test_a_file_is_never_replaced_by_itself(source, tmp_path):
    (tmp_path / "other name.nwb").symlink_to(source)
    before = source.read_bytes()
    for target in (source, tmp_path / "other name.nwb"):
        with pytest.raises(nwbflow.TargetError, match="itself"):
            repack(source, target, overwrite=True)
    repack(source, tmp_path / "store.nwb.zarr")
    for target in (tmp_path / "store.nwb.zarr", tmp_path / "store.nwb.zarr" / "in.nwb.zarr"):
        with pytest.raises(nwbflow.TargetError, match="itself"):
            repack(tmp_path / "store.nwb.zarr", target, overwrite=True)
    assert source.read_bytes() == before


def test_groups_too_deep_for_hdmf_are_refused(source, tmp_path):
    with h5py.File(source, "r+") as file:
        group = file["/"]
        for _ in range(1200):
            group = group.create_group("g")
        group["x"] = 1
    with pytest.raises(nwbflow.UnsupportedError, match="depth") as caught:
        repack(source, tmp_path / "out.nwb.zarr")
    assert caught.value.kind is ErrorKind.CYCLE
    assert not list(tmp_path.glob("out*"))


def test_settings_that_are_none_are_refused(source, tmp_path):
    with pytest.raises(nwbflow.SettingsError, match="links="):
        repack(source, tmp_path / "out.nwb", links="follow")
    with pytest.raises(nwbflow.UnsupportedError, match="copy it to a disk first"):
        repack("s3://bucket/a.nwb.zarr", tmp_path / "out.nwb")


def test_a_store_goes_to_an_object_store(source, tmp_path):
    with s3_server() as endpoint:
        done = repack(source, "s3://lab/a.nwb.zarr", storage_options=options(endpoint))
        assert (done.lost, done.changed) == ((), ())
        assert done.raw_copied == 0
        reader = [sys.executable, os.path.join(os.path.dirname(__file__), os.pardir, "s3_reader.py"), endpoint]
        found = subprocess.run(reader, input="s3://lab/a.nwb.zarr\n", capture_output=True, text=True, check=True)
        assert set(json.loads(found.stdout)) == {"gzip", "checked", "bare"}


def compared(one, other):
    with h5py.File(one) as before, h5py.File(other) as after:
        comparison = Comparison(hdf5_contents(before, str(one)), hdf5_contents(after, str(other)), (), ())
        comparison.run()
        return [str(found) for found in comparison.lost], [str(found) for found in comparison.changed]


def test_the_comparison_finds_whatever_was_changed(source, tmp_path):
    other = tmp_path / "other.nwb"

    def spoiled(change):
        shutil.copy(source, other)
        with h5py.File(other, "r+") as file:
            change(file)
        return compared(source, other)

    assert spoiled(lambda file: None) == ([], [])
    lost, _ = spoiled(lambda file: file["acquisition"].pop("gzip"))
    assert "/acquisition/gzip: missing in the result" in lost
    lost, _ = spoiled(lambda file: file[DATA.format("gzip")].attrs.pop("unit"))
    assert lost == ["/acquisition/gzip/data@unit: missing in the result"]
    lost, _ = spoiled(lambda file: file[DATA.format("gzip")].attrs.modify("conversion", 2.0))
    assert lost == ["/acquisition/gzip/data@conversion: its value is 2.0 and was 1.0"]
    _, changed = spoiled(lambda file: file[DATA.format("gzip")].attrs.create("more", 1))
    assert changed == ["/acquisition/gzip/data@more: it is in the result only"]
    with pytest.raises(nwbflow.VerifyError, match=r"/acquisition/bare/data.*differ"):
        spoiled(lambda file: file[DATA.format("bare")].write_direct(SAMPLES + 1))
    with pytest.raises(nwbflow.VerifyError, match="shape"):
        spoiled(lambda file: file[DATA.format("gzip")].resize(5, axis=0))


class Counted(ArraySource):
    """An array that counts what is read of it."""

    elements = 0

    def read(self, region):
        found = super().read(region)
        self.elements += found.size
        return found


@pytest.mark.parametrize("rows", [1, 7, 10, 64, 100])
def test_stored_chunks_are_decoded_once(rows):
    array = np.arange(1000).reshape(100, 10)
    inner = Counted(array)
    source = Banded(inner, 16, "x")
    parts = [source.read((slice(at, min(at + rows, 100)), slice(0, 10))) for at in range(0, 100, rows)]
    assert np.array_equal(np.concatenate(parts), array)
    assert inner.elements == 1000


def test_a_file_for_an_object_store_is_made_on_a_disk_first(tmp_path):
    stock = tmp_path / "a.nwb"
    nwbflow.write(session(a=np.arange(100)), stock, progress=False)
    with pytest.raises(nwbflow.UnsupportedError, match=r"nwbflow upload FILE s3://lab/b\.nwb") as caught:
        repack(stock, "s3://lab/b.nwb")
    assert caught.value.kind is ErrorKind.OPTION
