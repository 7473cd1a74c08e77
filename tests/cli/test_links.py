"""``nwbflow links``, as a shell runs it."""

import os
import shutil
from datetime import UTC, datetime

import h5py
import numpy as np
import pynwb
import pytest
from linked import VALUES, content, external, raw, recording, virtual

import nwbflow as package
from nwbflow.links.fingerprint import SMALL, fingerprint_raw
from nwbflow.links.records import record, write_record

pytestmark = pytest.mark.requirement("X5", "T4")
INSIDE = "/acquisition/probe/data"
SESSIONS = 5


@pytest.fixture
def tree(tmp_path):
    """Five sessions, each linking to ten files of its own: four external, four in two virtual datasets, two raw."""
    root = tmp_path / "here"
    (root / "sessions").mkdir(parents=True)
    for session in range(SESSIONS):
        data = root / "data" / f"day{session}"
        for number in range(8):
            recording(data / f"{number}.h5", VALUES + number, chunks=(60, 6), compression=1)
        for number in range(2):
            (VALUES + number).tofile(data / f"{number}.bin")
        with h5py.File(root / "sessions" / f"{session}.nwb", "w") as file:
            file["intervals/start"] = np.arange(5.0)
            file["intervals/start"].attrs["description"] = "when"
            for number in range(4):
                external(file, f"/acquisition/link{number}/data", data / f"{number}.h5", INSIDE)
            for number in range(2):
                pair = [(data / f"{at}.h5", INSIDE) for at in (4 + 2 * number, 5 + 2 * number)]
                virtual(file, f"/acquisition/joined{number}/data", pair)
                raw(file, f"/acquisition/raw{number}/data", data / f"{number}.bin")
            file["references"] = np.array([file["acquisition/raw0/data"].ref], dtype=h5py.ref_dtype)
            file["soft"] = h5py.SoftLink("/acquisition/joined1/data")
    return root


def wrong(done):
    """File, path and state of every link that is not all right."""
    files = done.json["files"]
    return [
        (os.path.basename(f["path"]), link["path"], link["state"])
        for f in files
        for link in f["links"]
        if link["state"] != "ok"
    ]


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_a_tree_of_fifty_linked_files_moved_one_renamed_and_one_altered(tree, tmp_path, nwbflow):
    files = sorted((tree / "sessions").iterdir())
    assert len(list((tree / "data").rglob("*.*"))) == 50
    before = content(*files)
    there = tmp_path / "there"
    tree.rename(there)
    files = sorted((there / "sessions").iterdir())
    assert nwbflow("links", "check", there / "sessions").code == 0
    (there / "data/day1/2.h5").rename(there / "data/day1/renamed.h5")
    with h5py.File(there / "data/day3/7.h5") as file:
        chunk = file[INSIDE].id.get_chunk_info(1)
    flip(there / "data/day3/7.h5", chunk.byte_offset + 11)

    told = nwbflow("links", "check", there / "sessions", "--json")
    assert told.code == 3
    assert told.json["ok"] is False
    assert wrong(told) == [
        ("1.nwb", "/acquisition/link2/data", "missing"),
        ("3.nwb", "/acquisition/joined1/data", "changed"),
    ]
    shown = nwbflow("links", "check", there / "sessions", columns=200)
    assert (shown.code, shown.err) == (3, "")
    assert shown.out.count("missing: ") == shown.out.count("changed: ") == 1
    assert "../data/day1/2.h5 does not exist" in shown.out
    assert f"../data/day3/7.h5:{INSIDE}: its content is not what it was" in shown.out
    assert f"nwbflow links relocate ../data/day1/2.h5 NEW {files[1]}" in shown.out
    assert "45 links in 5 files: 43 ok, 1 missing, 1 changed" in shown.out

    old, new = there / "data/day1/2.h5", there / "data/day1/renamed.h5"
    mended = nwbflow("links", "relocate", old, new, there / "sessions", columns=200)
    assert (mended.code, mended.err) == (0, "")
    assert "../data/day1/2.h5 -> ../data/day1/renamed.h5" in mended.out
    assert "Changed 1 link in 1 file." in mended.out
    told = nwbflow("links", "check", there / "sessions", "--json")
    assert (told.code, wrong(told)) == (3, [("3.nwb", "/acquisition/joined1/data", "changed")])

    refused = nwbflow("links", "embed", files[3], columns=200)
    assert (refused.code, refused.out) == (1, "")
    assert "/acquisition/joined1/data: it is not what was linked" in refused.err
    assert "pass --force to embed it as it is now" in refused.err
    flip(there / "data/day3/7.h5", chunk.byte_offset + 11)
    assert nwbflow("links", "check", there / "sessions").code == 0
    for file in files:
        done = nwbflow("links", "embed", file)
        assert (done.code, done.err) == (0, "")
        assert "Embedded 8 links" in done.out
    shutil.rmtree(there / "data")
    assert content(*files) == before
    assert nwbflow("links", "check", there / "sessions").code == 0


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_and_say_states_in_words(columns, tree, nwbflow):
    (tree / "data/day0/0.h5").rename(tree / "data/day0/gone.h5")
    os.truncate(tree / "data/day0/1.bin", 10)
    done = nwbflow("links", "list", tree / "sessions/0.nwb", columns=columns)
    assert (done.code, done.err) == (0, "")
    assert "9 links: 7 ok, 1 missing, 1 too short" in done.out
    rows = [line for line in done.out.splitlines() if not line.startswith((" ", "missing:", "too short:", str(tree)))]
    assert max(map(len, rows)) <= columns
    assert "recorded" in done.out
    for command in (("embed", "--dry-run", "--only", "/acquisition/j*"), ("bundle", tree / "out", "--dry-run")):
        if command[0] == "bundle":
            (tree / "data/day0/gone.h5").rename(tree / "data/day0/0.h5")
            (VALUES + 1).tofile(tree / "data/day0/1.bin")
        done = nwbflow("links", command[0], tree / "sessions/0.nwb", *command[1:], columns=columns)
        assert done.code == 0, done.err
        assert "Would" in done.out
        table = [line for line in done.out.splitlines() if not line.startswith("Would")]
        assert max(map(len, table)) <= columns
    assert not (tree / "out").exists()


