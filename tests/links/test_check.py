"""Checking links: what changed since they were made is named, and what was not looked at is said."""

import json
import os

import h5py
import numpy as np
import pytest
from linked import VALUES, external, raw, recording, virtual

from nwbflow.errors import LinkError
from nwbflow.links.check import check_links
from nwbflow.links.fingerprint import SMALL, fingerprint_raw
from nwbflow.links.inventory import LinkState
from nwbflow.links.records import ATTRIBUTE, read_records, record, write_record

pytestmark = pytest.mark.requirement("X5")
INSIDE = "/acquisition/probe/data"


@pytest.fixture
def tree(tmp_path):
    """A file whose links are all recorded."""
    for number in range(4):
        recording(tmp_path / f"{number}.h5", VALUES + number, chunks=(50, 6), compression=1)
    for name in ("r.bin", "t.bin"):
        VALUES.tofile(tmp_path / name)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        external(file, "/g/e", tmp_path / "0.h5", INSIDE)
        external(file, "/g/f", tmp_path / "1.h5", INSIDE)
        virtual(file, "/v", [(tmp_path / f"{n}.h5", INSIDE) for n in (2, 3)])
        raw(file, "/r", tmp_path / "r.bin")
        raw(file, "/t", tmp_path / "t.bin", recorded=False)
        file["s"] = h5py.SoftLink("/g/e")
    return tmp_path / "a.h5"


def wrong(path, **options):
    return {c.entry.path: c.differences for c in check_links(path, **options).links if not c.ok}


def test_nothing_changed(tree):
    report = check_links(tree)
    assert report.ok
    assert {c.entry.path: (c.state, c.compared) for c in report.links} == {
        "/g/e": (LinkState.OK, "all"),
        "/g/f": (LinkState.OK, "all"),
        "/r": (LinkState.OK, "all"),
        "/s": (LinkState.OK, "no"),
        "/t": (LinkState.OK, "no"),
        "/v": (LinkState.OK, "all"),
    }
    assert [c.entry.path for c in report.links if not c.entry.recorded] == ["/s", "/t"]
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["ok"] is True


def alter(path, byte=None):
    """Change one bit of one stored byte of a recording, or of a raw file."""
    if byte is None:
        with h5py.File(path) as file:
            byte = file[INSIDE].id.get_chunk_info(1).byte_offset + 9
    with open(path, "r+b") as file:
        file.seek(byte)
        value = file.read(1)
        file.seek(byte)
        file.write(bytes([value[0] ^ 1]))


def test_one_altered_bit_is_found_in_whatever_has_it(tree):
    alter(tree.parent / "0.h5")
    assert wrong(tree) == {"/g/e": ("its content is not what it was",)}
    alter(tree.parent / "3.h5")
    alter(tree.parent / "r.bin", 77)
    found = wrong(tree)
    assert found == {
        "/g/e": ("its content is not what it was",),
        "/r": ("r.bin: its content is not what it was",),
        "/v": (f"3.h5:{INSIDE}: its content is not what it was",),
    }
    alter(tree.parent / "t.bin", 77)  # not recorded, so nobody can know
    assert wrong(tree) == found


def test_every_difference_of_shape_type_and_attributes_is_told(tree):
    with h5py.File(tree.parent / "0.h5", "a") as file:
        group = file["acquisition/probe"]
        del group["data"]
        group["data"] = VALUES[:100].astype("i4")
        group["data"].attrs.update({"unit": "mV", "conversion": 2.5e-6, "rate": 3})
    with h5py.File(tree.parent / "1.h5", "a") as file:
        file[INSIDE].attrs["resolution"] = 0.5
    assert wrong(tree) == {
        "/g/e": (
            "shape was (120, 6), is (100, 6)",
            "type was <i2, is <i4",
            "attribute rate was (not there), is 3",
            "attribute resolution was {'float': 'nan'}, is (not there)",
            "attribute unit was 'V', is 'mV'",
        ),
        "/g/f": ("attribute resolution was {'float': 'nan'}, is 0.5",),
    }
    assert {c.state for c in check_links(tree).links if not c.ok} == {LinkState.CHANGED}


def test_a_target_that_is_a_group_by_now(tree):
    with h5py.File(tree.parent / "0.h5", "a") as file:
        del file[INSIDE]
        file.create_group(INSIDE)
    assert wrong(tree) == {"/g/e": ("it was a dataset and is a group now",)}


def test_what_is_missing_keeps_its_state(tree):
    os.remove(tree.parent / "0.h5")
    os.truncate(tree.parent / "r.bin", 100)
    states = {c.entry.path: c.state for c in check_links(tree).links if not c.ok}
    assert states == {"/g/e": LinkState.MISSING, "/s": LinkState.MISSING, "/r": LinkState.SHORT}


def test_rows_added_later_are_told_once_and_not_as_content(tree):
    with h5py.File(tree.parent / "b.h5", "w") as file:
        file.create_dataset("x", data=VALUES, maxshape=(None, 6), chunks=(50, 6))
    with h5py.File(tree, "a") as file:
        external(file, "/late", tree.parent / "b.h5", "/x")
    with h5py.File(tree.parent / "b.h5", "a") as file:
        file["x"].resize(130, axis=0)
    assert wrong(tree) == {"/late": ("shape was (120, 6), is (130, 6)",)}


