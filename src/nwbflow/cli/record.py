"""``nwbflow record``: streams that come in now become an NWB file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from nwbflow.cli.codes import OK
from nwbflow.cli.monitor import watched
from nwbflow.cli.receipts import print_receipt, receipt_to_json
from nwbflow.cli.screens import Bar, err, note, print_json, say
from nwbflow.cli.stopping import Stopper
from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.events import Event, Warned
from nwbflow.observe.jsonl import JsonLines
from nwbflow.tools.feeds.record import RecordSettings, record_streams

_STREAMS = Group("The streams", sort_key=1)
_STORING = Group("How it is stored", sort_key=2)
_RUNNING = Group("How the command runs", sort_key=3)


def record(
    out_file: Annotated[Path, Parameter(name="OUT")],
    /,
    *,
    lsl: Annotated[list[str] | None, Parameter(group=_STREAMS, negative="", consume_multiple=True)] = None,
    lsl_wait: Annotated[float, Parameter(group=_STREAMS)] = 10.0,
    tcp: Annotated[str | None, Parameter(group=_STREAMS)] = None,
    unix: Annotated[Path | None, Parameter(group=_STREAMS)] = None,
    token_file: Annotated[Path | None, Parameter(group=_STREAMS)] = None,
    metadata: Annotated[Path | None, Parameter(group=_STREAMS)] = None,
    profile: Annotated[Literal["default", "fast", "archive", "cloud"], Parameter(group=_STORING)] = "default",
    sync: Annotated[Literal["process", "full"], Parameter(group=_STORING)] = "process",
    spill: Annotated[Path | None, Parameter(group=_STORING)] = None,
    overwrite: Annotated[bool, Parameter(group=_STORING, negative="", show_default=False)] = False,
    workers: Annotated[int | None, Parameter(group=_RUNNING)] = None,
    duration: Annotated[float | None, Parameter(group=_RUNNING)] = None,
    json: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
    events: Annotated[Path | None, Parameter(group=_RUNNING)] = None,
    monitor: Annotated[str | None, Parameter(group=_RUNNING)] = None,
    no_progress: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
    quiet: Annotated[bool, Parameter(group=_RUNNING, negative="", show_default=False)] = False,
) -> int:
    """Record streams into an NWB file, and lose nothing that was acknowledged.

    Streams come from Lab Streaming Layer, or from clients over a socket. The
    recording ends with Ctrl-C (or SIGTERM), after --duration, or when every
    client has said that it is done; then the file is completed, read back and put
    in place, and that is exit code 0. A second Ctrl-C does not wait for that.
    After that, or a crash: nwbflow recover OUT. An example:

    nwbflow record a.nwb --lsl MyAmplifier --tcp 5005 --metadata session.yaml

    Parameters
    ----------
    out_file
        The NWB file.
    lsl
        LSL streams, each by its name, or as type=EEG or source_id=ID.
    lsl_wait
        Seconds to look for an LSL stream.
    tcp
        [HOST:]PORT where clients connect; 0 is any free port. Without a host: this machine only.
    unix
        Path of a Unix socket where clients of this user connect.
    token_file
        File with a token every client has to know. Needed if HOST is not this machine only.
    metadata
        YAML file as for convert, with a list of streams: name, dtype, channels, rate, unit, conversion, ...
    profile
        default: gzip any reader opens. fast: larger. archive: smaller, checksums. cloud: for remote reading.
    sync
        What acknowledged rows survive: the end of the process, or a loss of power as well (full).
    spill
        Folder on another disk, where the recording goes on if OUT's disk is full, fails or does not answer.
    overwrite
        Replace OUT, when the recording is finished.
    workers
        Encoding threads; as many as there are cores if not given.
    duration
        End after so many seconds.
    json
        Print the result as one JSON object.
    events
        Append every event of the recording to this file, one JSON object a line.
    monitor
        Show the recording on a web page at [HOST:]PORT; its address is printed. Port 0 is any free one.
    no_progress
        Show no progress (there is none either where standard error is no terminal).
    quiet
        Print nothing but notes and errors.
    """
    settings = RecordSettings(
        lsl=tuple(lsl or ()),
        lsl_wait=lsl_wait,
        tcp=tcp,
        unix=unix,
        token=None if token_file is None else _read_token(token_file),
        profile=profile,
        sync=sync,
        spill=spill,
        overwrite=overwrite,
        workers=workers,
        duration=duration,
    )
    live = Bar(warnings=True) if sys.stderr.isatty() and not (quiet or no_progress) else _Notes()
    logs = [] if events is None else [JsonLines(events)]

    def tell(text: str) -> None:
        if not quiet:
            say(err(), (text, "dim"))

    with watched(monitor) as page:
        observers = [live, *logs, *page]
        receipt = record_streams(out_file, settings, metadata, progress=observers, stop=Stopper(), say=tell)
    for text in receipt.notes:
        if not (isinstance(live, _Notes) and text in live.said):
            note(text)
    if json:
        print_json(receipt_to_json(receipt))
    elif not quiet:
        print_receipt(receipt)
    return OK


class _Notes:
    """Prints warnings when they come, where there is no bar that shows them."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, Warned):
            text = event.message if event.dataset is None else f"{event.dataset}: {event.message}"
            self.said.add(text)
            note(text)


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: the token can't be read: {error}", kind=ErrorKind.OPTION) from error
    if not token:
        raise SettingsError(f"{path} is empty: put a token into it, a long random text", kind=ErrorKind.OPTION)
    return token
