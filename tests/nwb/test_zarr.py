"""Zarr stores: everything that can be written, settings of both backends, and what is refused; read by stock tools."""

import json
from pathlib import Path

import h5py
import hdmf_zarr
import numpy as np
import pynwb
import pytest
import zarr
from hdmf.build import DatasetBuilder, GroupBuilder
from hdmf.data_utils import DataChunkIterator
from hdmf_zarr import ZarrDataIO
from support import MANAGER, Pieces, Sliceable, Tiles, cut, session
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

import nwbflow
from nwbflow.errors import ErrorKind, LinkError, PlanError, SettingsError, SourceError, TargetError, UnsupportedError
from nwbflow.nwb.zarr_io import ZarrIO
from nwbflow.testing.simulate import neuropixels

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")

RNG = np.random.default_rng(3)
WALK = np.cumsum(RNG.normal(0, 9, (5000, 40)), axis=0).astype("<i2")
SMALL = nwbflow.Profile(name="small", codec=("gzip", 4), chunk_bytes=16384, min_bytes=0)


def write(path, data, **options):
    """Write one dataset, ``/x``, through a plain HDMF store; return the receipt."""
    with ZarrIO(str(path), mode="w", manager=MANAGER, **options) as io:
        io.write_builder(GroupBuilder("root", datasets={"x": DatasetBuilder("x", data=data)}))
        return io.receipt


def read(path):
    return zarr.open_group(path, mode="r")["x"][...]


def objects(path):
    return sorted(str(p.relative_to(path)) for p in (Path(path) / "x").rglob("*") if p.is_file())


SOURCES = {
    "array": lambda a: a,
    "not contiguous": np.asfortranarray,
    "list": lambda a: a[:400].tolist(),
    "sliceable": lambda a: nwbflow.DataIO(Sliceable(a)),
    "blocks": lambda a: nwbflow.blocks((a[i : i + 77] for i in range(0, len(a), 77)), shape=a.shape, dtype=a.dtype),
    "blocks of unknown number": lambda a: nwbflow.blocks(
        (a[i : i + 913] for i in range(0, len(a), 913)), shape=(None, *a.shape[1:]), dtype=a.dtype
    ),
    "rows": lambda a: DataChunkIterator(a[:900], buffer_size=50),
    "tiles": lambda a: Tiles(a, chunk_shape=(500, 10), buffer_shape=(1000, 20)),
    "tiles out of order": lambda a: Pieces([(s, a[s]) for s in reversed(cut(a.shape, (300, 13)))], a.shape, a.dtype),
    "overlapping": lambda a: Pieces(
        [(slice(i, min(i + 400, len(a))), a[i : i + 400]) for i in range(0, len(a), 250)], a.shape, a.dtype
    ),
    "columns picked": lambda a: Pieces(
        [((slice(None), [c, c + 7]), a[:, [c, c + 7]]) for c in (*range(7), *range(14, 21), *range(28, 33))]
        + [((slice(None), slice(33, 35)), a[:, 33:35]), ((slice(None), slice(40 - 0, 40)), a[:, 40:])],
        a.shape,
        a.dtype,
    ),
    "zarr": lambda a: nwbflow.DataIO(zarr.create_array(MemoryStore(), data=a, chunks=(99, 9))),
}


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("profile", [None, SMALL], ids=["as hdmf-zarr", "sharded"])
@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_is_read_back_equal(tmp_path, kind, profile):
    given = SOURCES[kind](WALK)
    receipt = write(tmp_path / "x.zarr", given, profile=profile, verify="full")
    found = read(tmp_path / "x.zarr")
    expected = WALK[: len(found)]
    if kind == "columns picked":
        covered = [*range(35)]
        assert np.array_equal(found[:, covered], expected[:, covered])
    else:
        assert np.array_equal(found, expected)
    dataset = receipt.datasets[0]
    sizes = sum((tmp_path / "x.zarr" / name).stat().st_size for name in objects(tmp_path / "x.zarr")[:-1])
    assert dataset.encoded_by == "nwbflow"
    assert dataset.stored_bytes == sizes
    assert receipt.verified == "full"


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("dtype", ["<i2", ">i4", "u1", "?", "<f4", "<f8", "<u8"])
@pytest.mark.parametrize("shape", [(70001,), (3001, 33), (40, 50, 60), (11, 12, 13, 14)], ids=str)
def test_types_and_ranks(tmp_path, dtype, shape):
    data = RNG.integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)
    write(tmp_path / "x.zarr", data, profile=SMALL, verify="full")
    assert np.array_equal(read(tmp_path / "x.zarr"), data)


