"""A recording that drops what is too fast for its disk, and marks every gap in the file."""

import contextlib
import fcntl
import json
import os
import random
import signal
import threading
import time

import numpy as np
import power
import pynwb
import pytest
from hdmf.common import DynamicTable
from pynwb import NWBHDF5IO, TimeSeries
from pynwb.epoch import TimeIntervals
from support import session
from test_spill import FREEZE, THAW, Held
from test_tables import column, trials

import nwbflow
from nwbflow.errors import DurabilityError, ErrorKind
from nwbflow.model.events import StreamsObserved

pytestmark = pytest.mark.usefixtures("no_thread_left")
ROWS = 10
QUEUE = 3 * 700  # three blocks of ROWS rows: 48 bytes a row and some for each block
GAPS = ["start_time", "stop_time", "series", "before_row", "missing_rows"]


def stamped(*names):
    """A session with series that have time stamps."""
    nwbfile = session()
    for name in names:
        data, times = nwbflow.live((None,), "int32", chunks=16), nwbflow.live(chunks=16)
        nwbfile.add_acquisition(TimeSeries(name=name, data=data, timestamps=times, unit="V"))
    return nwbfile


def append(recorder, name, block):
    """Append a block whose rows say which they are."""
    rows = np.arange(block * ROWS, (block + 1) * ROWS)
    return recorder[name].append(rows, timestamps=rows / 8)


def read(path):
    """Return what a file has of every series, and its gaps."""
    with NWBHDF5IO(str(path), "r") as io:
        nwbfile = io.read()
        data = {name: (series.data[:], series.timestamps[:]) for name, series in nwbfile.acquisition.items()}
        table = nwbfile.intervals["recording_gaps"]
        meaning = table.meanings_tables["series_meanings"].to_dataframe().set_index("value").meaning
        gaps = table.to_dataframe()
        assert gaps.columns.tolist() == GAPS
        assert gaps.index.tolist() == list(range(len(gaps)))
        return data, gaps.assign(series=gaps.series.map(meaning))


def problems(path, appended):
    """Say what in a file is neither a row that was appended nor in a gap that is marked."""
    wrong = []
    data, gaps = read(path)
    for name, (rows, times) in data.items():
        mine = gaps[gaps.series == f"/acquisition/{name}"]
        expected, at = [], 0
        for gap in mine.itertuples():
            start, stop = int(gap.start_time * 8), int(gap.stop_time * 8)
            expected.extend(range(at, start))
            if gap.before_row != len(expected) or gap.missing_rows != stop + 1 - start:
                wrong.append(f"{name}: a gap before row {gap.before_row} of {gap.missing_rows} rows, {len(expected)}")
            at = stop + 1
        expected.extend(range(at, at + len(rows) - len(expected)))
        if rows.tolist() != expected or times.tolist() != [row / 8 for row in expected]:
            wrong.append(f"{name}: {len(rows)} rows that are not those between the gaps")
        if appended is not None and len(rows) + mine.missing_rows.sum() != appended * ROWS:
            wrong.append(f"{name}: {len(rows)} rows and {mine.missing_rows.sum()} missing ones of {appended * ROWS}")
    return wrong


@pytest.fixture
def held(path, monkeypatch):
    return Held(path.parent, monkeypatch)


def stall(held, recorder, name, block):
    """Let the disk hold the block that is written; return when it does."""
    held.gate.clear()
    held.held.clear()
    held.active = True
    append(recorder, name, block)
    assert held.held.wait(30)


def go_on(held, recorder):
    held.active = False
    held.gate.set()
    for name in recorder:
        while recorder.acknowledged(name) < recorder[name].append([], timestamps=[]).first:
            recorder[name].append([], timestamps=[]).wait(30)


