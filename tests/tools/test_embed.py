"""Embedding: what stock h5py reads is the same before and after, and afterwards nothing else is needed."""

import os
import resource
import shutil
from datetime import UTC, datetime

import h5py
import numpy as np
import pynwb
import pytest
from linked import VALUES, content, external, raw, recording, virtual

from nwbflow.errors import ErrorKind, LinkError, StorageError, TargetError, VerifyError
from nwbflow.links.fingerprint import fingerprint_dataset
from nwbflow.tools.links import copying as links_copying
from nwbflow.tools.links import embed, list_links

pytestmark = pytest.mark.requirement("X5")
INSIDE = "/acquisition/probe/data"


@pytest.fixture
def tree(tmp_path):
    """A file with links of every kind, some to one target."""
    data = tmp_path / "data"
    settings = {"chunks": (50, 4), "compression": 3, "shuffle": True, "maxshape": (None, 6)}
    for number in range(3):
        recording(data / f"{number}.h5", VALUES + number, **settings)
    VALUES.tofile(data / "raw.bin")
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        external(file, "/g/e", data / "0.h5", INSIDE)
        external(file, "/g/again", data / "0.h5", INSIDE)
        external(file, "/h/probe", data / "1.h5", "/acquisition/probe", recorded=False)
        virtual(file, "/v", [(data / f"{n}.h5", INSIDE) for n in (1, 2)])
        raw(file, "/r", data / "raw.bin")
        file["soft"] = h5py.SoftLink("/v")
        file["through"] = h5py.SoftLink("/h/probe/data")
        file["hard"] = file["r"]
        file["references"] = np.array([file["v"].ref, file["r"].ref, file["g"].ref], dtype=h5py.ref_dtype)
        file["v"].attrs["object_id"] = "of the virtual one"
    return tmp_path / "a.nwb"


def alone(path):
    """Take everything away that the file linked to."""
    shutil.rmtree(path.parent / "data")


def test_everything_is_in_the_file_and_reads_the_same(tree):
    (before,) = content(tree)
    with h5py.File(tree.parent / "data/0.h5") as file:
        stored = fingerprint_dataset(file[INSIDE], "full")
    report = embed(tree)
    assert report.written
    assert {e.path: (str(e.kind), e.same_as) for e in report.embedded} == {
        "/g/again": ("external", ""),
        "/g/e": ("external", "/g/again"),
        "/h/probe": ("external", ""),
        "/hard": ("raw", ""),
        "/v": ("virtual", ""),
    }
    alone(tree)
    assert content(tree) == [before]
    assert {link.kind for link in list_links(tree).links} == {"soft"}
    with h5py.File(tree) as file:
        assert file.get("g/e", getlink=True).path == "/g/again"
        assert "nwbflow_links" not in {*file["g"].attrs, *file["v"].attrs, *file["r"].attrs}
        assert fingerprint_dataset(file["g/again"], "full") == stored  # the chunks as they were
        assert (file["v"].chunks, file["v"].compression, file["v"].shuffle) == ((50, 4), "gzip", True)
        assert (file["r"].chunks, file["r"].external) == (None, None)
        assert file["hard"] == file["r"]
        assert file["v"].fillvalue == -1
    assert not embed(tree).written
    assert [p.name for p in tree.parent.iterdir()] == [tree.name]


def test_only_what_matches_is_embedded(tree):
    (before,) = content(tree)
    report = embed(tree, only=["/g/*", "/v"])
    assert [e.path for e in report.embedded] == ["/g/again", "/g/e", "/v"]
    assert {link.path for link in list_links(tree).links if link.kind != "soft"} == {"/h/probe", "/hard"}
    assert content(tree) == [before]
    with pytest.raises(LinkError, match=r"nothing matches '/nothing/\*'"):
        embed(tree, only=["/nothing/*", "/h/*"])


