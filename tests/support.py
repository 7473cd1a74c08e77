"""Shared by the tests of the write path: small sessions, single datasets, and complete descriptions of files."""

import math
from contextlib import closing
from datetime import UTC, datetime

import h5py
import numpy as np
import pynwb
from h5py import h5d, h5o
from hdmf.backends.hdf5 import HDF5IO as StockHDF5IO
from hdmf.build import DatasetBuilder, GroupBuilder
from hdmf.common import get_manager
from hdmf.data_utils import AbstractDataChunkIterator, DataChunk, GenericDataChunkIterator
from pynwb import NWBHDF5IO as StockNWBHDF5IO
from pynwb import NWBFile, TimeSeries

import nwbflow

MANAGER = get_manager()


def session(**series):
    """Return a session with one TimeSeries per keyword, the values being its data."""
    nwbfile = NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    for name, data in series.items():
        nwbfile.add_acquisition(TimeSeries(name=name, data=data, unit="V", rate=1000.0))
    return nwbfile


def write_nwb(nwbfile, path, cls=nwbflow.NWBHDF5IO, *, exhaust_dci=True, **options):
    """Write a session, without the schema (which takes longer than all the rest)."""
    with cls(str(path), "w", **options) as io:
        io.write(nwbfile, cache_spec=False, exhaust_dci=exhaust_dci)
        return io.receipt if cls is nwbflow.NWBHDF5IO else None


def write_arrays(path, arrays, cls=nwbflow.HDF5IO, *, exhaust_dci=True, **options):
    """Write datasets by name at the root of a plain HDMF file, and return the receipt."""
    builders = {name: DatasetBuilder(name, data=data) for name, data in arrays.items()}
    with cls(str(path), mode="w", manager=MANAGER, **options) as io:
        io.write_builder(GroupBuilder("root", datasets=builders), exhaust_dci=exhaust_dci)
        return None if cls is StockHDF5IO else io.receipt


def write_array(path, data, cls=nwbflow.HDF5IO, **options):
    """Write one dataset, ``/x``."""
    return write_arrays(path, {"x": data}, cls, **options)


def read_array(path, name="x"):
    """Return a dataset's elements as stock h5py reads them."""
    with h5py.File(path, "r") as file:
        return file[name][()]


def opens_in_pynwb(path):
    """Open a file in stock PyNWB and touch every series; return their data's shapes."""
    with StockNWBHDF5IO(str(path), "r") as io:
        return {name: tuple(series.data.shape) for name, series in io.read().acquisition.items()}


class Tiles(GenericDataChunkIterator):
    """HDMF's generic iterator over an array."""

    def __init__(self, array, **options):
        self.array = array
        super().__init__(**{"display_progress": False, **options})

    def _get_data(self, selection):
        return np.asarray(self.array[selection])

    def _get_maxshape(self):
        return self.array.shape

    def _get_dtype(self):
        return self.array.dtype


class Pieces(AbstractDataChunkIterator):
    """An iterator of one's own: any (selection, data) pairs."""

    def __init__(self, pieces, maxshape, dtype, chunks=None):
        self.pieces = iter(pieces)
        self._maxshape, self._dtype, self._chunks = maxshape, np.dtype(dtype), chunks

    def __iter__(self):
        return self

    def __next__(self):
        selection, data = next(self.pieces)
        return DataChunk(data=data, selection=selection)

    def recommended_chunk_shape(self):
        return self._chunks

    def recommended_data_shape(self):
        return tuple(1 if n is None else n for n in self._maxshape)

    @property
    def dtype(self):
        return self._dtype

    @property
    def maxshape(self):
        return self._maxshape


