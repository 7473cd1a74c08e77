"""Files that the workers of a Dask cluster encode: a scheduler and two workers in processes of their own."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import dask.array
import h5py
import numpy as np
import psutil
import pytest
from dask_cluster import failing, kill, lazy, running, values
from support import opens_in_pynwb, session

import nwbflow
from nwbflow.model.events import ChunkStored
from nwbflow.parallel import blocks
from nwbflow.parallel.tasks import RawFile
from nwbflow.sinks.hdf5 import Hdf5Sink

ROWS, COLUMNS, CHUNK = 20_000, 64, (1000, 64)
VALUES = values(0, ROWS, COLUMNS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Some twenty blocks instead of one, of data that take no time."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2 * 64 * 1000)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(tmp_path_factory.mktemp("cluster")) as (cluster, client):
        yield cluster, client


@pytest.fixture
def executor(cluster):
    cluster[1].wait_for_workers(2, timeout=60)
    return nwbflow.parallel.dask(cluster[1])


@pytest.fixture
def stored(monkeypatch):
    """What is put into HDF5 datasets, by dataset and offset, in order."""
    put, found = Hdf5Sink.put, []

    def counting(sink, offset, chunk):
        put(sink, offset, chunk)
        found.append((sink._name, offset))

    monkeypatch.setattr(Hdf5Sink, "put", counting)
    return found


class Own:
    """A sliceable array of a user, with a lock, which can't be pickled."""

    shape, dtype, ndim = VALUES.shape, VALUES.dtype, 2

    def __init__(self):
        self.lock = threading.Lock()

    def __getitem__(self, key):
        with self.lock:
            return VALUES[key]


def raw_file(folder):
    path = Path(folder) / "raw.bin"
    VALUES.tofile(path)
    return path


def hdf5_file(folder):
    path = Path(folder) / "other.h5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            file["x"] = VALUES
    return h5py.File(path, "r")


def kinds(folder):
    """The same elements in every form."""
    raw_file(folder)
    rows = (dask.array.from_array(VALUES[:7777], chunks=(900, 50)), lazy(ROWS, COLUMNS, 1234)[7777:])
    return {
        "aligned": lazy(ROWS, COLUMNS, 2000),
        "larger": lazy(ROWS, COLUMNS, 9000),
        "unaligned": lazy(ROWS, COLUMNS, 777),
        "mixed": dask.array.concatenate(rows),
        "raw": nwbflow.raw(folder / "raw.bin", dtype="int16", shape=(None, COLUMNS)),
        "mapped": np.memmap(folder / "raw.bin", dtype="int16", mode="r", shape=VALUES.shape),
        "array": VALUES,
        "strided": np.asfortranarray(VALUES),
        "sliceable": Own(),
        "h5py": hdf5_file(folder)["x"],
        "plain": lazy(ROWS, COLUMNS, 2000),
        "stream": nwbflow.blocks(
            (VALUES[at : at + 500] for at in range(0, ROWS, 500)), shape=(None, 64), dtype="int16"
        ),
    }


def all_of(folder):
    settings = {"plain": {"codec": "none"}, "strided": {"codec": "gzip", "checksum": True}}
    wrapped = {
        name: nwbflow.DataIO(data, chunks=CHUNK, **settings.get(name, {"codec": "gzip"}))
        for name, data in kinds(folder).items()
    }
    return session(**wrapped)


def chunks_of(path):
    """Every stored chunk of every series, as stock h5py reads it, and the elements."""
    found = {}
    with h5py.File(path, "r") as file:
        for name, series in file["acquisition"].items():
            data = series["data"]
            infos = [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]
            found[name] = {i.chunk_offset: data.id.read_direct_chunk(i.chunk_offset) for i in infos}
            assert np.array_equal(data[()], VALUES), name
    return found


