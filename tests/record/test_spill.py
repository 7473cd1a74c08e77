"""The journal goes on in another folder when its disk is full, fails, or does not answer."""

import contextlib
import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import power
import pytest
import rig
from replay import power_cut, replay
from support import session
from test_crash_points import ACKS, FILE, Judge, recorded
from test_disk import fill, noise
from writelog import CHANGES
from writer import Writer

import nwbflow
from nwbflow.errors import DurabilityError, ErrorKind, StorageError, TargetError
from nwbflow.model.events import Warned
from nwbflow.record import journal, writing

FREEZE, THAW = 0xC0045877, 0xC0045878  # FIFREEZE and FITHAW, linux/fs.h


@pytest.fixture
def spill(tmp_path):
    folder = tmp_path / "spill"
    folder.mkdir()
    return folder


def wide():
    return session(x=nwbflow.live((None, 8), "int16", chunks=(4000, 8)))


def is_noise(path, blocks):
    with nwbflow.NWBHDF5IO(path, "r") as io:
        return np.array_equal(io.read().acquisition["x"].data[:], np.concatenate([noise(n) for n in range(blocks)]))


def segments(folder):
    return sorted(p.name for p in folder.rglob("*.segment"))


def warnings_in(said):
    return [event.message for event in said if isinstance(event, Warned)]


@pytest.mark.requirement("S2", "S3")
@pytest.mark.usefixtures("no_thread_left")
def test_a_recording_larger_than_its_disk_goes_on_in_the_spill_folder(request, spill, tmp_path, monkeypatch):
    disk = request.getfixturevalue("small_disk")
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2**20)
    path, said = disk / "session.nwb", []
    recorder = nwbflow.Recorder(wide(), path, sync="full", spill=spill, progress=said.append)
    blocks = 120  # 15 MB, on a disk of 12
    for number in range(blocks):
        assert recorder["x"].append(noise(number)).wait(30)
    assert segments(spill)
    assert len({*segments(spill), *segments(disk)}) == len(segments(spill)) + len(segments(disk))
    with nwbflow.tail(path, "x") as tail:  # who watches looks into both
        seen = 0
        while seen < blocks * 8000:
            block = tail.read(timeout=30)
            assert block.first == seen
            seen += block.count
    with pytest.raises(StorageError, match="disk is full"):
        recorder.close()
    elsewhere = tmp_path / "elsewhere.nwb"
    assert nwbflow.recover(path, output=elsewhere).datasets[0].kept == blocks * 8000
    assert is_noise(elsewhere, blocks)
    assert segments(spill)
    (told,) = [text for text in warnings_in(said) if "goes on in" in text]
    assert "disk is full" in told
    assert str(spill) in told
    os.system(f"mount -o remount,size=64m {disk}")
    assert recorder.close().path == path
    assert is_noise(path, blocks)
    assert list(spill.iterdir()) == []
    assert [p.name for p in disk.iterdir()] == [path.name]


@pytest.mark.requirement("S3")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("freed", ["disk", "spill"])
def test_when_both_are_full_it_waits_and_goes_on_where_there_is_room(freed, request, tmp_path, monkeypatch):
    disk = request.getfixturevalue("small_disk")
    second = tmp_path / "second"
    second.mkdir()
    assert os.system(f"mount -t tmpfs -o size=12m tmpfs {second}") == 0
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2**19)
    try:
        recorder = nwbflow.Recorder(wide(), disk / "session.nwb", spill=second)
        assert recorder["x"].append(noise(0)).wait(30)
        ballast = {"disk": fill(disk), "spill": fill(second)}
        tickets = [recorder["x"].append(noise(number)) for number in range(1, 9)]
        assert not tickets[-1].wait(1.0)
        ballast.pop(freed).unlink()
        assert tickets[-1].wait(30)
        for file in ballast.values():
            file.unlink()
        notes = recorder.close().notes
        told = sum("Nothing is acknowledged until then" in note for note in notes)
        assert 1 <= told <= 2  # for each time that there was no room: what was freed may be taken at once
        assert is_noise(disk / "session.nwb", 9)
        assert list(second.iterdir()) == []
    finally:
        os.system(f"umount --lazy {second}")


class Held:
    """A disk that does not answer when files in a folder are written or synced."""

    def __init__(self, folder, monkeypatch):
        self.folder = str(folder)
        self.gate = threading.Event()
        self.held = threading.Event()
        self.active = False
        for call in ("pwritev", "fdatasync"):
            monkeypatch.setattr(os, call, self.slow(getattr(os, call)))

    def slow(self, real):
        def call(handle, *arguments):
            if self.active and os.readlink(f"/proc/self/fd/{handle}").startswith(self.folder):
                self.held.set()
                assert self.gate.wait(60)
            return real(handle, *arguments)

        return call