@pytest.mark.requirement("P4")
def test_whole_shards_are_written_once_in_bounded_number(tmp_path, monkeypatch):
    from nwbflow.sinks.objects import FolderObjects

    puts = []
    original = FolderObjects.put
    monkeypatch.setattr(FolderObjects, "put", lambda self, key, parts: puts.append(key) or original(self, key, parts))
    data = neuropixels(1.0)
    receipt = write(tmp_path / "x.zarr", data, profile="default")
    array = zarr.open_group(tmp_path / "x.zarr", mode="r")["x"]
    assert array.shards is not None
    assert receipt.datasets[0].layout.shards == array.shards
    assert len(puts) == len(set(puts)) == len(objects(tmp_path / "x.zarr")) - 1
    assert np.array_equal(array[...], data)


@pytest.mark.requirement("P4")
def test_a_store_of_a_whole_session_reads_equal_in_hdmf_zarr(tmp_path):
    data = neuropixels(1.0)
    nwbfile = session(a=data, b=np.arange(10.0))
    device = nwbfile.create_device(name="probe")
    group = nwbfile.create_electrode_group(name="g", description="d", location="l", device=device)
    for _ in range(384):
        nwbfile.add_electrode(group=group, location="l")
    region = nwbfile.create_electrode_table_region(region=list(range(384)), description="all")
    nwbfile.add_acquisition(pynwb.ecephys.ElectricalSeries(name="e", data=data, electrodes=region, rate=3e4))
    nwbfile.add_acquisition(pynwb.TimeSeries(name="shares", data=nwbfile.acquisition["a"], unit="V", rate=1.0))
    nwbfile.add_trial_column(name="score", description="s")
    for at in range(20):
        nwbfile.add_trial(start_time=float(at), stop_time=at + 0.5, score=at * 2.0)
    receipt = nwbflow.write(nwbfile, tmp_path / "s.nwb.zarr", verify="full", progress=False)
    assert {d.name for d in receipt.datasets} == {"/acquisition/a/data", "/acquisition/e/data"}
    assert nwbfile.acquisition["a"].data is data
    with hdmf_zarr.NWBZarrIO(str(tmp_path / "s.nwb.zarr"), "r") as io:
        back = io.read()
        assert np.array_equal(back.acquisition["a"].data[:], data)
        assert np.array_equal(back.acquisition["e"].data[5:7], data[5:7])
        assert back.acquisition["shares"].data.shape == data.shape
        assert back.electrodes["group"][0].name == "g"
        assert list(back.trials["score"][:]) == [at * 2.0 for at in range(20)]
        assert back.acquisition["e"].data.chunks[1] == 64
    nwbflow.write(nwbfile, tmp_path / "again.nwb.zarr", progress=False)
    nwbflow.write(nwbfile, tmp_path / "again.nwb", progress=False)


