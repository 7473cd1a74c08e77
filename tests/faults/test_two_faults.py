"""Errors of the data and errors of the disk are told apart, also when both come at once."""

import subprocess
import sys
from datetime import UTC, datetime

import h5py
import numpy as np
import pynwb
import pytest

import nwbflow
from nwbflow.nwb import fill
from nwbflow.sinks import hdf5

ROWS = 20_000


def session(data):
    nwbfile = pynwb.NWBFile(
        session_description="faults", identifier="1", session_start_time=datetime(2026, 1, 1, tzinfo=UTC)
    )
    nwbfile.add_acquisition(pynwb.TimeSeries(name="a", data=data, unit="V", rate=1.0))
    return nwbfile


def failing(error):
    yield np.ones((ROWS, 4), "i2")
    raise error


@pytest.mark.requirement("W6", "W8")
@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error", "acquisition disk"),
        OSError(28, "No space left on device", "scratch"),
        RuntimeError("cache: No space left in the ring buffer"),
    ],
    ids=["EIO", "ENOSPC", "text"],
)
@pytest.mark.parametrize("mode", ["w", "r+"])
def test_a_sources_own_error_is_passed_on_and_its_rows_are_kept(error, mode, tmp_path):
    path = tmp_path / "session.nwb"
    stream = nwbflow.blocks(failing(error), shape=(None, 4), dtype="int16")
    if mode == "r+":
        nwbflow.write(session(np.arange(9)), path, progress=False)
    with nwbflow.NWBHDF5IO(path, mode) as io:
        nwbfile = session(stream) if mode == "w" else io.read()
        if mode == "r+":
            nwbfile.add_acquisition(pynwb.TimeSeries(name="b", data=stream, unit="V", rate=1.0))
        with pytest.raises(type(error)) as raised:
            io.write(nwbfile)
    assert raised.value is error
    assert any("after row 20000" in note for note in error.__notes__)
    kept = path if mode == "r+" else path.with_name("session.nwb.partial")
    with h5py.File(kept) as file:
        assert file["acquisition"]["b" if mode == "r+" else "a"]["data"].shape == (ROWS, 4)


BOTH = """
import os, resource, signal, sys
import numpy as np
import nwbflow
sys.path.insert(0, os.path.dirname(sys.argv[2]))
from test_two_faults import session
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = sys.argv[1]

def blocks():
    for seed in range(3):
        yield np.random.default_rng(seed).integers(-30000, 30000, (100000, 16)).astype("i2")
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path + ".partial") + 1000, resource.RLIM_INFINITY))
    raise ValueError("the amplifier was unplugged")

try:
    nwbflow.write(session(nwbflow.blocks(blocks(), shape=(None, 16), dtype="i2")), path, overwrite=True, progress=False)
except nwbflow.StorageError as error:
    assert isinstance(error.__cause__, ValueError)
    print(error.kind)
"""


@pytest.mark.requirement("W6")
def test_a_raising_source_on_a_full_disk_ends_cleanly(tmp_path):
    path = tmp_path / "session.nwb"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", BOTH, str(path), __file__], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "no-space"), done.stderr
    assert path.read_bytes() == b"old"


@pytest.mark.requirement("W6")
def test_a_failing_checkpoint_is_final(tmp_path, monkeypatch):
    """A mock stands in for a file system that goes away during a flush (NFS), which can't be had here."""
    path = tmp_path / "session.nwb"
    monkeypatch.setattr(fill, "CHECKPOINT_SECONDS", 0.0)
    partial = path.with_name(path.name + ".partial")
    flush, calls, left = h5py.File.flush, [], []

    def flushing(file):
        calls.append(1)
        if len(calls) == 3:
            left.append(partial.read_bytes())
            raise RuntimeError("Unable to synchronously flush file (errno = 116, Stale file handle)")
        flush(file)

    monkeypatch.setattr(h5py.File, "flush", flushing)
    blocks = nwbflow.blocks((np.ones((ROWS, 4), "i2") for _ in range(50)), shape=(None, 4), dtype="int16")
    with pytest.raises(nwbflow.StorageError, match="flushing what has been stored"):
        nwbflow.write(session(nwbflow.DataIO(blocks, chunks=(ROWS, 4))), path, progress=False)
    assert left == [partial.read_bytes()]  # whatever was flushed later, it was not flushed to there
    assert not path.exists()


@pytest.mark.requirement("W6")
def test_lost_writes_are_told_to_the_right_write_whichever_ends_first():
    class Unraisable:
        def __init__(self, file):
            self.exc_value = RuntimeError(f"Can't decrement id ref count (filename = '{file}', errno = 5)")

    before = sys.unraisablehook
    first, second = hdf5.lost_writes("/first", "first.nwb"), hdf5.lost_writes("/second", "second.nwb")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    sys.unraisablehook(Unraisable("/second"))
    with pytest.raises(nwbflow.StorageError, match=r"second\.nwb"):
        second.__exit__(None, None, None)
    assert sys.unraisablehook is before
