"""Chunks encoded outside HDF5 are what hdf5plugin writes, and read back by stock h5py."""

import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwbflow.encoding import plugin_library, plugins
from nwbflow.encoding.plugins import plugin_encoder
from nwbflow.model.layout import Filter, Layout

DTYPES = ["|i1", "<u2", ">i2", "<i4", "<f4", ">f8", "<i8", "<c16"]
CONTENTS = ["zeros", "ramp", "walk", "noise"]


def filled(content, dtype, shape, seed=0):
    count = int(np.prod(shape))
    if content == "noise":
        raw = np.random.default_rng(seed).integers(0, 256, count * np.dtype(dtype).itemsize, dtype=np.uint8)
        return raw.view(dtype).reshape(shape)
    values = {
        "zeros": lambda: np.zeros(count),
        "ramp": lambda: np.arange(count) % 120,
        "walk": lambda: np.cumsum(np.random.default_rng(seed).integers(-2, 3, count)) % 120,
    }[content]()
    return values.astype(dtype).reshape(shape)


def request(name, level, shuffle, block):
    blosc_names = ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
    return {
        "zstd": lambda: hdf5plugin.Zstd(level - 3),
        "lz4": lambda: hdf5plugin.LZ4((0, 8, 100, 4096)[block]),
        "bzip2": lambda: hdf5plugin.BZip2(1 + level % 9),
        "bitshuffle": lambda: hdf5plugin.Bitshuffle((0, 8, 64, 1024)[block], ("none", "lz4", "zstd")[shuffle], level),
        "blosc": lambda: hdf5plugin.Blosc((*blosc_names, "snappy")[block + level % 3], level, shuffle),
        "blosc2": lambda: hdf5plugin.Blosc2(blosc_names[block + level % 2], level, shuffle),
    }[name]()


NAMES = ["zstd", "lz4", "bzip2", "bitshuffle", "blosc", "blosc2"]
requests = st.builds(request, st.sampled_from(NAMES), st.integers(0, 9), st.integers(0, 2), st.integers(0, 3))
shapes = st.one_of(
    st.tuples(st.integers(1, 5000)),
    st.tuples(st.integers(1, 90), st.integers(1, 70)),
    st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 20)),
)


def memory_file():
    return h5py.File("memory", "w", driver="core", backing_store=False)


def recorded(dataset):
    plist = dataset.id.get_create_plist()
    found = [plist.get_filter(index) for index in range(plist.get_nfilters())]
    return tuple(Filter(number, options) for number, _, options, _ in found)


def layout_of(dataset):
    return Layout(
        shape=dataset.shape,
        maxshape=dataset.maxshape,
        dtype=dataset.dtype,
        chunks=dataset.chunks,
        filters=recorded(dataset),
    )


def encode(dataset, chunk):
    (item,) = recorded(dataset)
    encoder = plugin_encoder(item)
    assert encoder is not None
    return encoder(chunk.tobytes(), layout_of(dataset), item)


@pytest.mark.requirement("C2", "W3")
@settings(max_examples=200, deadline=None)
@given(requests, st.sampled_from(DTYPES), shapes, st.sampled_from(CONTENTS))
def test_chunks_are_those_of_hdf5plugin_and_read_by_stock_h5py(compression, dtype, shape, content):
    data = filled(content, dtype, shape)
    with memory_file() as file:
        theirs = file.create_dataset("theirs", data=data, chunks=shape, compression=compression)
        file.flush()
        mask, expected = theirs.id.read_direct_chunk((0,) * data.ndim)
        ours = file.create_dataset("ours", shape, dtype, chunks=shape, compression=compression)
        chunk = encode(ours, data)
        assert chunk is not None
        if compression.filter_id == hdf5plugin.BLOSC_ID and len(expected) >= data.nbytes - 16:
            # The filter refuses what does not shrink; ours holds it in a Blosc buffer.
            assert len(chunk) <= data.nbytes + 16
        else:
            assert mask == 0
            assert bytes(chunk) == expected
        ours.id.write_direct_chunk((0,) * data.ndim, chunk)
        file.flush()
        np.testing.assert_array_equal(ours[...].view(np.uint8), data.view(np.uint8), strict=True)


@pytest.mark.parametrize("compression", [request(name, 1, 2, 1) for name in NAMES], ids=NAMES)
@pytest.mark.parametrize("dtype", ["|u1", "<i2", "<f8"])
def test_chunks_of_one_element(compression, dtype):
    data = np.ones((1, 1), dtype)
    with memory_file() as file:
        dataset = file.create_dataset("data", (1, 1), dtype, chunks=(1, 1), compression=compression)
        dataset.id.write_direct_chunk((0, 0), encode(dataset, data))
        assert dataset[0, 0] == 1


@pytest.mark.parametrize("number", [32001, 32008, 32015, 32004, 307])
def test_defaults_where_only_the_filter_number_was_given(number):
    data = filled("walk", "<i2", (3000,))
    with memory_file() as file:
        theirs = file.create_dataset("theirs", data=data, chunks=data.shape, compression=number)
        file.flush()
        assert bytes(encode(theirs, data)) == theirs.id.read_direct_chunk((0,))[1]


@pytest.mark.parametrize("compression", [hdf5plugin.Blosc2("zstd", 5, 2), hdf5plugin.Blosc2("lz4", 5, 1)], ids=repr)
def test_large_blosc2_chunks_have_the_same_blocks_first_and_later(compression):
    data = filled("walk", "<i2", (20000, 64))
    with memory_file() as file:
        theirs = file.create_dataset("theirs", data=data, chunks=data.shape, compression=compression)
        file.flush()
        expected = theirs.id.read_direct_chunk((0, 0))[1]
        assert [bytes(encode(theirs, data)) == expected for _ in range(3)] == [True] * 3
        assert 0 < plugins._blosc2_blocks[recorded(theirs)[0].options] < data.nbytes


