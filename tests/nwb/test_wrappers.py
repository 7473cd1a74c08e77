"""Wrappers that keep their settings (C7)."""

import copy
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import support
from hdmf.backends.hdf5 import H5DataIO

import nwbflow

sys.path.insert(0, str(Path(__file__).parent))

from sessions import NOISE, comparable, electrodes, series

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*compression may not be available.*"),
    pytest.mark.filterwarnings("ignore:.*is being converted to data type.*"),
]


# --- wrappers ---------------------------------------------------------------------------

WRAPPERS = {
    "H5DataIO": lambda: H5DataIO(NOISE, chunks=(100, 10), compression="gzip", maxshape=(None, 10)),
    "H5DataIO, automatic": lambda: H5DataIO(NOISE, compression="gzip", shuffle=True),
    "DataIO": lambda: nwbflow.DataIO(
        NOISE, chunks=(None, 5), codec=("zstd", 3), maxshape=(None, 10), checksum=True, fillvalue=-2
    ),
    "DataIO, codec alone": lambda: nwbflow.DataIO(NOISE, codec="gzip"),
    "DataIO of a list": lambda: nwbflow.DataIO(NOISE.tolist(), codec="gzip", chunks=(500, 10)),
    "DataIO of an own array": lambda: nwbflow.DataIO(support.Sliceable(NOISE), codec="gzip"),
    "DataIO of blocks in a list": lambda: nwbflow.DataIO(
        nwbflow.blocks([NOISE[:4000], NOISE[4000:]], shape=(None, 10), dtype="i2"), codec="gzip", chunks=(512, 10)
    ),
    "DataIO of raw": lambda: nwbflow.DataIO(nwbflow.raw("noise.bin", dtype="i2", shape=(None, 10)), codec=("gzip", 1)),
    "raw": lambda: nwbflow.raw("noise.bin", dtype="i2", shape=(None, 10)),
}
OURS, THEIRS = nwbflow.NWBHDF5IO, support.StockNWBHDF5IO


@pytest.mark.requirement("C7")
@pytest.mark.parametrize("orders", [(OURS, OURS, OURS), (OURS, THEIRS, OURS), (THEIRS, OURS, THEIRS)])
@pytest.mark.parametrize("name", WRAPPERS)
def test_one_wrapper_writes_three_equal_files(name, orders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NOISE.tofile("noise.bin")
    wrapper = WRAPPERS[name]()
    settings = dict(getattr(wrapper, "io_settings", {}))
    described = []
    for number, cls in enumerate(orders):
        path = tmp_path / f"{number}.nwb"
        support.write_nwb(series(wrapper), path, cls)
        np.testing.assert_array_equal(support.read_array(path, "acquisition/x/data"), NOISE)
        described.append(comparable(support.describe(path)))
        now = dict(getattr(wrapper, "io_settings", {}))
        assert {**now, "dcpl": None} == {**settings, "dcpl": None}
    if name == "raw" and THEIRS in orders:  # nothing was asked for: each lays it out its own way
        for description in described:
            for fact in ("chunks", "layout", "maxshape"):
                description["/acquisition/x/data"].pop(fact)
            description["/acquisition/x/data"]["times"] = None
    assert not support.differences(described[0], described[1])
    assert not support.differences(described[0], described[2])


@pytest.mark.requirement("C7")
def test_one_session_is_written_three_times(tmp_path):
    nwbfile = electrodes()
    wrapper = nwbfile.acquisition["raw"].data
    settings = dict(wrapper.io_settings)
    described = []
    support.write_nwb(nwbfile, tmp_path / "0.nwb", THEIRS if settings else OURS)
    described.append(support.describe(tmp_path / "0.nwb"))
    # PyNWB itself has changed the wrapper's settings by now; nwbflow must not
    settings = dict(wrapper.io_settings)
    for number in (1, 2, 3):
        support.write_nwb(nwbfile, tmp_path / f"{number}.nwb")
        described.append(support.describe(tmp_path / f"{number}.nwb"))
        assert wrapper.io_settings == settings
    for other in described[1:]:
        assert not support.differences(described[0], other)


def test_copies_of_a_wrapper_keep_every_setting():
    given = {"chunks": (None, 5), "codec": ("gzip", 3), "maxshape": (None, 10), "checksum": True, "fillvalue": -2}
    wrapper = nwbflow.DataIO(NOISE, **given)
    for twin in (copy.copy(wrapper), copy.deepcopy(wrapper)):
        assert type(twin) is nwbflow.DataIO
        assert (twin.chunks_wish, twin.codec, twin.maxshape_wish, twin.checksum, twin.fillvalue) == tuple(
            given.values()
        )
        np.testing.assert_array_equal(twin.data, NOISE)
    assert copy.copy(wrapper).data is NOISE
    assert copy.deepcopy(wrapper).data is not NOISE
    reserved = copy.copy(nwbflow.DataIO(shape=(4, 2), dtype="i4", codec="gzip"))
    assert (reserved.shape, np.dtype(reserved.dtype), reserved.codec) == ((4, 2), np.dtype("i4"), "gzip")


@pytest.mark.requirement("C7")
def test_a_reserved_dataset_is_filled_by_the_user(tmp_path):
    reserved = nwbflow.DataIO(shape=(6000, 10), dtype="i2", codec="gzip", chunks=(1000, 10), fillvalue=7)
    nwbfile = series(reserved)
    with nwbflow.NWBHDF5IO(tmp_path / "x.nwb", "w") as io:
        io.write(nwbfile, cache_spec=False)
        reserved.dataset[:3000] = NOISE[:3000]
    with h5py.File(tmp_path / "x.nwb") as file:
        data = file["acquisition/x/data"]
        assert (data.compression, data.shuffle, data.chunks, data.fillvalue) == ("gzip", True, (1000, 10), 7)
        np.testing.assert_array_equal(data[:3000], NOISE[:3000])
        assert (data[3000:] == 7).all()