@pytest.mark.requirement("P4")
def test_without_a_profile_arrays_are_as_hdmf_zarr_makes_them(tmp_path):
    def make():
        return session(
            plain=np.arange(300000.0).reshape(-1, 10),
            listed=[1.5, 2.5],
            wrapped=ZarrDataIO(WALK, chunks=(100, 40), shards=(1000, 40), compressors=BloscCodec(cname="lz4")),
            tiles=Tiles(WALK, chunk_shape=(500, 10), buffer_shape=(1000, 20)),
        )

    for name, cls in (("ours", nwbflow.NWBZarrIO), ("theirs", hdmf_zarr.NWBZarrIO)):
        with cls(str(tmp_path / name), "w") as io:
            io.write(make())

    def facts(path):
        found = {}
        for member in sorted(Path(path).rglob("zarr.json")):
            text = json.loads(member.read_text())
            text.pop("consolidated_metadata", None)
            text["attributes"].pop("object_id", None)
            found[str(member.relative_to(path))] = text
        return found

    ours, theirs = facts(tmp_path / "ours"), facts(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {}
    assert len(ours) > 30


@pytest.mark.requirement("C3")
def test_one_setting_serves_both_backends(tmp_path):
    settings = {
        "gzip": nwbflow.DataIO(WALK, codec=("gzip", 6), chunks=(1000, 40), checksum=True),
        "zstd": nwbflow.DataIO(WALK, codec="zstd", chunks=(None, 20)),
        "h5": pynwb.H5DataIO(WALK, compression="gzip", compression_opts=2, shuffle=True, chunks=(500, 8)),
        "fill": nwbflow.DataIO(WALK, codec="none", fillvalue=-1),
    }
    for name in ("b.nwb", "b.nwb.zarr"):
        nwbflow.write(session(**settings), tmp_path / name, progress=False)
    with h5py.File(tmp_path / "b.nwb") as file:
        root = zarr.open_group(tmp_path / "b.nwb.zarr", mode="r")
        for name in settings:
            one, other = file[f"acquisition/{name}/data"], root[f"acquisition/{name}/data"]
            assert np.array_equal(one[...], other[...])
            if name in ("gzip", "h5"):
                assert one.chunks == other.chunks
        codecs = {name: [type(c).__name__ for c in root[f"acquisition/{name}/data"].compressors] for name in settings}
    assert codecs == {
        "gzip": ["BloscCodec", "Crc32cCodec"],
        "zstd": ["ZstdCodec"],
        "h5": ["BloscCodec"],
        "fill": [],
    }
    assert root["acquisition/fill/data"].fill_value == -1


@pytest.mark.requirement("C3")
def test_rules_choose_codecs_and_chunks_and_what_is_no_codec_of_zarr_is_refused_before_anything(tmp_path):
    rules = {"rules": [{"location": "/acquisition/a/data", "codec": "lz4", "chunks": [1000, None]}]}
    path = tmp_path / "r.nwb.zarr"
    nwbflow.write(session(a=WALK, b=WALK), path, rules=rules, progress=False)
    array = zarr.open_group(path, mode="r")["acquisition/a/data"]
    assert (array.chunks, array.compressors[0].cname) == ((1000, 40), "lz4")
    before = (path / "zarr.json").read_bytes()
    with pytest.raises(SettingsError, match=r"/acquisition/a/data.*szip.*write an HDF5 file") as caught:
        nwbflow.write(session(a=nwbflow.DataIO(WALK, codec="szip")), path, overwrite=True, progress=False)
    assert caught.value.kind is ErrorKind.CODEC
    assert (path / "zarr.json").read_bytes() == before
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.requirement("C3")
def test_what_stands_for_another_codec_is_noted(tmp_path):
    data = nwbflow.DataIO(WALK, codec="blosc2")
    receipt = nwbflow.write(session(a=data), tmp_path / "n.nwb.zarr", progress=False)
    assert any("Zarr has no Blosc 2" in note for note in receipt.notes)


def test_codecs_of_zarr_that_only_zarr_python_has_go_through_it(tmp_path):
    from zarr.codecs.numcodecs import LZMA, Delta

    data = ZarrDataIO(WALK, chunks=(500, 40), shards=(2000, 40), filters=[Delta(dtype="<i2")], compressors=[LZMA()])
    receipt = write(tmp_path / "x.zarr", data)
    assert np.array_equal(read(tmp_path / "x.zarr"), WALK)
    assert receipt.datasets[0].encoded_by == "zarr-python"
    assert any("zarr-python's own filters" in note for note in receipt.notes)


@pytest.mark.requirement("P4")
def test_shards_that_are_no_multiple_of_their_chunks_are_refused(tmp_path):
    data = ZarrDataIO(WALK, chunks=(300, 40))
    data.io_settings["shards"] = (1000, 40)
    with pytest.raises(SettingsError, match=r"^/x: .*can't be created as asked"):
        write(tmp_path / "x.zarr", data)
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.requirement("P4")
def test_bad_data_name_their_place_and_keep_what_had_arrived(tmp_path):
    def blocks():
        yield WALK[:3000]
        yield np.full((10, 40), np.nan)

    with pytest.raises(SourceError, match="/x"):
        write(tmp_path / "x.zarr", nwbflow.blocks(blocks(), shape=(None, 40), dtype="i2"), profile=SMALL)
    assert not (tmp_path / "x.zarr").exists()
    partial = tmp_path / "x.zarr.partial"
    assert np.array_equal(zarr.open_group(partial, mode="r")["x"][...], WALK[:3000])


def test_memory_is_kept_and_refused(tmp_path):
    with pytest.raises(PlanError, match="memory") as caught:
        write(tmp_path / "x.zarr", nwbflow.DataIO(WALK, chunks=(5000, 40)), profile="default", memory=300_000)
    assert caught.value.kind is ErrorKind.MEMORY
    receipt = write(tmp_path / "y.zarr", neuropixels(1.0), profile="default", memory="40 MB")
    assert np.prod(receipt.datasets[0].layout.shards) * 2 <= 10_000_000


@pytest.mark.requirement("P4")
def test_events_add_up(tmp_path):
    events = []
    receipt = nwbflow.write(session(a=WALK), tmp_path / "e.nwb.zarr", progress=events.append, profile=SMALL)
    kinds = [type(event).__name__ for event in events]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunFinished"
    stored = [e for e in events if type(e).__name__ == "ChunkStored" and e.dataset == "/acquisition/a/data"]
    assert len(stored) == next(d.chunks for d in receipt.datasets if d.name == "/acquisition/a/data")
    assert sum(e.raw_bytes for e in stored) == WALK.nbytes


@pytest.mark.requirement("P4")
def test_what_is_there_is_refused_or_replaced_as_asked(tmp_path):
    path = tmp_path / "s.nwb.zarr"
    nwbflow.write(session(a=WALK), path, progress=False)
    with pytest.raises(TargetError, match="overwrite=True") as caught:
        nwbflow.write(session(a=WALK), path, progress=False)
    assert caught.value.kind is ErrorKind.EXISTS
    nwbflow.write(session(b=WALK), path, progress=False, overwrite=True)
    assert list(zarr.open_group(path, mode="r")["acquisition"]) == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]

    file = tmp_path / "file.zarr"
    file.write_text("x")
    with pytest.raises(TargetError, match="is a file"):
        nwbflow.write(session(a=WALK), file, overwrite=True, progress=False)
    folder = tmp_path / "photos.zarr"
    folder.mkdir()
    (folder / "cat.png").write_text("x")
    with pytest.raises(TargetError, match="something else"):
        nwbflow.write(session(a=WALK), folder, overwrite=True, progress=False)
    assert (folder / "cat.png").exists()
    with pytest.raises(TargetError, match="does not exist"):
        nwbflow.write(session(a=WALK), tmp_path / "no" / "x.zarr", progress=False)


