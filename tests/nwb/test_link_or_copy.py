"""What is asked for is what is there: every intent, for targets wherever they live, in every way of writing."""

import contextlib
import itertools
import os
import subprocess
import sys

import h5py
import numpy as np
import pynwb
import pytest
from hdmf.backends.hdf5 import H5DataIO
from hdmf.common import VectorData
from pynwb import TimeSeries
from support import opens_in_pynwb, read_array, session

import nwbflow
from nwbflow.errors import ErrorKind

DATA = np.arange(40_000, dtype="i2").reshape(-1, 4)

INTENTS = {
    "link()": (nwbflow.link, None, "link"),
    "copy()": (nwbflow.copy, None, "copy"),
    "link(), whatever the policy": (nwbflow.link, "copy", "link"),
    "copy(), whatever the policy": (nwbflow.copy, "link", "copy"),
    "bare, error": (lambda target: target, "error", "error"),
    "bare, link": (lambda target: target, "link", "link"),
    "bare, copy": (lambda target: target, "copy", "copy"),
    "bare, as PyNWB": (lambda target: target, None, "link"),
    "H5DataIO, linked": (lambda target: H5DataIO(target, link_data=True), "error", "link"),
    "H5DataIO, copied": (lambda target: H5DataIO(target, link_data=False), "error", "copy"),
    "H5DataIO, linked, as PyNWB": (lambda target: H5DataIO(target, link_data=True), None, "link"),
    "H5DataIO, copied, as PyNWB": (lambda target: H5DataIO(target, link_data=False), None, "copy"),
}
"""Name: what is made of the target, the policy, and what must become of it."""

HOMES = ("HDF5 file", "NWB file", "named in a pair", "through a link", "through two files")
MODES = ("write", "w", "r+", "export")


def described(dataset):
    dataset.attrs.update({"unit": "V", "conversion": 1.0, "offset": 0.0, "resolution": -1.0})


@pytest.fixture
def folder(tmp_path):
    """A folder with a plain HDF5 file, an NWB file, and one that only links to them."""
    (tmp_path / "raw").mkdir()
    with h5py.File(tmp_path / "raw" / "plain.h5", "w") as file:
        described(file.create_dataset("deep/down", data=DATA, chunks=(1000, 4), compression="gzip"))
        file["soft"] = h5py.SoftLink("/deep/down")
    nwbflow.write(session(x=nwbflow.DataIO(DATA, chunks=(1000, 4), codec="gzip")), tmp_path / "raw" / "source.nwb")
    with h5py.File(tmp_path / "hop.h5", "w") as file:
        file["hop"] = h5py.ExternalLink("raw/plain.h5", "/soft")
    return tmp_path


@contextlib.contextmanager
def target_in(home, folder):
    """Give the target, and the file and path a link to it must have."""
    plain = (folder / "raw" / "plain.h5", "/deep/down")
    if home == "named in a pair":
        yield plain, plain
        return
    if home == "NWB file":
        with pynwb.NWBHDF5IO(str(folder / "raw" / "source.nwb"), "r") as io:
            yield io.read().acquisition["x"].data, (folder / "raw" / "source.nwb", "/acquisition/x/data")
        return
    name = {"HDF5 file": "raw/plain.h5", "through a link": "raw/plain.h5", "through two files": "hop.h5"}[home]
    with h5py.File(folder / name, "r") as file:
        yield file[{"HDF5 file": "deep/down", "through a link": "soft", "through two files": "hop"}[home]], plain


