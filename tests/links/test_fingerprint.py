"""Fingerprints: equal for equal content, different for one bit elsewhere, and honest about what was read."""

import itertools
import os

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links import fingerprint as module
from nwbflow.links.fingerprint import Pieces, fingerprint_dataset, fingerprint_raw, spread

pytestmark = pytest.mark.requirement("X5")

VALUES = np.random.default_rng(1).integers(-500, 500, (300, 7)).astype("<i2")


def kinds(folder, file):
    """One dataset of each way of storing, with the same content as far as it can be."""
    VALUES.tofile(folder / "raw.bin")
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(VALUES.shape)
    small = h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I16LE, space, compact)
    small.write(space, space, VALUES)
    file["contiguous"] = VALUES
    file.create_dataset("chunked", data=VALUES, chunks=(64, 4), compression=3, shuffle=True)
    file.create_dataset("checked", data=VALUES, chunks=(64, 4), fletcher32=True)
    layout = h5py.VirtualLayout(VALUES.shape, "<i2")
    layout[...] = h5py.VirtualSource(".", "contiguous", VALUES.shape)
    file.create_virtual_dataset("virtual", layout)
    file.create_dataset("raw", VALUES.shape, "<i2", external=[(str(folder / "raw.bin"), 0, VALUES.nbytes)])
    file["scalar"] = 5
    file["none"] = np.zeros((0, 4))
    file["texts"] = ["a", "bc", ""]
    file["text"] = "hello"
    file["fixed"] = np.array([b"abc", b"d"])
    file["references"] = np.array([file.ref, file["scalar"].ref, h5py.Reference()], dtype=h5py.ref_dtype)
    file["regions"] = np.array([file["contiguous"].regionref[:3]], dtype=h5py.regionref_dtype)
    lists = file.create_dataset("lists", (3,), h5py.vlen_dtype(np.int32))
    lists[0], lists[2] = [1, 2], [3]
    row = np.dtype([("start", "<i4"), ("name", h5py.string_dtype()), ("where", h5py.ref_dtype)])
    file.create_dataset("rows", data=np.array([(1, "x", file.ref), (2, "yy", file["scalar"].ref)], dtype=row))
    return list(file)


@pytest.mark.parametrize("method", ["full", "sampled"])
def test_the_same_content_has_the_same_fingerprint_wherever_it_lies(method, tmp_path):
    prints = []
    for at, extra in enumerate((0, 1000)):
        folder = tmp_path / str(at)
        folder.mkdir()
        with h5py.File(folder / "a.h5", "w", userblock_size=512 * at) as file:
            if extra:
                file["first"] = np.arange(extra)  # other addresses
            prints.append(
                {name: fingerprint_dataset(file[name], method) for name in kinds(folder, file) if name != "first"}
            )
    assert prints[0] == prints[1]
    assert {p.method for p in prints[0].values()} == {method}
    plain = {prints[0][name].digest for name in ("contiguous", "compact", "virtual", "raw")}
    assert len(plain) == 1  # the elements' bytes
    assert prints[0]["contiguous"].nbytes == VALUES.nbytes


