"""Recordings that are fed, and stock readers in another process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nwbflow
from nwbflow.tools.feeds import FeedServer, listen

sys.path.insert(0, str(Path(__file__).parent))

from feeders import QUICK, Raw, session

READER = """
import hashlib, json, sys
import h5py
found = {}
with h5py.File(sys.argv[1], "r") as file:
    for name in sys.argv[2:]:
        rows = file[name][...]
        found[name] = [hashlib.sha256(rows.tobytes()).hexdigest(), list(rows.shape), rows.dtype.str]
assert "nwbflow" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def stored():
    """Read datasets by stock h5py in another process: SHA-256, shape and type of each."""

    def read(path, *names):
        done = subprocess.run(
            [sys.executable, "-c", READER, str(path), *names], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    return read


@pytest.fixture
def recorder(tmp_path):
    with nwbflow.Recorder(session(), tmp_path / "fed.nwb", queue="1 MiB") as recorder:
        yield recorder


@pytest.fixture
def server(recorder):
    with FeedServer(recorder, ["probe", "licks"], listen(tcp=("127.0.0.1", 0)), limits=QUICK) as server:
        yield server


@pytest.fixture
def probe_rows():
    return np.random.default_rng(4).integers(-500, 500, (60_000, 8)).astype("i2")


@pytest.fixture
def raw(server):
    made = []

    def connect():
        made.append(Raw(server.addresses[0]))
        return made[-1]

    yield connect
    for client in made:
        client.close()
