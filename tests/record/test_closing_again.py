"""Closing that was interrupted, or has failed, and is done again; recorders that nobody has in hand any more."""

import contextlib
import os
import signal
import threading

import numpy as np
import pytest
from pynwb import NWBHDF5IO
from support import session
from test_endings import run

import nwbflow
from nwbflow.errors import DurabilityError, ErrorKind, StorageError, TargetError
from nwbflow.model.events import DatasetVerified
from nwbflow.record import build, ending, journal
from nwbflow.record.folder import JournalFolder
from nwbflow.record.recording import Recording
from nwbflow.record.writing import JournalWriter

pytestmark = pytest.mark.usefixtures("no_thread_left")


def numbers():
    return session(x=nwbflow.live((None,), "int16", chunks=10))


def rows(path):
    with NWBHDF5IO(str(path), "r") as io:
        return io.read().acquisition["x"].data[:].tolist()


def interrupted(*_, **__):
    raise KeyboardInterrupt


STEPS = [
    (build, "sync_file"),
    (ending, "finish"),
    (ending, "put_in_place"),
    (build, "sync_folder"),  # the file is in place
    (JournalFolder, "announce"),
    (JournalFolder, "retire"),
    (Recording, "_finish"),
]


@pytest.mark.requirement("S2", "S5")
@pytest.mark.parametrize(("where", "step"), STEPS, ids=lambda value: value if isinstance(value, str) else None)
def test_an_interrupted_close_can_be_done_again(where, step, path, monkeypatch):
    recorder = nwbflow.Recorder(numbers(), path)
    recorder["x"].append(np.arange(25))
    with monkeypatch.context() as patched:
        patched.setattr(where, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            recorder.close()
        assert recorder.receipt is None
        assert recorder not in nwbflow.recorders()
    receipt = recorder.close()
    assert rows(path) == list(range(25))
    assert receipt.datasets[0].layout.shape == (25,)
    assert recorder.close() is receipt
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.requirement("S2", "S5")
def test_a_close_interrupted_after_the_journal_was_set_aside_can_be_done_again(path, monkeypatch):
    recorder = nwbflow.Recorder(numbers(), path)
    recorder["x"].append(np.arange(25))
    retire = JournalFolder.retire

    def late(folder):
        retire(folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(JournalFolder, "retire", late)
        with pytest.raises(KeyboardInterrupt):
            recorder.close()
    with nwbflow.Recorder(numbers(), path, overwrite=True) as other:  # somebody else's now
        assert recorder.close().datasets[0].layout.shape == (25,)
        other["x"].append(np.arange(7))
    assert rows(path) == list(range(7))


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("recorded_again", [False, True])
def test_closing_again_after_a_recovery_says_that_it_is_recovered(recorded_again, path, monkeypatch):
    recorder = nwbflow.Recorder(numbers(), path)
    recorder["x"].append(np.arange(25))
    with monkeypatch.context() as patched:
        patched.setattr(ending, "put_in_place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recorder.close()
    nwbflow.recover(path)
    again = nwbflow.Recorder(numbers(), path, overwrite=True) if recorded_again else contextlib.nullcontext()
    with again:
        with pytest.raises((StorageError, TargetError)) as refused:
            recorder.close()
        assert refused.value.kind is (ErrorKind.LOCKED if recorded_again else ErrorKind.CLOSED)
        assert rows(path) == list(range(25))


@pytest.mark.requirement("S2", "S5")
def test_two_interrupts_while_closing_lose_nothing_that_was_acknowledged(path, monkeypatch):
    recorder = nwbflow.Recorder(numbers(), path, sync="full")
    assert recorder["x"].append(np.arange(5)).wait(30)
    gate = threading.Event()
    write, join = journal._write_at, JournalWriter.join

    def slowly(*arguments):
        assert gate.wait(60)
        return write(*arguments)

    def interrupted_join(writer):
        signal.raise_signal(signal.SIGINT)
        join(writer)

    with monkeypatch.context() as patched:
        patched.setattr(journal, "_write_at", slowly)
        patched.setattr(JournalWriter, "join", interrupted_join)
        recorder["x"].append(np.arange(5, 10))
        with pytest.raises(KeyboardInterrupt) as second:  # the first is what it came from
            recorder.close()
    assert isinstance(second.value.__context__, KeyboardInterrupt)
    assert recorder.acknowledged("x") == 5
    gate.set()
    with pytest.raises(DurabilityError) as lost:  # of what was never acknowledged
        recorder.close()
    assert lost.value.durable == 5
    kept = rows(path)
    assert len(kept) >= 5
    assert kept == list(range(len(kept)))


@pytest.mark.requirement("S2", "S5")
def test_two_signals_and_then_the_end_of_the_program_leave_what_was_acknowledged(path):
    said = run(
        path,
        """
        assert series.append(np.arange(25)).wait(30)
        from nwbflow.record import ending
        def twice(*_):
            os.kill(os.getpid(), signal.SIGINT)
        ending.finish = twice
        stop = type(recorder._recording)._stop
        def stopping(recording):
            os.kill(os.getpid(), signal.SIGINT)
            stop(recording)
        type(recorder._recording)._stop = stopping
        try:
            recorder.close()
        except KeyboardInterrupt:
            print(recorder.acknowledged("x"))
        """,
    )
    assert said == ["25"]
    assert not path.exists()
    assert nwbflow.recover(path).datasets[0].kept == 25
    assert rows(path) == list(range(25))


@pytest.mark.requirement("S5")
def test_a_recorder_that_nobody_has_in_hand_is_named_and_can_be_closed(path):
    nwbflow.Recorder(numbers(), path)["x"].append(np.arange(25))
    for other in (
        lambda: nwbflow.Recorder(numbers(), path, overwrite=True),
        lambda: nwbflow.write(numbers(), path, overwrite=True, progress=False),
        lambda: nwbflow.recover(path),
    ):
        with pytest.raises(TargetError, match=rf"this very process \({os.getpid()}\).*nwbflow.recorders\(\)") as locked:
            other()
        assert locked.value.kind is ErrorKind.LOCKED
    (lost,) = nwbflow.recorders()
    lost.close()
    assert nwbflow.recorders() == ()
    assert rows(path) == list(range(25))


@pytest.mark.requirement("S5")
def test_a_journal_found_damaged_while_closing_is_kept_and_told_of(path, monkeypatch):
    said = []
    recorder = nwbflow.Recorder(numbers(), path, progress=said.append)
    for first in range(0, 50, 5):
        assert recorder["x"].append(np.arange(first, first + 5)).wait(30)
    monkeypatch.setattr(ending, "finish", fails)  # so that the file is made from the journal
    segment = next(path.parent.glob("*.journal/*.segment"))
    frame = segment.read_bytes()[64 : 64 + 48 + 10]
    with segment.open("r+b") as file:  # what no reader can use, behind the last frame
        file.seek(64 + 10 * len(frame) + 1000)
        file.write(b"something else")
    receipt = recorder.close()
    kept = path.with_name(path.name + ".journal.damaged")
    assert any(str(kept) in note for note in receipt.notes)
    assert (kept / segment.name).exists()
    assert rows(path) == list(range(50))
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, kept.name]


def fails(fold, _):
    fold.abandon()
    raise StorageError("the partial file can't be read", kind=ErrorKind.IO)


@pytest.mark.requirement("S1")
def test_closing_says_that_it_reads_the_file_back(path):
    said = []
    with nwbflow.Recorder(numbers(), path, progress=said.append) as recorder:
        recorder["x"].append(np.arange(25))
    (verified,) = [event for event in said if isinstance(event, DatasetVerified)]
    assert verified.stored_bytes == recorder.receipt.datasets[0].stored_bytes


@pytest.mark.requirement("S1")
def test_a_recording_into_which_nothing_came_becomes_a_file_without_rows(path, reader):
    with nwbflow.Recorder(numbers(), path) as recorder:
        recorder["x"].append(np.empty(0, "i2"))
    assert reader.open(path).shapes == {"x": (0,)}
    assert recorder.receipt.datasets[0].chunks == 0


@pytest.mark.requirement("S2")
def test_sigterm_turned_into_an_exception_finishes_the_file(path):
    said = run(
        path,
        """
        def end(*_):
            sys.exit("ended by SIGTERM")

        signal.signal(signal.SIGTERM, end)
        try:
            with recorder:
                assert series.append(np.arange(25)).wait(30)
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait(60)
        except SystemExit as error:
            print(*error.__notes__)
        """,
    )
    assert str(path) in said
    assert rows(path) == list(range(25))
