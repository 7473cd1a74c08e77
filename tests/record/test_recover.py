"""Recovering: what is kept, what is told, and what is left alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rig
from support import session
from writer import Writer

import nwbflow
from nwbflow.errors import ErrorKind
from nwbflow.record.folder import JournalFolder
from nwbflow.tools.inspect import inspect_file


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A folder as a rig left it that died at the end: 30 blocks of each series, all acknowledged."""
    path = tmp_path_factory.mktemp("crashed") / "session.nwb"
    with Writer(script=rig.__file__) as process:
        end = process.write(path, "both", sync="full", blocks=30, ends=False)
    return path.parent, end.said["acknowledged"]


@pytest.fixture
def left(crashed, tmp_path):
    """The path of a recording that died, and what was acknowledged."""
    folder, acknowledged = crashed
    shutil.copytree(folder, tmp_path / "left")
    return tmp_path / "left" / "session.nwb", acknowledged


def segments(path):
    return sorted(path.with_name(path.name + ".journal").glob("*.segment"))


def listing(path):
    return {p: p.read_bytes() for p in path.parent.rglob("*") if p.is_file()}


@pytest.mark.requirement("S2", "S5")
@pytest.mark.parametrize("suffix", ["", ".partial", ".journal"])
def test_a_recording_that_died_is_finished_and_can_be_recovered_again(suffix, left, reader):
    path, acknowledged = left
    recovery = nwbflow.recover(f"{path}{suffix}")
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []
    kept = {d.name.split("/")[2]: (d.kept, d.lost) for d in recovery.datasets}
    assert kept == {name: (rows, 0) for name, rows in acknowledged.items()}
    assert len(recovery.datasets) == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    before = path.read_bytes()
    again = nwbflow.recover(path)
    assert again.datasets == ()
    assert "nothing to recover" in str(again)
    assert path.read_bytes() == before


@pytest.mark.requirement("S5")
def test_recovering_into_another_file_leaves_everything_as_it_is(left, tmp_path, reader):
    path, acknowledged = left
    before = listing(path)
    output = tmp_path / "elsewhere.nwb"
    nwbflow.recover(path, output=output)
    assert listing(path) == before
    assert rig.violations(reader.open(output, data=True), "both", acknowledged) == []
    with pytest.raises(nwbflow.TargetError, match="exists"):
        nwbflow.recover(path, output=output)


@pytest.mark.requirement("S5")
def test_a_file_that_is_not_the_recordings_is_not_replaced(left):
    path, _ = left
    path.write_bytes(b"somebody else's")
    before = listing(path)
    with pytest.raises(nwbflow.TargetError, match="output=") as refused:
        nwbflow.recover(path)
    assert refused.value.kind is ErrorKind.EXISTS
    assert listing(path) == before


@pytest.mark.requirement("S5")
def test_a_new_recording_to_the_same_path_is_refused_and_names_the_way_out(left):
    path, _ = left
    before = listing(path)
    for overwrite in (False, True):
        with pytest.raises(nwbflow.TargetError, match="nwbflow recover"):
            nwbflow.Recorder(session(x=nwbflow.live()), path, overwrite=overwrite)
        with pytest.raises(nwbflow.TargetError, match="nwbflow recover"):
            nwbflow.write(session(x=np.zeros(3)), path, overwrite=overwrite, progress=False)
    assert listing(path) == before


