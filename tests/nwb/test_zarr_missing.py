"""Without hdmf-zarr, or with an old one, all else works and what needs it says how to get it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import importlib.metadata, sys
found = importlib.metadata.version
def version(name):
    if name == "hdmf-zarr":
        version = {version!r}
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version
    return found(name)
importlib.metadata.version = version

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hdmf_zarr", "zarr", "numcodecs", "google_crc32c"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())

import numpy, nwbflow
from nwbflow import *
sys.path.insert(0, sys.argv[1])
from support import session
nwbflow.write(session(a=numpy.arange(50000.0)), sys.argv[2] + "/x.nwb", progress=False)
uses = [lambda: nwbflow.NWBZarrIO(sys.argv[2] + "/x.zarr", "w"), lambda: nwbflow.NWBZarrIO.read_nwb("x"),
        lambda: nwbflow.write(session(a=[1.0]), sys.argv[2] + "/x.nwb.zarr", progress=False)]
for use in uses:
    try:
        use()
    except nwbflow.UnsupportedError as error:
        print(error.kind, error)
"""


@pytest.mark.requirement("P4")
@pytest.mark.parametrize(("version", "words"), [(None, "not installed"), ("0.11.3", "here is 0.11.3")])
def test_the_way_out_is_named(tmp_path, version, words):
    script = SCRIPT.replace("{version!r}", repr(version))
    command = [sys.executable, "-W", "error", "-c", script, str(Path(__file__).parents[1]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("plugin ") and words in line and "nwbflow[zarr]" in line for line in lines)
    assert [p.name for p in tmp_path.iterdir()] == ["x.nwb"]


@pytest.mark.requirement("P4")
def test_nothing_of_ours_imports_zarr_before_it_is_asked_for():
    script = "import sys, nwbflow, nwbflow.cli; assert not {'hdmf_zarr', 'nwbflow.sinks.zarr'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)
