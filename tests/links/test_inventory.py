"""The inventory of links: what each is, where it leads, and whether that is there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from linked import VALUES, external, raw, recording, virtual

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.inventory import LinkState, hdf5_files, list_links
from nwbflow.model.links import LinkKind

pytestmark = pytest.mark.requirement("X5")


@pytest.fixture
def tree(tmp_path):
    """A file with every kind of link, beside a folder with what they lead to."""
    for number in range(3):
        recording(tmp_path / "data" / f"{number}.h5", VALUES + number)
    VALUES.tofile(tmp_path / "data" / "raw.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        inside = "/acquisition/probe/data"
        external(file, "/e", tmp_path / "data/0.h5", inside)
        external(file, "/group", tmp_path / "data/0.h5", "/acquisition/probe", recorded=False)
        virtual(file, "/v", [(tmp_path / f"data/{n}.h5", inside) for n in (1, 2)])
        raw(file, "/r", tmp_path / "data/raw.bin", recorded=False)
        file["s"] = h5py.SoftLink("/e")
        file["plain"] = 1
        file["hard"] = file["plain"]
    return tmp_path / "a.h5"


def by_path(path):
    return {link.path: link for link in list_links(path).links}


def test_every_link_is_listed_with_where_it_leads_and_its_size(tree):
    found = by_path(tree)
    assert {path: (link.kind, [str(t) for t in link.targets]) for path, link in found.items()} == {
        "/e": (LinkKind.EXTERNAL, ["data/0.h5:/acquisition/probe/data"]),
        "/group": (LinkKind.EXTERNAL, ["data/0.h5:/acquisition/probe"]),
        "/r": (LinkKind.RAW, ["data/raw.bin"]),
        "/s": (LinkKind.SOFT, ["/e"]),
        "/v": (LinkKind.VIRTUAL, [f"data/{n}.h5:/acquisition/probe/data" for n in (1, 2)]),
    }
    assert {link.state for link in found.values()} == {LinkState.OK}
    assert {path: link.nbytes for path, link in found.items()} == {
        "/e": VALUES.nbytes,
        "/group": None,
        "/r": VALUES.nbytes,
        "/s": VALUES.nbytes,
        "/v": 2 * VALUES.nbytes,
    }
    assert {path for path, link in found.items() if link.recorded} == {"/e", "/v"}
    assert found["/r"].targets[0].place == Path(os.path.realpath(tree.parent / "data/raw.bin"))


def test_json_is_whole(tree):
    value = json.loads(json.dumps(list_links(tree).to_json(), allow_nan=False))
    assert [link["path"] for link in value["links"]] == ["/e", "/group", "/r", "/s", "/v"]
    assert value["links"][0]["targets"] == [
        {"file": "data/0.h5", "path": "/acquisition/probe/data", "place": os.path.realpath(tree.parent / "data/0.h5")}
    ]


def test_the_working_folder_does_not_matter(tree, tmp_path, monkeypatch):
    here = list_links(tree)
    decoy = tmp_path / "elsewhere"
    shutil.copytree(tree.parent / "data", decoy / "data")
    monkeypatch.chdir(decoy)
    assert list_links(tree) == here
    shutil.rmtree(tree.parent / "data")
    assert {link.state for link in list_links(tree).links} == {LinkState.MISSING}


def listed(tmp_path, link):
    """Return how one external link fares."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = link
    (found,) = list_links(tmp_path / "a.h5").links
    return found


@pytest.mark.parametrize(
    ("target", "state", "says"),
    [
        ("none.h5", LinkState.MISSING, "none.h5 does not exist"),
        ("folder", LinkState.REFUSED, "is a folder"),
        ("pipe", LinkState.REFUSED, "is a pipe"),
        ("/dev/zero", LinkState.REFUSED, "is a device"),
        ("text.h5", LinkState.UNREADABLE, "is not an HDF5 file"),
        ("cut.h5", LinkState.UNREADABLE, "cut off"),
        ("https://example.org/x.h5", LinkState.REFUSED, "is a URL"),
        ("C:\\data\\x.h5", LinkState.MISSING, "a Windows path"),
        ("\\\\server\\share\\x.h5", LinkState.MISSING, "a Windows path"),
        ("n" * 300 + ".h5", LinkState.MISSING, "too long"),
        ("circle.h5", LinkState.MISSING, "circle"),
    ],
)
def test_what_cant_be_opened_has_a_state_and_a_reason(target, state, says, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "circle.h5").symlink_to("circle.h5")
    recording(tmp_path / "cut.h5")
    os.truncate(tmp_path / "cut.h5", 3000)
    found = listed(tmp_path, h5py.ExternalLink(target, "/x"))
    assert found.state is state
    assert says in found.detail


