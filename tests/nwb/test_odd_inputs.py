"""Inputs that look odd and are good: stored as they are (W2, W8)."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import support
from hdmf.backends.hdf5 import H5DataIO

import nwbflow

sys.path.insert(0, str(Path(__file__).parent))

from bad_inputs import blocks, ready, wrapped


def enum_dataset(folder):
    file = h5py.File(folder.parent / "source.h5", "w")
    kind = h5py.enum_dtype({"idle": 0, "running": 1}, basetype="i1")
    dataset = file.create_dataset("values", data=np.arange(100) % 2, dtype=kind, chunks=(10,))
    return nwbflow.DataIO(dataset, codec="gzip")


def reused_buffer():
    buffer = np.empty((7, 3), "i4")
    for first in range(0, 70, 7):
        buffer[:] = np.arange(21).reshape(7, 3) + first
        yield buffer
    buffer[:] = -1


def empty_raw(folder):
    path = folder.parent / "recording.bin"
    path.touch()
    return nwbflow.raw(path, dtype="int16", shape=(None, 4))


GOOD = {
    "zero rows": (lambda _: ready((0, 4)), ready((0, 4))),
    "zero rows, wrapped": (wrapped(ready((0, 4)), codec="gzip"), ready((0, 4))),
    "zero rows, wrapped by HDMF": (wrapped(ready((0, 4)), H5DataIO, compression="gzip"), ready((0, 4))),
    "zero rows, resizable": (wrapped(ready((0, 4)), codec="gzip", maxshape=(None, 4)), ready((0, 4))),
    "zero columns": (lambda _: ready((4, 0)), ready((4, 0))),
    "zero columns, wrapped": (wrapped(ready((4, 0)), codec="gzip"), ready((4, 0))),
    "no blocks": (blocks(shape=(None, 4), dtype="i4"), ready((0, 4))),
    "no blocks where none were promised": (blocks(shape=(0, 4), dtype="i4"), ready((0, 4))),
    "empty blocks": (blocks(*[ready((0, 4))] * 3, shape=(None, 4), dtype="i4"), ready((0, 4))),
    "an empty block between": (
        blocks(*map(ready, [(2, 4), (0, 4), (3, 4)]), shape=(None, 4), dtype="i4"), ready((5, 4))),
    "blocks of zero columns": (blocks(ready((5, 0)), shape=(None, 0), dtype="i4"), ready((5, 0))),
    "raw file of no bytes": (empty_raw, ready((0, 4), "i2")),
    "whole numbers, one written as a float": (lambda _: [1, 2, 3.0], np.array([1, 2, 3])),
    "large whole numbers, one written as a float": (lambda _: [2**53 + 1, 1.0], np.array([2**53 + 1, 1])),
    "uint64 among others": (lambda _: [np.uint64(2**63), 1], np.array([2**63, 1], "u8")),
    "a large power of two after a float": (lambda _: [1.0, 2**70], np.array([1, 2.0**70])),
    "NaN after float32": (lambda _: [np.float32(1), float("nan")], np.array([1, np.nan])),
    "an empty generator": (lambda _: nwbflow.blocks((x for x in ()), shape=(None, 4), dtype="i4"), ready((0, 4))),
    "a buffer used again and again": (
        lambda _: nwbflow.blocks(reused_buffer(), shape=(None, 3), dtype="i4"),
        np.concatenate([b.copy() for b in reused_buffer()]),
    ),
    "big-endian": (wrapped(np.arange(100, dtype=">i4"), codec="gzip"), np.arange(100)),
    "big-endian blocks": (blocks(np.arange(100, dtype=">i2"), dtype=">i2"), np.arange(100)),
    "bool": (wrapped(np.arange(100) % 3 == 0, codec="gzip"), np.arange(100) % 3 == 0),
    "float16": (wrapped(np.linspace(0, 1, 100).astype("f2"), codec="gzip"), np.linspace(0, 1, 100).astype("f2")),
    "long double": (wrapped(np.arange(100, dtype="g"), codec="gzip"), np.arange(100)),
    "float as float16 where it is exact": (blocks([0.5, 2.0], dtype="f2"), np.array([0.5, 2.0])),
    "NaN into float32": (blocks([0.5, np.nan], dtype="f4"), np.array([0.5, np.nan])),
    "whole floats into int16": (blocks([1.0, 2.0]), np.array([1, 2])),
    "enum": (enum_dataset, np.arange(100) % 2),
    "mask that hides nothing": (lambda _: np.ma.masked_array(ready(20_000), mask=False), ready(20_000)),
    "None in maxshape of a list": (wrapped([1, 2, 3], maxshape=(None,)), np.array([1, 2, 3])),
}  # fmt: skip


@pytest.mark.requirement("W2", "W8")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.filterwarnings("ignore:.*codec in H5DataIO will be ignored.*")
@pytest.mark.parametrize("how", ["write", "dropin"])
@pytest.mark.parametrize("name", GOOD)
def test_an_odd_but_good_input_is_stored_as_it_is(name, how, tmp_path):
    make, expected = GOOD[name]
    folder = tmp_path / "live"
    folder.mkdir()
    path = folder / "session.nwb"
    nwbfile = support.session(odd=make(folder))
    if how == "dropin":
        support.write_nwb(nwbfile, path, verify="full")
    else:
        nwbflow.write(nwbfile, path, progress=False, verify="full")
    stored = support.read_array(path, "acquisition/odd/data")
    assert stored.shape == expected.shape
    np.testing.assert_array_equal(stored, expected)
    assert list(folder.iterdir()) == [path]
