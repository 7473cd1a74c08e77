"""The simulators: the same from the same seed, in blocks or whole, and hard to compress like the real thing."""

from __future__ import annotations

import itertools
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.testing import simulate


@pytest.fixture(scope="module")
def second() -> simulate.Int16s:
    return simulate.neuropixels(1.0, seed=1)


def zlib_ratio(data: np.ndarray, level: int = 4) -> float:
    planes = np.ascontiguousarray(data).view(np.uint8).reshape(-1, data.itemsize).T
    return data.nbytes / len(zlib.compress(np.ascontiguousarray(planes), level))


def test_shape_type_and_seed(second: simulate.Int16s) -> None:
    assert second.shape == (30000, 384)
    assert second.dtype == np.int16
    np.testing.assert_array_equal(simulate.neuropixels(0.2, seed=1), second[:6000])
    assert not np.array_equal(simulate.neuropixels(0.2, seed=2), second[:6000])


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.floats(0, 0.5),
    block=st.floats(0.001, 0.7),
    channels=st.integers(1, 7),
    rate=st.sampled_from([500.0, 2000.0, 12345.6, 30000.0]),
    seed=st.integers(0, 2**63),
)
def test_blocks_are_the_whole_cut_in_pieces(
    seconds: float, block: float, channels: int, rate: float, seed: int
) -> None:
    rows = round(block * rate)
    if rows < 1:
        rows, block = 1, 1 / rate
    pieces = list(simulate.blocks(seconds, block, channels=channels, rate=rate, seed=seed))
    whole = simulate.neuropixels(seconds, channels=channels, rate=rate, seed=seed)
    assert whole.shape == (round(seconds * rate), channels)
    assert all(len(piece) == rows for piece in pieces[:-1])
    np.testing.assert_array_equal(np.concatenate([whole[:0], *pieces]), whole)


def test_blocks_are_arrays_of_their_own() -> None:
    first, second = itertools.islice(simulate.blocks(1.0, 0.1, channels=4), 2)
    kept = first.copy()
    second[:] = 0
    np.testing.assert_array_equal(first, kept)
    assert not np.shares_memory(first, second)


def test_memory_is_bounded_by_a_block() -> None:
    tracemalloc.start()
    try:
        total = sum(block.nbytes for block in simulate.blocks(4.0, 0.1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 4 * 30000 * 384 * 2
    assert peak < total / 4


def test_noise_is_a_dozen_counts_and_weakly_shared_with_the_next_channel(second: simulate.Int16s) -> None:
    steps = np.diff(second[:10000].astype(np.float32), axis=0) / np.sqrt(2)  # takes the slow potential out
    quiet = np.median(np.abs(steps), axis=0) / 0.6745  # spikes don't move a median
    assert quiet.min() > 9.5
    assert quiet.max() < 15.5
    together = np.corrcoef(np.clip(steps, -40, 40), rowvar=False)
    assert 0.1 < np.median(np.diag(together, 1)) < 0.5
    assert abs(np.median(np.diag(together, 20))) < 0.05


def test_slow_potential_is_shared_by_neighbours_and_falls_like_one_over_f() -> None:
    data = simulate.neuropixels(8.0, channels=48, seed=3).astype(np.float32)
    slow = data.reshape(-1, 60, 48).mean(axis=1)  # 500 Hz; the noise averages out
    assert np.median(np.diag(np.corrcoef(slow, rowvar=False), 1)) > 0.8
    power = (np.abs(np.fft.rfft(slow - slow.mean(axis=0), axis=0)) ** 2).mean(axis=1)
    frequency = np.fft.rfftfreq(len(slow), 1 / 500)
    band = (frequency > 1) & (frequency < 60)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -1.5 < slope < -0.6


def test_there_are_spikes_on_several_neighbouring_channels(second: simulate.Int16s) -> None:
    smooth = second.astype(np.float32)
    smooth -= np.median(smooth, axis=0)
    row, channel = np.unravel_index(np.argmin(smooth), smooth.shape)
    trough = smooth[row]
    assert trough[channel] < -120
    near = trough[max(0, channel - 1) : channel + 2]
    assert (near < -50).sum() >= 2
    far = np.delete(trough, slice(max(0, channel - 12), channel + 13))
    assert np.median(np.abs(far)) < 40
    assert 20 < ((smooth[1:-1] < -120) & (smooth[1:-1] <= smooth[:-2]) & (smooth[1:-1] < smooth[2:])).sum() < 20000


@pytest.mark.requirement("C1")
def test_it_compresses_like_a_recording(second: simulate.Int16s) -> None:
    assert 2.1 < zlib_ratio(second[:, :64]) < 2.35
    high = np.ascontiguousarray(second[:, :64]).view(np.uint8)[:, 1::2]
    low = np.ascontiguousarray(second[:, :64]).view(np.uint8)[:, 0::2]
    assert zlib_ratio(high) > 4  # the smooth plane
    assert zlib_ratio(low) < 1.6  # the noisy one


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": 1.0, "rate": 0.0},
        {"seconds": 1.0, "rate": float("inf")},
        {"seconds": 1.0, "channels": 0},
        {"seconds": 1.0, "seed": -1},
    ],
)
def test_senseless_requests_are_refused_at_once(wrong: dict[str, float]) -> None:
    for make in (simulate.neuropixels, simulate.blocks):
        with pytest.raises(SettingsError, match="simulate: ") as caught:
            make(**wrong)
        assert caught.value.kind is ErrorKind.OPTION


@pytest.mark.parametrize("block", [0.0, -1.0, 1e-6, float("nan"), float("inf")])
def test_blocks_need_a_sample(block: float) -> None:
    with pytest.raises(SettingsError, match="block_seconds"):
        simulate.blocks(1.0, block)


def test_two_photon() -> None:
    movie = simulate.two_photon(40, 64, 48, seed=5)
    assert movie.shape == (40, 64, 48)
    assert movie.dtype == np.uint16
    np.testing.assert_array_equal(simulate.two_photon(20, 64, 48, seed=5), movie[:20])
    assert not np.array_equal(simulate.two_photon(40, 64, 48, seed=6), movie)
    pixels = movie.astype(np.float64)
    assert pixels.min() > 0
    quiet = np.argsort(pixels.mean(axis=0).ravel())[:200]  # background only: shot noise alone
    ratio = pixels.reshape(40, -1)[:, quiet].var(axis=0).mean() / pixels.reshape(40, -1)[:, quiet].mean()
    assert 0.7 < ratio < 1.6
    with pytest.raises(SettingsError):
        simulate.two_photon(1, 0, 4)