@pytest.mark.requirement("W3")
@pytest.mark.parametrize("compression", [request(name, 3, 2, 1) for name in NAMES], ids=NAMES)
def test_many_threads_get_the_bytes_of_one(compression):
    chunks = [filled(content, "<i2", (500 + step, 40), step) for step in range(6) for content in CONTENTS[1:3]]
    with memory_file() as file:
        datasets = [
            file.create_dataset(str(index), chunk.shape, chunk.dtype, chunks=chunk.shape, compression=compression)
            for index, chunk in enumerate(chunks)
        ]
        jobs = [
            (recorded(dataset)[0], layout_of(dataset), chunk) for dataset, chunk in zip(datasets, chunks, strict=True)
        ]
        plugins._blosc2_blocks.clear()
        start = threading.Barrier(4)

        def work(_):
            start.wait(30)
            return [bytes(plugin_encoder(item)(chunk, layout, item)) for item, layout, chunk in jobs]

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(work, range(4)))
        for dataset, chunk in zip(datasets, chunks, strict=True):
            dataset[...] = chunk
        file.flush()
        expected = [dataset.id.read_direct_chunk((0, 0))[1] for dataset in datasets]
    assert results == [expected] * 4


@pytest.mark.requirement("W3")
@pytest.mark.parametrize("compression", [hdf5plugin.Zstd(19), hdf5plugin.Blosc("zstd", 9, 1)], ids=repr)
def test_the_interpreter_runs_while_a_chunk_is_encoded(compression):
    data = filled("walk", "<i4", (700_000,))
    with memory_file() as file:
        dataset = file.create_dataset("data", data.shape, data.dtype, chunks=data.shape, compression=compression)
        item, layout = recorded(dataset)[0], layout_of(dataset)
    encoder = plugin_encoder(item)
    spent = []

    def work():
        before = time.thread_time()
        encoder(data, layout, item)
        spent.append(time.thread_time() - before)

    # Processor time, not wall time: two threads that both may run get equal shares of it, on
    # one core too. Were the GIL held, ours would get next to none until the other is done.
    thread = threading.Thread(target=work)
    before = time.thread_time()
    thread.start()
    while not spent:
        pass
    own = time.thread_time() - before
    thread.join()
    assert own > 0.3 * spent[0]


def test_data_stay_as_they_are_and_may_be_read_only():
    data = filled("walk", "<i2", (4000,))
    data.setflags(write=False)
    before = data.tobytes()
    for name in NAMES:
        with memory_file() as file:
            dataset = file.create_dataset("d", data.shape, "<i2", chunks=data.shape, compression=request(name, 5, 1, 2))
            (item,) = recorded(dataset)
            assert plugin_encoder(item)(data, layout_of(dataset), item) is not None
    assert data.tobytes() == before


def test_a_refused_chunk_is_none_and_leaves_its_data_alone():
    # Bitshuffle needs whole elements; HDF5 stores such a chunk without the filter.
    item = Filter(32008, (0, 4, 8, 0, 2))
    layout = Layout(shape=(9,), maxshape=(9,), dtype=np.dtype("u1"), chunks=(9,), filters=(item,))
    assert plugin_encoder(item)(bytes(9), layout, item) is None
    item = Filter(32001, (2, 2, 1, 9, 5, 1, 77))
    assert plugin_encoder(item)(bytes(9), layout, item) is None
    # Only an unknown compressor is left to try what a filter does that was called and refused.
    item = Filter(32026, (1, 0, 1, 9, 5, 1, 77))
    data = bytes(range(9))
    assert plugin_encoder(item)(data, layout, item) is None
    assert data == bytes(range(9))


def test_encoders_are_picklable():
    for number in (32001, 32026, 32015):
        encoder = plugin_encoder(Filter(number, (2, 2, 2, 64, 5, 1, 1)))
        assert pickle.loads(pickle.dumps(encoder)) is encoder


@pytest.mark.parametrize(
    "item",
    [
        Filter(32013, (1,)),
        Filter(32024),
        Filter(32026, (1, 0, 8, 80)),
        Filter(32001),
        Filter(32000),
        Filter(40000),
        Filter(1, (4,)),
    ],
    ids=str,
)
def test_other_filters_are_left_to_hdf5(item):
    assert plugin_encoder(item) is None


WITHOUT = """
import sys
sys.modules["hdf5plugin"] = None
from nwbflow.encoding.plugins import plugin_encoder
from nwbflow.model.layout import Filter
assert all(plugin_encoder(Filter(number, (3,))) is None for number in (32001, 32026, 32015, 32004, 32008, 307))
"""


def test_without_hdf5plugin_nothing_is_available():
    subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT], check=True, timeout=120)


def test_a_plugin_registered_by_somebody_else_is_left_to_hdf5(monkeypatch):
    known = hdf5plugin.get_config()
    elsewhere = known._replace(registered_filters=dict.fromkeys(known.registered_filters, "unknown"))
    monkeypatch.setattr(hdf5plugin, "get_config", lambda: elsewhere)
    plugin_library.library.cache_clear()
    plugin_library.filter_function.cache_clear()
    try:
        assert plugin_encoder(Filter(32015, (3,))) is None
    finally:
        plugin_library.library.cache_clear()
        plugin_library.filter_function.cache_clear()
