"""Streams of Lab Streaming Layer: found, described, declared, and recorded with corrected time stamps.

Every sample keeps the time stamp its sender gave it, moved to this machine's clock by what LSL measures of the two
clocks (``time_correction``), and to the session's start. Nothing is smoothed: LSL's own post-processing stays off, and
each correction is recorded beside the stream, with the first sample it was applied to, so that the sender's time
stamps can be got back.
"""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import pynwb

from nwbflow.errors import ErrorKind, SettingsError, SourceError, UnsupportedError
from nwbflow.nwb.live import live
from nwbflow.nwb.recorder import Recorder
from nwbflow.tools.feeds.clock import SessionClock
from nwbflow.tools.metadata import is_name

PROPERTIES = ("name", "type", "source_id")
"""By what a stream can be asked for."""

_DTYPES = {1: "float32", 2: "float64", 4: "int32", 5: "int16", 6: "int8", 7: "int64"}
_BUFFER_SECONDS = 360
_LOOK_SECONDS = 1.0
_PULL_SECONDS = 0.2
_PULL_SAMPLES = 4096
_ANSWER_SECONDS = 5.0
_SILENT_SECONDS = 2.0
_LABELS_BYTES = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class LslStream:
    """A stream as its sender describes it.

    Parameters
    ----------
    name, type, source_id : str
        What it calls itself, and what identifies its source.
    channels : int
        Number of channels.
    rate : float
        Nominal samples per second, in Hz; 0 for events.
    dtype : str
        Type of the samples.
    labels, units : tuple of str
        Of the channels, where the description has them; else empty.
    """

    name: str
    type: str
    source_id: str
    channels: int
    rate: float
    dtype: str
    labels: tuple[str, ...]
    units: tuple[str, ...]


def _library() -> Any:
    try:
        return importlib.import_module("pylsl")
    except (ImportError, RuntimeError) as error:
        raise UnsupportedError(
            f"Lab Streaming Layer is not here ({error}): install pylsl, e.g. pip install 'nwbflow[lsl]'",
            kind=ErrorKind.PLUGIN,
        ) from error