@pytest.mark.requirement("S2", "S3")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("late", ["before closing", "while closing"])
@pytest.mark.parametrize("sync", ["process", "full"])
def test_a_disk_that_does_not_answer_holds_nobody(sync, late, path, spill, monkeypatch):
    monkeypatch.setattr(writing, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2**19)
    said = []
    disk = Held(path.with_name(path.name + ".journal"), monkeypatch)
    recorder = nwbflow.Recorder(wide(), path, sync=sync, spill=spill, queue="300 kB", progress=said.append)
    assert recorder["x"].append(noise(0)).wait(30)
    disk.active = True
    tickets = [recorder["x"].append(noise(number), timeout=30) for number in range(1, 20)]
    assert disk.held.is_set()
    assert tickets[-1].wait(30)  # while the first thread is still being held
    assert recorder.acknowledged("x") == 20 * 8000
    if late == "before closing":
        disk.gate.set()
        assert recorder["x"].append(noise(20)).wait(30)
    else:
        recorder["x"].append(noise(20))
        timer = threading.Timer(0.3, disk.gate.set)
        timer.start()
    disk.active = False
    receipt = recorder.close()
    if late == "while closing":
        timer.join()
    (told,) = [note for note in receipt.notes if "has not answered" in note]
    assert str(spill) in told
    assert told in warnings_in(said)
    assert is_noise(path, 21)
    assert list(spill.iterdir()) == []


@pytest.mark.requirement("S3")
@pytest.mark.usefixtures("no_thread_left")
def test_a_slow_write_that_nobody_waits_for_is_waited_for(path, spill, monkeypatch):
    monkeypatch.setattr(writing, "STALL_SECONDS", 0.05)
    disk = Held(path.with_name(path.name + ".journal"), monkeypatch)
    recorder = nwbflow.Recorder(wide(), path, spill=spill)
    disk.active = True
    ticket = recorder["x"].append(noise(0))
    assert disk.held.wait(30)
    assert not ticket.wait(0.5)
    disk.gate.set()
    assert ticket.wait(30)
    assert segments(spill) == []
    recorder.close()
    assert is_noise(path, 1)


@pytest.mark.requirement("S2", "S3")
@pytest.mark.usefixtures("no_thread_left")
def test_a_disk_that_fails_late_and_wakes_up_makes_no_segment_any_more(path, spill, monkeypatch):
    """The thread that was held gets an error, would go on in a new segment, and may not."""
    monkeypatch.setattr(writing, "STALL_SECONDS", 0.2)
    disk = Held(path.with_name(path.name + ".journal"), monkeypatch)
    recorder = nwbflow.Recorder(wide(), path, spill=spill, queue="300 kB")
    assert recorder["x"].append(noise(0)).wait(30)
    held = os.pwritev

    def fails_late(handle, *arguments):
        inside = disk.active and os.readlink(f"/proc/self/fd/{handle}").startswith(disk.folder)
        done = held(handle, *arguments)
        if inside:
            raise OSError(errno.EIO, "failed at last")
        return done

    monkeypatch.setattr(os, "pwritev", fails_late)
    disk.active = True
    for number in range(1, 9):
        recorder["x"].append(noise(number), timeout=30)
    before = segments(path.parent)
    disk.gate.set()
    assert recorder["x"].append(noise(9)).wait(30)
    recorder["x"].append(noise(10)).wait(30)
    assert segments(path.parent) == before
    recorder.close()
    assert is_noise(path, 11)


STALLED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
import nwbflow
from nwbflow.record import writing
from test_disk import noise
from test_spill import wide

writing.STALL_SECONDS = 0.2
recorder = nwbflow.Recorder(wide(), sys.argv[1], sync="full", spill=sys.argv[2], queue="300 kB")
recorder["x"].append(noise(0)).wait()
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, 20):
    ticket = recorder["x"].append(noise(number))
