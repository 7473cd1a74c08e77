"""What goes wrong on a Dask cluster: nothing is lost, nothing hangs, and every error says what it was."""

import os
import signal
import sys
import threading
import time

import dask.array
import h5py
import numpy as np
import pytest
from dask_cluster import kill, killing, lazy, running, timing_out, values, waiting
from distributed import Client, LocalCluster
from support import opens_in_pynwb, session

import nwbflow
from nwbflow.model.events import ChunkStored
from nwbflow.parallel import blocks

ROWS, COLUMNS, CHUNK = 20_000, 64, (1000, 64)
VALUES = values(0, ROWS, COLUMNS)
PLACE = "/acquisition/x/data"


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
    return nwbflow.parallel.dask(cluster[1])


def write(data, path, executor, progress=False, chunks=CHUNK):
    return nwbflow.write(
        session(x=nwbflow.DataIO(data, chunks=chunks, codec="gzip")), path, progress=progress, executor=executor
    )


def elements(path):
    with h5py.File(path, "r") as file:
        return file[PLACE][()]


def at(row, action):
    """Do something once, when the chunk at a row has been stored."""

    def watch(event):
        if isinstance(event, ChunkStored) and event.offset[0] == row:
            action()

    return watch


# --- blocks that are not what their array says ------------------------------------------

COLUMN = dask.array.from_array(VALUES, chunks=(5000, 32))


def at_second(change):
    """Change one block of four by two."""
    return COLUMN.map_blocks(lambda block, block_id: change(block) if block_id == (1, 1) else block, dtype="int16")


@pytest.mark.requirement("P2")
@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (lambda block: block + 0.5, nwbflow.ErrorKind.LOSSY, "can't be stored as int16"),
        (lambda block: block.astype("int32") + 70_000, nwbflow.ErrorKind.LOSSY, "can't be stored as int16"),
        (lambda block: block[:1], nwbflow.ErrorKind.SHAPE, r"shape \(1, 32\), it is declared with \(5000, 32\)"),
        (lambda block: np.concatenate([block, block[:9]]), nwbflow.ErrorKind.SHAPE, r"shape \(5009, 32\)"),
    ],
    ids=["fractions", "wider", "smaller", "larger"],
)
@pytest.mark.parametrize("by", ["threads", "Dask"])
def test_a_block_that_is_not_as_declared_is_refused(tmp_path, executor, by, change, kind, says):
    with pytest.raises(nwbflow.SourceError, match=rf"(?s){PLACE}: .*5000:10000, 32:64.*{says}") as caught:
        write(at_second(change), tmp_path / "x.nwb", None if by == "threads" else executor, chunks=(777, 64))
    assert caught.value.kind is kind


def test_a_block_of_another_type_whose_values_fit_is_stored_as_declared(tmp_path, executor):
    write(at_second(lambda block: block.astype("float64")), tmp_path / "x.nwb", executor, chunks=(777, 64))
    assert np.array_equal(elements(tmp_path / "x.nwb"), VALUES)


def test_lengths_that_are_not_known_are_refused_with_the_way_out():
    with pytest.raises(nwbflow.SourceError, match="compute_chunk_sizes") as caught:
        nwbflow.DataIO(COLUMN[COLUMN[:, 0].compute_chunk_sizes() > 5])
    assert caught.value.kind is nwbflow.ErrorKind.SHAPE


@pytest.mark.parametrize("shape", [(0, 64), (100, 0)])
def test_without_elements_nothing_is_asked_of_workers(tmp_path, executor, shape):
    write(dask.array.zeros(shape, dtype="int16", chunks=(10, 64)), tmp_path / "x.nwb", executor, chunks=(10, 64))
    assert elements(tmp_path / "x.nwb").shape == shape


# --- tasks ------------------------------------------------------------------------------


@pytest.mark.requirement("P2")
def test_a_task_that_times_out_is_an_error_and_no_lost_connection(tmp_path, executor):
    with pytest.raises(TimeoutError, match="no answer of the archive") as caught:
        write(timing_out(ROWS, COLUMNS, 1000, 12_345), tmp_path / "x.nwb", executor)
    notes = "\n".join(caught.value.__notes__)
    assert f"[12000:13000, 0:64] of {PLACE}" in notes
    assert "on the worker tcp://127.0.0.1:" in notes


