"""Recordings without a journal: whole chunks are safe, in the partial file alone."""

import json
import os
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import rig
from pynwb import TimeSeries
from pynwb.epoch import TimeIntervals
from support import session
from writer import Writer

import nwbflow
from nwbflow.errors import ErrorKind, SettingsError, StorageError, TargetError
from nwbflow.record.ledger import read_ledger


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    """Leaves what a process does that ends in the middle of a recording of two series; returns what was safe."""
    folder, safe = tmp_path_factory.mktemp("died"), {}
    with Writer(script=rig.__file__) as process:
        for sync in ("process", "full"):
            path = folder / sync / "session.nwb"
            path.parent.mkdir()
            end = process.write(path, "both", journal=False, sync=sync, blocks=24, ends=False)
            assert end.code == 9
            safe[sync] = end.said["acknowledged"]

    def leave(path, sync="process"):
        shutil.copytree(folder / sync, path.parent, dirs_exist_ok=True)
        return safe[sync]

    return leave


@pytest.mark.requirement("S2")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("sync", ["process", "full"])
def test_rows_are_safe_when_their_chunks_are_full_and_all_are_at_the_end(sync, paired, path, block, reader):
    data, times = block(1234)
    with nwbflow.Recorder(paired, path, sync=sync, journal=False) as recorder:
        tickets = [
            recorder["probe"].append(data[at : at + 50], timestamps=times[at : at + 50]) for at in range(0, 1234, 50)
        ]
        recorder["lick"].append(np.arange(7, dtype="f4"))
        assert tickets[23].wait(60)  # row 1200 is the end of a chunk
        assert not tickets[24].wait(0)
        assert (recorder.acknowledged("probe"), recorder.acknowledged("lick")) == (1200, 0)
        names = {p.name for p in path.parent.rglob("*")}
        assert not [name for name in names if name.endswith(".segment")]
    assert all(ticket.wait(0) for ticket in tickets)
    assert reader.open(path).shapes == {"probe": (1234, 4), "lick": (7,)}
    with h5py.File(path) as file:
        assert (file["acquisition/probe/data"][:] == data).all()
        assert (file["acquisition/probe/timestamps"][:] == times).all()
        assert (file["acquisition/lick/data"][:] == np.arange(7)).all()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert recorder.receipt.verified == "stored"


@pytest.mark.requirement("S2")
@pytest.mark.usefixtures("no_thread_left")
def test_a_queue_smaller_than_a_chunk_holds_nobody(path):
    nwbfile = session(x=nwbflow.live((None, 8), "int16", chunks=(4000, 8)))
    with nwbflow.Recorder(nwbfile, path, queue="10 kB", journal=False) as recorder:
        for number in range(100):
            recorder["x"].append(np.full((100, 8), number, "i2"), timeout=60)
    with h5py.File(path) as file:
        assert (file["acquisition/x/data"][:, 0] == np.repeat(np.arange(100), 100)).all()


@pytest.mark.requirement("S2")
def test_rows_of_tables_are_recorded_and_recovered(path):
    def table():
        nwbfile = session()
        trials = TimeIntervals(name="trials", description="trials")
        trials.add_column("reward", "in ml", data=nwbflow.live((None,), "float32", chunks=4096))
        nwbfile.trials = trials
        return nwbfile

    with nwbflow.Recorder(table(), path, journal=False) as recorder:
        name = next(iter(recorder))
        columns = recorder[name].fields
        for number in range(50):
            recorder[name].append(dict.fromkeys(columns, number / 2))
    with h5py.File(path) as file:
        assert (file["intervals/trials/id"][:] == np.arange(50)).all()
        assert (file["intervals/trials/reward"][:] == np.arange(50) / 2).all()
    path.unlink()
    if (child := os.fork()) == 0:
        try:
            recorder = nwbflow.Recorder(table(), path, journal=False)
            for first in range(0, 300_000, 5000):  # more than any column's chunk has
                recorder[name].append(dict.fromkeys(columns, np.arange(first, first + 5000) / 2))
            deadline = time.monotonic() + 60
            while not recorder.acknowledged(name) and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            os._exit(9)
    os.waitpid(child, 0)
    recovery = nwbflow.recover(path)
    kept = {dataset.kept for dataset in recovery.datasets}
    assert len(kept) == 1
    rows = kept.pop()
    assert rows > 0
    with h5py.File(path) as file:
        assert (file["intervals/trials/id"][:] == np.arange(rows)).all()
        assert (file["intervals/trials/reward"][:] == (np.arange(rows) / 2).astype("f4")).all()


