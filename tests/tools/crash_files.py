"""Crash files as other programs leave them: plain PyNWB and h5py, killed by SIGKILL at a seeded block.

``python crash_files.py FOLDER SEED`` makes each of them, mends it, and prints what came of it. A writer says before it
dies how many rows it had written, and how many of them it had flushed, and kills itself.
"""

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pynwb
from hdmf.backends.hdf5 import H5DataIO
from hdmf.data_utils import DataChunkIterator

ROWS, CHANNELS, BLOCKS = 500, 4, 60
"""Of one block, of the series, and blocks that are to come."""
SERIES, DATA, TIMES = "acquisition/ES", "/acquisition/ES/data", "/acquisition/ES/timestamps"


def rows(start, stop):
    """Rows that tell where they are from: any mixture is seen."""
    index = np.arange(start, stop)
    return ((index[:, None] * 7 + np.arange(CHANNELS) * 31) % 30011 + 1).astype("int16")


def times(start, stop):
    return (np.arange(start, stop) + 1) / 1000.0


def session(data, timestamps, *, earlier=False):
    nwbfile = pynwb.NWBFile("a session", "id-1", datetime(2024, 5, 1, tzinfo=UTC))
    device = nwbfile.create_device("probe")
    group = nwbfile.create_electrode_group("shank", description="one", location="CA1", device=device)
    for _ in range(CHANNELS):
        nwbfile.add_electrode(group=group, location="CA1")
    nwbfile.add_trial(start_time=0.0, stop_time=1.0)
    region = nwbfile.create_electrode_table_region(list(range(CHANNELS)), "all")
    if data is not None:
        nwbfile.add_acquisition(pynwb.ecephys.ElectricalSeries("ES", data, region, timestamps=timestamps))
    if earlier:
        nwbfile.add_acquisition(pynwb.TimeSeries("Earlier", data=rows(0, 20_000), unit="V", rate=1000.0))
    return nwbfile


def empty(shape):
    chunks = (ROWS, *shape[1:])
    return H5DataIO(np.empty(shape, "int16" if len(shape) > 1 else "f8"), maxshape=(None, *shape[1:]), chunks=chunks)


