"""Chunks encoded here, stored directly, read by stock h5py."""

import io
import itertools
import pickle
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nwbflow.encoding import pipeline
from nwbflow.encoding.pipeline import FilterEncoder, encoder_for
from nwbflow.errors import SettingsError, SourceError, UnsupportedError
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Filter, Layout
from nwbflow.testing.simulate import neuropixels

DTYPES = ["i1", "u1", "<i2", ">i2", "<u2", "<i4", ">u4", "<i8", "<f2", "<f4", ">f4", "<f8", "?", "<c8", "<c16"]
NAMES = {1: "set_deflate", 2: "set_shuffle", 3: "set_fletcher32"}
ORDERS = [order for count in range(4) for order in itertools.permutations((1, 2, 3), count)]
LEVEL = 5


def create(file, shape, dtype, order, chunks=None):
    """Create a dataset whose filters have exactly this order (h5py's high level fixes one)."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(chunks or shape)
    for number in order:
        getattr(properties, NAMES[number])(*((LEVEL,) if number == 1 else ()))
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    h5py.h5d.create(file.id, b"d", kind, h5py.h5s.create_simple(shape), properties)
    return file["d"]


def layout_of(dataset):
    properties = dataset.id.get_create_plist()
    found = [properties.get_filter(index) for index in range(properties.get_nfilters())]
    return Layout(
        shape=dataset.shape,
        maxshape=dataset.maxshape,
        dtype=dataset.dtype,
        chunks=dataset.chunks,
        filters=tuple(Filter(number, tuple(options)) for number, _, options, _ in found),
    )


def stored_and_read(array, order, effort=None, encoded=None):
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        dataset = create(file, array.shape, array.dtype, order)
        if encoded is None:
            encoded = encoder_for(layout_of(dataset), effort=effort).encode(array)
        dataset.id.write_direct_chunk((0,) * array.ndim, encoded.data, filter_mask=encoded.filter_mask)
    with h5py.File(memory, "r") as file:
        return file["d"][()], encoded


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def layout(array, *filters, chunks=()):
    return Layout(
        shape=array.shape, maxshape=array.shape, dtype=array.dtype, chunks=chunks or array.shape, filters=filters
    )


arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=4, max_side=12))
)


@pytest.mark.requirement("C1")
@settings(deadline=None, max_examples=200)
@given(array=arrays, order=st.sampled_from(ORDERS), effort=st.sampled_from([None, 0, 1, 6, 9, "fast"]))
def test_stock_h5py_reads_what_is_encoded(array, order, effort):
    back, encoded = stored_and_read(array, order, effort)
    assert same(back, array)
    assert encoded.filter_mask == 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", "<f8", "<c16"])
def test_large_chunks_too(dtype, order):
    rng = np.random.default_rng(5)
    array = np.cumsum(rng.normal(0, 20, (25_000, 8)), axis=0).astype(dtype)
    assert same(stored_and_read(array, order)[0], array)


@pytest.mark.parametrize("order", [order for order in ORDERS if 1 not in order])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_equal_hdf5s_where_there_is_one_answer(dtype, order):
    array = np.frombuffer(np.random.default_rng(6).bytes(13 * 5 * 16), "u1").astype(dtype).reshape(13, -1)
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = create(file, array.shape, dtype, order)
        dataset[...] = array
        stored = dataset.id.read_direct_chunk((0, 0))[1]
        assert bytes(encoder_for(layout_of(dataset)).encode(array).data) == stored


@pytest.mark.requirement("C1")
def test_h5pys_gzip_chunk_inflates_to_the_same():
    array = neuropixels(0.05, channels=96)
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("d", data=array, chunks=array.shape, compression=4, shuffle=True)
        stored = dataset.id.read_direct_chunk((0, 0))[1]
        ours = encoder_for(layout_of(dataset)).encode(array).data
    assert zlib.decompress(ours) == zlib.decompress(stored)
    assert len(ours) <= len(stored)


def test_level_comes_from_the_file_unless_an_effort_is_given():
    array = neuropixels(0.02, channels=64)
    one, nine = (encoder_for(layout(array, Filter(2, (2,)), Filter(1, (level,)))) for level in (1, 9))
    assert len(nine.encode(array).data) < len(one.encode(array).data)
    both = encoder_for(one.layout, effort=9)
    assert both.encode(array) == nine.encode(array)
    stored = encoder_for(one.layout, effort=0).encode(array)
    assert len(stored.data) > array.nbytes


@pytest.mark.parametrize("filters", [(), (Filter(2, (2,)),), (Filter(1, (4,)),), (Filter(2, (2,)), Filter(1, (4,)))])
def test_views_of_any_strides(filters):
    whole = neuropixels(0.02, channels=32)
    for view in (whole[:, 5:21], whole[::2], whole.T, whole[::-1, ::-3]):
        encoder = encoder_for(layout(view, *filters))
        assert encoder.encode(view) == encoder.encode(np.ascontiguousarray(view))


@pytest.mark.parametrize(
    "filters", [(), (Filter(2, (1,)),), (Filter(2, (2,)),), (Filter(3),), (Filter(1, (0,)),), (Filter(1, (1,)),)]
)
def test_the_callers_memory_may_be_reused(filters):
    array = np.arange(600, dtype="i2").reshape(30, 20)
    encoded = encoder_for(layout(array, *filters)).encode(array)
    before = bytes(encoded.data)
    array[...] = -1
    assert bytes(encoded.data) == before


@pytest.mark.parametrize("skipped", [1, 2, 3])
def test_h5py_honours_the_mask_of_a_chunk_that_left_filters_out(skipped):
    array = np.arange(600, dtype="i2").reshape(30, 20)
    filters = (Filter(2, (2,)), Filter(1, (4,)))

    def leave(data):
        return None

    steps = tuple(
        leave if skipped >> index & 1 else step
        for index, step in enumerate(encoder_for(layout(array, *filters))._steps)
    )
    encoded = FilterEncoder(layout(array, *filters), None, steps).encode(array)
    assert encoded.filter_mask == skipped
    assert same(stored_and_read(array, (2, 1), encoded=encoded)[0], array)


@pytest.mark.parametrize("unknown", [4, 5, 6, 32000, 65000])
def test_a_filter_that_only_hdf5_has_leaves_the_pipeline_to_hdf5(unknown):
    array = np.zeros((4, 4), "i2")
    assert encoder_for(layout(array, Filter(2, (2,)), Filter(unknown))) is None


def test_contiguous_storage_has_no_encoder():
    assert encoder_for(Layout(shape=(4,), maxshape=(4,), dtype=np.dtype("i2"), chunks=None)) is None


def test_plugins_join_the_pipeline(monkeypatch):
    def rot(data, layout, item):
        return memoryview((np.frombuffer(data, "u1") + item.options[0]).astype("u1"))

    monkeypatch.setattr(pipeline, "plugin_encoder", lambda item: rot if item.id == 400 else None)
    array = np.arange(8, dtype="u1")
    encoder = encoder_for(layout(array, Filter(2, (1,)), Filter(400, (3,)), Filter(1, (6,))))
    assert zlib.decompress(encoder.encode(array).data) == bytes(range(3, 11))


def test_plugin_after_shuffle_is_read_by_stock_h5py():
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="needs the extra nwbflow[codecs]")
    array = neuropixels(0.02, channels=32)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        options = hdf5plugin.Zstd(clevel=3)
        dataset = file.create_dataset(
            "d", array.shape, array.dtype, chunks=array.shape, shuffle=True, fletcher32=True, **options
        )
        encoder = encoder_for(layout_of(dataset))
        if encoder is None:
            pytest.skip("this build of hdf5plugin can't be called outside HDF5")
        encoded = encoder.encode(array)
        dataset.id.write_direct_chunk((0, 0), encoded.data, filter_mask=encoded.filter_mask)
    with h5py.File(memory, "r") as file:
        assert same(file["d"][()], array)
    assert len(encoded.data) < array.nbytes / 1.5


@pytest.mark.parametrize("filters", [(), (Filter(2, (2,)), Filter(1, (4,)), Filter(3))])
def test_pickled_encoders_encode_the_same(filters):
    array = neuropixels(0.01, channels=32)
    encoder = encoder_for(layout(array, *filters), effort="fast")
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy == encoder
    assert copy.encode(array) == encoder.encode(array)


def test_unpickling_without_the_plugin_says_what_to_install(monkeypatch):
    array = np.arange(8, dtype="u1")
    monkeypatch.setattr(pipeline, "plugin_encoder", lambda item: lambda data, layout, item: None)
    frozen = pickle.dumps(encoder_for(layout(array, Filter(32015, (3,)))))
    monkeypatch.setattr(pipeline, "plugin_encoder", lambda item: None)
    with pytest.raises(UnsupportedError, match=r"32015.*install"):
        pickle.loads(frozen)


def test_two_threads_encode_what_one_does():
    probe = neuropixels(0.2, channels=64)
    chunks = [np.ascontiguousarray(probe[start : start + 1500]) for start in range(0, 4500, 150)]
    encoder = encoder_for(layout(chunks[0], Filter(2, (2,)), Filter(1, (4,)), Filter(3)))
    alone = [encoder.encode(chunk) for chunk in chunks]
    start = threading.Barrier(2)
    with ThreadPoolExecutor(2, initializer=start.wait) as pool:
        assert list(pool.map(encoder.encode, chunks)) == alone
    assert len(alone) > 20


def test_equal_layouts_give_equal_hashable_encoders():
    array = np.zeros((4, 4), "i2")
    left, right = (encoder_for(layout(array, Filter(1, (4,)))) for _ in range(2))
    assert left == right
    assert hash(left) == hash(right)
    assert isinstance(left.encode(array), Encoded)


@pytest.mark.parametrize("wrong", [np.zeros((3, 4), "i2"), np.zeros((4, 4), ">i2"), np.zeros((4, 4), "f4")])
def test_chunks_of_another_kind_are_refused(wrong):
    encoder = encoder_for(layout(np.zeros((4, 4), "<i2"), Filter(1, (4,))))
    with pytest.raises(SourceError):
        encoder.encode(wrong)


def test_unknown_efforts_are_refused():
    with pytest.raises(SettingsError, match="'best'"):
        encoder_for(layout(np.zeros((4, 4), "i2")), effort="best")
