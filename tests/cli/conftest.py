"""Commands run as a shell would run them, and stock readers in another process."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(scope="session")
def nwbflow(tmp_path_factory):
    """Run ``nwbflow`` with arguments; returns how it ended."""
    box = tmp_path_factory.mktemp("output")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(HERE / "serve.py")], **pipes) as server:

        def run(*args, folder=box, columns=80):
            request = {
                "args": [str(a) for a in args],
                "folder": str(folder),
                "out": str(box / "out"),
                "err": str(box / "err"),
                "columns": columns,
            }
            for name in ("out", "err"):
                (box / name).write_text("")
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            code = json.loads(server.stdout.readline())["code"]
            return Done(code, (box / "out").read_text(), (box / "err").read_text())

        yield run
        server.stdin.close()


@pytest.fixture(scope="session")
def stock():
    """Look at files with stock tools in another process; returns what was found, by path."""

    def look(*paths):
        command = [sys.executable, str(HERE / "stock.py"), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return [found[str(path)] for path in paths]

    return look


@pytest.fixture(scope="session")
def realdata():
    """The folder of real recordings."""
    given = os.environ.get("NWBFLOW_REALDATA")
    folder = Path(given) if given else HERE.parents[1].parent / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip("no real recordings: set NWBFLOW_REALDATA to a folder with *.bin and *.json")
    return folder


@pytest.fixture
def recording(tmp_path):
    """A raw recording of 6000 samples of 8 channels of int16, in a file."""
    path = tmp_path / "recording.bin"
    np.random.default_rng(5).integers(-200, 200, (6000, 8)).astype("<i2").tofile(path)
    return path


BASIC = ("--dtype", "int16", "--channels", "8", "--rate", "1000")


@pytest.fixture
def basic():
    """The options :func:`recording` needs."""
    return BASIC
