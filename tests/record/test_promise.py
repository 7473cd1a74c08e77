"""The promise, against any order of appending, waiting, killing, closing and recovering."""

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import rig
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from reader import Reader
from writer import Writer

import nwbflow
from nwbflow.record import journal

LAYOUT = "both"
SERIES = st.sampled_from(sorted(rig.LAYOUTS[LAYOUT]))


class Rig:
    """A process that records as it is told, one request at a time."""

    def __init__(self, path, sync, segment):
        to_child, self._send = os.pipe()
        self._hear, from_child = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._send)
                os.close(self._hear)
                follow(os.fdopen(to_child), os.fdopen(from_child, "w"), path, sync, segment)
            finally:
                os._exit(1)
        os.close(to_child)
        os.close(from_child)
        self._answers = os.fdopen(self._hear)
        self.answer()

    def tell(self, *request):
        os.write(self._send, (json.dumps(request) + "\n").encode())

    def answer(self):
        return json.loads(self._answers.readline())

    def ask(self, *request):
        self.tell(*request)
        return self.answer()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._answers.close()
        os.close(self._send)


def follow(requests, answers, path, sync, segment):
    """Be the recording process."""
    journal.SEGMENT_BYTES = segment
    recorder = nwbflow.Recorder(rig.session(LAYOUT), path, sync=sync, workers=2, overwrite=True)
    tickets = dict.fromkeys(rig.LAYOUTS[LAYOUT])
    done = dict.fromkeys(rig.LAYOUTS[LAYOUT], 0)
    answers.write("0\n")
    answers.flush()
    for line in requests:
        match json.loads(line):
            case ["append", name, rows]:
                tickets[name] = rig.append(recorder, LAYOUT, name, done[name], rows)
                done[name] += rows
                said = done[name]
            case ["wait", name]:
                said = recorder.acknowledged(name) if tickets[name] is None or tickets[name].wait() else -1
            case ["close"]:
                recorder.close()
                said = done
        answers.write(json.dumps(said) + "\n")
        answers.flush()


class Promise(RuleBasedStateMachine):
    """A rig, its disk, and what it said was safe."""

    stock: Reader
    recoverers: Writer

    @initialize()
    def empty_folder(self):
        self.folder = Path(tempfile.mkdtemp(prefix="promise-"))
        self.path = self.folder / "session.nwb"
        self.rig = None
        self.crashed = False
        self.safe = {}
        self.published = None

    def teardown(self):
        if self.rig is not None:
            self.rig.kill()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @precondition(lambda self: self.rig is None and not self.crashed)
    @rule(sync=st.sampled_from(["process", "full"]), segment=st.sampled_from([1024, 16384, 2**20]))
    def start(self, sync, segment):
        self.published = self.path.read_bytes() if self.path.exists() else None
        self.rig = Rig(self.path, sync, segment)
        self.safe = {}

    @precondition(lambda self: self.rig is not None)
    @rule(name=SERIES, rows=st.integers(0, 200))
    def append(self, name, rows):
        self.rig.ask("append", name, rows)

    @precondition(lambda self: self.rig is not None)
    @rule(name=SERIES)
    def acknowledge(self, name):
        self.safe[name] = self.rig.ask("wait", name)
        assert self.safe[name] >= 0

    @precondition(lambda self: self.rig is not None)
    @rule()
    def kill(self):
        self.rig.kill()
        self.rig, self.crashed = None, True
        self.check_the_path()

    @precondition(lambda self: self.rig is not None)
    @rule(microseconds=st.integers(0, 30_000))
    def kill_while_closing(self, microseconds):
        self.rig.tell("close")
        signal.sigtimedwait([], microseconds / 1e6)
        self.rig.kill()
        self.rig, self.crashed = None, True

    @precondition(lambda self: self.rig is not None)
    @rule()
    def close(self):
        rows = self.rig.ask("close")
        self.rig.kill()
        self.rig = None
        self.check_the_file(rows)

    @precondition(lambda self: self.crashed)
    @rule(microseconds=st.integers(0, 30_000))
    def kill_a_recovery(self, microseconds):
        self.recoverers.start(self.path, "recover")
        self.recoverers.wait_for("started")
        signal.sigtimedwait([], microseconds / 1e6)
        self.recoverers.send(signal.SIGKILL)
        self.recoverers.end()

    @precondition(lambda self: self.crashed)
    @rule()
    def recover(self):
        nwbflow.recover(self.path)
        self.crashed = False
        self.check_the_file(self.safe)

    def check_the_path(self):
        """While nothing is finished, the path holds what it held."""
        assert (self.path.read_bytes() if self.path.exists() else None) == self.published

    def check_the_file(self, rows):
        assert rig.violations(self.stock.open(self.path, data=True), LAYOUT, rows) == []
        assert [p.name for p in self.folder.iterdir()] == [self.path.name]


@pytest.mark.requirement("S2", "S5", "W12")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_no_order_of_events_breaks_the_promise(reader):
    with Writer(script=rig.__file__) as recoverers:
        Promise.stock, Promise.recoverers = reader, recoverers
        Promise.TestCase.settings = settings(
            max_examples=20,
            stateful_step_count=14,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        Promise.TestCase("runTest").runTest()
