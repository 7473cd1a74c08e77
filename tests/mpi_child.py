"""What every rank runs in the tests of MPI: ``mpirun -n N python -m mpi4py mpi_child.py CASE FOLDER``.

Each rank leaves what it saw in ``CASE-RANK.json``.
"""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from mpi4py import MPI
from pynwb import NWBFile, TimeSeries

import nwbflow

COMM = MPI.COMM_WORLD
ROWS, COLUMNS = 100_003, 64
CHUNKS = (3000, 24)


def values(start=0, stop=ROWS):
    """Return rows of a signal that is different everywhere, and compresses."""
    rows = np.arange(start, stop, dtype=np.int64)[:, None]
    return ((rows * 7 + np.arange(COLUMNS) * 13) % 4096 - (rows % 37) * 3).astype(np.int16)


def bounds(rank=COMM.rank, size=COMM.size):
    """Return the rows of a rank: cut through chunks, and the last rank has only few."""
    edges = [ROWS * at // size + (0 if at == 0 else 500) for at in range(size)] + [ROWS]
    return edges[rank], edges[rank + 1]


def datasets(cut):
    """Return the datasets of the file that every way of writing must make; `cut` gives a rank's part of an array."""
    whole = values()
    stamps = np.arange(ROWS) / 30_000
    return {
        "gzip": {"data": nwbflow.DataIO(cut(whole), chunks=CHUNKS, codec="gzip", checksum=True)},
        "fast": {"data": nwbflow.DataIO(cut(whole.astype(np.float32)), chunks=(8000, 64), codec="gzip-fast")},
        "plain": {"data": nwbflow.DataIO(cut(whole), chunks=CHUNKS, codec="none")},
        "contiguous": {"data": nwbflow.DataIO(cut(whole), codec="none")},
        "own filters": {"data": nwbflow.DataIO(cut(whole[:, 0].copy()), chunks=(5000,), codec="lzf")},
        "stamped": {"data": cut(whole), "timestamps": cut(stamps)},
        "same": {"data": np.arange(200_000, dtype=np.int32)},
    }


def session(series):
    """Return a session; its identifier differs on every rank, and so do all object ids."""
    nwbfile = NWBFile("a session", f"{time.time_ns()}-{COMM.rank}", datetime(2020, 1, 1, tzinfo=UTC))
    for name, fields in series.items():
        rate = {} if "timestamps" in fields else {"rate": 1000.0}
        nwbfile.add_acquisition(TimeSeries(name=name, unit="V", **rate, **fields))
    return nwbfile


def rows(array):
    """Return this rank's rows of an array as a part of it."""
    start, stop = bounds()
    return nwbflow.part(array[start:stop], start=start, shape=array.shape)


def tile(array):
    """Return this rank's tile of a matrix: 2 columns of tiles, and as many rows as it takes."""
    down, across = divmod(COMM.rank, 2)
    height, width = -(-array.shape[0] // -(-COMM.size // 2)), array.shape[1] // 2
    last = COMM.rank == COMM.size - 1 and not across  # of an odd number of ranks
    place = (slice(down * height, (down + 1) * height), slice(across * width, None if across or last else width))
    return nwbflow.part(array[place], start=(place[0].start, place[1].start), shape=array.shape)


def write(series, path, **options):
    """Write on all ranks."""
    options = {"progress": False, "workers": 1, "executor": nwbflow.parallel.mpi(COMM), **options}
    return nwbflow.write(session(series), path, **options)


def alone(folder):
    """Write the same with threads."""
    options = {"executor": None, "verify": "full"}
    write(datasets(lambda array: array), folder / "rows.nwb", **options)
    write({"tiled": {"data": nwbflow.DataIO(values(), chunks=CHUNKS, codec="gzip")}}, folder / "tiles.nwb", **options)
    return {"mpi": h5py.get_config().mpi}


def good(folder):
    """Write every kind of data, in HDF5 and Zarr; then what PyNWB's tutorial on MPI does, compressed."""
    events = []
    receipt = write(datasets(rows), folder / "rows.nwb", verify="full", progress=events.append)
    tiled = {"tiled": {"data": nwbflow.DataIO(tile(values()), chunks=CHUNKS, codec="gzip")}}
    write(tiled, folder / "tiles.nwb")
    one = nwbflow.part(np.array([COMM.rank]), start=COMM.rank, shape=(COMM.size,))
    tutorial = {"tutorial": {"data": nwbflow.DataIO(one, codec="gzip", chunks=(1,))}}
    write(tutorial, folder / "tutorial.nwb")
    try:
        import hdmf_zarr  # noqa: F401
    except ImportError:
        pass
    else:
        write({"gzip": datasets(rows)["gzip"]}, folder / "rows.nwb.zarr")
    return {
        "by": {d.name.split("/")[2]: d.encoded_by for d in receipt.datasets},
        "path": str(receipt.path),
        "notes": receipt.notes,
        "crc": [d.crc32 for d in receipt.datasets],
        "events": len(events),
        "mpi": h5py.get_config().mpi,
    }


class Broken:
    """A sliceable that gives up, in a way of its own, when rows behind a certain one are asked for."""

    def __init__(self, array, error):
        self.array, self.error = array, error
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        if key[0].stop > 20_000:
            raise self.error
        return self.array[key]


class Local(Exception):
    """An error that can't be pickled."""

    def __init__(self, what, lock):
        super().__init__(what)
        self.lock = lock

    def __reduce__(self):
        raise TypeError("not me")


def on(rank, this, other):
    """Return `this` on one rank, and `other` elsewhere."""
    return this if COMM.rank == rank else other


def third(start=None, stop=None, shape=(90_000, COLUMNS), wrap=lambda array: array, **settings):
    """Return a part of thirds of a dataset of 90,000 rows."""
    start = COMM.rank * 30_000 if start is None else start
    stop = (COMM.rank + 1) * 30_000 if stop is None else stop
    part = nwbflow.part(wrap(values(start, stop)), start=start, shape=shape)
    return {"x": {"data": nwbflow.DataIO(part, chunks=CHUNKS, **settings)}}


def closed(folder):
    """Return a closed dataset."""
    path = folder / f"closed-{COMM.rank}.h5"
    with h5py.File(path, "w") as file:
        return file.create_dataset("x", data=values(0, 100))


def faults(folder):
    """Let one rank after another do wrong; all must hear of it, and go on."""
    (folder / "there.nwb").touch() if COMM.rank == 0 else None
    gone = closed(folder)
    cases = {
        "raises": lambda: third(wrap=lambda a: on(1, Broken(a, ValueError("no rows any more")), a)),
        "raises on 0": lambda: third(wrap=lambda a: on(0, Broken(a, ValueError("nor here")), a)),
        "raises, uncompressed": lambda: third(wrap=lambda a: on(2, Broken(a, KeyError("lost")), a), codec="none"),
        "unpicklable": lambda: third(wrap=lambda a: on(2, Broken(a, Local("mine", None)), a)),
        "shapes": lambda: third(shape=(on(2, 90_001, 90_000), COLUMNS)),
        "types": lambda: third(wrap=lambda a: on(1, a.astype("i4"), a)),
        "overlap": lambda: third(start=on(1, 29_990, None)),
        "gap": lambda: third(stop=on(1, 59_000, None)),
        "containers": lambda: third() | on(2, {"y": {"data": [1.0]}}, {}),
        "whole, but other": lambda: {"x": {"data": values(COMM.rank, COMM.rank + 5000)}},
        "short, but other": lambda: {"x": {"data": [COMM.rank, 1, 2]}},
        "iterators": lambda: {"x": {"data": nwbflow.blocks([values(0, 10)], shape=(None, COLUMNS), dtype="i2")}},
        "closed": lambda: {"x": {"data": on(1, nwbflow.DataIO(gone), values(0, 100))}},
        "there": third,
        "memory": third,
    }
    found = {}
    for name, series in cases.items():
        path = folder / f"{name.replace(',', '')}.nwb"
        options = {"memory": "1 kB"} if name == "memory" else {}
        try:
            write(series(), path, **options)
            found[name] = None
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            found[name] = [type(error).__name__, str(getattr(error, "kind", "")), str(error), notes]
    write(third(), folder / "after.nwb")
    return {"found": found, "misused": misused(folder), "idle": idle(folder)}


def misused(folder):
    """Use what MPI needs in ways that can't be; return the errors."""
    ways = {
        "no communicator": lambda: nwbflow.parallel.mpi("world"),
        "null communicator": lambda: nwbflow.parallel.mpi(MPI.COMM_NULL),
        "drop-in": lambda: nwbflow.NWBHDF5IO(folder / "x.nwb", "w", executor=nwbflow.parallel.mpi(COMM)),
    }
    found = {}
    for name, way in ways.items():
        try:
            way()
        except nwbflow.SettingsError as error:
            found[name] = [str(error.kind), str(error)]
    return found


def early(folder):
    """Raise on one rank before it comes to write."""
    if COMM.rank == 1:
        raise RuntimeError("rank 1 has no data")
    write(third(), folder / "early.nwb")


def idle(folder):
    """Measure what it costs to wait for a rank that is late, and for one that reads slowly."""
    COMM.Barrier()
    if COMM.rank == 0:
        time.sleep(1.0)
    began, worked = time.monotonic(), time.process_time()

    class Slow(Broken):
        def __getitem__(self, key):
            time.sleep(1.0)
            return self.array[key]

    write(third(wrap=lambda a: on(0, Slow(a, None), a)), folder / "idle.nwb")
    return {"waited": time.monotonic() - began, "worked": time.process_time() - worked}


if __name__ == "__main__":
    case, where = sys.argv[1], Path(sys.argv[2])
    result = globals()[case](where)
    (where / f"{case}-{COMM.rank}.json").write_text(json.dumps(result, default=str))