def die(written, flushed):
    print(json.dumps({"written": written, "flushed": flushed}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def blocks(stop_at, *, size=ROWS, on_reach=None):
    for block in range(BLOCKS):
        if block == stop_at:
            on_reach(block * size)
        yield rows(block * size, (block + 1) * size)


def pynwb_write(path, seed, **options):
    """Plain write of an array, killed by a thread while it goes on."""
    data = H5DataIO(rows(0, 2_000_000), chunks=(10_000, CHANNELS), compression="gzip")
    threading.Thread(target=lambda: (time.sleep(0.05 + seed % 7 / 20), die(2_000_000, 0)), daemon=True).start()
    with pynwb.NWBHDF5IO(path, "w", **options) as io:
        io.write(session(data, times(0, 2_000_000)))
    time.sleep(60)


def pynwb_iterator(path, seed, **options):
    """A generator of blocks that dies with the process."""
    at = random.Random(seed).randrange(5, BLOCKS)
    size = 20_000  # more than HDMF's cache of 32 MiB would hold is not needed: nothing is flushed anyway
    source = blocks(at, size=size, on_reach=lambda written: die(written, 0))
    data = DataChunkIterator(data=(row for block in source for row in block), buffer_size=1000)
    with pynwb.NWBHDF5IO(path, "w", **options) as io:
        io.write(session(data, times(0, size * BLOCKS)))


def _append(path, seed, libver, *, swmr=False, flush_every=1, new=True):
    """Append blocks to a file that PyNWB laid out, and die between two of them, or between data and time stamps."""
    if new:
        with pynwb.NWBHDF5IO(path, "w") if libver is None else h5py.File(path, "w", libver=libver) as target:
            io = target if libver is None else pynwb.NWBHDF5IO(file=target, mode="w")
            io.write(session(empty((0, CHANNELS)), empty((0,))))
    chance = random.Random(seed)
    last, between = chance.randrange(10, BLOCKS), chance.random() < 0.7
    file = h5py.File(path, "r+", libver=libver)
    data, stamps = file[DATA], file[TIMES]
    if swmr:
        file.swmr_mode = True
    flushed = 0
    for block in range(BLOCKS):
        start, stop = block * ROWS, (block + 1) * ROWS
        for dataset, values in ((data, rows(start, stop)), (stamps, times(start, stop))):
            dataset.resize(stop, axis=0)
            dataset[start:stop] = values
            if (block + 1) % flush_every == 0:
                (dataset if swmr else file).flush()
            if block == last and between:
                die(stop, flushed)
        if (block + 1) % flush_every == 0:
            flushed = stop
        if block == last:
            die(stop, flushed)


def h5py_earliest(path, seed):
    _append(path, seed, None)


def h5py_latest(path, seed):
    _append(path, seed, "latest")


def h5py_swmr(path, seed):
    """Plain h5py all along: no NWB file at all."""
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group(SERIES)
        group.create_dataset("data", (0, CHANNELS), "int16", maxshape=(None, CHANNELS), chunks=(ROWS, CHANNELS))
        group.create_dataset("timestamps", (0,), "f8", maxshape=(None,), chunks=(ROWS,))
    _append(path, seed, "latest", swmr=True, new=False)


def pynwb_swmr(path, seed):
    _append(path, seed, "latest", swmr=True, flush_every=3)


def pynwb_append(path, seed, **options):
    """Mode "a": more is added to a good file, and the process dies while it is written."""
    with pynwb.NWBHDF5IO(path, "w", **options) as io:
        io.write(session(None, None, earlier=True))
    at = random.Random(seed).randrange(5, BLOCKS)
    with pynwb.NWBHDF5IO(path, "a", **options) as io:
        nwbfile = io.read()
        source = blocks(at, size=20_000, on_reach=lambda written: die(written, 0))
        data = DataChunkIterator(data=(row for block in source for row in block), buffer_size=1000)
        nwbfile.add_acquisition(pynwb.TimeSeries("ES", data=data, unit="V", rate=1000.0))
        io.write(nwbfile)


def full_disk(path, seed):
    """A SWMR recording whose disk fills up; a limit on the size of files does what a disk does."""
    limit = random.Random(seed).randrange(500_000, 700_000)
    with h5py.File(path, "w", libver="latest") as target:
        pynwb.NWBHDF5IO(file=target, mode="w").write(session(empty((0, CHANNELS)), empty((0,))))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    file = h5py.File(path, "r+", libver="latest")
    data, stamps = file[DATA], file[TIMES]
    file.swmr_mode = True
    flushed = 0
    for block in range(10**6):
        start, stop = block * ROWS, (block + 1) * ROWS
        try:
            for dataset, values in ((data, rows(start, stop)), (stamps, times(start, stop))):
                dataset.resize(stop, axis=0)
                dataset[start:stop] = values
                dataset.flush()
        except (OSError, RuntimeError):
            die(stop, flushed)
        flushed = stop


def pynwb_raises(path, seed):
    """No kill: the source fails, and PyNWB closes the file as it is."""
    at = random.Random(seed).randrange(5, BLOCKS)

    def fail(written):
        print(json.dumps({"written": written, "flushed": 0}), flush=True)
        raise RuntimeError("the amplifier is gone")

    source = blocks(at, size=1000, on_reach=fail)
    data = DataChunkIterator(data=(row for block in source for row in block), buffer_size=1000)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(session(data, times(0, 1000 * BLOCKS)))


def _cut(path, part, **layout):
    total = ROWS * BLOCKS
    data = H5DataIO(rows(0, total), **layout)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(session(data, times(0, total)))
    os.truncate(path, int(os.path.getsize(path) * part))
    die(total, 0)


def cut_copy(path, seed):
    """A copy that was interrupted: the last of the file is missing."""
    _cut(path, random.Random(seed).uniform(0.5, 0.97), chunks=(ROWS, CHANNELS), compression="gzip")


def cut_recording(path, seed):
    """A copy of a finished recording of h5py, interrupted: metadata at the front, rows behind them."""
    with h5py.File(path, "w", libver="latest") as target:
        pynwb.NWBHDF5IO(file=target, mode="w").write(session(empty((0, CHANNELS)), empty((0,))))
    with h5py.File(path, "r+", libver="latest") as file:
        total = ROWS * BLOCKS
        for block in range(BLOCKS):
            start, stop = block * ROWS, (block + 1) * ROWS
            for dataset, values in ((file[DATA], rows(start, stop)), (file[TIMES], times(start, stop))):
                dataset.resize(stop, axis=0)
                dataset[start:stop] = values
                dataset.flush()
    os.truncate(path, int(os.path.getsize(path) * random.Random(seed).uniform(0.6, 0.95)))
    die(total, 0)


CASES = {
    "pynwb-write": pynwb_write,
    "pynwb-iterator": pynwb_iterator,
    "h5py-earliest": h5py_earliest,
    "h5py-latest": h5py_latest,
    "h5py-swmr": h5py_swmr,
    "pynwb-swmr": pynwb_swmr,
    "pynwb-append": pynwb_append,
    "full-disk": full_disk,
    "pynwb-raises": pynwb_raises,
    "cut-copy": cut_copy,
    "cut-recording": cut_recording,
}


def make(case, path, seed=0):
    """Make a crash file in a forked process; return rows written and flushed. Only where there are no threads."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.dup2(writing, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            CASES[case](str(path), seed)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as file:
        told = json.loads(file.readline())
    os.waitpid(process, 0)
    return told["written"], told["flushed"]


def run(folder, seed):
    """Make every case, mend it, and print what came of each as one line of JSON."""
    from nwbflow.errors import NwbflowError
    from nwbflow.tools.mend.mend import mend

    for case in CASES:
        path = Path(folder) / f"{case}.nwb"
        written, flushed = make(case, path, seed)
        before = path.read_bytes()
        told = {"case": case, "seed": seed, "written": written, "flushed": flushed, "path": str(path)}
        try:
            found = mend(path, path.with_name(f"{case}.recovered.nwb"))
        except NwbflowError as error:
            found = {"error": str(error).partition(": ")[2], "fine": False}
        print(json.dumps(told | found | {"untouched": path.read_bytes() == before}), flush=True)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    run(sys.argv[1], int(sys.argv[2]))
