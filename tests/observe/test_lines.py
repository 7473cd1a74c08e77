"""The lines of a recording, as a terminal of some width would show them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import runs
from test_bar import Terminal, play

from nwbflow.model.events import DatasetVerified, RunFinished, RunStarted, StreamsObserved, StreamState
from nwbflow.observe.dashboard.board import Board
from nwbflow.observe.lines import StreamLines
from nwbflow.observe.text import ASCII, UNICODE, clock

pytestmark = pytest.mark.requirement("M2")

PROBE = StreamState(
    name="/acquisition/probe",
    appended=1_800_000,
    acknowledged=1_770_000,
    folded=1_500_000,
    row_bytes=768,
    rows_per_second=30_000.0,
    declared_rate=30_000.0,
    queued_bytes=23_040_000,
    queue_limit=64_000_000,
    lag_seconds=1.04,
    dropped=0,
)
LICK = replace(
    PROBE,
    name="/acquisition/lick",
    appended=12,
    acknowledged=12,
    folded=0,
    row_bytes=12,
    rows_per_second=0.2,
    declared_rate=None,
    queued_bytes=0,
    lag_seconds=0.0,
)


def observed(*streams: StreamState, seconds: float = 60.0, closing: bool = False) -> StreamsObserved:
    return StreamsObserved(
        path=runs.PATH,
        seconds=seconds,
        streams=streams,
        journal_bytes=1_400_000_000,
        disk_free=120_000_000_000,
        closing=closing,
    )


def shown(state: StreamsObserved, width: int = 120, most: int = 12) -> list[str]:
    return [line.plain.rstrip() for line in StreamLines(state, 3).lines(width, most, UNICODE)]


def test_a_stream_is_told_with_what_it_takes_and_what_is_safe() -> None:
    probe, lick, whole, doing = shown(observed(PROBE, LICK))
    assert probe.split("  ")[0] == "/acquisition/probe"
    assert " ".join(probe.split()[1:]) == "1:00 30.0 kHz 23.04 MB/s queue 36% lag 1.0 s safe 0:59"
    assert " ".join(lick.split()[1:]) == "12 rows 0.20 Hz 0.00 MB/s queue 0% lag 0.0 s all safe"
    # 120 GB: the journal takes 23.04 MB/s, and the file as much while nothing is known of the ratio
    assert whole == "recording.nwb  1:00  1.38 GB  23.0 MB/s  disk 120 GB left, full in 43:24"
    assert doing == "recording 2 streams"


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("closing", [False, True])
def test_no_line_is_wider_than_the_terminal_and_all_cells_of_a_column_end_together(
    width: int, count: int, closing: bool
) -> None:
    streams = [replace(PROBE, name=f"/acquisition/probe_{n}", rows_per_second=10.0**n % 99999) for n in range(count)]
    for glyphs in (UNICODE, ASCII):
        lines = StreamLines(observed(*streams, closing=closing), 3).lines(width, 12, glyphs)
        assert all(len(line.plain) < width for line in lines)
        assert len(lines) == min(count, 12) + (count > 12) + 2
        assert len({line.plain.index("queue") for line in lines[: min(count, 12)]}) == 1 or width == 30


def test_what_matters_stays_where_it_is_narrow() -> None:
    probe, whole, _ = shown(observed(PROBE), width=60)
    assert " ".join(probe.split()[1:]) == "1:00 30.0 kHz queue 36% lag 1.0 s"
    assert "full in 43:24" in whole


@pytest.mark.parametrize("journal_bytes", [1_400_000_000, 0])
def test_terminal_and_page_say_the_same_of_when_the_disk_will_be_full(journal_bytes: int) -> None:
    state = replace(observed(PROBE, LICK), journal_bytes=journal_bytes)
    lines, board = StreamLines(state, 3), Board()
    for event in [*list(runs.run())[:4], state]:
        lines(event)
        board.take(event)
    page = board.to_json(history=False)["run"]["disk_seconds"]
    assert f"full in {clock(page)}" in lines.lines(120, 12, UNICODE)[-2].plain
    whole = 120e9 / 23.04e6
    assert page == pytest.approx(whole / (runs.STORED / runs.CHUNK + bool(journal_bytes)), rel=1e-3)


def test_of_many_streams_those_in_trouble_are_shown() -> None:
    streams = [replace(LICK, name=f"/acquisition/lick_{n:02d}") for n in range(40)]
    streams[30] = replace(streams[30], queued_bytes=60_000_000)
    streams[35] = replace(streams[35], dropped=7)
    lines = shown(observed(*streams), most=4)
    assert [line.split()[0][-2:] for line in lines[:4]] == ["00", "01", "30", "35"]
    assert lines[3].endswith("dropped 7")
    assert lines[4] == "… and 36 more streams"


def test_colours_are_for_what_asks_for_a_look() -> None:
    def styles(stream: StreamState, seconds: float = 60.0) -> set[str]:
        line, *_ = StreamLines(observed(stream, seconds=seconds), 1).lines(120, 12, UNICODE)
        return {str(span.style) for span in line.spans} - {"cyan"}

    assert styles(PROBE) == set()
    assert styles(replace(PROBE, queued_bytes=40_000_000)) == {"yellow"}
    assert styles(replace(PROBE, queued_bytes=60_000_000)) == {"red"}
    assert styles(replace(PROBE, rows_per_second=28_000.0)) == {"yellow"}
    assert styles(replace(PROBE, rows_per_second=28_000.0), seconds=1.0) == set()


def test_closing_says_what_is_being_done() -> None:
    lines = StreamLines(observed(PROBE, closing=True), 2)

    def doing() -> str:
        return lines.lines(100, 12, UNICODE)[-1].plain

    assert doing() == "closing: draining, 23.0 MB not safe yet"
    lines(observed(replace(PROBE, acknowledged=1_800_000), closing=True))
    assert doing() == "closing: finishing, 230 MB of 1.38 GB not in the file yet"
    finished = [event for event in runs.run() if type(event).__name__ == "DatasetFinished"]
    lines(finished[0])
    lines(finished[0])
    assert doing() == "closing: verifying, 0 of 2 datasets read back and right"
    for number in range(2):
        lines(DatasetVerified(dataset=f"/{number}", stored_bytes=1, seconds=0.1))
    assert doing() == "closing: 2 datasets verified, putting the file in place"


def test_a_bar_shows_the_lines_of_a_recording_and_its_summary() -> None:
    terminal = Terminal(width=100)
    started = RunStarted(path=runs.PATH, datasets=("/acquisition/probe/data",), raw_bytes=None, workers=1)
    (*_, end) = runs.run()
    assert isinstance(end, RunFinished)
    # a bar draws ten times a second at most; a new one draws at once
    first, _, last = play(terminal, [started, observed(PROBE), end])
    assert "writing structure" in first
    assert "recording.nwb: " in last
    pictures = play(terminal, [observed(PROBE)])
    assert pictures == [""]  # without a start there is nowhere to draw
