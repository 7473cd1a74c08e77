"""Chunk shapes: fixed expectations for the common series, and rules that always hold."""

import math

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.planning.chunks import SeriesKind, advise_chunks, complete_chunks

E, I, T, C, G = (  # noqa: E741
    SeriesKind.ELECTRICAL,
    SeriesKind.IMAGING,
    SeriesKind.TIMESTAMPS,
    SeriesKind.TABLE_COLUMN,
    SeriesKind.GENERIC,
)

COMMON = [
    ("Neuropixels probe", (10_000_000, 384), "int16", E, (78125, 64)),
    ("the same as a stream", (None, 384), "int16", E, (78125, 64)),
    ("385 channels: seven even blocks", (None, 385), "int16", E, (90909, 55)),
    ("tetrode", (None, 4), "float32", E, (625_000, 4)),
    ("short", (1000, 384), "int16", E, (1000, 64)),
    ("one channel", (10_000_000,), "int16", E, (2_097_152,)),
    ("snippets", (None, 4, 40), "float32", E, (15625, 4, 40)),
    ("channels unknown", (None, None), "int16", E, (78125, 64)),
    ("two-photon", (10_000, 512, 512), "uint16", I, (19, 512, 512)),
    ("two-photon volume", (10_000, 256, 256, 10), "uint16", I, (7, 256, 256, 10)),
    ("frame larger than a chunk", (500, 4096, 4096), "uint16", I, (1, 2048, 2048)),
    ("the same as a stream", (None, 4096, 4096), "uint16", I, (2, 1024, 2048)),
    ("frame size unknown", (None, None, None), "uint16", I, (19, 512, 512)),
    ("time stamps", (100_000_000,), "float64", T, (524_288,)),
    ("time stamps as a stream", (None,), "float64", None, (524_288,)),
    ("column", (None,), "float64", C, (131_072,)),
    ("waveforms in a table", (None, 40, 384), "float32", C, (17, 40, 384)),
    ("anything", (10_000, 200, 1000), "float32", None, (5, 200, 1000)),
    ("anything with long rows", (100, 3_000_001), "float64", None, (1, 375_001)),
    ("few elements", (3, 5), "float64", None, (3, 5)),
]


@pytest.mark.requirement("C4")
@pytest.mark.parametrize(("shape", "dtype", "kind", "wanted"), [pytest.param(*c[1:], id=c[0]) for c in COMMON])
def test_common_series(shape, dtype, kind, wanted, tmp_path):
    chunks = advise_chunks(shape, dtype, kind=kind)
    assert chunks == wanted
    with h5py.File(tmp_path / "a.h5", "w") as file:  # and HDF5 takes them
        present = tuple(length or 0 for length in shape)
        made = file.create_dataset("x", shape=present, maxshape=shape, dtype=dtype, chunks=chunks)
        assert made.chunks == wanted


def test_axes_without_elements_give_one():
    # HDF5 stores no chunks where an axis is fixed at 0; the numbers only keep arithmetic sound.
    assert advise_chunks((None, 0), "float64") == (524_288, 1)
    assert advise_chunks((0, 384), "int16", kind=E) == (1, 64)
    assert complete_chunks((1, None), (0, 384), "int16", kind=E) == (1, 64)


@pytest.mark.requirement("C4")
def test_a_column_that_may_grow_has_thousands_of_rows_whatever_it_holds_now():
    assert advise_chunks((None,), "float64", kind=C, present=(7,)) == (4096,)
    assert advise_chunks((None,), "float64", kind=C, present=(50_000,)) == (50_000,)
    assert advise_chunks((None,), "float64", kind=C, present=(10**8,)) == (131_072,)
    assert advise_chunks((None,), "float64", kind=C, present=(0,)) == (131_072,)


@pytest.mark.requirement("C4")
def test_trailing_axes_that_may_grow_are_as_long_as_they_are_now():
    assert advise_chunks((None, None), "float64", present=(10**6, 40)) == (13107, 40)
    assert advise_chunks((None, None), "int16", kind=E, present=(10**7, 384)) == (78125, 64)
    assert advise_chunks((None, None, None), "uint16", kind=I, present=(10**4, 256, 300)) == (65, 256, 300)
    assert advise_chunks((None, None), "float64", present=(0, 40)) == (13107, 40)


def test_what_is_there_now_says_nothing_about_an_axis_that_is_limited():
    assert advise_chunks((1_000_000, 8), "int16", kind=E, present=(10, 8)) == (625_000, 8)


lengths = st.one_of(st.none(), st.integers(0, 5), st.integers(0, 10**7))
shapes = st.lists(lengths, min_size=1, max_size=4).map(tuple)
dtypes = st.sampled_from(["int8", "int16", "float32", "float64", "complex128"]).map(np.dtype)
kinds = st.one_of(st.none(), st.sampled_from(SeriesKind))