def write_in(mode, path, data, policy):
    """Write a session with one series of `data`, in one of four ways; return the receipt."""
    if mode == "write":
        return nwbflow.write(session(a=data), path, external=policy)
    if mode == "w":
        with nwbflow.NWBHDF5IO(path, "w", external=policy) as io:
            io.write(session(a=data))
            return io.receipt
    before = path if mode == "r+" else path.with_name("before.nwb")
    nwbflow.write(session(old=np.arange(5.0)), before)
    with nwbflow.NWBHDF5IO(before, "r+" if mode == "r+" else "r", external=policy) as io:
        nwbfile = io.read()
        nwbfile.add_acquisition(TimeSeries(name="a", data=data, unit="V", rate=1000.0))
        if mode == "r+":
            io.write(nwbfile)
            return io.receipt
        with nwbflow.NWBHDF5IO(path, "w", external=policy) as out:
            out.export(src_io=io, nwbfile=nwbfile)
            return out.receipt


@pytest.mark.requirement("X1")
@pytest.mark.parametrize(("intent", "home", "mode"), list(itertools.product(INTENTS, HOMES, MODES)))
def test_what_is_asked_for_is_what_is_there(folder, intent, home, mode):
    make, policy, wanted = INTENTS[intent]
    if home == "named in a pair" and "()" not in intent:
        home = "HDF5 file"  # a pair by itself is no data
    if policy is None and mode == "write":
        policy = "error"  # the function has a policy always; its default
        wanted = "error" if intent == "bare, as PyNWB" else wanted
    path = folder / "out.nwb"
    with target_in(home, folder) as (target, (file, name)):
        if wanted == "error":
            with pytest.raises(nwbflow.LinkError, match=r"(?s)/acquisition/a/data .*nwbflow.link\(...\)") as refused:
                write_in(mode, path, make(target), policy)
            assert refused.value.kind is ErrorKind.FOREIGN
            assert mode == "r+" or not path.exists()
            return
        receipt = write_in(mode, path, make(target), policy)
    with h5py.File(path, "r") as written:
        link = written["acquisition/a"].get("data", getlink=True)
        if wanted == "link":
            assert isinstance(link, h5py.ExternalLink)
            assert (path.parent / link.filename).samefile(file)
            assert not os.path.isabs(link.filename)
            assert written[f"acquisition/a/{'data'}"].file.filename != written.filename
            assert link.path in (name, "/soft", name.replace("/deep/down", "/soft"))
            assert "/acquisition/a/data" in receipt.linked
        else:
            assert isinstance(link, h5py.HardLink)
            assert "/acquisition/a/data" not in receipt.linked
            assert (written["acquisition/a/data"].chunks, written["acquisition/a/data"].compression) == (
                (1000, 4),
                "gzip",
            )
    assert np.array_equal(read_array(path, "acquisition/a/data"), DATA)
    assert opens_in_pynwb(path)["a"] == DATA.shape


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("intent", ["link()", "bare, as PyNWB", "bare, error", "bare, link", "bare, copy"])
def test_a_dataset_of_the_same_file_is_linked_inside_it(tmp_path, intent):
    make, policy, _ = INTENTS[intent]
    path = tmp_path / "a.nwb"
    nwbflow.write(session(x=DATA), path)
    with nwbflow.NWBHDF5IO(path, "r+", external=policy) as io:
        nwbfile = io.read()
        data = make(nwbfile.acquisition["x"].data)
        nwbfile.add_acquisition(TimeSeries(name="a", data=data, unit="V", rate=1000.0))
        io.write(nwbfile)
    with h5py.File(path, "r") as file:
        link = file["acquisition/a"].get("data", getlink=True)
        assert isinstance(link, h5py.SoftLink)
        assert link.path == "/acquisition/x/data"


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("policy", ["error", "link", "copy"])
def test_whole_containers_of_another_file_follow_the_policy(folder, policy):
    with pynwb.NWBHDF5IO(str(folder / "raw" / "source.nwb"), "r") as io:
        nwbfile = session()
        nwbfile.add_acquisition(io.read().acquisition["x"])
        path = folder / "out.nwb"
        if policy == "link":
            receipt = nwbflow.write(nwbfile, path, external=policy)
            with h5py.File(path, "r") as file:
                assert isinstance(file["acquisition"].get("x", getlink=True), h5py.ExternalLink)
            assert receipt.linked == {"/acquisition/x": f"{folder}/raw/source.nwb:/acquisition/x"}
            return
        wanted, text = {
            "error": (nwbflow.LinkError, "Pass external='link'"),
            "copy": (nwbflow.UnsupportedError, "nwbflow links embed"),
        }[policy]
        with pytest.raises(wanted, match=text) as refused:
            nwbflow.write(nwbfile, path, external=policy)
        assert "/acquisition/x" in str(refused.value)
        assert not path.exists()


