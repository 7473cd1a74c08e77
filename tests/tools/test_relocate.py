"""Leading links to where their targets are now, and relative and absolute names."""

import os
import shutil

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s
from linked import VALUES, content, external, raw, recording, virtual

from nwbflow.errors import LinkError, TargetError
from nwbflow.tools.links import check_links, list_links, make_absolute, make_relative, relocate

pytestmark = pytest.mark.requirement("X5")
INSIDE = "/acquisition/probe/data"


@pytest.fixture
def tree(tmp_path):
    """Two files in one folder that link to files in another, by relative and absolute names; all recorded."""
    data = tmp_path / "data"
    for number in range(3):
        recording(data / "deep" / f"{number}.h5", VALUES + number)
    VALUES.tofile(data / "raw.bin")
    (tmp_path / "s").mkdir()
    for name in ("a", "b"):
        with h5py.File(tmp_path / "s" / f"{name}.nwb", "w") as file:
            external(file, "/g/relative", data / "deep/0.h5", INSIDE)
            external(file, "/g/absolute", data / "deep/0.h5", INSIDE, absolute=True)
            virtual(file, "/v/relative", [(data / f"deep/{n}.h5", INSIDE) for n in (1, 2)])
            virtual(file, "/v/absolute", [(data / f"deep/{n}.h5", INSIDE) for n in (1, 0)], absolute=True)
            raw(file, "/r/relative", data / "raw.bin")
            raw(file, "/r/absolute", data / "raw.bin", absolute=True)
            file["soft"] = h5py.SoftLink("/v/relative")
    return tmp_path


def names(path):
    """The file names that a file's links have, by the links' paths."""
    return {link.path: sorted({t.file for t in link.targets}) for link in list_links(path).links if link.kind != "soft"}


def test_a_folder_was_moved(tree):
    files = [tree / "s/a.nwb", tree / "s/b.nwb"]
    before = content(*files)
    (tree / "archive").mkdir()
    (tree / "data").rename(tree / "archive/2026")
    assert not any(check_links(file).ok for file in files)
    reports = relocate([tree / "s"], tree / "data", tree / "archive/2026")
    assert [(r.path, len(r.changes), r.written) for r in reports] == [(file, 6, True) for file in files]
    assert all(check_links(file).ok for file in files)
    assert content(*files) == before
    there = str(tree / "archive/2026")
    assert names(files[0]) == {
        "/g/absolute": [f"{there}/deep/0.h5"],
        "/g/relative": ["../archive/2026/deep/0.h5"],
        "/r/absolute": [f"{there}/raw.bin"],
        "/r/relative": ["../archive/2026/raw.bin"],
        "/v/absolute": [f"{there}/deep/0.h5", f"{there}/deep/1.h5"],
        "/v/relative": ["../archive/2026/deep/1.h5", "../archive/2026/deep/2.h5"],
    }
    assert {check.compared for check in check_links(files[0]).links if check.entry.kind != "soft"} == {"all"}
    assert sorted(p.name for p in (tree / "s").iterdir()) == ["a.nwb", "b.nwb"]
    with pytest.raises(LinkError, match="nothing was relocated, since\n    no link leads to"):
        relocate([tree / "s"], tree / "data", tree / "archive/2026")


def test_one_file_was_renamed(tree):
    (tree / "data/deep/0.h5").rename(tree / "data/zero.h5")
    (report,) = relocate([tree / "s/a.nwb"], tree / "data/deep/0.h5", tree / "data/zero.h5")
    assert [(c.path, dict(c.names)) for c in report.changes] == [
        ("/g/absolute", {f"{tree}/data/deep/0.h5": f"{tree}/data/zero.h5"}),
        ("/g/relative", {"../data/deep/0.h5": "../data/zero.h5"}),
        ("/v/absolute", {f"{tree}/data/deep/0.h5": f"{tree}/data/zero.h5"}),
    ]
    assert check_links(tree / "s/a.nwb").ok


def test_a_file_was_moved_into_a_folder_that_is_there(tree):
    (tree / "new").mkdir()
    (tree / "data/raw.bin").rename(tree / "new/raw.bin")
    relocate([tree / "s"], tree / "data/raw.bin", tree / "new")
    assert names(tree / "s/a.nwb")["/r/relative"] == ["../new/raw.bin"]
    assert check_links(tree / "s/a.nwb").ok


