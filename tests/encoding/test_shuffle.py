"""The byte shuffle against its definition and against HDF5's own."""

import io

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwbflow.encoding.shuffle import shuffle


def by_definition(data, itemsize):
    count = len(data) // itemsize
    planes = b"".join(data[: count * itemsize][byte::itemsize] for byte in range(itemsize))
    return planes + data[count * itemsize :]


@given(data=st.binary(max_size=400), itemsize=st.integers(1, 17))
def test_is_the_definition_whatever_the_length(data, itemsize):
    assert bytes(shuffle(data, itemsize)) == by_definition(data, itemsize)


def unshuffle(data, itemsize):
    source = np.frombuffer(data, np.uint8)
    whole = source.size // itemsize * itemsize
    elements = np.ascontiguousarray(source[:whole].reshape(itemsize, -1).T) if whole else source[:0]
    return elements.tobytes() + source[whole:].tobytes()


@given(data=st.binary(max_size=400), itemsize=st.integers(1, 17))
def test_unshuffle_reverses(data, itemsize):
    assert unshuffle(shuffle(data, itemsize), itemsize) == data


@pytest.mark.parametrize("count", [(1 << 15) - 1, 1 << 15, (1 << 15) + 1, 100_003])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_blocks_join_without_a_seam(itemsize, count):
    data = np.random.default_rng(count).bytes(count * itemsize + 1)
    assert bytes(shuffle(data, itemsize)) == by_definition(data, itemsize)


@pytest.mark.parametrize("dtype", ["i1", "<u2", ">i2", "<i4", "<f4", "<f8", "<c16"])
def test_is_what_hdf5_stores(dtype):
    data = np.frombuffer(np.random.default_rng(1).bytes(np.dtype(dtype).itemsize * 105), dtype).reshape(15, 7)
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("d", data=data, chunks=data.shape, shuffle=True)
        stored = dataset.id.read_direct_chunk((0, 0))[1]
    assert bytes(shuffle(data.reshape(-1).view(np.uint8).data, data.itemsize)) == stored


def test_input_is_left_alone():
    data = bytearray(range(200))
    shuffle(data, 2)
    assert data == bytearray(range(200))
