"""The checksum against a transcription of HDF5's C code and against what HDF5 stores."""

import io

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwbflow.encoding.fletcher32 import append_fletcher32, fletcher32


def as_in_c(data):
    """H5_checksum_fletcher32, line by line, in 32-bit arithmetic."""
    first = second = 0
    words = len(data) // 2
    position = 0
    while words:
        run = min(words, 360)
        words -= run
        for _ in range(run):
            first = (first + (data[position] << 8 | data[position + 1])) & 0xFFFFFFFF
            second = (second + first) & 0xFFFFFFFF
            position += 2
        first = (first & 0xFFFF) + (first >> 16)
        second = (second & 0xFFFF) + (second >> 16)
    if len(data) % 2:
        first += data[position] << 8
        second += first
        first = (first & 0xFFFF) + (first >> 16)
        second = (second & 0xFFFF) + (second >> 16)
    first = (first & 0xFFFF) + (first >> 16)
    second = (second & 0xFFFF) + (second >> 16)
    return second << 16 | first


@given(st.binary(max_size=5000))
def test_is_hdf5s_sum(data):
    assert fletcher32(data) == as_in_c(data)


@pytest.mark.parametrize("size", [2047, 2048, 2049, 2 * 1024 * 256 - 1, 2 * 1024 * 256, 2 * 1024 * 256 + 3, 1_100_001])
@pytest.mark.parametrize("kind", ["random", "zeros", "ones"])
def test_blocks_join_without_a_seam(size, kind):
    data = {
        "random": np.random.default_rng(size).bytes(size),
        "zeros": bytes(size),
        "ones": b"\xff" * size,
    }[kind]
    assert fletcher32(data) == as_in_c(data)


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\xff\xff", b"\xff\xff" * 3, b"\xff\xfe\0\1", b"\0", b"\1"])
def test_zero_and_65535_are_told_apart(data):
    assert fletcher32(data) == as_in_c(data)


@pytest.mark.parametrize("count", [1, 3, 999, 4096])
def test_is_what_hdf5_stores(count):
    data = np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8)
    with h5py.File(io.BytesIO(), "w") as file:
        dataset = file.create_dataset("d", data=data, chunks=data.shape, fletcher32=True)
        stored = dataset.id.read_direct_chunk((0,))[1]
    assert append_fletcher32(data.data) == stored
