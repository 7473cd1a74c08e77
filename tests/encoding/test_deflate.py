"""The zlib streams: valid, as small as promised, the same every time."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwbflow.encoding.deflate import check_effort, deflate
from nwbflow.encoding.shuffle import shuffle
from nwbflow.errors import SettingsError
from nwbflow.testing.simulate import neuropixels

REALDATA = Path(os.environ.get("NWBFLOW_REALDATA", Path(__file__).parents[3] / "shared" / "realdata"))
RECORDINGS = sorted(REALDATA.glob("*.bin"))
EFFORTS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, "fast"]

real = pytest.mark.skipif(not RECORDINGS, reason="no real recordings; set NWBFLOW_REALDATA to their folder")


def recording(path):
    facts = json.loads(path.with_suffix(".json").read_text())
    return np.fromfile(path, facts["dtype"]).reshape(facts["shape"])


def shuffled(array):
    return bytes(shuffle(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, array.itemsize))


def characters(size):
    """Planes of every character the choice tells apart, by name."""
    rng = np.random.default_rng(size)
    noise = rng.integers(0, 256, size, dtype=np.uint8)
    return {
        "noise": noise,
        "narrow noise": rng.normal(128, 12, size).astype(np.uint8),
        "far repeats": np.resize(noise[:20_000], size),
        "near repeats": np.resize(noise[:300], size),
        "walk": np.cumsum(rng.integers(-1, 2, size)).astype(np.uint8),
        "steps": (np.cumsum(rng.random(size) < 0.001) % 2).astype(np.uint8),
        "zeros": np.zeros(size, np.uint8),
        "text": np.resize(np.frombuffer(b" ".join(b"%d" % (i * i % 997) for i in range(9000)), np.uint8), size),
    }


@settings(deadline=None)
@given(data=st.binary(max_size=3000), planes=st.integers(1, 9), effort=st.sampled_from(EFFORTS))
def test_small_data_come_back(data, planes, effort):
    assert zlib.decompress(deflate(data, planes=planes, effort=effort)) == data


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("extra", [0, 3])
def test_planes_of_every_character_come_back(effort, extra):
    planes = characters(60_000)
    data = b"".join(p.tobytes() for p in planes.values()) + b"abc"[:extra]
    assert zlib.decompress(deflate(data, planes=len(planes), effort=effort)) == data


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", characters(1))
def test_one_plane_of_each_character_comes_back(name, effort):
    data = characters(200_000)[name].tobytes()
    assert zlib.decompress(deflate(data, effort=effort)) == data


@pytest.mark.parametrize("level", [1, 4, 6])
@pytest.mark.parametrize("name", characters(1))
def test_no_character_grows_beyond_zlib(name, level):
    data = characters(400_000)[name].tobytes()
    # Samples see no block to its end, so drifting data are judged less well than recordings.
    assert len(deflate(data, effort=level)) <= 1.03 * len(zlib.compress(data, level)) + 64


@pytest.mark.parametrize("effort", [1, 4, 9, "fast"])
def test_noise_hardly_grows(effort):
    data = np.random.default_rng(3).bytes(1 << 20)
    assert len(deflate(data, planes=2, effort=effort)) <= 1.0005 * len(data)  # HDF5 itself allows 1.001


def test_many_tiny_planes_stay_one_stream():
    data = np.random.default_rng(4).integers(0, 4, 200_000, dtype=np.uint8).tobytes()
    one, many = deflate(data, planes=1), deflate(data, planes=199)
    assert zlib.decompress(many) == data
    assert one == many


@real
@pytest.mark.requirement("C1")
@pytest.mark.parametrize("level", range(1, 10))
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_recordings_are_as_small_as_with_zlib(path, level):
    array = recording(path)
    data = shuffled(array)
    encoded = deflate(data, planes=array.itemsize, effort=level)
    assert zlib.decompress(encoded) == data
    assert len(encoded) <= 1.01 * len(zlib.compress(data, level))


@real
@pytest.mark.requirement("C1")
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_fast_costs_seven_percent_at_most(path):
    array = recording(path)
    data = shuffled(array)
    encoded = deflate(data, planes=array.itemsize, effort="fast")
    assert zlib.decompress(encoded) == data
    assert len(encoded) <= 1.07 * len(zlib.compress(data, 4))


@real
@pytest.mark.requirement("C1")
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_recordings_without_shuffle(path):
    data = recording(path).tobytes()
    encoded = deflate(data)
    assert zlib.decompress(encoded) == data
    assert len(encoded) <= 1.01 * len(zlib.compress(data, 4))


@pytest.mark.requirement("C1")
@pytest.mark.parametrize(("effort", "bound"), [(4, 1.0), ("fast", 1.07)])
def test_simulated_probe(effort, bound):
    array = neuropixels(0.4, seed=1)
    data = shuffled(array)
    assert len(deflate(data, planes=2, effort=effort)) <= bound * len(zlib.compress(data, 4))


def test_equal_data_give_equal_bytes():
    array = neuropixels(0.1, channels=64)
    assert deflate(shuffled(array), planes=2) == deflate(bytearray(shuffled(array)), planes=2)


@pytest.mark.parametrize("effort", [-1, 10, True, 4.0, "best", ""])
def test_other_efforts_are_refused(effort):
    with pytest.raises(SettingsError, match=r"0 \(stored\) to 9"):
        check_effort(effort)