@pytest.mark.requirement("S2", "S5")
def test_stock_readers_follow_the_partial_file_and_nwbflow_tail_says_so(paired, path, block):
    data, times = block(1000)
    with nwbflow.Recorder(paired, path, journal=False) as recorder:
        assert recorder["probe"].append(data, timestamps=times).wait(60)
        with pytest.raises(SettingsError, match="swmr=True") as refused:
            nwbflow.tail(path, "probe")
        assert refused.value.kind is ErrorKind.OPTION
        code = (
            "import h5py, sys; f = h5py.File(sys.argv[1], 'r', libver='latest', swmr=True); "
            "print(f['acquisition/probe/data'][:].astype('i8').sum())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, f"{path}.partial"], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == data.astype("i8").sum()
        with pytest.raises(TargetError) as second:
            nwbflow.Recorder(session(x=nwbflow.live((None,))), path, journal=False)
        assert second.value.kind is ErrorKind.LOCKED
        with pytest.raises(TargetError) as third:
            nwbflow.recover(path)
        assert third.value.kind is ErrorKind.LOCKED
    with nwbflow.tail(path, "probe") as rows:
        assert sum(part.count for part in rows) == 1000


@pytest.mark.requirement("S3")
@pytest.mark.parametrize(
    ("options", "match"),
    [({"spill": "."}, "spill"), ({"when_full": "drop"}, "drop"), ({"when_full": {"probe": "drop"}}, "drop")],
)
def test_what_needs_a_journal_is_refused_before_anything_is_made(options, match, paired, path):
    with pytest.raises(SettingsError, match=match) as refused:
        nwbflow.Recorder(paired, path, journal=False, **options)
    assert refused.value.kind is ErrorKind.OPTION
    assert list(path.parent.iterdir()) == []


@pytest.mark.requirement("S2", "S5")
@pytest.mark.parametrize("sync", ["process", "full"])
def test_after_a_kill_every_whole_chunk_is_recovered(sync, died, path, reader, tmp_path):
    safe = died(path, sync)
    with pytest.raises(TargetError, match="nwbflow recover"):
        nwbflow.Recorder(session(x=nwbflow.live((None,))), path)
    before = path.with_name(path.name + ".partial").read_bytes()
    elsewhere = tmp_path / "elsewhere.nwb"
    nwbflow.recover(path, output=elsewhere)
    assert path.with_name(path.name + ".partial").read_bytes() == before
    recovery = nwbflow.recover(path)
    assert {d.name: d.kept for d in recovery.datasets}["/acquisition/probe/data"] >= safe["probe"] > 0
    for file in (path, elsewhere):
        assert rig.violations(reader.open(file, data=True), "both", safe) == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.requirement("S5")
def test_datasets_of_which_one_is_behind_are_cut_to_it(path):
    def uneven():
        data = nwbflow.live((None, 3), "int16", chunks=(100, 2))
        nwbfile = session()
        nwbfile.add_acquisition(TimeSeries(name="x", data=data, timestamps=nwbflow.live((None,), chunks=64), unit="V"))
        return nwbfile

    values = np.arange(2000 * 3).reshape(-1, 3).astype("i2")
    if (child := os.fork()) == 0:
        try:
            recorder = nwbflow.Recorder(uneven(), path, journal=False)
            for at in range(0, 680, 68):
                recorder["x"].append(values[at : at + 68], timestamps=np.arange(at, at + 68) / 10)
            deadline = time.monotonic() + 60
            while recorder.acknowledged("x") < 600 and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            os._exit(9)
    os.waitpid(child, 0)
    recovery = nwbflow.recover(path)
    assert [(d.kept, d.lost) for d in recovery.datasets] == [(600, 40), (600, 40)]
    with h5py.File(path, "r+") as file:
        group = file["acquisition/x"]
        assert (group["data"][:] == values[:600]).all()
        assert (group["timestamps"][:] == np.arange(600) / 10).all()
        group["timestamps"].resize((640,))
        assert (group["timestamps"][600:] == 0).all()  # nothing of what was cut off comes back


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("part", ["partial", "ledger", "tail of the ledger", "partial is gone"])
def test_damage_gives_what_is_before_it_and_is_kept(part, died, path, reader):
    died(path)
    partial, journal = path.with_name(path.name + ".partial"), path.with_name(path.name + ".journal")
    ledger = journal / "chunks.ledger"
    if part == "partial is gone":
        partial.rename(path.parent / "moved")
        with pytest.raises(StorageError, match="put it back"):
            nwbflow.recover(path)
        (path.parent / "moved").rename(partial)
        nwbflow.recover(path)
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        return
    if part == "tail of the ledger":  # as a kill leaves it: no damage
        os.truncate(ledger, ledger.stat().st_size - 7)
        assert nwbflow.recover(path).journal is None
    else:
        damaged, at = bytearray(ledger.read_bytes()), ledger.stat().st_size // 2
        if part == "partial":
            identity = json.loads((journal / "manifest.json").read_bytes())["identity"]
            chunks, _ = read_ledger(ledger, bytes.fromhex(identity))
            damaged, at = bytearray(partial.read_bytes()), chunks[len(chunks) // 2].address
        damaged[at] ^= 4
        (partial if part == "partial" else ledger).write_bytes(damaged)
        recovery = nwbflow.recover(path)
        assert recovery.journal == path.with_name(path.name + ".journal.damaged")
        assert (recovery.journal / partial.name).exists()
        assert max(dataset.lost for dataset in recovery.datasets) > 0
    assert rig.violations(reader.open(path, data=True), "both", {}) == []
