"""Recordings of every kind of number, rank, chunk shape and codec, beside data that are there already."""

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO, TimeSeries
from support import session

import nwbflow


def in_blocks(recorder, name, data):
    """Append data in blocks of many sizes."""
    chance, at = np.random.default_rng(2), 0
    while at < len(data):
        rows = int(chance.integers(1, 40))
        recorder[name].append(data[at : at + rows])
        at += rows


@pytest.mark.requirement("S1")
@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "i2", ">i2", "u4", "i8", "f4", ">f4", "f8"])
def test_every_kind_of_number(dtype, path):
    data = (np.random.default_rng(1).integers(0, 100, (333, 5)) % (2 if dtype == "bool" else 100)).astype(dtype)
    with nwbflow.Recorder(session(x=nwbflow.live((None, 5), dtype, chunks=(50, 3))), path) as recorder:
        in_blocks(recorder, "x", data)
    with NWBHDF5IO(str(path), "r") as io:
        stored = io.read().acquisition["x"].data
        assert stored.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
        assert (stored[:] == data).all()


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((), None),
        ((), 7),
        ((3,), (10, 3)),
        ((3,), (10, 2)),
        ((6, 5), (4, 4, 3)),
        ((6, 5), (1, 6, 5)),
        ((2, 3, 4), (9, 2, 1, 4)),
    ],
)
def test_every_rank_and_chunk_shape(shape, chunks, path):
    data = np.random.default_rng(1).normal(size=(95, *shape))
    with nwbflow.Recorder(session(x=nwbflow.live((None, *shape), chunks=chunks)), path) as recorder:
        in_blocks(recorder, "x", data)
    with NWBHDF5IO(str(path), "r") as io:
        stored = io.read().acquisition["x"].data
        assert (stored[:] == data).all()
        assert stored.maxshape == (None, *shape)
        assert chunks is None or stored.chunks == (chunks if isinstance(chunks, tuple) else (chunks,))


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    ("profile", "codec", "filters"),
    [
        ("default", None, [2, 1]),
        ("fast", None, [2, 1]),
        ("archive", None, [2, 1, 3]),
        ("cloud", None, [2, 1]),
        ("default", "none", []),
        ("default", ("gzip", 9), [2, 1]),
        ("default", "zstd", [32015]),
    ],
)
def test_profiles_and_codecs(profile, codec, filters, path):
    data = np.random.default_rng(1).integers(-50, 50, (2000, 4)).astype("i2")
    nwbfile = session(x=nwbflow.live((None, 4), "int16", chunks=(300, 4), codec=codec))
    with nwbflow.Recorder(nwbfile, path, profile=profile) as recorder:
        in_blocks(recorder, "x", data)
    with h5py.File(path) as file:
        stored = file["acquisition/x/data"]
        plist = stored.id.get_create_plist()
        assert [plist.get_filter(index)[0] for index in range(plist.get_nfilters())] == filters
        if codec != "zstd":  # which plain HDF5 does not have
            assert (stored[:] == data).all()


@pytest.mark.requirement("S1")
def test_beside_data_that_are_there_already(path):
    given = np.random.default_rng(1).integers(-50, 50, (100_000, 4)).astype("i2")
    nwbfile = session(given=given)
    first = TimeSeries(name="x", data=nwbflow.live((None, 4), "int16"), timestamps=nwbflow.live(), unit="V")
    nwbfile.add_acquisition(first)
    with nwbflow.Recorder(nwbfile, path) as recorder:
        assert {name: recorder[name].fields for name in recorder} == {
            "/acquisition/x": ("data", "timestamps"),
        }
        recorder["x"].append(given[:10], timestamps=range(10))
    with NWBHDF5IO(str(path), "r") as io:
        acquisition = io.read().acquisition
        assert (acquisition["given"].data[:] == given).all()
        assert (acquisition["x"].data[:] == given[:10]).all()


@pytest.mark.requirement("S1", "W12")
def test_data_time_stamps_and_control_of_one_series(path):
    nwbfile = session()
    nwbfile.add_acquisition(
        TimeSeries(
            name="x",
            data=nwbflow.live((None, 2), "f4"),
            timestamps=nwbflow.live(),
            control=nwbflow.live((None,), "u1"),
            control_description=["off", "on"],
            unit="V",
        )
    )
    with nwbflow.Recorder(nwbfile, path) as recorder:
        assert recorder["x"].fields == ("data", "timestamps", "control")
        for number in range(10):
            recorder["x"].append(np.full((3, 2), number), timestamps=[number] * 3, control=[number % 2] * 3)
    with NWBHDF5IO(str(path), "r") as io:
        series = io.read().acquisition["x"]
        assert (series.data[:, 1] == np.repeat(np.arange(10), 3)).all()
        assert (series.timestamps[:] == np.repeat(np.arange(10), 3)).all()
        assert (series.control[:] == np.repeat(np.arange(10) % 2, 3)).all()
