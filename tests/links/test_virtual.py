"""Several datasets as one: read back by stock h5py from files that HDF5 made of our property lists."""

import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, LinkError, SettingsError, UnsupportedError
from nwbflow.links.names import escaped, unescaped
from nwbflow.links.virtual import (
    JoinedSource,
    creation_list,
    files_behind,
    joined_shape,
    missing_value,
    piece_of,
)
from nwbflow.sources.arrays import ArraySource


def make(path, name="d", shape=(4, 3), dtype="<i2", fill=7):
    with h5py.File(path, "a") as file:
        file[name] = np.full(shape, fill, dtype)
    return path, name


def virtual(path, pieces, axis=0):
    """Make a file with one virtual dataset, and return what stock h5py reads in it."""
    shape, _ = joined_shape(pieces, axis)
    with h5py.File(path, "w") as file:
        plan = creation_list(pieces, axis, path)
        missing = missing_value(pieces[0].dtype)
        fill = {} if missing is None else {"fillvalue": missing}
        file.create_dataset("x", shape, pieces[0].dtype, dcpl=plan, **fill)
    with h5py.File(path) as file:
        assert file["x"].is_virtual
        return file["x"][()]


@pytest.mark.requirement("X4")
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_random_parts_along_any_axis_are_read_as_the_whole(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("parts")
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple))
    axis = data.draw(st.integers(0, len(shape) - 1))
    dtype = data.draw(st.sampled_from(["<i2", ">i4", "u1", "<f4", ">f8", "?", "<c8"]))
    cuts = data.draw(st.sets(st.integers(1, shape[axis] - 1)) if shape[axis] > 1 else st.just(set()))
    whole = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    parts = np.split(whole, sorted(cuts), axis)
    for number, part in enumerate(parts):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["d"] = part
    pieces = [piece_of((folder / f"{number}.h5", "d")) for number in range(len(parts))]
    found = virtual(folder / "v.h5", pieces, axis)
    assert found.dtype == whole.dtype
    assert np.array_equal(found, whole)

    joined = JoinedSource([ArraySource(part) for part in parts], axis)
    lows = [data.draw(st.integers(0, n)) for n in shape]
    region = tuple(slice(low, data.draw(st.integers(low, n))) for low, n in zip(lows, shape, strict=True))
    assert joined.shape == shape
    assert np.array_equal(joined.read(region), whole[region])


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("name", ["plain.h5", "100%.h5", "a%b.h5", "%20b.h5", "c%%d.h5", "Grüße 1.h5", "a:b.h5"])
def test_names_that_hdf5_reads_as_patterns_are_found(tmp_path, name):
    piece = piece_of(make(tmp_path / name, "50%b"))
    assert virtual(tmp_path / "v.h5", [piece]).tolist() == [[7] * 3] * 4
    with h5py.File(tmp_path / "v.h5") as file:
        (source,) = file["x"].virtual_sources()
    assert unescaped(source.file_name) == name
    assert unescaped(source.dset_name) == "/50%b"
    assert unescaped(escaped(name)) == name


@pytest.mark.requirement("X4")
def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"r\xff.h5")
    make(path)
    with pytest.raises(UnsupportedError, match=r"no UTF-8.*rename"):
        piece_of((path, "d"))


@pytest.mark.requirement("X4")
def test_names_are_relative_to_the_linking_file(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    piece = piece_of(make(tmp_path / "src.h5"))
    assert virtual(tmp_path / "a" / "b" / "v.h5", [piece]).shape == (4, 3)
    with h5py.File(tmp_path / "a" / "b" / "v.h5") as file:
        assert file["x"].virtual_sources()[0].file_name == "../../src.h5"
    # all moved together, read from elsewhere
    (tmp_path / "new").mkdir()
    for name in ("a", "src.h5"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    monkeypatch.chdir(tmp_path)
    with h5py.File("new/a/b/v.h5") as file:
        assert file["x"][0, 0] == 7


@pytest.mark.requirement("X4")
def test_the_same_file_is_a_point(tmp_path):
    path, name = make(tmp_path / "one.h5")
    piece = piece_of((path, name))
    with h5py.File(path, "r+") as file:
        file.create_dataset("x", (4, 3), "<i2", dcpl=creation_list([piece], 0, path))
        assert file["x"].virtual_sources()[0].file_name == "."
    path.rename(tmp_path / "renamed.h5")
    with h5py.File(tmp_path / "renamed.h5") as file:
        assert file["x"][1, 1] == 7


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(("dtype", "missing"), [("<f4", np.nan), (">f8", np.nan), ("<i2", 0)])
def test_a_missing_source_reads_as_not_a_number_where_there_is_one(tmp_path, dtype, missing):
    piece = piece_of(make(tmp_path / "gone.h5", dtype=dtype))
    assert virtual(tmp_path / "v.h5", [piece])[0, 0] == 7
    (tmp_path / "gone.h5").unlink()
    with h5py.File(tmp_path / "v.h5") as file:
        np.testing.assert_array_equal(file["x"][()], np.full((4, 3), missing, dtype))


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("first", "second", "axis", "kind", "text"),
    [
        ({}, {"dtype": "<i4"}, 0, ErrorKind.DTYPE, r"two\.h5:/d \(number 1\) is of type <i4, .*one\.h5:/d of <i2"),
        ({}, {"dtype": ">i2"}, 0, ErrorKind.DTYPE, "of type >i2"),
        ({}, {"shape": (4, 2)}, 0, ErrorKind.SHAPE, r"shape \(4, 2\), .* has \(4, 3\); .* along axis 0 only"),
        ({}, {"shape": (5, 3)}, 1, ErrorKind.SHAPE, "along axis 1 only"),
        ({}, {"shape": (4,)}, 0, ErrorKind.SHAPE, r"has shape \(4,\)"),
        ({}, {"shape": (0, 3)}, 0, ErrorKind.SHAPE, "has no elements.*leave it out"),
    ],
)
def test_pieces_that_do_not_fit_are_named(tmp_path, first, second, axis, kind, text):
    pieces = [piece_of(make(tmp_path / "one.h5", **first)), piece_of(make(tmp_path / "two.h5", **second))]
    with pytest.raises(LinkError, match=text) as caught:
        joined_shape(pieces, axis)
    assert caught.value.kind is kind


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("axis", [2, -3, 0.0, None])
def test_an_axis_that_is_none_is_refused(tmp_path, axis):
    piece = piece_of(make(tmp_path / "one.h5"))
    with pytest.raises(SettingsError, match=r"has 2 axes, of shape \(4, 3\)"):
        joined_shape([piece], axis)
    assert joined_shape([piece, piece], -1) == ((4, 6), 1)


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["a", "b"], "holds text"),
        (np.zeros(2, [("a", "i2"), ("b", "f4")]), "only numbers"),
        (np.zeros(2, "S3"), "holds text"),
        (np.array([np.void(b"ab")]), "only numbers"),
    ],
)
def test_elements_that_are_no_numbers_are_refused(tmp_path, value, text):
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["d"] = value
    with pytest.raises(UnsupportedError, match=text) as caught:
        piece_of((tmp_path / "one.h5", "d"))
    assert caught.value.kind is ErrorKind.DTYPE


