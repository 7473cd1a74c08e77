"""Who watches a recording: hears how it stands, and can't hold it up."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import pytest

import nwbflow
from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.events import RunFinished, RunStarted, StreamsObserved
from nwbflow.nwb import recorder as recorder_module
from nwbflow.record import watch as watch_module
from nwbflow.record.journal import Journal

LONG = 60.0


class Heard:
    """An observer that tells when something it was told is as wanted."""

    def __init__(self):
        self.events = []
        self.changed = threading.Condition()

    def __call__(self, event, /):
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def wait_for(self, wanted):
        """Return the first state of the streams that is as wanted."""
        found = []
        with self.changed:
            assert self.changed.wait_for(lambda: found.extend(s for s in self.states if wanted(s)) or found, LONG)
        return found[0]

    @property
    def states(self):
        return [event for event in self.events if isinstance(event, StreamsObserved)]


@pytest.mark.requirement("M1")
def test_the_last_state_is_what_the_receipt_says(path, paired, block):
    heard = Heard()
    with nwbflow.Recorder(paired, path, progress=heard) as recorder:
        for first in (0, 130, 260):
            data, times = block(130, first)
            recorder["probe"].append(data, timestamps=times)
        recorder["lick"].append([1.0, 2.0])
    assert isinstance(heard.events[0], RunStarted)
    assert [type(event) for event in heard.events[-2:]] == [StreamsObserved, RunFinished]
    assert sum(isinstance(event, RunFinished) for event in heard.events) == 1
    last = heard.states[-1]
    rows = {d.name.rpartition("/")[0]: d.layout.shape[0] for d in recorder.receipt.datasets}
    assert {s.name: s.appended for s in last.streams} == rows == {"/acquisition/probe": 390, "/acquisition/lick": 2}
    assert {s.name: s.acknowledged for s in last.streams} == {s.name: s.folded for s in last.streams} == rows
    assert {s.name: s.appended * s.row_bytes for s in last.streams} == {
        name: sum(d.raw_bytes for d in recorder.receipt.datasets if d.name.startswith(name)) for name in rows
    }
    assert {s.name: s.declared_rate for s in last.streams} == {"/acquisition/probe": None, "/acquisition/lick": 10.0}
    assert all((s.queued_bytes, s.lag_seconds, s.dropped) == (0, 0.0, 0) for s in last.streams)
    assert (last.path, last.closing, last.journal_bytes) == (path, True, 0)
    assert last.disk_free > 0


@pytest.mark.requirement("M1")
def test_what_waits_and_how_long_is_told_while_the_disk_stalls(path, paired, block, monkeypatch):
    heard, stalled, goes_on, write = Heard(), threading.Event(), threading.Event(), Journal.write

    def stalling(journal, blocks):
        stalled.set()
        assert goes_on.wait(LONG)
        write(journal, blocks)

    monkeypatch.setattr(recorder_module, "BEAT_SECONDS", 0.01)
    data, times = block(130)
    with nwbflow.Recorder(paired, path, progress=heard) as recorder:
        recorder["probe"].append(data, timestamps=times).wait()
        safe = heard.wait_for(lambda s: s.streams[0].acknowledged == 130 and s.streams[0].folded == 100)
        assert safe.streams[0].lag_seconds == 0.0
        assert safe.journal_bytes > data.nbytes
        assert not safe.closing
        monkeypatch.setattr(Journal, "write", stalling)
        recorder["probe"].append(data, timestamps=times)
        assert stalled.wait(LONG)
        waiting = heard.wait_for(lambda s: s.streams[0].lag_seconds > 0.05)
        probe, lick = waiting.streams
        assert (probe.appended, probe.acknowledged) == (260, 130)
        assert data.nbytes + times.nbytes < probe.queued_bytes <= probe.queue_limit
        assert (lick.queued_bytes, lick.lag_seconds) == (0, 0.0)
        goes_on.set()
        assert heard.wait_for(lambda s: s.streams[0].acknowledged == 260).streams[0].queued_bytes == 0


def test_rates_are_of_the_last_seconds(path, paired, block, monkeypatch):
    now = [1000.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    with nwbflow.Recorder(paired, path) as recorder:
        monkeypatch.setattr(watch_module, "time", Clock)
        watch = watch_module.Watch(recorder._recording, path, path.parent, {})
        seen = []
        for second in range(12):  # 100 rows a second, and nothing in the last six
            if second < 6:
                data, times = block(100, second * 100)
                recorder["probe"].append(data, timestamps=times)
            now[0] += 1.0
            seen.append(watch.observed().streams[0].rows_per_second)
        watch.stop()
    assert seen[:6] == [100.0] * 6
    assert seen[6:] == [80.0, 60.0, 40.0, 20.0, 0.0, 0.0]


def test_an_observer_that_does_not_come_back_holds_nothing_up(path, paired, block, monkeypatch, reader):
    inside, may_go = threading.Event(), threading.Event()

    def stuck(event, /):
        inside.set()
        assert may_go.wait(LONG)

    monkeypatch.setattr(recorder_module, "PATIENCE", 0.05)
    recorder = nwbflow.Recorder(paired, path, progress=stuck)
    assert inside.wait(LONG)
    for first in range(0, 1000, 100):
        data, times = block(100, first)
        assert recorder["probe"].append(data, timestamps=times).wait(LONG)
    with pytest.warns(RuntimeWarning, match="has not come back.*the file is complete and in place"):
        receipt = recorder.close()
    assert receipt == recorder.close()
    seen = reader.open(path)
    assert not seen.error
    assert seen.shapes["probe"] == (1000, 4)
    may_go.set()


def test_an_observer_can_not_append_or_close(path, paired, block):
    data, times = block(10)
    raised = []

    def meddling(event, /):
        if not isinstance(event, StreamsObserved):
            return
        for action in (recorder.close, lambda: recorder["probe"].append(data, timestamps=times)):
            with pytest.raises(SettingsError, match="an observer has called") as caught:
                action()
            raised.append(caught.value.kind)

    with nwbflow.Recorder(paired, path, progress=meddling) as recorder:
        recorder["probe"].append(data, timestamps=times)
    assert recorder.receipt.notes == ()
    assert raised[:2] == [ErrorKind.LOCKED] * 2
    with h5py.File(path) as file:
        assert file["acquisition/probe/data"].shape == (10, 4)


def test_an_observer_that_raises_is_told_in_the_receipt(path, paired):
    def broken(event, /):
        raise SystemExit

    with nwbflow.Recorder(paired, path, progress=broken) as recorder:
        pass
    assert recorder.receipt.notes == (
        "observer test_an_observer_that_raises_is_told_in_the_receipt.<locals>.broken raised SystemExit on RunStarted "
        "and was dropped",
    )


BEGIN = """
import sys, os, threading
sys.path[:0] = {paths!r}
from pathlib import Path
import nwbflow, rig
path = Path({path!r})
inside = threading.Event()
def stuck(event):
    inside.set()
    threading.Event().wait()
