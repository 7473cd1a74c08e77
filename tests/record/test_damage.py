"""Recovering from damage, doubt and full disks: nothing is removed that may be the last of its kind."""

import errno
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import rig
from support import session
from writer import Writer

import nwbflow
from nwbflow.errors import ErrorKind
from nwbflow.record.folder import JournalFolder, file_crc32, mark_of


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A folder as a rig left it that died at the end, its journal in one segment."""
    path = tmp_path_factory.mktemp("crashed") / "session.nwb"
    with Writer(script=rig.__file__) as process:
        end = process.write(path, "both", sync="full", blocks=30, ends=False, segment=2**20)
    return path.parent, end.said["acknowledged"]


@pytest.fixture
def left(crashed, tmp_path):
    """The path of a recording that died, and what was acknowledged."""
    folder, acknowledged = crashed
    shutil.copytree(folder, tmp_path / "left")
    return tmp_path / "left" / "session.nwb", acknowledged


def journal_of(path):
    return path.with_name(path.name + ".journal")


def frames_in(segment):
    """Where the frames of a segment begin: their magic bytes are in no sample of the rig's."""
    content = segment.read_bytes()
    found, at = [], content.find(b"nwbF")
    while at >= 0:
        found.append(at)
        at = content.find(b"nwbF", at + 1)
    return found


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("byte", [4, 50], ids=["head", "rows"])
@pytest.mark.parametrize("frame", [0, 10, -2, -1])
def test_a_damaged_journal_is_kept_and_a_new_recording_can_be_made(frame, byte, left, reader):
    path, _ = left
    segment = next(journal_of(path).glob("*.segment"))
    flip(segment, frames_in(segment)[frame] + byte)
    journal, partial = everything(journal_of(path)), path.with_name(path.name + ".partial").read_bytes()
    recovery = nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", {}) == []
    kept = path.with_name(path.name + ".journal.damaged")
    assert recovery.journal == kept
    assert str(kept) in str(recovery)
    found = everything(kept)
    assert found.pop(Path(path.name + ".partial")) == partial
    for files in (journal, found):
        del files[Path("announced.json")]  # which is written in place, for those who watch
    assert {name: found[name] for name in journal} == journal
    if frame != -1:
        assert any(d.lost for d in recovery.datasets)
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, kept.name]
    with nwbflow.Recorder(session(x=nwbflow.live()), path, overwrite=True) as recorder:
        recorder["x"].append([1.0])
    shutil.copytree(kept, journal_of(path))
    assert nwbflow.recover(path, output=path.with_name("again.nwb")).journal == journal_of(path)


@pytest.mark.requirement("S5")
def test_a_flipped_bit_in_a_segments_head_hides_nothing(left, reader):
    path, acknowledged = left
    flip(next(journal_of(path).glob("*.segment")), 20)
    recovery = nwbflow.recover(path)
    assert recovery.journal is None
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []


