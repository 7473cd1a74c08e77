"""Parts of an array against counting every element."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nwbflow.planning.grid import iter_offsets
from nwbflow.planning.parts import divided_chunks, missing, overlap, runs, whole_chunks


def filled(regions, shape):
    """How often each element lies in one of the regions."""
    counts = np.zeros(shape, int)
    for region in regions:
        counts[region] += 1
    return counts


@st.composite
def tilings(draw):
    """A shape, chunks, and parts that cover it: cut along every axis, and once more some of the pieces."""
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank)))
    chunks = tuple(draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    parts = [tuple(slice(0, n) for n in shape)]
    for _ in range(draw(st.integers(0, 5))):
        part = parts.pop(draw(st.integers(0, len(parts) - 1)))
        axis = draw(st.integers(0, rank - 1))
        at = draw(st.integers(part[axis].start, part[axis].stop))
        for side in (slice(part[axis].start, at), slice(at, part[axis].stop)):
            parts.append((*part[:axis], side, *part[axis + 1 :]))
    return shape, chunks, draw(st.permutations(parts))


@given(tilings())
def test_every_chunk_is_whole_in_one_part_or_divided(case):
    shape, chunks, parts = case
    inner = [region for part in parts if (region := whole_chunks(part, chunks, shape)) is not None]
    divided = divided_chunks(parts, chunks, shape)
    pieces = runs(divided, chunks, shape, 2, 40)
    assert (filled([*inner, *pieces], shape) == 1).all()
    assert all(
        any(all(p.start <= s.start and s.stop <= p.stop for s, p in zip(region, part, strict=True)) for part in parts)
        for region in inner
    )
    assert set(divided) <= set(iter_offsets(shape, chunks))


@given(tilings())
def test_runs_hold_whole_chunks_and_no_more_bytes_than_allowed(case):
    shape, chunks, parts = case
    for region in runs(divided_chunks(parts, chunks, shape), chunks, shape, 2, 40):
        assert all(
            s.start % c == 0 and (s.stop % c == 0 or s.stop == n) for s, c, n in zip(region, chunks, shape, strict=True)
        )
        one = region[-1].stop - region[-1].start <= chunks[-1]
        assert one or math.prod((*chunks[:-1], region[-1].stop - region[-1].start)) * 2 <= 40


@given(tilings(), st.data())
def test_a_missing_part_is_noticed_with_some_of_its_rows(case, data):
    shape, _, parts = case
    assert missing(parts, shape) == (0, None)
    gone = data.draw(st.sampled_from(parts))
    rest = [part for part in parts if part is not gone]
    counts = filled(rest, shape)
    count, rows = missing(rest, shape)
    assert count == (counts == 0).sum()
    assert (rows is None) == (count == 0)
    assert rows is None or (counts[rows] == 0).any()


@given(tilings(), st.data())
def test_overlapping_parts_are_found(case, data):
    shape, _, parts = case
    assert overlap(parts) is None
    corner = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    more = [*parts, tuple(slice(low, high) for low, high in corner)]
    found = overlap(more)
    shared = filled(more, shape) > 1
    assert (found is None) == (not shared.any())
    if found is not None:
        one, other, region = found
        assert all((filled([more[number]], shape)[region] == 1).all() for number in (one, other))
