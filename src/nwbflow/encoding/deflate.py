"""A zlib stream as small as zlib's at some level, made several times faster.

The stream is plain deflate (:rfc:`1951`) in a zlib wrapper (:rfc:`1950`): every HDF5 build
reads it. What differs is who finds the matches. Shuffled data are byte planes of very
different character: the low bytes of a recording are nearly noise, the high bytes nearly
constant. A level is therefore not the setting of one compressor but an aim: *no larger than
zlib at that level*. A few samples of each plane are encoded by zlib itself, then by cheaper
encoders, cheapest first, until the samples together are as small; each plane then goes
through its own encoder and the raw deflate blocks are joined at byte boundaries.

The choice depends on the data only, so equal data give equal bytes. It rests on samples: on
recordings the result stays within 1% of zlib's size; data that change their character in
between may miss that by a few percent.
"""

from __future__ import annotations

import zlib
from collections.abc import Buffer
from dataclasses import dataclass
from typing import Any

from isal import isal_zlib
from zlib_ng import zlib_ng

from nwbflow.errors import ErrorKind, SettingsError

_HEADER = b"\x78\x5e"  # deflate with a window of 32 KiB, "fast"; readers ignore the latter
_WINDOW = 1 << 15
_SMALL = 1 << 17  # bytes of a chunk up to which samples cost more than they save
_SHORT = 1 << 12  # bytes of a plane below which planes stay together
_REPEATS = 0.02  # ratio below which a plane does little but repeat itself
_NOISE = 0.6  # ratio above which a plane is noise if a window of 512 bytes does as well as one of 32 KiB
_SAME = 1.002  # sizes this close count as equal


@dataclass(frozen=True, slots=True)
class _Coder:
    """One setting of one deflate library.

    `slope` and `ceiling` model what it costs, in ns per byte: about proportional to what
    remains of the data, and no more than for noise. Only their order matters.
    """

    library: Any
    level: int
    strategy: int = zlib.Z_DEFAULT_STRATEGY
    memory: int = 8
    window: int = 15
    slope: float = 0.0
    ceiling: float = 0.0

    def encode(self, data: Buffer, *, last: bool = True, dictionary: Buffer = b"") -> bytes:
        """Return raw deflate blocks that end at a byte boundary."""
        more = (dictionary,) if memoryview(dictionary).nbytes else ()
        stream = self.library.compressobj(self.level, zlib.DEFLATED, -self.window, self.memory, self.strategy, *more)
        body: bytes = stream.compress(data)
        return body + bytes(stream.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH))

    def cost(self, ratio: float) -> float:
        return min(self.ceiling, 0.5 + self.slope * ratio)


# ISA-L's memory level sets the length of its blocks: short ones follow drifting data better.
_NEAR = _Coder(isal_zlib, 1, memory=4, window=9)
_MIDDLE = _Coder(isal_zlib, 1, memory=4, slope=6, ceiling=2.1)
_FAR = _Coder(isal_zlib, 3, memory=2, slope=50, ceiling=2.3)
_RUNS = _Coder(zlib_ng, 1, zlib.Z_RLE, slope=30, ceiling=4)
_MATCHES = (
    _Coder(zlib_ng, 4, slope=45, ceiling=13),
    _Coder(zlib_ng, 5, slope=75, ceiling=13.5),
    _Coder(zlib_ng, 6, slope=150, ceiling=15),
    _Coder(zlib_ng, 7, slope=250, ceiling=20),
    _Coder(zlib_ng, 8, slope=1000, ceiling=50),
)


@dataclass(frozen=True, slots=True)
class _Aim:
    """What a size is held against (zlib at `level`, `slack` allowed), and what to try."""

    level: int
    slack: float
    first: _Coder
    ladder: tuple[_Coder, ...]


def _aim(effort: int | str) -> _Aim:
    if effort == "fast":
        return _Aim(4, 0.065, _NEAR, (_MIDDLE, _FAR, _RUNS, *_MATCHES))
    return _Aim(int(effort), 0.005, _FAR, (_RUNS, *_MATCHES))


def check_effort(effort: int | str) -> int | str:
    """Return `effort` if it is one.

    Raises
    ------
    SettingsError
        If it is neither 0 to 9 nor ``"fast"``.
    """
    if effort == "fast" or (isinstance(effort, int) and not isinstance(effort, bool) and 0 <= effort <= 9):
        return effort
    raise SettingsError(
        f"effort {effort!r}: a level from 0 (stored) to 9 (smallest), or 'fast', is needed", kind=ErrorKind.OPTION
    )


