"""Files of the drop-in class against PyNWB's own, fact by fact (W1, C2, C7)."""

import itertools
from datetime import UTC, datetime

import h5py
import hdf5plugin
import numpy as np
import pytest
import support
from hdmf.backends.hdf5 import H5DataIO
from hdmf.common import DynamicTable, VectorData
from hdmf.data_utils import DataChunkIterator
from pynwb import NWBFile, TimeSeries
from pynwb.behavior import Position, SpatialSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.ophys import ImageSegmentation

import nwbflow

BIG = np.arange(60_000, dtype="i2").reshape(6000, 10)
NOISE = np.random.default_rng(7).integers(-99, 99, (6000, 10)).astype("i2")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*compression may not be available.*"),
    pytest.mark.filterwarnings("ignore:.*is being converted to data type.*"),
]


def fresh():
    nwbfile = NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    nwbfile.subject = Subject(subject_id="s", age="P90D", species="Mus musculus", sex="U")
    return nwbfile


def series(data, **more):
    nwbfile = fresh()
    nwbfile.add_acquisition(TimeSeries(name="x", data=data, unit="V", **({"rate": 1.0} | more)))
    return nwbfile


def one(make):
    return lambda: series(make())


def h5dataio(data=BIG, **settings):
    return one(lambda: H5DataIO(data() if callable(data) else data, **settings))


def rows(array, **options):
    return DataChunkIterator(data=iter(array), maxshape=array.shape, dtype=array.dtype, **options)


def electrical(name, data, electrodes, **time):
    return ElectricalSeries(name=name, data=data, electrodes=electrodes, **time)


def electrodes(**streams):
    nwbfile = fresh()
    probe = nwbfile.create_device(name="probe")
    group = nwbfile.create_electrode_group("shank", description="d", location="CA1", device=probe)
    for _ in range(10):
        nwbfile.add_electrode(group=group, location="CA1")
    region = nwbfile.create_electrode_table_region(list(range(10)), "all")
    nwbfile.add_acquisition(electrical("raw", H5DataIO(NOISE, compression="gzip"), region, rate=30_000.0))
    stamps = np.arange(6000) / 1e3
    nwbfile.add_acquisition(electrical("late", NOISE, region, timestamps=stamps))
    for name, data in streams.items():
        nwbfile.add_acquisition(electrical(name, data, region, rate=30_000.0))
    return nwbfile


def units(spikes=30):
    nwbfile = fresh()
    nwbfile.add_unit_column("quality", "how good")
    nwbfile.add_unit_column("depth", "um")
    for index in range(40):
        times = np.sort(np.random.default_rng(index).random(index * spikes)) * 100
        nwbfile.add_unit(spike_times=times, obs_intervals=[[0.0, 50.0], [60.0, 100.0]], quality="good", depth=1.5 * index)
    return nwbfile


def trials():
    nwbfile = fresh()
    nwbfile.add_trial_column("stimulus", "what")
    nwbfile.add_trial_column("choices", "indexed", index=True)
    for index in range(300):
        nwbfile.add_trial(start_time=float(index), stop_time=index + 0.5, stimulus=f"s{index}", choices=[index] * (index % 4))
    return nwbfile


def intervals():
    """A column of compound references into a series."""
    nwbfile = series(BIG)
    table = TimeIntervals(name="epochs_of_x", description="d")
    for index in range(50):
        table.add_interval(
            start_time=float(index), stop_time=index + 1.0, tags=["a"], timeseries=[nwbfile.acquisition["x"]]
        )
    nwbfile.add_time_intervals(table)
    return nwbfile


def table(columns):
    def make():
        nwbfile = fresh()
        vectors = [VectorData(name=name, description="d", data=data() if callable(data) else data) for name, data in columns.items()]
        nwbfile.add_acquisition(DynamicTable(name="t", description="d", columns=vectors))
        return nwbfile

    return make


def linked_series():
    nwbfile = series(BIG, rate=None, timestamps=np.arange(6000.0))
    first = nwbfile.acquisition["x"]
    nwbfile.add_acquisition(TimeSeries(name="y", data=first, unit="V", timestamps=first))
    return nwbfile


