"""Watching a recording from another process: every row once, in order, whatever becomes of the recorder."""

import contextlib
import os
import random
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import rig
import watcher
from hdmf.common import DynamicTable, VectorData
from pynwb import NWBHDF5IO, TimeSeries
from support import session
from writer import Writer

import nwbflow
from nwbflow.record import journal

pytestmark = pytest.mark.requirement("S4")


@pytest.fixture(scope="module")
def rigs():
    """A process that forks recording processes."""
    with Writer(script=rig.__file__) as writer:
        yield writer


@pytest.fixture(scope="module")
def watchers():
    """A process that forks watching processes."""
    with Writer(script=watcher.__file__) as writer:
        yield writer


def rows_of(name, blocks, rows=50):
    """Return how many rows a rig has appended after so many blocks."""
    return 3 * blocks if name == "slow" else sum(rows + 7 * (number % 3) for number in range(blocks))


def watch(watchers, path, layout, **request):
    watchers.start(path, layout, series=sorted(rig.LAYOUTS[layout]), **request)


def result(watchers):
    """Return what the watching process found, for each series."""
    end = watchers.end()
    assert end.code == 0, end
    return end.said["result"]


def drained(tail):
    """Return all that is there now."""
    return list(iter(lambda: tail.read(0), None))


# --- while it is recorded -------------------------------------------------------------------


@pytest.mark.parametrize("layout", sorted(rig.LAYOUTS))
def test_streams_of_several_rates_are_followed_each_row_once(layout, path, rigs, watchers):
    watch(watchers, path, layout)  # before there is anything
    assert rigs.write(path, layout, blocks=120, together=True).code == 0
    for name, found in result(watchers).items():
        assert found["problem"] == ""
        assert (found["first"], found["row"], found["ended"]) == (0, rows_of(name, 120), True)
        assert found["blocks"] > 1


@pytest.mark.parametrize("sync", ["process", "full"])
def test_what_is_acknowledged_is_there_at_once(path, paired, block, sync):
    recorder = nwbflow.Recorder(paired, path, sync=sync)
    with recorder, nwbflow.tail(path, "probe") as probe, nwbflow.tail(path, "lick") as lick:
        for number in range(20):
            data, times = block(30, number * 30)
            recorder["lick"].append(np.full(2, number, "f4"))
            recorder["probe"].append(data, timestamps=times).wait()
            (found,) = drained(probe)
            assert (found.first, found.count, probe.row) == (number * 30, 30, number * 30 + 30)
            assert (found["data"] == data).all()
            assert (found["timestamps"] == times).all()
            assert [other["data"].tolist() for other in drained(lick)] == [[number, number]]
        assert (probe.fields, lick.fields) == (("data", "timestamps"), ("data",))
        assert not probe.ended
    assert probe.ended


@pytest.mark.parametrize("start", [0, 1, 75, 149, 150, 200, "now"])
def test_following_begins_in_the_middle_at_a_row_or_now(path, paired, block, start):
    with nwbflow.Recorder(paired, path) as recorder:
        for first in (0, 50, 100):
            data, times = block(50, first)
            recorder["probe"].append(data, timestamps=times).wait()
        tail = nwbflow.tail(path, "probe", start=start)
        recorder["probe"].append(*block(70, 150)[:1], timestamps=block(70, 150)[1]).wait()
        found = drained(tail)
    found += list(tail)
    begin = 150 if start == "now" else start
    assert found[0].first == begin
    assert (np.concatenate([rows["data"] for rows in found]) == block(220)[0][begin:]).all()
    assert (np.concatenate([rows["timestamps"] for rows in found]) == block(220)[1][begin:]).all()
    assert (tail.row, tail.ended) == (220, True)