def deflate(data: Buffer, *, planes: int = 1, effort: int | str = 4) -> bytes:
    """Compress one chunk into a zlib stream.

    Parameters
    ----------
    data : bytes-like
        The chunk; C-contiguous.
    planes : int
        Number of equal parts, of different character, that `data` begin with: the item size
        after a byte shuffle.
    effort : int or str
        1 to 9: as small as zlib at that level within 1%, often smaller. ``"fast"``: up to 7%
        larger than zlib at level 4. 0: stored without compression. Up to 128 KiB a chunk goes
        through zlib-ng as a whole, at that level (``"fast"``: 4).

    Returns
    -------
    bytes
        Readable by any inflate. The libraries release the GIL.

    Raises
    ------
    SettingsError
        If there is no such effort.
    """
    view = memoryview(data).cast("B")
    if check_effort(effort) == 0:
        return zlib.compress(view, 0)
    aim = _aim(effort)
    if view.nbytes <= _SMALL:
        return _small(view, aim.level)
    runs = _cut(view, planes)
    parts = [
        coder.encode(run, last=index == len(runs))
        for index, (run, coder) in enumerate(zip(runs, _choose(runs, aim), strict=True), start=1)
    ]
    return b"".join((_HEADER, *parts, zlib_ng.adler32(view).to_bytes(4, "big")))


def _small(view: memoryview, level: int) -> bytes:
    # zlib-ng is zlib's equal from level 3 on, except that up to 6 it misses long repeats.
    body = bytes(zlib_ng.compress(view, min(max(level, 3), 8)))
    if 4 <= level <= 6 and len(body) < view.nbytes // 8:
        return min(body, bytes(zlib_ng.compress(view, 7)), key=len)
    return body


def _cut(view: memoryview, planes: int) -> list[memoryview]:
    # What a shuffle left over stays with the last plane.
    length = view.nbytes // planes
    if length < _SHORT:
        return [view]
    starts = [index * length for index in range(planes)]
    return [view[start:stop] for start, stop in zip(starts, [*starts[1:], view.nbytes], strict=True)]


class _Samples:
    """A few pieces of one plane, each with what the encoder would have seen before it."""

    def __init__(self, run: memoryview) -> None:
        size = min(1 << 13, max(run.nbytes // 32, 1 << 12))
        count = min(4, max(2, run.nbytes >> 18))
        before = min(_WINDOW, run.nbytes // 8)
        starts = [(run.nbytes - size) * (2 * index + 1) // (2 * count) for index in range(count)]
        self._pieces = [(run[start : start + size], run[max(0, start - before) : start]) for start in starts]
        self.nbytes = size * count
        self.weight = run.nbytes / self.nbytes

    def size(self, coder: _Coder) -> float:
        """Estimate of the encoded size of the whole plane, in bytes."""
        return self.weight * sum(len(coder.encode(piece, dictionary=before)) for piece, before in self._pieces)


def _choose(runs: list[memoryview], aim: _Aim) -> list[_Coder]:
    """Pick the encoder of each plane: the cheapest that reach the aim together."""
    reference = _Coder(zlib, aim.level)
    samples = [_Samples(run) for run in runs]
    tried: list[dict[_Coder, float]] = []  # estimated sizes, cheapest encoder first
    aims: list[float] = []
    steps: list[tuple[float, int, int]] = []
    for index, (run, sample) in enumerate(zip(runs, samples, strict=True)):
        far = sample.size(_FAR)
        if far < _REPEATS * run.nbytes:
            tried.append({_repeating(sample, aim): far})
            aims.append(far)
            continue
        near = sample.size(_NEAR)
        size = aimed = near if aim.first is _NEAR else far
        if aim.level > 5 or near < _NOISE * run.nbytes or near > _SAME * far:
            aimed = sample.size(reference)
            steps += [(step.cost(aimed / run.nbytes), rank, index) for rank, step in enumerate(aim.ladder)]
        tried.append({aim.first: size})
        aims.append(aimed)
    budget = sum(aims) * (1 + aim.slack)
    best = [min(sizes.values()) for sizes in tried]
    for _, rank, index in sorted(steps):
        if sum(best) <= budget:
            break
        tried[index][aim.ladder[rank]] = samples[index].size(aim.ladder[rank])
        best[index] = min(tried[index].values())
    for index, size in enumerate(aims):
        if sum(best) > budget and size < best[index]:
            tried[index][reference] = best[index] = size
    return _cheapest(tried, best, budget)


def _cheapest(tried: list[dict[_Coder, float]], best: list[float], budget: float) -> list[_Coder]:
    # A dear step that came last may have made cheaper ones before it needless.
    chosen = []
    for index, sizes in enumerate(tried):
        spare = max(budget - sum(best), 0.0)
        coder, size = next((c, s) for c, s in sizes.items() if s <= best[index] + spare)
        best[index] = size
        chosen.append(coder)
    return chosen


def _repeating(sample: _Samples, aim: _Aim) -> _Coder:
    # zlib itself is quick where all is repeats; only runs of one byte can be had much quicker (7 GB/s).
    if aim.level < 4:
        return _MATCHES[0]
    thorough = _MATCHES[-1 if aim.level > 7 else -2]
    return _RUNS if sample.size(_RUNS) <= sample.size(thorough) else thorough
