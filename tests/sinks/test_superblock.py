"""The superblock: read without HDF5, compared with what h5py wrote, and set right for what stock h5py then opens."""

import os
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, StorageError, UnsupportedError
from nwbflow.sinks.superblock import lookup3, mend_superblock, read_superblock

LIBVERS = [("earliest", 0), (("v108", "v108"), 2), (("v110", "v110"), 3), ("latest", 3)]
OPEN, FOLLOWED = 1, 4


def make(path, libver, **options):
    with h5py.File(path, "w", libver=libver, **options) as file:
        file["x"] = np.arange(1000)


@pytest.mark.parametrize(("libver", "version"), LIBVERS)
@pytest.mark.parametrize("userblock", [0, 512, 4096])
def test_what_h5py_wrote_is_read(tmp_path, libver, version, userblock):
    path = tmp_path / "x.h5"
    make(path, libver, userblock_size=userblock)
    found = read_superblock(path)
    assert (found.version, found.start, found.base, found.flags) == (version, userblock, userblock, 0)
    assert found.end == path.stat().st_size
    assert found.sound
    assert (found.checksum is None) == (version < 2)
    assert found.problems(path.stat().st_size) == ()
    assert found.mended(path.stat().st_size) == found.raw


@pytest.mark.parametrize("sizes", [(4, 4), (8, 8), (4, 8)])
def test_short_addresses(tmp_path, sizes):
    plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plist.set_sizes(*sizes)
    path = tmp_path / "x.h5"
    h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, plist).close()
    found = read_superblock(path)
    assert found.address_bytes == sizes[0]
    assert found.problems(path.stat().st_size) == ()
    assert found.mended(path.stat().st_size) == found.raw


@given(st.binary(max_size=60), st.binary(max_size=3))
def test_the_sum_tells_any_two_texts_apart_that_were_tried(data, more):
    assert (lookup3(data) == lookup3(data + more)) == (not more)


def test_the_sum_of_published_examples():
    """Of the author's own self-test: driver5 in lookup3.c."""
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"", 0xDEADBEEF) == 0xBD5B7DDE
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    assert lookup3(b"Four score and seven years ago", 1) == 0xCD628161


CRASH = """
import os, signal, sys
import h5py, numpy as np
path, libver, swmr = sys.argv[1], sys.argv[2], sys.argv[3] == "swmr"
libver = "earliest" if libver == "earliest" else (libver, libver) if libver.startswith("v") else libver
with h5py.File(path, "w", libver=libver) as file:
    file.create_dataset("x", (0, 100), maxshape=(None, 100), chunks=(100, 100), dtype="i8")
file = h5py.File(path, "r+", libver=libver)
file.swmr_mode = swmr
for n in range(1, 31):
    file["x"].resize(n * 100, axis=0)
    file["x"][-100:] = np.arange((n - 1) * 10_000, n * 10_000).reshape(100, 100)
    file["x"].flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("libver", ["v110", "latest"])
def test_a_killed_writer_in_swmr_mode_leaves_all_flushed_rows(tmp_path, libver):
    path = tmp_path / "x.h5"
    done = subprocess.run([sys.executable, "-c", CRASH, path, libver, "swmr"], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(path, "r")
    old, size = path.read_bytes(), path.stat().st_size
    found = read_superblock(path)
    assert found.flags == OPEN | FOLLOWED
    assert found.marked
    problems = mend_superblock(path)
    assert any("marked as open" in text for text in problems)
    new = path.read_bytes()
    assert (len(new), new[48:]) == (size, old[48:])  # nothing but the superblock
    assert mend_superblock(path) == ()
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["x"], np.arange(300_000).reshape(3000, 100))


@pytest.mark.parametrize(("libver", "version"), LIBVERS)
def test_a_file_that_was_cut_off_opens_and_lacks_what_is_missing(tmp_path, libver, version):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("x", data=np.arange(1, 100_001), chunks=(1000,))
    whole = path.stat().st_size
    with h5py.File(path, "r") as file:
        last = max((file["x"].id.get_chunk_info(n) for n in range(100)), key=lambda found: found.byte_offset)
    if last.byte_offset + last.size < whole - 100:  # metadata behind the chunks would be lost: not what is tested here
        pytest.skip("the chunks are not at the end")
    os.truncate(path, whole - 4000)
    with pytest.raises(OSError, match="truncated"):
        h5py.File(path, "r")
    problems = mend_superblock(path)
    assert problems == (f"it is cut off: {whole - 4000} bytes, of {whole} that it says it has",)
    assert path.stat().st_size == whole - 4000
    with h5py.File(path, "r") as file:
        begin = last.chunk_offset[0]
        np.testing.assert_array_equal(file["x"][:begin], np.arange(1, begin + 1))
        with pytest.raises(OSError, match="read"):  # and no zeros
            file["x"][begin : begin + 1000]


@pytest.mark.parametrize("at", [9, 11, 30, 47])
def test_a_changed_bit_is_seen(tmp_path, at):
    path = tmp_path / "x.h5"
    make(path, "latest")
    data = bytearray(path.read_bytes())
    data[at] ^= 4 if at != 9 else 8 ^ 4  # 8 bytes' addresses become 4 bytes'
    path.write_bytes(data)
    assert not read_superblock(path).sound


@pytest.mark.parametrize("content", [b"", b"hello", bytes(5000)])
def test_no_hdf5(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(UnsupportedError, match="not an HDF5 file") as caught:
        read_superblock(path)
    assert caught.value.kind is ErrorKind.NOT_HDF5


@pytest.mark.parametrize(("libver", "version"), LIBVERS)
def test_cut_within_the_superblock(tmp_path, libver, version):
    path, part = tmp_path / "x.h5", tmp_path / "part.h5"
    make(path, libver)
    for length in range(8, len(read_superblock(path).raw)):
        shutil.copy(path, part)
        os.truncate(part, length)
        with pytest.raises(StorageError, match="ends within its superblock"):
            read_superblock(part)


def test_a_version_nobody_knows(tmp_path):
    path = tmp_path / "x.h5"
    make(path, "latest")
    data = bytearray(path.read_bytes())
    data[8] = 9
    path.write_bytes(data)
    with pytest.raises(UnsupportedError, match="version 9"):
        read_superblock(path)


def test_lengths_that_can_not_be(tmp_path):
    path = tmp_path / "x.h5"
    make(path, "latest")
    data = bytearray(path.read_bytes())
    data[9] = 7
    path.write_bytes(data)
    with pytest.raises(StorageError, match="addresses have 7 bytes"):
        read_superblock(path)


def test_no_such_file(tmp_path):
    with pytest.raises(StorageError):
        read_superblock(tmp_path / "none.h5")
