"""Writing anew what could be destroyed or lost on the way: linked files, leftovers, types and names of other worlds."""

import subprocess
import sys

import h5py
import numpy as np
import pynwb
import pytest
from h5py import h5d, h5s, h5t
from support import session, write_nwb

import nwbflow
from nwbflow.errors import ErrorKind

pytestmark = pytest.mark.requirement("T1")

SAMPLES = np.arange(500, dtype="i2")


def repack(source, target, **more):
    return nwbflow.repack(source, target, **{"progress": False, **more})


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.nwb"
    write_nwb(session(x=SAMPLES), path, pynwb.NWBHDF5IO)
    return path


@pytest.fixture
def linking(source, tmp_path):
    """A file that links to one that links to the source."""
    for name, to in {"middle.nwb": "source.nwb", "linking.nwb": "middle.nwb"}.items():
        write_nwb(session(y=SAMPLES), tmp_path / name, pynwb.NWBHDF5IO)
        with h5py.File(tmp_path / name, "r+") as file:
            file["external"] = h5py.ExternalLink(to, "/external" if to == "middle.nwb" else "/acquisition/x")
    return tmp_path / "linking.nwb"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("links", ["keep", "embed"])
@pytest.mark.parametrize("name", ["middle.nwb", "source.nwb"])
def test_what_the_source_links_to_is_never_replaced(name, links, linking, tmp_path):
    before = files(tmp_path)
    with pytest.raises(nwbflow.TargetError, match=f"links to .*{name}") as caught:
        repack(linking, tmp_path / name, links=links, overwrite=True)
    assert caught.value.kind is ErrorKind.EXISTS
    assert files(tmp_path) == before


def test_a_file_where_copies_are_to_be_made_is_not_removed(linking, tmp_path):
    (tmp_path / "out.nwb.embedded").write_text("precious")
    with pytest.raises(nwbflow.TargetError, match=r"exists.*overwrite=True"):
        repack(linking, tmp_path / "out.nwb", links="embed")
    assert (tmp_path / "out.nwb.embedded").read_text() == "precious"
    repack(linking, tmp_path / "out.nwb", links="embed", overwrite=True)
    assert not (tmp_path / "out.nwb.embedded").exists()


@pytest.mark.parametrize("name", ["out.nwb.embedded", "out.nwb.partial"])
def test_a_source_with_a_name_that_is_needed_stays(name, linking, tmp_path):
    linking.rename(tmp_path / name)
    before = files(tmp_path)
    with pytest.raises(nwbflow.TargetError, match="a name that is needed"):
        repack(tmp_path / name, tmp_path / "out.nwb", links="embed", overwrite=True)
    assert files(tmp_path) == before


def test_a_folder_with_the_source_in_it_is_no_target(source, tmp_path):
    with pytest.raises(nwbflow.TargetError, match="give the name of a new file") as caught:
        repack(source, tmp_path, overwrite=True)
    assert caught.value.kind is ErrorKind.FOLDER


def three_bytes(file):
    """Integers of three bytes, which NumPy does not have."""
    kind = h5t.STD_I32LE.copy()
    kind.set_precision(24)
    kind.set_size(3)
    made = h5d.create(file["odd"].id, b"three bytes", kind, h5s.create_simple((4,)))
    made.write(h5s.ALL, h5s.ALL, np.array([1, -2, 3, -4], "i4"))


@pytest.fixture
def odd(source):
    with h5py.File(source, "r+") as file:
        group = file.create_group("odd")
        three_bytes(file)
        group["fixed"] = np.array([b"\xff\xfe"])
        group.create_dataset("any length", data=[b"\xff\xfe", b"b"], dtype=h5py.string_dtype())
        group.attrs["latin"] = np.bytes_(b"\xff")
        group["type"] = np.dtype("i4")
        group["type"].attrs["leads to"] = file["acquisition/x"].ref
        group.create_dataset("to a type", data=group["type"].ref, dtype=h5py.ref_dtype)
        group.create_dataset("to nothing", (3,), h5py.ref_dtype)
        group["of complex numbers"] = [1j]
        group["soft"] = h5py.SoftLink("of complex numbers")
        group.attrs["grid"] = np.array([["a", "ü"], ["c", "d"]], h5py.string_dtype())
    return source


