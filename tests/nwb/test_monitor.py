"""What hdmf.monitor had, with every iterator, in nwbflow's writers and in plain PyNWB."""

from __future__ import annotations

import h5py
import numpy as np
import pynwb
import pytest
from hdmf.data_utils import AbstractDataChunkIterator, DataChunk, DataChunkIterator, GenericDataChunkIterator
from hdmf.utils import docval, getargs
from pynwb import TimeSeries
from support import session

import nwbflow
from nwbflow.errors import ErrorKind, SettingsError, SourceError

pytestmark = pytest.mark.requirement("M3")

ROWS = np.arange(1100, dtype="i2").reshape(275, 4)


class Tiles(GenericDataChunkIterator):
    """Tiles in two axes: rows come in parts."""

    def _get_data(self, selection):
        return ROWS[selection]

    def _get_maxshape(self):
        return ROWS.shape

    def _get_dtype(self):
        return ROWS.dtype


class Backwards(AbstractDataChunkIterator):
    """Somebody's own: rows from the last to the first."""

    dtype, maxshape = ROWS.dtype, (None, 4)

    def __init__(self):
        self._at = len(ROWS)

    def __iter__(self):
        return self

    def __next__(self):
        if self._at == 0:
            raise StopIteration
        first = max(0, self._at - 100)
        chunk = DataChunk(ROWS[first : self._at], np.s_[first : self._at, :])
        self._at = first
        return chunk

    def recommended_chunk_shape(self):
        return None

    def recommended_data_shape(self):
        return ROWS.shape


KINDS = {
    "a generator": lambda: (row for row in ROWS),
    "DataChunkIterator": lambda: DataChunkIterator(data=(row for row in ROWS), buffer_size=50),
    "GenericDataChunkIterator": lambda: Tiles(buffer_shape=(100, 2), chunk_shape=(50, 2)),
    "own, backwards": Backwards,
    "nwbflow.blocks": lambda: nwbflow.blocks(iter([ROWS[:30], ROWS[30:]]), shape=(None, 4), dtype="i2"),
}


def written(data, path, how):
    nwbfile = session()
    nwbfile.add_acquisition(TimeSeries(name="x", data=data, unit="V", rate=1.0))
    if how == "nwbflow.write":
        nwbflow.write(nwbfile, path)
    else:
        with (nwbflow if how == "drop-in" else pynwb).NWBHDF5IO(path, "w") as io:
            io.write(nwbfile)
    with h5py.File(path) as file:
        return file["acquisition/x/data"][()]


@pytest.mark.parametrize("how", ["nwbflow.write", "drop-in", "plain PyNWB"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_iterator_are_counted_while_it_is_written(tmp_path, kind, how):
    counter = nwbflow.NumSampleCounter(KINDS[kind]())
    with pytest.raises(SettingsError, match="has not ended") as caught:
        counter.get_final_result()
    assert caught.value.kind is ErrorKind.EXHAUSTED
    stored = written(counter, tmp_path / "a.nwb", how)
    assert np.array_equal(stored, ROWS)
    assert counter.get_final_result() == 275


@pytest.mark.parametrize("kind", KINDS)
def test_it_counts_in_a_loop_and_within_settings(tmp_path, kind):
    counter = nwbflow.NumSampleCounter(data=KINDS[kind]())
    for chunk in counter:
        assert isinstance(chunk, DataChunk)
    assert counter.get_final_result() == 275
    counter = nwbflow.NumSampleCounter(data=KINDS[kind]())
    written(nwbflow.DataIO(counter, chunks=(100, 4), codec="gzip"), tmp_path / "a.nwb", "nwbflow.write")
    assert counter.get_final_result() == 275
    with h5py.File(tmp_path / "a.nwb") as file:
        assert file["acquisition/x/data"].chunks == (100, 4)


def test_a_processor_written_for_hdmf_works_unchanged(tmp_path):
    class Highest(nwbflow.DataChunkProcessor):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.highest = 0

        @docval({"name": "data_chunk", "type": DataChunk, "doc": "a chunk to process"})
        def process_data_chunk(self, **kwargs):
            self.highest = max(self.highest, int(getargs("data_chunk", kwargs).data.max()))

        @docval(returns="the result of processing this stream")
        def compute_final_result(self, **kwargs):
            return self.highest

    processor = Highest(data=DataChunkIterator(data=iter(ROWS)))
    written(processor, tmp_path / "a.nwb", "nwbflow.write")
    assert processor.get_final_result() == 1099


def test_what_an_iterator_promises_is_checked_through_a_processor_too(tmp_path):
    tiles = Tiles(buffer_shape=(100, 2), chunk_shape=(50, 2))
    next(tiles)
    with pytest.raises(SourceError, match="partly used up"):
        written(nwbflow.NumSampleCounter(tiles), tmp_path / "a.nwb", "nwbflow.write")
    used = nwbflow.blocks(iter([ROWS]), shape=(None, 4), dtype="i2")
    written(nwbflow.NumSampleCounter(used), tmp_path / "b.nwb", "nwbflow.write")
    with pytest.raises(SourceError) as caught:
        written(nwbflow.NumSampleCounter(used), tmp_path / "c.nwb", "nwbflow.write")
    assert caught.value.kind is ErrorKind.EXHAUSTED


@pytest.mark.parametrize("data", [3, nwbflow.DataIO(ROWS)])
def test_what_can_not_be_looked_at_is_refused(data):
    with pytest.raises(SettingsError, match="NumSampleCounter was given"):
        nwbflow.NumSampleCounter(data)
