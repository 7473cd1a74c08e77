"""JSON lines: one readable object per event, on disk at once."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import runs

from nwbflow.errors import ErrorKind, TargetError
from nwbflow.model.events import StreamsObserved, StreamState
from nwbflow.model.layout import Layout
from nwbflow.observe.jsonl import JsonLines, event_to_json

pytestmark = pytest.mark.requirement("M3")


def lines(path: Path) -> list[dict[str, object]]:
    def refuse(token: str) -> object:
        raise AssertionError(f"{token} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text("ascii").splitlines()]


def test_every_field_of_every_event_is_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = JsonLines(path)
    events = list(runs.run())
    for event in events:
        log(event)
    written = lines(path)
    assert [w["event"] for w in written] == [type(e).__name__ for e in events]
    for line, event in zip(written, events, strict=True):
        assert set(line) == {"event", "time"} | {f.name for f in dataclasses.fields(event)}
    assert written[0]["path"] == str(runs.PATH)
    assert written[2]["offset"] == [0, 0]
    assert written[-1]["receipt"]["datasets"][0]["layout"]["filters"][1] == {"id": 1, "options": [4]}


def test_the_time_is_now_in_utc() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # milliseconds are kept, the rest cut off
    time = datetime.fromisoformat(event_to_json(runs.failed())["time"])
    assert time.utcoffset() == timedelta(0)
    assert before <= time <= datetime.now(UTC)


def test_a_layout_survives_the_round_trip_but_for_nan() -> None:
    event = list(runs.run())[1]
    value = json.loads(json.dumps(event_to_json(event), allow_nan=False))["layout"]
    assert value["fillvalue"] == "nan"
    assert np.isnan(float(value["fillvalue"]))
    assert Layout.from_json(value | {"fillvalue": 0.5}) == dataclasses.replace(runs.layout(), fillvalue=0.5)


def test_numpy_numbers_and_infinities_are_plain() -> None:
    event = dataclasses.replace(runs.chunk("/a", 0), offset=(np.int64(7), 0), lag_seconds=np.float32("inf"))
    value = event_to_json(event)
    assert value["offset"] == [7, 0]
    assert type(value["offset"][0]) is int
    assert value["lag_seconds"] == "inf"


def test_how_streams_stand_is_nested_and_no_number_is_lost() -> None:
    state = StreamState(
        name="/acquisition/probe",
        appended=2**60,
        acknowledged=7,
        folded=0,
        row_bytes=768,
        rows_per_second=float("nan"),
        declared_rate=None,
        queued_bytes=3,
        queue_limit=4,
        lag_seconds=float("inf"),
        dropped=0,
    )
    event = StreamsObserved(
        path=runs.PATH, seconds=1.5, streams=(state, state), journal_bytes=1, disk_free=2, closing=True
    )
    line = json.loads(json.dumps(event_to_json(event), allow_nan=False))
    assert set(line) == {"event", "time"} | {f.name for f in dataclasses.fields(event)}
    assert (line["event"], line["closing"], line["seconds"]) == ("StreamsObserved", True, 1.5)
    first, second = line["streams"]
    assert first == second == dataclasses.asdict(state) | {"rows_per_second": "nan", "lag_seconds": "inf"}


def test_each_line_is_on_disk_before_the_next_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = JsonLines(str(path))
    for count, event in enumerate(runs.run(), start=1):
        log(event)
        assert len(lines(path)) == count
    log.close()


@pytest.mark.parametrize("last", ["RunFinished", "RunFailed"])
def test_a_path_is_closed_at_the_last_event_and_the_next_run_is_appended(tmp_path: Path, last: str) -> None:
    path = tmp_path / "events.jsonl"
    log = JsonLines(path)
    events = list(runs.run()) if last == "RunFinished" else [runs.chunk("/a", 0), runs.failed()]
    for event in events:
        log(event)
    path.rename(tmp_path / "moved")  # a file still open would be followed here
    for event in events:
        log(event)
    assert len(lines(path)) == len(lines(tmp_path / "moved")) == len(events)


def test_a_text_file_is_written_to_and_left_open() -> None:
    target = io.StringIO()
    with JsonLines(target) as log:
        for event in runs.run():
            log(event)
    assert not target.closed
    assert len(target.getvalue().splitlines()) == len(list(runs.run()))


def test_a_relative_path_stays_where_it_was_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    log = JsonLines("events.jsonl")
    monkeypatch.chdir(other)
    log(runs.failed())
    assert len(lines(tmp_path / "events.jsonl")) == 1


def test_a_path_that_can_not_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="give another path") as caught:
        JsonLines(tmp_path)
    assert caught.value.kind is ErrorKind.FOLDER
    with pytest.raises(TargetError, match="No such file"):
        JsonLines(tmp_path / "none" / "events.jsonl")


def test_any_text_makes_plain_ascii_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = JsonLines(path)
    error = "no\nroom \u2028 µ \udc80 \x1b[2J"
    log(dataclasses.replace(runs.failed(), error=error))
    assert lines(path)[0]["error"] == error
