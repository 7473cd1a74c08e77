"""What the page says of a run is what the run's events say."""

import json
import math
from dataclasses import replace

import pytest
import runs
from dash import PROBE, many, observed

from nwbflow.model.events import PartSent, RunStarted, Warned
from nwbflow.observe.dashboard.board import Board
from nwbflow.observe.dashboard.streams import Streams
from nwbflow.observe.dashboard.tracks import HISTORY_SECONDS, Disk, History, Slope

pytestmark = pytest.mark.requirement("M4")

NAMES = ("/acquisition/a/data", "/acquisition/b/data")


def told(events, board=None):
    board = board or Board()
    for event in events:
        board.take(event)
    return json.loads(json.dumps(board.to_json(history=True), allow_nan=False))


def test_a_write_step_by_step():
    board, events = Board(), list(runs.run(NAMES, chunks=4))
    assert told([], board)["run"]["state"] == "waiting"
    assert told(events[:1], board)["run"]["state"] == "structure"
    half = told(events[1:4], board)
    assert half["run"]["state"] == "writing"
    first, second = half["datasets"]
    assert (first["state"], second["state"]) == ("writing", "waiting")
    assert (first["raw_done"], first["raw_total"], first["chunks"]) == (2 * runs.CHUNK, 4 * runs.CHUNK, 2)
    assert (half["run"]["raw_done"], half["run"]["raw_total"]) == (2 * runs.CHUNK, 8 * runs.CHUNK)
    assert half["run"]["ratio"] == pytest.approx(runs.CHUNK / runs.STORED)
    state = told(events[4:-1], board)
    assert state["run"]["state"] == "verifying"
    assert state["warnings"][0]["text"] == "stored with HDF5's own filters"
    part = PartSent(number=1, parts=2, kept=False, bytes_done=1, bytes_total=2)
    assert told([part], board)["run"]["state"] == "sending"
    end = told(events[-1:], board)
    receipt = events[-1].receipt
    assert end["run"]["state"] == "finished"
    assert [d["state"] for d in end["datasets"]] == ["verified", "verified"]
    for name in ("raw_bytes", "stored_bytes", "ratio", "seconds", "verified"):
        assert end["receipt"][name] == getattr(receipt, name)


def test_a_failure_says_what_is_kept():
    state = told([runs.started(NAMES, 3), runs.failed()])
    assert state["run"]["state"] == "failed"
    assert state["failure"] == {"error": runs.failed().error, "partial": str(runs.failed().partial)}


def test_the_next_run_begins_anew():
    state = told([*runs.run(NAMES), Warned(dataset=None, message="late"), runs.started(("/x",), 1)])
    assert (state["run"]["number"], state["run"]["raw_done"], state["warnings_total"]) == (2, 0, 0)
    assert (state["receipt"], [d["name"] for d in state["datasets"]]) == (None, ["/x"])


def test_chunks_that_a_slow_listener_was_not_told_of_spoil_no_figure():
    events = list(runs.run(NAMES[:1], chunks=6, known=False))
    state = told([*events[:2], events[3], events[6]])
    assert state["run"]["raw_done"] == 5 * runs.CHUNK
    assert state["run"]["ratio"] == pytest.approx(runs.CHUNK / runs.STORED)
    assert state["datasets"][0]["left_seconds"] is None


def test_of_many_datasets_the_ones_being_written_are_shown():
    names = tuple(f"/acquisition/a{n}/data" for n in range(500))
    events = list(runs.run(names, chunks=1))
    state = told(events[: 1 + 3 * 300 + 1])
    shown = [d["name"] for d in state["datasets"]]
    assert names[300] in shown
    assert len(shown) < 100
    assert (state["datasets_total"], state["datasets_done"]) == (500, 300)


def test_warnings_are_counted_and_the_last_ones_kept():
    state = told([runs.started(NAMES, 1), *(Warned(dataset=None, message=str(n)) for n in range(2000))])
    assert state["warnings_total"] == 2000
    assert [w["number"] for w in state["warnings"]] == list(range(1951, 2001))
    assert state["warnings"][-1]["text"] == "1999"