def test_a_journal_into_which_nothing_was_accepted_is_cleared_up(tmp_path):
    path = tmp_path / "session.nwb"
    JournalFolder.make(path).let_go()
    with pytest.raises(nwbflow.TargetError, match="had not begun") as refused:
        nwbflow.recover(path)
    assert refused.value.kind is ErrorKind.MISSING
    shutil.rmtree(tmp_path / "session.nwb.journal")
    with nwbflow.Recorder(session(x=nwbflow.live()), path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["session.nwb"]


def test_where_nothing_was_recorded_nothing_is_recovered(tmp_path):
    with pytest.raises(nwbflow.TargetError) as refused:
        nwbflow.recover(tmp_path / "absent.nwb")
    assert refused.value.kind is ErrorKind.MISSING


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_damaged_journal_gives_what_is_before_the_damage_and_counts_the_rest(place, left, reader):
    path, acknowledged = left
    segment = segments(path)[0]
    content = bytearray(segment.read_bytes())
    content[int(len(content) * place)] ^= 1
    segment.write_bytes(content)
    recovery = nwbflow.recover(path)
    seen = reader.open(path, data=True)
    assert rig.violations(seen, "both", {}) == []
    rows = {d.name: (d.kept, d.lost) for d in recovery.datasets}
    for name, acked in acknowledged.items():
        kept, lost = rows[f"/acquisition/{name}/data"]
        assert (seen.shapes[name][0], kept + lost) == (kept, acked)
    assert any(lost for _, lost in rows.values())
    assert "lost" in str(recovery)


@pytest.mark.requirement("S5")
def test_a_missing_segment_is_a_gap_and_nothing_behind_it_is_used(left, reader):
    path, acknowledged = left
    segments(path)[1].unlink()
    recovery = nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", {}) == []
    assert {d.kept + d.lost for d in recovery.datasets if "probe" in d.name} == {acknowledged["probe"]}
    assert all(d.lost for d in recovery.datasets if "probe" in d.name)


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("name", ["manifest.json", "structure.nwb"])
def test_a_journal_that_can_not_be_understood_is_kept(name, left):
    path, _ = left
    damaged = path.with_name(path.name + ".journal") / name
    damaged.write_bytes(damaged.read_bytes()[:-100])
    before = listing(path)
    with pytest.raises(nwbflow.StorageError, match=name):
        nwbflow.recover(path)
    assert listing(path) == before


@pytest.mark.requirement("S5")
def test_recoveries_killed_at_random_times_end_in_the_same_file(left, reader):
    path, acknowledged = left
    with Writer(script=rig.__file__) as process:
        for milliseconds in range(0, 60, 6):
            process.start(path, "recover")
            process.wait_for("started")
            signal.sigtimedwait([], milliseconds / 1000)
            process.send(signal.SIGKILL)
            process.end()
    nwbflow.recover(path)
    assert rig.violations(reader.open(path, data=True), "both", acknowledged) == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.requirement("S5", "T4")
def test_the_command_says_what_was_kept_and_where(left, capsys):
    from nwbflow.cli.app import main

    path, acknowledged = left
    assert main(["recover", str(path), "--output", str(path.with_name("other.nwb"))]) == 0
    shown = capsys.readouterr().out
    assert f"/acquisition/probe/timestamps: {acknowledged['probe']} rows kept" in shown
    assert main(["recover", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == os.path.realpath(path)
    kept = [(each["name"], each["kept"], each["lost"]) for each in told["datasets"]]
    assert ("/acquisition/slow/data", acknowledged["slow"], 0) in kept
    assert main(["recover", str(path.with_name("absent.nwb"))]) == 1
    assert "absent.nwb" in capsys.readouterr().err


def test_looking_into_what_a_crash_left_names_the_way_out(left):
    path, _ = left
    with pytest.raises(nwbflow.TargetError, match="nwbflow recover") as refused:
        inspect_file(path.with_name(path.name + ".partial"))
    assert refused.value.kind is ErrorKind.LOCKED


FORGETS = """
    import os, sys
    import numpy as np
    import nwbflow
    from support import session

    recorder = nwbflow.Recorder(session(x=nwbflow.live((None, 64), "int16", chunks=(250, 64))), sys.argv[1])
    for number in range(40):
        recorder["x"].append(np.full((500, 64), number))
    raise SystemExit(3)
"""


@pytest.mark.requirement("S2")
def test_a_program_that_ends_without_closing_ends_and_all_it_appended_is_in_the_journal(tmp_path):
    path = tmp_path / "session.nwb"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for number in range(3):  # how far it had got when it ended is chance
        target = path.with_name(f"{number}.nwb")
        command = [sys.executable, "-c", textwrap.dedent(FORGETS), str(target)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (3, "")
        assert [d.kept for d in nwbflow.recover(target).datasets] == [20_000]