@pytest.mark.requirement("P2")
def test_every_kind_of_data_becomes_the_file_that_threads_make(tmp_path, executor, stored):
    nwbflow.write(all_of(tmp_path), tmp_path / "threads.nwb", progress=False, workers=1)
    stored.clear()
    receipt = nwbflow.write(all_of(tmp_path), tmp_path / "dask.nwb", progress=False, executor=executor, verify="full")
    assert chunks_of(tmp_path / "dask.nwb") == chunks_of(tmp_path / "threads.nwb")
    assert len(set(stored)) == len(stored) == sum(d.chunks for d in receipt.datasets)
    by = {d.name.split("/")[2]: d.encoded_by for d in receipt.datasets}
    assert {name: by.pop(name) for name in ("stream", "plain")} == {"stream": "nwbflow", "plain": "none"}
    assert set(by.values()) == {"Dask"}
    assert not any(d.unwritten for d in receipt.datasets)


@pytest.mark.requirement("P2")
def test_zarr_stores_are_the_same_too(tmp_path, executor):
    def store(name, **options):
        data = {"lazy": lazy(ROWS, COLUMNS, 777), "array": VALUES}
        wrapped = {key: nwbflow.DataIO(value, chunks=CHUNK) for key, value in data.items()}
        nwbflow.write(session(**wrapped), tmp_path / name, progress=False, **options)
        folder = tmp_path / name / "acquisition"
        return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.glob("*/data/c/**/*")) if p.is_file()}

    made = store("dask.nwb.zarr", executor=executor, verify="full")
    assert made == store("threads.nwb.zarr")
    assert len(made) == 2


@pytest.mark.requirement("P2")
def test_a_raw_file_the_workers_do_not_see_is_sent(tmp_path, executor, monkeypatch):
    monkeypatch.setattr(RawFile, "of", classmethod(lambda cls, source: cls(source, 1, 2)))  # what none of them has
    data = nwbflow.raw(raw_file(tmp_path), dtype="int16", shape=(None, COLUMNS))
    nwbfile = session(raw=nwbflow.DataIO(data, chunks=CHUNK))
    receipt = nwbflow.write(nwbfile, tmp_path / "x.nwb", progress=False, executor=executor)
    assert len(chunks_of(tmp_path / "x.nwb")["raw"]) == receipt.datasets[0].chunks == 20


SLACK = 48 * 2**20
"""What peaks may differ by, in bytes: a few blocks; the large array has 320 MiB."""

KILLS = 4
"""In `tests/faults/kill_dask_workers.py`, 20."""


def kill_while_writing(cluster, client, folder, number, stored):
    """Write with one worker killed at a random point, and compare with the file of threads."""
    rng = random.Random(number)
    data = [lazy(ROWS, COLUMNS, 777), VALUES, nwbflow.raw(raw_file(folder), dtype="int16", shape=(None, COLUMNS))]
    point, seen = rng.randrange(1, 20), []

    def watch(event):
        if isinstance(event, ChunkStored):
            seen.append(event.offset)
            if len(seen) == point:
                cluster.kill_worker()

    def wrapped():
        return session(x=nwbflow.DataIO(data[number % 3], chunks=CHUNK, codec="gzip"))

    nwbflow.write(wrapped(), folder / "threads.nwb", progress=False, workers=1, overwrite=True)
    client.wait_for_workers(2, timeout=60)
    stored.clear()
    executor = nwbflow.parallel.dask(client)
    receipt = nwbflow.write(wrapped(), folder / "x.nwb", progress=watch, executor=executor, overwrite=True)
    assert chunks_of(folder / "x.nwb") == chunks_of(folder / "threads.nwb"), (number, point)
    assert len(set(stored)) == len(stored) == len(seen) == receipt.datasets[0].chunks, (number, point)
    cluster.add_worker()


@pytest.mark.requirement("P2")
def test_a_worker_killed_while_writing_changes_nothing(tmp_path, cluster, stored):
    for number in range(KILLS):
        kill_while_writing(*cluster, tmp_path, number, stored)


@pytest.mark.requirement("P2")
def test_an_error_on_a_worker_names_dataset_and_block(tmp_path, executor):
    data = nwbflow.DataIO(failing(ROWS, COLUMNS, 1000, 12_345), chunks=CHUNK, codec="gzip")
    with pytest.raises(ValueError, match="no elements at row 12345") as caught:
        nwbflow.write(session(x=data), tmp_path / "x.nwb", progress=False, executor=executor)
    notes = "\n".join(caught.value.__notes__)
    assert "[12000:13000, 0:64] of /acquisition/x/data" in notes
    assert "x.nwb.partial" in notes
    assert opens_in_pynwb(tmp_path / "x.nwb.partial") == {"x": (12_000, COLUMNS)}