READ = """
import h5py, sys
import numpy as np
with h5py.File(sys.argv[1]) as file:
    odd = file["odd"]
    numbers = odd["three bytes"].id
    raw = np.empty(4, "V3")
    numbers.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=numbers.get_type())
    print(raw.tobytes().hex(), odd["fixed"][0], odd["any length"][0], odd.attrs.get_id("latin").get_type().get_size())
    print(file[odd["type"].attrs["leads to"]].name, file[odd["to a type"][()]].name)
"""


def test_what_h5py_can_not_read_is_copied_between_files(odd, tmp_path):
    done = repack(odd, tmp_path / "out.nwb")
    assert (done.lost, done.changed) == ((), ())
    read = [
        subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True).stdout
        for path in (odd, tmp_path / "out.nwb")
    ]
    assert read[0] == read[1]
    assert "/acquisition/x /odd/type" in read[1]


def test_the_same_is_told_of_on_the_way_to_a_store(odd, tmp_path):
    done = repack(odd, tmp_path / "out.nwb.zarr")
    lost = {one.place.removeprefix("/odd"): one.text for one in done.lost}
    assert {"/three bytes", "/fixed", "/any length", "@latin", "/type", "/of complex numbers", "/soft"} <= set(lost)
    assert "NumPy" in lost["/three bytes"]
    assert "not UTF-8" in lost["/fixed"]
    assert lost["/soft"].endswith("which is left out")
    assert [one.place for one in done.lost].count("/odd/to nothing") == 1
    back = repack(tmp_path / "out.nwb.zarr", tmp_path / "back.nwb")
    assert (back.lost, back.changed) == ((), ())
    with h5py.File(tmp_path / "back.nwb") as file:
        assert file["odd"].attrs["grid"].tolist() == [["a", "ü"], ["c", "d"]]


@pytest.mark.parametrize("name", ["zarr.json", "a\\b"])
def test_names_that_a_store_can_not_have_are_refused(name, source, tmp_path):
    with h5py.File(source, "r+") as file:
        file[f"laboratory/{name}/x"] = 1
    with pytest.raises(nwbflow.UnsupportedError, match=r"/laboratory/.*\n.*copy"):
        repack(source, tmp_path / "out.nwb.zarr")
    assert not list(tmp_path.glob("out*"))
    assert repack(source, tmp_path / "out.nwb").complete


def test_an_order_of_names_that_a_store_can_not_keep_is_told_of(source, tmp_path):
    with h5py.File(source, "r+") as file:
        group = file.create_group("zoo", track_order=True)
        group["zebra"], group["ant"] = 1, 2
    done = repack(source, tmp_path / "out.nwb.zarr")
    assert [str(one) for one in done.changed] == ["/zoo: names in it are in the order of the alphabet now"]


@pytest.mark.parametrize("name", ["out.nwb", "out.nwb.zarr"])
def test_a_small_dataset_that_cannot_be_read_is_named(name, source, tmp_path):
    with h5py.File(source, "r+") as file:
        small = file.create_dataset("small", data=np.arange(500) % 7, compression="gzip", chunks=(100,))
        place = small.id.get_chunk_info(1)
    with source.open("r+b") as file:
        file.seek(place.byte_offset)
        file.write(b"\xff" * place.size)
    with pytest.raises(nwbflow.SourceError, match=r"/small of .*source\.nwb can't be read.*nwbflow recover") as caught:
        repack(source, tmp_path / name)
    assert caught.value.kind is ErrorKind.IO
    assert not (tmp_path / name).exists()