def test_a_block_in_the_middle_of_being_written_is_given_when_it_is_whole(path, paired, block):
    with nwbflow.Recorder(paired, path) as recorder, nwbflow.tail(path, "probe") as tail:
        for first in (0, 10):
            recorder["probe"].append(block(10, first)[0], timestamps=block(10, first)[1]).wait()
        segment = next(path.with_name("session.nwb.journal").glob("*.segment"))
        whole = segment.read_bytes()
        end = len(whole.rstrip(b"\0"))
        for cut in range(64, end):  # as the writing of frames goes
            with segment.open("r+b") as file:
                file.write(whole[:cut] + bytes(end - cut))
            found = drained(tail)
            assert sum(rows.count for rows in found) in (0, 10)
            assert tail.row == (0 if cut < 64 + (end - 64) // 2 else 10) or found
        with segment.open("r+b") as file:
            file.write(whole)
        drained(tail)
        assert tail.row == 20


# --- the end of a recording -----------------------------------------------------------------


def test_a_watcher_that_lags_gets_the_rest_from_the_finished_file(path, rigs, watchers):
    watch(watchers, path, "both", pause_at=1)
    rigs.start(path, "both", blocks=60)
    watchers.wait_for("paused")
    assert rigs.end().code == 0
    path.with_name("go").touch()
    for name, found in result(watchers).items():
        assert (found["problem"], found["row"], found["ended"]) == ("", rows_of(name, 60), True)


def test_a_finished_file_that_was_moved_is_still_read(path, paired, block):
    recorder = nwbflow.Recorder(paired, path)
    with nwbflow.tail(path, "probe") as tail:
        for first in range(0, 500, 50):
            recorder["probe"].append(block(50, first)[0], timestamps=block(50, first)[1])
        assert tail.read().first == 0
        recorder.close()
        path.rename(path.with_name("elsewhere.nwb"))
        assert sum(rows.count for rows in tail) == 450


def test_a_recording_of_the_same_name_that_comes_after_is_never_mixed_in(path, paired, block, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1024)  # of one block
    recorder = nwbflow.Recorder(paired, path)
    with nwbflow.tail(path, "probe") as tail:
        recorder["probe"].append(block(50)[0], timestamps=block(50)[1]).wait()
        assert tail.read().count == 50
        recorder["probe"].append(block(50, 50)[0], timestamps=block(50, 50)[1])
        recorder.close()
        with nwbflow.Recorder(paired, path, overwrite=True) as again:
            again["probe"].append(block(200)[0], timestamps=block(200)[1])
        assert [(rows.first, rows.count) for rows in tail] == [(50, 50)]  # of the file that is not there any more
    assert [rows.count for rows in nwbflow.tail(path, "probe")] == [100, 100]


def test_a_watcher_of_the_next_recording_sees_the_next_recording(path, paired, block):
    for rows in (50, 70):
        with nwbflow.Recorder(paired, path, overwrite=True) as recorder:
            tail = nwbflow.tail(path, "probe")
            recorder["probe"].append(block(rows)[0], timestamps=block(rows)[1]).wait()
            assert tail.read().count == rows
        assert tail.read() is None
        assert tail.ended


def test_a_recorder_that_makes_its_file_anew_at_the_end_is_followed_to_the_end(path, paired, block):
    partial = path.with_name("session.nwb.partial")
    recorder = nwbflow.Recorder(paired, path)
    with nwbflow.tail(path, "probe") as tail:
        recorder["probe"].append(block(250)[0], timestamps=block(250)[1]).wait()
        assert tail.read().count == 250
        with h5py.File(partial, "r", swmr=True) as file:
            data, place = file["acquisition/probe/data"], None
            while place is None:
                data.refresh()
                place = data.id.get_chunk_info_by_coord((0, 0)).byte_offset if len(data) else None
        with partial.open("r+b") as file:  # so that it is not right, and made again
            file.seek(place)
            file.write(b"?")
        receipt = recorder.close()
        assert any("made from the journal" in note for note in receipt.notes)
        assert tail.read() is None
        assert tail.ended


# --- after the end --------------------------------------------------------------------------


def test_a_finished_file_gives_all_rows_and_ends(path, rigs, watchers):
    assert rigs.write(path, "both", blocks=40).code == 0
    before = path.read_bytes()
    watch(watchers, path, "both", wait=0)
    for name, found in result(watchers).items():
        assert (found["problem"], found["row"], found["ended"]) == ("", rows_of(name, 40), True)
    assert path.read_bytes() == before


def test_any_series_and_table_of_a_file_of_pynwb_can_be_read(tmp_path):
    nwbfile = session()
    nwbfile.add_acquisition(
        TimeSeries(name="a", data=np.arange(30).reshape(10, 3), timestamps=np.arange(10.0), unit="V")
    )
    columns = [
        VectorData(name="onset", description="in seconds", data=np.arange(4.0)),
        VectorData(name="label", description="a text", data=list("abcd")),
    ]
    nwbfile.add_acquisition(DynamicTable(name="licks", description="of a rat", columns=columns))
    with NWBHDF5IO(tmp_path / "plain.nwb", "w") as io:
        io.write(nwbfile)
    (series,) = nwbflow.tail(tmp_path / "plain.nwb", "a")
    assert series["data"].tolist() == np.arange(30).reshape(10, 3).tolist()
    assert series["timestamps"].tolist() == list(range(10))
    (table,) = nwbflow.tail(tmp_path / "plain.nwb", "acquisition/licks")
    assert (sorted(table.arrays), table["onset"].tolist()) == (["id", "onset"], [0, 1, 2, 3])


# --- a recorder that dies -------------------------------------------------------------------


def test_of_a_killed_recorder_exactly_what_can_be_recovered_is_given(path, rigs, watchers, reader):
    chance = random.Random(8)
    for sync in ("process", "full") * 4:
        rigs.start(path, "both", blocks=10_000, rows=20, together=True, sync=sync, overwrite=True)
        rigs.wait_for("recording")
        watch(watchers, path, "both")
        for name in sorted(rig.LAYOUTS["both"]):
            watchers.wait_for(f"following {name}")
        while rigs._said.get("acknowledged", {}).get("probe", 0) < chance.randrange(1, 4000):
            rigs._said.pop("acknowledged", None)
            rigs.wait_for("acknowledged")
        rigs.send(signal.SIGKILL)
        acknowledged = rigs.end().said["acknowledged"]
        found = result(watchers)
        recovery = {dataset.name: dataset.kept for dataset in nwbflow.recover(path).datasets}
        for name, seen in found.items():
            assert seen["kind"] == "interrupted"
            assert f"nwbflow recover {path}" in seen["problem"]
            assert seen["row"] == recovery[f"/acquisition/{name}/data"] >= acknowledged.get(name, 0)
        assert not rig.violations(reader.open(path, data=True), "both", acknowledged)


def test_a_watcher_that_comes_after_a_crash_gets_what_can_be_recovered(path, rigs, watchers):
    rigs.write(path, "both", blocks=30, ends=False)
    watch(watchers, path, "both", wait=0)
    found = result(watchers)
    assert {seen["kind"] for seen in found.values()} == {"interrupted"}
    recovery = {dataset.name: dataset.kept for dataset in nwbflow.recover(path).datasets}
    assert {name: seen["row"] for name, seen in found.items()} == {
        name: recovery[f"/acquisition/{name}/data"] for name in found
    }


def test_a_recovery_during_watching_is_not_hindered_and_is_followed(path, rigs):
    rigs.write(path, "both", blocks=30, ends=False)
    with nwbflow.tail(path, "probe") as tail:
        assert tail.read().first == 0
        nwbflow.recover(path)
        rest = list(tail)
        assert rest[-1].first + rest[-1].count == h5py.File(path)["acquisition/probe/data"].shape[0]


def test_a_recorder_that_can_not_finish_is_told_of(path, paired, block):
    recorder = nwbflow.Recorder(paired, path)
    with nwbflow.tail(path, "probe") as tail:
        recorder["probe"].append(block(50)[0], timestamps=block(50)[1])
        path.write_text("somebody else's file")
        with pytest.raises(nwbflow.TargetError):
            recorder.close()
        assert tail.read().count == 50
        for _ in range(2):
            with pytest.raises(nwbflow.StorageError, match="before 50 have been given") as caught:
                tail.read()
            assert caught.value.kind == "interrupted"


def test_a_damaged_journal_gives_what_is_before_the_damage(path, paired, block, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 4096)
    with contextlib.suppress(nwbflow.DurabilityError), nwbflow.Recorder(paired, path) as recorder:
        for first in range(0, 500, 50):
            recorder["probe"].append(block(50, first)[0], timestamps=block(50, first)[1]).wait()
        second = sorted(path.with_name("session.nwb.journal").glob("*.segment"))[1]
        content = bytearray(second.read_bytes())
        content[200] ^= 4
        second.write_bytes(content)
        with nwbflow.tail(path, "probe") as tail:
            given = drained(tail)
            with pytest.raises(nwbflow.StorageError, match="is damaged") as caught:
                tail.read()
        assert caught.value.kind == "mismatch"
        assert 0 < sum(rows.count for rows in given) < 500


# --- waiting, and what can't be --------------------------------------------------------------


def test_time_limits_and_closing(path, paired, block):
    with nwbflow.Recorder(paired, path) as recorder:
        with nwbflow.tail(path, "probe") as tail:
            assert tail.read(timeout=0.01) is None
            assert not tail.ended
            recorder["probe"].append(block(5)[0], timestamps=block(5)[1]).wait()
            assert next(tail).count == 5
        assert tail.ended
        assert list(tail) == []
        assert tail.read() is None


def test_what_can_not_be_watched_is_refused_with_a_reason(path, paired):
    with pytest.raises(nwbflow.TargetError, match="wait=60") as caught:
        nwbflow.tail(path, "probe")
    assert caught.value.kind == "missing"
    with nwbflow.Recorder(paired, path):
        for name in ("prob", "robe", ""):
            with pytest.raises(nwbflow.SettingsError, match="/acquisition/probe"):
                nwbflow.tail(path, name)
        for start in (-1, "then", None):
            with pytest.raises(nwbflow.SettingsError, match="row"):
                nwbflow.tail(path, "probe", start=start)
    with pytest.raises(nwbflow.SettingsError, match="/acquisition/probe"):
        nwbflow.tail(path, "prob")
    Path(path).write_text("no HDF5")
    with pytest.raises(nwbflow.StorageError, match="can't be read"):
        nwbflow.tail(path, "probe")


def test_watching_opens_nothing_for_writing_and_leaves_nothing_open(path, paired, block):
    before = set(os.listdir("/proc/self/fd"))
    with nwbflow.Recorder(paired, path) as recorder:
        held = set(os.listdir("/proc/self/fd"))
        recorder["probe"].append(block(50)[0], timestamps=block(50)[1]).wait()
        tail = nwbflow.tail(path, "probe")
        assert tail.read().count == 50
        for number in set(os.listdir("/proc/self/fd")) - held:
            flags = Path(f"/proc/self/fdinfo/{number}")
            if flags.exists():
                assert "flags:\t0" in flags.read_text()
                assert int(flags.read_text().split()[3], 8) & os.O_ACCMODE == os.O_RDONLY
    assert list(tail) == []
    tail.close()
    assert set(os.listdir("/proc/self/fd")) == before
