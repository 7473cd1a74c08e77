"""Recording what comes in from sockets and Lab Streaming Layer until told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.recorder import Recorder
from nwbflow.observe.dashboard.access import parse_address
from nwbflow.observe.hub import Progress
from nwbflow.tools.feeds.clock import SessionClock
from nwbflow.tools.feeds.lsl import LslFeed, LslInlet, declare
from nwbflow.tools.feeds.server import FeedServer
from nwbflow.tools.feeds.session import make_session
from nwbflow.tools.feeds.sockets import listen
from nwbflow.tools.metadata import RecordMetadata, load

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """What is recorded, and how.

    Parameters
    ----------
    lsl : tuple of str
        LSL streams, each a name or ``type=...``, ``source_id=...``.
    lsl_wait : float
        Seconds to look for each.
    tcp : str, optional
        ``[HOST:]PORT`` to listen on.
    unix : pathlib.Path, optional
        Path of a Unix socket to listen on.
    token : str, optional
        What clients have to know.
    profile, sync, spill, overwrite, workers
        As of :class:`nwbflow.Recorder`.
    duration : float, optional
        Seconds after which it ends.
    """

    lsl: tuple[str, ...] = ()
    lsl_wait: float = 10.0
    tcp: str | None = None
    unix: Path | None = None
    token: str | None = None
    profile: str = "default"
    sync: str = "process"
    spill: Path | None = None
    overwrite: bool = False
    workers: int | None = None
    duration: float | None = None


def record_streams(
    out: Path,
    settings: RecordSettings,
    metadata: Path | None,
    *,
    progress: Progress,
    stop: AbstractContextManager[threading.Event],
    say: Callable[[str], None],
) -> Receipt:
    """Record until `stop`'s event is set, the time is over, or all clients are done; return what was stored.

    Parameters
    ----------
    out : pathlib.Path
        The NWB file.
    settings : RecordSettings
        What is recorded, and how.
    metadata : pathlib.Path, optional
        The session and the streams of sockets; a YAML file.
    progress : bool, callable or sequence of callables
        As of :class:`nwbflow.Recorder`.
    stop : context manager of threading.Event
        Entered when all streams are found; the event ends the recording when it is set.
    say : callable
        Takes one line of what is going on.

    Raises
    ------
    nwbflow.errors.NwbflowError
        What is wrong with the request, the sources or the target, or what stopped the recording.
    """
    given = load(RecordMetadata, metadata)
    _check(settings, given)
    tcp = None if settings.tcp is None else parse_address(settings.tcp)
    inlets = [_found(query, settings.lsl_wait, say) for query in settings.lsl]
    with stop as stopped:
        return _record(out, settings, given, tcp=tcp, inlets=inlets, progress=progress, stopped=stopped, say=say)


def _record(
    out: Path,
    settings: RecordSettings,
    given: RecordMetadata,
    *,
    tcp: tuple[str, int] | None,
    inlets: list[LslInlet],
    progress: Progress,
    stopped: threading.Event,
    say: Callable[[str], None],
) -> Receipt:
    streams = [stream.name for stream in given.streams]
    now = datetime.now(UTC).astimezone()
    draft = make_session(given, now)
    clock, names = None, []
    if inlets:
        reference = draft.nwbfile.timestamps_reference_time
        clock = SessionClock.starting(reference, datetime.now(UTC), inlets[0].local_clock())
        names = [declare(draft.nwbfile, inlet, clock) for inlet in inlets]
        for inlet in inlets:
            inlet.open()  # what comes while the file is laid out waits in the inlet
    with ExitStack() as stack:
        listening = None
        if tcp is not None or settings.unix is not None:
            listening = stack.enter_context(listen(tcp=tcp, unix=settings.unix, token=settings.token))
        recorder = stack.enter_context(
            Recorder(
                draft.nwbfile,
                out,
                sync=settings.sync,
                spill=settings.spill,
                profile=settings.profile,
                workers=settings.workers,
                progress=progress,
                overwrite=settings.overwrite,
            )
        )
        with ExitStack() as feeds:
            server = None
            if listening is not None:
                start = draft.nwbfile.timestamps_reference_time
                server = feeds.enter_context(FeedServer(recorder, streams, listening, session_start=start))
                for address in server.addresses:
                    say(f"listening on {address if isinstance(address, str) else _shown(address)}")
            if clock is not None:
                feeds.enter_context(LslFeed(recorder, list(zip(inlets, names, strict=True)), clock))
            say(f"recording to {out}; end with Ctrl-C")
            _wait(settings.duration, stopped, server if not inlets else None)
        stack.pop_all()  # from here on an interruption leaves the file to nwbflow recover
        receipt = _finish(recorder, out, say)
    return replace(receipt, notes=(*draft.notes, *receipt.notes))


def _finish(recorder: Recorder, out: Path, say: Callable[[str], None]) -> Receipt:
    try:
        say("ending: completing and verifying the file; Ctrl-C to leave that to nwbflow recover")
        return recorder.close()
    except (KeyboardInterrupt, SystemExit) as error:
        if recorder.receipt is None and not getattr(error, "__notes__", []):
            error.add_note(f"The file is not finished; all that was acknowledged is safe. Run: nwbflow recover {out}")
        raise


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _found(query: str, wait: float, say: Callable[[str], None]) -> LslInlet:
    say(f"looking for the LSL stream {query}")
    inlet = LslInlet(query, wait)
    stream = inlet.stream
    rate = f"{stream.rate:g} Hz" if stream.rate else "events"
    say(f"found {stream.name}: {stream.channels} channels of {stream.dtype}, {rate}")
    return inlet


def _check(settings: RecordSettings, metadata: RecordMetadata) -> None:
    sockets = settings.tcp is not None or settings.unix is not None
    if not (settings.lsl or sockets):
        raise _bad("nothing to record from: pass --lsl NAME, --tcp PORT or --unix PATH")
    if sockets and not metadata.streams:
        raise _bad(
            "no streams are declared for the clients: pass --metadata FILE, with a list such as "
            "streams: [{name: probe, dtype: int16, channels: 384, rate: 30000}]"
        )
    if metadata.streams and not sockets:
        raise _bad("streams are declared, and there is nowhere to send them to: pass --tcp PORT or --unix PATH")
    if settings.duration is not None and not 0 < settings.duration < float("inf"):
        raise _bad(f"duration={settings.duration}: give seconds, above 0")


def _wait(duration: float | None, stop: threading.Event, server: FeedServer | None) -> None:
    """Wait for whatever ends the recording first."""
    deadline = None if duration is None else time.monotonic() + duration
    while not stop.wait(_LOOK_SECONDS):
        if deadline is not None and time.monotonic() >= deadline:
            return
        if server is not None and server.wait_until_done(0):
            return


def _bad(problem: str) -> SettingsError:
    return SettingsError(problem, kind=ErrorKind.OPTION)