def test_json_of_every_command(tree, tmp_path, nwbflow):
    file = tree / "sessions/0.nwb"
    listed = nwbflow("links", "list", file, "--json").json["files"][0]
    assert listed["links"][0]["path"] == "/acquisition/joined0/data"
    assert {link["kind"] for link in listed["links"]} == {"external", "virtual", "raw", "soft"}
    checked = nwbflow("links", "check", file, "--json").json
    assert checked["ok"] is True
    assert {link["compared"] for link in checked["files"][0]["links"]} == {"all", "no"}
    (tree / "data/day0").rename(tree / "data/night0")
    for extra, written in ((["--dry-run"], False), ([], True)):
        command = ["relocate", tree / "data/day0", tree / "data/night0", file, *extra, "--json"]
        moved = nwbflow("links", *command).json["files"][0]
        assert (moved["written"], len(moved["changes"])) == (written, 8)
    assert moved["changes"][-1] == {
        "path": "/acquisition/raw1/data",
        "kind": "raw",
        "names": {"../data/day0/1.bin": "../data/night0/1.bin"},
    }
    absolute = nwbflow("links", "absolute", file, "--only", "/acquisition/raw*", "--json").json["files"][0]
    assert list(absolute["changes"][0]["names"].values()) == [str(tree / "data/night0/0.bin")]
    relative = nwbflow("links", "relative", file, "--only", "*0/data", "--only", "*1/data", "--json").json["files"][0]
    assert [c["path"] for c in relative["changes"]] == ["/acquisition/raw0/data", "/acquisition/raw1/data"]
    bundled = nwbflow("links", "bundle", file, tmp_path / "out", "--json").json
    assert (bundled["written"], len(bundled["files"])) == (True, 11)
    one = nwbflow("links", "bundle", file, "--one-file", tmp_path / "one.nwb", "--json").json
    assert (one["written"], one["path"], len(one["embedded"])) == (True, str(tmp_path / "one.nwb"), 8)
    embedded = nwbflow("links", "embed", file, "--only", "*/raw?/*", "--json").json
    assert [item["path"] for item in embedded["embedded"]] == ["/acquisition/raw0/data", "/acquisition/raw1/data"]


def test_bundles_read_the_same(tree, tmp_path, nwbflow):
    file = tree / "sessions/2.nwb"
    (before,) = content(file)
    done = nwbflow("links", "bundle", file, tmp_path / "out")
    assert done.code == 0
    assert "Bundled 11 files" in done.out
    assert "note: raw files are recorded by relative names" in done.err
    one = nwbflow("links", "bundle", file, "--one-file", tmp_path / "one.nwb")
    assert (one.code, one.err) == (0, "")
    shutil.rmtree(tree)
    assert content(tmp_path / "out/2.nwb", tmp_path / "one.nwb") == [before, before]