@pytest.mark.requirement("S3")
def test_what_is_dropped_is_marked_in_the_file_and_told_in_the_receipt(path, held):
    with nwbflow.Recorder(stamped("a", "b"), path, queue=QUEUE, when_full="drop") as recorder:
        tickets, block = [], 0
        for _ in range(2):
            append(recorder, "b", block).wait(30)
            stall(held, recorder, "a", block)
            for _ in range(7):
                block += 1
                tickets.append(append(recorder, "a", block))
                if not tickets[-1].dropped:
                    append(recorder, "b", block)
            go_on(held, recorder)
            block += 1
        dropped = [ticket for ticket in tickets if ticket.dropped]
        assert {(ticket.count, ticket.dropped) for ticket in dropped} == {(0, ROWS)}
        assert recorder["a"].dropped == len(dropped) * ROWS > 0
        assert list(recorder) == ["/acquisition/a", "/acquisition/b"]
        last = dropped[-1]
        with pytest.raises(DurabilityError, match="were dropped before row") as lost:
            last.wait()
        assert lost.value.kind is ErrorKind.DROPPED
        append(recorder, "a", block)
    data, gaps = read(path)
    assert gaps[gaps.series == "/acquisition/a"].missing_rows.tolist() == [len(dropped) * ROWS // 2] * 2
    missing = [t.first for t in dropped]
    assert gaps[gaps.series == "/acquisition/a"].before_row.tolist() == sorted(set(missing))
    assert [p for p in problems(path, None) if p.startswith("a")] == []
    assert pynwb.validate(path=str(path)) == []
    (note,) = [note for note in recorder.receipt.notes if note.startswith("/acquisition/a")]
    assert f"{len(dropped) * ROWS} rows were dropped" in note
    assert "2 gaps; /intervals/recording_gaps" in note
    assert len(data["a"][0]) == (block + 1) * ROWS - len(dropped) * ROWS


@pytest.mark.requirement("S3")
def test_a_gap_at_the_end_is_marked_and_a_recording_without_gaps_says_nothing(path, held):
    with nwbflow.Recorder(stamped("a"), path, queue=QUEUE, when_full={"a": "drop"}) as recorder:
        stall(held, recorder, "a", 0)
        tickets = [append(recorder, "a", block) for block in range(1, 9)]
        assert tickets[-1].dropped
        held.gate.set()
    assert problems(path, 9) == []
    other = path.with_name("other.nwb")
    with nwbflow.Recorder(stamped("a"), other, when_full="drop") as recorder:
        append(recorder, "a", 0)
    assert recorder.receipt.notes == ()
    assert (problems(other, 1), len(read(other)[1])) == ([], 0)
    assert pynwb.validate(path=str(other)) == []


@pytest.mark.requirement("S3")
def test_what_blocks_waits_and_what_drops_does_not_and_neither_holds_the_other(path, held):
    heard = []
    options = {"queue": QUEUE, "when_full": {"/acquisition/drops": "drop", "waits": "block"}}
    with nwbflow.Recorder(stamped("drops", "waits", "slow"), path, progress=heard.append, **options) as recorder:
        stall(held, recorder, "drops", 0)
        feeder = threading.Thread(target=lambda: [append(recorder, "waits", block) for block in range(12)])
        feeder.start()
        while recorder._recording.states()[1].nbytes + 700 <= QUEUE:
            time.sleep(0.001)
        assert feeder.is_alive()  # and stays so: its queue is full
        tickets = [append(recorder, "drops", block) for block in range(1, 30)]  # returns at once, each time
        assert sum(ticket.dropped for ticket in tickets) > 20 * ROWS
        assert append(recorder, "slow", 0).count == ROWS
        with pytest.raises(DurabilityError, match="queue is full"):
            recorder["waits"].append(np.arange(ROWS), timestamps=np.arange(ROWS), timeout=0.01)
        assert feeder.is_alive()
        held.gate.set()
        feeder.join(30)
    last = [event for event in heard if isinstance(event, StreamsObserved)][-1]
    assert last.streams[0].dropped == recorder["drops"].dropped
    data, gaps = read(path)
    assert {name: len(rows) for name, (rows, _) in data.items()} | {"drops": 0} == {
        **{"drops": 0, "waits": 12 * ROWS, "slow": ROWS}
    }
    assert set(gaps.series) == {"/acquisition/drops"}
    assert [p for p in problems(path, None) if p.startswith("drops")] == []


@pytest.mark.requirement("S3")
def test_a_frozen_disk_drops_instead_of_waiting(tmp_path):
    try:
        disk = power.Disk(tmp_path)
    except power.NoDiskError as error:
        pytest.skip(str(error))
    path = disk.mount_point / "session.nwb"
    handle = os.open(disk.mount_point, os.O_RDONLY)
    try:
        with nwbflow.Recorder(stamped("a"), path, sync="full", queue=QUEUE, when_full="drop") as recorder:
            append(recorder, "a", 0).wait(30)
            fcntl.ioctl(handle, FREEZE, 0)
            try:
                tickets = [append(recorder, "a", block) for block in range(1, 40)]
            finally:
                fcntl.ioctl(handle, THAW, 0)
            assert tickets[-1].dropped
            next(ticket for ticket in tickets if ticket.count).wait(30)
        assert recorder.receipt.verified == "stored"
        assert problems(path, 40) == []
    finally:
        os.close(handle)
        disk.unplug()


@pytest.mark.requirement("S2", "S3", "S5")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_gaps_are_recovered_as_well(tmp_path):
    for segment in (512, 2**20):
        path = tmp_path / f"{segment}" / "session.nwb"
        path.parent.mkdir()
        child = os.fork()
        if child == 0:
            try:
                record_and_die(path, segment)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        nwbflow.recover(path)
        assert problems(path, 11) == []
        assert len(read(path)[1]) == 1


def record_and_die(path, segment):
    from nwbflow.record import journal

    journal.SEGMENT_BYTES = segment
    with pytest.MonkeyPatch.context() as patch:
        held = Held(path.parent, patch)
        recorder = nwbflow.Recorder(stamped("a"), path, queue=QUEUE, when_full="drop")
        stall(held, recorder, "a", 0)
        for block in range(1, 10):
            append(recorder, "a", block)
        go_on(held, recorder)
        append(recorder, "a", 10).wait()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.requirement("S2", "S3", "S5")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("seed", range(10))
def test_no_order_of_appends_stalls_and_kills_loses_a_gap_or_a_row(seed, path):
    acks = path.with_name("acks")
    child = os.fork()
    if child == 0:
        try:
            record_at_random(path, acks, random.Random(seed))
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    if code:
        nwbflow.recover(path)
    safe = json.loads(acks.read_text().splitlines()[-1])
    data, _ = read(path)
    with NWBHDF5IO(str(path), "r") as io:
        table = io.read().trials
        rows = len(table)
        assert table.id[:].tolist() == table["start_time"][:].tolist() == list(range(rows))
        assert (table["stop_time"][:] == table["start_time"][:] + 0.5).all()
    assert problems(path, None) == []
    assert [len(data["drops"][0]) >= safe["drops"], len(data["waits"][0]) >= safe["waits"], rows >= safe["trials"]] == [
        *[True] * 3
    ]


def record_at_random(path, acks, chance):
    """Append, hold the disk, let it go on, and be killed or close, in any order."""
    from nwbflow.record import journal

    journal.SEGMENT_BYTES = chance.choice([600, 4096, 2**20])
    nwbfile = stamped("drops", "waits")
    nwbfile.trials = TimeIntervals(
        name="trials", description="d", columns=[column("start_time", chunks=4), column("stop_time")]
    )
    done = {"drops": 0, "waits": 0, "trials": 0}
    log = os.open(acks, os.O_WRONLY | os.O_CREAT)
    with pytest.MonkeyPatch.context() as patch:
        held = Held(path.parent, patch)
        held.gate.set()
        recorder = nwbflow.Recorder(nwbfile, path, queue=QUEUE, when_full={"drops": "drop"})
        for _ in range(chance.randrange(20, 120)):
            match chance.choice(["drops", "drops", "drops", "waits", "trials", "hold", "go on", "wait"]):
                case "hold":
                    held.active = True
                    held.gate.clear()
                case "go on":
                    held.gate.set()
                case "wait" if held.gate.is_set():
                    for name in done:
                        empty = {} if name == "trials" else {"timestamps": []}
                        block = {"start_time": [], "stop_time": []} if name == "trials" else []
                        recorder[name].append(block, **empty).wait()
                case "drops":
                    append(recorder, "drops", done["drops"])
                    done["drops"] += 1
                case "waits" | "trials" as name:
                    with contextlib.suppress(DurabilityError):  # its queue is full, and it was not taken
                        if name == "trials":
                            row = {"start_time": done["trials"], "stop_time": done["trials"] + 0.5}
                            recorder["trials"].append(row, timeout=0)
                        else:
                            rows = np.arange(done["waits"] * ROWS, (done["waits"] + 1) * ROWS)
                            recorder["waits"].append(rows, timestamps=rows / 8, timeout=0)
                        done[name] += 1
            os.write(log, (json.dumps({name: recorder.acknowledged(name) for name in done}) + "\n").encode())
        if chance.random() < 0.7:
            os.kill(os.getpid(), signal.SIGKILL)
        held.gate.set()
        recorder.close()


def table_with_times():
    nwbfile = session()
    nwbfile.add_acquisition(DynamicTable(name="x", description="d", columns=[column("timestamps")]))
    return nwbfile


def with_gaps_table():
    nwbfile = stamped("a")
    nwbfile.add_time_intervals(TimeIntervals(name="recording_gaps", description="mine"))
    return nwbfile


@pytest.mark.requirement("S3")
@pytest.mark.parametrize(
    ("make", "when_full", "text"),
    [
        (lambda: session(x=nwbflow.live()), "drop", r"/acquisition/x has a rate.*timestamps=nwbflow.live\(\).*spill="),
        (trials, "drop", "/intervals/trials is a table"),
        (lambda: stamped("a"), "throw away", "when_full='throw away': give 'block' or 'drop'"),
        (lambda: stamped("a"), {"a": "spill"}, "when_full='spill'"),
        (lambda: stamped("a"), {"b": "drop"}, "'b' is no live series; there are /acquisition/a"),
        (lambda: stamped("a"), {"a": "drop", "/acquisition/a": "block"}, "/acquisition/a is named twice"),
        (lambda: stamped("a"), None, "when_full=None: give 'block' or 'drop', or a mapping"),
        (lambda: stamped("a"), {1: "drop"}, "give 'block' or 'drop', or a mapping"),
        (table_with_times, {"x": "drop"}, "/acquisition/x is a table"),
        (with_gaps_table, "drop", "recording_gaps is in this file already"),
    ],
)
def test_policies_that_can_not_be_are_refused_and_leave_nothing_behind(make, when_full, text, path):
    with pytest.raises(nwbflow.SettingsError, match=text):
        nwbflow.Recorder(make(), path, when_full=when_full)
    assert list(path.parent.iterdir()) == []


@pytest.mark.requirement("S3")
def test_the_session_is_left_as_it_was(path):
    nwbfile = stamped("a")
    for target in (path, path.with_name("again.nwb")):
        with nwbflow.Recorder(nwbfile, target, when_full="drop") as recorder:
            append(recorder, "a", 0)
        assert len(nwbfile.intervals) == 0
        assert problems(target, 1) == []
    with nwbflow.Recorder(nwbfile, path.with_name("blocks.nwb")) as recorder:
        append(recorder, "a", 0)
    with NWBHDF5IO(str(path.with_name("blocks.nwb")), "r") as io:
        assert len(io.read().intervals) == 0