def test_one_changed_element_is_another_fingerprint(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        names = [
            n for n in kinds(tmp_path, file) if n not in ("none", "virtual", "raw", "references", "regions", "rows")
        ]
        before = {name: fingerprint_dataset(file[name]).digest for name in names}
        for name in ("contiguous", "compact", "chunked", "checked"):
            file[name][150, 3] += 1
        file["scalar"][()] = 6
        file["texts"][1] = "b"
        file["text"][()] = "hellO"
        file["fixed"][1] = b"e"
        file["lists"][1] = [0]
        file.flush()
        after = {name: fingerprint_dataset(file[name]).digest for name in names}
    assert [name for name in names if before[name] == after[name]] == []


def test_references_count_by_what_they_lead_to(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        kinds(tmp_path, file)
        before = {name: fingerprint_dataset(file[name]).digest for name in ("references", "rows")}
        file["references"][0] = file["text"].ref
        file["rows"][0] = (1, "x", file["text"].ref)
        assert all(fingerprint_dataset(file[name]).digest != before[name] for name in before)


def test_shape_and_type_are_part_of_it(tmp_path):
    content = np.arange(12, dtype="<i4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        digests = {
            fingerprint_dataset(file.create_dataset(str(at), data=data)).digest
            for at, data in enumerate([content, content.reshape(3, 4), content.reshape(4, 3), content.view("<u4")])
        }
    assert len(digests) == 4


@pytest.mark.parametrize("chunks", [None, (1000,)])
def test_a_sample_sees_the_ends_and_says_that_it_is_one(chunks, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("x", data=np.zeros(10_000_000, "u1"), chunks=chunks)
        first = fingerprint_dataset(data, "sampled")
        assert (first.method, first.nbytes) == ("sampled", 10_000_000)
        assert fingerprint_dataset(data).method == "full"
        for where in (0, 9_999_999):
            data[where] = 1
            assert fingerprint_dataset(data, "sampled").digest != first.digest
            data[where] = 0
        data[100_000] = 1  # between the blocks read
        assert fingerprint_dataset(data, "sampled") == first
        assert fingerprint_dataset(data, "full").digest != first.digest


def test_auto_reads_large_content_in_part(tmp_path):
    path = tmp_path / "raw.bin"
    with path.open("wb") as file:
        file.truncate(10**12)  # a terabyte of nothing
    assert fingerprint_raw(path, 0, 10**12).method == "sampled"
    assert fingerprint_raw(path, 10, module.SMALL).method == "full"
    assert fingerprint_raw(path, 10, module.SMALL + 1).method == "sampled"
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        large = h5.create_dataset("x", (10**6, 10**6), "u1", external=[(str(path), 0, 10**12)])
        holes = h5.create_dataset("y", (10**6, 10**6), "u1", chunks=(1000, 1000))
        assert fingerprint_dataset(large).method == "sampled"
        assert fingerprint_dataset(holes).nbytes == 0


def test_a_stretch_of_a_raw_file_counts_and_nothing_around_it(tmp_path):
    path = tmp_path / "raw.bin"
    path.write_bytes(b"head" + bytes(range(200)) + b"tail")
    first = fingerprint_raw(path, 4, 200)
    path.write_bytes(b"HEAD" + bytes(range(200)) + b"TAIL and more")
    assert fingerprint_raw(path, 4, 200) == first
    assert fingerprint_raw(path, 5, 200) != first
    with pytest.raises(LinkError, match="too short: 217 bytes, but bytes 4 to 254") as caught:
        fingerprint_raw(path, 4, 250)
    assert caught.value.kind is ErrorKind.LENGTH


def test_what_cant_be_read_is_a_link_error(tmp_path):
    with pytest.raises(LinkError, match=r"none\.bin can't be read"):
        fingerprint_raw(tmp_path / "none.bin", 0, 1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("x", data=np.arange(1000), compression="gzip", chunks=(1000,))
        place = data.id.get_chunk_info(0)
    os.truncate(tmp_path / "a.h5", place.byte_offset + 10)
    with pytest.raises((LinkError, OSError)), h5py.File(tmp_path / "a.h5") as file:
        fingerprint_dataset(file["x"])


@given(st.lists(st.integers(0, 7), max_size=4), st.integers(1, 50))
def test_pieces_in_order_are_the_array_in_c_order(shape, most):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    pieces = Pieces(tuple(shape), most)
    cut = [array[region].ravel() for region in pieces]
    assert all(len(piece) <= most for piece in cut)
    assert np.array_equal(np.concatenate([*cut, np.zeros(0, int)]), array.ravel())
    assert len(cut) == len(pieces)


def test_blocks_are_spread_evenly():
    chosen = spread(1000)
    assert (len(chosen), chosen[0], chosen[-1]) == (64, 0, 999)
    gaps = {b - a for a, b in itertools.pairwise(chosen)}
    assert gaps <= {15, 16}
    assert spread(3) == [0, 1, 2]
    assert spread(0) == []
