"""``nwbflow record``: real sockets, a real LSL outlet, real signals, and files read by stock h5py."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest

from nwbflow.tools.feeds import Client, FeedError

pytestmark = pytest.mark.requirement("S7")
HERE = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("nwbflow")
METADATA = """
session_description: fed
session_start_time: 2026-01-01T10:00:00+01:00
subject: {subject_id: m1, species: Mus musculus, sex: F, age: P90D}
streams:
  - {name: probe, kind: electrical, dtype: int16, channels: 4, rate: 30000, conversion: 2.34e-6}
  - {name: camera, dtype: uint8, shape: [3, 5], unit: a.u., description: frames}
"""
LSL = """
[ports]
IPv6 = disable
[multicast]
ResolveScope = machine
[lab]
KnownPeers = {127.0.0.1}
SessionID = %s
[log]
level = -3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a metadata file; LSL sees only what is on this machine and of this test."""
    (tmp_path / "m.yaml").write_text(METADATA)
    (tmp_path / "lsl.cfg").write_text(LSL % f"test-{os.getpid()}-{tmp_path.name}")
    monkeypatch.setenv("LSLAPICFG", str(tmp_path / "lsl.cfg"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Running:
    """A command that runs, with what it says on standard error."""

    def __init__(self, *args):
        self.process = subprocess.Popen(
            [COMMAND, "record", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said = []

    def until(self, pattern):
        """Read what it says until a line matches; return the match."""
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError("".join(self.said))

    def end(self, number=None):
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, "".join(self.said) + err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def start():
    running = []

    def run(*args):
        running.append(Running(*args))
        return running[-1]

    yield run
    for each in running:
        each.__exit__()


def port(running):
    return ("127.0.0.1", int(running.until(r"listening on 127\.0\.0\.1:(\d+)")[1]))


def probe(address):
    return Client(address, "probe", dtype="int16", shape=(4,))


SAMPLES = np.random.default_rng(2).integers(-900, 900, (3000, 4)).astype("i2")
FRAMES = np.random.default_rng(3).integers(0, 255, (30, 3, 5)).astype("u1")


def test_clients_feed_a_file_that_ends_when_they_have(folder, start):
    running = start("a.nwb", "--tcp", "0", "--unix", "feeds", "--metadata", "m.yaml", "--json", "--events", "log.jsonl")
    address = port(running)
    with probe(address) as one, Client("feeds", "camera", dtype="uint8", shape=(3, 5), timestamps=True) as two:
        assert two.session_start == 1767258000.0
        one.send(SAMPLES)
        two.send(FRAMES, np.arange(30) / 25)
    code, out, err = running.end()
    assert (code, "Traceback" in err) == (0, False)
    assert json.loads(out)["raw_bytes"] == SAMPLES.nbytes + FRAMES.nbytes + 30 * 8
    assert json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["event"] == "RunFinished"
    with pynwb.NWBHDF5IO("a.nwb", "r") as io:
        nwbfile = io.read()
        series, camera = nwbfile.acquisition["probe"], nwbfile.acquisition["camera"]
        assert (type(series).__name__, series.conversion, series.rate) == ("ElectricalSeries", 2.34e-6, 30000.0)
        assert (len(nwbfile.electrodes), nwbfile.subject.subject_id) == (4, "m1")
        assert np.array_equal(series.data[:], SAMPLES)
        assert np.array_equal(camera.data[:], FRAMES)
        assert np.array_equal(camera.timestamps[:], np.arange(30) / 25)
    assert pynwb.validate(path="a.nwb") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_it_well(number, folder, start):
    running = start("a.nwb", "--tcp", "0", "--metadata", "m.yaml")
    client = probe(port(running))
    client.send(SAMPLES)
    assert client.wait(30)
    running.until("recording to a.nwb")
    code, out, err = running.end(number)
    assert (code, "Traceback" in err) == (0, False)
    assert "written: " in out

    def send_on():
        while True:
            client.send(SAMPLES[:1], timeout=30)

    with pytest.raises(FeedError, match="the recording has ended; 3000 rows of the stream are safe"):
        send_on()
    with contextlib.suppress(FeedError):
        client.close()
    with h5py.File("a.nwb") as file:
        assert np.array_equal(file["acquisition/probe/data"][:], SAMPLES)
        assert len(file["acquisition/camera/data"]) == 0
    assert not list(folder.glob("a.nwb.*"))


def test_the_second_ctrl_c_does_not_wait_and_says_how_to_get_the_file(folder, start, nwbflow):
    noise = np.random.default_rng(7).integers(-30_000, 30_000, (8_000_000, 4), "i2")  # more than a second to compress
    running = start("a.nwb", "--tcp", "0", "--metadata", "m.yaml")
    client = probe(port(running))
    for begun in range(0, len(noise), 250_000):
        client.send(noise[begun : begun + 250_000])
    assert client.wait(60)
    running.process.send_signal(signal.SIGINT)
    running.until("ending")
    code, _, err = running.end(signal.SIGINT)
    client.close(0)
    assert code == 130
    assert re.search(r"[Rr]un:? nwbflow recover \S*a\.nwb", " ".join(err.split()))
    assert "Traceback" not in err
    assert not (folder / "a.nwb").exists()
    assert nwbflow("recover", "a.nwb", folder=folder).code == 0
    with h5py.File("a.nwb") as file:
        assert np.array_equal(file["acquisition/probe/data"][:], noise)


def test_a_killed_recording_gives_what_it_had_acknowledged(folder, start, nwbflow):
    running = start("a.nwb", "--tcp", "0", "--metadata", "m.yaml")
    client = probe(port(running))
    client.send(SAMPLES)
    assert client.wait(30)
    running.end(signal.SIGKILL)
    client.close(0)
    assert not (folder / "a.nwb").exists()
    refused = nwbflow("record", "a.nwb", "--tcp", "0", "--metadata", "m.yaml", folder=folder)
    assert refused.code == 1
    assert "nwbflow recover" in refused.err
    assert nwbflow("recover", "a.nwb", folder=folder).code == 0
    with h5py.File("a.nwb") as file:
        assert np.array_equal(file["acquisition/probe/data"][:], SAMPLES)


def test_a_recording_larger_than_its_disk_goes_on_in_the_folder_given(folder, start, nwbflow, request):
    disk, spill = request.getfixturevalue("small_disk"), folder / "spill"
    spill.mkdir()
    noise = np.random.default_rng(7).integers(-30_000, 30_000, (3_000_000, 4), "i2")  # 24 MB, on a disk of 12 MiB
    path = disk / "a.nwb"
    running = start(path, "--tcp", "0", "--metadata", "m.yaml", "--spill", spill)
    client = probe(port(running))
    for begun in range(0, len(noise), 250_000):
        client.send(noise[begun : begun + 250_000])
    assert client.wait(60)
    assert list(spill.rglob("*.segment"))
    code, _, err = running.end(signal.SIGINT)  # the file does not fit on the disk either
    with contextlib.suppress(FeedError):
        client.close()
    assert (code, "Traceback" in err) == (1, False)
    assert "nwbflow recover" in err
    assert nwbflow("recover", path, "--output", folder / "a.nwb").code == 0
    with h5py.File("a.nwb") as file:
        assert np.array_equal(file["acquisition/probe/data"][:], noise)


def outlet(kind):
    process = subprocess.Popen(
        [sys.executable, str(HERE / "outlet.py"), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def sent_by(process):
    """Return what an outlet has sent, when it has."""
    told = json.loads(process.stdout.readline())
    return np.array(told["sent"]), np.array(told["stamps"])


def corrections(file, name, rows):
    """Return what was added to the time stamp of each row, by what the file says."""
    data = file[f"acquisition/{name}_clock/data"][:]
    which = np.searchsorted(data[:, 1], np.arange(rows), "right") - 1
    return data[which, 0]


def wait_for_rows(running, log, name, rows):
    """Wait until so many rows are acknowledged, by the events of the recording."""
    while True:
        running.process.poll()
        assert running.process.returncode is None, running.end()
        for line in log.read_text().splitlines() if log.exists() else ():
            event = json.loads(line)
            if event["event"] == "StreamsObserved":
                for stream in event["streams"]:
                    if stream["name"] == f"/acquisition/{name}" and stream["acknowledged"] >= rows:
                        return


def test_lsl_streams_are_in_the_file_sample_for_sample_at_their_corrected_times(folder, start):
    with outlet("steady") as eeg, outlet("events") as events:
        running = start("a.nwb", "--lsl", "type=EEG", "--lsl", "events", "--events", "log.jsonl")
        running.until("recording to a.nwb")
        samples, stamps = sent_by(eeg)
        codes, code_stamps = sent_by(events)
        wait_for_rows(running, folder / "log.jsonl", "rig_eeg", len(samples))
        wait_for_rows(running, folder / "log.jsonl", "events", len(codes))
        code, _, err = running.end(signal.SIGINT)
        eeg.stdin.close()
        events.stdin.close()
    assert (code, "Traceback" in err) == (0, False)
    assert "found rig:eeg: 3 channels of float32, 500 Hz" in err
    with h5py.File("a.nwb") as file:
        series = file["acquisition/rig_eeg"]
        origin = float(re.search(r"minus ([\d.]+) s", series.attrs["description"])[1])
        assert series["data"].dtype == np.float32
        assert np.array_equal(series["data"][:], samples.astype("f4"))
        assert np.array_equal(series["timestamps"][:], stamps + corrections(file, "rig_eeg", len(samples)) - origin)
        assert series["data"].attrs["unit"] == "microvolts"
        about = json.loads(series.attrs["comments"])
        assert about["channel_labels"] == ["Fp1", "Fp2", "Cz"]
        assert about["lsl"] == {"name": "rig:eeg", "type": "EEG", "source_id": "eeg-source", "nominal_rate": 500.0}
        marks = file["acquisition/events"]
        assert marks["data"].dtype == np.int32
        assert np.array_equal(marks["data"][:], codes)
        assert np.array_equal(marks["timestamps"][:], code_stamps + corrections(file, "events", 7) - origin)
        assert np.abs(corrections(file, "events", 7)).max() < 0.1  # one machine, one clock
        assert 0 <= series["timestamps"][0] < 60
    assert pynwb.validate(path="a.nwb") == []


def test_an_lsl_stream_that_is_lost_and_comes_back_leaves_a_gap_and_a_note(folder, start):
    with outlet("steady") as first:
        running = start("a.nwb", "--lsl", "rig:eeg", "--events", "log.jsonl")
        running.until("recording to a.nwb")
        samples, _ = sent_by(first)
        wait_for_rows(running, folder / "log.jsonl", "rig_eeg", len(samples))
        first.kill()
    running.until("nothing has come for 2 s, after 600 rows")
    with outlet("steady") as second:
        again, _ = sent_by(second)
        running.until(r"goes on after \d+\.\d s; the gap is in the time stamps, before row 600")
        wait_for_rows(running, folder / "log.jsonl", "rig_eeg", len(samples) + 1)
        code, _, _ = running.end(signal.SIGINT)
        second.stdin.close()
    assert code == 0
    with h5py.File("a.nwb") as file:
        data, times = file["acquisition/rig_eeg/data"][:], file["acquisition/rig_eeg/timestamps"][:]
        assert np.array_equal(data[:600], samples.astype("f4"))
        assert len(data) > 600
        rest = data[600:]
        assert np.array_equal(
            rest, again.astype("f4")[len(again) - len(rest) :]
        )  # what was sent before it was found is gone
        assert np.diff(times).max() > 2


def test_lsl_streams_that_cannot_be_recorded_are_refused(folder, nwbflow):
    with outlet("text") as process:
        refused = Running("a.nwb", "--lsl", "text")
        code, _, err = refused.end()
        assert code == 1
        assert "the stream text carries text, and numbers only can be recorded" in err
        missing = Running("a.nwb", "--lsl", "type=nothing", "--lsl-wait", "0.2")
        code, _, err = missing.end()
        assert code == 1
        assert "no LSL stream with type nothing was found within 0.2 s; there are: text (type=Markers" in err
        process.stdin.close()
    assert not list(folder.glob("a.nwb*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_looking_for_a_stream_can_be_ended(number, code, folder, start):
    looking = start("a.nwb", "--lsl", "nobody", "--lsl-wait", "3600")
    looking.until("looking for the LSL stream nobody")
    assert looking.end(number)[0] == code
    assert not list(folder.glob("a.nwb*"))


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "nothing to record from: pass --lsl NAME, --tcp PORT or --unix PATH"),
        (("--tcp", "0"), "no streams are declared for the clients: pass --metadata FILE"),
        (("--tcp", "here", "--metadata", "m.yaml"), "here"),
        (("--tcp", "0.0.0.0:0", "--metadata", "m.yaml"), "give a token"),
        (("--lsl", "colour=red"), "give a stream's name"),
        (("--lsl", "x", "--metadata", "m.yaml"), "nowhere to send them to"),
        (("--tcp", "0", "--metadata", "m.yaml", "--duration", "0"), "--duration 0.0: give seconds"),
        (("--tcp", "0", "--metadata", "m.yaml", "--token-file", "none"), "the token can't be read"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_is_written(args, text, folder, nwbflow):
    done = nwbflow("record", "a.nwb", *args, folder=folder)
    assert done.code == 1
    assert text in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert not list(folder.glob("a.nwb*"))


BAD_STREAMS = {
    "streams: [{name: a, dtype: int16, colour: red}]": "streams[0].colour is no known key: known are",
    "streams: [{name: a}]": "streams[0] has no dtype: give int8 to int64",
    "streams: [{name: a, dtype: complex64}]": "streams[0].dtype is 'complex64': give int8 to int64",
    "streams: [{name: a/b, dtype: int8}]": "streams[0].name is 'a/b': give a name without",
    "streams: [{name: a, dtype: int8, rate: 0}]": "streams[0].rate is 0: give rows per second",
    "streams: [{name: a, dtype: int8, channels: 0}]": "streams[0].channels is 0: give a whole number",
    "streams: [{name: a, dtype: int8, shape: [0]}]": "streams[0].shape[0] is 0: give a list of lengths",
    "streams: {name: a}": "streams is {'name': 'a'}: give a list of tables",
    "streams: [{name: a, dtype: int8}, {name: a, dtype: int8}]": "streams: two are called a",
    "streams: [{name: a, dtype: int8, channels: 2, shape: [2]}]": "streams: a has channels and shape",
    "streams: [{name: a, dtype: int8, kind: electrical}]": "streams: a is electrical: give its number of channels",
    "streams: [{name: a, dtype: int8}]\nelectrodes: {x: 1}": "electrodes belongs to an electrical stream",
    "streams: [{name: a, dtype: int8}]\nseries: {unit: V}": "series belongs to nwbflow convert",
}


@pytest.mark.parametrize("text", BAD_STREAMS)
def test_streams_that_are_wrong_are_named_with_the_way_out(text, folder, nwbflow):
    (folder / "m.yaml").write_text(text)
    done = nwbflow("record", "a.nwb", "--tcp", "0", "--metadata", "m.yaml", folder=folder)
    assert done.code == 1
    assert BAD_STREAMS[text] in " ".join(done.err.split())
    assert not list(folder.glob("a.nwb*"))


def test_it_ends_after_its_duration(folder, nwbflow):
    done = nwbflow("record", "a.nwb", "--tcp", "0", "--metadata", "m.yaml", "--duration", "0.3", folder=folder)
    assert done.code == 0
    assert (folder / "a.nwb").exists()
