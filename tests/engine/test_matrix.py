"""Every kind of source, type, rank, codec and chunk shape against what stock h5py stores (W2)."""

import itertools
import re

import dask.array
import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
import support
import zarr
from hdmf.data_utils import DataChunkIterator
from hypothesis import HealthCheck, assume, given, settings

import nwbflow

TYPES = ("i1", "u1", "<i2", ">i2", "u2", "i4", "u4", "i8", "u8", "f2", "<f4", ">f4", "f8", "?")
CODECS = (
    "none",
    "gzip",
    ("gzip", 1),
    "gzip-fast",
    ["gzip", "fletcher32"],
    ("zstd", 2),
    {"name": "zstd", "shuffle": True},
    "blosc2",
    "bitshuffle",
    {"name": "bitshuffle", "cname": "zstd"},
    "lz4",
    "lzf",
    "scaleoffset",
    "fletcher32",
)
FAST = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(FAST, max_examples=8)
LONG = settings(FAST, max_examples=200)


@st.composite
def arrays(draw, least=0):
    """Draw an array of one to four axes; integers and floats over their whole range."""
    rank = draw(st.integers(1, 4))
    longest = (300, 40, 13, 7)[rank - 1]
    shape = (draw(st.integers(least, longest)), *(draw(st.integers(least, 9)) for _ in range(rank - 1)))
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    if draw(st.booleans()):
        return random.integers(0, 50, shape).astype(dtype)
    count = int(np.prod(shape))
    return np.frombuffer(random.bytes(count * dtype.itemsize), dtype).reshape(shape)


