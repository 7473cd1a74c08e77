"""What the engine does while it runs: fairness, back-pressure, events, memory, interruption."""

import itertools
import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest
import support

import nwbflow
from nwbflow.encoding.pipeline import encoder_for
from nwbflow.engine.job import Job
from nwbflow.engine.run import Settings, fill
from nwbflow.model.events import (
    ChunkStored,
    DatasetFinished,
    DatasetStarted,
    DatasetVerified,
    RunFailed,
    RunFinished,
    RunStarted,
)
from nwbflow.sinks.hdf5 import Hdf5Sink
from nwbflow.sources.arrays import ArraySource
from nwbflow.sources.streams import BlockStream

PATIENCE = 60.0
"""Seconds after which a test that hangs gives up."""

DATA = np.random.default_rng(3).integers(-99, 99, (4000, 8)).astype("i2")


def pieces(rows=500, data=DATA):
    return [data[at : at + rows] for at in range(0, len(data), rows)]


def stream(iterable, codec="gzip", chunks=(500, 8)):
    return nwbflow.DataIO(nwbflow.blocks(iterable, shape=(None, 8), dtype="i2"), chunks=chunks, codec=codec)


class Recorder:
    """Keeps every event; calls ``on`` with each."""

    def __init__(self, on=lambda event: None):
        self.events = []
        self.on = on

    def __call__(self, event):
        self.events.append(event)
        self.on(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


# --- side by side -----------------------------------------------------------------------


@pytest.mark.requirement("W7")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("where", ["first", "middle", "end"])
def test_a_blocked_stream_holds_nobody(where, tmp_path):
    other_done, asked = threading.Event(), threading.Event()
    stops = {"first": 0, "middle": 4, "end": 8}

    def blocked():
        for number, piece in enumerate([*pieces(), None]):
            if number == stops[where]:
                asked.set()
                assert other_done.wait(PATIENCE), "the other stream was held"
            if piece is not None:
                yield piece

    def free():
        assert asked.wait(PATIENCE)
        yield from pieces()

    def watch(event):
        if isinstance(event, DatasetFinished) and event.dataset == "/free":
            other_done.set()

    arrays = {"blocked": stream(blocked()), "free": stream(free()), "plain": nwbflow.DataIO(DATA, codec="gzip")}
    support.write_arrays(tmp_path / "x.h5", arrays, exhaust_dci=False, progress=watch)
    for name in arrays:
        np.testing.assert_array_equal(support.read_array(tmp_path / "x.h5", name), DATA)


@pytest.mark.requirement("W7")
def test_everything_is_stored_while_one_stream_is_silent(tmp_path):
    """The last chunks of the others must not wait for the next block of the silent one."""
    stored, expected = threading.Event(), 3 * 8
    count = itertools.count(1)

    def silent():
        yield DATA[:10]
        assert stored.wait(PATIENCE), "chunks were waiting for a block that does not come"

    def watch(event):
        if isinstance(event, ChunkStored) and event.dataset != "/silent" and next(count) == expected:
            stored.set()

    arrays = {"silent": stream(silent())} | {name: stream(iter(pieces())) for name in "abc"}
    support.write_arrays(tmp_path / "x.h5", arrays, exhaust_dci=False, progress=watch, workers=2)
    assert support.read_array(tmp_path / "x.h5", "silent").shape == (10, 8)


@pytest.mark.requirement("W7")
def test_many_streams_take_turns(tmp_path):
    """Each generator may only go on when all others have kept up within two blocks."""
    names = [f"s{number}" for number in range(6)]
    progress = dict.fromkeys(names, 0)
    moved = threading.Condition()

    def paced(name):
        for number, piece in enumerate(pieces()):
            with moved:
                assert moved.wait_for(lambda at=number: min(progress.values()) >= at - 2, PATIENCE), (name, progress)
            yield piece
            with moved:
                progress[name] = number + 1
                moved.notify_all()

    arrays = {name: stream(paced(name)) for name in names}
    support.write_arrays(tmp_path / "x.h5", arrays, exhaust_dci=False, workers=1)
    for name in names:
        np.testing.assert_array_equal(support.read_array(tmp_path / "x.h5", name), DATA)


@pytest.mark.requirement("W7")
def test_without_side_by_side_iterators_run_in_the_calling_thread_one_after_another(tmp_path):
    seen = []

    def here(name):
        for piece in pieces():
            seen.append((name, threading.current_thread()))
            yield piece

    support.write_arrays(tmp_path / "x.h5", {"b": stream(here("b")), "a": stream(here("a"))})
    assert [name for name, _ in itertools.groupby(name for name, _ in seen)] == ["b", "a"]
    assert {thread for _, thread in seen} == {threading.main_thread()}


@pytest.mark.requirement("W2", "W4")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("rows", [1, 130, 500, 3333])
def test_a_generator_may_use_its_buffer_again(rows, side_by_side, tmp_path):
    def reusing(sign):
        buffer = np.empty((rows, 8), "i2")
        for piece in pieces(rows):
            part = buffer[: len(piece)]
            np.multiply(piece, sign, out=part)
            yield part
            buffer[:] = 12345  # whoever still looks at it sees this

    count = 4000 if rows > 1 else 400
    data = DATA[:count]
    arrays = {"plus": stream(itertools.islice(reusing(1), -(-count // rows)), chunks=(77, 8)),
              "minus": stream(itertools.islice(reusing(-1), -(-count // rows)), codec="none")}  # fmt: skip
    support.write_arrays(tmp_path / "x.h5", arrays, exhaust_dci=not side_by_side, workers=3)
    np.testing.assert_array_equal(support.read_array(tmp_path / "x.h5", "plus"), data)
    np.testing.assert_array_equal(support.read_array(tmp_path / "x.h5", "minus"), -data)


@pytest.mark.requirement("W4", "W7")
@pytest.mark.parametrize("side_by_side", [True, False])
def test_no_block_is_asked_for_before_the_last_was_taken_in(side_by_side, tmp_path):
    """The writer is stopped inside an observer; the generators may then be one block ahead, not more."""
    given = dict.fromkeys("ab", 0)
    stored = dict.fromkeys("ab", 0)
    ahead = dict.fromkeys("ab", 0)

    def counting(name):
        for piece in pieces(100):
            given[name] += 1
            ahead[name] = max(ahead[name], given[name] - stored[name])
            yield piece

    def watch(event):
        if isinstance(event, ChunkStored):
            stored[event.dataset[1:]] += 1

    arrays = {name: stream(counting(name), chunks=(100, 8)) for name in given}
    support.write_arrays(tmp_path / "x.h5", arrays, exhaust_dci=not side_by_side, workers=1, progress=watch)
    assert given == stored == {"a": 40, "b": 40}
    in_flight = 2 * 1 + 2  # what the plan keeps going for one worker
    assert max(ahead.values()) <= in_flight + 2  # and a block being taken in, and one waiting to be


# --- events and receipts ----------------------------------------------------------------


def mixed():
    return {
        "array": nwbflow.DataIO(DATA, codec="gzip", chunks=(300, 3)),
        "plain": nwbflow.DataIO(np.concatenate([DATA] * 3)),
        "blocks": stream(iter(pieces(333))),
        "tiles": nwbflow.DataIO(support.Tiles(DATA, chunk_shape=(100, 8), buffer_shape=(1000, 8)), codec=("zstd", 1)),
        "theirs": nwbflow.DataIO(DATA, codec="lzf", chunks=(1000, 8)),
    }


@pytest.mark.requirement("M1")
@pytest.mark.parametrize("side_by_side", [True, False])
def test_the_sums_of_events_are_what_the_file_holds(side_by_side, tmp_path):
    path, seen = tmp_path / "x.h5", Recorder()
    receipt = support.write_arrays(path, mixed(), exhaust_dci=not side_by_side, progress=seen, workers=2)
    by_name = {d.name: d for d in receipt.datasets}
    assert by_name.keys() == {f"/{name}" for name in mixed()}
    for name, facts in by_name.items():
        chunks = [event for event in seen.of(ChunkStored) if event.dataset == name]
        with h5py.File(path) as file:
            dataset = file[name]
            assert sum(event.raw_bytes for event in chunks) == facts.raw_bytes == dataset.nbytes
            assert facts.stored_bytes == dataset.id.get_storage_size()
            assert facts.layout.shape == dataset.shape
            chunked = dataset.chunks is not None
        assert chunks[-1].raw_done == facts.raw_bytes
        assert len(chunks) == facts.chunks
        if chunked and facts.encoded_by != "HDF5":
            assert {event.offset: event.stored_bytes for event in chunks} == support.chunk_sizes(path, name)
            assert sum(event.stored_bytes for event in chunks) == facts.stored_bytes
    assert receipt.raw_bytes == sum(event.raw_bytes for event in seen.of(ChunkStored))
    assert receipt == seen.events[-1].receipt


@pytest.mark.requirement("M1")
def test_what_codecs_run_by_hdf5_store_is_counted_right_too(tmp_path):
    path, seen = tmp_path / "x.h5", Recorder()
    support.write_array(path, nwbflow.DataIO(np.zeros((4000, 8), "i2"), codec="lzf", chunks=(1000, 8)), progress=seen)
    stored = sum(event.stored_bytes for event in seen.of(ChunkStored))
    assert stored == sum(support.chunk_sizes(path, "x").values())


@pytest.mark.requirement("M1")
@pytest.mark.parametrize("side_by_side", [True, False])
def test_events_come_in_order(side_by_side, tmp_path):
    path, seen = tmp_path / "x.h5", Recorder()
    support.write_arrays(path, mixed(), exhaust_dci=not side_by_side, progress=seen)
    kinds = [type(event) for event in seen.events]
    assert kinds[0] is RunStarted
    assert kinds[-1] is RunFinished
    assert (kinds.count(RunStarted), kinds.count(RunFinished), kinds.count(RunFailed)) == (1, 1, 0)
    for name in seen.events[0].datasets:
        mine = [type(event) for event in seen.events if getattr(event, "dataset", None) == name]
        order = [kind for kind, _ in itertools.groupby(mine) if kind.__name__ != "Warned"]
        assert order == [DatasetStarted, ChunkStored, DatasetFinished, DatasetVerified]
    done = {}
    for event in seen.of(ChunkStored):
        assert event.raw_done == done.get(event.dataset, 0) + event.raw_bytes
        done[event.dataset] = event.raw_done
        assert min(event.read_seconds, event.encode_seconds, event.store_seconds, event.lag_seconds, event.queued) >= 0
    assert seen.events[0].raw_bytes is None  # one of them does not say how long it is


@pytest.mark.requirement("M1")
def test_the_size_is_announced_where_it_is_known(tmp_path):
    seen = Recorder()
    arrays = {"a": nwbflow.DataIO(DATA, codec="gzip"),
              "b": nwbflow.DataIO(nwbflow.blocks(iter(pieces()), shape=(4000, 8), dtype="i2"), codec="gzip")}  # fmt: skip
    receipt = support.write_arrays(tmp_path / "x.h5", arrays, progress=seen)
    assert receipt.raw_bytes == 2 * DATA.nbytes
    assert sum(event.raw_bytes for event in seen.of(DatasetStarted)) == 2 * DATA.nbytes
    assert seen.events[0].raw_bytes == 2 * DATA.nbytes


@pytest.mark.requirement("M1")
def test_overlaps_are_not_counted_twice(tmp_path):
    seen = Recorder()
    again = [(np.s_[0:2000, :], DATA[:2000]), (np.s_[1000:4000, :], DATA[1000:]), (np.s_[0:10, :], DATA[:10])]
    wrapper = nwbflow.DataIO(support.Pieces(again, (4000, 8), "i2"), codec="gzip", chunks=(1000, 8))
    receipt = support.write_array(tmp_path / "x.h5", wrapper, progress=seen, verify="full")
    np.testing.assert_array_equal(support.read_array(tmp_path / "x.h5"), DATA)
    facts = receipt.datasets[0]
    assert (facts.raw_bytes, facts.chunks, facts.unwritten) == (DATA.nbytes, 4, 0)
    assert seen.of(ChunkStored)[-1].raw_done <= DATA.nbytes


@pytest.mark.requirement("M1")
def test_elements_never_given_are_counted(tmp_path):
    given = [(np.s_[0:1000, :], DATA[:1000]), (np.s_[3000:3001, :], DATA[:1])]
    receipt = support.write_array(tmp_path / "x.h5", support.Pieces(given, (4000, 8), "i2"))
    assert receipt.datasets[0].unwritten == 2999 * 8
    assert any("23992 elements were never given" in note for note in receipt.notes)


@pytest.mark.requirement("M1")
@pytest.mark.parametrize("kind", [RunStarted, DatasetStarted, ChunkStored, DatasetFinished, DatasetVerified, RunFinished])
def test_an_observer_that_raises_hurts_nobody(kind, tmp_path):
    def breaks(event):
        if isinstance(event, kind):
            raise ValueError("no more ink")

    first, seen = Recorder(breaks), Recorder()
    receipt = support.write_arrays(tmp_path / "x.h5", mixed(), progress=[first, seen])
    assert isinstance(seen.events[-1], RunFinished)
    assert first.of(kind) == seen.of(kind)[:1]
    np.testing.assert_array_equal(support.read_array(tmp_path / "x.h5", "blocks"), DATA)
    if kind is not RunFinished:
        assert any("no more ink" in note for note in receipt.notes)


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
        broken = job(
            file, "x", data, lambda encoder: Faulty(encoder, {lost}), columns, aside=kind == "stream aside"
        )
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


