"""Disks that fill up and fail: what was acknowledged stays, and the recording goes on where it can."""

import contextlib
import os
import shutil
import subprocess

import numpy as np
import pytest
import rig
from support import session
from writelog import Kind, read_log

import nwbflow
from nwbflow.errors import DurabilityError, ErrorKind
from nwbflow.model.events import Warned
from nwbflow.record import journal


def fill(folder):
    """Fill a disk, but for less than a page."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    assert os.statvfs(folder).f_bavail == 0
    return ballast


def noise(number):
    return np.random.default_rng(number).integers(-30000, 30000, (8000, 8)).astype("i2")


def until_full(recorder):
    """Append until nothing is acknowledged any more; return all tickets."""
    tickets = []
    while True:
        tickets.append(recorder["x"].append(noise(len(tickets))))
        if not tickets[-1].wait(3.0):
            return tickets


@pytest.mark.requirement("S2", "S3")
@pytest.mark.usefixtures("no_thread_left")
def test_a_full_disk_stops_the_recording_and_room_lets_it_go_on(small_disk, reader, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2**19)
    said = []
    path = small_disk / "session.nwb"
    nwbfile = session(x=nwbflow.live((None, 8), "int16", chunks=(4000, 8)))
    with nwbflow.Recorder(nwbfile, path, queue="300 kB", progress=said.append) as recorder:
        ticket = recorder["x"].append(noise(0))
        assert ticket.wait(30)
        ballast = fill(small_disk)
        tickets = [ticket]
        while tickets[-1].wait(3.0):
            tickets.append(recorder["x"].append(noise(len(tickets))))
        safe = recorder.acknowledged("x")
        recorder["x"].append(noise(len(tickets)), timeout=30)
        tickets.append(None)
        with pytest.raises(DurabilityError, match="disk is full") as refused:
            recorder["x"].append(noise(99), timeout=0.2)
        assert (refused.value.kind, refused.value.durable) == (ErrorKind.NO_SPACE, safe)
        assert any(isinstance(event, Warned) and "full" in event.message for event in said)
        ballast.unlink()
        last = recorder["x"].append(noise(len(tickets)))
        assert last.wait(30)
    expected = np.concatenate([noise(n) for n in range(len(tickets) + 1)])
    assert any("full" in note for note in recorder.receipt.notes)
    assert reader.open(path).shapes == {"x": expected.shape}
    with nwbflow.NWBHDF5IO(path, "r") as io:
        assert (io.read().acquisition["x"].data[:] == expected).all()


@pytest.mark.requirement("S2")
@pytest.mark.usefixtures("no_thread_left")
def test_a_disk_that_stays_full_keeps_what_was_acknowledged(small_disk, tmp_path, reader, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2**19)
    path = small_disk / "session.nwb"
    recorder = nwbflow.Recorder(session(x=nwbflow.live((None, 8), "int16", chunks=(4000, 8))), path)
    tickets = until_full(recorder)
    with pytest.raises(nwbflow.StorageError, match="full"):
        recorder.close()
    safe = recorder.acknowledged("x")
    assert safe == tickets[-1].first
    with pytest.raises(nwbflow.StorageError, match="full"):
        recorder.close()
    with pytest.raises(DurabilityError) as lost:
        tickets[-1].wait()
    assert lost.value.durable == safe
    elsewhere = tmp_path / "recovered.nwb"
    recovery = nwbflow.recover(path, output=elsewhere)
    assert recovery.datasets[0].kept >= safe > 0
    with nwbflow.NWBHDF5IO(elsewhere, "r") as io:
        data = io.read().acquisition["x"].data[:]
    assert (data[:safe] == np.concatenate([noise(n) for n in range(safe // 8000)])).all()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with pytest.raises(DurabilityError, match="rows are safe"):  # the last block was appended in vain
        recorder.close()
    assert reader.open(path).shapes == {"x": (recovery.datasets[0].kept, 8)}
    assert recorder.close().datasets[0].layout.shape == (recovery.datasets[0].kept, 8)
    assert [p.name for p in small_disk.iterdir()] == [path.name]


def right_now_or_after_recovering(end, path, layout, reader):
    """Return what is wrong with what a rig left, finished or not."""
    if end.code == 0:
        left = {p.name for p in path.parent.iterdir()} - {path.name}
        return rig.violations(reader.open(path, data=True), layout, end.said["acknowledged"]) + sorted(left)
    if "recording" not in end.said and not path.with_name(path.name + ".journal").exists():
        return []
    nwbflow.recover(path)
    return rig.violations(reader.open(path, data=True), layout, end.said.get("acknowledged", {}))


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("sync", ["process", "full"])
def test_any_single_failing_write_loses_nothing_that_was_acknowledged(sync, logged, reader, tmp_path):
    path, log = tmp_path / "live" / "session.nwb", tmp_path / "log"
    path.parent.mkdir()
    request = {"sync": sync, "blocks": 8, "log": str(log)}
    assert logged.write(path, "paired", **request).code == 0
    writes = sum(operation.kind is Kind.WRITE for operation in read_log(log))
    assert writes > 40
    problems, finished = [], 0
    for number in range(1 + (sync == "full"), writes + 1, 6):
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        log.unlink()
        end = logged.write(path, "paired", fail_at=number, **request)
        finished += end.code == 0
        problems += [f"write {number}: {p}" for p in right_now_or_after_recovering(end, path, "paired", reader)]
    assert not problems
    assert finished > 2  # a failing journal or partial file need not end a recording


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("at", [2, 4, 8])
def test_a_failing_sync_is_made_good_in_a_new_segment(at, logged, reader, tmp_path):
    path, log = tmp_path / "live" / "session.nwb", tmp_path / "log"
    path.parent.mkdir()
    end = logged.write(path, "paired", sync="full", blocks=10, log=str(log), fail_sync=at)
    assert end.code == 0
    operations = read_log(log)
    failed = next(i for i, o in enumerate(operations) if o.kind is Kind.FAILED)
    assert operations[failed].path.endswith(".segment")
    later = {o.path for o in operations[failed + 1 :] if o.kind is Kind.WRITE and o.path.endswith(".segment")}
    assert later  # and the descriptor whose sync failed was never used again
    assert operations[failed].path not in later
    assert right_now_or_after_recovering(end, path, "paired", reader) == []


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("part", [".segment", ".partial", "session.nwb"])
def test_a_disk_that_fails_for_good_ends_the_recording_and_keeps_what_was_acknowledged(part, logged, reader, tmp_path):
    path, log = tmp_path / "live" / "session.nwb", tmp_path / "log"
    path.parent.mkdir()
    end = logged.write(path, "both", sync="full", blocks=12, log=str(log), fail_paths=[6, part])
    assert end.code == 1
    assert end.said["acknowledged"]["probe"] > 0
    assert right_now_or_after_recovering(end, path, "both", reader) == []