def test_the_linking_file_was_moved_and_the_old_name_is_given_as_recorded(tree, monkeypatch):
    (tree / "far/away").mkdir(parents=True)
    moved = tree / "far/away/a.nwb"
    (tree / "s/a.nwb").rename(moved)
    monkeypatch.chdir("/")
    assert {c.entry.path for c in check_links(moved).links if not c.ok} == {
        "/g/relative",
        "/r/relative",
        "/v/relative",
        "/soft",
    }
    relocate([moved], "../data", "../../data")
    assert names(moved)["/g/relative"] == ["../../data/deep/0.h5"]
    assert check_links(moved).ok


def test_a_new_name_that_could_be_two_places_is_refused(tree, monkeypatch):
    (tree / "s/new").mkdir()
    (tree / "new").mkdir()
    for folder in ("s/new", "new"):
        shutil.copy(tree / "data/raw.bin", tree / folder)
    monkeypatch.chdir(tree)
    with pytest.raises(LinkError, match="give the absolute path"):
        relocate(["s/a.nwb"], "../data/raw.bin", "new/raw.bin")


def test_paths_count_from_the_working_folder(tree, monkeypatch):
    (tree / "data").rename(tree / "moved")
    monkeypatch.chdir(tree)
    relocate(["s"], "data", "moved")
    assert check_links(tree / "s/a.nwb").ok


def test_other_names_with_the_same_beginning_are_left(tree):
    shutil.copytree(tree / "data", tree / "data2")
    with h5py.File(tree / "s/a.nwb", "a") as file:
        external(file, "/g/other", tree / "data2/deep/0.h5", INSIDE)
    (tree / "data").rename(tree / "moved")
    relocate([tree / "s"], tree / "data", tree / "moved")
    assert names(tree / "s/a.nwb")["/g/other"] == ["../data2/deep/0.h5"]


def test_a_folder_reached_through_a_symbolic_link(tree):
    (tree / "link").symlink_to("data")
    with h5py.File(tree / "s/a.nwb", "a") as file:
        external(file, "/g/through", tree / "link/deep/0.h5", INSIDE, absolute=True)
    shutil.copytree(tree / "data", tree / "moved")
    (report,) = relocate([tree / "s/a.nwb"], tree / "data", tree / "moved", dry_run=True)
    assert len(report.changes) == 7


def test_a_dry_run_changes_nothing(tree):
    (tree / "data").rename(tree / "moved")
    before = [(p.read_bytes(), p.stat().st_mtime_ns) for p in sorted((tree / "s").iterdir())]
    reports = relocate([tree / "s"], tree / "data", tree / "moved", dry_run=True)
    assert [(len(r.changes), r.written) for r in reports] == [(6, False), (6, False)]
    assert [(p.read_bytes(), p.stat().st_mtime_ns) for p in sorted((tree / "s").iterdir())] == before


def change_value(path):
    with h5py.File(path, "a") as file:
        file[INSIDE][5, 5] += 1


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda new: shutil.rmtree(new / "deep"), "deep/0.h5 does not exist"),
        (lambda new: change_value(new / "deep/0.h5"), "its content is not what it was"),
        (lambda new: (new / "raw.bin").write_bytes(bytes(VALUES.nbytes)), "raw.bin: its content is not what it was"),
        (lambda new: os.truncate(new / "raw.bin", 100), "is too short: 100 bytes"),
        (lambda new: ((new / "raw.bin").unlink(), os.mkfifo(new / "raw.bin")), "is a pipe"),
        (lambda new: (new / "deep/1.h5").write_text("hello"), "is not an HDF5 file"),
    ],
)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_target_that_is_not_the_one_that_was_linked_is_refused_before_any_file_is_changed(
    spoil, says, recorded, tree
):
    if not recorded and "content" in says:
        says = None  # nothing to compare with
    if not recorded:
        for path in (tree / "s").iterdir():
            with h5py.File(path, "a") as file:
                for name in ("g", "v/relative", "v/absolute", "r/relative", "r/absolute"):
                    del file[name].attrs["nwbflow_links"]
    shutil.copytree(tree / "data", tree / "new")
    spoil(tree / "new")
    before = [p.read_bytes() for p in sorted((tree / "s").iterdir())]
    if says is None:
        assert all(r.written for r in relocate([tree / "s"], tree / "data", tree / "new"))
        return
    with pytest.raises(LinkError, match="nothing was relocated, since") as caught:
        relocate([tree / "s"], tree / "data", tree / "new")
    assert says in str(caught.value)
    assert [p.read_bytes() for p in sorted((tree / "s").iterdir())] == before
    reports = relocate([tree / "s"], tree / "data", tree / "new", force=True)
    assert all(len(r.changes) == 6 and r.written for r in reports)
    assert names(tree / "s/b.nwb")["/r/relative"] == ["../new/raw.bin"]