def test_a_target_that_is_being_written_elsewhere_is_unreadable_now(tmp_path):
    code = (
        "import h5py, sys\nf = h5py.File(sys.argv[1], 'w', locking=True)\nf['x'] = 1\nf.flush()\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "b.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        found = listed(tmp_path, h5py.ExternalLink("b.h5", "/x"))
        assert (found.state, "being written" in found.detail) == (LinkState.UNREADABLE, True)
    (found,) = list_links(tmp_path / "a.h5").links
    assert found.state is LinkState.OK


def test_a_path_that_is_not_in_the_target_is_missing(tmp_path):
    recording(tmp_path / "b.h5")
    found = listed(tmp_path, h5py.ExternalLink("b.h5", "/acquisition/other/data"))
    assert found.state is LinkState.MISSING
    assert "there is no /acquisition/other/data" in found.detail


def test_links_in_a_circle(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["itself"] = h5py.SoftLink("/itself")
        file["same"] = h5py.ExternalLink("a.h5", "/same")
        file["other"] = h5py.ExternalLink("b.h5", "/back")
        layout = h5py.VirtualLayout((3,), "i4")
        layout[:] = h5py.VirtualSource(".", "round", (3,))
        file.create_virtual_dataset("round", layout)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["back"] = h5py.ExternalLink("a.h5", "/other")
    assert {link.state for link in list_links(tmp_path / "a.h5").links} == {LinkState.CYCLE}


def test_a_chain_of_three_files_moved_together_and_apart(tmp_path):
    folder = tmp_path / "one"
    inside = recording(folder / "deep" / "c.h5")
    with h5py.File(folder / "b.h5", "w") as file:
        file["x"] = h5py.ExternalLink("deep/c.h5", inside)
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("b.h5", "/x")
    folder.rename(tmp_path / "two")
    (link,) = list_links(tmp_path / "two/a.h5").links
    assert (link.state, link.nbytes) == (LinkState.OK, VALUES.nbytes)
    (tmp_path / "two/deep/c.h5").rename(tmp_path / "c.h5")
    (link,) = list_links(tmp_path / "two/a.h5").links
    assert link.state is LinkState.MISSING
    assert "deep/c.h5 does not exist" in link.detail
    assert f"nwbflow links relocate deep/c.h5 NEW {tmp_path / 'two/b.h5'}" in link.mend


@pytest.mark.parametrize(("change", "state"), [(-1, LinkState.SHORT), (0, LinkState.OK), (7, LinkState.OK)])
def test_a_raw_file_that_is_too_short_is_not_ok_and_a_longer_one_is(change, state, tmp_path):
    VALUES.tofile(tmp_path / "r.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw(file, "/r", tmp_path / "r.bin", recorded=False)
    os.truncate(tmp_path / "r.bin", VALUES.nbytes + change)
    (link,) = list_links(tmp_path / "a.h5").links
    assert link.state is state
    assert link.nbytes == VALUES.nbytes


def test_a_virtual_dataset_whose_source_has_fewer_rows_is_not_ok(tmp_path):
    recording(tmp_path / "b.h5", maxshape=(None, 6), chunks=(20, 6))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        virtual(file, "/v", [(tmp_path / "b.h5", "/acquisition/probe/data")], recorded=False)
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["acquisition/probe/data"].resize(100, axis=0)
    (link,) = list_links(tmp_path / "a.h5").links
    assert (link.state, link.nbytes) == (LinkState.CHANGED, None)


def test_names_that_are_no_utf8_can_be_printed(tmp_path):
    target = tmp_path / os.fsdecode(b"b\xff.h5")
    inside = recording(target)
    shown = listed(tmp_path, h5py.ExternalLink(target.name, inside))
    assert shown.state is LinkState.OK
    assert str(shown.targets[0]) == f"b\\xff.h5:{inside}"
    json.dumps(shown.to_json()).encode()


def test_damage_is_a_problem_and_the_rest_is_listed(tree):
    with h5py.File(tree, "a") as file:
        file["hurt/x"] = np.arange(3)
        where = h5py.h5o.get_info(file["hurt/x"].id).addr
    data = bytearray(tree.read_bytes())
    data[where : where + 16] = b"\xff" * 16
    tree.write_bytes(data)
    found = list_links(tree)
    assert len(found.links) == 5
    assert found.problems[0].startswith("/hurt/x: ")


def test_a_file_that_cant_be_opened_is_an_error(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(LinkError, match="is not an HDF5 file"):
        list_links(tmp_path / "text.h5")
    with pytest.raises(LinkError, match="no such file"):
        list_links(tmp_path / "none.h5")


def test_folders_are_searched_for_files_by_their_ending(tmp_path):
    for name in ("b/x.h5", "b/c/y.NWB", "z.hdf5", "b/x.h5.partial", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert hdf5_files([tmp_path / "notes.txt", tmp_path, tmp_path / "z.hdf5"], []) == [
        tmp_path / name for name in ("notes.txt", "b/c/y.NWB", "b/x.h5", "z.hdf5")
    ]
    with pytest.raises(LinkError, match="no such file or folder") as caught:
        hdf5_files([tmp_path / "none"], [])
    assert caught.value.kind is ErrorKind.MISSING
    (tmp_path / "empty").mkdir()
    with pytest.raises(LinkError, match=r"holds no file \*\.nwb"):
        hdf5_files([tmp_path / "empty"], [])


def test_a_file_under_several_names_is_found_once(tmp_path):
    (tmp_path / "x.h5").touch()
    (tmp_path / "a.h5").symlink_to("x.h5")
    os.link(tmp_path / "x.h5", tmp_path / "y.h5")  # a file of its own, as soon as one of them is replaced
    assert hdf5_files([tmp_path, tmp_path / "x.h5"], []) == [tmp_path / "a.h5", tmp_path / "y.h5"]
    assert hdf5_files([tmp_path / "x.h5", tmp_path], []) == [tmp_path / "x.h5", tmp_path / "y.h5"]


def test_what_cant_be_searched_is_told(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "x.h5").touch()
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locked").chmod(0)
    me = os.geteuid()
    unreadable = []
    if me == 0:
        os.seteuid(65534)  # nothing is forbidden to root
    try:
        found = hdf5_files(["."], unreadable)
    finally:
        os.seteuid(me)
        (tmp_path / "locked").chmod(0o755)
    assert found == [Path("x.h5")]
    assert unreadable == ["./locked can't be searched: Permission denied"]