@pytest.mark.requirement("P2")
def test_a_block_that_kills_its_workers_is_not_tried_for_ever(tmp_path):
    settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with running(tmp_path, settings=settings) as (_, client):
        data = killing(ROWS, COLUMNS, 1000, 12_345)
        with pytest.raises(nwbflow.ExecutorError, match=rf"{PLACE}: block .*on 1 workers that died.*memory") as caught:
            write(data, tmp_path / "x.nwb", nwbflow.parallel.dask(client, patience=20))
    assert caught.value.kind is nwbflow.ErrorKind.WORKERS
    rows, _ = opens_in_pynwb(tmp_path / "x.nwb.partial")["x"]
    assert np.array_equal(elements(tmp_path / "x.nwb.partial"), VALUES[:rows])


def main_thread_waits():
    """Whether a signal would find it waiting, and not in a finalizer, which would swallow it."""
    frame = sys._current_frames()[threading.main_thread().ident]
    return frame.f_code.co_name == "wait" and frame.f_code.co_filename == threading.__file__


@pytest.mark.requirement("P2")
def test_ctrl_c_keeps_what_is_stored_and_lets_the_tasks_go(tmp_path, cluster, executor):
    waits = threading.Event()

    def interrupt():
        waits.wait()
        while not (tmp_path / "begun").exists() or not main_thread_waits():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        write(waiting(ROWS, COLUMNS, 1000, 9000, tmp_path), tmp_path / "x.nwb", executor, at(5000, waits.set))
    thread.join()
    (tmp_path / "go").touch()
    rows, _ = opens_in_pynwb(tmp_path / "x.nwb.partial")["x"]
    assert 0 < rows <= 9000
    assert np.array_equal(elements(tmp_path / "x.nwb.partial"), VALUES[:rows])
    assert not (tmp_path / "x.nwb").exists()
    while cluster[1].run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        time.sleep(0.05)  # a task that ran may end first; if it never ends, the test times out


@pytest.mark.requirement("P2")
def test_two_writes_share_a_client_and_an_executor(tmp_path, executor):
    paths = [tmp_path / "one.nwb", tmp_path / "two.nwb"]
    errors = []

    def run(path):
        try:
            write(lazy(ROWS, COLUMNS, 777), path, executor)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(np.array_equal(elements(path), VALUES) for path in paths)


# --- scheduler and workers --------------------------------------------------------------


@pytest.mark.requirement("P2")
def test_a_scheduler_that_comes_back_goes_on(tmp_path):
    with running(tmp_path) as (cluster, client):
        port = int(client.scheduler.address.rpartition(":")[2])

        def restart():
            for process in (*cluster.workers, cluster.scheduler):
                kill(process)
            cluster.workers.clear()
            cluster.start_scheduler(port)
            cluster.add_worker()

        data = {"sent": VALUES, "computed": lazy(ROWS, COLUMNS, 1000)}
        wrapped = {name: nwbflow.DataIO(of, chunks=CHUNK, codec="gzip") for name, of in data.items()}
        executor, watch = nwbflow.parallel.dask(client), at(2000, restart)
        receipt = nwbflow.write(session(**wrapped), tmp_path / "x.nwb", progress=watch, executor=executor)
    assert [dataset.chunks for dataset in receipt.datasets] == [20, 20]
    with h5py.File(tmp_path / "x.nwb", "r") as file:
        assert all(np.array_equal(file[f"acquisition/{name}/data"][()], VALUES) for name in data)


@pytest.mark.requirement("P2")
def test_a_worker_with_another_nwbflow_is_refused_whenever_it_comes(tmp_path):
    other = tmp_path / "other"
    (other / "nwbflow-9.9.dist-info").mkdir(parents=True)
    (other / "nwbflow-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: nwbflow\nVersion: 9.9\n")
    with running(tmp_path, workers=1) as (cluster, client):

        def exchange():
            cluster.kill_worker()
            cluster.add_worker(other)

        executor = nwbflow.parallel.dask(client)
        with pytest.raises(nwbflow.ExecutorError, match=rf"{PLACE}: .*'9\.9'"):
            write(lazy(ROWS, COLUMNS, 1000), tmp_path / "x.nwb", executor, at(2000, exchange))
        with pytest.raises(nwbflow.ExecutorError, match=r"it has \('9\.9'"):
            write(lazy(ROWS, COLUMNS, 1000), tmp_path / "y.nwb", executor)
    assert not list(tmp_path.glob("y.nwb*"))


@pytest.mark.requirement("P2")
def test_a_cluster_that_grows_on_demand_is_asked_and_workers_that_come_later_are_used(tmp_path):
    settings = {"n_workers": 0, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=0, maximum=2, interval="100 ms")
        executor = nwbflow.parallel.dask(client)
        write(lazy(ROWS, COLUMNS, 1000), tmp_path / "x.nwb", executor)
    assert np.array_equal(elements(tmp_path / "x.nwb"), VALUES)
