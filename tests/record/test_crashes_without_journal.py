"""Crashes and faults of recordings without a journal: every point, every loss, and the promise holds."""

import contextlib
import random
import shutil
import subprocess

import numpy as np
import power
import pytest
import rig
from replay import power_cut, replay
from support import session
from test_crash_points import ACKS, FILE, Judge, recorded
from writelog import CHANGES, Kind, read_log

import nwbflow
from nwbflow.errors import DurabilityError, ErrorKind, StorageError, TargetError

LIGHT = {"journal": False}


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("sync", ["process", "full"])
def test_at_every_point_of_a_recording_what_was_acknowledged_is_recovered(sync, logged, reader, tmp_path):
    live, before = tmp_path / "live", tmp_path / "before"
    before.mkdir()
    log = recorded(logged, live, tmp_path / "log", "paired", sync, **LIGHT | {"blocks": 14})
    judge = Judge(reader, "paired", tmp_path / "scratch")
    problems, points = [], 0
    for point in replay(log, before, tmp_path / "rebuilt", torn=True):
        points += 1
        problems += [f"{point}: {what}" for what in judge(point.folder)]
    assert not problems, f"{len(problems)} at {points} points:\n" + "\n".join(problems[:20])
    assert judge.recovered > 100
    assert judge.kept == 0  # a kill damages nothing
    assert len(judge.known) > 5


@pytest.mark.requirement("S2")
def test_a_loss_of_power_takes_nothing_that_was_acknowledged_with_sync_full(logged, reader, tmp_path):
    live, before = tmp_path / "live", tmp_path / "before"
    before.mkdir()
    log = recorded(logged, live, tmp_path / "log", "both", "full", **LIGHT)
    judge = Judge(reader, "both", tmp_path / "scratch")
    chance = random.Random(7)
    changes = [index for index, operation in enumerate(log) if operation.kind in CHANGES]
    problems = []
    for _ in range(100):
        at = chance.choice(changes)
        power_cut(log[: at + 1], before, tmp_path / "cut", chance=chance, keep=(ACKS,))
        problems += [
            f"cut after operation {at} ({log[at].kind.name} {log[at].path}): {w}" for w in judge(tmp_path / "cut")
        ]
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:20])
    assert judge.recovered > 50
    assert judge.kept == 0


@pytest.mark.requirement("S2")
def test_without_syncing_a_loss_of_power_is_found_to_lose_rows(logged, reader, tmp_path):
    """The canary; what is left is right all the same."""
    live, before = tmp_path / "live", tmp_path / "before"
    before.mkdir()
    log = recorded(logged, live, tmp_path / "log", "paired", "process", **LIGHT)
    judge = Judge(reader, "paired", tmp_path / "scratch")
    chance = random.Random(6)
    last = max(index for index, operation in enumerate(log) if operation.path == ACKS)
    problems = []
    for _ in range(10):
        power_cut(log[: last + 1], before, tmp_path / "cut", chance=chance, keep=(ACKS,))
        problems += judge(tmp_path / "cut")
    assert len(problems) > 5
    assert not [text for text in problems if "not those that were sent" in text]


@pytest.mark.requirement("S2", "S5")
def test_recovering_may_itself_be_killed_at_any_point(logged, reader, tmp_path):
    live, before, log_file = tmp_path / "live", tmp_path / "before", tmp_path / "log"
    recorded(logged, live, log_file, "both", "process", ends=False, **LIGHT | {"blocks": 10})
    shutil.copytree(live, before)
    log_file.unlink()
    assert logged.write(live / FILE, "recover", log=str(log_file)).code == 0
    judge = Judge(reader, "both", tmp_path / "scratch")
    chance = random.Random(8)
    log = read_log(log_file)
    for point in replay(log, before, tmp_path / "rebuilt", torn=True):
        assert judge(point.folder) == [], str(point)
    for at in chance.sample(range(len(log)), 20):
        power_cut(log[: at + 1], before, tmp_path / "cut", chance=chance, keep=(ACKS,))
        assert judge(tmp_path / "cut") == [], f"cut after operation {at}"
    assert len(judge.known) == 1
    assert {p.name for p in live.iterdir()} == {FILE, ACKS}


