"""What stands beside the target while a file is made, and what happens if somebody else touches it."""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest

import nwbflow
from nwbflow.errors import ErrorKind
from nwbflow.sinks import staging
from nwbflow.sinks.staging import StagedFile, check_target, leftover_path, partial_path


@pytest.fixture
def target(tmp_path):
    return tmp_path / "session.nwb"


def staged(target):
    file = StagedFile(check_target(target, overwrite=True), str(target), {})
    file["x"] = np.arange(5)
    return file


def session(data):
    nwbfile = pynwb.NWBFile(
        session_description="staging", identifier="1", session_start_time=datetime(2026, 1, 1, tzinfo=UTC)
    )
    nwbfile.add_acquisition(pynwb.TimeSeries(name="a", data=data, unit="V", rate=1.0))
    return nwbfile


@pytest.mark.requirement("W6")
def test_a_second_writer_is_refused_until_the_first_has_put_its_file_in_place(target, monkeypatch):
    """Also between closing and renaming, where HDF5's own lock is gone."""
    command = [
        sys.executable,
        "-c",
        "import sys; from nwbflow.sinks.staging import check_target as c; c(sys.argv[1], overwrite=True)",
        str(target),
    ]
    said = []
    sync = staging._sync

    def another_comes(path, flags):
        if path == partial_path(target):
            said.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)
        sync(path, flags)

    monkeypatch.setattr(staging, "_sync", another_comes)
    nwbflow.write(session(np.arange(50_000)), target, progress=False)
    assert len(said) == 1
    assert "is open in another program" in said[0]


@pytest.mark.requirement("W6")
def test_a_partial_file_somebody_else_has_replaced_is_not_published(target):
    target.write_bytes(b"old")
    file = staged(target)
    partial_path(target).unlink()  # what a writer without locks does
    partial_path(target).write_bytes(b"half of another file")
    with pytest.raises(nwbflow.TargetError, match="taken by another write") as raised:
        file.publish()
    assert raised.value.kind is ErrorKind.LOCKED
    file.close()
    assert target.read_bytes() == b"old"


@pytest.mark.requirement("W6")
def test_a_file_this_process_reads_from_is_not_replaced_even_without_locks(target):
    nwbflow.write(session(np.arange(50_000)), target, progress=False)
    old = target.read_bytes()
    with h5py.File(target, locking=False) as source:
        nwbfile = session(source["acquisition/a/data"])
        with pytest.raises(nwbflow.TargetError, match="is open here"), nwbflow.NWBHDF5IO(target, "w") as io:
            io.write(nwbfile)
    assert target.read_bytes() == old


@pytest.mark.requirement("W6")
def test_a_write_protected_file_is_not_replaced():
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to other users
        target = Path(folder) / "session.nwb"
        target.write_bytes(b"precious")
        target.chmod(0o444)
        Path(folder).chmod(0o777)
        child = os.fork()
        if child == 0:
            said = ""
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)  # root may write to everything
                check_target(target, overwrite=True)
            except nwbflow.TargetError as error:
                said = str(error)
            finally:
                os._exit(0 if "write-protected" in said else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.requirement("W6")
def test_what_an_interrupted_write_left_outlives_a_write_that_is_refused(target):
    partial_path(target).write_bytes(b"rows of yesterday")
    with pytest.raises(nwbflow.PlanError):
        nwbflow.write(session(np.zeros((100_000, 4))), target, overwrite=True, memory="1 kB", progress=False)
    with pytest.raises(RuntimeError, match="before anything"), nwbflow.NWBHDF5IO(target, "w"):
        raise RuntimeError("before anything")
    assert partial_path(target).read_bytes() == b"rows of yesterday"
    assert not leftover_path(target).exists()


@pytest.mark.requirement("W6")
def test_the_drop_in_keeps_what_was_left_and_says_where(target):
    partial_path(target).write_bytes(b"rows of yesterday")
    with nwbflow.NWBHDF5IO(target, "w") as io:
        io.write(session(np.arange(9)))
    assert leftover_path(target).read_bytes() == b"rows of yesterday"
    assert any(str(leftover_path(target)) in note for note in io.receipt.notes)


@pytest.mark.requirement("W6")
def test_overwrite_drops_what_was_left_once_the_new_file_is_in_place(target):
    partial_path(target).write_bytes(b"rows of yesterday")
    nwbflow.write(session(np.arange(9)), target, overwrite=True, progress=False)
    assert sorted(p.name for p in target.parent.iterdir()) == [target.name]


@pytest.mark.requirement("W6")
def test_what_was_left_twice_is_kept_twice(target):
    for rows in (b"of monday", b"of tuesday"):
        partial_path(target).write_bytes(rows)
        with nwbflow.NWBHDF5IO(target, "w") as io:
            io.write(session(np.arange(9)))
    kept = [p.read_bytes() for p in sorted(target.parent.glob("*.partial.old*"))]
    assert kept == [b"of monday", b"of tuesday"]


@pytest.mark.requirement("W6")
def test_after_a_failed_publication_the_same_process_may_write_again(target, monkeypatch):
    def broken(path, flags):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(staging, "_sync", broken)
        with pytest.raises(nwbflow.StorageError, match="syncing to disk"):
            nwbflow.write(session(np.arange(50_000)), target, progress=False)
    assert not target.exists()
    assert nwbflow.write(session(np.arange(50_000)), target, overwrite=True, progress=False).raw_bytes == 400_000


FLUSHING_FAILS = """
import resource, signal, sys
import h5py, numpy as np
from nwbflow.sinks.staging import abandon

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = h5py.File(sys.argv[1], "w", libver="latest")
data = file.create_dataset("x", (0, 8), "i2", maxshape=(None, 8), chunks=(4, 8))
file.swmr_mode = True
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, most))
for rows in range(4, 400, 4):
    data.id.set_extent((rows, 8))
try:
    data.flush()
except RuntimeError as error:
    print("flushing failed" if "File too large" in str(error) else error)
abandon(file)
abandon(file)
print("closed" if not file else "open")
"""


@pytest.mark.requirement("W6")
def test_a_file_is_abandoned_cleanly_after_a_dataset_could_not_be_flushed(target):
    """HDF5's cache is in disorder then: closing such a file fails, and the next touch crashes the process."""
    done = subprocess.run([sys.executable, "-c", FLUSHING_FAILS, target], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "flushing failed\nclosed\n", "")