def position():
    nwbfile = fresh()
    xy = np.random.default_rng(1).random((9000, 2))
    place = SpatialSeries(name="xy", data=H5DataIO(xy, chunks=True, shuffle=True), reference_frame="corner", rate=50.0)
    nwbfile.create_processing_module("behavior", "d").add(Position(spatial_series=place))
    return nwbfile


def masks():
    nwbfile = fresh()
    device = nwbfile.create_device(name="scope")
    from pynwb.ophys import OpticalChannel

    channel = OpticalChannel(name="c", description="d", emission_lambda=500.0)
    plane = nwbfile.create_imaging_plane("plane", channel, "d", device, 600.0, "GFP", "V1", imaging_rate=30.0)
    segmentation = ImageSegmentation()
    nwbfile.create_processing_module("ophys", "d").add(segmentation)
    found = segmentation.create_plane_segmentation("d", plane, "cells")
    for index in range(30):
        found.add_roi(pixel_mask=[(x, x + 1, 0.5) for x in range(index + 1)])
    return nwbfile


REQUESTS = {
    "array": one(lambda: BIG),
    "small array": one(lambda: BIG[:5]),
    "Fortran order": one(lambda: np.asfortranarray(BIG)),
    "strided": one(lambda: BIG[::2, ::-1]),
    "three axes": one(lambda: BIG.reshape(600, 10, 10)),
    "bool": one(lambda: BIG % 3 == 0),
    "uint64": one(lambda: BIG.astype("u8")),
    "float16": one(lambda: NOISE.astype("f2")),
    "big-endian": one(lambda: BIG.astype(">f8")),
    "no rows": one(lambda: BIG[:0]),
    "list": one(lambda: list(range(20_000))),
    "list of lists": one(lambda: NOISE.tolist()),
    "list of floats": one(lambda: [0.5] * 20_000),
    "list of arrays": one(lambda: list(NOISE)),
    "list of booleans": one(lambda: [True, False] * 10),
    "text": one(lambda: ["a", "bc"]),
    "timestamps in a list": lambda: series(BIG[:3], rate=None, timestamps=[0, 1, 2.5]),
    "timestamps": lambda: series(BIG, rate=None, timestamps=np.arange(6000, dtype="f4"), control=[1] * 6000,
                                 control_description=["c"]),
    "H5DataIO of a list": h5dataio(list(range(20_000)), compression="gzip"),
    "H5DataIO, nothing set": h5dataio(),
    "H5DataIO, no rows": h5dataio(BIG[:0], compression="gzip"),
    "small H5DataIO": h5dataio(BIG[:5], compression="gzip", maxshape=(None, 10)),
    "fill value": h5dataio(fillvalue=-1, chunks=(1000, 7), compression="gzip"),
    "fill value, contiguous": h5dataio(fillvalue=-1),
    "resizable": h5dataio(maxshape=(None, 10)),
    "resizable everywhere": h5dataio(maxshape=(None, None), compression="gzip"),
    "resizable to a limit": h5dataio(maxshape=(9000, 10), compression="gzip", chunks=(700, 10)),
    "lzf": h5dataio(compression="lzf", shuffle=True),
    "gzip 9": h5dataio(compression="gzip", compression_opts=9),
    "compression=True": h5dataio(compression=True),
    "szip": h5dataio(compression="szip", compression_opts=("nn", 8)),
    "zstd": h5dataio(**hdf5plugin.Zstd(clevel=3), allow_plugin_filters=True),
    "blosc2": h5dataio(**hdf5plugin.Blosc2(cname="zstd", clevel=2), allow_plugin_filters=True, chunks=(1000, 10)),
    "bitshuffle": h5dataio(**hdf5plugin.Bitshuffle(), allow_plugin_filters=True, chunks=True),
    "lz4, checked": h5dataio(**hdf5plugin.LZ4(), allow_plugin_filters=True, fletcher32=True),
    "DataChunkIterator of an array": one(lambda: DataChunkIterator(data=BIG, buffer_size=500)),
    "DataChunkIterator, length known": one(lambda: rows(BIG, buffer_size=100)),
    "DataChunkIterator, length known, wrapped": one(
        lambda: H5DataIO(rows(BIG, buffer_size=100), compression="gzip", fillvalue=-3)
    ),
    "DataChunkIterator, chunks given": one(
        lambda: H5DataIO(DataChunkIterator(data=iter(BIG), buffer_size=64), chunks=(100, 10), compression="gzip")
    ),
    "DataChunkIterator of gaps": one(lambda: H5DataIO(
        DataChunkIterator(data=[None if i % 7 == 2 else row for i, row in enumerate(BIG[:200])], maxshape=(200, 10),
                          dtype=BIG.dtype), chunks=(16, 10), fillvalue=-1)),
    "DataChunkIterator over columns": one(lambda: H5DataIO(
        DataChunkIterator(data=BIG, iter_axis=1, buffer_size=3), chunks=(1000, 4))),
    "GenericDataChunkIterator": one(lambda: support.Tiles(BIG)),
    "GenericDataChunkIterator, shapes given": one(
        lambda: support.Tiles(BIG, buffer_shape=(2000, 10), chunk_shape=(500, 5))
    ),
    "GenericDataChunkIterator, wrapped": one(
        lambda: H5DataIO(support.Tiles(NOISE, buffer_shape=(2000, 10), chunk_shape=(500, 10)), compression="gzip")
    ),
    "own iterator": one(
        lambda: support.Pieces([(np.s_[0:3, :], BIG[:3]), (np.s_[5:7, :], BIG[5:7])], (9, 10), "i2", (4, 5))),
    "electrodes": electrodes,
    "long iterators over electrodes": lambda: electrodes(
        rows=rows(np.tile(NOISE, (45, 1)), buffer_size=5000),
        wrapped=H5DataIO(rows(np.tile(NOISE, (45, 1)), buffer_size=5000), compression="gzip", compression_opts=1),
        tiles=support.Tiles(np.tile(NOISE, (45, 1))),
        whole=np.tile(NOISE, (45, 1)),
    ),
    "units": units,
    "trials": trials,
    "intervals": intervals,
    "links": linked_series,
    "position": position,
    "pixel masks": masks,
    "table": table({"i": list(range(400)), "a": np.arange(400.0), "s": ["x"] * 400, "m": NOISE[:400]}),
    "large table": table({"i": np.arange(30_000), "m": np.ones((30_000, 3))}),
    "table of wrappers": table({"i": lambda: H5DataIO(np.arange(30_000), compression="gzip"),
                                "m": lambda: H5DataIO(np.ones((30_000, 3)), chunks=(999, 2))}),
}  # fmt: skip
COMPRESSION = ({}, {"compression": "gzip"}, {"compression": "lzf"})
for _options in itertools.product(COMPRESSION, (None, True, (777, 3)), (None, True), (None, True), (None, (None, 10))):
    _settings = dict(zip(("chunks", "shuffle", "fletcher32", "maxshape"), _options[1:], strict=True)) | _options[0]
    _settings = {key: value for key, value in _settings.items() if value is not None}
    REQUESTS[f"H5DataIO {_settings}"] = h5dataio(NOISE, **_settings)

