"""Conversion to the stored type against exact arithmetic."""

import fractions
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from nwbflow.encoding.cast import exact
from nwbflow.errors import ErrorKind, SourceError

TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i2", ">f8", "?"]


def value_of(number):
    """Return a number as it is in mathematics."""
    item = number.item()
    if isinstance(item, float) and not math.isfinite(item):
        return str(item)
    return fractions.Fraction(item)


def holds(dtype, number):
    """Whether a type has exactly this value."""
    with np.errstate(all="ignore"):
        if np.dtype(dtype).kind in "iu":
            limits, value = np.iinfo(dtype), value_of(number)
            return not isinstance(value, str) and value.denominator == 1 and limits.min <= value <= limits.max
        if np.dtype(dtype).kind == "b":
            return value_of(number) in (0, 1)
        return value_of(np.asarray(number.item()).astype(dtype)) == value_of(number)


def numbers(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(width=8 * dtype.itemsize)
    limits = np.iinfo(dtype)
    corners = [
        0,
        1,
        limits.max,
        limits.max - 1,
        limits.min,
        2**7,
        2**15,
        2**24 + 1,
        2**31,
        2**53,
        2**53 + 1,
        2**63 - 512,
    ]
    return st.sampled_from([c for c in corners if limits.min <= c <= limits.max]) | st.integers(limits.min, limits.max)


@pytest.mark.requirement("W8")
@settings(deadline=None, max_examples=600)
@given(st.data())
def test_a_value_is_stored_exactly_or_not_at_all(data):
    given_type = data.draw(st.sampled_from(TYPES))
    stored_type = np.dtype(data.draw(st.sampled_from(TYPES)))
    array = np.array(data.draw(st.lists(numbers(given_type), min_size=1, max_size=4)), given_type)
    bad = [place for place, number in enumerate(array) if not holds(stored_type, number)]
    if bad:
        with pytest.raises(SourceError, match="/x") as raised:
            exact(array, stored_type, name="/x", offset=(10,))
        assert raised.value.kind is ErrorKind.LOSSY
        assert f"at ({10 + bad[0]},)" in str(raised.value)
    else:
        result = exact(array, stored_type, name="/x", offset=(10,))
        assert result.dtype == stored_type
        assert [value_of(a) for a in result] == [value_of(a) for a in array]


@pytest.mark.requirement("W8")
@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([2**63 - 1]), "f8"),
        (np.array([2**64 - 1], "u8"), "f8"),
        (np.array([2**53 + 1]), "f8"),
        (np.array([2.0**63]), "i8"),
        (np.array([2.0**64]), "u8"),
        (np.array([-1.0]), "u8"),
        (np.array([2**31 - 1], "i4"), "f4"),
    ],
)
def test_the_corners_where_rounding_hides(values, dtype):
    with pytest.raises(SourceError):
        exact(values, np.dtype(dtype), name="/x", offset=(0,))
