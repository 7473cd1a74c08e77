"""Requests of every kind, for the drop-in class and PyNWB alike."""

import itertools
from datetime import UTC, datetime

import hdf5plugin
import numpy as np
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

BIG = np.arange(60_000, dtype="i2").reshape(6000, 10)
NOISE = np.random.default_rng(7).integers(-99, 99, (6000, 10)).astype("i2")


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
        nwbfile.add_unit(
            spike_times=times, obs_intervals=[[0.0, 50.0], [60.0, 100.0]], quality="good", depth=1.5 * index
        )
    return nwbfile


def trials():
    nwbfile = fresh()
    nwbfile.add_trial_column("stimulus", "what")
    nwbfile.add_trial_column("choices", "indexed", index=True)
    for index in range(300):
        nwbfile.add_trial(
            start_time=float(index), stop_time=index + 0.5, stimulus=f"s{index}", choices=[index] * (index % 4)
        )
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
        vectors = [
            VectorData(name=name, description="d", data=data() if callable(data) else data)
            for name, data in columns.items()
        ]
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
    "list of lists": one(NOISE.tolist),
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
