"""Amounts of memory, and plans that are shown or refused."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, PlanError, SettingsError
from nwbflow.model.layout import Layout
from nwbflow.planning import memory as module
from nwbflow.planning.grid import bands
from nwbflow.planning.memory import (
    DEFAULT_MEMORY,
    Feed,
    Request,
    default_memory,
    format_bytes,
    make_plan,
    parse_bytes,
)

MB = 10**6


def request(name="/a", shape=(300_000, 384), chunks=(78125, 64), feed=Feed.READ, dtype="int16", maxshape=None):
    layout = Layout(shape=shape, maxshape=maxshape or shape, dtype=np.dtype(dtype), chunks=chunks)
    return Request(name=name, layout=layout, feed=feed)


def stream(name="/s", chunks=(78125, 64), width=384):
    shape, maxshape = (0, width), (None, width)
    return request(name, shape=shape, maxshape=maxshape, chunks=chunks, feed=Feed.STREAM)


def plan(*requests, memory=10**9, workers=2, side_by_side=True):
    return make_plan(requests, workers=workers, memory=memory, concurrent_streams=side_by_side)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (1000, 1000),
        ("1000", 1000),
        ("2GB", 2 * 10**9),
        ("512 MiB", 512 * 2**20),
        ("512 mib", 512 * 2**20),
        (" 1.5 kB ", 1500),
        ("1TB", 10**12),
        ("3 B", 3),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_amounts(text, wanted):
    assert parse_bytes(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "GB", "2 gigs", "-1", "0", 0, -5, 1.5, True, "1e9", "1,5 GB", "2G", b"2GB", "0.5"]
)
def test_what_is_no_amount_is_named(text):
    with pytest.raises(SettingsError, match=re.escape(f"memory={text!r} is no amount")) as caught:
        parse_bytes(text)
    assert caught.value.kind is ErrorKind.OPTION


@pytest.mark.parametrize(
    ("free", "wanted"),
    [(None, DEFAULT_MEMORY), (2**40, DEFAULT_MEMORY), (2 * 2**30, 2**29), (2**20, 64 * 2**20)],
)
def test_the_default_is_a_quarter_of_what_is_free(monkeypatch, free, wanted):
    monkeypatch.setattr(module, "_free_memory", lambda: free)
    assert parse_bytes(None) == default_memory() == wanted


def test_free_memory_without_proc(monkeypatch):
    monkeypatch.setattr(module, "Path", lambda _: _Absent())
    monkeypatch.setattr(module.os, "sysconf", {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert module._free_memory() == 4_096_000

    def unknown(_):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(module.os, "sysconf", unknown)
    assert module._free_memory() is None


class _Absent:
    def read_text(self):
        raise FileNotFoundError


@settings(deadline=None)
@given(st.integers(1, 10**15))
def test_amounts_are_shown_as_they_are_within_rounding(amount):
    assert parse_bytes(format_bytes(amount)) == pytest.approx(amount, rel=0.05)
    assert parse_bytes(module._round_up(amount)) >= amount


@pytest.mark.requirement("W4")
def test_arrays_in_memory_take_three_chunks_for_each_in_flight():
    made = plan(request(feed=Feed.MEMORY))
    (one,) = made.datasets
    assert (one.in_flight, one.band_bytes, one.chunks_total) == (6, 0, 24)
    assert made.peak_bytes == one.peak_bytes == 6 * 3 * 10 * MB


@pytest.mark.requirement("W4")
def test_sources_to_be_read_add_their_bands():
    (one,) = plan(request()).datasets
    # Six chunks in a row: those in flight lie in two bands at most, and a third is being read.
    assert (one.in_flight, one.band_bytes) == (6, 60 * MB)
    assert one.peak_bytes == 180 * MB + 3 * 60 * MB


@pytest.mark.requirement("W4")
def test_streams_add_a_row_of_open_chunks():
    (one,) = plan(stream()).datasets
    assert (one.chunks_total, one.band_bytes) == (None, 0)
    assert one.peak_bytes == 180 * MB + 6 * 10 * MB


@pytest.mark.requirement("W4")
def test_datasets_follow_each_other_but_streams_side_by_side_add_up():
    both = (stream("/s"), stream("/t", chunks=(39062, 64)))
    open_rows = 60 * MB + 6 * 39062 * 128
    assert plan(*both).peak_bytes == 180 * MB + open_rows
    assert plan(*both, side_by_side=False).peak_bytes == 240 * MB
    assert plan(request(), *both).peak_bytes == 360 * MB


def test_streams_side_by_side_share_what_is_in_flight():
    # One chunk of 10 MB that is all there is, and a stream of small chunks: six in flight in all.
    large = request("/l", shape=(78125, 64), feed=Feed.STREAM)
    small = stream("/t", chunks=(7812, 64), width=64)
    open_rows = 10 * MB + 7812 * 128
    assert plan(large, small).peak_bytes == open_rows + 3 * (10 * MB + 5 * 7812 * 128)


def test_contiguous_storage_takes_one_band():
    (one,) = plan(request(shape=(10**6, 100), chunks=None)).datasets
    assert one.band_bytes == one.peak_bytes == 64 * 2**20
    (one,) = plan(request(shape=(10**6, 100), chunks=None), memory=10 * MB).datasets
    assert 5 * MB < one.peak_bytes <= 10 * MB
    with pytest.raises(PlanError, match=r"/a needs 80 MB at least \(contiguous, one row at a time\)"):
        plan(request(shape=(3, 10**7), dtype="f8", chunks=None), memory=10 * MB)


def test_no_more_in_flight_than_there_are_chunks_and_nothing_for_nothing():
    one, none = plan(request(shape=(100, 64), chunks=(100, 64)), request("/e", shape=(0, 64))).datasets
    assert (one.in_flight, one.chunks_total) == (1, 1)
    assert (none.chunks_total, none.peak_bytes) == (0, 0)


@pytest.mark.requirement("W4")
@pytest.mark.parametrize(
    ("memory", "in_flight", "band"),
    [
        (360, 6, 60),  # all that is asked for
        (359, 5, 60),
        (240, 2, 60),  # one chunk a worker: then bands get narrower
        (239, 2, 30),
        (149, 2, 10),  # one chunk wide: then workers go idle
        (89, 1, 10),
        (50, 1, 10),
    ],
)
def test_chunks_in_flight_then_bands_give_way_before_a_refusal(memory, in_flight, band):
    made = plan(request(), memory=memory * MB)
    (one,) = made.datasets
    assert (one.in_flight, one.band_bytes) == (in_flight, band * MB)
    assert made.peak_bytes <= memory * MB


@pytest.mark.requirement("W4")
@pytest.mark.parametrize(
    ("requests", "memory", "text"),
    [
        (
            [request("/acquisition/ElectricalSeries/data")],
            40,
            "/acquisition/ElectricalSeries/data needs 50 MB at least (chunks of 10.0 MB in rows of 6, one in flight), "
            "allowed are 40.0 MB: pass memory='50 MB', or smaller chunks=(62500, 64)",
        ),
        (
            [stream("/a"), stream("/b", chunks=(7812, 64))],
            64,
            "/a and 1 more filled side by side with it need 96 MB at least (chunks of 10.0 MB in rows of 6, one in "
            "flight), allowed are 64.0 MB: pass memory='96 MB', or smaller chunks=(50347, 64)",
        ),
    ],
)
def test_refusals_give_both_numbers_and_a_way_out(requests, memory, text):
    with pytest.raises(PlanError) as caught:
        plan(*requests, memory=memory * MB)
    assert str(caught.value) == text
    assert caught.value.kind is ErrorKind.MEMORY


@pytest.mark.requirement("W4")
def test_every_way_out_that_is_named_leads_out():
    asked = stream("/a")
    with pytest.raises(PlanError) as caught:
        plan(asked, memory=64 * MB)
    amount = re.search(r"pass memory='([^']+)'", str(caught.value))[1]
    chunks = tuple(map(int, re.search(r"chunks=\((\d+), (\d+)\)", str(caught.value)).groups()))
    assert plan(asked, memory=parse_bytes(amount)).peak_bytes <= parse_bytes(amount)
    assert plan(stream("/a", chunks=chunks), memory=64 * MB).peak_bytes <= 64 * MB
    with pytest.raises(PlanError):
        plan(asked, memory=parse_bytes(amount) - MB)


@st.composite
def requests_(draw):
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.lists(st.integers(0, 60), min_size=rank, max_size=rank)))
    chunks = draw(st.one_of(st.none(), st.lists(st.integers(1, 40), min_size=rank, max_size=rank).map(tuple)))
    feed = draw(st.sampled_from(Feed))
    grows = chunks is not None and draw(st.booleans())
    maxshape = (None, *shape[1:]) if grows else shape
    return request("/x", shape=shape, chunks=chunks, feed=feed, maxshape=maxshape)


@pytest.mark.requirement("W4")
@settings(deadline=None)
@given(st.lists(requests_(), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 10**6), st.booleans())
def test_a_plan_keeps_within_memory_or_says_what_is_enough(requests, workers, memory, side_by_side):
    made = None
    for _ in range(len(requests) + 1):  # each refusal names one dataset or group, so that many are enough
        try:
            made = plan(*requests, memory=memory, workers=workers, side_by_side=side_by_side)
            break
        except PlanError as error:
            amount = parse_bytes(re.search(r"pass memory='([^']+)'", str(error))[1])
            assert amount > memory
            memory = amount
    assert made is not None
    assert made.peak_bytes <= memory
    for asked, one in zip(requests, made.datasets, strict=True):
        assert one.layout is asked.layout
        assert one.in_flight >= 1
        if one.feed is Feed.READ and one.layout.chunks and one.layout.nbytes:
            sizes = [
                math.prod(part.stop - part.start for part in region) * 2
                for region in bands(one.layout.shape, one.layout.chunks, 2, one.band_bytes)
            ]
            assert max(sizes) == one.band_bytes, "the engine's bands are the plan's"


def test_a_plan_prints_as_a_table():
    made = plan(request("/acquisition/ElectricalSeries/data"), stream("/s/data"), request("/p", chunks=None))
    head, titles, *rows = str(made).splitlines()
    assert head == "datasets: 3, workers: 2, memory: at most 360.0 MB of 1.0 GB"
    assert titles.split()[:3] == ["dataset", "shape", "dtype"]
    assert len(rows) == 3
    assert re.search(
        r"/acquisition/ElectricalSeries/data +\(300000, 384\) +int16 +\(78125, 64\) +10\.0 MB +24 +read", rows[0]
    )
    assert re.search(r"/s/data +\(None, 384\) .* unknown +stream +- +6 +240\.0 MB$", rows[1])
    assert "contiguous" in rows[2]
    assert len({row.index("int16") for row in rows}) == 1


def test_no_workers_is_an_error():
    with pytest.raises(SettingsError, match="workers=0") as caught:
        plan(request(), workers=0)
    assert caught.value.kind is ErrorKind.OPTION
