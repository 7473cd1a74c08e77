"""What stock h5py sees of slow streams in the partial file, while they are recorded."""

import json
import subprocess
import sys
from itertools import pairwise

import h5py
import numpy as np
import onlooker
import pytest
from pynwb import TimeSeries
from support import session

import nwbflow
from nwbflow.encoding.pipeline import encoder_for
from nwbflow.record import fold, preview
from nwbflow.record.preview import Budget, Showing
from nwbflow.sinks.hdf5 import layout_of


def slow_session(codec=None, chunks=20_000):
    """Two slow series with time stamps; a chunk takes long to fill."""
    nwbfile = session()
    for name, columns in (("a", 3), ("b", 2)):
        data = nwbflow.live((None, columns), "int32", chunks=(chunks, 2), codec=codec)
        times = nwbflow.live((None,), "float64", chunks=chunks // 2, codec=codec)
        nwbfile.add_acquisition(TimeSeries(name=name, data=data, timestamps=times, unit="V"))
    return nwbfile


def append(recorder, name, first, count):
    columns = 3 if name == "a" else 2
    rows = np.arange(first, first + count)
    data = np.repeat((rows * 7 % 9973)[:, None], columns, axis=1).astype("i4")
    return recorder[name].append(data, timestamps=rows / 10)


@pytest.fixture
def always(monkeypatch):
    """Show whatever there is, as often as possible."""
    monkeypatch.setattr(preview, "SHOW_SECONDS", 0.0)
    monkeypatch.setattr(preview, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(preview, "_IDLE", 0)
    monkeypatch.setattr(fold, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(fold, "_WORTH_TELLING", 0)


@pytest.fixture
def looker():
    """Start a process that looks at a partial file; return what it has seen when called."""
    running = []

    def start(path, *series):
        process = subprocess.Popen(
            [sys.executable, onlooker.__file__, f"{path}.partial", *series],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout.readline() == "looking\n"

        def stop():
            said, problems = process.communicate("\n", timeout=60)
            assert process.returncode == 0, problems
            return json.loads(said)

        return stop

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.requirement("S4")
@pytest.mark.parametrize(
    ("codec", "profile"), [(None, "default"), (None, "archive"), ("none", "default")], ids=["gzip", "fletcher32", "raw"]
)
def test_stock_readers_see_right_rows_only_over_hundreds_of_rewrites(path, always, looker, codec, profile):
    recorder = nwbflow.Recorder(slow_session(codec), path, workers=1, profile=profile)
    stop = looker(path, "a", "b")
    done = dict.fromkeys("ab", 0)
    for number in range(900):
        for name, count in (("a", 23), ("b", 1 + number % 7)):
            ticket = append(recorder, name, done[name], count)
            done[name] += count
        ticket.wait()
    seen = stop()
    receipt = recorder.close()
    assert min(seen["lengths"].values()) > 20, seen
    wasted = [note for note in receipt.notes if "not used" in note]
    assert len(wasted) == (codec != "none")
    with h5py.File(path) as file:
        for name in "ab":
            group = file[f"acquisition/{name}"]
            assert (group["data"][:] == (np.arange(done[name]) * 7 % 9973)[:, None]).all()
            assert (group["timestamps"][:] == np.arange(done[name]) / 10).all()


@pytest.mark.requirement("S4")
def test_a_slow_series_is_seen_long_before_its_chunk_is_full(path, monkeypatch, looker):
    monkeypatch.setattr(preview, "SHOW_SECONDS", 0.05)
    with nwbflow.Recorder(slow_session(chunks=500_000), path) as recorder:
        append(recorder, "a", 0, 5).wait()
        with h5py.File(f"{path}.partial", "r", swmr=True) as file:
            data = file["acquisition/a/data"]
            while len(data) < 5:  # nothing else is appended
                data.refresh()
    with h5py.File(path) as file:
        assert file["acquisition/a/data"].shape == (5, 3)
    assert path.stat().st_size < 2**20


def test_chunks_of_the_same_size_get_different_places(path):
    """What HDF5 would put over what somebody may be reading is encoded in another size, with the same rows."""
    with h5py.File.in_memory() as file:
        dataset = file.create_dataset(
            "x", (0, 2), "i4", maxshape=(None, 2), chunks=(4096, 2), compression=4, shuffle=True
        )
        layout = layout_of(dataset)
        encoder = encoder_for(layout)
        rows = np.arange(200, dtype="i4").reshape(100, 2)
        first = preview.beside(encoder, layout, rows, -1, 0)
        other = preview.beside(encoder, layout, rows, len(first.data), 1)
        assert len(other.data) != len(first.data)
        dataset.resize((100, 2))
        for encoded in (first, other):
            dataset.id.write_direct_chunk((0, 0), bytes(encoded.data), encoded.filter_mask)
            assert (dataset[:] == rows).all()
        noise = np.random.default_rng(1).integers(-(2**31), 2**31, (4095, 2)).astype("i4")
        assert preview.beside(encoder, layout, noise, -1, 0) is None


def test_hdf5_gives_a_chunk_of_another_size_another_place_and_does_not_use_the_old_one_again(tmp_path):
    """What showing rests on; were it to change, readers could see half of a chunk."""
    with h5py.File(tmp_path / "x.h5", "w", libver=("v110", "v110")) as file:
        file.create_dataset("x", (10,), "i4", maxshape=(None,), chunks=(1000,), compression=4)
    with h5py.File(tmp_path / "x.h5", "r+", libver=("v110", "v110")) as file:
        file.swmr_mode = True
        dataset, places = file["x"], []
        encoder = encoder_for(layout_of(dataset))
        for seed in (1, 1, 2, 3, 4):
            rows = np.random.default_rng(seed).integers(0, 10**seed, 10 * seed).astype("i4")
            encoded = preview.beside(encoder, layout_of(dataset), rows, -1, 0)
            dataset.id.write_direct_chunk((0,), bytes(encoded.data), encoded.filter_mask)
            dataset.flush()
            info = dataset.id.get_chunk_info_by_coord((0,))
            places.append((info.byte_offset, info.byte_offset + info.size))
    assert places[0] == places[1]  # the one case that has to be kept from happening
    different = sorted(places[1:])
    assert all(end <= begin for (_, end), (begin, _) in pairwise(different))


def test_what_is_fast_is_not_shown_early_and_what_is_shown_is_within_its_budget(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(preview.time, "monotonic", lambda: now[0])
    fast, slow, budget = Showing(), Showing(), Budget()
    assert not fast.is_due(1, 30_000, 8, budget)
    assert not slow.is_due(1, 30_000, 8, budget)
    now[0] += 2
    assert not fast.is_due(20_000, 30_000, 8, budget)
    assert slow.is_due(20, 30_000, 8, budget)
    budget.wasted = budget.left
    assert not slow.is_due(20, 30_000, 8, budget)
    budget.stored = 10**9
    assert slow.is_due(20, 30_000, 8, budget)