def test_a_policy_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(nwbflow.SettingsError, match="external='maybe': give 'error', 'link' or 'copy'"):
        nwbflow.write(session(), tmp_path / "a.nwb", external="maybe")


# --- copies -----------------------------------------------------------------------------


def chunk_bytes(path, name):
    with h5py.File(path, "r") as file:
        dataset = file[name].id
        offsets = [dataset.get_chunk_info(i).chunk_offset for i in range(dataset.get_num_chunks())]
        return {offset: dataset.read_direct_chunk(offset) for offset in offsets}


@pytest.mark.requirement("X1")
def test_a_copy_takes_over_the_stored_chunks_and_their_masks(tmp_path):
    source = tmp_path / "source.h5"
    with h5py.File(source, "w") as file:
        dataset = file.create_dataset(
            "x", shape=(1000, 6), maxshape=(None, 6), dtype=">i4", chunks=(100, 4), compression=9, shuffle=True,
            fletcher32=True, fillvalue=7,
        )  # fmt: skip
        dataset[:450] = np.arange(2700).reshape(-1, 6)  # the rest is never stored
        dataset.id.write_direct_chunk((0, 0), np.full((100, 4), 5, ">i4").tobytes(), filter_mask=0b111)
    receipt = nwbflow.write(session(a=nwbflow.copy((source, "x"))), tmp_path / "a.nwb", verify="full")
    assert receipt.datasets[0].encoded_by == "its source"
    assert chunk_bytes(tmp_path / "a.nwb", "acquisition/a/data") == chunk_bytes(source, "x")
    with h5py.File(tmp_path / "a.nwb", "r") as ours, h5py.File(source, "r") as theirs:
        one, other = ours["acquisition/a/data"], theirs["x"]
        assert (one.dtype, one.maxshape, one.fillvalue) == (other.dtype, other.maxshape, other.fillvalue)
        assert np.array_equal(one[:], other[:])


@pytest.mark.requirement("X1")
def test_equal_settings_keep_the_chunks_and_others_encode_them_anew(folder):
    pair = (folder / "raw" / "plain.h5", "/deep/down")
    source = (folder / "raw" / "source.nwb", "/acquisition/x/data")
    same = nwbflow.DataIO(nwbflow.copy(source), chunks=(1000, 4), codec="gzip")
    other = nwbflow.DataIO(nwbflow.copy(pair), chunks=(500, 2))
    path = folder / "out.nwb"
    receipt = nwbflow.write(session(same=same, other=other), path)
    by = {d.name: d.encoded_by for d in receipt.datasets}
    assert by == {"/acquisition/same/data": "its source", "/acquisition/other/data": "nwbflow"}
    with h5py.File(path, "r") as file:
        assert file["acquisition/other/data"].chunks == (500, 2)
    assert np.array_equal(read_array(path, "acquisition/other/data"), DATA)
    rules = {"rules": [{"location": "/acquisition/a/data", "codec": "none"}]}
    ruled = nwbflow.write(session(a=nwbflow.copy(pair)), folder / "ruled.nwb", rules=rules)
    assert ruled.datasets[0].encoded_by == "none"


