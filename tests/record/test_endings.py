"""How recordings end: interrupted, in handlers of signals, after the program's main part, beside other files."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from pynwb import NWBHDF5IO
from support import session

import nwbflow
from nwbflow.errors import DurabilityError, ErrorKind, SettingsError, TargetError
from nwbflow.record import journal

BEGIN = """
import atexit, os, signal, sys, threading
sys.path[:0] = {paths!r}
import numpy as np
from support import session
import nwbflow

path = sys.argv[1]
recorder = nwbflow.Recorder(session(x=nwbflow.live((None,), "int16", chunks=10)), path, workers=2)
series = recorder["x"]

def refused(action):
    try:
        action()
    except nwbflow.errors.SettingsError as error:
        print(error.kind.value)
    else:
        print("done")
"""


def run(path, script):
    """Run a program that records, and return what it prints."""
    paths = [entry for entry in sys.path if entry]
    program = BEGIN.format(paths=paths) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def rows(path):
    with NWBHDF5IO(str(path), "r") as io:
        return io.read().acquisition["x"].data[:].tolist()


def numbers():
    return session(x=nwbflow.live((None,), "int16", chunks=10))


@pytest.mark.requirement("S2", "S5")
@pytest.mark.usefixtures("no_thread_left")
def test_nothing_is_acknowledged_after_an_interrupted_close_has_let_go(path, monkeypatch):
    recorder = nwbflow.Recorder(numbers(), path)
    assert recorder["x"].append(np.arange(5)).wait(30)
    writing, gate, recovered = threading.Event(), threading.Event(), threading.Event()
    write = journal._write_at

    def slowly(*arguments):
        writing.set()
        assert gate.wait(60)
        return write(*arguments)

    monkeypatch.setattr(journal, "_write_at", slowly)
    last = recorder["x"].append(np.arange(5, 10))

    def interrupt():
        assert writing.wait(60)
        with contextlib.suppress(SettingsError):  # closed: the main thread is in close()
            while True:
                recorder["x"].append(np.empty(0, "i2"))
        os.kill(os.getpid(), signal.SIGINT)
        recovered.wait(1)  # nobody may get that far while something is being written
        gate.set()

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt) as interrupted:
        recorder.close()
    assert any("nwbflow recover" in note for note in interrupted.value.__notes__)
    recovery = nwbflow.recover(path)
    recovered.set()
    helper.join()
    with pytest.raises(DurabilityError, match="interrupted"):
        last.wait()
    assert recorder.acknowledged("x") == 5 <= recovery.datasets[0].kept
    assert rows(path) == list(range(recovery.datasets[0].kept))


@pytest.mark.requirement("S5")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_came_to_the_path_meanwhile_is_not_replaced(overwrite, path, tmp_path):
    if overwrite:
        path.write_bytes(b"old")
    recorder = nwbflow.Recorder(numbers(), path, overwrite=overwrite)
    recorder["x"].append(np.arange(25))
    path.write_bytes(b"somebody else's")
    with pytest.raises(TargetError, match=r"recover .* --output") as refused:
        recorder.close()
    assert refused.value.kind is ErrorKind.EXISTS
    assert path.read_bytes() == b"somebody else's"
    assert rows_of_partial(path, tmp_path) == list(range(25))
    other = tmp_path / "other.nwb"
    nwbflow.recover(path, output=other)
    assert rows(other) == list(range(25))


def rows_of_partial(path, tmp_path):
    copy = tmp_path / "copy.nwb"
    copy.write_bytes(path.with_name(path.name + ".partial").read_bytes())
    return rows(copy)


@pytest.mark.requirement("S1", "S5")
def test_a_thread_that_records_when_the_main_part_has_ended_makes_its_file(path):
    run(
        path,
        """
        def record():
            threading.main_thread().join()
            with recorder:
                for first in range(0, 500, 5):
                    series.append(np.arange(first, first + 5))

        threading.Thread(target=record).start()
        """,
    )
    assert rows(path) == list(range(500))


@pytest.mark.requirement("S1", "S5")
def test_closing_at_exit_makes_the_file(path):
    run(
        path,
        """
        atexit.register(recorder.close)
        for first in range(0, 500, 5):
            series.append(np.arange(first, first + 5))
        """,
    )
    assert rows(path) == list(range(500))


@pytest.mark.requirement("S1", "S5")
def test_a_signal_handler_that_interrupts_an_append_can_ask_and_is_refused_the_rest(path):
    said = run(
        path,
        """
        from nwbflow.record.intake import Intake
        assert series.append(np.arange(5)).wait(30)
        check = Intake._check

        def handler(*_):
            print(recorder.acknowledged("x"))
            refused(lambda: series.append(np.arange(3)))
            refused(recorder.close)

        def inside(intake, queue):  # the lock is held here
            check(intake, queue)
            signal.raise_signal(signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, handler)
        Intake._check = inside
        series.append(np.arange(5, 10))
        Intake._check = check
        recorder.close()
        """,
    )
    assert said == ["5", "locked", "locked"]
    assert rows(path) == list(range(10))


@pytest.mark.requirement("S1", "S5")
def test_a_signal_handler_that_closes_while_its_thread_is_closing_is_told_so(path):
    said = run(
        path,
        """
        from nwbflow.record import journal
        assert series.append(np.arange(5)).wait(30)
        write, gate = journal._write_at, threading.Event()

        def slowly(*arguments):
            gate.wait()
            return write(*arguments)

        def handler(*_):
            refused(recorder.close)
            gate.set()

        def interrupt():
            try:
                while True:
                    series.append(np.empty(0, "i2"))
            except nwbflow.errors.SettingsError:  # closed: the main thread is in close()
                os.kill(os.getpid(), signal.SIGTERM)

        journal._write_at = slowly
        signal.signal(signal.SIGTERM, handler)
        series.append(np.arange(5, 10))
        threading.Thread(target=interrupt).start()
        print(recorder.close().path.name)
        """,
    )
    assert said == ["locked", path.name]
    assert rows(path) == list(range(10))


@pytest.mark.requirement("S1", "S2")
@pytest.mark.usefixtures("no_thread_left")
def test_a_file_that_lacks_what_was_not_safe_has_a_receipt(path, monkeypatch):
    recorder = nwbflow.Recorder(numbers(), path)
    assert recorder["x"].append(np.arange(5)).wait(30)

    def fail(*_):
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(os, "pwritev", fail)
    lost = recorder["x"].append(np.arange(5, 10))
    with pytest.raises(DurabilityError):
        lost.wait(30)
    monkeypatch.undo()
    with pytest.raises(DurabilityError) as error:
        recorder.close()
    assert (error.value.durable, rows(path)) == (5, list(range(5)))
    assert [d.layout.shape for d in recorder.receipt.datasets] == [(5,)]
    assert recorder.close() is recorder.receipt
    with pytest.raises((DurabilityError, SettingsError)):
        recorder["x"].append(np.arange(3))