recorder = nwbflow.Recorder(rig.session("both"), path, progress={progress})
rig.append(recorder, "both", "probe", 0, 200).wait()
"""


def script(path, progress, rest):
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "faults")]
    return [sys.executable, "-c", BEGIN.format(paths=paths, path=str(path), progress=progress) + rest]


@pytest.mark.parametrize("closes", [False, True])
def test_a_program_ends_although_its_observer_does_not(path, closes):
    rest = "inside.wait()\n" + ("import warnings; warnings.simplefilter('ignore'); recorder.close()" if closes else "")
    done = subprocess.run(script(path, "stuck", rest), timeout=LONG, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if not closes:
        nwbflow.recover(path)
    with h5py.File(path) as file:
        assert file["acquisition/probe/data"].shape[0] == 200


def test_a_forked_process_ends_and_leaves_the_terminal_alone(path):
    """It has the bar, but not the thread that draws it."""
    others, other = pty.openpty()
    rest = f"""
child = os.fork()
if child == 0:
    os.dup2({other}, 2)  # what this process draws is seen apart
    sys.exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
recorder.close()
"""
    master, slave = pty.openpty()
    command = script(path, "True", rest)
    with subprocess.Popen(
        command, stdin=slave, stdout=subprocess.PIPE, stderr=slave, text=True, pass_fds=[other]
    ) as process:
        os.close(slave)
        os.close(other)
        drawn = read_all(master)
        assert process.stdout.read() == "5\n"
        assert process.wait(LONG) == 0
    assert b"probe" in drawn
    assert read_all(others) == b""


def test_a_stopped_terminal_holds_nothing_up(path):
    """After Ctrl-S drawing waits in the kernel; recording, closing and the end of the program don't."""
    rest = """
import warnings
import nwbflow.nwb.recorder
nwbflow.nwb.recorder.PATIENCE = 0.1
state = Path(f"/proc/self/task/{recorder._events._thread.native_id}/syscall")
rows = 200
print("recording", flush=True)
while not state.read_text().startswith(("1 0x2 ", "64 0x2 ")):  # write to standard error, on x86 and ARM
    rig.append(recorder, "both", "probe", rows, 100).wait()
    rows += 100
for _ in range(10):
    rig.append(recorder, "both", "probe", rows, 100).wait()
    rows += 100
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    recorder.close()
print(rows, len(caught), flush=True)
"""
    master, slave = pty.openpty()
    with subprocess.Popen(
        script(path, "True", rest), stdin=slave, stdout=subprocess.PIPE, stderr=slave, text=True
    ) as process:
        os.close(slave)
        assert process.stdout.readline() == "recording\n"
        os.write(master, b"\x13")  # Ctrl-S
        rows, warned = map(int, process.stdout.readline().split())
        assert process.wait(LONG) == 0
    os.close(master)
    assert warned == 1
    with h5py.File(path) as file:
        assert file["acquisition/probe/data"].shape[0] == rows


def read_all(descriptor):
    """Return everything a terminal shows until nobody has it any more."""
    shown = b""
    while True:
        try:
            shown += os.read(descriptor, 65536)
        except OSError:
            os.close(descriptor)
            return shown
