"""What is left after an interrupt or a failure (W5, W6)."""

import itertools
import sys
import threading
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import support

import nwbflow
from nwbflow.encoding.pipeline import encoder_for
from nwbflow.engine.job import Job
from nwbflow.engine.run import fill
from nwbflow.engine.settings import Settings
from nwbflow.model.events import (
    ChunkStored,
)
from nwbflow.sinks.hdf5 import Hdf5Sink
from nwbflow.sources.arrays import ArraySource
from nwbflow.sources.streams import BlockStream

sys.path.insert(0, str(Path(__file__).parent))

from streams import DATA, PATIENCE, Recorder, pieces, stream

# --- interruption -----------------------------------------------------------------------


def interrupted_session(interrupt_at, how):
    """A session of which one part raises KeyboardInterrupt after some blocks."""

    def generate():
        for number, piece in enumerate(pieces()):
            if how in ("generator", "beside") and number == interrupt_at:
                raise KeyboardInterrupt
            yield piece

    class Array(support.Sliceable):
        reads = 0

        def __getitem__(self, key):
            self.reads += 1
            if self.reads > interrupt_at:
                raise KeyboardInterrupt
            return super().__getitem__(key)

    data = nwbflow.DataIO(Array(DATA), codec="gzip", chunks=(500, 8)) if how == "array" else stream(generate())
    return support.session(broken=data, later=stream(iter(pieces()), chunks=(250, 8)))


def interrupting(number, **more):
    """An observer that raises at the n-th chunk of the series, once or always."""
    count = itertools.count(1)

    def watch(event):
        if isinstance(event, ChunkStored) and event.dataset.startswith("/acquisition/broken"):
            at = next(count)
            if at == number or (more.get("always") and at > number):
                raise KeyboardInterrupt

    return watch


@pytest.mark.requirement("W5", "W6")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("how", ["generator", "beside", "array", "observer", "observer, always"])
@pytest.mark.parametrize("at", [0, 1, 3, 7])
def test_after_an_interrupt_the_partial_holds_what_was_stored(at, how, tmp_path):
    path = tmp_path / "session.nwb"
    support.write_nwb(support.session(old=DATA), path)
    before = path.read_bytes()
    watch = interrupting(at + 1, always="always" in how) if "observer" in how else Recorder()
    nwbfile = interrupted_session(at, how)
    with pytest.raises(KeyboardInterrupt) as raised:
        support.write_nwb(nwbfile, path, exhaust_dci=how != "beside", progress=watch, workers=2)
    assert path.read_bytes() == before
    partial = tmp_path / "session.nwb.partial"
    assert any(partial.name in note for note in raised.value.__notes__)
    rows = support.opens_in_pynwb(partial)["broken"][0]
    stored = support.read_array(partial, "acquisition/broken/data")
    np.testing.assert_array_equal(stored, DATA[:rows])
    if "observer" in how:
        assert rows >= 500 * (at + 1)
    else:
        assert rows == 500 * at
    later = support.read_array(partial, "acquisition/later/data")
    np.testing.assert_array_equal(later, DATA[: len(later)])


@pytest.mark.requirement("W5")
def test_rows_not_complete_are_not_shown(tmp_path):
    """Wide data in column chunks: an interrupt in mid-row must not leave rows that are half zeros."""
    path = tmp_path / "session.nwb"
    wide = np.arange(1, 1 + 400 * 60, dtype="i4").reshape(400, 60)
    count = itertools.count(1)

    def watch(event):
        if isinstance(event, ChunkStored) and next(count) >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        support.write_nwb(
            support.session(broken=nwbflow.DataIO(support.Sliceable(wide), codec="gzip", chunks=(100, 20))),
            path,
            progress=watch,
            workers=1,
        )
    stored = support.read_array(tmp_path / "session.nwb.partial", "acquisition/broken/data")
    assert len(stored) % 100 == 0
    np.testing.assert_array_equal(stored, wide[: len(stored)])


