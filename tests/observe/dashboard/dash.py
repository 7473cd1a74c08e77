"""Made-up recordings, and the page's messages as a client reads them."""

import json
from dataclasses import replace

import runs

from nwbflow.model.events import StreamsObserved, StreamState

PROBE = StreamState(
    name="/acquisition/probe",
    appended=300_000,
    acknowledged=299_000,
    folded=240_000,
    row_bytes=768,
    rows_per_second=30_000.0,
    declared_rate=30_000.0,
    queued_bytes=768_000,
    queue_limit=64 << 20,
    lag_seconds=0.02,
    dropped=0,
)


def observed(*streams, closing=False, seconds=10.0, free=400_000_000_000):
    """How a made-up recording stands."""
    return StreamsObserved(
        path=runs.PATH, seconds=seconds, streams=streams, journal_bytes=230_000_000, disk_free=free, closing=closing
    )


def many(count):
    """A stream for each of many tetrodes."""
    return tuple(replace(PROBE, name=f"/acquisition/tetrode_{n:02d}") for n in range(count))


def messages(lines):
    """Give (event, data) of server-sent events, and ``("", comment)``."""
    event = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)
        elif line.startswith(":"):
            yield "", value
