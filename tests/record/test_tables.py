"""Tables grow row by row: all columns together, ids by themselves, and stock PyNWB reads them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest
from hdmf.common import DynamicTable, DynamicTableRegion, VectorData, VectorIndex
from pynwb import NWBHDF5IO
from pynwb.base import TimeSeriesReferenceVectorData
from pynwb.epoch import TimeIntervals
from support import session

import nwbflow
from nwbflow.errors import ErrorKind

pytestmark = pytest.mark.usefixtures("no_thread_left")


def column(name, shape=(None,), dtype="float64", **options):
    return VectorData(name=name, description=f"the {name}", data=nwbflow.live(shape, dtype, **options))


def trials(*more):
    """A session with a table of trials, with columns that are all live."""
    nwbfile = session()
    columns = [column("start_time", chunks=4), column("stop_time"), *more]
    nwbfile.trials = TimeIntervals(name="trials", description="the trials", columns=columns)
    return nwbfile


def read(path, name="trials"):
    with NWBHDF5IO(str(path), "r") as io:
        return io.read().intervals[name].to_dataframe()


@pytest.mark.requirement("S1")
def test_a_table_of_trials_is_recorded_and_stock_pynwb_reads_it(path):
    nwbfile = trials(column("position", (None, 2), "float32"), column("outcome", (None,), "int8", codec="none"))
    with nwbflow.Recorder(nwbfile, path) as recorder:
        table = recorder["trials"]
        assert (table.name, table.fields) == ("/intervals/trials", ("start_time", "stop_time", "position", "outcome"))
        assert table.row_types["position"] == (np.dtype("float32"), (2,))
        rows = {"start_time": [1.0, 2.0], "stop_time": [1.5, 2.5], "position": [[0, 1], [2, 3]], "outcome": [1, -1]}
        first = table.append(rows)
        one = table.append({"outcome": 0, "stop_time": 3.5, "start_time": 3.0, "position": [4, 5]})
        assert [(first.first, first.count), (one.first, one.count), one.wait(30)] == [(0, 2), (2, 1), True]
    found = read(path)
    assert found.index.tolist() == [0, 1, 2]
    assert found.columns.tolist() == ["start_time", "stop_time", "position", "outcome"]
    assert found.start_time.tolist() == [1.0, 2.0, 3.0]
    assert np.stack(found.position).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert found.outcome.tolist() == [1, -1, 0]
    assert pynwb.validate(path=str(path)) == []
    with h5py.File(path) as file:
        stored = file["intervals/trials"]
        assert {name: stored[name].dtype.str for name in stored} == {
            **{"id": "<i8", "start_time": "<f8", "stop_time": "<f8", "position": "<f4", "outcome": "|i1"},
        }
        assert {stored[name].maxshape[0] for name in stored} == {None}
        assert (stored["start_time"].chunks, stored["outcome"].compression) == ((4,), None)
    assert {d.name for d in recorder.receipt.datasets} == {f"/intervals/trials/{name}" for name in ("id", *rows)}


@pytest.mark.requirement("S1")
def test_columns_that_a_table_must_have_are_live_with_the_ones_that_are_added(path):
    nwbfile = session()
    nwbfile.add_trial_column(name="outcome", description="what came of it", data=nwbflow.live((None,), "int8"))
    nwbfile.trials.add_column(name="speed", description="in cm/s", data=nwbflow.live((None,), "float32"))
    with nwbflow.Recorder(nwbfile, path) as recorder:
        recorder["trials"].append({"start_time": 1000.0001, "stop_time": 1000.0002, "outcome": 1, "speed": 0.5})
    found = read(path)
    assert found.to_dict("list") == {
        "start_time": [1000.0001],
        "stop_time": [1000.0002],
        "outcome": [1],
        "speed": [0.5],
    }
    assert pynwb.validate(path=str(path)) == []
    assert (len(nwbfile.trials), nwbfile.trials.id.data, nwbfile.trials["start_time"].data) == (0, [], [])


@pytest.mark.requirement("S1")
@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_a_plain_table_of_events_of_any_length(rows, path):
    nwbfile = session(x=nwbflow.live((None,), "int16"))
    events = DynamicTable(
        name="events", description="what happened", columns=[column("time"), column("code", dtype="u1")]
    )
    nwbfile.add_acquisition(events)
    with nwbflow.Recorder(nwbfile, path) as recorder:
        for start in range(0, rows, 700):
            times = np.arange(start, min(rows, start + 700)) / 8
            recorder["events"].append({"time": times, "code": (times * 8 % 251).astype("u1")})
        recorder["x"].append([1, 2])
    with NWBHDF5IO(str(path), "r") as io:
        table = io.read().acquisition["events"]
        assert len(table) == rows
        assert table.id[:].tolist() == list(range(rows))
        assert table["time"][:].tolist() == (np.arange(rows) / 8).tolist()
        assert table["code"][:].tolist() == [number % 251 for number in range(rows)]
    assert pynwb.validate(path=str(path)) == []


@pytest.mark.requirement("S1")
def test_threads_append_to_one_table_and_ids_are_the_rows(path):
    nwbfile = trials(column("thread", dtype="u1"))
    tickets = {}

    def feed(recorder, thread):
        for number in range(50):
            times = thread * 1000 + number + np.arange(number % 4) / 8
            row = {"start_time": times, "stop_time": times + 1, "thread": np.full(len(times), thread)}
            tickets[thread, number] = recorder["trials"].append(row), times

    with nwbflow.Recorder(nwbfile, path, queue="4 kB") as recorder:
        threads = [threading.Thread(target=feed, args=(recorder, thread)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = read(path)
    assert found.index.tolist() == list(range(4 * (0 + 1 + 2 + 3) * 12 + 4 * (0 + 1)))
    for (thread, _), (ticket, times) in tickets.items():
        rows = found.iloc[ticket.first : ticket.first + ticket.count]
        assert rows.start_time.tolist() == times.tolist()
        assert (rows.thread == thread).all()


def with_index():
    target = column("spikes")
    return [target, VectorIndex(name="spikes_index", data=[], target=target)]


def with_live_index():
    target = VectorData(name="spikes", description="ragged", data=[])
    return [target, VectorIndex(name="spikes_index", data=nwbflow.live((None,), "uint8"), target=target)]


def with_region():
    table = DynamicTable(name="other", description="other")
    return [DynamicTableRegion(name="region", description="rows", data=nwbflow.live((None,), "int64"), table=table)]


def with_references():
    return [TimeSeriesReferenceVectorData(name="timeseries")]


def with_words():
    return [VectorData(name="word", description="text", data=[])]


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    ("more", "kind", "text"),
    [
        (with_index, ErrorKind.OPTION, r"spikes_index can't be recorded: it is a VectorIndex.*row of its own"),
        (with_live_index, ErrorKind.OPTION, r"spikes_index can't be recorded"),
        (with_region, ErrorKind.OPTION, r"region can't be recorded: it is a DynamicTableRegion"),
        (with_references, ErrorKind.OPTION, r"timeseries can't be recorded: it is a TimeSeriesReferenceVectorData"),
        (with_words, ErrorKind.LENGTH, r"time is live and word is not.*MeaningsTable"),
    ],
)
def test_a_table_that_can_not_grow_is_refused_and_leaves_nothing_behind(more, kind, text, path):
    nwbfile = session()
    columns = [column("time"), *more()]
    events = DynamicTable(name="events", description="d", columns=columns)
    if isinstance(columns[-1], DynamicTableRegion):
        nwbfile.add_acquisition(columns[-1].table)
    nwbfile.add_acquisition(events)
    with pytest.raises(nwbflow.NwbflowError, match=text) as refused:
        nwbflow.Recorder(nwbfile, path)
    assert refused.value.kind is kind
    assert list(path.parent.iterdir()) == []


@pytest.mark.requirement("S1")
@pytest.mark.parametrize("given", [[3.0], [[3.0], [4.0]]])
def test_one_live_column_beside_one_with_rows_is_refused_by_hdmf_or_by_us(given, path):
    with pytest.raises(ValueError, match=r"(?i)same (length|number)"):
        DynamicTable(
            name="events",
            description="d",
            columns=[column("time"), VectorData(name="x", description="d", data=np.asarray(given))],
        )


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    ("rows", "kind", "text"),
    [
        ({"start_time": 1.0}, ErrorKind.OPTION, "stop_time is missing"),
        ({"start_time": 1.0, "stop_time": 2.0, "outcome": 1}, ErrorKind.OPTION, "outcome was not declared live"),
        ({"start_time": 1.0, "stop_time": 2.0, "id": 1}, ErrorKind.OPTION, "counted by themselves"),
        ({"start_time": [1.0], "stop_time": [2.0, 3.0]}, ErrorKind.LENGTH, "start_time 1, stop_time 2"),
        ({"start_time": 1.0, "stop_time": [2.0]}, ErrorKind.SHAPE, "start_time: a block has shape ()"),
        ({"start_time": [[1.0]], "stop_time": [2.0]}, ErrorKind.SHAPE, "shape (1, 1)"),
        ({"start_time": [[1.0], []], "stop_time": [2.0]}, ErrorKind.SHAPE, "different lengths"),
        ({"start_time": "now", "stop_time": "then"}, ErrorKind.DTYPE, "numbers"),
        ({"start_time": None, "stop_time": 1.0}, ErrorKind.DTYPE, "numbers"),
        ({"start_time": [2**60 + 1], "stop_time": [1.0]}, ErrorKind.LOSSY, str(2**60 + 1)),
        ([1.0, 2.0], ErrorKind.OPTION, "append({'start_time': ..., 'stop_time': ...})"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_of_them_is_taken(rows, kind, text, path):
    with nwbflow.Recorder(trials(), path) as recorder:
        recorder["trials"].append({"start_time": 1, "stop_time": 2})
        with pytest.raises(nwbflow.NwbflowError) as refused:
            recorder["trials"].append(rows)
        with pytest.raises(nwbflow.SettingsError, match="mapping"):
            recorder["trials"].append({"start_time": 1, "stop_time": 2}, timestamps=[1.0])
        assert recorder["trials"].append({"start_time": [], "stop_time": []}).wait(30)
        recorder["trials"].append({"start_time": 3, "stop_time": 4})
    assert refused.value.kind is kind
    assert text in str(refused.value)
    assert read(path).start_time.tolist() == [1.0, 3.0]


def test_a_live_table_written_by_anything_else_has_no_rows(path):
    nwbflow.write(trials(column("position", (None, 2))), path, progress=False)
    assert len(read(path)) == 0
    path.unlink()
    with NWBHDF5IO(str(path), "w") as io:
        io.write(trials(column("position", (None, 2))))
    assert len(read(path)) == 0
    assert pynwb.validate(path=str(path)) == []


INSPECT = """
import sys
import nwbinspector
for path in sys.argv[1:]:
    found = nwbinspector.inspect_nwbfile(nwbfile_path=path, skip_validate=True)
    print(sorted({(m.check_function_name, m.location, m.object_name) for m in found}))