def test_nothing_to_do_is_said_and_is_no_failure(tree, nwbflow):
    file = tree / "sessions/0.nwb"
    for command, says in (
        (("relocate", tree / "data", tree / "data", file), "All links have the new names. Nothing to do in 1 file."),
        (("relative", file), "No link has an absolute name."),
        (("embed", tree / "data/day0/0.h5"), "There is nothing to embed."),
    ):
        done = nwbflow("links", *command, columns=300)
        assert (done.code, done.err) == (0, "")
        assert says in done.out
    with h5py.File(tree / "none.h5", "w") as empty:
        empty["x"] = 1
    assert "no links in 1 file" in nwbflow("links", "check", tree / "none.h5").out
    assert "no links" in nwbflow("links", "list", tree / "none.h5").out


def test_what_matches_nothing_is_a_failure(tree, nwbflow):
    file = tree / "sessions/0.nwb"
    for command, says in (
        (("relocate", tree / "x", tree / "y", file), f"no link leads to {tree / 'x'}"),
        (("relative", file, "--only", "/nothing"), "nothing matches '/nothing'"),
        (("absolute", file, "--only", "/nothing"), "nothing matches '/nothing'"),
        (("embed", file, "--only", "/nothing"), "nothing matches '/nothing'"),
    ):
        done = nwbflow("links", *command, columns=300)
        assert (done.code, done.out) == (1, "")
        assert says in done.err


def test_a_changed_target_is_bundled_by_force_only(tree, tmp_path, nwbflow):
    file = tree / "sessions/0.nwb"
    flip(tree / "data/day0/0.bin", 5)
    for form in ([tmp_path / "out"], ["--one-file", tmp_path / "one.nwb"]):
        done = nwbflow("links", "bundle", file, *form, columns=300)
        assert done.code == 1
        assert "it is not what was linked" in done.err
        assert "pass --force to" in done.err
        assert nwbflow("links", "bundle", file, *form, "--force").code == 0


def test_names_that_lead_nowhere_are_told(tree, nwbflow):
    (tree / "sessions/gone.nwb").symlink_to("nowhere.nwb")
    done = nwbflow("links", "check", tree / "sessions", columns=300)
    assert done.code == 1
    assert "gone.nwb is a symbolic link to nowhere.nwb, which is not there" in done.err
    assert f"in {SESSIONS} files" in done.out


def test_what_should_be_known_is_noted(tree, nwbflow):
    file = tree / "sessions/0.nwb"
    os.link(file, tree / "other.nwb")
    done = nwbflow("links", "absolute", file, columns=300)
    assert "has 2 names (hard links)" in done.err
    done = nwbflow("links", "relative", file, columns=300)
    assert "raw files are recorded by relative names" in done.err


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("list", "none.nwb"), 1, "there is no such file or folder"),
        (("check", "text.nwb"), 1, "is not an HDF5 file"),
        (("check", "pipe"), 1, "no regular file"),
        (("relocate", "a", "b"), 2, "FILES"),
        (("embed", "text.nwb", "--depth"), 2, "--depth"),
        (("bundle", "text.nwb"), 1, "--one-file"),
        (("bundle", "text.nwb", "out", "--one-file", "b.nwb"), 1, "--one-file"),
        (("bundle", "text.nwb", "out"), 1, "is not an HDF5 file"),
        (("mend", "text.nwb"), 2, "mend"),
    ],
)
def test_what_goes_wrong_is_one_text_and_an_exit_code(command, code, says, tmp_path, nwbflow):
    (tmp_path / "text.nwb").write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    done = nwbflow("links", *command, folder=tmp_path, columns=200)
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["list", "check"])
def test_a_file_that_cant_be_opened_doesnt_hide_the_others(command, tree, nwbflow):
    (tree / "sessions/broken.nwb").write_text("hello")
    done = nwbflow("links", command, tree / "sessions", "--json", columns=200)
    assert done.code == 1
    assert len(done.json["files"]) == SESSIONS
    assert done.json["errors"] == [done.err.strip()]
    assert "broken.nwb is not an HDF5 file" in done.err