@pytest.mark.parametrize("values", [VALUES.astype("i4"), VALUES[:100]])
def test_without_a_record_sources_of_virtual_datasets_must_fit(values, tmp_path):
    recording(tmp_path / "old.h5")
    recording(tmp_path / "new.h5", values)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        virtual(file, "/v", [(tmp_path / "old.h5", INSIDE)], recorded=False)
    with pytest.raises(LinkError, match="is not what was linked"):
        relocate([tmp_path / "a.h5"], tmp_path / "old.h5", tmp_path / "new.h5")


def test_several_links_may_lead_to_one_file_by_then(tree):
    """Two sources of a virtual dataset get one name; its record goes along."""
    path = tree / "s/a.nwb"
    shutil.copy(tree / "data/deep/1.h5", tree / "data/deep/2.h5")
    with h5py.File(path, "a") as file:
        del file["v"], file["soft"]
        virtual(file, "/v", [(tree / f"data/deep/{n}.h5", INSIDE) for n in (1, 2)])
    relocate([path], tree / "data/deep/2.h5", tree / "data/deep/1.h5")
    assert names(path)["/v"] == ["../data/deep/1.h5"]
    assert check_links(path).ok


def test_what_refers_to_a_dataset_that_is_made_anew_leads_to_the_new_one(tree):
    path = tree / "s/a.nwb"
    with h5py.File(path, "a") as file:
        old = file["v/relative"]
        file["second"] = old
        file["references"] = np.array(
            [old.ref, file["r/relative"].ref, file.ref, h5py.Reference()], dtype=h5py.ref_dtype
        )
        file["regions"] = np.array(
            [old.regionref[3:5, 1:3], file["references"].regionref[:1]], dtype=h5py.regionref_dtype
        )
        row = np.dtype([("start", "<i4"), ("what", h5py.ref_dtype), ("note", h5py.string_dtype())])
        file["rows"] = np.array([(1, old.ref, "first"), (2, file["g"].ref, "second")], dtype=row)
        file["rows"].attrs["here"] = file["r/absolute"].ref
        file["rows"].attrs["there"] = old.regionref[:2]
        lists = file.create_dataset("lists", (2,), h5py.vlen_dtype(h5py.ref_dtype))
        lists[0] = np.array([file.ref, old.ref], dtype=h5py.ref_dtype)
        old.attrs["itself"] = old.ref
        file["scale"] = np.arange(240)
        file["scale"].make_scale("time")
        old.dims[0].attach_scale(file["scale"])
    (before,) = content(path)
    (tree / "data").rename(tree / "moved")
    relocate([path], tree / "data", tree / "moved")
    (after,) = content(path)
    assert after == before
    with h5py.File(path) as file:
        assert file["second"] == file["v/relative"]
        new = file["v/relative"]
        assert file[file["references"][0]] == file[file["rows"]["what"][0]] == file[new.attrs["itself"]] == new
        assert file[file["regions"][0]] == file[file["rows"].attrs["there"]] == new
        assert file[file["lists"][0][1]] == new
        assert list(new.dims[0].values()) == [file["scale"]]
        assert h5py.h5o.get_info(new.id).rc == 2


