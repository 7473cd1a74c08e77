"""Kills writers of HDF5 files to an S3 server at random requests, and goes on; run by test_s3_file_faults.py.

Usage: ``s3_file_killer.py KILLS SEED``. Every other write replaces an older file. Prints one JSON line a kill: what
stock PyNWB, in another process, finds at the address then (``absent``, ``whole``, ``old`` or what is wrong), what it
finds when the upload went on, how many parts the server had, and which of them were sent again.
"""

import json
import os
import random
import sys
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from s3_killer import Child, run, serve_writers
from s3_proxy import s3_proxy
from s3_server import options, s3_server

from nwbflow.nwb.sending import local_path

DATA = np.random.default_rng(5).integers(0, 2**12, (40000, 16), dtype="i2")
OLDER = DATA[::-2]
WHOLE = {"a": zlib.crc32(DATA.tobytes())}
OLD = {"a": zlib.crc32(OLDER.tobytes())}
URL = "s3://lab/{}.nwb"


def write(endpoint, url, which):
    import pynwb

    import nwbflow
    from nwbflow.sinks import file_upload

    file_upload.PART_BYTES = 64 * 1024
    staging = Path(os.environ["STAGING"])
    given = {"storage_options": options(endpoint), "progress": False, "overwrite": which == "replacing"}
    if local_path(staging, url).exists():  # an earlier call was killed while it sent it
        nwbflow.upload(local_path(staging, url), url, **given)
        return
    start = datetime(2026, 1, 1, tzinfo=UTC)
    nwbfile = pynwb.NWBFile(session_description="s", identifier="i", session_start_time=start)
    data = OLDER if which == "old" else DATA
    nwbfile.add_acquisition(pynwb.TimeSeries(name="a", data=data, unit="V", rate=1.0))
    nwbflow.write(nwbfile, url, staging=staging, **given)


def look(reader, url):
    found = json.loads(reader.ask(url))
    if found in (WHOLE, OLD):
        return "whole" if found == WHOLE else "old"
    return "absent" if "FileNotFoundError" in str(found) else str(found)


def parts_there(proxy, url):
    """Return the parts of an upload under way, by number, each with its tag."""
    from nwbflow.sinks.manifest import Manifest
    from nwbflow.sinks.s3_file import S3File

    place = S3File(url, options(proxy.endpoint))
    noted = Manifest.parse(place.note(), url)
    return {} if noted is None or not noted.upload else place.parts(noted.upload) or {}


def sent_parts(proxy):
    queries = [path.partition("?")[2] for method, path in proxy.requests if method == "PUT" and "partNumber=" in path]
    return [int(query.partition("partNumber=")[2].partition("&")[0]) for query in queries]


def main(kills, seed):
    random.seed(seed)
    with s3_server() as endpoint, s3_proxy(endpoint) as proxy, tempfile.TemporaryDirectory() as staging:
        os.environ["STAGING"] = staging
        writers = Child(__file__, "writers")
        reader = Child(str(Path(__file__).parents[1] / "s3_reader.py"), endpoint)
        if run(proxy, writers, URL.format("count"), "new", 0) != 0:
            raise SystemExit("the write without a kill failed")
        total = len(proxy.requests)
        for number in range(kills):
            which, url = "replacing" if number % 2 else "new", URL.format(number)
            if which == "replacing" and run(proxy, writers, url, "old", 0) != 0:
                raise SystemExit("the older file could not be written")
            # every third at the end, where it becomes an object
            point = total - random.randrange(5) if number % 3 == 2 else random.randrange(2, total)
            status = run(proxy, writers, url, which, point * random.choice((1, -1)))
            read, there = look(reader, url), parts_there(proxy, url)
            made = local_path(Path(staging), url)
            finished = read == "whole" and not made.exists()
            after = 0 if finished else run(proxy, writers, url, which, 0)
            line = {
                "point": point,
                "of": total,
                "which": which,
                "killed": os.WIFSIGNALED(status),
                "read": read,
                "after": look(reader, url) if after == 0 else f"ended with {after}",
                "there": len(there),
                "sent_again": [] if finished else sorted(set(sent_parts(proxy)) & there.keys()),
                "left": made.exists(),
            }
            print(json.dumps(line), flush=True)
        writers.end()
        reader.end()


if __name__ == "__main__":
    if sys.argv[1] == "writers":
        serve_writers(write)
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
