"""Parts of data without the other ranks."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO as StockNWBHDF5IO
from support import session

import nwbflow

VALUES = np.arange(40_000, dtype=np.int32).reshape(10_000, 4)


@pytest.mark.parametrize(
    ("data", "start", "shape"),
    [
        (VALUES, 1, (10_000, 4)),
        (VALUES, -1, (20_000, 4)),
        (VALUES, (0, 1), (10_000, 4)),
        (VALUES, (0, 0, 0), (10_000, 4)),
        (VALUES, 0, (10_000,)),
        (np.int32(1), 0, ()),
    ],
)
def test_a_part_must_lie_in_the_whole(data, start, shape):
    with pytest.raises(nwbflow.SettingsError, match="doesn't lie in a dataset of shape") as raised:
        nwbflow.part(data, start=start, shape=shape)
    assert raised.value.kind == "parts"


def test_what_can_not_be_read_again_is_no_part():
    with pytest.raises(nwbflow.SettingsError, match="can't be read again") as raised:
        nwbflow.part(iter([1, 2]), start=0, shape=(2,))
    assert raised.value.kind == "option"


def test_a_part_counts_as_the_whole_and_gives_what_is_here():
    part = nwbflow.part(VALUES[2000:3000], start=2000, shape=VALUES.shape)
    assert (part.shape, len(part), part.dtype) == (VALUES.shape, 10_000, VALUES.dtype)
    assert np.array_equal(part[2500:2600, 1:3], VALUES[2500:2600, 1:3])
    assert part[2500, 2] == VALUES[2500, 2]
    with pytest.raises(nwbflow.SourceError, match=r"only \[2000:3000, 0:4\] .*parallel\.mpi"):
        part[1999:2001]


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: nwbflow.DataIO(data, codec="none")])
@pytest.mark.parametrize("rows", [5000, 10])  # nwbflow's to store, and small enough to be HDMF's
def test_a_part_alone_is_refused_and_the_old_file_kept(tmp_path, wrap, rows):
    path = tmp_path / "x.nwb"
    nwbflow.write(session(x=VALUES), path, progress=False)
    before = path.read_bytes()
    part = nwbflow.part(VALUES[:rows], start=0, shape=(2 * rows, 4))
    with pytest.raises(nwbflow.SourceError, match="parallel\\.mpi") as raised:
        nwbflow.write(session(x=wrap(part)), path, progress=False, overwrite=True)
    assert raised.value.kind == "parts"
    assert path.read_bytes() == before


def test_plain_pynwb_refuses_a_part_too(tmp_path):
    part = nwbflow.part(VALUES[:5000], start=0, shape=VALUES.shape)
    with StockNWBHDF5IO(tmp_path / "x.nwb", "w") as io, pytest.raises(nwbflow.SourceError, match="parallel"):
        io.write(session(x=part), cache_spec=False)


def test_a_part_that_is_all_needs_nobody(tmp_path):
    nwbflow.write(session(x=nwbflow.part(VALUES, start=0, shape=VALUES.shape)), tmp_path / "x.nwb", progress=False)
    with h5py.File(tmp_path / "x.nwb", "r") as file:
        assert np.array_equal(file["acquisition/x/data"][()], VALUES)


def test_without_a_library_of_mpi_the_way_to_one_is_said():
    pytest.importorskip("mpi4py")
    code = "import nwbflow\ntry: nwbflow.parallel.mpi(None)\nexcept nwbflow.UnsupportedError as e: print(e.kind, e)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "MPI4PY_LIBMPI": "/nowhere/libmpi.so"},
        check=True,
    )
    assert done.stdout.startswith('plugin MPI needs mpi4py and a library of MPI: pip install "nwbflow[mpi]"')
