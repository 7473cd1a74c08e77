"""Shards hold whole chunks, as many as fit, in the order in which they come."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwbflow.errors import SettingsError
from nwbflow.planning.shards import SHARD_BYTES, plan_shards

I2 = np.dtype("i2")


@pytest.mark.requirement("P4")
@pytest.mark.parametrize(
    ("chunks", "shape", "expected"),
    [
        ((32768, 64), (1_800_000, 384), (163840, 384)),
        ((32768, 64), (None, 384), (163840, 384)),
        ((32768, 64), (40000, 384), (65536, 384)),
        ((32768, 64), (32768, 64), None),
        ((32768, 64), (100, 10), None),
        ((2_000_000,), (None,), (64_000_000 // 2_000_000 * 2_000_000 + 2_000_000,)),
        ((16, 512, 512), (None, 512, 512), (256, 512, 512)),
        ((4, 64, 64), (None, None, 64), (16384, 64, 64)),
    ],
)
def test_expected_shapes(chunks, shape, expected):
    assert plan_shards(chunks, shape, I2) == expected


def test_too_few_axes_are_refused():
    with pytest.raises(SettingsError):
        plan_shards((4,), (4, 4), I2)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 5000)), min_size=1, max_size=4),
    st.integers(1, SHARD_BYTES),
)
def test_shards_are_whole_chunks_and_never_too_large(axes, target):
    chunks, shape = tuple(c for c, _ in axes), tuple(n for _, n in axes)
    shards = plan_shards(chunks, shape, I2, target_bytes=target)
    if shards is None:
        return
    assert all(s % c == 0 for s, c in zip(shards, chunks, strict=True))
    assert math.prod(shards) * 2 <= target
    assert all(s - c < max(n, c) for s, c, n in zip(shards, chunks, shape, strict=True))