@pytest.mark.requirement("X4")
def test_references_enumerations_and_single_values_are_refused(tmp_path):
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file.create_dataset("reference", data=[file.ref], dtype=h5py.ref_dtype)
        file.create_dataset("enum", (3,), h5py.enum_dtype({"off": 0, "on": 1}, "i1"))
        file["scalar"] = 3
        file.create_group("group")
    for name in ("reference", "enum"):
        with pytest.raises(UnsupportedError, match="only numbers"):
            piece_of((tmp_path / "one.h5", name))
    with pytest.raises(LinkError, match="single value"):
        piece_of((tmp_path / "one.h5", "scalar"))
    with pytest.raises(LinkError, match="is a group"):
        piece_of((tmp_path / "one.h5", "group"))


@pytest.mark.requirement("X4")
def test_an_open_dataset_may_be_closed_afterwards(tmp_path):
    path, name = make(tmp_path / "one.h5")
    with h5py.File(path) as file:
        piece = piece_of(file[name])
    with piece.opened() as dataset:
        assert dataset[0, 0] == 7


@pytest.mark.requirement("X4")
def test_a_dataset_that_is_in_no_file_is_refused():
    with h5py.File("only in memory", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("d", data=[1, 2])
        with pytest.raises(LinkError, match="no such file"):
            piece_of(dataset)


@pytest.mark.requirement("X4")
def test_pieces_may_be_virtual_or_raw_themselves(tmp_path):
    np.arange(12, dtype="<i2").tofile(tmp_path / "rec.bin")
    make(tmp_path / "one.h5")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("d", (4, 3), "<i2", external=[(tmp_path / "rec.bin", 0, 24)])
    virtual(tmp_path / "inner.h5", [piece_of((tmp_path / "one.h5", "d")), piece_of((tmp_path / "raw.h5", "d"))])
    piece = piece_of((tmp_path / "inner.h5", "x"))
    assert {path.name for path in files_behind(piece)} == {"one.h5", "raw.h5", "rec.bin"}
    found = virtual(tmp_path / "outer.h5", [piece])
    assert found.ravel().tolist() == [7] * 12 + list(range(12))


@pytest.mark.requirement("X4")
def test_a_piece_whose_own_data_are_gone_is_refused(tmp_path):
    make(tmp_path / "one.h5")
    virtual(tmp_path / "inner.h5", [piece_of((tmp_path / "one.h5", "d"))])
    (tmp_path / "one.h5").rename(tmp_path / "moved.h5")
    with pytest.raises(LinkError, match=r"inner\.h5:/x is a virtual dataset of one\.h5, .* one\.h5 does not exist"):
        piece_of((tmp_path / "inner.h5", "x"))


@pytest.mark.requirement("X4")
def test_a_piece_over_a_raw_file_with_a_relative_name_is_refused(tmp_path):
    np.arange(12, dtype="<i2").tofile(tmp_path / "rec.bin")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("d", (4, 3), "<i2", external=[("rec.bin", 0, 24)])
    with pytest.raises(UnsupportedError, match=r"relative name, rec\.bin.*nwbflow links absolute"):
        piece_of((tmp_path / "raw.h5", "d"))


@pytest.mark.requirement("X4")
def test_datasets_that_consist_of_each_other_are_refused(tmp_path):
    # HDF5 would read them until its stack is full
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    for path, other in ((one, two), (two, one)):
        layout = h5py.VirtualLayout((4,), "i2")
        layout[:] = h5py.VirtualSource(other.name, "x", (4,))
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("x", layout)
    with pytest.raises(
        LinkError, match=r"one\.h5:/x is a virtual dataset of two\.h5.* its sources lead back to it"
    ) as caught:
        piece_of((one, "x"))
    assert caught.value.kind is ErrorKind.CYCLE