@pytest.mark.requirement("P2")
def test_a_value_that_can_not_be_stored_is_refused_there(tmp_path, executor):
    masked = dask.array.ma.masked_equal(lazy(ROWS, COLUMNS, 1000), VALUES[12_345, 6])
    data = nwbflow.DataIO(masked, chunks=CHUNK, codec="gzip")
    with pytest.raises(nwbflow.SourceError, match=r"/acquisition/x/data: .*masked") as caught:
        nwbflow.write(session(x=data), tmp_path / "x.nwb", progress=False, executor=executor)
    assert caught.value.kind is nwbflow.ErrorKind.LOSSY


@pytest.mark.requirement("P2")
def test_what_cannot_be_pickled_is_refused_before_anything_is_written(tmp_path, executor):
    held = dask.array.from_array(Own(), chunks=(1000, 64))
    with pytest.raises(nwbflow.SourceError, match=r"/acquisition/x/data: .*pickled") as caught:
        nwbflow.write(session(x=nwbflow.DataIO(held)), tmp_path / "x.nwb", progress=False, executor=executor)
    assert caught.value.kind is nwbflow.ErrorKind.PICKLE
    assert not list(tmp_path.glob("x.nwb*"))


@pytest.mark.requirement("P2")
@pytest.mark.parametrize(("part", "sent"), [("workers", False), ("scheduler", True)])
def test_without_workers_or_scheduler_it_ends_with_an_error(tmp_path, part, sent):
    with running(tmp_path) as (cluster, client):

        def watch(event):
            if isinstance(event, ChunkStored) and event.offset[0] == 2000:
                for process in cluster.workers if part == "workers" else [cluster.scheduler]:
                    kill(process)

        data = nwbflow.DataIO(VALUES if sent else lazy(ROWS, COLUMNS, 1000), chunks=CHUNK, codec="gzip")
        executor = nwbflow.parallel.dask(client, patience=2)
        with pytest.raises(nwbflow.ExecutorError, match="/acquisition/x/data: block") as caught:
            nwbflow.write(session(x=data), tmp_path / "x.nwb", progress=watch, executor=executor)
        assert caught.value.kind is nwbflow.ErrorKind.WORKERS
        assert "x.nwb.partial" in "\n".join(caught.value.__notes__)
        rows, _ = opens_in_pynwb(tmp_path / "x.nwb.partial")["x"]
        assert 3000 <= rows < ROWS
        with h5py.File(tmp_path / "x.nwb.partial") as file:
            assert np.array_equal(file["acquisition/x/data"][()], VALUES[:rows])
        if part == "workers":
            with pytest.raises(nwbflow.ExecutorError, match="before anything was written"):
                nwbflow.write(session(x=data), tmp_path / "y.nwb", progress=False, executor=executor)
            assert not list(tmp_path.glob("y.nwb*"))


@pytest.mark.requirement("P2")
def test_memory_of_client_and_scheduler_does_not_grow_with_the_array(tmp_path, cluster):
    scheduler, client = psutil.Process(cluster[0].scheduler.pid), Path(__file__).with_name("client_memory.py")

    def peak(rows):
        command = [sys.executable, str(client), str(cluster[0].file), str(rows), str(tmp_path / f"{rows}.nwb")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout), scheduler.memory_info().rss

    (small, before), (large, after) = peak(2 * 8192), peak(40 * 8192)
    assert (tmp_path / f"{40 * 8192}.nwb").stat().st_size > 2 * SLACK
    assert large - small < SLACK
    assert after - before < SLACK


def test_a_client_is_no_executor(tmp_path, cluster):
    with pytest.raises(nwbflow.SettingsError, match=r"nwbflow\.parallel\.dask\(client\)"):
        nwbflow.write(session(x=VALUES), tmp_path / "x.nwb", executor=cluster[1])


@pytest.mark.parametrize(("client", "patience"), [("here", 1.0), (None, 0.0)])
def test_settings_are_checked(cluster, client, patience):
    with pytest.raises(nwbflow.SettingsError, match="give"):
        nwbflow.parallel.dask(client or cluster[1], patience=patience)
