"""What is stored, verified and refused at the file."""

import contextlib
import os

import h5py
import numpy as np
import pytest
import support

import nwbflow
from nwbflow.errors import ErrorKind, StorageError, TargetError
from nwbflow.model.encoding import Encoded
from nwbflow.sinks.hdf5 import Hdf5Sink
from nwbflow.sinks.staging import check_target

DATA = np.random.default_rng(5).random((4000, 8))


@pytest.mark.requirement("C2")
@pytest.mark.parametrize("verify", ["stored", "full"])
@pytest.mark.parametrize("codec", [("scaleoffset", 3), ("zfp", None), ("sperr", None)], ids=lambda codec: codec[0])
def test_codecs_that_change_values_are_not_taken_for_damage(codec, verify, tmp_path):
    """With no chunk cache, what is read back has been through the codec."""
    wrapper = nwbflow.DataIO(DATA, codec=codec if codec[1] else codec[0], chunks=(1000, 8))
    receipt = support.write_array(tmp_path / "x.h5", wrapper, verify=verify, rdcc_nbytes=0)
    assert any("may change values" in note for note in receipt.notes)
    np.testing.assert_allclose(support.read_array(tmp_path / "x.h5"), DATA, atol=0.1)


@pytest.mark.requirement("W6")
@pytest.mark.parametrize("verify", ["stored", "full"])
@pytest.mark.parametrize("codec", ["gzip", "none", "lzf"])
def test_a_damaged_chunk_is_found(codec, verify, tmp_path, monkeypatch):
    path, done = tmp_path / "x.h5", Hdf5Sink.put
    flip = Hdf5Sink.write

    def damaged_put(self, offset, chunk, /):
        data = bytearray(chunk.data)
        if offset == (2000, 0):
            data[len(data) // 2] ^= 1
        done(self, offset, Encoded(bytes(data), chunk.filter_mask))

    def damaged_write(self, region, data, /):
        data = data.copy()
        if region[0].start == 2000:
            data[500, 3] += 1
        flip(self, region, data)

    monkeypatch.setattr(Hdf5Sink, "put", damaged_put)
    monkeypatch.setattr(Hdf5Sink, "write", damaged_write)
    path.write_bytes(b"old")
    with pytest.raises(nwbflow.VerifyError, match=r"/x: .*\(2000, 0\)") as raised:
        support.write_array(path, nwbflow.DataIO(DATA, codec=codec, chunks=(1000, 8)), verify=verify)
    assert raised.value.kind is ErrorKind.MISMATCH
    assert path.read_bytes() == b"old"


def test_an_error_of_hdf5_names_dataset_and_chunk(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        sink = Hdf5Sink(file.create_dataset("x", (10, 10), "i2", chunks=(5, 5)))
        with pytest.raises(StorageError, match=r"/x: storing the chunk at \(3, 0\) failed") as raised:
            sink.put((3, 0), Encoded(bytes(50)))
    assert raised.value.kind is ErrorKind.IO


@pytest.mark.requirement("W6")
def test_a_link_is_followed_and_stays_a_link(tmp_path):
    real, link = tmp_path / "elsewhere" / "real.h5", tmp_path / "link.h5"
    real.parent.mkdir()
    real.write_bytes(b"old")
    link.symlink_to(real)
    support.write_array(link, DATA)
    assert link.is_symlink()
    np.testing.assert_array_equal(support.read_array(real), DATA)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["elsewhere", "link.h5", "real.h5"]


@pytest.mark.requirement("W6")
def test_the_new_file_has_the_old_one_s_permissions(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(b"old")
    path.chmod(0o640)
    support.write_array(path, DATA)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.requirement("W6")
def test_a_link_with_the_partial_s_name_is_not_written_through(tmp_path):
    """Opening it as the new file would empty whatever it points to."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "x.h5.partial").symlink_to(precious)
    with contextlib.suppress(TargetError):
        support.write_array(tmp_path / "x.h5", DATA)
    assert precious.read_bytes() == b"precious"


@pytest.mark.requirement("W6")
def test_a_pipe_with_the_partial_s_name_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "x.h5.partial")
    with pytest.raises(TargetError):
        check_target(tmp_path / "x.h5", overwrite=True)