def tiles(draw, shape):
    return tuple(draw(st.integers(max(1, n // 3), max(1, n))) for n in shape)


def as_strided(array, draw, folder):
    wide = np.zeros([2 * n for n in array.shape], array.dtype)
    steps = tuple(slice(None, None, draw(st.sampled_from([2, -2]))) for _ in array.shape)
    wide[steps] = array
    return wide[steps]


def as_memmap(array, draw, folder):
    assume(array.size)
    (folder / "memmap").write_bytes(b"head" + array.tobytes())
    whole = np.memmap(folder / "memmap", array.dtype, mode=draw(st.sampled_from(["r", "c", "r+"])), offset=4,
                      shape=array.shape)  # fmt: skip
    return whole[:] if draw(st.booleans()) else whole


def as_h5py(array, draw, folder):
    return h5py.File.in_memory().create_dataset("x", data=array)


def as_zarr(array, draw, folder):
    assume(array.size)
    made = zarr.create_array({}, shape=array.shape, dtype=array.dtype, chunks=tiles(draw, array.shape))
    made[...] = array
    return made


def as_dask(array, draw, folder):
    return dask.array.from_array(array, chunks=tiles(draw, array.shape) if array.size else -1)


def as_raw(array, draw, folder):
    first = draw(st.sampled_from([None, array.shape[0]])) if 0 not in array.shape[1:] else array.shape[0]
    (folder / "raw").write_bytes(b"xyz" + array.tobytes())
    assume(0 not in array.shape[1:])
    return nwbflow.raw(folder / "raw", dtype=array.dtype, shape=(first, *array.shape[1:]), offset=3)


def as_blocks(array, draw, folder):
    cuts = sorted(draw(st.lists(st.integers(0, len(array)), max_size=6)))
    edges = [0, *cuts, len(array)]
    parts = [array[a:b] for a, b in itertools.pairwise(edges)]
    first = draw(st.sampled_from([None, len(array)]))
    given_as = draw(st.sampled_from([iter, list, tuple]))
    return nwbflow.blocks(given_as(parts), shape=(first, *array.shape[1:]), dtype=array.dtype)


def as_rows(array, draw, folder):
    assume(array.size)
    axis = draw(st.integers(0, array.ndim - 1))
    buffer = draw(st.integers(1, 50))
    if axis == 0 and draw(st.booleans()):
        known = draw(st.sampled_from([None, array.shape]))
        return DataChunkIterator(data=iter(array), maxshape=known, dtype=array.dtype, buffer_size=buffer)
    return DataChunkIterator(data=array, iter_axis=axis, buffer_size=buffer)


def as_tiles(array, draw, folder):
    assume(array.size)
    chunks = tiles(draw, array.shape)
    buffer = tuple(min(n, c * draw(st.integers(1, 3))) for n, c in zip(array.shape, chunks, strict=True))
    return support.Tiles(array, chunk_shape=chunks, buffer_shape=buffer)


def as_shuffled_pieces(array, draw, folder):
    """Own iterator: dense tiles in any order."""
    places = draw(st.permutations(support.cut(array.shape, tiles(draw, array.shape))))
    shape = tuple(None if draw(st.booleans()) else n for n in array.shape) if array.size else array.shape
    return support.Pieces([(at, array[at]) for at in places], shape, array.dtype)


KINDS = {
    "ndarray": lambda array, draw, folder: array,
    "Fortran order": lambda array, draw, folder: np.asfortranarray(array),
    "strided view": as_strided,
    "list": lambda array, draw, folder: array.tolist(),
    "memmap": as_memmap,
    "h5py": as_h5py,
    "zarr": as_zarr,
    "dask": as_dask,
    "own sliceable": lambda array, draw, folder: support.Sliceable(array),
    "raw": as_raw,
    "blocks": as_blocks,
    "DataChunkIterator": as_rows,
    "GenericDataChunkIterator": as_tiles,
    "own iterator": as_shuffled_pieces,
}


def chunks_for(draw, array, wide):
    """Draw a chunk shape that may be: within the axes that can't grow, any length on others."""
    if draw(st.booleans()):
        return None
    longest = [n + 30 if wide else max(1, n) for n in array.shape]
    lengths = zip(array.shape, longest, strict=True)
    return tuple(draw(st.none() | st.integers(max(1, n // 3), limit)) for n, limit in lengths)


def least_memory(path, data, **options):
    """Return the memory the refusal of one byte suggests, or ``None`` if one byte is enough."""
    try:
        support.write_array(path, data, memory=1, **options)
    except nwbflow.PlanError as error:
        return re.search(r"memory='([^']+)'", str(error))[1]
    return None


def native(array):
    return np.asarray(array).astype(np.asarray(array).dtype.newbyteorder("="))


def assert_stored(path, expected):
    """Compare with what stock h5py stores and reads for the same array."""
    with h5py.File.in_memory() as file:
        theirs = native(file.create_dataset("x", data=expected)[()])
    ours = native(support.read_array(path))
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.requirement("W2", "C2")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.filterwarnings("ignore:.*codec in H5DataIO will be ignored.*")
@pytest.mark.parametrize("kind", KINDS)
@FAST
@given(array=arrays(), settings=st.data())
def test_what_is_read_back_is_what_stock_h5py_would_have_stored(kind, array, settings, tmp_path):
    draw = settings.draw
    if kind == "list" and (array.dtype.kind not in "if" or array.dtype.itemsize < 8 or not array.size):
        with np.errstate(invalid="ignore"):
            array = array.astype("f8" if array.dtype.kind == "f" else "i8")  # what Python's numbers become
        assume(array.size)
    codec = draw(st.sampled_from(CODECS))
    assume(codec != "scaleoffset" or array.dtype.kind in "iu")
    data = KINDS[kind](array, draw, tmp_path)
    wide = draw(st.sampled_from([None, tuple(None for _ in array.shape)]))
    chunks = chunks_for(draw, array, wide)
    options = {
        "workers": draw(st.integers(1, 3)),
        "verify": draw(st.sampled_from(["no", "stored", "full"])),
        "exhaust_dci": draw(st.booleans()),
    }
    path = tmp_path / "x.h5"
    wrapper = nwbflow.DataIO(data, codec=codec, chunks=chunks, maxshape=wide)
    memory = least_memory(path, wrapper, **options) if draw(st.booleans()) else None
    support.write_array(path, wrapper, memory=memory, **options)
    assert_stored(path, array)


@pytest.mark.requirement("W2")
@pytest.mark.parametrize("kind", KINDS)
@FEW
@given(array=arrays(least=1), settings=st.data())
def test_without_any_setting_too(kind, array, settings, tmp_path):
    with np.errstate(invalid="ignore"):  # signalling NaNs
        array = array.astype("f8")
    array = np.concatenate([array] * (2**16 // array.nbytes + 1))  # too large for PyNWB's own path
    data = KINDS[kind](array, settings.draw, tmp_path)
    if kind in ("h5py", "dask", "own sliceable"):
        data = nwbflow.DataIO(data)
    support.write_array(tmp_path / "x.h5", data, workers=2)
    assert_stored(tmp_path / "x.h5", array)


# --- any selection ----------------------------------------------------------------------


@st.composite
def selections(draw, shape):
    """Draw one h5py selection inside a shape."""
    if len(shape) > 1 and draw(st.integers(0, 9)) == 0:
        mask = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < 0.3
        return mask, (int(mask.sum()),)
    fancy = draw(st.integers(-len(shape), len(shape) - 1))
    parts, lengths = [], []
    for axis, length in enumerate(shape):
        if axis == fancy:
            places = sorted(draw(st.sets(st.integers(0, length - 1), min_size=1)))
            mask = np.isin(np.arange(length), places)
            parts.append(draw(st.sampled_from([places, np.array(places), mask])))
            lengths.append(len(places))
        elif draw(st.integers(0, 5)) == 0:
            parts.append(draw(st.integers(0, length - 1)))
        else:
            start = draw(st.integers(0, length - 1))
            stop = draw(st.integers(start + 1, length))
            step = draw(st.sampled_from([None, 1, 1, 2, 3]))
            parts.append(slice(start or None, stop, step))
            lengths.append(len(range(start, stop, step or 1)))
    return tuple(parts), tuple(lengths)


def ends(selection, shape):
    """Return the smallest shape that holds a selection."""
    if isinstance(selection, np.ndarray):
        return shape
    reach = []
    for part, length in zip(selection, shape, strict=True):
        reach.append(int(np.arange(length)[part].max()) + 1)
    return reach


def spelt_out(selection, shape):
    """Make masks fit a dataset that is longer than they are by now: h5py insists on it."""
    if isinstance(selection, np.ndarray):
        return np.pad(selection, [(0, n - m) for n, m in zip(shape, selection.shape, strict=True)])
    return tuple(
        np.flatnonzero(part) if isinstance(part, np.ndarray) and part.dtype == bool else part for part in selection
    )


@pytest.mark.requirement("W2")
@LONG
@given(data=st.data())
def test_any_selections_in_any_order_give_what_h5py_gives(data, tmp_path):
    draw = data.draw
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, (60, 14, 9)[axis])) for axis in range(rank))
    limits = tuple(None if draw(st.integers(0, 2)) == 0 else n for n in shape)
    dtype = np.dtype(draw(st.sampled_from(["i2", "f4", "u1"])))
    drawn = draw(st.lists(selections(shape), min_size=1, max_size=12))
    pieces = [(at, np.full(lengths, number + 1, dtype)) for number, (at, lengths) in enumerate(drawn)]
    chunks = tiles(draw, shape)
    codec = draw(st.sampled_from(["none", "gzip", "lzf", "zstd"]))
    fill = draw(st.sampled_from([None, 7]))
    path = tmp_path / "x.h5"
    wrapper = nwbflow.DataIO(support.Pieces(pieces, limits, dtype), chunks=chunks, codec=codec, fillvalue=fill)
    level, aside = draw(st.sampled_from(["stored", "full"])), draw(st.booleans())
    support.write_array(path, wrapper, workers=draw(st.integers(1, 3)), verify=level, exhaust_dci=not aside)
    with h5py.File.in_memory() as file:
        start = tuple(n or 1 for n in limits)  # what the iterator recommends
        plain = file.create_dataset("x", shape=start, maxshape=limits, dtype=dtype, chunks=chunks, fillvalue=fill)
        for at, values in pieces:
            plain.resize([max(a, b) for a, b in zip(plain.shape, ends(at, shape), strict=True)])
            plain[spelt_out(at, plain.shape)] = values
        expected = plain[()]
    stored = support.read_array(path)
    assert stored.shape == expected.shape
    np.testing.assert_array_equal(stored, expected)


@pytest.mark.requirement("W2")
@LONG
@given(data=st.data())
def test_overlapping_blocks_keep_the_last_value_in_little_memory(data, tmp_path):
    draw = data.draw
    shape = (draw(st.integers(1, 200)), draw(st.integers(1, 8)))
    chunks = tiles(draw, shape)
    expected = np.zeros(shape, "i4")
    pieces = []
    for number in range(draw(st.integers(1, 15))):
        first, column = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        at = np.s_[first : draw(st.integers(first + 1, shape[0])), column:]
        pieces.append((at, np.full(expected[at].shape, number + 1, "i4")))
        expected[at] = number + 1
    make = lambda: nwbflow.DataIO(support.Pieces(pieces, shape, "i4"), chunks=chunks, codec="gzip")  # noqa: E731
    path = tmp_path / "x.h5"
    memory = least_memory(path, make())
    receipt = support.write_array(path, make(), memory=memory, verify="full")
    np.testing.assert_array_equal(support.read_array(path), expected)
    assert receipt.datasets[0].layout.shape == shape
