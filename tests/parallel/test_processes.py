"""Data that other processes of this machine read and encode."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import dask.array
import h5py
import numpy as np
import psutil
import pytest
import support
import zarr
from own_arrays import Computed, Deadly, Failing, Locked, Odd, Waiting, values
from support import opens_in_pynwb, session

import nwbflow
from nwbflow.model.events import ChunkStored
from nwbflow.nwb import fill
from nwbflow.parallel import blocks
from nwbflow.sinks.hdf5 import Hdf5Sink

ROWS, COLUMNS, CHUNK = 20_000, 64, (1000, 64)
VALUES = values(0, ROWS, COLUMNS)
PLACE = "/acquisition/x/data"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Some twenty blocks instead of one, of data that take no time."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2 * 64 * 1000)


@pytest.fixture(scope="module")
def executor():
    return nwbflow.parallel.processes(2)


@pytest.fixture
def stored(monkeypatch):
    """What is put into HDF5 datasets, by dataset and offset, in order."""
    put, found = Hdf5Sink.put, []

    def counting(sink, offset, chunk):
        put(sink, offset, chunk)
        found.append((sink._name, offset))

    monkeypatch.setattr(Hdf5Sink, "put", counting)
    return found


def pool():
    """Processes that work for this one."""
    return [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def write(data, path, executor, progress=False):
    wrapped = nwbflow.DataIO(data, chunks=CHUNK, codec="gzip")
    return nwbflow.write(session(x=wrapped), path, progress=progress, executor=executor)


def elements(path):
    with h5py.File(path, "r") as file:
        return file[PLACE][()]


def chunks_of(path):
    with h5py.File(path, "r") as file:
        found = {}
        for name, series in file["acquisition"].items():
            data = series["data"]
            infos = [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]
            found[name] = {i.chunk_offset: data.id.read_direct_chunk(i.chunk_offset) for i in infos}
            assert np.array_equal(data[()], VALUES), name
    return found


def stored_in(folder):
    """The elements in files."""
    with h5py.File(folder / "plain.h5", "w") as file:
        file.create_dataset("x", data=VALUES, chunks=(3000, 64), compression="gzip", shuffle=True)
    VALUES.tofile(folder / "raw.bin")
    zarr.create_array(folder / "x.zarr", data=VALUES, chunks=(3000, 64))
    return h5py.File(folder / "w.h5", "w").create_dataset("x", data=VALUES)


def kinds(folder, writable):
    """The same elements in every form: those that other processes read, and those that are read here."""
    elsewhere = {
        "own": Computed(ROWS, COLUMNS),
        "h5py": h5py.File(folder / "plain.h5", "r")["x"],
        "copied": nwbflow.copy((folder / "plain.h5", "/x")),
        "zarr": zarr.open_array(folder / "x.zarr", mode="r"),
        "lazy": dask.array.from_array(Computed(ROWS, COLUMNS), chunks=(777, 64)) + np.int16(0),
    }
    here = {
        "array": VALUES,
        "raw": nwbflow.raw(folder / "raw.bin", dtype="int16", shape=(None, COLUMNS)),
        "held": Computed(ROWS, COLUMNS, np.zeros(2**21, "i1")),
        "writable": writable,
        "stream": nwbflow.blocks(
            (VALUES[at : at + 500] for at in range(0, ROWS, 500)), shape=(None, 64), dtype="int16"
        ),
    }
    return elsewhere, here


@pytest.mark.requirement("P1")
def test_every_kind_of_data_becomes_the_file_that_threads_make(tmp_path, executor, stored):
    writable = stored_in(tmp_path)

    def all_of():
        elsewhere, here = kinds(tmp_path, writable)
        return session(**{k: nwbflow.DataIO(v, chunks=CHUNK, codec="gzip") for k, v in {**elsewhere, **here}.items()})

    nwbflow.write(all_of(), tmp_path / "threads.nwb", progress=False)
    stored.clear()
    receipt = nwbflow.write(all_of(), tmp_path / "x.nwb", progress=False, executor=executor, verify="full")
    assert chunks_of(tmp_path / "x.nwb") == chunks_of(tmp_path / "threads.nwb")
    assert len(set(stored)) == len(stored) == sum(d.chunks for d in receipt.datasets)
    by = {d.name.split("/")[2]: d.encoded_by for d in receipt.datasets}
    elsewhere, here = kinds(tmp_path, writable)
    assert by == {**dict.fromkeys(elsewhere, "processes"), **dict.fromkeys(here, "nwbflow")}


@pytest.mark.requirement("P1")
def test_zarr_stores_are_the_same_too(tmp_path, executor):
    def store(name, executor):
        data = nwbflow.DataIO(Computed(ROWS, COLUMNS), chunks=CHUNK)
        nwbflow.write(session(x=data), tmp_path / name, progress=False, executor=executor, verify="full")
        return {p.name: p.read_bytes() for p in sorted((tmp_path / name / PLACE[1:] / "c").rglob("*")) if p.is_file()}

    made = store("x.nwb.zarr", executor)
    assert made
    assert made == store("threads.nwb.zarr", None)


@pytest.mark.requirement("P1")
def test_a_killed_process_changes_nothing(tmp_path, executor, stored):
    killed = []

    def watch(event):
        if isinstance(event, ChunkStored) and len(stored) in (2, 15):
            process = pool()[0]
            killed.append(process.pid)
            process.kill()

    write(Computed(ROWS, COLUMNS), tmp_path / "x.nwb", executor, watch)
    assert len(set(killed)) == 2
    assert np.array_equal(elements(tmp_path / "x.nwb"), VALUES)
    assert len(set(stored)) == len(stored) == 20


@pytest.mark.requirement("P1")
def test_a_block_that_ends_every_process_is_named(tmp_path, executor):
    with pytest.raises(
        nwbflow.ExecutorError, match=rf"{PLACE}: block \[12000:13000, 0:64\] ended 3 processes"
    ) as caught:
        write(Deadly(ROWS, COLUMNS, 12_345), tmp_path / "x.nwb", executor)
    assert caught.value.kind is nwbflow.ErrorKind.WORKERS
    assert opens_in_pynwb(tmp_path / "x.nwb.partial") == {"x": (12_000, COLUMNS)}
    assert np.array_equal(elements(tmp_path / "x.nwb.partial"), VALUES[:12_000])


@pytest.mark.requirement("P1")
@pytest.mark.parametrize("odd", [False, True])
def test_an_error_there_names_dataset_and_block(tmp_path, executor, odd):
    data = (Odd if odd else Failing)(ROWS, COLUMNS, 12_345)
    with pytest.raises(RuntimeError if odd else ValueError, match="no elements at row 12345") as caught:
        write(data, tmp_path / "x.nwb", executor)
    notes = "\n".join(caught.value.__notes__)
    assert f"[12000:13000, 0:64] of {PLACE}" in notes
    assert opens_in_pynwb(tmp_path / "x.nwb.partial") == {"x": (12_000, COLUMNS)}


@pytest.mark.requirement("P1")
@pytest.mark.parametrize("lazy", [False, True], ids=["own", "dask"])
def test_what_cannot_be_pickled_is_refused_before_anything_is_written(tmp_path, executor, lazy):
    data = Locked(ROWS, COLUMNS)
    with pytest.raises(nwbflow.SourceError, match=rf"{PLACE}: .*another process.*without executor=") as caught:
        write(dask.array.from_array(data, chunks=(1000, 64)) if lazy else data, tmp_path / "x.nwb", executor)
    assert caught.value.kind is nwbflow.ErrorKind.PICKLE
    assert not list(tmp_path.glob("x.nwb*"))


@pytest.mark.requirement("P1")
def test_a_file_that_is_replaced_meanwhile_is_not_read(tmp_path, executor):
    for name, content in (("x.h5", VALUES), ("y.h5", VALUES + 1)):
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("x", data=content, chunks=CHUNK, compression="gzip")

    def watch(event):
        if isinstance(event, ChunkStored) and event.offset[0] == 2000:
            os.replace(tmp_path / "y.h5", tmp_path / "x.h5")

    with (
        h5py.File(tmp_path / "x.h5", "r") as file,
        pytest.raises(nwbflow.SourceError, match=rf"{PLACE}: .*replaced") as caught,
    ):
        write(file["x"], tmp_path / "x.nwb", executor, watch)
    assert caught.value.kind is nwbflow.ErrorKind.CHANGED


SCRIPT = """
import nwbflow
from own_arrays import {array}
from support import session

