"""Files of the drop-in class against PyNWB's own, fact by fact (W1, C2, W11)."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import support
from hdmf.backends.hdf5 import H5DataIO
from pynwb import TimeSeries

import nwbflow

sys.path.insert(0, str(Path(__file__).parent))

from sessions import AUTOMATIC, BIG, NOISE, REQUESTS, comparable, fresh, series, units

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*compression may not be available.*"),
    pytest.mark.filterwarnings("ignore:.*is being converted to data type.*"),
]


def both(make, tmp_path, **options):
    """Write a request with PyNWB and with nwbflow; return both descriptions."""
    theirs, ours = tmp_path / "theirs.nwb", tmp_path / "ours.nwb"
    support.write_nwb(make(), theirs, support.StockNWBHDF5IO)
    receipt = support.write_nwb(make(), ours, **options)
    return comparable(support.describe(ours)), comparable(support.describe(theirs)), receipt


@pytest.mark.requirement("W1", "C2")
@pytest.mark.parametrize("name", REQUESTS)
def test_the_file_is_what_pynwb_would_have_written(name, tmp_path):
    ours, theirs, _ = both(REQUESTS[name], tmp_path, verify="full")
    assert not support.differences(ours, theirs)


@pytest.mark.requirement("W1")
@pytest.mark.parametrize("name", AUTOMATIC)
def test_automatic_chunks_of_endless_streams_are_the_only_difference(name, tmp_path):
    ours, theirs, _ = both(AUTOMATIC[name], tmp_path)
    data = ours["/acquisition/x/data"]
    assert theirs["/acquisition/x/data"]["chunks"][0] <= 100  # the rows of the first piece
    assert data["chunks"][0] >= 4096
    for facts in (data, theirs["/acquisition/x/data"]):
        del facts["chunks"]
    assert not support.differences(ours, theirs)


@pytest.mark.requirement("W1")
def test_large_arrays_do_go_through_nwbflow(tmp_path):
    receipt = both(REQUESTS["electrodes"], tmp_path)[2]
    assert {d.name: d.encoded_by for d in receipt.datasets} == {
        "/acquisition/raw/data": "nwbflow",
        "/acquisition/late/data": "none",
    }


@pytest.mark.requirement("W1")
def test_the_schema_is_cached_as_pynwb_does(tmp_path):
    for cls in (support.StockNWBHDF5IO, nwbflow.NWBHDF5IO):
        with cls(tmp_path / f"{cls.__module__}.nwb", "w") as io:
            io.write(series(BIG))
    theirs, ours = (comparable(support.describe(path)) for path in sorted(tmp_path.iterdir(), reverse=True))
    assert any(path.startswith("/specifications/core") for path in theirs)
    assert not support.differences(ours, theirs)


# --- append and export ------------------------------------------------------------------


def append_to(cls, path):
    with cls(str(path), "r+") as io:
        nwbfile = io.read()
        nwbfile.add_acquisition(TimeSeries(name="late", data=H5DataIO(NOISE, compression="gzip"), unit="V", rate=2.0))
        first = nwbfile.acquisition["x"]
        nwbfile.add_acquisition(TimeSeries(name="again", data=first, unit="V", rate=2.0))
        nwbfile.add_acquisition(TimeSeries(name="same_data", data=first.data, unit="V", rate=2.0))
        nwbfile.add_unit(spike_times=[1.0, 2.0], obs_intervals=[[0.0, 1.0]], quality="bad", depth=0.5)
        io.write(nwbfile, cache_spec=False)


def with_units():
    nwbfile = units(0)
    nwbfile.add_acquisition(TimeSeries(name="x", data=H5DataIO(BIG, compression="gzip"), unit="V", rate=1.0))
    return nwbfile


@pytest.mark.requirement("W1", "W10")
def test_an_appended_file_is_the_same(tmp_path):
    paths = {cls: tmp_path / f"{number}.nwb" for number, cls in enumerate((support.StockNWBHDF5IO, nwbflow.NWBHDF5IO))}
    for cls, path in paths.items():
        support.write_nwb(with_units(), path, cls)
        append_to(cls, path)
    theirs, ours = (comparable(support.describe(path)) for path in paths.values())
    assert ours["/acquisition/same_data/data"] == {"kind": "soft link", "to": "/acquisition/x/data"}
    assert not support.differences(ours, theirs)


@pytest.mark.requirement("W1")
@pytest.mark.parametrize("link_data", [True, False])
@pytest.mark.parametrize("how", ["write", "export"])
def test_data_in_other_files_are_linked_or_copied_as_pynwb_does(how, link_data, tmp_path):
    source = tmp_path / "source.nwb"
    support.write_nwb(with_units(), source, support.StockNWBHDF5IO)
    described = []
    for cls in (support.StockNWBHDF5IO, nwbflow.NWBHDF5IO):
        path = tmp_path / "target.nwb"
        with support.StockNWBHDF5IO(str(source), "r") as reading, cls(str(path), "w") as io:
            nwbfile = reading.read()
            nwbfile.add_scratch(TimeSeries(name="new", data=NOISE, unit="V", rate=1.0))
            if how == "export":
                io.export(reading, nwbfile, write_args={"link_data": link_data}, cache_spec=False)
            else:
                other = fresh()
                other.add_acquisition(TimeSeries(name="linked", data=nwbfile.acquisition["x"].data, unit="V", rate=1.0))
                other.add_acquisition(TimeSeries(name="wrapped", data=H5DataIO(
                    nwbfile.acquisition["x"].data, link_data=not link_data), unit="V", rate=1.0))  # fmt: skip
                io.write(other, link_data=link_data, cache_spec=False)
        described.append(comparable(support.describe(path)))
        path.unlink()
    assert not support.differences(*described[::-1])


@pytest.mark.requirement("C7")
def test_set_data_io_compresses_on_export(tmp_path):
    source, path = tmp_path / "source.nwb", tmp_path / "target.nwb"
    support.write_nwb(series(NOISE), source, support.StockNWBHDF5IO)
    with support.StockNWBHDF5IO(str(source), "r") as reading, nwbflow.NWBHDF5IO(path, "w") as io:
        nwbfile = reading.read()
        nwbfile.acquisition["x"].set_data_io(
            "data", nwbflow.DataIO, data_io_kwargs={"codec": ("gzip", 2), "chunks": (1000, 10), "checksum": True}
        )
        io.export(reading, nwbfile, cache_spec=False)
    with h5py.File(path) as file:
        data = file["acquisition/x/data"]
        assert (data.compression, data.compression_opts, data.shuffle, data.fletcher32, data.chunks) == (
            "gzip", 2, True, True, (1000, 10))  # fmt: skip
        np.testing.assert_array_equal(data[()], NOISE)


# --- file options -----------------------------------------------------------------------


@pytest.mark.requirement("W11")
def test_file_options_reach_the_file(tmp_path):
    path = tmp_path / "x.nwb"
    support.write_nwb(
        series(BIG), path, libver=("v110", "v110"), fs_strategy="page", fs_page_size=2**16, locking=False, rdcc_nbytes=0
    )
    with h5py.File(path) as file:
        made = file.id.get_create_plist()
        assert made.get_file_space_strategy()[0] == h5py.h5f.FSPACE_STRATEGY_PAGE
        assert made.get_file_space_page_size() == 2**16
        assert file["acquisition/x/data"].id.get_create_plist()  # the file is whole
    assert path.stat().st_size % 2**16 == 0
    assert path.read_bytes()[8] >= 2  # version of the superblock: 0 without libver


@pytest.mark.requirement("W11")
@pytest.mark.parametrize("mode", ["r", "r+", "a", "w"])
def test_cache_and_locking_are_set_in_every_mode(mode, tmp_path):
    path = tmp_path / "x.nwb"
    support.write_nwb(series(BIG), path)
    with nwbflow.NWBHDF5IO(path, mode, rdcc_nbytes=5 * 2**20, locking=False) as io:
        assert io._file.id.get_access_plist().get_cache()[2] == 5 * 2**20
        assert io._file.id.get_access_plist().get_file_locking()[0] == 0
    with nwbflow.NWBHDF5IO(path, mode, locking=True) as io:
        ours = io._file.id.get_access_plist().get_cache()
    with support.StockNWBHDF5IO(str(path), mode) as io:
        assert ours == io._file.id.get_access_plist().get_cache()


@pytest.mark.requirement("W11")
def test_a_new_file_in_append_mode_gets_its_options(tmp_path):
    path = tmp_path / "x.nwb"
    with nwbflow.NWBHDF5IO(path, "a", fs_strategy="page", fs_page_size=2**16) as io:
        io.write(series(BIG), cache_spec=False)
    with h5py.File(path) as file:
        assert file.id.get_create_plist().get_file_space_page_size() == 2**16


@pytest.mark.requirement("W11")
@pytest.mark.parametrize("options", [{"libver": "newest"}, {"fs_strategy": "pages"}, {"locking": "perhaps"}], ids=str)
def test_bad_file_options_are_refused(options, tmp_path):
    with pytest.raises(nwbflow.SettingsError, match=next(iter(options.values()))) as raised:
        support.write_nwb(series(BIG), tmp_path / "x.nwb", **options)
    assert raised.value.kind is nwbflow.ErrorKind.OPTION
    assert not list(tmp_path.iterdir())