@pytest.mark.requirement("S2")
def test_any_single_failing_write_or_sync_ends_the_recording_and_loses_nothing(logged, reader, tmp_path):
    path, log = tmp_path / "live" / FILE, tmp_path / "log"
    path.parent.mkdir()
    request = {"sync": "full", "blocks": 12, "log": str(log), **LIGHT}
    assert logged.write(path, "paired", **request).code == 0
    writes = sum(operation.kind is Kind.WRITE for operation in read_log(log))
    problems, ends = [], []
    faults = [{"fail_at": number} for number in range(1, writes + 1, max(1, writes // 9))]
    for fault in [*faults, *({"fail_sync": at} for at in (2, 6, 10))]:
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        log.unlink()
        end = logged.write(path, "paired", **fault, **request)
        ends.append(end)
        if end.code == 0:
            problems += rig.violations(reader.open(path, data=True), "paired", end.said["acknowledged"])
        elif "recording" in end.said:
            with contextlib.suppress(TargetError):  # the end of the process may have finished it
                nwbflow.recover(path)
            seen = reader.open(path, data=True)
            problems += [f"{fault}: {p}" for p in rig.violations(seen, "paired", end.said.get("acknowledged", {}))]
    assert not problems
    assert sum(end.code != 0 and "acknowledged" in end.said for end in ends) > 5


def noise(number):
    return np.random.default_rng(number).integers(-30000, 30000, (8000, 8)).astype("i2")


@pytest.mark.requirement("S2")
@pytest.mark.usefixtures("no_thread_left")
def test_a_full_disk_is_the_end_and_keeps_what_was_acknowledged(small_disk, tmp_path, reader):
    path = small_disk / FILE
    recorder = nwbflow.Recorder(
        session(x=nwbflow.live((None, 8), "int16", chunks=(4000, 8))), path, journal=False, queue="1 MiB"
    )
    with pytest.raises(DurabilityError, match="disk is full") as full:
        recorder["x"].extend((noise(number) for number in range(1000)), timeout=60)
    safe = recorder.acknowledged("x")
    assert (full.value.kind, full.value.durable) == (ErrorKind.NO_SPACE, safe)
    assert safe > 0
    with pytest.raises(StorageError, match="--output") as refused:
        recorder.close()
    assert refused.value.kind is ErrorKind.NO_SPACE
    elsewhere = tmp_path / "recovered.nwb"
    recovery = nwbflow.recover(path, output=elsewhere)
    kept = recovery.datasets[0].kept
    assert kept >= safe
    with nwbflow.NWBHDF5IO(elsewhere, "r") as io:
        data = io.read().acquisition["x"].data[:]
    assert (data == np.concatenate([noise(n) for n in range(-(-kept // 8000))])[:kept]).all()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with pytest.raises(DurabilityError, match="rows are safe"):
        recorder.close()
    assert reader.open(path).shapes == {"x": (kept, 8)}
    assert [p.name for p in small_disk.iterdir()] == [path.name]


@pytest.mark.requirement("S2", "S5")
def test_a_dozen_random_kills_lose_nothing_that_was_acknowledged(tmp_path, reader):
    problems, recovered = power.kills(12, tmp_path, reader, seed=5, journal=False)
    assert not problems
    assert recovered > 4


@pytest.mark.requirement("S2")
def test_a_real_loss_of_power_takes_nothing_that_was_acknowledged_with_sync_full_on_a_disk(tmp_path, reader):
    try:
        problems, recovered = power.cuts(4, tmp_path, reader, seed=6, journal=False)
    except power.NoDiskError as error:
        pytest.skip(str(error))
    assert not problems
    assert recovered > 1
