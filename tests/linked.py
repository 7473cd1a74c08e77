"""Files with links, made by plain h5py, with the records nwbflow keeps; and what stock h5py reads through them."""

import atexit
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

from nwbflow.links.fingerprint import fingerprint_dataset, fingerprint_raw
from nwbflow.links.records import record, record_of, write_record
from nwbflow.links.targets import target_of

HERE = Path(__file__).parent
VALUES = np.random.default_rng(8).integers(-900, 900, (120, 6)).astype("<i2")


def recording(path, values=VALUES, name="probe", **settings):
    """Make an HDF5 file with one dataset as a recording has it; return its path inside."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        data = file.create_dataset(f"acquisition/{name}/data", data=values, **settings)
        data.attrs.update({"unit": "V", "conversion": 2.5e-6, "resolution": np.nan})
    return f"/acquisition/{name}/data"


def external(file, path, target, inside, *, recorded=True, absolute=False):
    """Put an external link into an open file."""
    folder = Path(file.filename).parent
    name = str(Path(target).absolute()) if absolute else os.path.relpath(target, folder)
    group = file.require_group(os.path.dirname(path) or "/")
    group[os.path.basename(path)] = h5py.ExternalLink(name, inside)
    if recorded:
        found = target_of((target, inside))
        with found.opened() as dataset:
            write_record(
                group, os.path.basename(path), record_of(found, {f"{name}:{inside}": fingerprint_dataset(dataset)})
            )


def virtual(file, path, sources, *, recorded=True, absolute=False, shape=VALUES.shape):
    """Put sources of equal shape, one after the other, into an open file as a virtual dataset."""
    layout = h5py.VirtualLayout((shape[0] * len(sources), *shape[1:]), "<i2")
    prints = {}
    for at, (target, inside) in enumerate(sources):
        name = str(Path(target).absolute()) if absolute else os.path.relpath(target, Path(file.filename).parent)
        layout[at * shape[0] : (at + 1) * shape[0]] = h5py.VirtualSource(name, inside, shape)
        with target_of((target, inside)).opened() as dataset:
            prints[f"{name}:{inside}"] = fingerprint_dataset(dataset)
    dataset = file.create_virtual_dataset(path, layout, fillvalue=-1)
    dataset.attrs["unit"] = "mV"
    if recorded:
        write_record(dataset, "", record(dataset.shape, dataset.dtype, prints))
    return dataset


def raw(file, path, target, shape=VALUES.shape, *, recorded=True, absolute=False, offset=0):
    """Put a stretch of a raw file of int16 into an open file as a dataset."""
    name = str(Path(target).absolute()) if absolute else os.path.relpath(target, Path(file.filename).parent)
    nbytes = int(np.prod(shape)) * 2
    dataset = file.create_dataset(path, shape, "<i2", external=[(name, offset, nbytes)])
    dataset.attrs["unit"] = "uV"
    if recorded:
        write_record(dataset, "", record(shape, dataset.dtype, {name: fingerprint_raw(target, offset, nbytes)}))
    return dataset


@functools.cache
def _reader():
    """A process of its own, without nwbflow, that reads until the tests end."""
    env = {**os.environ, "HDF5_EXTFILE_PREFIX": "${ORIGIN}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    reader = subprocess.Popen([sys.executable, str(HERE / "linked_content.py")], env=env, cwd="/", **pipes)

    def end():
        reader.stdin.close()
        reader.stdout.close()
        reader.wait()

    atexit.register(end)
    return reader


def content(*paths):
    """Return what stock h5py, in a process of its own, reads in each file, through all its links."""
    found = []
    for path in paths:
        reader = _reader()
        reader.stdin.write(json.dumps(str(path)) + "\n")
        reader.stdin.flush()
        answer = json.loads(reader.stdout.readline())
        assert not isinstance(answer, str), answer
        found.append(answer)
    return found