@pytest.mark.requirement("S5")
def test_a_damaged_journal_is_kept_if_putting_it_aside_was_interrupted(left, monkeypatch):
    path, _ = left
    segment = next(journal_of(path).glob("*.segment"))
    flip(segment, frames_in(segment)[10] + 100)

    def killed(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(JournalFolder, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            nwbflow.recover(path)
    assert path.exists()
    again = nwbflow.recover(path)
    assert again.journal == path.with_name(path.name + ".journal.damaged")
    assert (again.journal / segment.name).exists()


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("call", ["pread", "preadv"])
def test_a_bad_sector_is_where_the_file_ends(call, left, monkeypatch, reader):
    path, _ = left
    segment = next(journal_of(path).glob("*.segment"))
    start, end = frames_in(segment)[20:22]
    real = getattr(os, call)

    def bad(handle, what, offset):
        size = what if isinstance(what, int) else sum(map(len, what))
        if offset < end and offset + size > start and os.readlink(f"/proc/self/fd/{handle}") == str(segment):
            raise OSError(errno.EIO, "Input/output error")
        return real(handle, what, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, bad)
        recovery = nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", {}) == []
    assert all(d.kept for d in recovery.datasets)
    assert (recovery.journal / segment.name).stat().st_size == 2**20


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("name", ["manifest.json", "structure.nwb"])
def test_what_can_be_done_about_a_damaged_journal_is_said_and_works(name, left, tmp_path, reader):
    path, acknowledged = left
    damaged = journal_of(path) / name
    backup = damaged.read_bytes()
    damaged.write_bytes(b"[]")
    with pytest.raises(nwbflow.StorageError, match="undamaged copy") as refused:
        nwbflow.recover(path)
    assert "session.nwb.partial" in str(refused.value)
    for said in (journal_of(path), path.with_name(path.name + ".partial")):
        assert said.name in str(refused.value)
        shutil.move(said, tmp_path / said.name)
    with nwbflow.Recorder(session(x=nwbflow.live()), path):
        pass
    path.unlink()
    shutil.move(tmp_path / journal_of(path).name, path.parent)
    damaged.write_bytes(backup)
    nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []


@pytest.mark.requirement("S5")
def test_a_file_that_looks_like_the_announced_one_but_is_the_old_one_is_replaced(left, reader):
    path, acknowledged = left
    path.write_bytes(b"old" * 1000)
    mark = list(mark_of(path))
    manifest = journal_of(path) / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "replaces": mark}))
    (journal_of(path) / "publishing.json").write_text(json.dumps({"mark": mark}))
    nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_damaged_announcement_means_that_the_file_is_made_again(content, left, reader):
    path, acknowledged = left
    (journal_of(path) / "publishing.json").write_bytes(content)
    nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("stage", ["journal", "laying out", "laid out", "partial"])
def test_a_recorder_that_was_killed_before_it_began_is_in_nobodys_way(stage, path):
    JournalFolder.make(path).let_go()
    name = {"laying out": ".structure.nwb.partial", "laid out": ".structure.nwb", "partial": ".partial"}
    if stage in name:
        path.with_name(path.name + name[stage]).write_bytes(b"half a file")
        path.with_name(path.name + ".structure.nwb.partial.old").write_bytes(b"of an earlier attempt")
    with pytest.raises(nwbflow.TargetError, match="record again"):
        nwbflow.recover(path)
    with nwbflow.Recorder(session(x=nwbflow.live()), path) as recorder:
        recorder["x"].append([1.0, 2.0])
    left = {p.name: p for p in path.parent.iterdir()}
    del left[path.name]
    if stage == "partial":  # it might be what an interrupted write had left
        assert left.pop(path.name + ".partial.old").read_bytes() == b"half a file"
    if stage == "laid out":  # it might be anybody's
        assert left.pop(path.name + ".structure.nwb").read_bytes() == b"half a file"
    assert left == {}


@pytest.mark.requirement("S5")
def test_a_second_recorder_is_told_that_the_first_is_running(path):
    with nwbflow.Recorder(session(x=nwbflow.live()), path):
        with pytest.raises(nwbflow.TargetError, match="being recorded") as refused:
            nwbflow.Recorder(session(x=nwbflow.live()), path, overwrite=True)
        assert refused.value.kind is ErrorKind.LOCKED
        assert "nwbflow recover" not in str(refused.value)


@pytest.fixture
def full_disk(monkeypatch):
    """A disk on which a file can be copied only while the partial file is not there."""
    from nwbflow.record import build

    real = build.copy_synced
    tries = []

    def copy(source, target):
        real(source, target)
        tries.append(target)
        if target.with_name(target.name.replace(".recovering", ".partial")).exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "copy_synced", copy)
    return tries