ticket.wait()
print(recorder.acknowledged("x"), flush=True)
sys.stdin.readline()
"""


@pytest.mark.requirement("S2", "S3")
def test_a_file_system_that_is_frozen_holds_nobody_and_a_kill_then_loses_nothing(tmp_path, spill):
    try:
        disk = power.Disk(tmp_path)
    except power.NoDiskError as error:
        pytest.skip(str(error))
    path = disk.mount_point / "session.nwb"
    handle = os.open(disk.mount_point, os.O_RDONLY)
    program = STALLED.format(paths=[entry for entry in sys.path if entry])
    command = [sys.executable, "-c", program, str(path), str(spill)]
    frozen = False
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            try:
                fcntl.ioctl(handle, FREEZE, 0)
            except OSError as error:
                process.kill()
                pytest.skip(f"this file system can't be frozen: {error}")
            frozen = True
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{20 * 8000}\n"
            process.send_signal(signal.SIGKILL)
            fcntl.ioctl(handle, THAW, 0)
            frozen = False
        assert nwbflow.recover(path).datasets[0].kept == 20 * 8000
        assert is_noise(path, 20)
        assert list(spill.iterdir()) == []
    finally:
        if frozen:
            fcntl.ioctl(handle, THAW, 0)
        os.close(handle)
        disk.unplug()


@pytest.fixture
def spilled(logged, tmp_path, spill):
    """A recording whose journal failed and that died later, and what was acknowledged."""
    path = tmp_path / "live" / FILE
    path.parent.mkdir()
    more = {"fail_paths": [6, "journal/0"], "spill": str(spill), "ends": False, "log": str(tmp_path / "log")}
    end = logged.write(path, "both", sync="full", blocks=20, **more)
    assert end.code == 9
    assert segments(spill)
    return path, end.said["acknowledged"]


@pytest.mark.requirement("S2", "S3", "S5")
def test_a_recovery_without_the_spill_folder_is_refused_and_says_what_to_do(spilled, spill, tmp_path, reader):
    path, acknowledged = spilled
    (folder,) = spill.iterdir()
    away = tmp_path / "unmounted"
    spill.rename(away)
    before = {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}
    with pytest.raises(StorageError) as refused:
        nwbflow.recover(path)
    assert refused.value.kind is ErrorKind.MISSING
    assert str(folder) in str(refused.value)
    assert {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()} == before
    moved = path.with_name(path.name + ".journal") / "spill"
    assert f"move that folder to {moved}" in str(refused.value)
    shutil.move(away / folder.name, moved)
    nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.requirement("S2", "S3", "S5")
def test_what_was_spilled_is_recovered_and_removed(spilled, spill, reader):
    path, acknowledged = spilled
    nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []
    assert list(spill.iterdir()) == []


@pytest.mark.requirement("S3")
def test_a_journal_that_fails_in_both_places_ends_the_recording(path, spill, monkeypatch):
    recorder = nwbflow.Recorder(wide(), path, spill=spill)
    assert recorder["x"].append(noise(0)).wait(30)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", fail)
        with pytest.raises(DurabilityError) as lost:
            recorder["x"].append(noise(1)).wait(30)
    assert lost.value.durable == 8000
    with pytest.raises(DurabilityError):
        recorder.close()
    assert is_noise(path, 1)
    assert list(spill.iterdir()) == []


@pytest.mark.requirement("S3")
@pytest.mark.parametrize("what", ["missing", "file"])
def test_a_folder_that_can_not_be_spilled_to_is_refused_before_anything_is_made(what, path, tmp_path):
    given = tmp_path / "given"
    if what == "file":
        given.touch()
    with pytest.raises(TargetError, match=f"spill={given} is no folder") as refused:
        nwbflow.Recorder(wide(), path, spill=given)
    assert refused.value.kind is ErrorKind.FOLDER
    assert list(path.parent.iterdir()) == []


class SpillJudge(Judge):
    """Judges copies of a folder; in the copy, what was spilled is in the copy."""

    def __init__(self, *arguments, original):
        super().__init__(*arguments)
        self.original = str(original)

    def prepare(self):
        for name in (".journal", ".journal.done"):
            with contextlib.suppress(FileNotFoundError):
                manifest = self.scratch / (FILE + name) / "manifest.json"
                manifest.write_text(manifest.read_text().replace(self.original, str(self.scratch)))

    def stray(self, left):
        spilled = list((self.scratch / "other").iterdir()) if (self.scratch / "other").exists() else []
        return {*super().stray(left), *(str(p) for p in spilled)} - {"other"}


@pytest.mark.requirement("S2", "S3")
def test_at_every_point_of_a_recording_that_spills_what_was_acknowledged_is_recovered(
    logged,
    reader,
    tmp_path,
):
    live, before = tmp_path / "live", tmp_path / "before"
    for folder in (live, before):
        (folder / "other").mkdir(parents=True)
    more = {"spill": str(live / "other"), "fail_paths": [4, "journal/0"], "blocks": 10}
    log = recorded(logged, live, tmp_path / "log", "paired", "full", **more)
    assert any(o.path.startswith("other/") and o.path.endswith(".segment") for o in log)
    judge = SpillJudge(reader, "paired", tmp_path / "scratch", original=live)
    problems = []
    for point in replay(log, before, tmp_path / "rebuilt", every=3, torn=True):
        problems += [f"{point}: {what}" for what in judge(point.folder)]
    chance = random.Random(9)
    for at in chance.sample([index for index, operation in enumerate(log) if operation.kind in CHANGES], 40):
        power_cut(log[: at + 1], before, tmp_path / "cut", chance=chance, keep=(ACKS,))
        problems += [f"cut after operation {at}: {what}" for what in judge(tmp_path / "cut")]
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:20])
    assert judge.recovered > 60
    assert judge.kept == 0


@pytest.mark.requirement("S2", "S3")
def test_kills_of_recordings_that_spill_lose_nothing(tmp_path, spill, reader):
    chance = random.Random(12)
    problems, recovered = [], 0
    with Writer(script=rig.__file__) as process:
        for number in range(6):
            path = tmp_path / f"{number}" / FILE
            path.parent.mkdir()
            process.start(path, "both", blocks=400, segment=2**14, spill=str(spill), hop=True)
            process.wait_for("recording")
            threading.Event().wait(chance.uniform(0.05, 0.4))
            process.send(signal.SIGKILL)
            wrong, had = power.problems_after(path, "both", process.end().said.get("acknowledged", {}), reader)
            recovered += had
            problems += wrong
    assert not problems
    assert recovered > 2
    assert list(spill.iterdir()) == []
