"""A recorder takes blocks from anywhere and leaves an ordinary NWB file."""

import os
import pickle
import subprocess
import sys
import textwrap
import threading
import zlib
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest
from pynwb import NWBHDF5IO, TimeSeries
from support import describe, session

import nwbflow
from nwbflow.errors import DurabilityError, ErrorKind
from nwbflow.model.events import ChunkStored, RunFinished
from nwbflow.record.intake import Intake

pytestmark = pytest.mark.usefixtures("no_thread_left")


def alone(path):
    """Whether there is nothing beside a file."""
    return [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.requirement("S1")
def test_a_recording_becomes_an_ordinary_compressed_file(path, paired, block, reader):
    with nwbflow.Recorder(paired, path, workers=2) as recorder:
        for first in range(0, 1050, 150):
            data, times = block(150, first)
            ticket = recorder["probe"].append(data, timestamps=times)
            assert (ticket.first, ticket.count) == (first, 150)
        assert ticket.wait(30)
        assert recorder.acknowledged("probe") == 1050
        recorder["lick"].append(np.arange(7.0))
        assert not path.exists()
    assert alone(path)
    data, times = block(1050)
    seen = reader.open(path, data=True)
    assert seen.error == ""
    assert seen.shapes == {"probe": (1050, 4), "lick": (7,)}
    assert seen.checksums["probe"] == zlib.crc32(data.tobytes())
    assert seen.times["probe"] == (1050, zlib.crc32(times.tobytes()))
    assert pynwb.validate(path=str(path)) == []
    with h5py.File(path) as file:
        stored = file["acquisition/probe/data"]
        assert (stored.chunks, stored.compression, stored.shuffle) == ((100, 2), "gzip", True)
        assert stored.id.get_num_chunks() == 22
    receipt = recorder.receipt
    assert {d.name: d.layout.shape for d in receipt.datasets} == {
        "/acquisition/probe/data": (1050, 4),
        "/acquisition/probe/timestamps": (1050,),
        "/acquisition/lick/data": (7,),
    }
    assert receipt.verified == "stored"
    assert receipt.notes == ()
    assert recorder.close() is receipt


@pytest.mark.requirement("S1")
def test_the_file_is_the_one_that_write_makes_of_the_same_data(path, tmp_path):
    data = np.random.default_rng(1).integers(-50, 50, (120_000, 12)).astype("i2")
    one, other = (
        session(x=nwbflow.live((None, 12), "int16")),
        session(x=nwbflow.blocks([data], shape=(None, 12), dtype="i2")),
    )
    with nwbflow.Recorder(one, path) as recorder:
        for start in range(0, len(data), 7001):
            recorder["x"].append(data[start : start + 7001])
    written = tmp_path / "written.nwb"
    with nwbflow.NWBHDF5IO(written, "w", profile="default", libver=("v110", "v110")) as io:
        io.write(other)
    recorded, expected = (describe(file)["/acquisition/x/data"] for file in (path, written))
    assert recorded == expected
    assert recorded["chunks"][0] > 1000


@pytest.mark.requirement("S1")
def test_many_threads_append_whole_blocks_each_in_its_own_order(path, reader):
    series = {"a": 4, "b": 2, "c": 1}
    nwbfile = session(**{name: nwbflow.live((None, columns), "int32", chunks=256) for name, columns in series.items()})
    tickets = {name: [] for name in series}
    lock = threading.Lock()

    def feed(recorder, name, thread):
        chance = np.random.default_rng(thread)
        for number in range(40):
            rows = int(chance.integers(1, 60))
            block = np.full((rows, series[name]), thread * 1000 + number)
            ticket = recorder[name].append(block)
            with lock:
                tickets[name].append((ticket.first, rows, thread, number))

    with nwbflow.Recorder(nwbfile, path, queue="64 kB") as recorder:
        threads = [threading.Thread(target=feed, args=(recorder, name, t)) for t in range(5) for name in series]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with NWBHDF5IO(str(path), "r") as io:
        acquisition = io.read().acquisition
        for name in series:
            data = acquisition[name].data[:]
            at, latest = 0, {}
            for first, rows, thread, number in sorted(tickets[name]):
                assert first == at
                assert (data[at : at + rows] == thread * 1000 + number).all()
                assert latest.get(thread, -1) < number
                latest[thread] = number
                at += rows
            assert at == len(data)
            assert len(tickets[name]) == 200


@pytest.mark.requirement("S1", "S3")
def test_no_series_waits_for_all_that_another_has_queued():
    spec = nwbflow.record.manifest
    series = [spec.LiveSeries(name=name, datasets=()) for name in ("flood", "trickle")]
    intake = Intake(series, 2**30)
    for _ in range(50):
        intake.put(0, (np.zeros(2**20, "u1"),), 1, None)
    intake.put(1, (np.zeros(8, "u1"),), 1, None)
    assert 1 in {block.series for block in intake.take()}
    with pytest.raises(nwbflow.SourceError):
        intake.put(1, (np.zeros(2**30, "u1"),), 1, None)


def test_whoever_watches_the_partial_file_sees_whole_chunks(path, paired, block):
    stored = threading.Event()

    def observe(event):
        if isinstance(event, ChunkStored) and event.offset[0] >= 900 and "probe/data" in event.dataset:
            stored.set()

    data, times = block(1050)
    with nwbflow.Recorder(paired, path, progress=observe) as recorder:
        recorder["probe"].append(data, timestamps=times)
        assert stored.wait(30)
        with h5py.File(path.with_name(path.name + ".partial"), "r", swmr=True) as file:
            seen = file["acquisition/probe/data"][:]
            assert len(seen) >= 900
            assert (seen[:900] == data[:900]).all()


def test_events_add_up_to_the_file(path, paired, block):
    events = []
    data, times = block(450)
    with nwbflow.Recorder(paired, path, progress=events.append) as recorder:
        recorder["probe"].append(data, timestamps=times)
    chunks = [event for event in events if isinstance(event, ChunkStored)]
    assert sum(event.raw_bytes for event in chunks) == data.nbytes + times.nbytes == recorder.receipt.raw_bytes
    with h5py.File(path) as file:
        stored = sum(file[f"acquisition/probe/{name}"].id.get_storage_size() for name in ("data", "timestamps"))
    assert sum(event.stored_bytes for event in chunks) == stored == recorder.receipt.stored_bytes
    assert isinstance(events[-1], RunFinished)


@pytest.mark.requirement("S1")
def test_what_is_declared_and_never_fed_has_no_rows(path, paired, reader):
    with nwbflow.Recorder(paired, path):
        pass
    assert reader.open(path, data=True).shapes == {"probe": (0, 4), "lick": (0,)}


@pytest.mark.requirement("S1")
def test_odd_time_stamps_are_taken_counted_and_noted(path, paired, block):
    data, _ = block(6)
    with nwbflow.Recorder(paired, path) as recorder:
        recorder["probe"].append(data[:3], timestamps=[5.0, np.nan, 4.0])
        recorder["probe"].append(data[3:], timestamps=[3.0, 3.0, np.nan])
    assert recorder.receipt.notes == (
        "/acquisition/probe/timestamps: 2 time stamps are no number (NaN)",
        "/acquisition/probe/timestamps: time goes backwards at 2 places",
    )


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"data": np.zeros((3, 5), "i2"), "timestamps": np.zeros(3)}, ErrorKind.SHAPE, "expected (k, 4)"),
        ({"data": np.zeros(4, "i2"), "timestamps": np.zeros(1)}, ErrorKind.SHAPE, "expected (k, 4)"),
        ({"data": np.int16(3), "timestamps": np.zeros(1)}, ErrorKind.SHAPE, "shape ()"),
        ({"data": np.zeros((1, 3, 4), "i2"), "timestamps": np.zeros(3)}, ErrorKind.SHAPE, "expected (k, 4)"),
        ({"data": np.full((3, 4), 1.5), "timestamps": np.zeros(3)}, ErrorKind.LOSSY, "1.5"),
        ({"data": np.full((3, 4), 70000), "timestamps": np.zeros(3)}, ErrorKind.LOSSY, "70000"),
        ({"data": np.full((3, 4), "a"), "timestamps": np.zeros(3)}, ErrorKind.DTYPE, "numbers"),
        ({"data": [[1, 2, 3, 4], [5, 6]], "timestamps": np.zeros(2)}, ErrorKind.SHAPE, "different lengths"),
        ({"data": np.ma.masked_all((3, 4), "i2"), "timestamps": np.zeros(3)}, ErrorKind.LOSSY, "masked"),
        ({"data": np.zeros((3, 4), "i2"), "timestamps": np.zeros(2)}, ErrorKind.LENGTH, "data 3, timestamps 2"),
        ({"data": np.zeros((3, 4), "i2")}, ErrorKind.OPTION, "timestamps is missing"),
        (
            {"data": np.zeros((3, 4), "i2"), "timestamps": np.zeros(3), "control": [0, 0, 0]},
            ErrorKind.OPTION,
            "control",
        ),
        ({"data": np.zeros((300_000, 4), "i2"), "timestamps": np.zeros(300_000)}, ErrorKind.BOUNDS, "queue="),
    ],
)
def test_a_block_that_does_not_fit_is_refused_and_nothing_of_it_is_taken(
    given, kind, text, path, paired, block, reader
):
    data, times = block(10)
    with nwbflow.Recorder(paired, path, queue="1 MB") as recorder:
        recorder["probe"].append(data, timestamps=times)
        with pytest.raises(ValueError, match="/acquisition/probe") as refused:
            recorder["probe"].append(given.pop("data"), **given)
        assert recorder["probe"].append(data, timestamps=times).first == 10
    assert (refused.value.kind, isinstance(refused.value, nwbflow.NwbflowError)) == (kind, True)
    assert text in str(refused.value)
    assert reader.open(path).shapes["probe"] == (20, 4)


