"""What a recording does when something is short: room, descriptors, memory."""

import contextlib
import os
import resource

import numpy as np
import pytest
from pynwb import NWBHDF5IO
from support import session
from test_disk import fill

import nwbflow
from nwbflow.errors import DurabilityError
from nwbflow.record import journal
from nwbflow.record.intake import Intake
from nwbflow.record.manifest import LiveSeries

pytestmark = pytest.mark.usefixtures("no_thread_left")

ROWS = 8000


def block(number):
    return np.full((ROWS, 8), number, "i2")  # 128 kB, a few bytes in the file


@pytest.mark.requirement("S2", "S3")
def test_a_little_room_is_used_for_what_fits(request, monkeypatch):
    disk = request.getfixturevalue("small_disk")
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2**19)
    path = disk / "session.nwb"
    nwbfile = session(x=nwbflow.live((None, 8), "int16", chunks=(4000, 8)))
    with nwbflow.Recorder(nwbfile, path) as recorder:
        tickets = [recorder["x"].append(block(0))]
        assert tickets[0].wait(30)
        ballast = fill(disk)
        tickets += [recorder["x"].append(block(number)) for number in range(1, 25)]
        assert not tickets[-1].wait(1.0)
        used = None
        for _ in range(3):
            safe = recorder.acknowledged("x") // ROWS
            os.truncate(ballast, ballast.stat().st_size - 5 * 2**16)  # two blocks and the heads, not all that wait
            assert tickets[safe + 1].wait(30)
            assert not tickets[-1].wait(0.5)
            written = sum(f.stat().st_blocks * 512 for f in disk.glob("*.journal/*.segment"))
            assert used is None or written <= used + 6 * 2**16
            used = written
        ballast.unlink()
        assert tickets[-1].wait(30)
    with NWBHDF5IO(str(path), "r") as io:
        data = io.read().acquisition["x"].data[:]
    assert (data == np.concatenate([block(number) for number in range(25)])).all()


@contextlib.contextmanager
def no_descriptor_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.requirement("S2")
def test_a_recording_waits_for_descriptors(path, monkeypatch):
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 2**17)
    nwbfile = session(x=nwbflow.live((None, 8), "int16", chunks=(4000, 8)))
    with nwbflow.Recorder(nwbfile, path) as recorder:
        assert recorder["x"].append(block(0)).wait(30)
        with no_descriptor_left():
            ticket = recorder["x"].append(block(1))
            assert not ticket.wait(1.0)
        assert ticket.wait(30)
    assert any("Too many open files" in note for note in recorder.receipt.notes)
    with NWBHDF5IO(str(path), "r") as io:
        assert io.read().acquisition["x"].data.shape == (2 * ROWS, 8)


@pytest.mark.requirement("S3")
def test_a_queue_of_tiny_blocks_is_bounded_too():
    intake = Intake([LiveSeries(name="x", datasets=())], 100_000)
    taken: list[int] = []
    with contextlib.suppress(DurabilityError):
        while len(taken) < 1000:
            taken.append(intake.put(0, (np.zeros(1, "u1"),), 1, 0.0))
    assert 100 < len(taken) < 200
