"""A rig in a process of its own, to be killed: it records and reports what was acknowledged.

Runs as :mod:`writer` does: imports once, forks a process for each request. The samples of row i are a function of i,
so whoever reads a file knows what must be in it, however long it is.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from writer import say, serve

LAYOUTS = {
    "paired": {"probe": (6, True)},  # data and time stamps
    "rates": {"fast": (4, False), "slow": (1, False)},  # two series, twenty rows of one for a row of the other
    "both": {"probe": (6, True), "slow": (1, False)},
}
CHUNK_ROWS = 64


def samples(name: str, first: int, count: int, columns: int) -> Any:
    """Return rows of a series: int16, (`count`, `columns`)."""
    import numpy as np

    rows = np.arange(first, first + count)[:, None] * 7919 + np.arange(columns) * 104729 + len(name) * 31
    return (rows % 20011 - 10000).astype("i2")


def times(first: int, count: int) -> Any:
    """Return time stamps of rows."""
    import numpy as np

    return np.arange(first, first + count) / 997.0


def session(layout: str) -> Any:
    """Return an NWBFile to be recorded into."""
    from datetime import UTC, datetime

    from pynwb import NWBFile, TimeSeries

    import nwbflow

    nwbfile = NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    for name, (columns, stamped) in LAYOUTS[layout].items():
        clock = {"timestamps": nwbflow.live((None,), chunks=CHUNK_ROWS)} if stamped else {"rate": 1000.0}
        data = nwbflow.live((None, columns), "int16", chunks=(CHUNK_ROWS, 4 if columns > 4 else columns))
        nwbfile.add_acquisition(TimeSeries(name=name, data=data, unit="V", **clock))
    return nwbfile


def append(recorder: Any, layout: str, name: str, first: int, count: int) -> Any:
    """Append the next rows of a series."""
    columns, stamped = LAYOUTS[layout][name]
    clock = {"timestamps": times(first, count)} if stamped else {}
    return recorder[name].append(samples(name, first, count, columns), **clock)


def violations(seen: Any, layout: str, acknowledged: dict[str, int]) -> list[str]:
    """Say in what a file that stock PyNWB has read breaks the promise."""
    if seen.error:
        return [seen.error]
    wrong = []
    for name, (columns, stamped) in LAYOUTS[layout].items():
        if name not in seen.shapes:
            wrong.append(f"{name} is missing")
            continue
        rows = seen.shapes[name][0]
        if rows < acknowledged.get(name, 0):
            wrong.append(f"{name} has {rows} rows, {acknowledged[name]} were acknowledged")
        if seen.checksums[name] != zlib.crc32(samples(name, 0, rows, columns).tobytes()):
            wrong.append(f"{name}: {rows} rows are not those that were sent")
        if stamped and seen.times[name] != (rows, zlib.crc32(times(0, rows).tobytes())):
            wrong.append(f"{name}: {seen.times[name][0]} time stamps for {rows} rows, or wrong ones")
    return wrong


def record(request: dict[str, Any]) -> None:
    """Do what one request asks.

    Its keys: ``path``, ``how`` (the layout, or ``recover``), ``sync``, ``blocks`` (for each series), ``rows`` (of a
    block), ``ends`` (whether the recording is closed), ``acks`` (a file that gets a line for each acknowledgement),
    ``log`` (log changes below the path's folder there), ``segment`` (bytes), ``fail_sync``, ``fail_paths``,
    ``together`` (append from one thread per series, as fast as it goes), ``spill`` (a folder), ``hop`` (each
    segment goes into the other folder, as if each was full), ``journal`` (whether there is one: without, rows are
    waited for only as far as their chunk is full).
    """
    import nwbflow
    from nwbflow.record import journal

    path = Path(request["path"])
    journal.SEGMENT_BYTES = request.get("segment", 16384)
    if "log" in request:
        shim: Any = ctypes.CDLL(None)
        assert (
            shim.writelog_start(str(path.parent).encode(), request["log"].encode(), request.get("fail_at", 0), 5) == 0
        )
    say("started")
    if request["how"] == "recover":
        nwbflow.recover(path)
        say("finished")
        return
    if request.get("hop"):
        hop(journal.Journal)
    layout = request["how"]
    recorder = nwbflow.Recorder(
        session(layout),
        path,
        sync=request.get("sync", "process"),
        workers=2,
        overwrite=request.get("overwrite", False),
        spill=request.get("spill"),
        journal=request.get("journal", True),
    )
    if not request.get("journal", True):
        request["whole"] = CHUNK_ROWS
    say("recording")
    acks = os.open(request["acks"], os.O_WRONLY | os.O_CREAT | os.O_APPEND) if "acks" in request else None
    acknowledged: dict[str, int] = {}

    def note(name: str, rows: int) -> None:
        acknowledged[name] = rows
        if acks is not None:
            os.write(acks, f"{name} {rows}\n".encode())
        say("acknowledged", dict(acknowledged))

    def feed(name: str) -> None:
        done, tickets = 0, []
        for number in range(request["blocks"]):
            count = request.get("rows", 50) + 7 * (number % 3) if name != "slow" else 3
            tickets.append(append(recorder, layout, name, done, count))
            done += count
            wait_for(tickets, name, done)

    def wait_for(tickets: list[Any], name: str, done: int) -> None:
        end = done // request.get("whole", 1) * request.get("whole", 1)
        whole = [ticket for ticket in tickets if ticket.first + ticket.count <= end]
        if whole:
            whole[-1].wait()
            note(name, recorder.acknowledged(name) if "whole" in request else done)

    if request.get("together"):
        threads = [threading.Thread(target=feed, args=(name,)) for name in LAYOUTS[layout]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        take_turns(recorder, layout, request, wait_for)
    say("fed")
    if request.get("ends", True):
        recorder.close()
        say("finished")
    else:
        os._exit(9)


def hop(cls: Any) -> None:
    """Let the disk of a journal be full whenever a second segment in a row is wanted there."""
    make, last = cls._make, [None]

    def full_at_times(self: Any, size: int) -> Any:
        if self.folder == last[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        made = make(self, size)
        last[0] = self.folder
        return made

    cls._make = full_at_times


def take_turns(recorder: Any, layout: str, request: dict[str, Any], wait_for: Any) -> None:
    """Append blocks of all series, and wait for them only at every second one."""
    done = dict.fromkeys(LAYOUTS[layout], 0)
    tickets: dict[str, list[Any]] = {name: [] for name in done}
    for number in range(request["blocks"]):
        if number in (request.get("fail_sync"), request.get("fail_paths", (None,))[0]):
            shim: Any = ctypes.CDLL(None)
            shim.writelog_fail_sync(1 if number == request.get("fail_sync") else 0, 5)
            if "fail_paths" in request:
                shim.writelog_fail_paths(request["fail_paths"][1].encode(), 5)
        for name in done:
            count = request.get("rows", 50) + 7 * (number % 3) if name != "slow" else 3
            tickets[name].append(append(recorder, layout, name, done[name], count))
            done[name] += count
        if number % 2:
            for name in done:
                wait_for(tickets[name], name, done[name])


if __name__ == "__main__":
    serve(record)