AUTOMATIC = {
    "DataChunkIterator, length unknown": one(lambda: DataChunkIterator(data=iter(BIG), buffer_size=100)),
    "DataChunkIterator, length unknown, wrapped": one(
        lambda: H5DataIO(DataChunkIterator(data=iter(BIG), buffer_size=100), compression="gzip")
    ),
    "own iterator, length unknown": one(lambda: support.Pieces([(np.s_[0:3, :], BIG[:3])], (None, 10), "i2")),
}
"""Streams of unknown length and no chunks given: the one difference that is meant."""


def comparable(description):
    """Drop what differs from run to run, written by whomever."""
    for facts in description.values():
        facts["attributes"].pop("object_id", None) if "attributes" in facts else None
    description.pop("/file_create_date", None)
    return description


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
    import copy

    given = {"chunks": (None, 5), "codec": ("gzip", 3), "maxshape": (None, 10), "checksum": True, "fillvalue": -2}
    wrapper = nwbflow.DataIO(NOISE, **given)
    for twin in (copy.copy(wrapper), copy.deepcopy(wrapper)):
        assert type(twin) is nwbflow.DataIO
        assert (twin.chunks_wish, twin.codec, twin.maxshape_wish, twin.checksum, twin.fillvalue) == tuple(given.values())
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