@pytest.mark.requirement("S1")
def test_a_block_without_rows_is_taken_and_is_safe_at_once(path, paired):
    with nwbflow.Recorder(paired, path) as recorder:
        for data in (np.zeros((0, 4), "i2"), np.zeros((0, 4))):
            ticket = recorder["probe"].append(data, timestamps=[])
            assert (ticket.first, ticket.count, ticket.wait(0)) == (0, 0, True)


def test_the_callers_memory_may_be_used_again_at_once(path):
    nwbfile = session(x=nwbflow.live((None, 3), "int16"))
    buffer = np.zeros((20, 3), "i2")
    with nwbflow.Recorder(nwbfile, path) as recorder:
        for number in range(200):
            buffer[:] = number
            recorder["x"].append(buffer)
            buffer[:] = -1
    with NWBHDF5IO(str(path), "r") as io:
        assert (io.read().acquisition["x"].data[:] == np.repeat(np.arange(200), 20)[:, None]).all()


@pytest.mark.requirement("S1")
def test_nothing_can_be_appended_after_closing(path, paired, block):
    data, times = block(5)
    with nwbflow.Recorder(paired, path) as recorder:
        probe = recorder["probe"]
        ticket = probe.append(data, timestamps=times)
    with pytest.raises(nwbflow.SettingsError, match="closed") as refused:
        probe.append(data, timestamps=times)
    assert refused.value.kind is ErrorKind.CLOSED
    assert (probe.acknowledged, ticket.wait(0)) == (5, True)