@pytest.mark.requirement("X1")
def test_what_has_no_chunks_is_stored_like_an_array_in_memory(tmp_path):
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["x"] = DATA
    receipt = nwbflow.write(session(a=nwbflow.copy((tmp_path / "source.h5", "x"))), tmp_path / "a.nwb")
    assert receipt.datasets[0].encoded_by == "nwbflow"
    assert np.array_equal(read_array(tmp_path / "a.nwb", "acquisition/a/data"), DATA)


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("how", ["virtual", "raw"])
def test_copies_of_data_that_lie_elsewhere_hold_the_elements_themselves(tmp_path, how):
    DATA.tofile(tmp_path / "x.bin")
    with h5py.File(tmp_path / "base.h5", "w") as file:
        file.create_dataset("x", data=DATA, chunks=(1000, 4), compression="gzip")
    with h5py.File(tmp_path / "source.h5", "w") as file:
        if how == "raw":
            file.create_dataset("x", shape=DATA.shape, dtype="i2", external=[(str(tmp_path / "x.bin"), 0, DATA.nbytes)])
        else:
            layout = h5py.VirtualLayout(DATA.shape, "i2")
            layout[:] = h5py.VirtualSource("base.h5", "x", DATA.shape)
            file.create_virtual_dataset("x", layout)
    nwbflow.write(session(a=nwbflow.copy((tmp_path / "source.h5", "x"))), tmp_path / "a.nwb")
    for name in ("x.bin", "base.h5", "source.h5"):
        (tmp_path / name).unlink()
    assert np.array_equal(read_array(tmp_path / "a.nwb", "acquisition/a/data"), DATA)


@pytest.mark.requirement("X1")
def test_what_several_containers_copy_is_copied_once_if_they_say_the_same(folder):
    pair = (folder / "raw" / "plain.h5", "/deep/down")
    nwbfile = session(a=nwbflow.copy(pair), b=nwbflow.copy(pair), c=nwbflow.copy(pair))
    nwbfile.add_acquisition(TimeSeries(name="d", data=nwbflow.copy(pair), unit="mV", rate=1000.0))
    receipt = nwbflow.write(nwbfile, folder / "out.nwb")
    assert len(receipt.datasets) == 2
    with h5py.File(folder / "out.nwb", "r") as file:
        links = {name: file[f"acquisition/{name}"].get("data", getlink=True) for name in "abcd"}
        assert isinstance(links["a"], h5py.HardLink)
        assert {links["b"].path, links["c"].path} == {"/acquisition/a/data"}
        assert isinstance(links["d"], h5py.HardLink)
        assert file["acquisition/d/data"].attrs["unit"] == "mV"
    assert set(opens_in_pynwb(folder / "out.nwb")) == set("abcd")


def test_columns_of_text_are_linked_and_copied_too(tmp_path):
    words = ["one", "two", "drei", "vier"]
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["words"] = words
    path = tmp_path / "a.nwb"
    nwbfile = session()
    nwbfile.add_trial_column("w", "words")
    for at in range(4):
        nwbfile.add_trial(start_time=float(at), stop_time=at + 1.0, w="?")
    column = VectorData(name="copied", description="copied words", data=nwbflow.copy((tmp_path / "source.h5", "words")))
    nwbfile.trials.add_column(name="copied", description="copied words", data=column.data)
    nwbflow.write(nwbfile, path)
    with h5py.File(path, "r") as file:
        assert [w.decode() for w in file["intervals/trials/copied"][:]] == words
        assert file["intervals/trials/copied"].attrs["description"] == "copied words"


def test_a_copy_and_a_link_can_be_read_like_arrays(folder):
    for made in (nwbflow.link, nwbflow.copy):
        data = made((folder / "raw" / "plain.h5", "/deep/down"))
        assert (data.shape, data.dtype, len(data)) == (DATA.shape, DATA.dtype, len(DATA))
        assert np.array_equal(data[100:200, 1], DATA[100:200, 1])
        assert "plain.h5:/deep/down" in repr(data)


def test_stock_pynwb_writes_the_elements_of_links_and_copies(folder):
    nwbfile = session(a=nwbflow.link((folder / "raw" / "plain.h5", "/deep/down")))
    with pynwb.NWBHDF5IO(str(folder / "stock.nwb"), "w") as io:
        io.write(nwbfile)
    assert np.array_equal(read_array(folder / "stock.nwb", "acquisition/a/data"), DATA)