def main():
    executor = nwbflow.parallel.processes(2)
    data = nwbflow.DataIO({array}(20_000, 64, {argument}), chunks=(1000, 64), codec="gzip")
    nwbflow.write(session(x=data), {path!r}, progress=False, executor=executor)

{call}
"""


def script(folder, call, array="Computed", argument=None):
    path = folder / "script.py"
    names = {"array": array, "argument": argument, "call": call}
    path.write_text(SCRIPT.format(path=str(folder / "x.nwb"), **names))
    return [sys.executable, str(path)], {**os.environ, "PYTHONPATH": str(Path(support.__file__).parent)}


@pytest.mark.requirement("P1")
def test_a_script_without_its_guard_is_told_so(tmp_path):
    command, environment = script(tmp_path, "main()")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "ExecutorError: processes could not be started" in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("x.nwb*"))


@pytest.mark.requirement("P1")
def test_processes_end_with_a_program_that_is_killed(tmp_path):
    command, environment = script(tmp_path, 'if __name__ == "__main__":\n    main()', "Waiting", repr(str(tmp_path)))
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as program:
        begun = Waiting.first_begun(tmp_path)
        children = psutil.Process(program.pid).children(recursive=True)
        assert begun in {child.pid for child in children}
        program.kill()
        (tmp_path / "go").touch()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
        assert "Traceback" not in program.communicate()[1]
    assert not (tmp_path / "x.nwb").exists()


@pytest.mark.requirement("P1")
def test_ctrl_c_ends_the_write_and_leaves_the_processes_to_the_next(tmp_path, executor):
    def interrupt():
        Waiting.first_begun(tmp_path)
        for process in pool():
            process.send_signal(signal.SIGINT)  # a terminal sends it to all
        os.kill(os.getpid(), signal.SIGINT)

    write(Computed(ROWS, COLUMNS), tmp_path / "w.nwb", executor)
    before = {process.pid for process in pool()}
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        write(Waiting(ROWS, COLUMNS, str(tmp_path)), tmp_path / "x.nwb", executor)
    thread.join()
    (tmp_path / "go").touch()
    rows, _ = opens_in_pynwb(tmp_path / "x.nwb.partial")["x"]
    assert np.array_equal(elements(tmp_path / "x.nwb.partial"), VALUES[:rows])
    write(Computed(ROWS, COLUMNS), tmp_path / "y.nwb", executor)
    assert np.array_equal(elements(tmp_path / "y.nwb"), VALUES)
    assert {process.pid for process in pool()} == before


MEMORY = """
import resource, sys
import nwbflow
from own_arrays import Computed
from support import session