class Sliceable:
    """The least array-like: shape, dtype and slicing."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key):
        return self._array[key]


# --- complete descriptions of files -----------------------------------------------------


def describe(path):
    """Return everything stock h5py knows of a file, as comparable values by path."""
    found, first_names = {}, {}
    with h5py.File(path, "r") as file:
        found["/"] = {"kind": "group", "attributes": _attributes(file, file)}
        _describe_group(file, file, found, first_names)
    return found


def _describe_group(file, group, found, first_names):
    for name in sorted(group):
        path = f"{group.name.rstrip('/')}/{name}"
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            found[path] = {"kind": "external link", "to": (link.filename, link.path)}
        elif isinstance(link, h5py.SoftLink):
            found[path] = {"kind": "soft link", "to": link.path}
        else:
            item = group[name]
            address = h5o.get_info(item.id).addr
            if address in first_names:
                found[path] = {"kind": "hard link", "to": first_names[address]}
                continue
            first_names[address] = path
            found[path] = {"attributes": _attributes(file, item)}
            if isinstance(item, h5py.Group):
                found[path]["kind"] = "group"
                _describe_group(file, item, found, first_names)
            else:
                found[path] |= {"kind": "dataset", **creation(item), "values": _values(file, item[()])}


def creation(dataset):
    """Return how a dataset was created: type, shape, and its whole creation property list."""
    plist = dataset.id.get_create_plist()
    fill = np.zeros((), dataset.dtype)
    defined = plist.fill_value_defined()
    if defined == h5d.FILL_VALUE_USER_DEFINED and not dataset.dtype.hasobject:
        plist.get_fill_value(fill)
    return {
        "type": dataset.id.get_type().encode(),
        "shape": dataset.shape,
        "maxshape": dataset.maxshape,
        "layout": plist.get_layout(),
        "chunks": dataset.chunks,
        "filters": [plist.get_filter(index) for index in range(plist.get_nfilters())],
        "fill": (defined, fill.tobytes() if not dataset.dtype.hasobject else b""),
        "times": (plist.get_alloc_time(), plist.get_fill_time(), plist.get_obj_track_times()),
    }


def _attributes(file, item):
    found = {}
    for name in sorted(item.attrs):
        attribute = item.attrs.get_id(name)
        found[name] = (attribute.get_type().encode(), attribute.shape, _values(file, item.attrs[name]))
    return found


def _values(file, value):
    """Return a value with references spelt out as paths and NaN equal to itself."""
    if isinstance(value, h5py.Reference):
        return ("reference", file[value].name if value else None)
    if isinstance(value, np.void):
        return tuple(_values(file, value[name]) for name in value.dtype.names)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return (value.shape, [_values(file, item) for item in value.ravel()])
        return (value.shape, value.dtype.str, np.ascontiguousarray(value).tobytes())
    return value.tobytes() if isinstance(value, np.generic) else value


def differences(ours, theirs):
    """Return one line for each fact in which two descriptions differ."""
    lines = [f"only in the first: {path}" for path in ours.keys() - theirs.keys()]
    lines += [f"only in the second: {path}" for path in theirs.keys() - ours.keys()]
    for path in sorted(ours.keys() & theirs.keys()):
        facts = sorted(ours[path].keys() | theirs[path].keys())
        for fact in facts:
            first, second = ours[path].get(fact), theirs[path].get(fact)
            if first != second:
                lines.append(f"{path}: {fact}: {first!r:.300} is not {second!r:.300}")
    return lines


def chunk_sizes(path, name):
    """Return stored bytes by chunk offset, as stock h5py reports them."""
    with closing(h5py.File(path, "r")) as file:
        dataset = file[name].id
        infos = [dataset.get_chunk_info(index) for index in range(dataset.get_num_chunks())]
        return {tuple(info.chunk_offset): info.size for info in infos}


def cut(shape, lengths):
    """Return the slices that cut an array of `shape` into tiles of `lengths`."""
    counts = [math.ceil(n / k) for n, k in zip(shape, lengths, strict=True)]
    return [
        tuple(slice(i * k, min((i + 1) * k, n)) for i, k, n in zip(index, lengths, shape, strict=True))
        for index in np.ndindex(*counts)
    ]


__all__ = [
    "MANAGER",
    "Pieces",
    "Sliceable",
    "StockHDF5IO",
    "StockNWBHDF5IO",
    "Tiles",
    "chunk_sizes",
    "creation",
    "cut",
    "describe",
    "differences",
    "opens_in_pynwb",
    "pynwb",
    "read_array",
    "session",
    "write_array",
    "write_arrays",
    "write_nwb",
]
