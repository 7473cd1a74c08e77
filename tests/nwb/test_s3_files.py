"""HDF5 files written to an S3 server, read by stock PyNWB in another process."""

import json
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest
from s3_proxy import s3_proxy
from s3_server import options, s3_server
from support import session

import nwbflow
from nwbflow.errors import ErrorKind
from nwbflow.model.events import DatasetVerified, PartSent, RunFinished, RunStarted
from nwbflow.sinks import file_upload
from nwbflow.testing.simulate import neuropixels
from nwbflow.tools.convert import plan_raw
from nwbflow.tools.recording import SeriesSettings

pytestmark = pytest.mark.requirement("P4")

READER = Path(__file__).parents[1] / "s3_reader.py"
SAMPLES = np.random.default_rng(3).integers(0, 2**12, (30000, 16), dtype="i2")
PART = 64 * 1024


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def proxy(server):
    with s3_proxy(server) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(file_upload, "PART_BYTES", PART)


@pytest.fixture(scope="module")
def read(server):
    """Look at an address with stock PyNWB, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, str(READER), server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def look(url):
            print(url, file=reader.stdin, flush=True)
            return json.loads(reader.stdout.readline())

        yield look
        reader.stdin.close()


@pytest.fixture
def environment(server, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": server,
    }.items():
        monkeypatch.setenv(name, value)


def crc(data):
    return zlib.crc32(np.ascontiguousarray(data).tobytes())


def client(endpoint):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )


def keys(endpoint, prefix):
    return [one["Key"] for one in client(endpoint).list_objects_v2(Bucket="lab", Prefix=prefix).get("Contents", ())]


def test_a_file_is_made_here_sent_in_parts_and_read_by_stock_pynwb(server, proxy, read, tmp_path):
    seen, url = [], "s3://lab/f/a b%20c.nwb"
    given = {"storage_options": options(proxy.endpoint), "staging": tmp_path, "memory": "8 MB"}
    receipt = nwbflow.write(session(a=SAMPLES), url, progress=seen.append, **given)
    assert read(url) == {"a": crc(SAMPLES)}
    assert (str(receipt.path), receipt.verified, receipt.notes) == (url, "stored", ())
    parts = [event for event in seen if isinstance(event, PartSent)]
    assert [type(seen[0]), type(seen[-1])] == [RunStarted, RunFinished]
    assert seen[0].path == receipt.path
    assert seen.index(parts[0]) > max(n for n, event in enumerate(seen) if isinstance(event, DatasetVerified))
    assert sorted(event.number for event in parts) == list(range(1, receipt.sent.parts + 1))
    assert parts[-1].bytes_done == parts[-1].bytes_total == receipt.sent.size
    assert receipt.sent.kept == 0
    assert receipt.sent.parts > 3
    found = client(server).head_object(Bucket="lab", Key="f/a b%20c.nwb")
    assert (found["ContentLength"], found["ETag"].strip('"')) == (receipt.sent.size, receipt.sent.tag)
    assert keys(server, "f/a b%20c") == ["f/a b%20c.nwb"]
    assert list(tmp_path.iterdir()) == []
    sent = [path for method, path in proxy.requests if method == "PUT" and "partNumber" in path]
    assert len(sent) == receipt.sent.parts


def test_parts_on_their_way_fit_into_memory(proxy, tmp_path):
    lock, now, most = threading.Lock(), [0], [0]
    forward = proxy.forward

    def counted(handler, body):
        if "partNumber" not in handler.path:
            return forward(handler, body)
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return forward(handler, body)
        finally:
            with lock:
                now[0] -= 1

    proxy.forward = counted
    path = tmp_path / "a.nwb"
    nwbflow.write(session(a=SAMPLES), path, progress=False)
    given = {"storage_options": options(proxy.endpoint), "progress": False}
    nwbflow.upload(path, "s3://lab/m.nwb", memory=2 * PART + 1, **given)
    assert most[0] <= 2
    assert path.exists()


def test_sizes_of_parts():
    for size in (0, 1, 10**6, 10**9, 10**11, 5 * 2**40):
        part = file_upload.part_size(size)
        assert part * 10_000 >= size
        assert part == PART or (part % 2**20 == 0 and (part - 2**20) * 10_000 < size)


def test_streams_need_a_folder_that_somebody_named(server, read, tmp_path):
    def stream():
        return nwbflow.blocks((SAMPLES[at : at + 7000] for at in range(0, 30000, 7000)), shape=(None, 16), dtype="i2")

    url, given = "s3://lab/stream.nwb", {"storage_options": options(server), "progress": False}
    with pytest.raises(nwbflow.PlanError, match=r"unknown length may not fit.*staging=") as caught:
        nwbflow.write(session(a=stream()), url, **given)
    assert caught.value.kind is ErrorKind.NO_SPACE
    assert keys(server, "stream") == []
    nwbflow.write(session(a=stream()), url, staging=tmp_path, **given)
    assert read(url) == {"a": crc(SAMPLES)}


class Huge:
    shape, dtype = (2**40, 64), np.dtype("i2")

    def __getitem__(self, key):
        raise AssertionError("refused before anything is read")


def test_the_folder_for_temporary_files_is_used_where_there_is_room(server, read, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = {"storage_options": options(server), "progress": False}
    with pytest.raises(nwbflow.PlanError, match=f"may not fit into {tmp_path}"):
        nwbflow.write(session(a=nwbflow.DataIO(Huge())), "s3://lab/huge.nwb", **given)
    nwbflow.write(session(a=SAMPLES), "s3://lab/little.nwb", **given)
    assert read("s3://lab/little.nwb") == {"a": crc(SAMPLES)}
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_sends_nothing_and_what_had_arrived_is_kept(server, read, tmp_path):
    def give():
        yield SAMPLES[:20000]
        raise ValueError("the amplifier went away")

    url = "s3://lab/failing.nwb"
    given = {"storage_options": options(server), "staging": tmp_path, "progress": False}
    stream = nwbflow.blocks(give(), shape=(None, 16), dtype="i2")
    with pytest.raises(ValueError, match="the amplifier went away") as caught:
        nwbflow.write(session(a=stream), url, **given)
    assert f"Nothing was sent to {url}" in caught.value.__notes__
    assert keys(server, "failing") == []
    (partial,) = tmp_path.rglob("*.partial")
    with h5py.File(partial) as file:
        assert np.array_equal(file["acquisition/a/data"], SAMPLES[:20000])
    with pytest.raises(nwbflow.TargetError, match="left from an interrupted write"):
        nwbflow.write(session(a=SAMPLES), url, **given)
    nwbflow.write(session(a=SAMPLES), url, overwrite=True, **given)
    assert (read(url), list(tmp_path.iterdir())) == ({"a": crc(SAMPLES)}, [])


def test_what_is_there_is_replaced_only_if_asked(server, read, tmp_path):
    url = "s3://lab/twice.nwb"
    given = {"storage_options": options(server), "staging": tmp_path, "progress": False}
    nwbflow.write(session(a=SAMPLES), url, **given)
    with pytest.raises(nwbflow.TargetError, match="pass overwrite=True") as caught:
        nwbflow.write(session(b=SAMPLES), url, **given)
    assert caught.value.kind is ErrorKind.EXISTS
    assert read(url) == {"a": crc(SAMPLES)}
    nwbflow.write(session(b=SAMPLES[::2]), url, overwrite=True, **given)
    assert read(url) == {"b": crc(SAMPLES[::2])}


@pytest.mark.parametrize("external", ["error", "link"])
def test_links_would_lead_nowhere(server, tmp_path, external):
    nwbflow.write(session(a=SAMPLES), tmp_path / "other.nwb", progress=False)
    with h5py.File(tmp_path / "other.nwb") as other:
        data = other["acquisition/a/data"]
        linked = nwbflow.link(data) if external == "error" else data
        with pytest.raises(nwbflow.UnsupportedError, match=r"lead nowhere:\n    /acquisition/b/data") as caught:
            nwbflow.write(
                session(b=linked),
                "s3://lab/linked.nwb",
                external=external,
                storage_options=options(server),
                staging=tmp_path,
                progress=False,
            )
    assert caught.value.kind is ErrorKind.FOREIGN
    assert [path.name for path in tmp_path.iterdir()] == ["other.nwb"]
    assert keys(server, "linked") == []


@pytest.mark.parametrize(
    ("url", "more", "text"),
    [
        ("s3://lab/x.nwb", {"staging": "/nowhere"}, "/nowhere does not exist; make the folder first"),
        ("s3://lab/x.nwb", {"storage_options": {"colour": 1}}, "colour is unknown"),
        ("s3://lab/x.nwb", {"storage_options": {"client_options": {"proxy_url": "p"}}}, "proxy_url"),
        ("s3://lab/x.nwb", {"storage_options": {"client_options": {"timeout": "soon"}}}, "'soon' is no time"),
        ("s3://lab/x.nwb.zarr", {"staging": "."}, "staging= is for HDF5 files"),
        ("x.nwb", {"staging": "."}, "staging= is for HDF5 files"),
        ("s3://lab", {}, "give a bucket and a name"),
        ("s3://lab/", {}, "give a bucket and a name"),
        ("s3://lab//x.nwb", {}, "give a bucket and a name"),
        ("az://lab/x.nwb", {}, "sent to S3 only"),
        ("s3://nobody/x.nwb", {}, "no such bucket"),
        ("s3://no body/x.nwb", {}, "can't be such a bucket"),
    ],
)
def test_requests_that_can_not_be(server, url, more, text):
    given = {"storage_options": options(server)} if "://" in url else {}
    with pytest.raises(nwbflow.NwbflowError, match=text):
        nwbflow.write(session(a=SAMPLES), url, progress=False, **{**given, **more})


def test_without_botocore_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(nwbflow.UnsupportedError, match=r'pip install "nwbflow\[s3\]"') as caught:
        nwbflow.write(session(a=SAMPLES), "s3://lab/x.nwb", progress=False)
    assert caught.value.kind is ErrorKind.PLUGIN


@pytest.mark.parametrize("until", [None, "2999-01-01T00:00:00+00:00"])
def test_credentials_may_come_from_a_provider(server, read, tmp_path, until):
    from datetime import datetime

    def provide():
        ends = None if until is None else datetime.fromisoformat(until)
        return {"access_key_id": "key", "secret_access_key": "secret", "token": None, "expires_at": ends}

    given = {name: value for name, value in options(server).items() if "key" not in name}
    nwbflow.write(
        session(a=SAMPLES[:99]),
        f"s3://lab/provided{until is None}.nwb",
        storage_options={**given, "credential_provider": provide},
        progress=False,
    )
    assert read(f"s3://lab/provided{until is None}.nwb") == {"a": crc(SAMPLES[:99])}


def test_links_inside_the_file_and_tables_come_back(server, read, tmp_path):
    nwbfile = session(a=SAMPLES)
    first = nwbfile.acquisition["a"]
    nwbfile.add_acquisition(pynwb.TimeSeries(name="b", data=first, unit="V", rate=1.0))
    nwbflow.write(nwbfile, "s3://lab/within.nwb", storage_options=options(server), staging=tmp_path, progress=False)
    assert read("s3://lab/within.nwb") == {"a": crc(SAMPLES), "b": crc(SAMPLES)}


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "nwbflow.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_convert_and_upload_take_an_address(server, proxy, read, tmp_path, environment, monkeypatch):
    samples = neuropixels(0.1)
    samples.tofile(tmp_path / "a.bin")
    staging, url = tmp_path / "scratch", "s3://lab/cli/c.nwb"
    staging.mkdir()
    recording = ["--dtype", "int16", "--channels", str(samples.shape[1]), "--rate", "30000"]
    asked = ["convert", str(tmp_path / "a.bin"), url, *recording, "--staging", str(staging)]
    series = SeriesSettings(kind="electrical", channels=samples.shape[1], rate=30_000.0)
    planned = plan_raw(tmp_path / "a.bin", url, dtype="int16", series=series, staging=staging)
    assert (str(planned.path), list(staging.iterdir()), keys(server, "cli")) == (url, [], [])
    monkeypatch.setenv("AWS_ENDPOINT", proxy.endpoint)
    proxy.decide = lambda method, path: ("answer", 403, "AccessDenied") if "partNumber" in path else None
    failed = command(*asked)
    assert failed.returncode == 1
    assert "is whole and verified" in failed.stderr
    assert keys(server, "cli/c.nwb") == ["cli/c.nwb.partial"]
    proxy.decide = lambda method, path: None
    with pytest.raises(nwbflow.TargetError, match="was made by an earlier call for"):
        plan_raw(tmp_path / "a.bin", url, dtype="int16", series=series, staging=staging)
    way_out = next(line for line in failed.stderr.splitlines() if "nwbflow upload" in line)
    done = command("upload", *way_out.partition("nwbflow upload ")[2].split(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sent"]["size"] > 0
    assert read(url) == {"ElectricalSeries": crc(samples)}
    assert list(staging.iterdir()) == []
    assert keys(server, "cli/c.nwb") == ["cli/c.nwb"]


def test_upload_takes_whole_files_only(server, tmp_path):
    given = {"storage_options": options(server), "progress": False}
    nwbflow.write(session(a=SAMPLES), tmp_path / "a.nwb", progress=False)
    whole = (tmp_path / "a.nwb").read_bytes()
    (tmp_path / "cut.nwb").write_bytes(whole[:-1000])
    (tmp_path / "a.nwb.partial").write_bytes(whole)
    (tmp_path / "text.nwb").write_text("text")
    for name, kind in {
        "none.nwb": ErrorKind.MISSING,
        "cut.nwb": ErrorKind.NOT_HDF5,
        "a.nwb.partial": ErrorKind.INTERRUPTED,
        "text.nwb": ErrorKind.NOT_HDF5,
    }.items():
        with pytest.raises(nwbflow.SourceError) as caught:
            nwbflow.upload(tmp_path / name, "s3://lab/up.nwb", **given)
        assert caught.value.kind is kind
    with h5py.File(tmp_path / "a.nwb", "r+"), pytest.raises(nwbflow.TargetError, match="open for writing") as caught:
        nwbflow.upload(tmp_path / "a.nwb", "s3://lab/up.nwb", **given)
    assert caught.value.kind is ErrorKind.LOCKED
    assert keys(server, "up.nwb") == []
    nwbflow.upload(tmp_path / "a.nwb", "s3://lab/up.nwb", **given)
    assert client(server).get_object(Bucket="lab", Key="up.nwb")["Body"].read() == whole
    nwbflow.write(session(b=SAMPLES), tmp_path / "b.nwb", progress=False)
    with pytest.raises(nwbflow.TargetError, match="exists"):
        nwbflow.upload(tmp_path / "b.nwb", "s3://lab/up.nwb", **given)
