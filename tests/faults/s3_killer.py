"""Kills writers to an S3 server at random requests, and looks at what is left; run by test_s3_faults.py.

Usage: ``s3_killer.py KILLS SEED``. Every other write replaces an older store. Prints one JSON line a kill: what stock
hdmf-zarr, in another process, finds then (``absent``, ``whole``, ``old`` or what is wrong), what it finds when the same
call was made again, and the data objects that were there and sent again.
"""

import json
import os
import random
import signal
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from s3_proxy import s3_proxy
from s3_server import options, s3_server

DATA = np.random.default_rng(5).integers(0, 2**12, (40000, 16), dtype="i2")
OLDER = DATA[::-2]
WHOLE = {"a": zlib.crc32(DATA.tobytes())}
OLD = {"a": zlib.crc32(OLDER.tobytes())}
CLEAR = "s3://lab/{}.nwb.zarr"


def write(endpoint, url, which):
    import pynwb

    import nwbflow

    nwbfile = pynwb.NWBFile(
        session_description="s", identifier="i", session_start_time=datetime(2026, 1, 1, tzinfo=UTC)
    )
    data = OLDER if which == "old" else DATA
    nwbfile.add_acquisition(pynwb.TimeSeries(name="a", data=data, unit="V", rate=1.0))
    profile = nwbflow.Profile(name="p", codec=("gzip", 1), chunk_bytes=8192, min_bytes=0)
    nwbflow.write(
        nwbfile,
        url,
        profile=profile,
        memory=200_000,
        progress=False,
        storage_options=options(endpoint),
        overwrite=which == "replacing",
    )


def serve_writers(write=write):
    """Fork a writer for each line ``ENDPOINT URL WHICH`` on standard input; print its process id, then how it ended."""
    import obstore.store  # noqa: F401 - so that no child has to import it

    import nwbflow.nwb.zarr_io
    import nwbflow.sinks.remote
    import nwbflow.sinks.s3_options  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                write(*line.split())
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(code)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


class Child:
    """A process that answers lines with lines."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self):
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def run(proxy, writers, url, which, kill_at):
    """Write; kill the writer when a request of that number comes (it is not done) or was done (negative)."""
    proxy.requests.clear()
    ready = []

    def decide(method, path):
        if len(proxy.requests) == abs(kill_at):
            os.kill(ready[0], signal.SIGKILL)
            return ("reset",) if kill_at > 0 else ("lost",)
        return None

    proxy.decide = (lambda method, path: None) if kill_at == 0 else decide
    with proxy.lock:  # no request is looked at before it is known whose it is
        ready.append(int(writers.ask(f"{proxy.endpoint} {url} {which}")))
    status = int(writers.answer())
    proxy.decide = lambda method, path: None
    return status


def look(reader, url):
    found = json.loads(reader.ask(url))
    if found == WHOLE:
        return "whole"
    if found == OLD:
        return "old"
    return "absent" if "GroupNotFoundError" in str(found) else str(found)


def main(kills, seed):
    random.seed(seed)
    with s3_server() as endpoint, s3_proxy(endpoint) as proxy:
        writers = Child(__file__, "writers")
        reader = Child(str(Path(__file__).parents[1] / "s3_reader.py"), endpoint)
        if run(proxy, writers, CLEAR.format("count"), "new", 0) != 0:
            raise SystemExit("the write without a kill failed")
        total = len(proxy.requests)
        for number in range(kills):
            which = "replacing" if number % 2 else "new"
            url = CLEAR.format(number)
            if which == "replacing" and run(proxy, writers, url, "old", 0) != 0:
                raise SystemExit("the older store could not be written")
            # some at the beginning, where the older store goes, some at the end, where the new one becomes one
            point = [random.randrange(2, total), random.randrange(2, 7), total - random.randrange(4)][number % 3]
            status = run(proxy, writers, url, which, point * random.choice((1, -1)))
            there = names(proxy, url)
            read = look(reader, url)
            rooted = "zarr.json" in there
            whole = rooted and read == "whole"
            after = 0 if whole else run(proxy, writers, url, which, 0)
            sent = set() if whole else {p.partition(".nwb.zarr/")[2] for m, p in proxy.requests if m == "PUT"}
            line = {
                "point": point,
                "of": total,
                "killed": os.WIFSIGNALED(status),
                "rooted": rooted,
                "read": read,
                "after": look(reader, url) if after == 0 else f"ended with {after}",
                "there": len(there),
                "which": which,
                "sent_again": sorted(n for n in there if "/data/c/" in n and n in sent) if which == "new" else [],
            }
            print(json.dumps(line), flush=True)
        writers.end()
        reader.end()


def names(proxy, url):
    from nwbflow.sinks.remote import Place

    return set(Place(url, options(proxy.endpoint)).objects())


if __name__ == "__main__":
    if sys.argv[1] == "writers":
        serve_writers()
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