def test_the_working_folder_of_readers_does_not_matter(folder):
    nwbflow.write(session(a=nwbflow.link((folder / "raw" / "plain.h5", "/deep/down"))), folder / "out.nwb")
    code = "import sys, pynwb; print(pynwb.NWBHDF5IO(sys.argv[1], 'r').read().acquisition['a'].data[-1, 3])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "out.nwb")], cwd="/", capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == DATA[-1, 3]


@pytest.mark.requirement("X1")
def test_a_file_can_not_link_into_what_it_replaces_but_copy_from_it(tmp_path):
    path = tmp_path / "a.nwb"
    nwbflow.write(session(x=nwbflow.DataIO(DATA, chunks=(1000, 4))), path)
    before = path.read_bytes()
    with pytest.raises(nwbflow.LinkError, match="the very file that is being replaced") as refused:
        nwbflow.write(session(y=nwbflow.link((path, "/acquisition/x/data"))), path, overwrite=True)
    assert refused.value.kind is ErrorKind.CYCLE
    assert path.read_bytes() == before
    nwbflow.write(session(y=nwbflow.copy((path, "/acquisition/x/data"))), path, overwrite=True)
    assert np.array_equal(read_array(path, "acquisition/y/data"), DATA)


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("make", [nwbflow.link, nwbflow.copy])
def test_a_pair_may_name_the_file_that_is_added_to(tmp_path, make):
    path = tmp_path / "a.nwb"
    nwbflow.write(session(x=nwbflow.DataIO(DATA, chunks=(1000, 4))), path)
    with nwbflow.NWBHDF5IO(path, "r+") as io:
        nwbfile = io.read()
        data = make((path, "/acquisition/x/data"))
        nwbfile.add_acquisition(TimeSeries(name="y", data=data, unit="V", rate=1000.0))
        io.write(nwbfile)
    assert np.array_equal(read_array(path, "acquisition/y/data"), DATA)
    with h5py.File(path, "r") as file:
        kind = h5py.SoftLink if make is nwbflow.link else h5py.HardLink
        assert isinstance(file["acquisition/y"].get("data", getlink=True), kind)


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("name", ["spaces and µ.h5", os.fsdecode(b"no utf-8 \xff.h5"), "x" * 200 + ".h5"])
def test_names_of_files_may_be_odd(tmp_path, name):
    folder = tmp_path / name.removesuffix(".h5")
    folder.mkdir()
    with h5py.File(folder / name, "w") as file:
        described(file.create_dataset("x y/ü", data=DATA))
    nwbflow.write(session(a=nwbflow.link((folder / name, "/x y/ü"))), tmp_path / "a.nwb")
    assert np.array_equal(read_array(tmp_path / "a.nwb", "acquisition/a/data"), DATA)


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("through", ["folder", "file"])
def test_symbolic_links_on_the_way_are_followed(tmp_path, through):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    with h5py.File(tmp_path / "real" / "deep" / "t.h5", "w") as file:
        described(file.create_dataset("x", data=DATA))
    if through == "folder":
        (tmp_path / "short").symlink_to("real/deep")
        target = tmp_path / "short" / "t.h5"
    else:
        target = tmp_path / "t.h5"
        target.symlink_to("real/deep/t.h5")
    (tmp_path / "out").mkdir()
    (tmp_path / "way").symlink_to("out")
    nwbflow.write(session(a=nwbflow.link((target, "x"))), tmp_path / "way" / "a.nwb")
    assert np.array_equal(read_array(tmp_path / "way" / "a.nwb", "acquisition/a/data"), DATA)
    assert np.array_equal(read_array(tmp_path / "out" / "a.nwb", "acquisition/a/data"), DATA)
    with h5py.File(tmp_path / "out" / "a.nwb", "r") as file:
        assert file["acquisition/a"].get("data", getlink=True).filename == "../real/deep/t.h5"