def test_links_that_nwbflow_writes_are_recorded_and_hold(tmp_path, nwbflow):
    """What the writer records and what is compared have the same names."""

    def session(**series):
        nwbfile = pynwb.NWBFile("s", "i", datetime(2020, 1, 1, tzinfo=UTC))
        for name, data in series.items():
            nwbfile.add_acquisition(pynwb.TimeSeries(name=name, data=data, unit="V", rate=1.0))
        return nwbfile

    VALUES.tofile(tmp_path / "r.bin")
    for name in ("b", "50%"):
        package.write(session(x=VALUES), tmp_path / f"{name}.nwb", progress=False)
    inside = "/acquisition/x/data"
    raw_file = {"dtype": "<i2", "shape": (None, 6)}
    linked = session(
        link=package.link((tmp_path / "b.nwb", inside)),
        joined=package.concat([(tmp_path / "b.nwb", inside), (tmp_path / "50%.nwb", inside)]),
        raw=package.link_raw(tmp_path / "r.bin", **raw_file),
        twice=package.concat([package.link_raw(tmp_path / "r.bin", **raw_file)] * 2),
    )
    package.write(linked, tmp_path / "a.nwb", progress=False)
    found = nwbflow("links", "check", tmp_path / "a.nwb", "--json").json["files"][0]["links"]
    assert {link["path"].split("/")[2]: (link["kind"], link["compared"], link["notes"]) for link in found} == {
        "link": ("external", "all", []),
        "joined": ("virtual", "all", []),
        "raw": ("raw", "all", []),
        "twice": ("raw", "all", []),
    }
    (before,) = content(tmp_path / "a.nwb")
    (tmp_path / "moved").mkdir()
    for name in ("b.nwb", "50%.nwb", "r.bin"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert nwbflow("links", "relocate", tmp_path, tmp_path / "moved", tmp_path / "a.nwb").code == 0
    assert nwbflow("links", "check", tmp_path / "a.nwb").code == 0
    assert nwbflow("links", "embed", tmp_path / "a.nwb").code == 0
    shutil.rmtree(tmp_path / "moved")
    assert content(tmp_path / "a.nwb") == [before]
    assert pynwb.validate(path=tmp_path / "a.nwb") == []


def test_names_in_a_file_can_not_move_the_cursor(tmp_path, nwbflow):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["l\x1b[2J"] = h5py.ExternalLink("x\x1b[2J.h5", "/y\x1b[2J")
    for command in ("list", "check"):
        done = nwbflow("links", command, tmp_path / "a.h5")
        assert "\x1b" not in done.out + done.err
        assert "l?[2J" in done.out


def test_large_content_that_was_not_compared_is_noted(tmp_path, nwbflow):
    nbytes = SMALL + 2
    with open(tmp_path / "r.bin", "wb") as file:
        file.truncate(nbytes)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("r", (nbytes // 2,), "<i2", external=[(str(tmp_path / "r.bin"), 0, nbytes)])
        found = fingerprint_raw(tmp_path / "r.bin", 0, nbytes, "full")
        write_record(data, "", record(data.shape, data.dtype, {str(tmp_path / "r.bin"): found}))
    done = nwbflow("links", "check", tmp_path / "a.h5", columns=300)
    assert done.code == 0
    assert "pass --full to do that" in done.err
    assert "1 ok: recorded, but content not (or not wholly) compared" in done.out
    full = nwbflow("links", "check", tmp_path / "a.h5", "--full")
    assert (full.code, full.err) == (0, "")
    assert "1 ok: content the same, every byte" in full.out


@pytest.mark.parametrize("command", ["list", "check", "relocate", "relative", "absolute", "embed", "bundle"])
@pytest.mark.parametrize("columns", [80, 120])
def test_help_names_every_option_and_the_exit_codes_and_fits(command, columns, nwbflow):
    done = nwbflow("links", command, "--help", columns=columns)
    assert (done.code, done.err) == (0, "")
    told = " ".join(done.out.split())
    for code in (
        "0 all went well",
        "1 failed",
        "2 the command line",
        "3 links are broken or changed",
        "130 interrupted",
    ):
        assert code in told
    assert "--json" in told
    assert ("--dry-run" in told) == (command not in ("list", "check"))
    assert max(len(line.rstrip()) for line in done.out.splitlines()) <= columns
    assert command in nwbflow("links", "--help").out