def test_every_kind_of_virtual_mapping_survives(tmp_path):
    """Whole sources, strides, sources without an end, numbered files, the file itself, names with a percent sign."""
    old = tmp_path / "old"
    for name in ("s", "p-0", "p-1", "50%"):
        recording(old / f"{name}.h5", VALUES, maxshape=(None, 6), chunks=(20, 6))

    def simple(shape, *, endless=False, selected=None):
        space = h5s.create_simple(shape, (h5s.UNLIMITED, *shape[1:]) if endless else None)
        if selected:
            space.select_hyperslab(*selected)
        return space

    inside, endless = INSIDE.encode(), ((0, 0), (1, 1), None, (h5s.UNLIMITED, 6))
    mappings = {
        b"whole": [(simple((120, 6)), b"old/s.h5", inside, simple((120, 6)))],
        b"strided": [(simple((4, 3)), b"old/s.h5", inside, simple((120, 6), selected=((1, 1), (4, 3), (20, 2))))],
        b"endless": [
            (
                simple((120, 6), endless=True, selected=endless),
                b"old/s.h5",
                inside,
                simple((120, 6), endless=True, selected=endless),
            )
        ],
        b"itself": [(simple((5,)), b".", b"own", simple((5,)))],
        b"percent": [(simple((120, 6)), b"old/50%%.h5", inside, simple((120, 6)))],
        b"reshaped": [(simple((720,)), b"old/s.h5", inside, simple((120, 6)))],
    }
    numbered = simple((240, 6), endless=True, selected=((0, 0), (h5s.UNLIMITED, 1), (120, 1), (120, 6)))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["own"] = np.arange(5, dtype="<i2")
        for name, maps in mappings.items():
            settings = h5p.create(h5p.DATASET_CREATE)
            settings.set_layout(h5d.VIRTUAL)
            for mapping in maps:
                settings.set_virtual(*mapping)
            shape = maps[0][0].get_simple_extent_dims()
            h5d.create(file.id, name, h5py.h5t.STD_I16LE, simple(shape, endless=name == b"endless"), settings)
        settings = h5p.create(h5p.DATASET_CREATE)
        settings.set_layout(h5d.VIRTUAL)
        settings.set_virtual(numbered, b"old/p-%b.h5", inside, simple((120, 6)))
        h5d.create(file.id, b"numbered", h5py.h5t.STD_I16LE, simple((240, 6), endless=True), settings)
    (before,) = content(tmp_path / "a.h5")
    old.rename(tmp_path / "new")
    with pytest.raises(LinkError, match="stands for any number of files"):  # how many they are, nobody knows
        relocate([tmp_path / "a.h5"], old, tmp_path / "new")
    relocate([tmp_path / "a.h5"], old, tmp_path / "new", force=True)
    (after,) = content(tmp_path / "a.h5")
    assert after == before
    assert set(names(tmp_path / "a.h5")) == {f"/{name.decode()}" for name in (*mappings, b"numbered")}
    assert names(tmp_path / "a.h5")["/percent"] == ["new/50%.h5"]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["endless"].maxshape == (None, 6)


