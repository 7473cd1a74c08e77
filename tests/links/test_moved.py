"""Datasets whose elements lie elsewhere, made anew in another folder: stock h5py reads the same elements."""

import h5py
import numpy as np
import pytest

from nwbflow.errors import UnsupportedError
from nwbflow.links.moved import moved
from nwbflow.links.names import escaped

WHOLE = np.arange(60, dtype="<i2").reshape(12, 5)


@pytest.fixture
def folders(tmp_path):
    """A folder with sources and one to move to, whose names HDF5 could take for patterns."""
    old, new = tmp_path / "50%", tmp_path / "a" / "new%b"
    old.mkdir()
    new.mkdir(parents=True)
    WHOLE.tofile(old / "rec.bin")
    with h5py.File(old / "src.h5", "w") as file:
        file["d"] = WHOLE
    return old, new


def again(path, name, target):
    """Make a dataset of `path` again in the file `target`; return what was found out, and its elements there."""
    with h5py.File(path) as file:
        found = moved(file[name], target)
        if found is None:
            return None
        with h5py.File(target, "w") as copy:
            copy.create_dataset(name, **found.create)
    with h5py.File(target) as copy:
        return found, copy[name][()], copy[name].fillvalue


def virtual(path, fill=None):
    """Make a virtual dataset of parts of others: in reverse, with gaps, of a file beside it and of itself."""
    layout = h5py.VirtualLayout((10, 5), "<i2")
    source = h5py.VirtualSource("src.h5", "d", (12, 5))
    layout[0:2] = source[10:12]
    layout[2:8:2] = source[1:7:2]
    layout[8, 1:4] = h5py.VirtualSource(".", "own", (3,))
    with h5py.File(path, "w") as file:
        file["own"] = np.array([-1, -2, -3], "<i2")
        file.create_virtual_dataset("x", layout, fillvalue=fill)


@pytest.mark.requirement("X3")
@pytest.mark.parametrize("fill", [None, -9])
def test_parts_of_datasets_stay_the_same_parts(folders, fill):
    old, new = folders
    virtual(old / "v.h5", fill)
    with h5py.File(old / "v.h5") as file:
        expected = file["x"][()]
    assert expected[8].tolist() == [fill or 0, -1, -2, -3, fill or 0]
    found, elements, filled = again(old / "v.h5", "x", new / "v.h5")
    assert filled == (fill or 0)
    with h5py.File(new / "v.h5", "r+") as file:
        assert [s.file_name for s in file["x"].virtual_sources()] == ["../../50%%/src.h5"] * 2 + ["."]
        file["own"] = np.array([-1, -2, -3], "<i2")  # the other datasets are copied too
    with h5py.File(new / "v.h5") as file:
        assert np.array_equal(file["x"][()], expected)
    assert found.where == "../../50%%/src.h5:d and 2 more (virtual)"
    assert np.array_equal(elements[:8], expected[:8])


@pytest.mark.requirement("X3")
def test_raw_files_stay_the_same_files(folders, monkeypatch):
    old, new = folders
    with h5py.File(old / "r.h5", "w") as file:
        file.create_dataset("x", (12, 5), "<i2", external=[("rec.bin", 0, 60), (old / "rec.bin", 60, 60)])
    monkeypatch.chdir(new)  # stock readers count from there
    found, elements, _ = again(old / "r.h5", "x", new / "r.h5")
    assert np.array_equal(elements, WHOLE)
    assert found.create["external"] == [("../../50%/rec.bin", 0, 60), (str(old / "rec.bin"), 60, 60)]
    assert found.record is None


@pytest.mark.requirement("X3")
def test_what_hdf5_copies_right_is_left_to_it(folders):
    old, new = folders
    layout = h5py.VirtualLayout((12, 5), "<i2")
    layout[:] = h5py.VirtualSource(escaped(str(old / "src.h5")), "d", (12, 5))
    virtual(old / "beside.h5")
    with h5py.File(old / "v.h5", "w") as file:
        file["plain"] = WHOLE
        file.create_dataset("raw", (12, 5), "<i2", external=[(old / "rec.bin", 0, 120)])
    for name in ("plain", "raw"):
        assert again(old / "v.h5", name, new / "v.h5") is None
    assert again(old / "beside.h5", "x", old / "other.h5") is None


@pytest.mark.requirement("X3")
def test_what_grows_with_its_sources_is_refused(folders):
    old, new = folders
    layout = h5py.VirtualLayout((12, 5), "<i2", maxshape=(None, 5))
    source = h5py.VirtualSource("src.h5", "d", (12, 5), maxshape=(None, 5))
    layout[0 : h5py.h5s.UNLIMITED] = source[0 : h5py.h5s.UNLIMITED]
    with h5py.File(old / "v.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    with pytest.raises(UnsupportedError, match=r"can grow with the files.*links absolute"):
        again(old / "v.h5", "x", new / "v.h5")
