"""Sources read what numpy would, and say what is wrong with a raw file."""

import os

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


class Reusing(support.Sliceable):
    """Gives every slice in one and the same buffer."""

    def __getitem__(self, key):
        part = self._array[key]
        if not hasattr(self, "buffer"):
            self.buffer = np.empty_like(part)
        view = self.buffer[tuple(slice(0, n) for n in part.shape)]
        view[...] = part
        return view


@pytest.mark.requirement("W2", "W4")
def test_a_sliceable_may_use_its_buffer_again(tmp_path):
    source = SliceSource(Reusing(ARRAY))
    first = source.read((slice(0, 3), slice(0, 5), slice(0, 4)))
    source.read((slice(3, 6), slice(0, 5), slice(0, 4)))
    np.testing.assert_array_equal(first, ARRAY[:3])
    values = np.random.default_rng(2).integers(-99, 99, (4000, 8)).astype("i2")
    wrapper = nwbflow.DataIO(Reusing(values), codec="gzip", chunks=(100, 8))
    support.write_array(tmp_path / "x.h5", wrapper, workers=2, verify="full")
    np.testing.assert_array_equal(support.read_array(tmp_path / "x.h5"), values)


@pytest.mark.requirement("W2")
def test_slices_of_h5py_and_dask_are_not_copied_again(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for array in (file.create_dataset("x", data=ARRAY), dask.array.from_array(ARRAY + 1, chunks=2) + 1):
            source = SliceSource(array)
            given = []
            real = np.asarray
            monkeypatch.setattr("nwbflow.sources.arrays.np.asarray", lambda x, r=real, g=given: g.append(x) or r(x))
            read = source.read((slice(0, 3), slice(0, 5), slice(0, 4)))
            monkeypatch.undo()
            assert read is given[-1]


def mapped(path, values=None):
    values = np.arange(10_000, dtype="i4") if values is None else values
    values.tofile(path)
    return np.memmap(path, "i4", "r", offset=8), values[2:]


def replaced(path, values):
    """Put a file of other values under the name, as editors and downloads do."""
    values.tofile(path.with_name("new"))
    path.with_name("new").replace(path)


@pytest.mark.requirement("W2", "W8")
@pytest.mark.parametrize(
    "change",
    [
        lambda path, _: path.unlink(),
        lambda path, values: replaced(path, np.concatenate([[9, 9], values + 1]).astype("i4")),
        lambda path, values: replaced(path, np.concatenate([[9, 9], values, values]).astype("i4")),
        replaced,
        lambda path, values: replaced(path, np.concatenate([[9, 9], values[:-1], [7]]).astype("i4")),
    ],
    ids=["deleted", "other values", "longer", "shorter", "another end"],
)
def test_a_map_whose_file_was_replaced_is_stored_as_it_was(change, tmp_path):
    data, values = mapped(tmp_path / "raw")
    assert isinstance(as_source(data), RawSource)
    change(tmp_path / "raw", values)
    support.write_array(tmp_path / "x.h5", nwbflow.DataIO(data, codec="gzip"))
    np.testing.assert_array_equal(support.read_array(tmp_path / "x.h5"), values)


@pytest.mark.requirement("W2")
def test_a_map_of_part_of_a_file_is_read_from_the_file(tmp_path):
    np.arange(10_000, dtype="i4").tofile(tmp_path / "raw")
    for shape, offset in [((5000,), 0), ((10,), 12), ((5000,), 20_000), ((7, 100), 4)]:
        assert isinstance(as_source(np.memmap(tmp_path / "raw", "i4", "r", offset, shape)), RawSource)


@pytest.mark.requirement("W8")
def test_a_map_whose_file_was_cut_off_is_an_error_and_no_crash(tmp_path):
    data, _ = mapped(tmp_path / "raw")
    os.truncate(tmp_path / "raw", 100)
    with pytest.raises(SourceError, match=r"raw ends at byte 100") as raised:
        support.write_array(tmp_path / "x.h5", nwbflow.DataIO(data, codec="gzip"))
    assert raised.value.kind is ErrorKind.LENGTH


@pytest.mark.requirement("W2")
def test_a_relative_path_holds_when_the_working_folder_changes(tmp_path, monkeypatch):
    ARRAY.tofile(tmp_path / "raw")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    data = nwbflow.raw("raw", dtype="i2", shape=(None, 5, 4))
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(data[:], ARRAY)


def test_a_missing_raw_file_is_named_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as raised:
        nwbflow.raw("nowhere", dtype="i2", shape=(None,))
    assert str(tmp_path / "nowhere") in str(raised.value)