FORKS = """
    import os, sys, threading
    import nwbflow
    from nwbflow.model.events import ChunkStored
    from support import session

    stored = threading.Event()
    nwbfile = session(x=nwbflow.live((None, 4), "int16", chunks=(100, 2)))
    observe = lambda event: stored.set() if isinstance(event, ChunkStored) else None
    with nwbflow.Recorder(nwbfile, sys.argv[1], progress=observe) as recorder:
        recorder["x"].append([[1, 2, 3, 4]] * 550).wait()
        stored.wait()
        child = os.fork()
        if child == 0:
            try:
                recorder["x"].append([[1, 2, 3, 4]])
            except nwbflow.SettingsError as error:
                sys.exit("forked" not in str(error))  # as any program ends: HDF5 writes what it holds
            sys.exit(2)
        print(os.waitpid(child, 0)[1])
        recorder["x"].append([[5, 6, 7, 8]] * 550)
    print(len(recorder.receipt.notes))
"""


@pytest.mark.requirement("S1")
def test_a_forked_process_can_append_nothing_and_harms_nothing(path, reader):
    script = textwrap.dedent(FORKS)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (done.returncode, done.stdout.split()) == (0, ["0", "0"]), done.stderr
    data = np.repeat(np.array([[1, 2, 3, 4], [5, 6, 7, 8]], "i2"), 550, axis=0)
    assert reader.open(path, data=True).checksums["x"] == zlib.crc32(data.tobytes())
    assert alone(path)


