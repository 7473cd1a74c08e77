"""What the engine does while it runs: fairness, back-pressure, events (W4, W7, M1)."""

import itertools
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import support

import nwbflow
from nwbflow.model.events import (
    ChunkStored,
    DatasetFinished,
    DatasetStarted,
    DatasetVerified,
    RunFailed,
    RunFinished,
    RunStarted,
)

sys.path.insert(0, str(Path(__file__).parent))

from streams import DATA, PATIENCE, Recorder, pieces, stream

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
    known = nwbflow.blocks(iter(pieces()), shape=(4000, 8), dtype="i2")
    arrays = {"a": nwbflow.DataIO(DATA, codec="gzip"), "b": nwbflow.DataIO(known, codec="gzip")}
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


@pytest.mark.requirement("M1", "W8")
@pytest.mark.parametrize("chunk", [400, 1000, 1700, 4000])
@pytest.mark.parametrize("maxshape", [(4000, 8), (None, 8)])
def test_overlaps_do_not_hide_what_was_never_given(chunk, maxshape, tmp_path):
    """The same rows four times, and the last row so that all of the length is claimed."""
    given = [(np.s_[0:1000, :], DATA[:1000])] * 4 + [(np.s_[3999:4000, :], DATA[-1:])]
    wrapper = nwbflow.DataIO(support.Pieces(given, maxshape, "i2"), codec="gzip", chunks=(chunk, 8))
    receipt = support.write_array(tmp_path / "x.h5", wrapper)
    assert receipt.datasets[0].unwritten == 2999 * 8


@pytest.mark.requirement("M1")
@pytest.mark.parametrize("seed", range(4))
def test_with_any_overlaps_no_more_is_called_unwritten_than_is(seed, tmp_path):
    rng = np.random.default_rng(seed)
    corners = [np.sort(rng.integers(0, [4001, 9], (2, 2)), axis=0) for _ in range(30)]
    places = [tuple(slice(*pair) for pair in corner.T.tolist()) for corner in corners]
    places = [place for place in places if DATA[place].size]
    covered = np.zeros(DATA.shape, bool)
    for place in places:
        covered[place] = True
    wrapper = nwbflow.DataIO(
        support.Pieces([(p, DATA[p]) for p in places], DATA.shape, "i2"), codec="gzip", chunks=(700, 3)
    )
    receipt = support.write_array(tmp_path / "x.h5", wrapper)
    assert 0 <= receipt.datasets[0].unwritten <= np.count_nonzero(~covered)


@pytest.mark.requirement("M1")
@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_without_overlaps_what_was_never_given_is_counted_exactly(order, tmp_path):
    places = support.cut(DATA.shape, (150, 3))
    rng = np.random.default_rng(1)
    kept = [place for place in places if rng.random() < 0.7]
    {"forwards": lambda: None, "backwards": kept.reverse, "shuffled": lambda: rng.shuffle(kept)}[order]()
    wrapper = nwbflow.DataIO(
        support.Pieces([(p, DATA[p]) for p in kept], DATA.shape, "i2"), codec="gzip", chunks=(400, 4)
    )
    receipt = support.write_array(tmp_path / "x.h5", wrapper)
    assert receipt.datasets[0].unwritten == DATA.size - sum(DATA[p].size for p in kept)


@pytest.mark.requirement("M1")
def test_elements_never_given_are_counted(tmp_path):
    given = [(np.s_[0:1000, :], DATA[:1000]), (np.s_[3000:3001, :], DATA[:1])]
    receipt = support.write_array(tmp_path / "x.h5", support.Pieces(given, (4000, 8), "i2"))
    assert receipt.datasets[0].unwritten == 2999 * 8
    assert any("23992 elements were never given" in note for note in receipt.notes)


@pytest.mark.requirement("M1")
@pytest.mark.parametrize(
    "kind", [RunStarted, DatasetStarted, ChunkStored, DatasetFinished, DatasetVerified, RunFinished]
)
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