@pytest.mark.requirement("W5", "W7")
def test_a_blocked_generator_does_not_hold_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr("nwbflow.engine.run.READER_PATIENCE", 0.01)
    release, ended = threading.Event(), threading.Event()

    def blocked():
        yield DATA[:500]
        assert release.wait(PATIENCE)
        ended.set()

    def failing():
        yield DATA[:500]
        raise ConnectionError("the probe is gone")

    path = tmp_path / "session.nwb"
    try:
        with pytest.raises(ConnectionError) as raised:
            support.write_nwb(support.session(a=stream(blocked()), b=stream(failing())), path, exhaust_dci=False)
        assert any("/acquisition/a/data" in note and "still waits" in note for note in raised.value.__notes__)
    finally:
        release.set()
    assert ended.wait(PATIENCE)
    for thread in threading.enumerate():
        if thread.name.startswith("nwbflow"):
            thread.join(PATIENCE)
            assert not thread.is_alive()


# --- failures inside the engine ---------------------------------------------------------


class Faulty:
    """An encoder that fails at given chunks."""

    def __init__(self, encoder, fails_at):
        self.encoder, self.fails_at = encoder, fails_at

    def encode(self, chunk):
        if chunk.flat[0] in self.fails_at:
            raise MemoryError("no more")
        return self.encoder.encode(chunk)


def job(file, name, data, encoder=lambda e: e, columns=8, **more):
    dataset = file.create_dataset(name, (0, 8), "i2", chunks=(500, columns), maxshape=(None, 8), compression="gzip")
    sink = Hdf5Sink(dataset)
    layout = sink.layout
    if isinstance(data, ArraySource):
        layout = replace(layout, shape=data.shape)
    options = {"band_bytes": 10**6, "open_bytes": 10**6, "in_flight": 4, "grow": True} | more
    return Job(name=name, data=data, layout=layout, sink=sink, encoder=encoder(encoder_for(layout)), **options)


NUMBERED = np.repeat(np.arange(1, 9, dtype="i2"), 500 * 8).reshape(4000, 8)
SETTINGS = Settings(workers=2, keep_raw_crc=False, checkpoint=lambda: None, checkpoint_seconds=1e9)


@pytest.mark.requirement("W5", "W8")
@pytest.mark.parametrize("kind", ["array", "stream", "stream aside"])
@pytest.mark.parametrize("columns", [8, 3])
@pytest.mark.parametrize("lost", [1, 4, 8])
def test_after_a_lost_chunk_only_the_rows_before_it_are_shown(kind, lost, columns, tmp_path):
    values = NUMBERED.copy()
    if columns == 3:  # the second of three chunks side by side is lost
        values[:, 3:6] += 100
        lost += 100
    data = ArraySource(values) if kind == "array" else BlockStream(
        iter(pieces(200, values)), maxshape=(None, 8), dtype=np.dtype("i2"))  # fmt: skip
    with h5py.File(tmp_path / "x.h5", "w") as file:
        broken = job(file, "x", data, lambda encoder: Faulty(encoder, {lost}), columns, aside=kind == "stream aside")
        with pytest.raises(MemoryError):
            fill([broken], SETTINGS, lambda event: None)
    stored = support.read_array(tmp_path / "x.h5")
    np.testing.assert_array_equal(stored, values[: len(stored)])
    assert len(stored) == (lost % 100 - 1) * 500


@pytest.mark.requirement("W5")
@pytest.mark.parametrize("kind", ["array", "stream"])
def test_an_interrupt_between_encoding_and_storing_leaves_no_hole(kind, tmp_path):
    class Interrupted(Hdf5Sink):
        puts = 0

        def put(self, offset, chunk, /):
            self.puts += 1
            if self.puts == 3:
                raise KeyboardInterrupt
            super().put(offset, chunk)

    data = ArraySource(NUMBERED) if kind == "array" else BlockStream(
        iter(pieces(200, NUMBERED)), maxshape=(None, 8), dtype=np.dtype("i2"))  # fmt: skip
    with h5py.File(tmp_path / "x.h5", "w") as file:
        made = job(file, "x", data)
        made = replace(made, sink=Interrupted(file["x"]))
        with pytest.raises(KeyboardInterrupt):
            fill([made], SETTINGS, lambda event: None)
    stored = support.read_array(tmp_path / "x.h5")
    np.testing.assert_array_equal(stored, NUMBERED[: len(stored)])
    assert len(stored) >= 1500
