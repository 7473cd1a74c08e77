"""Recordings made up from a seed: for tests, benchmarks and tutorials that need large, plausible data.

The data are not a model of any brain. They are made so that what matters to storage is like
the real thing: channels that share a slow 1/f potential with their neighbours (so the high
bytes are smooth), noise of a dozen counts (so the low bytes are not), and sparse spikes.
Equal arguments give equal data with one version of numpy on one kind of machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nwbflow.errors import ErrorKind, SettingsError

type Int16s = npt.NDArray[np.int16]
"""Samples of a simulated recording."""

type UInt16s = npt.NDArray[np.uint16]
"""Frames of a simulated imaging session."""

type _Floats = npt.NDArray[np.float32]

_GRID_RATE = 1000.0  # Hz; the slow potential is drawn on this grid and interpolated
_GRID_STEPS = 100  # grid steps made at once: small enough to stay in a processor's cache
_CORNERS = 0.5 * 2.0 ** np.arange(10)  # Hz, 0.5 to 256: one first-order process per octave sums up to 1/f
_LFP_COUNTS = 20.0
_SPIKE_SECONDS = 2e-3


def neuropixels(seconds: float, *, channels: int = 384, rate: float = 30000.0, seed: int = 0) -> Int16s:
    """Simulate a wide-band extracellular recording of one dense probe.

    Every channel carries noise of 10 to 14 counts RMS that is weakly correlated with the
    next channel's, a slow potential of about 20 counts RMS with a 1/f spectrum that
    neighbours share, and spikes: biphasic waveforms at Poisson times, spread over a few channels.

    Parameters
    ----------
    seconds : float
        Length. A longer recording begins with the shorter one of the same seed.
    channels : int
        Number of channels, in order of depth.
    rate : float
        Samples per second and channel, in Hz.
    seed : int
        Equal seeds give equal data.

    Returns
    -------
    numpy.ndarray
        int16, shape (round(seconds * rate), channels), in counts of the converter.

    Raises
    ------
    nwbflow.errors.SettingsError
        A length, number of channels or rate that is not positive (seconds may be 0), or a negative seed.

    Examples
    --------
    >>> neuropixels(0.01, channels=4).shape
    (300, 4)
    """
    rows = _rows(seconds, channels, rate, seed)
    out = np.empty((rows, channels), np.int16)
    done = 0
    for piece in _pieces(rows, channels, rate, seed):
        out[done : done + len(piece)] = piece
        done += len(piece)
    return out


def blocks(
    seconds: float,
    block_seconds: float = 1.0,
    *,
    channels: int = 384,
    rate: float = 30000.0,
    seed: int = 0,
) -> Iterator[Int16s]:
    """Simulate the recording of :func:`neuropixels` block by block, as an acquisition delivers it.

    Memory is bounded by one block and a tenth of a second of data, whatever the length.

    Parameters
    ----------
    seconds : float
        Length of the whole.
    block_seconds : float
        Length of every block but the last, which may be shorter.
    channels : int
        Number of channels.
    rate : float
        Samples per second and channel, in Hz.
    seed : int
        Equal seeds give equal data.

    Returns
    -------
    iterator of numpy.ndarray
        int16, shape (k, channels); together equal to ``neuropixels(seconds, ...)``. Each block
        is an array of its own.

    Raises
    ------
    nwbflow.errors.SettingsError
        As :func:`neuropixels`; also for a block shorter than one sample. Raised by the call, not by the first block.
    """
    rows = _rows(seconds, channels, rate, seed)
    block_rows = round(block_seconds * rate) if math.isfinite(block_seconds) else 0
    if block_rows < 1:
        raise _bad(f"block_seconds={block_seconds!r} is shorter than one sample at {rate} Hz")
    return _rebatch(_pieces(rows, channels, rate, seed), rows, block_rows, channels)


def two_photon(frames: int, height: int = 128, width: int = 128, *, seed: int = 0) -> UInt16s:
    """Simulate a small two-photon calcium-imaging session.

    A smooth background and round cells whose brightness jumps at random times and decays,
    seen through shot noise (variance equal to the mean, in counts).

    Parameters
    ----------
    frames, height, width : int
        Shape of the session, in frames and pixels.
    seed : int
        Equal seeds give equal data.

    Returns
    -------
    numpy.ndarray
        uint16, shape (frames, height, width).

    Raises
    ------
    nwbflow.errors.SettingsError
        A negative number of frames, no pixels, or a negative seed.

    Examples
    --------
    >>> two_photon(3, 8, 16).shape
    (3, 8, 16)
    """
    if frames < 0 or height < 1 or width < 1 or seed < 0:
        raise _bad(f"frames={frames}, height={height}, width={width}, seed={seed}: need pixels, and no negative number")
    random = np.random.Generator(np.random.SFC64(seed))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    background = 180.0 + 60.0 * np.cos(3 * y / height) * np.sin(4 * x / width)
    cells = max(1, height * width // 400)
    centres = random.uniform(0, (height, width), (cells, 2))
    distance = (y[None] - centres[:, 0, None, None]) ** 2 + (x[None] - centres[:, 1, None, None]) ** 2
    footprints = np.exp(-distance / 12.0, dtype=np.float32).reshape(cells, -1)
    brightness = random.uniform(50.0, 200.0, cells).astype(np.float32)
    calcium = np.zeros(cells, np.float32)
    out = np.empty((frames, height, width), np.uint16)
    for frame in out:
        calcium *= 0.93  # a decay of about half a second at 30 frames a second
        calcium += random.random(cells, dtype=np.float32) < 0.02
        mean = background + np.einsum("c,cp->p", brightness * (1 + 2 * calcium), footprints).reshape(height, width)
        noisy = mean + np.sqrt(mean) * random.standard_normal((height, width), dtype=np.float32)
        frame[:] = np.clip(np.rint(noisy), 0, 65535)
    return out


@dataclass(frozen=True, slots=True)
class _Unit:
    """One neuron: what a spike adds to (samples, channels), from which channel on, and how often, in Hz."""

    waveform: _Floats
    channel: int
    rate: float


class _Potential:
    """The slow potential: a few sources along the probe, each a sum of first-order processes."""

    def __init__(self, channels: int, step_seconds: float, random: np.random.Generator) -> None:
        sources = max(1, channels // 24)
        depth = np.arange(channels)[None, :]
        centre = np.linspace(0, channels, sources, endpoint=False)[:, None] + channels / sources / 2
        profile = np.exp(-0.5 * ((depth - centre) / 24.0) ** 2)
        profile *= _LFP_COUNTS / np.sqrt((profile**2).sum(axis=0)) / math.sqrt(len(_CORNERS))
        self._profile = profile.astype(np.float32)
        self._keep = np.exp(-2 * np.pi * _CORNERS * step_seconds).astype(np.float32)
        self._kick = np.sqrt(1 - self._keep**2)
        self._random = random
        self._state = random.standard_normal((sources, len(_CORNERS)), dtype=np.float32)
        self._last: _Floats = self._state.sum(axis=1)

    def draw(self) -> _Floats:
        """Return the next (_GRID_STEPS + 1, channels) grid points; the first repeats the previous last."""
        sources = np.empty((_GRID_STEPS + 1, len(self._state)), np.float32)
        sources[0] = self._last
        kicks = self._random.standard_normal((_GRID_STEPS, *self._state.shape), dtype=np.float32) * self._kick
        for row, kick in zip(sources[1:], kicks, strict=True):
            self._state *= self._keep
            self._state += kick
            self._state.sum(axis=1, out=row)
        self._last = sources[-1].copy()
        # einsum, not @: BLAS's threads spin for longer than this takes, and its sums differ between builds
        points: _Floats = np.einsum("ts,sc->tc", sources, self._profile)
        return points


def _pieces(rows: int, channels: int, rate: float, seed: int) -> Iterator[Int16s]:
    """Yield the recording in short pieces that are only valid until the next one."""
    random = np.random.Generator(np.random.SFC64(seed))
    step = max(1, round(rate / _GRID_RATE))
    piece_rows = step * _GRID_STEPS
    potential = _Potential(channels, step / rate, random)
    units = _units(channels, rate, random)
    tail_rows = max((len(unit.waveform) for unit in units), default=0)
    sigma = random.uniform(9.6, 12.6, channels).astype(np.float32)
    between = np.linspace(0, 1, step, endpoint=False, dtype=np.float32)[:, None]
    signal = np.zeros((piece_rows + tail_rows, channels), np.float32)
    noise = np.empty((piece_rows, channels), np.float32)
    counts = np.empty((piece_rows, channels), np.int16)
    for start in range(0, rows, piece_rows):
        body = signal[:piece_rows]
        _add_spikes(signal, units, piece_rows, rate, random)
        grid = potential.draw()
        body += _interpolate(grid, between, noise)
        random.standard_normal(out=noise, dtype=np.float32)
        noise *= sigma
        body += noise
        noise *= 0.3
        body[:, 1:] += noise[:, :-1]  # neighbours pick up part of each other's noise
        np.rint(body, out=body)
        np.clip(body, -32768, 32767, out=body)
        counts[:] = body
        yield counts[: rows - start]
        signal[:tail_rows] = signal[piece_rows:]  # spikes that reach into the next piece
        signal[tail_rows:] = 0


def _interpolate(grid: _Floats, between: _Floats, out: _Floats) -> _Floats:
    """Draw straight lines through the grid points; `out` is (steps * len(between), channels)."""
    view = out.reshape(len(grid) - 1, len(between), grid.shape[1])
    np.multiply(np.diff(grid, axis=0)[:, None, :], between, out=view)
    view += grid[:-1, None, :]
    return out


def _units(channels: int, rate: float, random: np.random.Generator) -> tuple[_Unit, ...]:
    """Make about one neuron for every two channels."""
    time = np.arange(math.ceil(_SPIKE_SECONDS * rate)) / rate
    units = []
    for _ in range((channels + 1) // 2):
        width = random.uniform(0.12e-3, 0.3e-3)
        trough = np.exp(-0.5 * ((time - 0.6e-3) / width) ** 2)
        hump = np.exp(-0.5 * ((time - 0.6e-3 - 2.5 * width) / (2 * width)) ** 2)
        shape = random.lognormal(math.log(90), 0.5) * (0.35 * hump - trough)
        centre = random.uniform(0, channels)
        first, last = max(0, int(centre) - 5), min(channels, int(centre) + 6)
        spread = np.exp(-np.abs(np.arange(first, last) - centre) / 2.0)
        waveform = np.outer(shape, spread).astype(np.float32)
        units.append(_Unit(waveform, first, min(50.0, random.lognormal(math.log(4), 0.8))))
    return tuple(units)


def _add_spikes(signal: _Floats, units: tuple[_Unit, ...], rows: int, rate: float, random: np.random.Generator) -> None:
    """Add to `signal` the spikes that begin in its first `rows` rows."""
    for unit, count in zip(units, random.poisson([unit.rate * rows / rate for unit in units]), strict=True):
        samples, channels = unit.waveform.shape
        for row in random.integers(0, rows, count):
            signal[row : row + samples, unit.channel : unit.channel + channels] += unit.waveform


def _rebatch(pieces: Iterator[Int16s], rows: int, block_rows: int, channels: int) -> Iterator[Int16s]:
    """Cut a sequence of pieces into blocks of `block_rows` rows."""
    piece = np.empty((0, channels), np.int16)
    for start in range(0, rows, block_rows):
        block = np.empty((min(block_rows, rows - start), channels), np.int16)
        filled = 0
        while filled < len(block):
            if not len(piece):
                piece = next(pieces)
            taken = min(len(piece), len(block) - filled)
            block[filled : filled + taken] = piece[:taken]
            piece = piece[taken:]
            filled += taken
        yield block


def _rows(seconds: float, channels: int, rate: float, seed: int) -> int:
    """Check the arguments and return the number of samples."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise _bad(f"seconds={seconds!r} is no length")
    if not (math.isfinite(rate) and rate > 0):
        raise _bad(f"rate={rate!r} is no sampling rate; give samples per second")
    if channels < 1:
        raise _bad(f"channels={channels!r}: at least one is needed")
    if seed < 0:
        raise _bad(f"seed={seed!r}: a seed is 0 or more")
    return round(seconds * rate)


def _bad(problem: str) -> SettingsError:
    return SettingsError(f"simulate: {problem}", kind=ErrorKind.OPTION)