if __name__ == "__main__":
    rows, path = int(sys.argv[1]), sys.argv[2]
    data = nwbflow.DataIO(Computed(rows, 512), chunks=(8192, 512), codec="none")
    executor = nwbflow.parallel.processes(1)
    nwbflow.write(session(x=data), path, progress=False, executor=executor, verify="no")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.requirement("P1")
def test_memory_does_not_grow_with_the_array(tmp_path):
    path = tmp_path / "memory.py"
    path.write_text(MEMORY)
    environment = {**os.environ, "PYTHONPATH": str(Path(support.__file__).parent)}

    def peak(rows):
        command = [sys.executable, str(path), str(rows), str(tmp_path / f"{rows}.nwb")]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    small, large = peak(8 * 8192), peak(40 * 8192)  # 64 and 320 MiB, in blocks of 16
    assert large - small < 64 * 2**20


def test_two_writes_share_an_executor(tmp_path, executor):
    paths, errors = [tmp_path / "one.nwb", tmp_path / "two.nwb"], []

    def run(path):
        try:
            write(Computed(ROWS, COLUMNS), path, executor)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(np.array_equal(elements(path), VALUES) for path in paths)


@pytest.mark.parametrize("workers", [0, True, 1.5])
def test_the_number_is_checked(workers):
    with pytest.raises(nwbflow.SettingsError, match="workers="):
        nwbflow.parallel.processes(workers)


@pytest.mark.requirement("P1")
def test_a_receipt_says_where_reading_holds_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(fill, "READING_SECONDS", 0.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    class Held(Computed):
        def at(self, start, stop):
            sum(range(2000 * (stop - start)))  # Python holds its lock meanwhile

    receipt = write(Held(ROWS, COLUMNS), tmp_path / "x.nwb", None)
    assert any("reading its data" in note and "nwbflow.parallel.processes()" in note for note in receipt.notes)
    assert not write(VALUES, tmp_path / "y.nwb", None).notes
