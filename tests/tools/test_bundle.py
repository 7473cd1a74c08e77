"""Bundling: a folder that can be sent away, or one file."""

import shutil
import stat

import h5py
import numpy as np
import pytest
from linked import VALUES, content, external, raw, recording, virtual

from nwbflow.errors import ErrorKind, LinkError, StorageError, TargetError
from nwbflow.tools.links import bundle, check_links, embed, list_links

pytestmark = pytest.mark.requirement("X5")
INSIDE = "/acquisition/probe/data"


@pytest.fixture
def tree(tmp_path):
    """A file whose targets lie in several folders, two under one name, one behind another."""
    recording(tmp_path / "one/data.h5")
    recording(tmp_path / "two/data.h5", VALUES + 2)
    recording(tmp_path / "far/away.h5", VALUES + 3)
    VALUES.tofile(tmp_path / "one/raw.bin")
    with h5py.File(tmp_path / "two/data.h5", "a") as file:
        external(file, "/link", tmp_path / "far/away.h5", INSIDE)
        file["broken"] = h5py.ExternalLink("never.h5", "/x")
    (tmp_path / "s").mkdir()
    with h5py.File(tmp_path / "s/a.nwb", "w") as file:
        external(file, "/g/e", tmp_path / "one/data.h5", INSIDE)
        external(file, "/g/f", tmp_path / "two/data.h5", INSIDE, absolute=True)
        external(file, "/g/chain", tmp_path / "two/data.h5", "/link")
        virtual(file, "/v", [(tmp_path / f"{name}/data.h5", INSIDE) for name in ("one", "two")])
        raw(file, "/r", tmp_path / "one/raw.bin", absolute=True)
        file["soft"] = h5py.SoftLink("/v")
    return tmp_path / "s/a.nwb"


def test_the_folder_has_everything_and_can_be_moved(tree, tmp_path):
    everything = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    (before,) = content(tree)
    report = bundle(tree, tmp_path / "out")
    assert report.written
    assert report.files == {
        "a.nwb": tree,
        "data.h5": tmp_path / "two/data.h5",
        "data-2.h5": tmp_path / "one/data.h5",
        "raw.bin": tmp_path / "one/raw.bin",
        "away.h5": tmp_path / "far/away.h5",
    }
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(report.files)
    assert {p: p.read_bytes() for p in everything} == everything
    assert not list(tmp_path.rglob("*partial*"))
    for folder in ("one", "two", "far", "s"):
        shutil.rmtree(tmp_path / folder)
    (tmp_path / "out").rename(tmp_path / "sent")
    bundled = tmp_path / "sent/a.nwb"
    assert content(bundled) == [before]
    assert check_links(bundled).ok
    assert {c.compared for c in check_links(bundled).links if c.entry.kind != "soft"} == {"all"}
    assert not any(t.file.startswith("/") for link in list_links(bundled).links for t in link.targets)
    assert any("never.h5 does not exist" in note for note in report.notes)
    assert any("HDF5_EXTFILE_PREFIX" in note for note in report.notes)


def test_a_dry_run_makes_nothing(tree, tmp_path):
    report = bundle(tree, tmp_path / "out", dry_run=True)
    assert not report.written
    assert len(report.files) == 5
    assert report.nbytes == sum(p.stat().st_size for p in report.files.values())
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_filled_and_another_refused(tree, tmp_path):
    (tmp_path / "out").mkdir()
    bundle(tree, tmp_path / "out")
    with pytest.raises(TargetError, match="exists") as caught:
        bundle(tree, tmp_path / "out")
    assert caught.value.kind is ErrorKind.EXISTS
    with pytest.raises(TargetError, match="does not exist"):
        bundle(tree, tmp_path / "no/where")


def test_what_a_killed_program_left_is_made_anew(tree, tmp_path):
    (tmp_path / "out.bundle.partial").mkdir()
    (tmp_path / "out.bundle.partial/a.nwb").write_bytes(b"half")
    bundle(tree, tmp_path / "out")
    assert check_links(tmp_path / "out/a.nwb").ok
    assert not (tmp_path / "out.bundle.partial").exists()