def test_large_content_recorded_whole_is_compared_only_if_asked(tmp_path):
    nbytes = SMALL + 2
    with open(tmp_path / "r.bin", "wb") as file:
        file.truncate(nbytes)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("r", (nbytes // 2,), "<i2", external=[(str(tmp_path / "r.bin"), 0, nbytes)])
        print_ = fingerprint_raw(tmp_path / "r.bin", 0, nbytes, "full")
        write_record(dataset, "", record(dataset.shape, dataset.dtype, {str(tmp_path / "r.bin"): print_}))
    alter(tmp_path / "r.bin", 5_000_001)
    (fast,) = check_links(tmp_path / "a.h5").links
    assert (fast.state, fast.compared) == (LinkState.OK, "no")
    assert "bytes were not compared; pass full=True" in fast.notes[0]
    (full,) = check_links(tmp_path / "a.h5", full=True).links
    assert (full.state, full.compared) == (LinkState.CHANGED, "all")


def test_a_sample_is_called_one(tmp_path):
    nbytes = SMALL + 2
    with open(tmp_path / "r.bin", "wb") as file:
        file.truncate(nbytes)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw(file, "/r", tmp_path / "r.bin", (nbytes // 2,))
    (link,) = check_links(tmp_path / "a.h5").links
    assert (link.state, link.compared) == (LinkState.OK, "sample")
    alter(tmp_path / "r.bin", 0)
    for full in (False, True):  # no more was recorded than the sample
        (link,) = check_links(tmp_path / "a.h5", full=full).links
        assert (link.state, link.compared) == (LinkState.CHANGED, "sample")


def test_a_link_renamed_by_another_program_is_compared_all_the_same(tree):
    os.rename(tree.parent / "0.h5", tree.parent / "zero.h5")
    with h5py.File(tree, "a") as file:
        del file["g/e"]
        file["g/e"] = h5py.ExternalLink("zero.h5", INSIDE)
    assert check_links(tree).ok
    alter(tree.parent / "zero.h5")
    assert wrong(tree) == {"/g/e": ("its content is not what it was",)}


def test_a_record_that_cant_be_read_is_told_and_the_others_are_checked(tree):
    with h5py.File(tree, "a") as file:
        file["g"].attrs[ATTRIBUTE] = "{"
    found = wrong(tree)
    assert list(found) == ["/g/e", "/g/f"]
    assert all("is no record that nwbflow wrote" in text for (text,) in found.values())


def test_a_source_that_is_not_recorded_is_noted(tree):
    with h5py.File(tree, "a") as file:
        old = read_records(file["v"])[""]
        prints = dict(list(old.fingerprints.items())[:1])
        write_record(file["v"], "", record(old.shape, np.dtype("<i2"), prints))
    (link,) = [c for c in check_links(tree).links if c.entry.path == "/v"]
    assert (link.state, link.compared) == (LinkState.OK, "no")
    assert link.notes == (f"3.h5:{INSIDE}: its content is not recorded",)


def test_a_target_stored_in_a_raw_file_that_is_gone_is_missing(tree):
    with h5py.File(tree.parent / "0.h5", "a") as file:
        del file[INSIDE]
        file.create_dataset(INSIDE, VALUES.shape, "<i2", external=[("gone.bin", 0, VALUES.nbytes)])
    (link,) = [c for c in check_links(tree).links if c.entry.path == "/g/e"]
    assert link.state is LinkState.MISSING
    assert "gone.bin does not exist" in link.differences[0]


def test_the_file_itself_must_be_readable(tmp_path):
    with pytest.raises(LinkError, match="no such file"):
        check_links(tmp_path / "none.h5")


@pytest.mark.parametrize("full", [False, True])
def test_no_more_is_read_than_was_recorded(full, tmp_path):
    """A record that says 100 bytes doesn't make nwbflow read a terabyte."""
    nbytes = 10**12
    with open(tmp_path / "r.bin", "wb") as file:
        file.truncate(nbytes)
    short = fingerprint_raw(tmp_path / "r.bin", 0, 100, "full")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("r", (nbytes // 2,), "<i2", external=[(str(tmp_path / "r.bin"), 0, nbytes)])
        write_record(data, "", record(data.shape, data.dtype, {str(tmp_path / "r.bin"): short}))
        file["e"] = h5py.ExternalLink("b.h5", "/r")
        write_record(file, "e", record(data.shape, data.dtype, {"b.h5:/r": short}))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("r", (nbytes // 2,), "<i2", external=[(str(tmp_path / "r.bin"), 0, nbytes)])
    found = wrong(tmp_path / "a.h5", full=full)
    assert set(found) == {"/e", "/r"}
    for (text,) in found.values():
        assert text.endswith(f"its content is not what it was (100 bytes then, {nbytes} now)")


def test_what_is_recorded_below_a_linked_group_is_compared(tree):
    folder = tree.parent
    with h5py.File(folder / "session.h5", "w") as file:
        file["group"] = h5py.ExternalLink("a.h5", "/g")
        file["group again"] = h5py.ExternalLink("middle.h5", "/inner")
        file["bare"] = h5py.ExternalLink("0.h5", "/acquisition")
    with h5py.File(folder / "middle.h5", "w") as file:
        file["inner/further"] = h5py.ExternalLink("a.h5", "/")
        file["inner/back"] = h5py.ExternalLink("middle.h5", "/")
    report = check_links(folder / "session.h5")
    assert report.ok
    assert {c.entry.path: c.compared for c in report.links} == {"/group": "all", "/group again": "all", "/bare": "no"}
    alter(folder / "0.h5")
    (folder / "r.bin").unlink()
    found = wrong(folder / "session.h5")
    changed = f"{folder / 'a.h5'}:/g/e: its content is not what it was"
    assert found["/group"] == (changed,)
    assert changed in found["/group again"]
    assert any("a.h5:/r: " in text and "does not exist" in text for text in found["/group again"])
    assert "/bare" not in found
