"""Chunk-grid arithmetic against counting every element."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwbflow.planning.grid import band_shape, bands, chunk_region, grid_shape, iter_offsets, overlapping


@st.composite
def grids(draw, *, smallest=0):
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(smallest, 9), min_size=rank, max_size=rank)))
    # Longer than the array too: a growing axis may be shorter than its chunk.
    chunks = tuple(draw(st.lists(st.integers(1, 11), min_size=rank, max_size=rank)))
    return shape, chunks


def owner(index, chunks):
    """The chunk an element lies in, by counting."""
    return tuple(i // c * c for i, c in zip(index, chunks, strict=True))


def elements(region):
    return itertools.product(*(range(part.start, part.stop) for part in region))


@settings(deadline=None)
@given(grids())
def test_offsets_are_the_chunks_that_hold_an_element_in_c_order(grid):
    shape, chunks = grid
    wanted = sorted({owner(index, chunks) for index in np.ndindex(shape)})
    assert list(iter_offsets(shape, chunks)) == wanted
    assert math.prod(grid_shape(shape, chunks)) == len(wanted)


@settings(deadline=None)
@given(grids())
def test_chunk_regions_hold_every_element_once(grid):
    shape, chunks = grid
    seen = {}
    for offset in iter_offsets(shape, chunks):
        for index in elements(chunk_region(offset, chunks, shape)):
            assert index not in seen
            seen[index] = offset
    assert seen == {index: owner(index, chunks) for index in np.ndindex(shape)}


@settings(deadline=None)
@given(grids(), st.data())
def test_overlapping_moves_every_element_of_a_block_to_its_chunk(grid, data):
    lengths, chunks = grid
    offset = tuple(data.draw(st.integers(0, 25)) for _ in chunks)
    moved = {}
    offsets = []
    for chunk_offset, in_block, in_chunk in overlapping(offset, lengths, chunks):
        offsets.append(chunk_offset)
        for source, target in zip(elements(in_block), elements(in_chunk), strict=True):
            assert all(0 <= t < c for t, c in zip(target, chunks, strict=True))
            assert source not in moved
            moved[source] = (chunk_offset, target)
    assert offsets == sorted(set(offsets))
    for index in np.ndindex(lengths):
        place = tuple(o + i for o, i in zip(offset, index, strict=True))
        chunk = owner(place, chunks)
        assert moved.pop(index) == (chunk, tuple(p - c for p, c in zip(place, chunk, strict=True)))
    assert not moved


def test_overlapping_cuts_a_block_into_chunks_that_make_the_array_again():
    array = np.arange(7 * 10).reshape(7, 10)
    chunks = (3, 4)
    built = {offset: np.zeros(chunks, int) for offset in iter_offsets((7, 10), chunks)}
    for row in range(0, 7, 2):
        block = array[row : row + 2]
        for offset, in_block, in_chunk in overlapping((row, 0), block.shape, chunks):
            built[offset][in_chunk] = block[in_block]
    for offset, chunk in built.items():
        region = chunk_region(offset, chunks, array.shape)
        wanted = array[region]
        assert np.array_equal(chunk[: wanted.shape[0], : wanted.shape[1]], wanted)


@settings(deadline=None)
@given(grids(), st.integers(1, 8), st.integers(0, 40_000))
def test_bands_cover_every_element_once_in_whole_chunks_within_the_limit(grid, itemsize, max_bytes):
    shape, chunks = grid
    seen = {}
    for number, region in enumerate(bands(shape, chunks, itemsize, max_bytes)):
        touched = {owner(index, chunks) for index in elements(region)}
        covered = sum(len(list(elements(chunk_region(offset, chunks, shape)))) for offset in touched)
        size = math.prod(part.stop - part.start for part in region)
        assert covered == size, "a band holds whole chunks"
        assert len({offset[0] for offset in touched}) == 1, "a band is one row of chunks at most"
        assert size * itemsize <= max_bytes or len(touched) == 1
        for index in elements(region):
            assert index not in seen
            seen[index] = number
    assert set(seen) == set(np.ndindex(shape))
    order = list(dict.fromkeys(owner(index, chunks) for _, index in sorted((n, i) for i, n in seen.items())))
    assert order == list(iter_offsets(shape, chunks)), "chunks come in C order, band after band"


@settings(deadline=None)
@given(grids(smallest=1), st.integers(1, 8), st.integers(0, 40_000))
def test_a_band_is_as_wide_as_it_can_be_and_its_size_asks_for_itself(grid, itemsize, max_bytes):
    shape, chunks = grid
    band = band_shape(shape, chunks, itemsize, max_bytes)
    row = min(chunks[0], shape[0]) * math.prod(shape[1:]) * itemsize
    if row <= max_bytes:
        assert band == (min(chunks[0], shape[0]), *shape[1:])
    assert band_shape(shape, chunks, itemsize, math.prod(band) * itemsize) == band


@pytest.mark.parametrize(
    ("max_bytes", "first"),
    [
        (60_000_000, (78125, 384)),  # the whole width
        (59_999_999, (78125, 192)),  # five blocks of channels would fit; two bands of three are even
        (20_000_000, (78125, 128)),
        (1, (78125, 64)),  # never less than a chunk
    ],
)
def test_bands_of_a_probe(max_bytes, first):
    region = next(bands((1_000_000, 384), (78125, 64), 2, max_bytes))
    assert tuple(part.stop for part in region) == first


def test_a_scalar_grid_has_one_chunk():
    assert grid_shape((), ()) == ()
    assert list(iter_offsets((), ())) == [()]


def test_ranks_that_differ_are_refused():
    with pytest.raises(ValueError, match="zip"):
        grid_shape((3, 3), (3,))