@pytest.mark.requirement("P4")
def test_a_failing_write_leaves_the_old_store_and_names_what_is_left(tmp_path):
    path = tmp_path / "s.nwb.zarr"
    nwbflow.write(session(a=WALK), path, progress=False)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}

    def fails():
        yield WALK[:100]
        raise RuntimeError("amplifier unplugged")

    data = nwbflow.blocks(fails(), shape=(None, 40), dtype="i2")
    with pytest.raises(RuntimeError, match="amplifier") as caught:
        nwbflow.write(session(a=data), path, overwrite=True, progress=False)
    assert any("s.nwb.zarr.partial" in note for note in caught.value.__notes__)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    with hdmf_zarr.NWBZarrIO(str(tmp_path / "s.nwb.zarr.partial"), "r") as io:
        assert io.read().acquisition["a"].data.shape == (100, 40)
    path2 = tmp_path / "new.nwb.zarr"
    (tmp_path / "s.nwb.zarr.partial").rename(tmp_path / "new.nwb.zarr.partial")
    with pytest.raises(TargetError, match="interrupted write"):
        nwbflow.write(session(a=WALK), path2, progress=False)
    nwbflow.write(session(a=WALK), path2, progress=False, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.nwb.zarr", "s.nwb.zarr"]


def test_two_writers_to_one_path(tmp_path):
    path = str(tmp_path / "x.zarr")
    first = ZarrIO(path, mode="w", manager=MANAGER)
    with pytest.raises(TargetError, match="is being written"):
        ZarrIO(path, mode="w", manager=MANAGER)
    first.close()


@pytest.mark.requirement("P4")
def test_links_and_data_of_other_files_are_refused_or_copied(tmp_path):
    nwbflow.write(session(a=WALK), tmp_path / "other.nwb", progress=False)
    other = (tmp_path / "other.nwb", "/acquisition/a/data")
    raw = tmp_path / "raw.bin"
    WALK.tofile(raw)
    out = tmp_path / "x.nwb.zarr"
    for data in (nwbflow.link(other), nwbflow.concat([other]), nwbflow.link_raw(raw, dtype="<i2", shape=(None, 40))):
        with pytest.raises(UnsupportedError, match="/acquisition/b/data"):
            nwbflow.write(session(b=data), out, progress=False)
    with pytest.raises(UnsupportedError, match="external='copy'"):
        nwbflow.write(session(b=WALK), out, external="link", progress=False)
    with h5py.File(tmp_path / "other.nwb") as file:
        with pytest.raises(LinkError, match="external='copy'"):
            nwbflow.write(session(b=file[other[1]]), out, progress=False)
        assert not out.exists()
        nwbflow.write(session(b=file[other[1]]), out, external="copy", progress=False)
    assert np.array_equal(zarr.open_group(out, mode="r")["acquisition/b/data"][...], WALK)
    nwbflow.write(session(b=nwbflow.copy(other)), out, overwrite=True, progress=False)
    assert np.array_equal(zarr.open_group(out, mode="r")["acquisition/b/data"][...], WALK)
    with nwbflow.NWBHDF5IO(tmp_path / "other.nwb", "r") as io:
        guest = io.read().acquisition["a"]
        nwbfile = session(own=WALK)
        nwbfile.add_acquisition(pynwb.TimeSeries(name="t", data=guest, unit="V", rate=1.0))
        with pytest.raises(UnsupportedError, match="read from HDF5 files"):
            nwbflow.write(nwbfile, out, overwrite=True, progress=False)


def test_export_from_hdf5_keeps_settings_and_is_bounded(tmp_path):
    data = pynwb.H5DataIO(WALK, compression="gzip", chunks=(250, 40))
    nwbflow.write(session(a=data), tmp_path / "in.nwb", progress=False)
    with (
        nwbflow.NWBHDF5IO(tmp_path / "in.nwb", "r") as source,
        nwbflow.NWBZarrIO(str(tmp_path / "out.nwb.zarr"), "w", verify="full") as io,
    ):
        io.export(src_io=source, write_args={"link_data": False})
        assert io.receipt.datasets[0].name == "/acquisition/a/data"
    with hdmf_zarr.NWBZarrIO(str(tmp_path / "out.nwb.zarr"), "r") as io:
        array = io.read().acquisition["a"].data
        assert array.chunks == (250, 40)
        assert np.array_equal(array[:], WALK)


def test_store_objects_and_appending_are_written_in_place(tmp_path):
    store = MemoryStore()
    with nwbflow.NWBZarrIO(store, "w", profile=SMALL, verify="full") as io:
        io.write(session(a=WALK))
    assert np.array_equal(zarr.open_group(store, mode="r")["acquisition/a/data"][...], WALK)
    path = str(tmp_path / "x.nwb.zarr")
    nwbflow.write(session(a=WALK), path, progress=False)
    with nwbflow.NWBZarrIO(path, "r+", profile=SMALL) as io:
        nwbfile = io.read()
        nwbfile.add_acquisition(pynwb.TimeSeries(name="b", data=WALK[::-1].copy(), unit="V", rate=1.0))
        io.write(nwbfile)
    with hdmf_zarr.NWBZarrIO(path, "r") as io:
        back = io.read()
        assert np.array_equal(back.acquisition["b"].data[:], WALK[::-1])
        assert np.array_equal(back.acquisition["a"].data[:], WALK)


@pytest.mark.requirement("P4")
def test_zarr_arrays_as_data_are_linked_refused_copied_or_exported_as_they_are(tmp_path):
    lone = str(tmp_path / "lone.zarr")
    zarr.create_array(lone, data=WALK, chunks=(500, 8), compressors=BloscCodec(cname="lz4hc"))
    array = zarr.open_array(lone, mode="r")
    with nwbflow.NWBZarrIO(str(tmp_path / "linked.nwb.zarr"), "w") as io:
        io.write(session(a=array))
    group = zarr.open_group(tmp_path / "linked.nwb.zarr", mode="r")["acquisition/a"]
    assert [(link["name"], link["source"]) for link in group.attrs["_LINKS"]] == [("data", "../lone.zarr")]
    with pytest.raises(LinkError, match="/acquisition/a/data"):
        nwbflow.write(session(a=array), tmp_path / "x.nwb.zarr", progress=False)
    small = zarr.create_array(MemoryStore(), data=np.arange(5.0))
    receipt = nwbflow.write(
        session(a=array, b=small), tmp_path / "copied.nwb.zarr", external="copy", verify="full", progress=False
    )
    assert [d.name for d in receipt.datasets] == ["/acquisition/a/data"]
    copied = zarr.open_group(tmp_path / "copied.nwb.zarr", mode="r")
    assert np.array_equal(copied["acquisition/a/data"][...], WALK)
    assert list(copied["acquisition/b/data"][...]) == [0, 1, 2, 3, 4]
    with nwbflow.NWBZarrIO(str(tmp_path / "in.nwb.zarr"), "w") as io:
        io.write(session(a=ZarrDataIO(WALK, chunks=(500, 8), compressors=BloscCodec(cname="lz4hc"))))
    with (
        hdmf_zarr.NWBZarrIO(str(tmp_path / "in.nwb.zarr"), "r") as source,
        nwbflow.NWBZarrIO(str(tmp_path / "out.nwb.zarr"), "w") as io,
    ):
        io.export(src_io=source)
    out = zarr.open_group(tmp_path / "out.nwb.zarr", mode="r")["acquisition/a/data"]
    assert (out.chunks, out.compressors[0].cname) == ((500, 8), "lz4hc")
    assert np.array_equal(out[...], WALK)
