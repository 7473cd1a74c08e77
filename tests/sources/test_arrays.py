"""Sources read what numpy would, and say what is wrong with a raw file."""

import dask.array
import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
import support
from hypothesis import HealthCheck, given, settings

import nwbflow
from nwbflow.errors import ErrorKind, SourceError
from nwbflow.sources.arrays import ArraySource, RawSource, SliceSource, as_source

QUICK = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
ARRAY = np.arange(6 * 5 * 4, dtype="i2").reshape(6, 5, 4)


@st.composite
def regions(draw, shape):
    edges = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    return tuple(slice(*pair) for pair in edges)


@pytest.mark.requirement("W2")
@QUICK
@given(region=regions(ARRAY.shape), offset=st.integers(0, 9))
def test_every_source_reads_the_region_asked_for(region, offset, tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(bytes(offset) + ARRAY.tobytes())
    sources = {
        "raw": RawSource(path, dtype=ARRAY.dtype, shape=ARRAY.shape, offset=offset),
        "array": ArraySource(ARRAY),
        "sliceable": SliceSource(support.Sliceable(ARRAY)),
        "dask": SliceSource(dask.array.from_array(ARRAY, chunks=2)),
        "memmap": as_source(np.memmap(path, "i2", "r", offset, ARRAY.shape)),
        "part of a memmap": as_source(np.memmap(path, "i2", "r", offset, ARRAY.shape)[1:][:, ::-1]),
    }
    for name, source in sources.items():
        expected = ARRAY
        wanted = region
        if name == "part of a memmap":
            expected = ARRAY[1:][:, ::-1]
            wanted = (slice(min(region[0].start, 5), min(region[0].stop, 5)), *region[1:])
        read = source.read(wanted)
        assert read.dtype == ARRAY.dtype
        np.testing.assert_array_equal(read, expected[wanted], err_msg=name)


KEYS = (
    st.integers(-6, 5)
    | st.slices(6)
    | st.just(Ellipsis)
    | st.tuples(st.integers(-6, 5) | st.slices(6), st.integers(-5, 4) | st.slices(5))
    | st.tuples(st.just(Ellipsis), st.integers(-4, 3) | st.slices(4))
    | st.tuples(st.slices(6), st.just(Ellipsis), st.slices(4))
    | st.tuples(st.integers(-6, 5), st.integers(-5, 4), st.integers(-4, 3))
)


@pytest.mark.requirement("W2")
@QUICK
@given(key=KEYS)
def test_a_raw_recording_is_indexed_like_an_array(key, tmp_path):
    ARRAY.tofile(tmp_path / "raw")
    data = nwbflow.raw(tmp_path / "raw", dtype="i2", shape=(None, 5, 4))
    np.testing.assert_array_equal(data[key], ARRAY[key])


@pytest.mark.parametrize("key", [6, -7, (0, 0, 0, 0)])
def test_an_index_out_of_bounds_is_an_index_error(key, tmp_path):
    ARRAY.tofile(tmp_path / "raw")
    with pytest.raises(IndexError):
        nwbflow.raw(tmp_path / "raw", dtype="i2", shape=(None, 5, 4))[key]


@pytest.mark.requirement("W8")
def test_a_source_closed_in_mid_write_is_named(tmp_path):
    file = h5py.File(tmp_path / "source.h5", "w")
    data = file.create_dataset("x", data=np.ones((1000, 10)))

    def close(event):
        if type(event).__name__ == "ChunkStored":
            file.close()

    wrapper = nwbflow.DataIO(data, codec="gzip", chunks=(10, 10))
    with pytest.raises(SourceError, match=r"/x: .*closed before.*keep its file open") as raised:
        support.write_array(tmp_path / "x.h5", wrapper, progress=close, workers=1)
    assert raised.value.kind is ErrorKind.CLOSED


@pytest.mark.requirement("W8")
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_dataset_closed_before_the_write_is_named(wrapped, tmp_path):
    with h5py.File(tmp_path / "source.h5", "w") as file:
        data = file.create_dataset("x", data=np.ones((1000, 10)))
        given_data = nwbflow.DataIO(data, codec="gzip") if wrapped else data
    with pytest.raises(SourceError, match=r"/x: .*closed") as raised:
        support.write_array(tmp_path / "x.h5", given_data)
    assert raised.value.kind is ErrorKind.CLOSED
    assert not (tmp_path / "x.h5").exists()