class LslInlet:
    """A stream of Lab Streaming Layer that has been found, and is about to be recorded.

    Parameters
    ----------
    query : str
        Its name, or ``type=EEG``, ``source_id=...``, ``name=...``.
    timeout : float
        Seconds to look for it.

    Raises
    ------
    nwbflow.errors.SourceError
        If there is no such stream, or more than one.
    nwbflow.errors.UnsupportedError
        If it carries text, or pylsl is not installed.
    """

    def __init__(self, query: str, timeout: float = 10.0) -> None:
        self._lsl = _library()
        info = self._find(query, timeout)
        if info.channel_format() not in _DTYPES:
            raise UnsupportedError(
                f"the stream {info.name()} carries text, and numbers only can be recorded: send markers as codes "
                "(int32), and keep the list of their meanings with the session's metadata",
                kind=ErrorKind.DTYPE,
            )
        self._inlet = self._lsl.StreamInlet(info, max_buflen=_BUFFER_SECONDS, recover=True)
        try:
            self.stream = _describe(self._inlet.info(_ANSWER_SECONDS))
        except (TimeoutError, self._lsl.util.LostError) as error:
            raise SourceError(
                f"the stream {info.name()} does not answer: {error or 'lost'}", kind=ErrorKind.MISSING
            ) from error

    def _find(self, query: str, timeout: float) -> Any:
        prop, equals, value = query.partition("=")
        if not equals:
            prop, value = "name", query
        if prop not in PROPERTIES or not value:
            raise SettingsError(
                f"lsl={query!r}: give a stream's name, or name=NAME, type=TYPE or source_id=ID", kind=ErrorKind.OPTION
            )
        deadline = time.monotonic() + timeout
        found: list[Any] = []
        while not found and (left := deadline - time.monotonic()) > 0:
            found = self._lsl.resolve_byprop(prop, value, 1, min(left, _LOOK_SECONDS))  # Ctrl-C waits for its end
        if len(found) == 1:
            return found[0]
        there = found or self._lsl.resolve_streams(1.0)
        names = ", ".join(f"{i.name()} (type={i.type()}, source_id={i.source_id()})" for i in there) or "none"
        if found:
            raise SourceError(
                f"{len(found)} LSL streams have {prop} {value}: {names}; ask for one by what only it has",
                kind=ErrorKind.SHARED,
            )
        raise SourceError(
            f"no LSL stream with {prop} {value} was found within {timeout:g} s; there are: {names}",
            kind=ErrorKind.MISSING,
        )

    def open(self) -> None:
        """Have samples sent; they are kept from now on.

        Raises
        ------
        nwbflow.errors.SourceError
            If the sender does not answer.
        """
        try:
            self._inlet.open_stream(_ANSWER_SECONDS)
            self.correction()
        except (TimeoutError, self._lsl.util.LostError) as error:
            raise SourceError(
                f"the LSL stream {self.stream.name} does not answer: {error or 'lost'}", kind=ErrorKind.MISSING
            ) from error

    def pull(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        """Return the samples that have come, shape (k, channels), and their stamps; ``None`` if the stream is lost."""
        try:
            samples, stamps = self._inlet.pull_chunk(timeout=_PULL_SECONDS, max_samples=_PULL_SAMPLES, as_numpy=True)
        except self._lsl.util.LostError:
            return None
        return samples, np.asarray(stamps)

    def correction(self) -> float | None:
        """Return what is to be added to the sender's clock, in seconds; ``None`` if that can't be measured now."""
        try:
            return float(self._inlet.time_correction(_ANSWER_SECONDS))
        except (TimeoutError, self._lsl.util.LostError):
            return None

    def local_clock(self) -> float:
        """Return what LSL's clock of this machine shows, in seconds."""
        return float(self._lsl.local_clock())

    def close(self) -> None:
        """Have nothing more sent."""
        self._inlet.close_stream()


def _describe(info: Any) -> LslStream:
    labels, units = [], []
    channel = info.desc().child("channels").child("channel")
    while not channel.empty():
        labels.append(channel.child_value("label"))
        units.append(channel.child_value("unit"))
        channel = channel.next_sibling()
    count = int(info.channel_count())
    return LslStream(
        name=info.name(),
        type=info.type(),
        source_id=info.source_id(),
        channels=count,
        rate=float(info.nominal_srate()),
        dtype=_DTYPES[info.channel_format()],
        labels=tuple(labels) if len(labels) == count and any(labels) else (),
        units=tuple(units) if len(units) == count and any(units) else (),
    )


def declare(nwbfile: pynwb.NWBFile, inlet: LslInlet, clock: SessionClock) -> str:
    """Declare a stream and its clock corrections in a file's acquisition; return the series' path.

    Raises
    ------
    nwbflow.errors.SettingsError
        If there is a series of that name already.
    """
    stream = inlet.stream
    name = stream.name.replace("/", "_").replace(":", "_").strip()
    name = name if is_name(name) else "lsl"
    for taken in (name, f"{name}_clock"):
        if taken in nwbfile.acquisition:
            raise SettingsError(f"two streams are called {taken}: give one of them another name", kind=ErrorKind.EXISTS)
    about = {key: value for key, value in (("type", stream.type), ("source_id", stream.source_id)) if value}
    comments: dict[str, object] = {"lsl": {"name": stream.name, **about, "nominal_rate": stream.rate}}
    if stream.labels and len(json.dumps(stream.labels)) < _LABELS_BYTES:
        comments["channel_labels"] = stream.labels
    if len(set(stream.units)) > 1 and len(json.dumps(stream.units)) < _LABELS_BYTES:
        comments["channel_units"] = stream.units
    one_unit = stream.units[0] if len(set(stream.units)) == 1 else ""
    kind = f"nominally {stream.rate:g} Hz" if stream.rate else "events"
    nwbfile.add_acquisition(
        pynwb.TimeSeries(
            name=name,
            data=live((None, stream.channels), stream.dtype),
            timestamps=live((None,), "float64"),
            unit=one_unit or "a.u.",
            description=(
                f"LSL stream {stream.name}, {stream.channels} channels, {kind}. Time stamps: the sender's, plus the "
                f"clock correction in {name}_clock, minus {clock.origin!r} s (LSL's local clock at the session's "
                "start). Not smoothed."
            ),
            comments=json.dumps(comments),
        )
    )
    nwbfile.add_acquisition(
        pynwb.TimeSeries(
            name=f"{name}_clock",
            data=live((None, 2), "float64"),
            timestamps=live((None,), "float64"),
            unit="see description",
            description=(
                f"Clock corrections of {name}, when they were measured. Column 0: seconds that were added to the "
                "sender's time stamps. Column 1: the first sample they were added to."
            ),
        )
    )
    return f"/acquisition/{name}"


class LslFeed:
    """Records LSL streams: a thread for each pulls what has come and appends it.

    Parameters
    ----------
    recorder : Recorder
        Where samples go.
    inlets : sequence of LslInlet and str
        The streams, each with the path of its series, as :func:`declare` gave it.
    clock : SessionClock
        As it was declared.
    """

    def __init__(self, recorder: Recorder, inlets: Sequence[tuple[LslInlet, str]], clock: SessionClock) -> None:
        self._pumps = [_Pump(recorder, inlet, name, clock) for inlet, name in inlets]
        for pump in self._pumps:
            pump.start()

    def close(self) -> None:
        """Append what has come so far, and no more."""
        for pump in self._pumps:
            pump.stop.set()
        for pump in self._pumps:
            pump.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Pump(threading.Thread):
    """From one inlet into its series."""

    def __init__(self, recorder: Recorder, inlet: LslInlet, name: str, clock: SessionClock) -> None:
        super().__init__(name=f"nwbflow-lsl-{name}", daemon=True)
        self.stop = threading.Event()
        self._recorder, self._inlet, self._series, self._clock = recorder, inlet, name, clock
        self._correction: float | None = None
        self._rows = 0
        self._last = inlet.local_clock()
        self._silent = False

    def run(self) -> None:
        """Pull and append until told to stop, and then what is left."""
        try:
            while self._step() and not self.stop.is_set():
                pass
            backlog = self._rows
            while self._step() and self._rows - backlog == _PULL_SAMPLES:
                backlog = self._rows
        except Exception as error:  # of whatever kind: who records has to know
            self._recorder.warn(f"recording this stream has stopped: {error}", self._series)
        finally:
            self._inlet.close()

    def _step(self) -> bool:
        """Append what has come; return whether more may."""
        pulled = self._inlet.pull()
        if pulled is None:
            self._recorder.warn(
                "the LSL stream is lost, and says nothing by which it could be found again (no source_id)", self._series
            )
            return False
        samples, stamps = pulled
        if len(stamps):
            self._came()
            self._measure()
            times = self._clock.seconds(stamps, self._correction or 0.0)
            self._recorder[self._series].append(samples, timestamps=times)
            self._rows += len(stamps)
        elif self._inlet.stream.rate and not self._silent:
            self._silent = self._inlet.local_clock() - self._last > _SILENT_SECONDS
            if self._silent:
                self._recorder.warn(
                    f"nothing has come for {_SILENT_SECONDS:g} s, after {self._rows} rows", self._series
                )
        return True

    def _came(self) -> None:
        now = self._inlet.local_clock()
        if self._silent:
            self._recorder.warn(
                f"goes on after {now - self._last:.1f} s; the gap is in the time stamps, before row {self._rows}",
                self._series,
            )
        self._last, self._silent = now, False

    def _measure(self) -> None:
        """Take the correction as LSL has it now, and record it if it is another one."""
        measured = self._inlet.correction()
        if measured is None and self._correction is None:
            self._recorder.warn("the clocks could not be compared; time stamps are not corrected", self._series)
        new = self._correction or 0.0 if measured is None else measured
        if new == self._correction:
            return
        self._correction = new
        at = self._clock.seconds(np.array([self._last]), 0.0)
        self._recorder[f"{self._series}_clock"].append(np.array([[new, self._rows]]), timestamps=at)
