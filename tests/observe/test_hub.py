"""The hub: everyone hears everything, and nobody can hurt the run."""

from __future__ import annotations

import pytest
import runs

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.events import ChunkStored, Event, RunFinished
from nwbflow.observe.bar import ProgressBar
from nwbflow.observe.hub import Hub, make_observers


class Recorder:
    def __init__(self, raise_on: type | None = None, error: BaseException | None = None) -> None:
        self.heard: list[Event] = []
        self.closed = 0
        self._raise_on = raise_on
        self._error = error or RuntimeError("no room for notes")

    def __call__(self, event: Event, /) -> None:
        self.heard.append(event)
        if self._raise_on is not None and isinstance(event, self._raise_on):
            raise self._error

    def close(self) -> None:
        self.closed += 1


@pytest.mark.requirement("M1")
def test_every_observer_hears_every_event_in_order() -> None:
    first, second = Recorder(), Recorder()
    events = list(runs.run())
    hub = Hub([first, second])
    for event in events:
        hub.emit(event)
    assert first.heard == events
    assert second.heard == events
    assert hub.problems == ()


def test_an_observer_that_raises_is_dropped_closed_and_named_and_the_others_go_on() -> None:
    bad, good = Recorder(raise_on=ChunkStored), Recorder()
    events = list(runs.run())
    hub = Hub([bad, good])
    for event in events:
        hub.emit(event)
    assert [type(e).__name__ for e in bad.heard] == ["RunStarted", "DatasetStarted", "ChunkStored"]
    assert bad.closed == 1
    assert good.heard == events
    (problem,) = hub.problems
    assert "Recorder" in problem
    assert "RuntimeError: no room for notes" in problem
    assert "ChunkStored" in problem


def test_a_function_is_named_by_its_own_name() -> None:
    def my_listener(event: Event, /) -> None:
        raise ValueError

    hub = Hub([my_listener])
    hub.emit(runs.failed())
    assert "my_listener raised ValueError on RunFailed" in hub.problems[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_must_stop_the_run_passes_through(error: BaseException) -> None:
    bad = Recorder(raise_on=ChunkStored, error=error)
    hub = Hub([bad])
    with pytest.raises(type(error)):
        hub.emit(runs.chunk("/a", 0))
    assert hub.problems == ()


def test_leaving_the_hub_closes_the_observers_also_on_an_exception() -> None:
    listener = Recorder()
    hub = Hub([listener, listener.heard.append])
    hub.emit(runs.chunk("/a", 0))
    with pytest.raises(ZeroDivisionError), hub:
        raise ZeroDivisionError
    assert listener.closed == 1
    hub.emit(runs.chunk("/a", 1))
    assert len(listener.heard) == 2  # heard once by each of the two; after closing by none


def test_an_observer_that_can_not_be_closed_is_a_problem_not_an_error() -> None:
    class Stubborn(Recorder):
        def close(self) -> None:
            raise OSError("still busy")

    with Hub([Stubborn()]) as hub:
        pass
    assert "Stubborn raised OSError: still busy on being closed" in hub.problems[0]


@pytest.mark.parametrize("nothing", [None, False, [], ()])
def test_no_progress_is_no_observers(nothing: object) -> None:
    assert make_observers(nothing) == ()  # type: ignore[arg-type]


@pytest.mark.requirement("M2", "M3")
def test_true_is_a_bar_and_callables_are_taken_as_they_are() -> None:
    (bar,) = make_observers(True)
    assert isinstance(bar, ProgressBar)
    heard: list[Event] = []
    recorder = Recorder()
    assert make_observers(heard.append) == (heard.append,)
    assert make_observers([recorder, heard.append]) == (recorder, heard.append)


@pytest.mark.parametrize("wrong", ["jsonl", 3, [None], [True], object(), ProgressBar, [RunFinished]])
def test_anything_else_is_a_settings_error_with_the_way_out(wrong: object) -> None:
    with pytest.raises(SettingsError, match=r"pass (an instance|True, False, a callable)") as caught:
        make_observers(wrong)  # type: ignore[arg-type]
    assert caught.value.kind is ErrorKind.OPTION
