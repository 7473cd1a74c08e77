"""The table of bad inputs, and what the user is to read for each (W6, W8)."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dask.array
import h5py
import numpy as np
import pytest
import support
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import BuildError
from hdmf.data_utils import DataChunkIterator

import nwbflow
from nwbflow.errors import ErrorKind as Kind
from nwbflow.errors import PlanError, SettingsError, SourceError, TargetError

NAME = "/acquisition/bad/data"


@dataclass(frozen=True)
class Case:
    """One bad request.

    ``data`` makes the series' data in a folder; ``options`` go to the writer; ``prepare`` brings the
    path into the state that is to be refused. ``reads`` are phrases of the text, ``{path}`` the target.
    """

    error: type[BaseException]
    kind: Kind | None
    reads: tuple[str, ...]
    data: Callable[[Any], Any] = lambda folder: np.arange(100.0)
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], Any] | None = None
    dropin: bool = True  # whether the drop-in class refuses it too


def blocks(*items, shape=(None,), dtype="int16"):
    return lambda folder: nwbflow.blocks(iter(items), shape=shape, dtype=dtype)


def listed(*items, **options):
    return lambda folder: DataChunkIterator(data=iter(items), **options)


def pieces(*items, maxshape=(6, 4), dtype="int32"):
    return lambda folder: support.Pieces(items, maxshape, dtype)


def wrapped(array, wrapper=nwbflow.DataIO, **settings):
    return lambda folder: wrapper(array, **settings)


def ready(shape, dtype="i4"):
    return np.ones(shape, dtype)


def source(values, **settings):
    """An h5py dataset of these values, copied through nwbflow."""

    def make(folder):
        file = h5py.File(folder.parent / "source.h5", "w")
        dataset = file.create_dataset("values", data=values)
        return nwbflow.DataIO(dataset, chunks=(10,), codec="gzip", **settings)

    return make


def closed_source(folder):
    with h5py.File(folder.parent / "source.h5", "w") as file:
        return nwbflow.DataIO(file.create_dataset("values", data=ready(20_000)), codec="gzip")


def used_up(make):
    """Write the data once, to another file, so that they have nothing more to give."""

    def used(folder):
        data = make(folder)
        support.write_nwb(support.session(first=data), folder.parent / "earlier.nwb")
        return data

    return used


class OwnIterator:
    """An iterator that can be neither hashed nor told from an empty one."""

    __hash__ = None

    def __init__(self, items):
        self.items = iter(items)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.items)

    def __eq__(self, other):
        return True


def wrapped_anew(make):
    """Write an iterator once, to another file, and hand it out in new wrappers."""

    def used(folder):
        iterator = make()
        first, second = (nwbflow.blocks(iterator, shape=(None, 3), dtype="int32") for _ in range(2))
        support.write_nwb(support.session(first=first), folder.parent / "earlier.nwb")
        return second

    return used


def spent(folder):
    generator = (ready((2, 3)) for _ in range(2))
    list(generator)
    return nwbflow.blocks(generator, shape=(None, 3), dtype="int32")


def raising(error):
    def generate():
        yield ready((2, 3), "i2")
        yield ready((2, 3), "i2")
        raise error

    return lambda folder: nwbflow.blocks(generate(), shape=(None, 3), dtype="int16")


class ShortTiles(support.Tiles):
    def _get_data(self, selection):
        return super()._get_data(selection)[:-1]


class LongPromise(support.Tiles):
    """Says it is longer than what it gives."""

    def __next__(self):
        chunk = super().__next__()
        if chunk.selection[0].start >= 20:
            raise StopIteration
        return chunk


def short_tiles(folder):
    return ShortTiles(ready((40, 4)), buffer_shape=(20, 4), chunk_shape=(10, 4))


def long_promise(folder):
    return LongPromise(ready((40, 4)), buffer_shape=(20, 4), chunk_shape=(10, 4))


def generic(folder):
    return support.Tiles(ready((40, 4)), buffer_shape=(20, 4), chunk_shape=(10, 4))


def grown(folder):
    """An array-like whose slices have another shape than asked for."""

    class Grown(support.Sliceable):
        def __getitem__(self, key):
            return np.concatenate([self._array[key]] * 2)

    return nwbflow.DataIO(Grown(ready(100)), codec="gzip")


def short_raw(folder):
    path = folder.parent / "recording.bin"
    path.write_bytes(bytes(104))
    return nwbflow.raw(path, dtype="int16", shape=(100, 4))


def uneven_raw(folder):
    path = folder.parent / "recording.bin"
    path.write_bytes(bytes(99))
    return nwbflow.raw(path, dtype="int16", shape=(None, 4))


def truncated_raw(folder):
    path = folder.parent / "recording.bin"
    path.write_bytes(bytes(80_000))
    data = nwbflow.raw(path, dtype="int16", shape=(None, 4))
    os.truncate(path, 40_000)
    return nwbflow.DataIO(data, chunks=(1000, 4), codec="gzip")


# --- targets ----------------------------------------------------------------------------


def folder_at(path):
    path.unlink()
    path.mkdir()


def fifo_at(path):
    path.unlink()
    os.mkfifo(path)


def missing_folder(path):
    path.unlink()
    path.parent.rmdir()


@contextlib.contextmanager
def open_in_another_process(path):
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'a'); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline()
        yield
        process.stdin.close()


@contextlib.contextmanager
def read_only(path):
    """Make the folder read-only, by its mode or, for root, whom that does not stop, by a mount."""
    if os.geteuid() != 0:
        path.parent.chmod(0o555)
        yield
        path.parent.chmod(0o755)
        return
    folder = str(path.parent)
    for command in (["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run(["umount", folder], capture_output=True, check=False)
            pytest.skip(f"root may write everywhere, and {' '.join(command[:3])} is not allowed: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def leftover(path):
    path.unlink()
    path.with_name(path.name + ".partial").write_bytes(b"what was saved")


ANY, KEEP = {"overwrite": True}, {"overwrite": False}
LOSSY = (NAME, "without loss", "dtype='float64'")

CASES = {
    # values that don't fit
    "1, 2, 3.7 row by row": Case(
        SourceError, Kind.LOSSY, (*LOSSY, "3.7 (float64) at (2,)", "int64"), listed(1, 2, 3.7, buffer_size=1)
    ),
    "1, 2, 3.7 buffered": Case(
        SourceError, Kind.LOSSY, ("3.7", "(3,)"), listed(*[1, 2, 3, 3.7], buffer_size=2, dtype=np.dtype("int64"))
    ),
    **{
        f"{why} in a list": Case(
            SourceError, Kind.LOSSY, (NAME, f"{value} at {place}", f"dtype='{better}'"), lambda _, data=data: data)
        for why, data, value, place, better in [
            ("1, 2, 3.7", [1, 2, 3.7], 3.7, (2,), "float64"),
            ("True, 2, 3", [True, 2, 3], 2, (1,), "int64"),
            ("True, 2, 3 in rows", [[True, False], [2, 3]], 2, (1, 0), "int64"),
            ("1e300 after float32", [np.float32(1), 1e300], 1e300, (1,), "float64"),
            ("300 after int8", [np.int8(1), 300], 300, (1,), "int64"),
            ("int16 row after int8", [np.array([1, 2], "i1"), np.array([300, 1], "i2")], 300, (1, 0), "int64"),
            ("2**63", [2**63], 2**63, (0,), "uint64"),
            ("0, 2**63", [0, 2**63], 2**63, (1,), "uint64"),
            ("-1, 2**63", [-1, 2**63], 2**63, (1,), "float64"),
            ("-1 after uint64", [np.uint64(1), -1], -1, (1,), "int64"),
            ("2**64", [1, 2**64], 2**64, (1,), "float64"),
            ("2**53 + 1 after 0.5", [0.5, 2**53 + 1], 2**53 + 1, (1,), "float64"),
            ("NaN after 1", [1, float("nan")], "nan", (1,), "float64"),
        ]
    },
    "True, 2, 3 in a wrapped list": Case(SourceError, Kind.LOSSY, (NAME, "2 at (1,)", "int64"), wrapped([True, 2, 3])),
    "3.7 into int16": Case(SourceError, Kind.LOSSY, (*LOSSY, "3.7", "(3,)"), blocks([1, 2, 3], [3.7])),
    "70000 into int16": Case(SourceError, Kind.LOSSY, (NAME, "70000", "(1, 1)", "int32"), blocks(
        np.zeros((1, 2), "i4"), np.array([[1, 70_000]], "i4"), shape=(None, 2))),
    "NaN into int16": Case(SourceError, Kind.LOSSY, (*LOSSY, "nan", "(2,)"), blocks([1.0, 2.0, np.nan])),
    "infinity into int64": Case(SourceError, Kind.LOSSY, (NAME, "inf", "(0,)"), blocks([np.inf], dtype="int64")),
    "-1 into uint16": Case(SourceError, Kind.LOSSY, (NAME, "-1", "(1,)", "int64"), blocks([1, -1], dtype="uint16")),
    "uint16 60000 into int16": Case(
        SourceError, Kind.LOSSY, (NAME, "60000", "(0,)", "int32"), blocks(np.array([60_000], "u2"))
    ),
    "2**53 + 1 into float64": Case(SourceError, Kind.LOSSY, (NAME, "9007199254740993"), blocks(
        np.array([2**53 + 1]), dtype="float64")),
    "2 into bool": Case(SourceError, Kind.LOSSY, (NAME, "value 2"), blocks([0, 1, 2], dtype="bool")),
    "complex into float64": Case(SourceError, Kind.LOSSY, (NAME, "2j"), blocks([1, 2j], dtype="float64")),
    "text into int16": Case(SourceError, Kind.DTYPE, (NAME, "(3,)", "expected numbers"), blocks([1, 2, 3], ["a"])),
    "dtype change in mid-stream": Case(SourceError, Kind.LOSSY, (NAME, "0.5", "(2, 0)"), blocks(
        np.ones((2, 3), "i2"), np.full((2, 3), 0.5), shape=(None, 3))),
    "3.7 through a generic iterator": Case(SourceError, Kind.LOSSY, (NAME, "3.7", "(2, 1)"), pieces(
        (np.s_[0:2], np.ones((2, 4))), (np.s_[2:4], np.array([[1, 3.7, 1, 1]] * 2)))),
    "3.7 at scattered places": Case(SourceError, Kind.LOSSY, (NAME, "3.7"), pieces(
        (np.s_[0:6:2], np.full((3, 4), 3.7)))),
    # masks
    "masked array": Case(SourceError, Kind.LOSSY, (NAME, "masked", "filled"), lambda _: np.ma.masked_array(
        ready(20_000), mask=np.arange(20_000) == 7)),
    "small masked array": Case(SourceError, Kind.LOSSY, (NAME, "masked", "filled"), lambda _: np.ma.masked_array(
        ready(3), mask=[0, 1, 0])),
    "masked block": Case(SourceError, Kind.LOSSY, (NAME, "block 1", "row 3", "masked", "filled"), blocks(
        [1, 2, 3], np.ma.masked_array([1, 2], mask=[0, 1]))),
    "masked slice": Case(SourceError, Kind.LOSSY, (NAME, "[0:", "masked", "filled"), wrapped(
        support.Sliceable(np.ma.masked_array(ready(100), mask=np.arange(100) == 7)), codec="gzip")),
    "masked dask array": Case(SourceError, Kind.LOSSY, (NAME, "[0:", "masked", "filled"), wrapped(
        dask.array.ma.masked_equal(dask.array.arange(100, chunks=10), 7), codec="gzip")),
    "masked chunk": Case(SourceError, Kind.LOSSY, (NAME, "masked", "filled"), pieces(
        (np.s_[0:1], np.ma.masked_array(ready((1, 4)), mask=[[0, 1, 0, 0]])))),
    # shapes
    "ragged rows in a block": Case(SourceError, Kind.SHAPE, (NAME, "block 1", "row 2", "different lengths"), blocks(
        ready((2, 3)), [[1, 2, 3], [1, 2]], shape=(None, 3))),
    "short rows": Case(SourceError, Kind.SHAPE, (NAME, "block 1", "row 2", "(2, 2)", "(k, 3)"), blocks(
        ready((2, 3)), ready((2, 2)), shape=(None, 3))),
    "a row instead of a block": Case(SourceError, Kind.SHAPE, (NAME, "block 0", "row[None]"), blocks(
        ready(3), shape=(None, 3))),
    "ragged rows in a list": Case(
        SourceError, Kind.SHAPE, (NAME, "different lengths", "indexed column"), lambda _: nwbflow.DataIO([[1, 2], [3]])
    ),
    "ragged rows row by row": Case(SourceError, Kind.SHAPE, (NAME, "(1, 2)", "(1, 3)"), listed(
        ready(3), ready(2), maxshape=(None, 3))),
    "chunk smaller than its selection": Case(SourceError, Kind.SHAPE, (NAME, "(1, 4)", "(3, 4)", "(0, 0)"), pieces(
        (np.s_[0:3], ready((1, 4))))),
    "chunk larger than its selection": Case(SourceError, Kind.SHAPE, (NAME, "(3, 4)", "(1, 4)"), pieces(
        (np.s_[2:3], ready((3, 4))))),
    "transposed chunk": Case(SourceError, Kind.SHAPE, (NAME, "(4, 6)", "(6, 4)"), pieces((np.s_[:], ready((4, 6))))),
    "_get_data of the wrong shape": Case(SourceError, Kind.SHAPE, (NAME, "(19, 4)", "(20, 4)"), short_tiles),
    "array-like that gives too much": Case(SourceError, Kind.SHAPE, (NAME, "[0:100]", "(200,)", "(100,)"), grown),
    "fancy selection of another shape": Case(SourceError, Kind.SHAPE, (NAME, "[0, 2]", "(2, 6)"), pieces(
        (np.s_[:, [0, 2]], ready((2, 6))))),
    "None in a later axis": Case(SourceError, Kind.SHAPE, ("(None, None)", "(None, 384)"), blocks(
        ready((2, 3)), shape=(None, None))),
    "None as the shape": Case(SourceError, Kind.SHAPE, ("()", "(None, 384)"), blocks(1, shape=())),
    # lengths
    "fewer rows than promised": Case(SourceError, Kind.LENGTH, (NAME, "promised 10 rows", "after 6", "None"), blocks(
        *[ready((2, 3))] * 3, shape=(10, 3))),
    "more rows than promised": Case(SourceError, Kind.LENGTH, (NAME, "block 2", "row 4", "promised 5"), blocks(
        *[ready((2, 3))] * 3, shape=(5, 3))),
    "fewer rows than promised, row by row": Case(
        SourceError, Kind.LENGTH, (NAME, "promised 10 rows", "after 3"), listed(*[ready(3)] * 3, maxshape=(10, 3))
    ),
    "more rows than promised, row by row": Case(
        SourceError, Kind.BOUNDS, (NAME, "(2, 3)", "out of bounds"), listed(*[ready(3)] * 3, maxshape=(2, 3))
    ),
    "fewer elements than promised, generic": Case(
        SourceError, Kind.LENGTH, (NAME, "(40, 4)", "80 of 160"), long_promise),
    "raw file shorter than declared": Case(
        SourceError, Kind.LENGTH, ("recording.bin", "holds 13 samples", "declares 100", "None"), short_raw),
    "raw file of no whole samples": Case(
        SourceError, Kind.LENGTH, ("recording.bin", "8 bytes", "3 are left"), uneven_raw),
    "raw file truncated meanwhile": Case(
        SourceError, Kind.LENGTH, (NAME, "recording.bin", "byte 40000"), truncated_raw),
    "raw file missing": Case(SourceError, Kind.MISSING, ("nowhere.bin", "no such file"), lambda folder: nwbflow.raw(
        folder / "nowhere.bin", dtype="i2", shape=(None, 4))),
    # iterators used twice
    "blocks used up": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), used_up(
        blocks(ready((2, 3)), shape=(None, 3)))),
    "generator used up elsewhere": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), spent),
    "generator used up, wrapped anew": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), (
        wrapped_anew(lambda: (ready((2, 3)) for _ in range(2))))),
    "iterator used up, wrapped anew": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), (
        wrapped_anew(lambda: OwnIterator([ready((2, 3))] * 2)))),
    "rows used up, length unknown": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), used_up(
        listed(ready(3), ready(3), buffer_size=2))),
    "rows used up, length known": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), used_up(
        listed(ready(3), ready(3), maxshape=(2, 3)))),
    "generic iterator used up": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), used_up(generic)),
    "own iterator used up": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), used_up(
        pieces((np.s_[0:6], ready((6, 4)))))),
    "own iterator used up, length unknown": Case(SourceError, Kind.EXHAUSTED, (NAME, "used up", "new one"), used_up(
        pieces((np.s_[0:6], ready((6, 4))), maxshape=(None, 4)))),
    # selections
    "selection out of bounds": Case(SourceError, Kind.BOUNDS, (NAME, "(6, 4)", "axis 0"), pieces(
        (np.s_[4:8], ready((4, 4))))),
    "negative selection": Case(SourceError, Kind.BOUNDS, (NAME, "axis 0"), pieces((np.s_[-2:], ready((2, 4))))),
    "negative place": Case(SourceError, Kind.BOUNDS, (NAME, "axis 0"), pieces((np.s_[-1], ready(4)))),
    "negative place in a list": Case(SourceError, Kind.BOUNDS, (NAME, "[-1, 2]"), pieces(
        (np.s_[:, [-1, 2]], ready((6, 2))))),
    "step out of bounds": Case(SourceError, Kind.BOUNDS, (NAME, "(6, 4)"), pieces((np.s_[0:9:2], ready((5, 4))))),
    "selection of too many axes": Case(SourceError, Kind.SHAPE, (NAME, "3 axes"), pieces((np.s_[0, 0, 0], ready(())))),
    "selection that is none": Case(SourceError, Kind.SHAPE, (NAME, "chunk 0", "'a'"), pieces(("a", ready(4)))),
    "list not in order": Case(SourceError, Kind.SHAPE, (NAME, "increasing order"), pieces(
        (np.s_[:, [2, 0]], ready((6, 2))))),
    # types
    "object into int32": Case(SourceError, Kind.DTYPE, (NAME, "object", "expected numbers"), blocks(
        np.array([1, None]), dtype="int32")),
    "blocks of objects": Case(SettingsError, Kind.DTYPE, ("object", "number"), blocks([1], dtype="object")),
    "blocks of times": Case(SettingsError, Kind.DTYPE, ("datetime64", "number"), blocks([1], dtype="datetime64[ns]")),
    "blocks of records": Case(SettingsError, Kind.DTYPE, ("number",), blocks([1], dtype=[("a", "i4")])),
    "blocks of text": Case(SettingsError, Kind.DTYPE, ("number",), blocks([1], dtype="U8")),
    "raw file of objects": Case(SettingsError, Kind.DTYPE, ("object", "number"), lambda folder: nwbflow.raw(
        folder / "x", dtype="O", shape=(None,))),
    "array of times": Case(SourceError, Kind.DTYPE, (NAME, "datetime64", "number"), lambda _: np.zeros(9, "M8[ns]")),
    "array of durations": Case(SourceError, Kind.DTYPE, (NAME, "timedelta64"), lambda _: np.zeros(9, "m8[ns]")),
    "array of records": Case(BuildError, None, ("could not convert 'data' for TimeSeries 'bad'",), lambda _: (
        np.zeros(9, [("a", "i4")]))),
    "array of complex numbers": Case(BuildError, None, ("could not convert 'data' for TimeSeries 'bad'",), lambda _: (
        np.zeros(9, "c8"))),
    # settings
    "unknown codec": Case(SettingsError, Kind.CODEC, ("'gzp'", "unknown"), wrapped(ready(9), codec="gzp")),
    "codec level out of range": Case(SettingsError, Kind.CODEC, ("gzip", "level=12", "0 to 9"), wrapped(
        ready(9), codec=("gzip", 12))),
    "unknown codec option": Case(SettingsError, Kind.CODEC, ("'levle'", "level"), wrapped(
        ready(9), codec={"name": "gzip", "levle": 4})),
    "plugin's level out of range": Case(SettingsError, Kind.CODEC, ("zstd", "99"), wrapped(
        ready(9), codec=("zstd", 99))),
    "chunk over 4 GiB": Case(SettingsError, Kind.CHUNKS, (NAME, "4 GiB", "few MB"), wrapped(
        nwbflow.blocks([], shape=(None, 2**20), dtype="float64"), chunks=(2**10, 2**20))),
    "chunks of the wrong rank": Case(SettingsError, Kind.CHUNKS, (NAME, "3 axes", "(None, 4)"), wrapped(
        ready((100, 4)), chunks=(1, 2, 3))),
    "chunks of zero": Case(SettingsError, Kind.CHUNKS, (NAME, "axis 0", "at least 1"), wrapped(
        ready((100, 4)), chunks=(0, 4))),
    "chunks of a half": Case(SettingsError, Kind.CHUNKS, (NAME, "0.5", "whole number"), wrapped(
        ready((100, 4)), chunks=(0.5, 4))),
    "chunks larger than the axis": Case(SettingsError, Kind.CHUNKS, (NAME, "1000 on axis 0", "maxshape"), wrapped(
        ready((100, 4)), chunks=(1000, 4))),
    "maxshape smaller than the data": Case(SettingsError, Kind.OPTION, (NAME, "maxshape=(10, 4)", "(100, 4)"), wrapped(
        ready((100, 4)), maxshape=(10, 4))),
    "maxshape of the wrong rank": Case(SettingsError, Kind.OPTION, (NAME, "maxshape=(None,)"), wrapped(
        ready((100, 4)), maxshape=(None,))),
    "HDMF's chunks of the wrong rank": Case(SettingsError, Kind.OPTION, (NAME, "rank", "'chunks': (1, 2, 3)"), wrapped(
        ready((100, 4)), H5DataIO, chunks=(1, 2, 3))),
    "HDMF's chunks of zero": Case(SettingsError, Kind.OPTION, (NAME, "positive"), wrapped(
        ready((100, 4)), H5DataIO, chunks=(0, 4))),
    "HDMF's chunks larger than the axis": Case(SettingsError, Kind.OPTION, (NAME, "(1000, 4)"), wrapped(
        ready((100, 4)), H5DataIO, chunks=(1000, 4))),
    "HDMF's maxshape smaller than the data": Case(
        SettingsError, Kind.OPTION, (NAME, "'maxshape': (10, 4)", "(100, 4)"), wrapped(
        ready((100, 4)), H5DataIO, maxshape=(10, 4))),
    "an iterable that says nothing": Case(SettingsError, Kind.OPTION, ("generator", "nwbflow.blocks"), lambda _: (
        nwbflow.DataIO(x for x in [1]))),
    "workers=0": Case(SettingsError, Kind.OPTION, ("workers=0", "at least 1"), options={"workers": 0}),
    "workers='two'": Case(SettingsError, Kind.OPTION, ("workers='two'",), options={"workers": "two"}),
    "memory='lots'": Case(SettingsError, Kind.OPTION, ("memory='lots'", "512 MiB"), options={"memory": "lots"}),
    "memory=0": Case(SettingsError, Kind.OPTION, ("memory=0",), options={"memory": 0}),
    "unknown profile": Case(SettingsError, Kind.OPTION, ("'fastest'", "'fast'"), options={"profile": "fastest"}),
    "unknown verify": Case(
        SettingsError, Kind.OPTION, ("'yes'", "'stored', 'full' or 'no'"), options={"verify": "yes"}),
    "unknown progress": Case(SettingsError, Kind.OPTION, ("progress=3", "callable"), options={"progress": 3}),
    "rules with a bad key": Case(SettingsError, Kind.RULES, ("rules[0].compression", "codec"), options={
        "rules": {"rules": [{"type": "TimeSeries", "compression": "gzip"}]}}),
    "rules with a bad codec": Case(SettingsError, Kind.CODEC, (NAME, "'gzp'"), options={
        "rules": {"rules": [{"type": "TimeSeries", "codec": "gzp"}]}}),
    "memory too small": Case(
        PlanError, Kind.MEMORY, (NAME, "allowed are 1.0 MB", "MB at least", "memory='", "smaller chunks="),
        wrapped(ready((1000, 1000), "f8"), chunks=(1000, 1000), codec="gzip"), {"memory": "1MB"}),
    # sources that fail
    "generator raises": Case(ConnectionError, None, ("the probe is gone", NAME, "after row 4"), raising(
        ConnectionError("the probe is gone"))),
    "generator raises StopIteration": Case(RuntimeError, None, ("StopIteration", NAME, "after row 4"), raising(
        StopIteration())),
    "closed h5py source": Case(BuildError, None, ("could not convert 'data' for TimeSeries 'bad'",), closed_source),
    # targets
    "target is a folder": Case(TargetError, Kind.FOLDER, ("{path} is a folder", "give a file name"), prepare=folder_at),
    "target is a pipe": Case(TargetError, Kind.FOLDER, ("{path}", "no regular file"), prepare=fifo_at),
    "missing folder": Case(TargetError, Kind.FOLDER, ("does not exist", "make the folder"), prepare=missing_folder),
    "read-only folder": Case(TargetError, Kind.PERMISSION, ("read-only", "another folder"), prepare=read_only),
    "exists": Case(TargetError, Kind.EXISTS, ("{path} exists", "overwrite=True"), options=KEEP, dropin=False),
    "left from an interrupted write": Case(
        TargetError, Kind.EXISTS, ("{path}.partial", "interrupted", "overwrite=True"), options=KEEP, prepare=leftover,
        dropin=False),
    "open in another program": Case(
        TargetError, Kind.LOCKED, ("{path} is open in another program", "close it"), prepare=open_in_another_process),
}  # fmt: skip