@pytest.mark.requirement("S5")
def test_on_a_full_disk_the_partial_file_makes_room(left, full_disk, reader):
    path, acknowledged = left
    nwbflow.recover(path)
    assert len(full_disk) == 2
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.requirement("S5")
@pytest.mark.usefixtures("full_disk")
def test_on_a_full_disk_a_partial_file_that_may_have_more_than_the_journal_is_kept(left):
    path, _ = left
    segment = next(journal_of(path).glob("*.segment"))
    flip(segment, frames_in(segment)[10] + 100)
    before = everything(path.parent)
    with pytest.raises(nwbflow.StorageError, match=f"nwbflow recover {path} --output") as refused:
        nwbflow.recover(path)
    assert refused.value.kind is ErrorKind.NO_SPACE
    assert everything(path.parent) == before


@pytest.mark.requirement("S5")
@pytest.mark.parametrize(("content", "said"), [(b"", "not an HDF5"), (b"\x89HDF\r\n\x1a\n" + bytes(50), "be opened")])
def test_a_file_without_a_journal_is_not_called_finished(content, said, path):
    path.write_bytes(content)
    with pytest.raises(nwbflow.NwbflowError, match=said) as refused:
        nwbflow.recover(path)
    assert "finished" not in str(refused.value)
    assert path.read_bytes() == content


@pytest.mark.requirement("S5")
def test_links_that_lead_nowhere_from_the_new_place_are_named(left, tmp_path):
    path, _ = left
    with h5py.File(path.parent / "raw.h5", "w") as raw:
        raw["x"] = np.arange(3.0)
    structure, manifest = journal_of(path) / "structure.nwb", journal_of(path) / "manifest.json"
    with h5py.File(structure, "r+") as file:
        file["scratch/raw"] = h5py.ExternalLink("raw.h5", "/x")
    told = {"bytes": structure.stat().st_size, "crc32": file_crc32(structure)}
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "structure": told}))
    assert "raw.h5" not in str(nwbflow.recover(path, output=path.with_name("other.nwb")))
    moved = nwbflow.recover(path, output=tmp_path / "session.nwb")
    assert f"to raw.h5 leads nowhere from {tmp_path}" in str(moved)
    shutil.copy(path.parent / "raw.h5", tmp_path)
    assert "elsewhere" in str(nwbflow.recover(path, output=tmp_path / "second.nwb"))
    (path.parent / "raw.h5").unlink()
    assert "leads nowhere" in str(nwbflow.recover(path))


@pytest.mark.requirement("S5")
def test_names_that_are_too_long_are_refused_at_once(path):
    with pytest.raises(nwbflow.TargetError, match="is 1 bytes longer"):
        nwbflow.Recorder(session(x=nwbflow.live()), path.with_name("n" * 230 + ".nwb"))
    with pytest.raises(nwbflow.TargetError, match="is 1 bytes longer"):
        nwbflow.write(session(x=np.zeros(3)), path.with_name("n" * 244 + ".nwb"), progress=False)
    assert list(path.parent.iterdir()) == []
    longest = path.with_name("n" * 229 + ".nwb")
    with nwbflow.Recorder(session(x=nwbflow.live()), longest):
        pass
    assert longest.exists()


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("name", ["data.journal", "data.partial"])
def test_a_recording_may_be_called_like_what_lies_beside_one(name, left, reader):
    path, acknowledged = left
    target = path.with_name(name)
    journal_of(path).rename(journal_of(target))
    nwbflow.recover(target)
    assert rig.violations(reader.open(target, data=True), "both", acknowledged) == []
    assert nwbflow.recover(target).path == target


@pytest.mark.requirement("S5")
def test_a_folder_is_no_recording(path):
    for folder in ("/", path.parent):
        with pytest.raises(nwbflow.TargetError, match="is a folder"):
            nwbflow.recover(folder)
        with pytest.raises(nwbflow.TargetError, match="is a folder"):
            nwbflow.write(session(x=np.zeros(3)), folder, progress=False)
