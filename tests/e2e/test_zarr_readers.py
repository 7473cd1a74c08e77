"""Zarr stores are read back by tools that know nothing of nwbflow: hdmf-zarr, zarr-python, tensorstore, zarrita."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pynwb
import pytest
from support import session

import nwbflow

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / ".cache" / "node" / "node_modules"
ZARRITA = NODE / "zarrita" / "dist" / "src" / "index.js"
FILES = NODE / "@zarrita" / "storage" / "dist" / "src" / "fs.js"
ARRAY = "acquisition/a/data"
SETTINGS = {
    **dict.fromkeys(["default", "fast", "archive", "cloud"]),
    "gzip": "gzip",
    "gzip without shuffle": {"name": "gzip", "level": 4, "shuffle": False},
    "zstd": "zstd",
    "lz4": "lz4",
    "none": "none",
}

READ = """
import sys, json, hashlib, numpy
kind, array, *paths = sys.argv[1:]
assert not any(name.startswith("nwbflow") for name in sys.modules)
for path in paths:
    if kind == "hdmf-zarr":
        import hdmf_zarr
        with hdmf_zarr.NWBZarrIO(path, "r") as io:
            data = io.read().acquisition["a"].data[:]
    elif kind == "zarr-python":
        import zarr
        data = zarr.open_group(path, mode="r")[array][...]
    else:
        import tensorstore
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path + "/" + array}}
        data = tensorstore.open(spec, open=True, read=True).result().read().result()
    data = numpy.ascontiguousarray(data)
    print(json.dumps({"shape": list(data.shape), "sha256": hashlib.sha256(data.tobytes()).hexdigest()}))
"""


@pytest.fixture(scope="module", params=["<i2", "<f4"])
def stores(request, tmp_path_factory):
    """One store for each setting, and what is in them."""
    folder = tmp_path_factory.mktemp("stores")
    data = np.cumsum(np.random.default_rng(1).normal(0, 3, (170001, 40)), axis=0).astype(request.param)
    paths = {}
    for name, codec in SETTINGS.items():
        paths[name] = folder / f"{name}.nwb.zarr"
        given = data if codec is None else nwbflow.DataIO(data, codec=codec)
        profile = name if codec is None else "default"
        receipt = nwbflow.write(session(a=given), paths[name], profile=profile, progress=False)
        assert receipt.datasets[0].layout.shards is not None
    return paths, {"shape": list(data.shape), "sha256": hashlib.sha256(data.tobytes()).hexdigest()}


def _found(command, paths):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(paths, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.requirement("P4", "C3", "Q3")
@pytest.mark.parametrize("reader", ["hdmf-zarr", "zarr-python", "tensorstore"])
def test_python_readers(stores, reader):
    if importlib.util.find_spec(reader.replace("-", "_").replace("zarr_python", "zarr")) is None:
        pytest.skip(f"{reader} is not installed")
    paths, expected = stores
    command = [sys.executable, "-c", READ, reader, ARRAY, *map(str, paths.values())]
    assert _found(command, paths) == dict.fromkeys(paths, expected)


@pytest.mark.requirement("P4", "C3", "Q3")
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.skipif(
    not ZARRITA.is_file(), reason="zarrita is not there: npm install --no-save --prefix .cache/node zarrita"
)
def test_zarrita_reads_the_values_in_node(stores):
    paths, expected = stores
    command = ["node", str(Path(__file__).with_name("zarr_reader.mjs")), str(ZARRITA), str(FILES), ARRAY]
    assert _found([*command, *map(str, paths.values())], paths) == dict.fromkeys(paths, expected)


@pytest.mark.requirement("P4", "Q3")
def test_validation_finds_nothing(tmp_path):
    import hdmf_zarr

    path = tmp_path / "v.nwb.zarr"
    nwbflow.write(session(a=np.zeros((50000, 4), "i2")), path, progress=False)
    with hdmf_zarr.NWBZarrIO(str(path), "r") as io:
        assert pynwb.validate(io=io) == []