"""


@pytest.mark.requirement("S1")
def test_the_inspector_finds_in_a_recorded_table_what_it_finds_in_pynwbs(path):
    pytest.importorskip("nwbinspector")
    rows = [(1.25, 2.5, 3), (4.75, 5.5, 7), (8.125, 9.25, 4)]
    with nwbflow.Recorder(trials(column("score", dtype="int64")), path) as recorder:
        for start, stop, score in rows:
            recorder["trials"].append({"start_time": start, "stop_time": stop, "score": score})
    theirs = path.with_name("theirs.nwb")
    nwbfile = session()
    nwbfile.trials = TimeIntervals(name="trials", description="the trials")
    nwbfile.add_trial_column(name="score", description="the score")
    for start, stop, score in rows:
        nwbfile.add_trial(start_time=start, stop_time=stop, score=score)
    with NWBHDF5IO(str(theirs), "w") as io:
        io.write(nwbfile)
    command = [sys.executable, "-W", "ignore", "-c", INSPECT, path, theirs]
    ours, expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ours == expected


RIG = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from test_tables import column, trials
import nwbflow
recorder = nwbflow.Recorder(trials(column("score", dtype="int16")), sys.argv[1])
for number in range(20):
    ticket = recorder["trials"].append({"start_time": number, "stop_time": number + 0.5, "score": number * 3})
ticket.wait()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.requirement("S1", "S2", "S5")
def test_a_table_is_recovered_with_all_its_columns(path):
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "faults")]
    done = subprocess.run([sys.executable, "-c", RIG, str(path), *folders], check=False, env=dict(os.environ))
    assert done.returncode == -9
    recovery = nwbflow.recover(path)
    assert {(d.name.rpartition("/")[2], d.kept, d.lost) for d in recovery.datasets} == {
        (name, 20, 0) for name in ("id", "start_time", "stop_time", "score")
    }
    found = read(path)
    assert found.index.tolist() == list(range(20))
    assert found.score.tolist() == list(range(0, 60, 3))
    assert pynwb.validate(path=str(path)) == []
