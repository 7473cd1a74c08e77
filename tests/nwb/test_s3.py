"""Stores written to an S3 server, read by stock hdmf-zarr in another process."""

import json
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pynwb
import pytest
from s3_proxy import s3_proxy
from s3_server import options, s3_server
from support import session

import nwbflow
from nwbflow.errors import ErrorKind
from nwbflow.model.events import ChunkStored, DatasetVerified, RunFailed, RunFinished, RunStarted
from nwbflow.testing.simulate import neuropixels

pytestmark = pytest.mark.requirement("P4")

READER = Path(__file__).parents[1] / "s3_reader.py"
SAMPLES = np.random.default_rng(3).integers(0, 2**12, (60000, 64), dtype="i2")
PROFILE = nwbflow.Profile(name="p", codec=("gzip", 1), chunk_bytes=65536, min_bytes=0)
SMALL = {"profile": PROFILE, "memory": "2 MB", "progress": False}  # several shards


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def proxy(server):
    with s3_proxy(server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def read(server):
    """Look at an address with stock hdmf-zarr, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, str(READER), server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def look(url):
            print(url, file=reader.stdin, flush=True)
            return json.loads(reader.stdout.readline())

        yield look
        reader.stdin.close()


def stream(blocks):
    return nwbflow.blocks(blocks, shape=(None, 64), dtype="i2")


def crc(data):
    return zlib.crc32(np.ascontiguousarray(data).tobytes())


def test_a_store_is_written_once_per_object_and_read_by_stock_hdmf_zarr(proxy, read):
    url = "s3://lab/one/a.nwb.zarr"
    seen = []
    given = session(a=SAMPLES, b=np.arange(5.0))
    receipt = nwbflow.write(given, url, storage_options=options(proxy.endpoint), **{**SMALL, "progress": seen.append})
    assert read(url) == {"a": crc(SAMPLES), "b": crc(np.arange(5.0))}
    assert (str(receipt.path), receipt.verified, receipt.notes) == (url, "stored", ())
    assert [type(seen[0]), type(seen[-1])] == [RunStarted, RunFinished]
    assert str(seen[0].path) == url
    assert {type(event) for event in seen} >= {ChunkStored, DatasetVerified}
    puts = [path for method, path in proxy.requests if method == "PUT"]
    objects = [path for path in puts if ".partial" not in path]
    assert len(objects) == len(set(objects))
    assert objects[-1] == "/lab/one/a.nwb.zarr/zarr.json"
    shards = sum("/a/data/c/" in path for path in objects)
    assert shards > 2
    # beside them: the list and the note before and after, the shards read back, the note looked at, and taken away
    assert len(proxy.requests) <= len(objects) + shards + 10


def test_tables_and_references_come_back(server, read):
    nwbfile = session(a=SAMPLES)
    device = nwbfile.create_device(name="probe")
    group = nwbfile.create_electrode_group(name="shank", description="d", location="CA1", device=device)
    for _ in range(4):
        nwbfile.add_electrode(group=group, location="CA1")
    region = nwbfile.create_electrode_table_region(region=[0, 1, 2, 3], description="all")
    volts = np.arange(400000, dtype="i2").reshape(-1, 4)
    nwbfile.add_acquisition(pynwb.ecephys.ElectricalSeries(name="e", data=volts, electrodes=region, rate=1e3))
    url = "s3://lab/refs.nwb.zarr"
    nwbflow.write(nwbfile, url, storage_options=options(server), **SMALL, verify="full")
    assert read(url) == {"a": crc(SAMPLES), "e": crc(volts)}


def test_streams_and_codecs_without_one_of_ours(server, read):
    blocks = stream(SAMPLES[at : at + 7000] for at in range(0, len(SAMPLES), 7000))
    url = "s3://lab/stream.nwb.zarr"
    nwbflow.write(session(a=blocks), url, storage_options=options(server), **SMALL)
    assert read(url) == {"a": crc(SAMPLES)}


def test_what_is_there_is_replaced_only_if_asked(server, read):
    url = "s3://lab/twice.nwb.zarr"
    give = {"storage_options": options(server), **SMALL}
    nwbflow.write(session(a=SAMPLES, old=SAMPLES), url, **give)
    with pytest.raises(nwbflow.TargetError, match="pass overwrite=True") as caught:
        nwbflow.write(session(a=SAMPLES), url, **give)
    assert caught.value.kind is ErrorKind.EXISTS
    assert set(read(url)) == {"a", "old"}
    with pytest.raises(nwbflow.SourceError):  # refused by its plan or its data: the old one stays
        nwbflow.write(session(a=stream(b for b in [SAMPLES[:, :3]])), url, overwrite=True, **give)
    nwbflow.write(session(a=SAMPLES[::2]), url, overwrite=True, **give)
    assert read(url) == {"a": crc(SAMPLES[::2])}


@pytest.mark.parametrize("name", ["ü b", "100%25 a+b", "x#y?z", "[a]{b}~!$()*&="])
def test_names_with_odd_characters(server, read, name):
    url = f"s3://lab/odd %20/{name.replace('#', '').replace('?', '')}.nwb.zarr"
    nwbfile = session(a=SAMPLES[:5000])
    nwbfile.add_acquisition(pynwb.TimeSeries(name=name, data=SAMPLES[:5000], unit="V", rate=1.0))
    nwbflow.write(nwbfile, url, storage_options=options(server), **SMALL)
    assert read(url) == {"a": crc(SAMPLES[:5000]), name: crc(SAMPLES[:5000])}


def test_a_name_that_begins_as_anothers_does(server, read):
    give = {"storage_options": options(server), **SMALL}
    for name in ("p.nwb.zarr", "p.nwb.zarr2.nwb.zarr", "p.nwb.zarr.nwb.zarr"):
        nwbflow.write(session(a=SAMPLES), f"s3://lab/{name}", **give)
    nwbflow.write(session(a=SAMPLES[:999]), "s3://lab/p.nwb.zarr", overwrite=True, **give)
    assert read("s3://lab/p.nwb.zarr") == {"a": crc(SAMPLES[:999])}
    assert read("s3://lab/p.nwb.zarr2.nwb.zarr") == read("s3://lab/p.nwb.zarr.nwb.zarr") == {"a": crc(SAMPLES)}


@pytest.mark.parametrize(
    ("url", "kind", "text"),
    [
        ("gs://lab/x.nwb", ErrorKind.OPTION, "give a name that ends in .zarr, such as gs://lab/x.nwb.zarr"),
        ("s3://lab//x.nwb.zarr", ErrorKind.ADDRESS, "has a bucket and a name"),
        ("s3://lab/a/../x.nwb.zarr", ErrorKind.ADDRESS, "has a bucket and a name"),
        ("s3://x.nwb.zarr", ErrorKind.ADDRESS, "has a bucket and a name"),
        ("ftp://lab/x.nwb.zarr", ErrorKind.OPTION, "such as s3://bucket"),
        ("s3://nobody/x.nwb.zarr", ErrorKind.FOLDER, "no such bucket"),
    ],
)
def test_addresses_that_can_not_be(server, url, kind, text):
    with pytest.raises(nwbflow.NwbflowError, match=text) as caught:
        nwbflow.write(session(a=SAMPLES), url, storage_options=options(server), progress=False)
    assert caught.value.kind is kind


def test_options_that_can_not_be(tmp_path):
    with pytest.raises(nwbflow.SettingsError, match=r"storage_options can't be used.*colour"):
        nwbflow.write(session(a=SAMPLES), "s3://lab/x.nwb.zarr", storage_options={"colour": 1}, progress=False)
    for name in ("x.nwb.zarr", "x.nwb"):
        with pytest.raises(nwbflow.SettingsError, match="are for addresses"):
            nwbflow.write(session(a=SAMPLES), tmp_path / name, storage_options={}, progress=False)


def test_without_obstore_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(nwbflow.UnsupportedError, match=r'pip install "nwbflow\[s3\]"') as caught:
        nwbflow.write(session(a=SAMPLES), "s3://lab/x.nwb.zarr", progress=False)
    assert caught.value.kind is ErrorKind.PLUGIN


def test_convert_takes_an_address(server, read, tmp_path, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": server,
    }.items():
        monkeypatch.setenv(name, value)
    samples = neuropixels(0.1)
    samples.tofile(tmp_path / "a.bin")
    url = "s3://lab/cli/c.nwb.zarr"
    command = [sys.executable, "-m", "nwbflow.cli", "convert", str(tmp_path / "a.bin"), url]
    recording = ["--dtype", "int16", "--channels", str(samples.shape[1]), "--rate", "30000"]
    planned = subprocess.run([*command, *recording, "--dry-run"], capture_output=True, text=True, check=True)
    assert url in planned.stdout
    done = subprocess.run([*command, *recording], capture_output=True, text=True, check=True)
    assert url in done.stdout
    assert read(url) == {"ElectricalSeries": crc(samples)}
    again = subprocess.run([*command, *recording], capture_output=True, text=True, check=False)
    assert (again.returncode != 0, "exists; pass" in again.stderr) == (True, True)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.bin"]


def test_containers_that_were_read_from_it_do_not_replace_it(server, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    nwbfile = pynwb.NWBFile("d", "i", datetime(2026, 1, 1, tzinfo=UTC))
    nwbfile.add_acquisition(pynwb.TimeSeries(name="a", data=SAMPLES, unit="V", rate=1.0))
    url = "s3://lab/again.nwb.zarr"
    for overwrite in (False, True):  # the same containers, in memory, may be written again
        nwbflow.write(nwbfile, url, overwrite=overwrite, storage_options=options(server), **SMALL)


def test_a_failing_source_is_told_and_leaves_no_store(server, read):
    def give():
        yield SAMPLES[:30000]
        raise ValueError("the amplifier went away")

    seen = []
    url = "s3://lab/failing.nwb.zarr"
    keep = options(server)
    with pytest.raises(ValueError, match="the amplifier went away") as caught:
        nwbflow.write(session(a=stream(give())), url, storage_options=keep, **{**SMALL, "progress": seen.append})
    assert "the same call goes on from there" in " ".join(caught.value.__notes__)
    assert isinstance(seen[-1], RunFailed)
    assert "error" in read(url)
    receipt = nwbflow.write(session(a=SAMPLES), url, storage_options=keep, **SMALL)
    assert "were there already" in " ".join(receipt.notes)
    assert read(url) == {"a": crc(SAMPLES)}
