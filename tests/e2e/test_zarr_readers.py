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
NAMES = ("i2", "f4")
ARRAYS = [f"acquisition/{name}/data" for name in NAMES]
SETTINGS = {
    **dict.fromkeys(["default", "fast", "archive"]),
    "gzip": "gzip",
    "gzip without shuffle": {"name": "gzip", "level": 4, "shuffle": False},
    "zstd": "zstd",
    "lz4": "lz4",
    "none": "none",
}

READ = """
import sys, json, hashlib, numpy
kind, arrays, *paths = sys.argv[1:]
assert not any(name.startswith("nwbflow") for name in sys.modules)

def read(path, array):
    if kind == "zarr-python":
        import zarr
        return zarr.open_group(path, mode="r")[array][...]
    import tensorstore
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path + "/" + array}}
    return tensorstore.open(spec, open=True, read=True).result().read().result()

for path in paths:
    if kind == "hdmf-zarr":
        import hdmf_zarr
        with hdmf_zarr.NWBZarrIO(path, "r") as io:
            acquisition = io.read().acquisition
            found = [acquisition[array.split("/")[1]].data[:] for array in arrays.split(",")]
    else:
        found = [read(path, array) for array in arrays.split(",")]
    sums = [hashlib.sha256(numpy.ascontiguousarray(a).tobytes()).hexdigest() for a in found]
    print(json.dumps([[list(a.shape), s] for a, s in zip(found, sums)]))
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One store for each setting, and what is in each of them."""
    folder = tmp_path_factory.mktemp("stores")
    walk = np.cumsum(np.random.default_rng(1).normal(0, 3, (30001, 20)), axis=0)
    arrays = {name: walk.astype(f"<{name}") for name in NAMES}
    paths = {}
    for name, codec in SETTINGS.items():
        paths[name] = folder / f"{name}.nwb.zarr"
        given = {key: nwbflow.DataIO(data, chunks=(9000, 15), codec=codec) for key, data in arrays.items()}
        profile = name if codec is None else "default"
        receipt = nwbflow.write(session(**given), paths[name], profile=profile, progress=False)
        assert [d.layout.shards for d in receipt.datasets] == [(36000, 30)] * 2
    return paths, [[list(data.shape), hashlib.sha256(data.tobytes()).hexdigest()] for data in arrays.values()]


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
    command = [sys.executable, "-c", READ, reader, ",".join(ARRAYS), *map(str, paths.values())]
    assert _found(command, paths) == dict.fromkeys(paths, expected)


@pytest.mark.requirement("P4", "C3", "Q3")
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.skipif(
    not ZARRITA.is_file(), reason="zarrita is not there: npm install --no-save --prefix .cache/node zarrita"
)
def test_zarrita_reads_the_values_in_node(stores):
    paths, expected = stores
    command = ["node", str(Path(__file__).with_name("zarr_reader.mjs")), str(ZARRITA), str(FILES), ",".join(ARRAYS)]
    assert _found([*command, *map(str, paths.values())], paths) == dict.fromkeys(paths, expected)


@pytest.mark.requirement("P4", "Q3")
def test_validation_finds_nothing(tmp_path):
    import hdmf_zarr

    path = tmp_path / "v.nwb.zarr"
    nwbflow.write(session(a=np.zeros((50000, 4), "i2")), path, progress=False)
    with hdmf_zarr.NWBZarrIO(str(path), "r") as io:
        assert pynwb.validate(io=io) == []
