"""The relay: whoever emits never waits, and only what may be left out is."""

from __future__ import annotations

import threading

import pytest
import runs

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.events import ChunkStored, Event, Warned
from nwbflow.observe.relay import Relay

LONG = 30.0  # seconds that are never waited for unless something is wrong


class Gate:
    """An observer that says when it was called, and does not come back before it may."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.inside = threading.Event()
        self.open = threading.Event()

    def __call__(self, event: Event, /) -> None:
        self.heard.append(event)
        self.inside.set()
        assert self.open.wait(LONG)


def warning(number: int) -> Warned:
    return Warned(dataset=None, message=str(number))


def test_everything_arrives_in_order_in_another_thread() -> None:
    heard: list[tuple[Event, str]] = []
    relay = Relay([lambda event: heard.append((event, threading.current_thread().name))])
    events = list(runs.run())
    for event in events:
        relay.emit(event)
    assert relay.close(LONG)
    assert heard == [(event, "nwbflow-events") for event in events]
    assert relay.notes == ()


def test_a_stuck_observer_holds_nobody_and_only_the_oldest_chunks_are_left_out() -> None:
    gate = Gate()
    relay = Relay([gate], limit=3)
    relay.emit(warning(0))
    assert gate.inside.wait(LONG)
    for number in range(8):
        relay.emit(runs.chunk("/a", number))
        relay.emit(warning(number))
    assert not relay.settle(0.01)
    gate.open.set()
    assert relay.settle(LONG)
    assert relay.close(LONG)
    assert [e for e in gate.heard if isinstance(e, Warned)] == [warning(0), *(warning(n) for n in range(8))]
    assert [e for e in gate.heard if isinstance(e, ChunkStored)] == [runs.chunk("/a", n) for n in (5, 6, 7)]
    assert gate.heard[-2:] == [runs.chunk("/a", 7), warning(7)]
    assert relay.notes == ("observers were too slow: 5 events were not shown",)


def test_closing_does_not_wait_for_an_observer_that_does_not_come_back() -> None:
    gate = Gate()
    relay = Relay([gate])
    relay.emit(warning(0))
    assert gate.inside.wait(LONG)
    assert not relay.settle(0.01)
    assert not relay.close(LONG)  # it was waited for already
    gate.open.set()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ValueError("no")])
def test_an_observer_that_raises_anything_is_dropped_and_the_others_go_on(error: BaseException) -> None:
    def bad(event: Event, /) -> None:
        raise error

    heard: list[Event] = []
    relay = Relay([bad, heard.append])
    relay.emit(warning(0))
    relay.emit(warning(1))
    assert relay.close(LONG)
    assert heard == [warning(0), warning(1)]
    (note,) = relay.notes
    assert type(error).__name__ in note


def test_what_is_made_now_and_then_comes_until_it_is_stopped() -> None:
    heard: list[Event] = []
    several, made = threading.Event(), []

    def make() -> Event:
        made.append(warning(len(made)))
        if len(made) == 3:
            several.set()
        return made[-1]

    relay = Relay([heard.append])
    relay.beat(make, 0.001)
    assert several.wait(LONG)
    relay.stop_beating()
    relay.emit(runs.failed())
    assert relay.close(LONG)
    assert heard == [*made, runs.failed()]


def test_observers_for_whom_it_is_always_time_for_the_next_beat_are_told_the_rest_too() -> None:
    warned = threading.Event()
    relay = Relay([lambda event: warned.set() if event == warning(7) else None])
    relay.beat(lambda: warning(0), 0.0)
    relay.emit(runs.chunk("/a", 0))
    relay.emit(warning(7))
    assert warned.wait(LONG)
    assert relay.close(LONG)


def test_what_can_not_be_made_ends_nothing_else() -> None:
    heard: list[Event] = []
    called = threading.Event()

    def make() -> Event:
        called.set()
        raise ZeroDivisionError("no streams")

    relay = Relay([heard.append])
    relay.beat(make, 0.001)
    assert called.wait(LONG)
    relay.emit(warning(1))
    assert relay.close(LONG)
    assert heard == [warning(1)]
    assert relay.notes == ("how the streams stand could not be told (ZeroDivisionError: no streams)",)


def test_observers_can_not_change_the_run() -> None:
    caught: list[SettingsError] = []

    def observer(event: Event, /) -> None:
        with pytest.raises(SettingsError, match=r"an observer has called close\(\).*set a flag") as error:
            relay.check_outside("close()")
        caught.append(error.value)

    relay = Relay([observer])
    relay.check_outside("close()")
    relay.emit(warning(0))
    assert relay.close(LONG)
    assert [error.kind for error in caught] == [ErrorKind.LOCKED]


def test_without_observers_there_is_no_thread() -> None:
    before = threading.active_count()
    relay = Relay([])
    relay.emit(warning(0))
    assert threading.active_count() == before
    assert not relay.is_heard
    assert relay.settle(0.0)
    assert relay.close(0.0)