def test_more_files_than_can_be_open_at_once(tmp_path):
    for number in range(90):
        recording(tmp_path / f"{number}.h5", VALUES[:1] + number, chunks=(1, 6))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(90):
            external(file, f"/e{number}", tmp_path / f"{number}.h5", INSIDE)
    (before,) = content(tmp_path / "a.h5")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, limits[1]))
    try:
        embed(tmp_path / "a.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert content(tmp_path / "a.h5") == [before]


def test_a_virtual_dataset_of_more_files_than_can_be_open_names_the_limit(tmp_path):
    """HDF5 itself gives fill values for the sources it can't open."""
    for number in range(90):
        recording(tmp_path / f"{number}.h5", VALUES[:1] + number)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        virtual(file, "/v", [(tmp_path / f"{n}.h5", INSIDE) for n in range(90)], shape=(1, 6))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, limits[1]))
    try:
        with pytest.raises(LinkError, match="ulimit -n"):
            embed(tmp_path / "a.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [link.kind for link in list_links(tmp_path / "a.h5").links] == ["virtual"]
    assert embed(tmp_path / "a.h5").written


def test_a_record_that_cant_be_read_is_told_also_when_forced(tree):
    with h5py.File(tree, "a") as file:
        file["g"].attrs["nwbflow_links"] = "{damaged"
    with pytest.raises(LinkError, match="is no record that nwbflow wrote") as caught:
        embed(tree, force=True)
    assert ".partial" not in str(caught.value)


def test_other_names_of_the_file_are_told(tree):
    os.link(tree, tree.parent / "other.nwb")
    assert "has 2 names (hard links)" in embed(tree).notes[0]


def test_a_copy_elsewhere_leaves_the_file_alone(tree, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere" / "b.nwb"
    (before,) = content(tree)
    old = tree.read_bytes()
    assert embed(tree, out=out).path == out
    assert tree.read_bytes() == old
    alone(tree)
    assert content(out) == [before]
    with pytest.raises(TargetError, match="exists"):
        embed(out, out=out)


def test_a_dry_run_says_what_and_how_much(tree):
    old = tree.read_bytes()
    report = embed(tree, dry_run=True)
    assert not report.written
    with h5py.File(tree.parent / "data/0.h5") as file:
        stored = file[INSIDE].id.get_storage_size()
    sizes = {e.path: e.nbytes for e in report.embedded}
    assert sizes["/g/again"] == stored
    assert (sizes["/g/e"], sizes["/v"], sizes["/hard"]) == (0, 2 * VALUES.nbytes, VALUES.nbytes)
    assert report.nbytes == sum(sizes.values())
    assert tree.read_bytes() == old


@pytest.mark.parametrize("spoil", ["missing", "short", "altered", "attribute"])
def test_what_is_missing_or_not_what_was_linked_is_refused_before_anything_is_changed(spoil, tree):
    data = tree.parent / "data"
    if spoil == "missing":
        (data / "0.h5").unlink()
    elif spoil == "short":
        os.truncate(data / "raw.bin", 100)
    else:
        with h5py.File(data / "0.h5", "a") as file:
            if spoil == "altered":
                file[INSIDE][0, 0] += 1
            else:
                file[INSIDE].attrs["unit"] = "apples"
    old = tree.read_bytes()
    says = {"missing": "does not exist", "short": "zeros", "altered": "content is not", "attribute": "'apples'"}[spoil]
    for dry_run in (True, False):
        with pytest.raises(LinkError, match="nothing was embedded") as caught:
            embed(tree, dry_run=dry_run)
        assert says in str(caught.value)
        assert caught.value.kind is ErrorKind.REFUSED
    assert tree.read_bytes() == old
    if spoil in ("altered", "attribute"):
        (before,) = content(tree)
        embed(tree, force=True)
        assert content(tree) == [before]
    else:
        with pytest.raises(LinkError):
            embed(tree, force=True)


def test_a_group_comes_with_everything_in_it_and_what_that_links_to(tmp_path):
    data = tmp_path / "data"
    recording(data / "deep" / "far.h5", VALUES * 2)
    VALUES.tofile(data / "raw.bin")
    with h5py.File(data / "b.h5", "w") as file:
        group = file.create_group("g", track_order=True)
        group.attrs["object_id"] = "of the group"
        group["data"] = VALUES
        group["same"] = group["data"]
        group["inner"] = h5py.SoftLink("data")
        group["up"] = h5py.SoftLink("/g/sub")
        group["outer"] = h5py.SoftLink("/beside")
        file["beside"] = np.arange(7)
        external(file, "/g/far", data / "deep/far.h5", INSIDE)
        raw(file, "/g/raw", data / "raw.bin", recorded=False, absolute=True)
        virtual(file, "/g/virtual", [(data / "deep/far.h5", INSIDE)], recorded=False)
        group["sub/empty"] = h5py.Empty("f4")
        group["sub/scalar"] = 2.5
        group["sub/none"] = np.zeros((0, 3))
        group["sub/text"] = "ü"
        group["sub/texts"] = ["a", "bb", ""]
        group["sub/fixed"] = np.array([b"abc", b"d"])
        group["sub/flags"] = np.array([True, False])
        group["sub/type"] = np.dtype("<f4")
        group["sub/typed"] = h5py.Datatype(group["sub/type"].id).dtype.type(3)
        lists = group.create_dataset("sub/lists", (3,), h5py.vlen_dtype(np.int32))
        lists[0], lists[2] = [1, 2, 3], [4]
        group.create_dataset("sub/holes", (40, 6), "i2", chunks=(10, 6), fillvalue=5, compression="lzf")[:10] = 1
        row = np.dtype([("start", "<i4"), ("what", h5py.ref_dtype), ("note", h5py.string_dtype())])
        group["sub/rows"] = np.array([(1, group["data"].ref, "x"), (2, group.ref, "yy")], dtype=row)
        group["sub/references"] = np.array([group["sub/rows"].ref, h5py.Reference()], dtype=h5py.ref_dtype)
        group["sub/regions"] = np.array([group["data"].regionref[2:4, 1:2]], dtype=h5py.regionref_dtype)
        group["data"].attrs["about"] = group["sub/rows"].ref
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g"] = h5py.ExternalLink("data/b.h5", "/g")
        file["part"] = h5py.ExternalLink("data/b.h5", "/g/sub/holes")
        file["own"] = 1
    (before,) = content(tmp_path / "a.h5")
    report = embed(tmp_path / "a.h5")
    assert {e.path: e.same_as for e in report.embedded} == {"/g": "", "/part": "/g/sub/holes"}
    shutil.rmtree(data)
    assert content(tmp_path / "a.h5") == [before]
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["g"]
        assert group["same"] == group["data"] == file[group["sub/rows"]["what"][0]]
        assert file[group["data"].attrs["about"]] == group["sub/rows"]
        assert file[group["sub/regions"][0]] == group["data"]
        assert group.get("inner", getlink=True).path == "/g/data"
        assert isinstance(group.get("outer", getlink=True), h5py.HardLink)
        assert group["sub/holes"].compression == "lzf"
        assert group["sub/holes"].id.get_num_chunks() == 1
        assert group["virtual"].chunks is None


def test_references_that_lead_out_go_to_the_object_with_the_same_object_id_or_are_refused(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for name in ("known", "unknown"):
            file[f"elsewhere/{name}"] = np.arange(3)
            file[f"elsewhere/{name}"].attrs["object_id"] = name
        file["x"] = np.arange(4)
        file["x"].attrs["table"] = file["elsewhere/known"].ref
        file["y"] = np.array([file["elsewhere/known"].ref, file["elsewhere/unknown"].ref], dtype=h5py.ref_dtype)
        file.create_group("g")["soft"] = h5py.SoftLink("/elsewhere")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["here"] = np.arange(3)
        file["here"].attrs["object_id"] = "known"
        for name in ("x", "y", "g"):
            file[name] = h5py.ExternalLink("b.h5", f"/{name}")
    old = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(LinkError) as caught:
        embed(tmp_path / "a.h5")
    assert "b.h5:/y refers to /elsewhere/unknown, which is not embedded with it" in str(caught.value)
    assert "/g/soft would be a link to" in str(caught.value)
    assert "/x" not in str(caught.value).replace("b.h5:/x", "")
    assert (tmp_path / "a.h5").read_bytes() == old
    embed(tmp_path / "a.h5", only=["/x"])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file[file["x"].attrs["table"]] == file["here"]


def test_what_two_links_lead_to_may_refer_to_each_other(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["table"] = np.arange(3)
        file["column"] = np.arange(4)
        file["column"].attrs["table"] = file["table"].ref
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["c"] = h5py.ExternalLink("b.h5", "/column")
        file["t"] = h5py.ExternalLink("b.h5", "/table")
    embed(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file[file["c"].attrs["table"]] == file["t"]


def test_links_that_lead_back_become_soft_links(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["g/back"] = h5py.ExternalLink("a.h5", "/own")
        file["g/around"] = h5py.ExternalLink("a.h5", "/g")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["own"] = np.arange(3)
        file["g"] = h5py.ExternalLink("b.h5", "/g")
        file["self"] = h5py.ExternalLink("a.h5", "/own")
        file["back"] = h5py.ExternalLink("b.h5", "/g/back")
    embed(tmp_path / "a.h5")
    (tmp_path / "b.h5").unlink()
    with h5py.File(tmp_path / "a.h5") as file:
        links = {name: file.get(name, getlink=True) for name in ("self", "back", "g/back", "g/around")}
        assert {name: link.path for name, link in links.items()} == {
            "self": "/own",
            "back": "/own",
            "g/back": "/own",
            "g/around": "/g",
        }


def test_a_chain_of_files_and_a_virtual_dataset_of_another_file(tmp_path):
    recording(tmp_path / "c.h5", chunks=(20, 6))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        virtual(file, "/v", [(tmp_path / "c.h5", INSIDE)] * 2, recorded=False)
        file["link"] = h5py.ExternalLink("c.h5", INSIDE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = h5py.ExternalLink("b.h5", "/v")
        file["x"] = h5py.ExternalLink("b.h5", "/link")
        file["direct"] = h5py.ExternalLink("c.h5", INSIDE)
    (before,) = content(tmp_path / "a.h5")
    report = embed(tmp_path / "a.h5")
    assert {e.path: e.same_as for e in report.embedded} == {"/direct": "", "/v": "", "/x": "/direct"}
    for name in "bc":
        (tmp_path / f"{name}.h5").unlink()
    assert content(tmp_path / "a.h5") == [before]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["v"].chunks == (20, 6)


def test_virtual_sources_that_differ_give_a_contiguous_dataset(tmp_path):
    recording(tmp_path / "1.h5", chunks=(20, 6))
    recording(tmp_path / "2.h5", chunks=(30, 6))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        virtual(file, "/v", [(tmp_path / f"{n}.h5", INSIDE) for n in (1, 2)])
    (before,) = content(tmp_path / "a.h5")
    embed(tmp_path / "a.h5")
    assert content(tmp_path / "a.h5") == [before]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["v"].chunks is None


def test_raw_stretches_larger_than_a_piece(tmp_path):
    values = np.random.default_rng(2).integers(-9, 9, 5_000_000).astype(">i2")
    values.tofile(tmp_path / "r.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        name = str(tmp_path / "r.bin")
        parts = [(name, 0, 6_000_002), (name, 6_000_002, h5py.h5s.UNLIMITED)]
        file.create_dataset("r", (1000, 5000), ">i2", external=parts, maxshape=(None, 5000))
    embed(tmp_path / "a.h5")
    (tmp_path / "r.bin").unlink()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["r"].dtype == values.dtype
        assert np.array_equal(file["r"][...].ravel(), values)


def test_a_filter_that_is_not_here_is_not_needed(tmp_path):
    """Stored chunks are copied even if nobody here can decode them."""
    with h5py.File(tmp_path / "b.h5", "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((100,))
        settings.set_filter(1, h5py.h5z.FLAG_MANDATORY, (4,))
        space = h5py.h5s.create_simple((1000,))
        h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I32LE, space, settings)
        file["x"][...] = np.arange(1000)
        file["x"].attrs["unit"] = "V"
        place = h5py.h5o.get_info(file["x"].id).addr
    data = bytearray((tmp_path / "b.h5").read_bytes())
    at = data.index(b"deflate\0", place) - 8  # the filter's message: number, length of its name, flags, values, name
    assert data[at : at + 2] == b"\x01\x00"
    data[at : at + 2] = (32769).to_bytes(2, "little")
    (tmp_path / "b.h5").write_bytes(data)
    with h5py.File(tmp_path / "b.h5") as file:
        stored = fingerprint_dataset(file["x"], "full")
        with pytest.raises(OSError, match="read data"):
            file["x"][...]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("b.h5", "/x")
    embed(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert isinstance(file.get("x", getlink=True), h5py.HardLink)
        assert fingerprint_dataset(file["x"], "full") == stored
        assert dict(file["x"].attrs) == {"unit": "V"}


def test_a_copy_that_reads_back_differently_is_not_put_in_place(tree, monkeypatch):
    old = tree.read_bytes()
    original = links_copying.write

    def spoilt(dataset, region, values):
        original(dataset, region, values[::-1].copy())

    monkeypatch.setattr(links_copying, "write", spoilt)
    with pytest.raises(VerifyError, match="what was read back differs"):
        embed(tree, only=["/hard"])
    assert tree.read_bytes() == old


def test_a_disk_without_room_is_told_before_anything(tmp_path):
    with open(tmp_path / "r.bin", "wb") as file:
        file.truncate(10**13)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("r", (5 * 10**12,), "<i2", external=[(str(tmp_path / "r.bin"), 0, 10**13)])
    with pytest.raises(StorageError, match=r"takes 1\d{13} bytes, and .* has \d+ left") as caught:
        embed(tmp_path / "a.h5")
    assert caught.value.kind is ErrorKind.NO_SPACE
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.h5", "r.bin"]


def test_a_source_that_becomes_short_while_it_is_read(tmp_path, monkeypatch):
    VALUES.tofile(tmp_path / "r.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw(file, "/r", tmp_path / "r.bin")
    old = (tmp_path / "a.h5").read_bytes()
    regions = links_copying.regions

    def cut(dataset):
        os.truncate(tmp_path / "r.bin", 100)
        return regions(dataset)

    monkeypatch.setattr(links_copying, "regions", cut)
    with pytest.raises(LinkError, match="became shorter"):
        embed(tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == old


def test_pynwb_reads_and_validates_an_embedded_session(tmp_path):
    def session(name):
        return pynwb.NWBFile(name, name, datetime(2020, 1, 1, tzinfo=UTC))

    source = session("source")
    device = source.create_device("probe")
    group = source.create_electrode_group("shank", "d", "l", device)
    for number in range(4):
        source.add_electrode(location=f"l{number}", group=group)
    region = source.create_electrode_table_region([0, 1, 2, 3], "all")
    source.add_acquisition(pynwb.ecephys.ElectricalSeries(name="es", data=VALUES[:, :4], electrodes=region, rate=3.0))
    source.add_acquisition(pynwb.TimeSeries(name="ts", data=VALUES, unit="V", timestamps=np.arange(120.0)))
    with pynwb.NWBHDF5IO(tmp_path / "b.nwb", "w") as io:
        io.write(source)
    target = session("target")
    with pynwb.NWBHDF5IO(tmp_path / "b.nwb", "r") as io:
        linked = io.read()
        target.add_acquisition(linked.acquisition["ts"])
        series = pynwb.TimeSeries(name="own", data=linked.acquisition["es"].data, unit="volts", rate=1.0)
        target.add_acquisition(series)
        with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "w", manager=io.manager) as out:
            out.write(target)
    (before,) = content(tmp_path / "a.nwb")
    embed(tmp_path / "a.nwb")
    (tmp_path / "b.nwb").unlink()
    assert content(tmp_path / "a.nwb") == [before]
    assert pynwb.validate(path=tmp_path / "a.nwb") == []
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        found = io.read().acquisition
        assert np.array_equal(found["ts"].data[...], VALUES)
        assert np.array_equal(found["own"].data[...], VALUES[:, :4])


def test_a_link_to_a_dataset_of_another_file_whose_elements_are_in_a_raw_file(tmp_path):
    (tmp_path / "data").mkdir()
    VALUES.tofile(tmp_path / "data" / "raw.bin")
    with h5py.File(tmp_path / "data" / "other.h5", "w") as file:
        raw(file, "/r", tmp_path / "data" / "raw.bin", recorded=False)
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        external(file, "/x", tmp_path / "data" / "other.h5", "/r", recorded=False)
    embed(tmp_path / "a.nwb")
    alone(tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb") as file:
        assert isinstance(file.get("x", getlink=True), h5py.HardLink)
        assert np.array_equal(file["x"][()], VALUES)