def test_several_stretches_of_raw_files(tmp_path):
    VALUES.tofile(tmp_path / "r.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        half = VALUES.nbytes // 2
        parts = [(str(tmp_path / "r.bin"), half, half), (str(tmp_path / "r.bin"), 0, h5py.h5s.UNLIMITED)]
        file.create_dataset("r", VALUES.shape, "<i2", external=parts, fillvalue=3)
    (before,) = content(tmp_path / "a.h5")
    (tmp_path / "r.bin").rename(tmp_path / "q.bin")
    relocate([tmp_path / "a.h5"], tmp_path / "r.bin", tmp_path / "q.bin")
    assert content(tmp_path / "a.h5") == [before]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["r"].external == [
            (str(tmp_path / "q.bin"), half, half),
            (str(tmp_path / "q.bin"), 0, h5py.h5s.UNLIMITED),
        ]
        assert file["r"].fillvalue == 3


def test_names_that_are_no_utf8_are_relocated(tmp_path):
    old, new = (tmp_path / os.fsdecode(name) for name in (b"old\xff.h5", b"new\xfe.h5"))
    recording(old)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink(old.name, INSIDE)
        file.create_dataset("r", (4,), "u1", external=[(os.fsencode(old), 0, 4)])
    old.rename(new)
    relocate([tmp_path / "a.h5"], old, new)
    assert check_links(tmp_path / "a.h5").ok
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.get("x", getlink=True).filename == new.name


def test_relative_and_absolute_names(tree):
    path = tree / "s/a.nwb"
    (before,) = content(path)
    (report,) = make_relative([path], only=["/g/*"])
    assert [c.path for c in report.changes] == ["/g/absolute"]
    make_relative([path])
    assert {name for found in names(path).values() for name in found} == {
        *(f"../data/deep/{n}.h5" for n in range(3)),
        "../data/raw.bin",
    }
    assert check_links(path).ok
    assert content(path) == [before]
    shutil.copytree(tree, tree.parent / "copy")
    assert check_links(tree.parent / "copy/s/a.nwb").ok
    shutil.rmtree(tree.parent / "copy")
    make_absolute([path], only=["/v/*", "/r/*"])
    assert names(path)["/g/relative"] == ["../data/deep/0.h5"]
    make_absolute([path])
    assert all(name.startswith("/") for found in names(path).values() for name in found)
    assert not make_absolute([path])[0].changes
    path.rename(tree / "elsewhere.nwb")
    assert check_links(tree / "elsewhere.nwb").ok
    assert content(tree / "elsewhere.nwb") == [before]


def test_a_file_that_is_a_symbolic_link_keeps_its_name(tmp_path):
    """As where data are managed by links into a store."""
    recording(tmp_path / "store/4f2a")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x.h5").symlink_to("../store/4f2a")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "data/x.h5"), INSIDE)
    make_relative([tmp_path / "a.h5"])
    assert names(tmp_path / "a.h5") == {"/x": ["data/x.h5"]}


@pytest.mark.parametrize("rewrite", [make_relative, make_absolute])
def test_a_link_that_leads_nowhere_cant_be_made_relative_or_absolute(rewrite, tree):
    path = tree / "s/a.nwb"
    (tree / "data/raw.bin").unlink()
    before = path.read_bytes()
    with pytest.raises(LinkError, match=r"raw\.bin does not exist.*nwbflow links relocate"):
        rewrite([path])
    assert path.read_bytes() == before
    assert rewrite([path], only=["/g/*", "/v/*"])[0].written


def test_a_file_that_is_open_is_refused_and_the_others_can_be_done_again(tree):
    (tree / "data").rename(tree / "moved")
    with h5py.File(tree / "s/b.nwb"), pytest.raises(TargetError, match=r"b\.nwb is open"):
        relocate([tree / "s"], tree / "data", tree / "moved")
    assert [check_links(tree / f"s/{n}.nwb").ok for n in "ab"] == [True, False]
    relocate([tree / "s"], tree / "data", tree / "moved")
    assert check_links(tree / "s/b.nwb").ok


def test_damage_is_refused(tree):
    path = tree / "s/a.nwb"
    with h5py.File(path, "a") as file:
        file["hurt"] = np.arange(3)
        where = h5py.h5o.get_info(file["hurt"].id).addr
    data = bytearray(path.read_bytes())
    data[where : where + 16] = b"\xff" * 16
    path.write_bytes(data)
    (tree / "data").rename(tree / "moved")
    with pytest.raises(LinkError, match=r"a\.nwb:/hurt"):
        relocate([path], tree / "data", tree / "moved")


def test_attributes_of_every_type_survive(tmp_path):
    VALUES.tofile(tmp_path / "r.bin")
    with h5py.File(tmp_path / "a.h5", "w", track_order=True) as file:
        dataset = raw(file, "/r", tmp_path / "r.bin")
        dataset.attrs["text"] = "ü"
        dataset.attrs["texts"] = ["a", "bb"]
        dataset.attrs["fixed"] = np.bytes_(b"abc")
        dataset.attrs["flag"] = np.array([True, False])
        dataset.attrs["nan"] = np.float32("nan")
        dataset.attrs["empty"] = h5py.Empty("f8")
        dataset.attrs["none"] = np.zeros((0, 2))
        dataset.attrs["row"] = np.array((1, b"x"), dtype=[("a", ">i4"), ("b", "S1")])
        dataset.attrs["bits"] = np.void(b"\x01\x02")
        dataset.attrs["enum"] = np.array(1, dtype=h5py.enum_dtype({"off": 0, "on": 1}))
        file["type"] = np.dtype("<f4")
        dataset.attrs.create("committed", 1.5, dtype=file["type"])
    (before,) = content(tmp_path / "a.h5")
    (tmp_path / "r.bin").rename(tmp_path / "q.bin")
    relocate([tmp_path / "a.h5"], "r.bin", tmp_path / "q.bin")
    assert content(tmp_path / "a.h5") == [before]
    with h5py.File(tmp_path / "a.h5") as file:
        attribute = file["r"].attrs.get_id("committed")
        assert attribute.get_type().committed()
        assert file["r"].attrs.get_id("fixed").get_type().get_size() == 3


def test_what_matches_nothing_is_an_error(tree):
    before = [p.read_bytes() for p in sorted((tree / "s").iterdir())]
    with pytest.raises(LinkError, match=r"no link leads to .*somewhere"):
        relocate([tree / "s"], tree / "somewhere", tree / "else")
    for make in (make_relative, make_absolute):
        with pytest.raises(LinkError, match=r"nothing matches '/acquisiton/\*'"):
            make([tree / "s"], only=["/g/*", "/acquisiton/*"])
    assert [p.read_bytes() for p in sorted((tree / "s").iterdir())] == before


def test_a_file_given_by_several_names_is_changed_once(tree):
    (tree / "s/link.nwb").symlink_to("a.nwb")
    (tree / "data").rename(tree / "moved")
    reports = relocate([tree / "s/a.nwb", tree / "s", tree / "s/a.nwb"], tree / "data", tree / "moved")
    assert [(r.path.name, r.written) for r in reports] == [("a.nwb", True), ("b.nwb", True)]
    assert check_links(tree / "s/link.nwb").ok


def test_a_link_is_never_led_back_to_itself(tree):
    main = tree / "m.h5"
    with h5py.File(main, "w") as file:
        recording(tree / "old.h5")
        recording(tree / "old2.h5")
        external(file, INSIDE, tree / "old.h5", INSIDE)
        external(file, "/second", tree / "old2.h5", INSIDE)
        virtual(file, "/v", [(tree / "old.h5", INSIDE)])
    with h5py.File(tree / "through.h5", "w") as file:
        file[INSIDE] = h5py.ExternalLink("m.h5", INSIDE)
    with h5py.File(tree / "across.h5", "w") as file:
        file[INSIDE] = h5py.ExternalLink("m.h5", "/v")
    before = main.read_bytes()
    for new in ("m.h5", "through.h5", "across.h5"):
        with pytest.raises(LinkError, match="would lead back to itself"):
            relocate([main], tree / "old.h5", tree / new)
    assert main.read_bytes() == before
    relocate([main], tree / "old2.h5", tree / "through.h5")  # it goes through another link of the file
    assert check_links(main).ok


def test_a_raw_dataset_is_not_led_to_its_own_file(tree):
    with h5py.File(tree / "s/a.nwb", "a") as file:
        raw(file, "/r/bare", tree / "data/raw.bin", recorded=False)
    with pytest.raises(LinkError, match="is the linking file itself"):
        relocate([tree / "s/a.nwb"], tree / "data/raw.bin", tree / "s/a.nwb")


def test_a_record_that_cant_be_read_is_told_before_any_file_is_changed(tree):
    with h5py.File(tree / "s/b.nwb", "a") as file:
        file["g"].attrs["nwbflow_links"] = "{damaged"
    before = [p.read_bytes() for p in sorted((tree / "s").iterdir())]
    for run in (make_absolute, make_relative):
        with pytest.raises(LinkError, match="is no record that nwbflow wrote") as caught:
            run([tree / "s"])
        assert f"{tree}/s/b.nwb:/g" in str(caught.value)
        assert ".partial" not in str(caught.value)
    assert [p.read_bytes() for p in sorted((tree / "s").iterdir())] == before


def test_a_failure_half_way_names_what_was_changed_before(tree):
    with h5py.File(tree / "s/b.nwb"), pytest.raises(TargetError) as caught:
        make_absolute([tree / "s"])
    assert f"Changed before that: {tree}/s/a.nwb; when this is mended, the same command does the rest" in str(
        caught.value
    )
    (done, _) = make_absolute([tree / "s"])
    assert not done.written


def test_notes_of_hard_links_and_relative_raw_files(tree):
    os.link(tree / "s/a.nwb", tree / "other.nwb")
    (report,) = make_relative([tree / "s/a.nwb"])
    assert any("has 2 names (hard links)" in note for note in report.notes)
    assert any("HDF5_EXTFILE_PREFIX" in note for note in report.notes)
    (report,) = make_absolute([tree / "s/a.nwb"])
    assert report.notes == ()
