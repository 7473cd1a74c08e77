"""Files are read back by tools that know nothing of nwbflow: h5py, PyNWB, h5dump, h5wasm, the validators."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pynwb
import pytest

import nwbflow

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("NWBFLOW_REALDATA", ROOT.parent / "shared" / "realdata"))
H5WASM = ROOT / ".cache" / "node" / "node_modules" / "h5wasm" / "dist" / "node" / "hdf5_hl.js"
DATASET = "/acquisition/recording/data"

READ_BACK = """
import sys, json, hashlib, h5py, numpy, pynwb
assert not any(name.startswith("nwbflow") for name in sys.modules)
with h5py.File(sys.argv[1]) as file:
    direct = file["/acquisition/recording/data"][()]
with pynwb.NWBHDF5IO(sys.argv[1], "r") as io:
    through = numpy.ascontiguousarray(io.read().acquisition["recording"].data[:])
print(json.dumps([[list(a.shape), a.dtype.str, hashlib.sha256(a.tobytes()).hexdigest()] for a in (direct, through)]))
"""


def _recordings() -> list[tuple[str, np.ndarray, dict]]:
    found = []
    for about_path in sorted(REAL.glob("*.json")):
        about = json.loads(about_path.read_text())
        data = np.fromfile(about_path.with_suffix(".bin"), dtype=about["dtype"]).reshape(about["shape"])
        found.append((about_path.stem, data, about))
    return found


needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real recordings are not in {REAL}")
RECORDINGS = _recordings()


def _nwbfile(data: object, about: dict) -> pynwb.NWBFile:
    nwbfile = pynwb.NWBFile(
        session_description="a real recording, stored again",
        identifier="e2e",
        session_start_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    nwbfile.add_acquisition(
        pynwb.TimeSeries(
            name="recording",
            description=about.get("description", "no description"),
            data=data,
            unit=about.get("unit", "V"),
            conversion=about.get("conversion", 1.0),
            rate=about.get("rate", 1000.0),
        )
    )
    return nwbfile


def _digest(data: np.ndarray) -> list:
    return [list(data.shape), data.dtype.str, hashlib.sha256(data.tobytes()).hexdigest()]


@needs_real
@pytest.mark.requirement("W2", "C1", "Q3")
@pytest.mark.parametrize("profile", ["default", "fast", "archive", "cloud"])
@pytest.mark.parametrize(("name", "data", "about"), RECORDINGS, ids=[r[0] for r in RECORDINGS])
def test_real_recordings_are_read_back_bit_equal_by_stock_tools(tmp_path, name, data, about, profile):
    path = tmp_path / "real.nwb"
    raw = nwbflow.raw(REAL / f"{name}.bin", dtype=about["dtype"], shape=(None, *data.shape[1:]))
    receipt = nwbflow.write(_nwbfile(raw, about), path, profile=profile, verify="full", progress=False)
    assert receipt.verified == "full"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ_BACK, str(path)], capture_output=True, text=True, check=True
    )
    direct, through = json.loads(result.stdout)
    assert direct == through == _digest(data)


@needs_real
@pytest.mark.requirement("Q3")
@pytest.mark.parametrize(("name", "data", "about"), RECORDINGS, ids=[r[0] for r in RECORDINGS])
def test_validators_find_nothing_that_plain_pynwb_would_not_have(tmp_path, name, data, about):
    from nwbinspector import inspect_nwbfile

    ours, theirs = tmp_path / "ours.nwb", tmp_path / "theirs.nwb"
    nwbflow.write(_nwbfile(data, about), ours, progress=False)
    with pynwb.NWBHDF5IO(theirs, "w") as io:
        io.write(_nwbfile(pynwb.H5DataIO(data, compression="gzip"), about))
    assert pynwb.validate(path=str(ours)) == []
    complaints = [
        {(m.check_function_name, m.location, m.message) for m in inspect_nwbfile(nwbfile_path=str(path))}
        for path in (ours, theirs)
    ]
    assert complaints[0] <= complaints[1]


@pytest.mark.requirement("C1", "Q3")
@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (hdf5-tools) is not installed")
def test_h5dump_shows_plain_filters_and_reads_the_values(tmp_path):
    data = (np.random.default_rng(0).normal(0, 20, (60000, 8))).astype("<i2")
    path = tmp_path / "dump.nwb"
    nwbflow.write(_nwbfile(data, {}), path, profile="archive", progress=False)
    head = subprocess.run(
        ["h5dump", "-p", "-H", "-d", DATASET, str(path)], capture_output=True, text=True, check=True
    ).stdout
    order = [head.index(word) for word in ("CHUNKED", "PREPROCESSING SHUFFLE", "COMPRESSION DEFLATE", "FLETCHER32")]
    assert order == sorted(order)
    assert "LEVEL 6" in head
    out = tmp_path / "values.bin"
    subprocess.run(["h5dump", "-d", DATASET, "-b", "LE", "-o", str(out), str(path)], capture_output=True, check=True)
    assert out.read_bytes() == data.tobytes()


@pytest.mark.requirement("C1", "Q3")
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.skipif(
    not H5WASM.is_file(), reason="h5wasm is not there: npm install --no-save --prefix .cache/node h5wasm"
)
@pytest.mark.parametrize("profile", ["default", "fast", "archive", "cloud"])
@pytest.mark.parametrize("dtype", ["<i2", "<f4", "<f8", "u1"])
def test_h5wasm_reads_the_values_in_node(tmp_path, profile, dtype):
    data = np.cumsum(np.random.default_rng(1).normal(0, 3, (70000, 5)), axis=0).astype(dtype)
    path = tmp_path / "wasm.nwb"
    nwbflow.write(_nwbfile(data, {}), path, profile=profile, progress=False)
    command = ["node", str(Path(__file__).with_name("reader.mjs")), str(H5WASM), str(path), DATASET]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found == {"shape": [70000, 5], "sha256": hashlib.sha256(data.tobytes()).hexdigest()}


@needs_real
@pytest.mark.requirement("C1", "Q3")
@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (hdf5-tools) is not installed")
@pytest.mark.parametrize(("name", "data", "about"), RECORDINGS, ids=[r[0] for r in RECORDINGS])
def test_h5dump_shows_plain_filters_for_real_recordings(tmp_path, name, data, about):
    path = tmp_path / "dump.nwb"
    nwbflow.write(_nwbfile(data, about), path, progress=False)
    command = ["h5dump", "-p", "-H", "-d", DATASET, str(path)]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert head.index("PREPROCESSING SHUFFLE") < head.index("COMPRESSION DEFLATE { LEVEL 4 }")
    assert "USER_DEFINED_FILTER" not in head


@needs_real
@pytest.mark.requirement("C1", "Q3")
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.skipif(
    not H5WASM.is_file(), reason="h5wasm is not there: npm install --no-save --prefix .cache/node h5wasm"
)
@pytest.mark.parametrize(("name", "data", "about"), RECORDINGS, ids=[r[0] for r in RECORDINGS])
def test_h5wasm_reads_real_recordings_in_node(tmp_path, name, data, about):
    path = tmp_path / "wasm.nwb"
    nwbflow.write(_nwbfile(data, about), path, progress=False)
    command = ["node", str(Path(__file__).with_name("reader.mjs")), str(H5WASM), str(path), DATASET]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found == {"shape": list(data.shape), "sha256": hashlib.sha256(data.tobytes()).hexdigest()}