class RigFailed(Exception):
    """An error of the user's own."""


@pytest.mark.requirement("S1")
@pytest.mark.parametrize("kind", [RigFailed, KeyboardInterrupt])
def test_an_exception_finishes_the_file_with_all_that_was_appended(kind, path, paired, block, reader):
    data, times = block(230)

    def rig():
        with nwbflow.Recorder(paired, path) as recorder:
            recorder["probe"].append(data, timestamps=times)
            raise kind

    with pytest.raises(kind) as raised:
        rig()
    assert alone(path)
    assert reader.open(path, data=True).checksums["probe"] == zlib.crc32(data.tobytes())
    assert raised.value.__notes__ == [f"what had been recorded until then is finished, in {path}"]


@pytest.mark.requirement("S1")
def test_a_file_at_the_path_is_replaced_only_if_asked_and_only_at_the_end(path, paired, block, reader):
    path.write_bytes(b"an older file")
    with pytest.raises(nwbflow.TargetError, match="overwrite=True"):
        nwbflow.Recorder(paired, path)
    with nwbflow.Recorder(paired, path, overwrite=True) as recorder:
        data, times = block(10)
        recorder["probe"].append(data, timestamps=times).wait()
        assert path.read_bytes() == b"an older file"
    assert reader.open(path).shapes["probe"] == (10, 4)
    assert alone(path)


@pytest.mark.requirement("S1")
def test_a_path_that_is_being_recorded_to_is_nobody_elses(path, paired, block):
    data, times = block(10)
    with nwbflow.Recorder(paired, path) as recorder:
        recorder["probe"].append(data, timestamps=times)
        for attempt in (
            lambda: nwbflow.Recorder(session(x=nwbflow.live()), path, overwrite=True),
            lambda: nwbflow.write(session(x=np.zeros(3)), path, overwrite=True, progress=False),
            lambda: nwbflow.recover(path),
        ):
            with pytest.raises(nwbflow.TargetError) as refused:
                attempt()
            assert refused.value.kind in (ErrorKind.LOCKED, ErrorKind.EXISTS)
    with NWBHDF5IO(str(path), "r") as io:
        assert len(io.read().acquisition["probe"].data) == 10


def test_series_are_found_by_name_or_by_path(path):
    nwbfile = session(x=nwbflow.live())
    module = nwbfile.create_processing_module("ecephys", "processed")
    module.add(TimeSeries(name="x", data=nwbflow.live(), unit="V", rate=1.0))
    module.add(TimeSeries(name="y", data=nwbflow.live(), unit="V", rate=1.0))
    with nwbflow.Recorder(nwbfile, path) as recorder:
        assert list(recorder) == ["/acquisition/x", "/processing/ecephys/x", "/processing/ecephys/y"]
        assert recorder["y"].name == "/processing/ecephys/y"
        assert recorder["/acquisition/x"].name == recorder["acquisition/x"].name == "/acquisition/x"
        for name in ("x", "z"):
            with pytest.raises(KeyError, match="/processing/ecephys/y"):
                recorder[name]


def test_one_session_is_recorded_into_several_files(path, paired, block):
    data, times = block(10)
    for target in (path, path.with_name("again.nwb")):
        with nwbflow.Recorder(paired, target) as recorder:
            recorder["probe"].append(data, timestamps=times)
        assert recorder.receipt.datasets[0].layout.shape == (10, 4)


def test_live_data_written_by_anything_else_have_no_rows(path, paired):
    nwbflow.write(paired, path, progress=False)
    with NWBHDF5IO(str(path), "r") as io:
        assert io.read().acquisition["probe"].data.shape == (0, 4)


def test_a_durability_error_survives_pickling():
    error = DurabilityError("the disk", kind=ErrorKind.IO, durable=7)
    error.add_note("more")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.kind, again.durable, again.__notes__) == ("the disk", ErrorKind.IO, 7, ["more"])
    assert isinstance(again, nwbflow.StorageError)