def test_what_is_missing_is_refused_and_nothing_is_left(tree, tmp_path):
    (tmp_path / "one/raw.bin").unlink()
    (tmp_path / "far/away.h5").unlink()
    with pytest.raises(LinkError, match="not bundled, since") as caught:
        bundle(tree, tmp_path / "out")
    assert "raw.bin does not exist" in str(caught.value)
    assert "far/away.h5 does not exist" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["far", "one", "s", "two"]


def test_an_open_target_is_refused_and_nothing_is_left(tree, tmp_path):
    with h5py.File(tmp_path / "two/data.h5", "r+"), pytest.raises((LinkError, TargetError, OSError)):
        bundle(tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.bundle.partial").exists()


def test_a_disk_without_room_is_told_before_anything(tmp_path):
    with open(tmp_path / "r.bin", "wb") as file:
        file.truncate(10**13)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("r", (5 * 10**12,), "<i2", external=[(str(tmp_path / "r.bin"), 0, 10**13)])
    with pytest.raises(StorageError, match=r"takes 1\d{13} bytes") as caught:
        bundle(tmp_path / "a.h5", tmp_path / "out")
    assert caught.value.kind is ErrorKind.NO_SPACE
    assert not (tmp_path / "out").exists()


def test_names_that_differ_in_case_only_are_kept_apart(tmp_path):
    for name in ("x/Data.h5", "y/data.h5"):
        recording(tmp_path / name)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("x/Data.h5", INSIDE)
        file["y"] = h5py.ExternalLink("y/data.h5", INSIDE)
        file["own"] = np.arange(3)
    bundle(tmp_path / "a.h5", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["Data.h5", "a.h5", "data-2.h5"]
    assert check_links(tmp_path / "out/a.h5").ok


def test_files_that_link_to_each_other_are_bundled_once(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = VALUES
        file["back"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "/own")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["own"] = np.arange(3)
        file["x"] = h5py.ExternalLink("b.h5", "/x")
        file["back"] = h5py.ExternalLink("b.h5", "/back")
    bundle(tmp_path / "a.h5", tmp_path / "out")
    for name in "ab":
        (tmp_path / f"{name}.h5").unlink()
    with h5py.File(tmp_path / "out/a.h5") as file:
        assert list(file["back"]) == [0, 1, 2]


@pytest.mark.parametrize("form", ["folder", "file"])
def test_what_is_not_what_was_linked_is_refused_unless_forced(form, tree, tmp_path):
    with h5py.File(tmp_path / "one/data.h5", "a") as file:
        file[INSIDE][5, 5] += 1
    (before,) = content(tree)

    def take(**options):
        if form == "folder":
            bundle(tree, tmp_path / "out", **options)
        else:
            embed(tree, out=tmp_path / "out.nwb", **options)

    with pytest.raises(LinkError, match="it is not what was linked: its content") as caught:
        take()
    assert "/g/e" in str(caught.value)
    assert "/v" in str(caught.value)
    assert not list(tmp_path.glob("out*"))
    take(force=True)
    assert content(tmp_path / ("out/a.nwb" if form == "folder" else "out.nwb")) == [before]


def test_a_copy_is_no_more_public_than_what_it_is_of(tree, tmp_path):
    modes = {"a.nwb": 0o600, "away.h5": 0o640, "raw.bin": 0o400, "data.h5": 0o660}
    report = bundle(tree, tmp_path / "dry", dry_run=True)
    for name, mode in modes.items():
        report.files[name].chmod(mode)
    bundle(tree, tmp_path / "out")
    embed(tree, out=tmp_path / "one.nwb")
    assert {name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in modes} == modes
    assert stat.S_IMODE((tmp_path / "one.nwb").stat().st_mode) == 0o600


def test_a_damaged_record_of_what_is_renamed_is_told_by_its_own_file(tree, tmp_path):
    with h5py.File(tree, "a") as file:
        file["v"].attrs["nwbflow_links"] = "{damaged"
    for options in ({}, {"force": True}):
        with pytest.raises(LinkError, match="is no record that nwbflow wrote") as caught:
            bundle(tree, tmp_path / "out", **options)
        assert f"{tree}:/v" in str(caught.value)
        assert ".partial" not in str(caught.value)