def test_a_recording_tells_of_its_streams():
    lick = replace(PROBE, name="/acquisition/lick", declared_rate=None, rows_per_second=0.0, row_bytes=8, dropped=7)
    state = told([RunStarted(path=runs.PATH, datasets=(), raw_bytes=None, workers=1), observed(PROBE, lick)])
    assert (state["run"]["kind"], state["run"]["state"]) == ("recording", "recording")
    assert state["run"]["bytes_per_second"] == 30_000 * 768
    assert state["run"]["raw_done"] == 299_000 * (768 + 8)
    assert (state["run"]["journal_bytes"], state["run"]["disk_free"]) == (230_000_000, 400_000_000_000)
    first, second = state["streams"]
    assert first["acknowledged_seconds"] == pytest.approx(299_000 / 30_000)
    assert (second["dropped"], second["acknowledged_seconds"], second["status"]) == (7, None, "waiting")
    assert state["history"]["streams"]["/acquisition/probe"]["values"] == [30_000]


def test_a_recording_that_is_being_closed_and_one_that_has_ended():
    board = Board()
    done = replace(PROBE, acknowledged=PROBE.appended)
    assert told([runs.started((), 0), observed(done, closing=True)], board)["run"]["state"] == "closing"
    state = told([list(runs.run(NAMES))[-1], observed(PROBE)], board)
    assert state["run"]["state"] == "finished"  # what is told late changes nothing
    assert [s["status"] for s in state["streams"]] == ["closed"]


@pytest.mark.parametrize(
    ("changes", "seconds", "status"),
    [
        ({}, 1, "starting"),
        ({}, 20, "steady"),
        ({"rows_per_second": 28_000.0}, 20, "slow"),
        ({"rows_per_second": 32_000.0}, 20, "fast"),
        ({"rows_per_second": 29_000.0}, 20, "steady"),
        ({"queued_bytes": 40 << 20}, 20, "behind"),
        ({"lag_seconds": 2.5}, 20, "behind"),
        ({"appended": 1, "rows_per_second": 0.0}, 20, "silent"),
        ({"dropped": 1}, 5, "dropping"),
        ({"declared_rate": None, "rows_per_second": 0.0}, 20, "waiting"),
        ({"declared_rate": None, "rows_per_second": 1.5}, 20, "steady"),
    ],
)
def test_the_word_for_a_stream(changes, seconds, status):
    streams = Streams()
    for second in range(seconds + 1):
        state = replace(PROBE, appended=PROBE.appended + second)
        streams.take(observed(replace(state, **changes) if second else state), float(second), float(second))
    if "appended" in changes:
        streams.take(observed(replace(state, **changes)), seconds + 9.0, seconds + 9.0)
    assert streams.to_json(over=False)[0]["status"] == status


def test_a_drop_stays_in_sight_for_a_while_and_is_then_only_counted():
    streams = Streams()
    words = []
    for second in range(40):
        state = replace(PROBE, appended=second, dropped=3 if second >= 10 else 0)
        streams.take(observed(state), float(second), float(second))
        words.append(streams.to_json(over=False)[0]["status"])
    assert words[10:20] == ["dropping"] * 10
    assert words[20:] == ["steady"] * 20
    assert streams.to_json(over=False)[0]["dropped"] == 3


def test_the_time_until_the_disk_is_full():
    disk = Disk()
    for second in range(31):
        disk.note(float(second), 1000_000 - 10_000 * second)
    assert disk.seconds_left(30.0) == pytest.approx(70)
    for second in range(31, 200):
        disk.note(float(second), 700_000)
    assert disk.seconds_left(199.0) is None


def test_a_rate_is_of_the_last_seconds_and_ends_when_nothing_comes():
    slope = Slope(10)
    for tick in range(1000):
        slope.note(tick / 10, 5 * tick if tick < 500 else 2500 + 20 * (tick - 500))
    assert slope.per_second(99.9) == pytest.approx(200)
    assert slope.per_second(111) == 0
    assert math.isfinite(Slope().per_second(0))


def test_history_is_two_minutes_long_with_gaps_where_nothing_came():
    history = History()
    for second in [*range(1000, 1200), 1205]:
        history.note(second + 0.5, second)
    found = history.to_json()
    assert found["end"] == 1205
    assert len(found["values"]) == HISTORY_SECONDS
    assert found["values"][-7:] == [1199, None, None, None, None, None, 1205]
    assert found["values"][0] == 1205 - HISTORY_SECONDS + 1


def test_forty_streams_make_a_message_of_modest_size():
    board = Board()
    for n in range(300):
        board.take(observed(*(replace(s, appended=n, rows_per_second=29_999.123 + n) for s in many(40))))
    assert len(json.dumps(board.to_json(history=False))) < 40_000