@pytest.mark.requirement("C4")
@settings(deadline=None)
@given(shapes, dtypes, kinds, st.integers(10**4, 10**8))
def test_chunks_fit_the_array_and_the_target_and_streams_have_no_one_row_chunks(shape, dtype, kind, target):
    chunks = advise_chunks(shape, dtype, kind=kind, target_bytes=target)
    assert len(chunks) == len(shape)
    assert all(
        1 <= chunk <= (2**32 if length is None else max(1, length)) for chunk, length in zip(chunks, shape, strict=True)
    )
    assert math.prod(chunks) * dtype.itemsize <= target
    assert shape[0] is not None or chunks[0] > 1
    if kind is SeriesKind.ELECTRICAL and len(shape) > 1:
        assert chunks[1] <= 64


@pytest.mark.requirement("C4")
@settings(deadline=None)
@given(shapes, dtypes, kinds, st.data())
def test_what_is_given_is_kept_and_the_rest_fits(shape, dtype, kind, data):
    spec = tuple(
        data.draw(st.one_of(st.none(), st.integers(1, min(30, 30 if n is None else max(1, n))))) for n in shape
    )
    chunks = complete_chunks(spec, shape, dtype, kind=kind, target_bytes=10**8)
    assert all(chunk == asked for chunk, asked in zip(chunks, spec, strict=True) if asked is not None)
    assert all(1 <= chunk <= (2**32 if n is None else max(1, n)) for chunk, n in zip(chunks, shape, strict=True))
    assert math.prod(chunks) * dtype.itemsize <= 10**8
    free = [None] * len(shape)
    assert complete_chunks(free, shape, dtype, kind=kind) == advise_chunks(shape, dtype, kind=kind)


@pytest.mark.requirement("C4")
@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ((None, 64), (78125, 64)),
        ([None, 32], (156_250, 32)),
        (np.array([1000, 64]), (1000, 64)),
        ((1000, None), (1000, 64)),
        (1000, (1000, 64)),
        (True, (78125, 64)),
        (None, (78125, 64)),
        ((np.int64(5), np.uint8(3)), (5, 3)),
    ],
)
def test_partial_specs(spec, wanted):
    chunks = complete_chunks(spec, (None, 384), "int16", kind=E)
    assert chunks == wanted
    assert all(type(length) is int for length in chunks)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ((1,), r"chunks=\(1,\) has 1 axes, the dataset \(None, 384\) has 2: .* \(None, 384\)"),
        ((0, 64), r"0 on axis 0 must be at least 1"),
        ((-1, 64), r"-1 on axis 0 must be at least 1"),
        ((5, 2.0), r"2\.0 on axis 1 is not a whole number"),
        ((5, "3"), r"'3' on axis 1 is not a whole number"),
        ((True, 3), r"True on axis 0 is not a whole number"),
        (2.5, r"2\.5 on axis 0 is not a whole number"),
        ("auto", r"chunks='auto': give one whole number or None per axis"),
        (False, r"chunks=False: give one whole number"),
        ((None, 385), r"385 on axis 1 is longer than the dataset \(None, 384\).* at most 384 or None"),
        ((2**30, 2), r"takes 4\.0 GiB, HDF5 allows less than 4 GiB"),
    ],
)
def test_bad_specs_are_named(spec, text):
    with pytest.raises(SettingsError, match=text) as caught:
        complete_chunks(spec, (None, 384), "int16", kind=E)
    assert caught.value.kind is ErrorKind.CHUNKS


def test_hdf5_refuses_what_we_refuse_on_a_fixed_axis(tmp_path):
    with (
        h5py.File(tmp_path / "a.h5", "w") as file,
        pytest.raises(ValueError, match="Chunk shape must not be greater"),
    ):
        file.create_dataset("x", shape=(5, 3), maxshape=(None, 3), chunks=(5, 4))
    with pytest.raises(SettingsError, match="longer than the dataset"):
        complete_chunks((5, 4), (None, 3), "f8")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"shape": ()}, "scalar"),
        ({"shape": (5,), "kind": "sound"}, "kind='sound': known are electrical, imaging"),
        ({"shape": (5,), "target_bytes": 0}, "a target of 0 bytes"),
        ({"shape": (5,), "target_bytes": 2**32}, "below 4 GiB"),
    ],
)
def test_bad_arguments_are_named(arguments, text):
    with pytest.raises(SettingsError, match=text) as caught:
        advise_chunks(dtype="f8", **arguments)
    assert caught.value.kind is ErrorKind.CHUNKS
