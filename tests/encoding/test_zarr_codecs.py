"""Codecs of HDF5 become codecs of Zarr; what is encoded here is decoded by zarr-python."""

import pickle

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from nwbflow.encoding.codecs import parse_codec
from nwbflow.encoding.zarr_codecs import bit_shuffled, from_metadata, to_metadata, zarr_encoder, zarr_filters
from nwbflow.errors import ErrorKind, SettingsError, SourceError
from nwbflow.model.layout import Filter, Layout
from nwbflow.sinks.zarr import layout_of_array

RNG = np.random.default_rng(0)
WALK = np.cumsum(RNG.normal(0, 5, (700, 24)), axis=0)

CODECS = [
    "none",
    "gzip",
    "gzip-fast",
    ("gzip", 0),
    ("gzip", 9),
    {"name": "gzip", "level": 4, "shuffle": False},
    "zstd",
    ("zstd", 19),
    ("zstd", -5),
    {"name": "zstd", "clevel": 3, "shuffle": True},
    "lz4",
    {"name": "lz4", "shuffle": True},
    "bitshuffle",
    {"name": "bitshuffle", "cname": "zstd", "clevel": 3},
    {"name": "blosc", "cname": "lz4hc", "clevel": 5},
    {"name": "blosc", "cname": "zlib", "clevel": 5, "shuffle": 1},
    {"name": "blosc2", "cname": "zstd", "clevel": 2, "filters": 2},
    ["shuffle", "gzip", "fletcher32"],
    ["zstd", "fletcher32"],
]


def _filters(codec, dtype, chunks=(100, 8)):
    return zarr_filters(parse_codec(codec, dtype=np.dtype(dtype), chunks=chunks).filters, np.dtype(dtype).itemsize)


@pytest.mark.requirement("C3")
@pytest.mark.parametrize("dtype", ["<i2", "u1", "<f4", "<f8", "?", "<i8"])
@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_zarr_python_decodes_what_is_encoded_here(codec, dtype):
    data = (WALK > 0) if dtype == "?" else WALK.astype("i8").astype(dtype)
    store = MemoryStore()
    array = zarr.create_array(
        store, shape=data.shape, chunks=(700, 24), dtype=data.dtype, compressors=to_metadata(_filters(codec, dtype)[0])
    )
    layout = layout_of_array(array)
    assert layout.filters == _filters(codec, dtype)[0]
    encoder = pickle.loads(pickle.dumps(zarr_encoder(layout)))
    encoded = encoder.encode(data)
    key = array.metadata.encode_chunk_key((0, 0))
    store._store_dict[key] = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(bytes(encoded.data))
    assert np.array_equal(zarr.open_array(store, mode="r")[:], data)


def test_noise_that_does_not_shrink_is_stored_in_a_blosc_buffer():
    data = RNG.integers(0, 2**16, (512, 24), dtype="u2")
    store = MemoryStore()
    array = zarr.create_array(
        store, shape=data.shape, chunks=data.shape, dtype=data.dtype, compressors=to_metadata(_filters("gzip", "u2")[0])
    )
    encoded = zarr_encoder(layout_of_array(array)).encode(data)
    assert len(encoded.data) == data.nbytes + 16
    key = array.metadata.encode_chunk_key((0, 0))
    store._store_dict[key] = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(bytes(encoded.data))
    assert np.array_equal(zarr.open_array(store, mode="r")[:], data)


@pytest.mark.requirement("C3")
def test_gzip_in_zarr_is_as_small_as_in_hdf5():
    from nwbflow.encoding.pipeline import encoder_for

    data = np.cumsum(RNG.normal(0, 5, (30000, 16)), axis=0).astype("<i2")
    parsed = parse_codec("gzip", dtype=data.dtype, chunks=data.shape)
    hdf5 = Layout(shape=data.shape, maxshape=data.shape, dtype=data.dtype, chunks=data.shape, filters=parsed.filters)
    ours = Layout(
        shape=data.shape,
        maxshape=data.shape,
        dtype=data.dtype,
        chunks=data.shape,
        filters=zarr_filters(parsed.filters, 2)[0],
    )
    assert len(zarr_encoder(ours).encode(data).data) == len(encoder_for(hdf5).encode(data).data) + 24


@pytest.mark.requirement("C3")
@pytest.mark.parametrize(
    "codec",
    [
        "szip",
        "lzf",
        "bzip2",
        "scaleoffset",
        "shuffle",
        "zfp",
        {"name": "blosc", "cname": "snappy"},
        {"name": "bitshuffle", "cname": "none"},
        ["gzip", "zstd"],
        ["shuffle", {"name": "blosc", "cname": "zstd"}],
    ],
    ids=str,
)
def test_what_zarr_does_not_have_is_refused_with_the_way_out(codec):
    with pytest.raises(SettingsError, match="write an HDF5 file") as caught:
        _filters(codec, "<i2")
    assert caught.value.kind is ErrorKind.CODEC


@pytest.mark.requirement("C3")
def test_what_becomes_something_else_is_said():
    assert "Zarr has no Blosc 2" in _filters("blosc2", "<i2")[1][0]
    assert "level 19 is 9" in _filters({"name": "zstd", "clevel": 19, "shuffle": True}, "<i2")[1][0]
    assert _filters("gzip", "<i2")[1] == ()


def test_pipelines_of_zarr_that_are_not_known_are_left_to_zarr_python():
    for codecs in (
        [],
        [{"name": "transpose", "configuration": {"order": [1, 0]}}, {"name": "bytes"}],
        [{"name": "bytes", "configuration": {"endian": "big"}}],
        [{"name": "bytes"}, {"name": "numcodecs.lzma", "configuration": {}}],
    ):
        filters = from_metadata(codecs, 2)
        layout = Layout(shape=(4,), maxshape=(4,), dtype=np.dtype("<i2"), chunks=(4,), filters=filters)
        assert zarr_encoder(layout) is None


def test_wrong_chunks_are_refused():
    layout = Layout(shape=(4,), maxshape=(4,), dtype=np.dtype("<i2"), chunks=(4,), filters=bit_shuffled("zstd", 1, 2))
    encoder = zarr_encoder(layout)
    with pytest.raises(SourceError):
        encoder.encode(np.zeros(3, "<i2"))
    with pytest.raises(SourceError):
        encoder.encode(np.zeros(4, "<i4"))


def test_big_endian_arrays_are_stored_little():
    data = np.arange(12, dtype=">i2")
    layout = Layout(shape=(12,), maxshape=(12,), dtype=data.dtype, chunks=(12,), filters=(Filter(1, (4,)),))
    import gzip

    assert gzip.decompress(bytes(zarr_encoder(layout).encode(data).data)) == data.astype("<i2").tobytes()
