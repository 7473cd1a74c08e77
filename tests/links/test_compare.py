"""Values are compared by what they mean, however they are stored."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwbflow.links.compare import ABSENT, Difference, differences, same, show, table
from nwbflow.links.targets import ReferenceTo

NAN = float("nan")
EQUAL = [
    (1, 1.0),
    (True, 1),
    (NAN, np.float32(NAN)),
    (2.34e-6, np.float32(2.34e-6)),
    (0.1, np.float16(0.1)),
    ("V", b"V"),
    ("µV", np.bytes_("µV".encode())),
    ("V", np.array(["V"], dtype=object)),
    (5, np.array([5])),
    (5, np.array([[5]])),
    ([1, 2], np.array([1.0, 2.0])),
    ([0.1, NAN], np.array([0.1, NAN], "f4")),
    (("a", "b"), np.array([b"a", b"b"])),
    ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])),
    ([], np.array([])),
    (ReferenceTo("/a"), ReferenceTo("/a")),
    (None, None),
    (ABSENT, ABSENT),
    (2**63, np.uint64(2**63)),
]
DIFFERENT = [
    (1, 2),
    (1, "1"),
    (NAN, 0.0),
    (2.34e-6, np.float64(2.340001e-6)),
    (0.1, np.float32(0.2)),
    (1e300, np.float32(np.inf)),
    (2**53 + 1, np.int64(2**53)),
    ("V", "v"),
    ("V", ""),
    ([1, 2], [1, 2, 3]),
    ([1, 2], [1, 3]),
    ([1, 2], 1),
    (ReferenceTo("/a"), ReferenceTo("/b")),
    (ReferenceTo("/a"), "/a"),
    (0, ABSENT),
    (None, 0),
    ("", ABSENT),
]


@pytest.mark.requirement("X2")
@pytest.mark.parametrize(("one", "other"), EQUAL, ids=repr)
def test_equal_values(one, other):
    assert same(one, other)
    assert same(other, one)


@pytest.mark.requirement("X2")
@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=repr)
def test_different_values(one, other):
    assert not same(one, other)
    assert not same(other, one)


numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans())
values = st.one_of(
    numbers, st.text(st.characters(exclude_characters="\0", codec="utf-8")), st.lists(numbers, max_size=5)
)


@pytest.mark.requirement("X2")
@given(value=values)
def test_what_hdf5_gives_back_is_what_was_said(value):
    if isinstance(value, list) and any(isinstance(item, float) for item in value):
        value = [float(item) for item in value]  # an HDF5 array has one type
    with h5py.File.in_memory() as file:
        file.attrs["x"] = np.asarray(value) if isinstance(value, list) else value
        assert same(value, file.attrs["x"])


@given(one=numbers, other=numbers)
def test_it_goes_both_ways(one, other):
    assert same(one, other) == same(other, one)
    assert same(one, one)


def test_only_what_is_said_is_compared_and_defaults_count():
    found = differences({"b": 1, "a": 2, "c": 3}, {"b": 1, "a": 9, "z": 0}, {"c": 3})
    assert found == [Difference("a", 2, 9)]


def test_differences_are_shown_side_by_side_and_long_ones_are_cut():
    text = table([Difference("unit", "V", ABSENT), Difference("note", "x" * 100, ReferenceTo("/a"))], "said", "held")
    assert text.splitlines()[:2] == [
        "          " + "said".ljust(60) + "  held",
        "    unit  " + "'V'".ljust(60) + "  (not there)",
    ]
    assert "reference to /a" in text
    assert show("x" * 100).endswith("...")
