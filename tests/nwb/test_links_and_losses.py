"""Linking and copying where something could be lost, or silently become something else."""

import io
import os
import warnings

import h5py
import hdf5plugin
import numpy as np
import pynwb
import pytest
from hdmf.common import DynamicTableRegion, VectorData
from pynwb import TimeSeries
from support import opens_in_pynwb, read_array, session

import nwbflow
from nwbflow.errors import ErrorKind

DATA = np.arange(40_000, dtype="i2").reshape(-1, 4)
DESCRIBED = {"unit": "V", "conversion": 1.0, "offset": 0.0, "resolution": -1.0}


def series(name, data, unit="V", **more):
    return TimeSeries(name=name, data=data, unit=unit, **({"rate": 1000.0} | more))


def with_series(*items):
    nwbfile = session()
    for item in items:
        nwbfile.add_acquisition(item)
    return nwbfile


@pytest.fixture
def source(tmp_path):
    """An NWB file with one series in millivolts, as (file, path)."""
    nwbflow.write(with_series(series("x", nwbflow.DataIO(DATA, chunks=(1000, 4)), unit="mV")), tmp_path / "s.nwb")
    return tmp_path / "s.nwb", "/acquisition/x/data"


def plain_file(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file.create_dataset(name, data=data).attrs.update(DESCRIBED)
    return path


# --- adopting --------------------------------------------------------------------------------


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("policy", ["error", "warn", "copy", "adopt"])
@pytest.mark.parametrize("second", ["same.nwb", "other.nwb"])
@pytest.mark.filterwarnings("ignore::nwbflow.LinkMismatchWarning")
def test_a_file_may_be_written_again_under_every_policy(tmp_path, source, policy, second):
    unit = "mV" if policy == "error" else "V"
    nwbfile = with_series(series("a", nwbflow.link(source, on_mismatch=policy), unit=unit), series("keep", DATA))
    for name in ("same.nwb", second):
        nwbflow.write(nwbfile, tmp_path / name, overwrite=True)
        assert opens_in_pynwb(tmp_path / name) == {"a": DATA.shape, "keep": DATA.shape}


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("how", ["a mismatch elsewhere", "a generator that fails"])
def test_nothing_is_adopted_by_a_write_that_is_refused_or_fails(tmp_path, source, how):
    adopting = series("a", nwbflow.link(source, on_mismatch="adopt"))
    if how == "a mismatch elsewhere":
        other, error = series("b", nwbflow.link(source)), nwbflow.LinkError  # says V, mV is there
    else:
        other = series("b", nwbflow.blocks(iter([np.full((5, 4), 70_000)]), shape=(None, 4), dtype="i2"))
        error = nwbflow.SourceError
    nwbfile = with_series(adopting, other)
    with pytest.raises(error):
        nwbflow.write(nwbfile, tmp_path / "a.nwb")
    assert adopting.unit == "V"
    if how == "a mismatch elsewhere":
        other.fields["unit"] = "mV"
        nwbflow.write(nwbfile, tmp_path / "a.nwb")
        assert adopting.unit == "mV"
        assert opens_in_pynwb(tmp_path / "a.nwb") == {"a": DATA.shape, "b": DATA.shape}


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("bad", [{"conversion": np.array([2.0, 3.0])}, {"offset": "abc"}, {"unit": 5}])
def test_values_of_the_wrong_type_are_not_adopted(tmp_path, bad):
    path = plain_file(tmp_path / "t.h5", data=DATA)
    with h5py.File(path, "r+") as file:
        file["data"].attrs.update(bad)
    nwbfile = with_series(series("a", nwbflow.link((path, "data"), on_mismatch="adopt")))
    with pytest.raises(nwbflow.LinkError, match=next(iter(bad))):
        nwbflow.write(nwbfile, tmp_path / "a.nwb")


# --- data that lie elsewhere, and are not there -----------------------------------------------------


def use(how, target, file, path):
    if how in ("copy", "link"):
        getattr(nwbflow, how)(target)
    held = file[target[1]]
    data = nwbflow.DataIO(held) if how == "DataIO" else held
    nwbflow.write(with_series(series("x", data)), path, external="copy")


@pytest.mark.requirement("X3")
@pytest.mark.parametrize("lost", ["virtual source gone", "raw file gone", "raw file cut"])
@pytest.mark.parametrize("how", ["copy", "link", "bare, copy", "DataIO"])
def test_data_that_are_not_there_are_not_copied_as_zeros(tmp_path, source, lost, how):
    DATA.tofile(tmp_path / "r.bin")
    data = nwbflow.concat([source])
    if lost != "virtual source gone":
        data = nwbflow.link_raw(tmp_path / "r.bin", dtype="<i2", shape=(None, 4))
    nwbflow.write(with_series(series("x", data)), tmp_path / "v.nwb")
    if lost == "raw file cut":
        os.truncate(tmp_path / "r.bin", 1000)
    else:
        (source[0] if lost == "virtual source gone" else tmp_path / "r.bin").unlink()
    target = (tmp_path / "v.nwb", "/acquisition/x/data")
    with h5py.File(target[0], "r") as file, pytest.raises(OSError, match=r"v\.nwb:/acquisition/x/data|raw data file"):
        use(how, target, file, tmp_path / "c.nwb")
    assert not (tmp_path / "c.nwb").exists()


@pytest.mark.requirement("X3")
@pytest.mark.parametrize("make", [nwbflow.link, nwbflow.copy])
def test_a_relative_raw_file_is_never_taken_from_the_working_folder(tmp_path, monkeypatch, make):
    (tmp_path / "n").mkdir()
    DATA.tofile(tmp_path / "n" / "r.bin")
    np.full_like(DATA, 7).tofile(tmp_path / "r.bin")
    monkeypatch.chdir(tmp_path)
    raw = nwbflow.link_raw("n/r.bin", dtype="<i2", shape=(None, 4), relative=True)
    nwbflow.write(with_series(series("x", raw)), "n/v.nwb")
    data = make(("n/v.nwb", "/acquisition/x/data"))
    assert np.array_equal(data[:], DATA)
    if make is nwbflow.link:  # stock readers would follow it to the working folder
        with pytest.raises(nwbflow.UnsupportedError, match="nwbflow links absolute"):
            nwbflow.write(with_series(series("x", data)), "c.nwb")
        return
    nwbflow.write(with_series(series("x", data)), "c.nwb")
    assert np.array_equal(read_array("c.nwb", "acquisition/x/data"), DATA)


@pytest.mark.requirement("X1")
def test_what_is_in_memory_only_can_be_copied_but_not_linked(tmp_path):
    with h5py.File(io.BytesIO(), "w") as file:
        file.create_dataset("d", data=DATA).attrs.update(DESCRIBED)
        for data, policy in ((nwbflow.link(file["d"]), "error"), (file["d"], "link"), (file["d"], None)):
            out = nwbflow.NWBHDF5IO(tmp_path / "a.nwb", "w", external=policy)
            with pytest.raises(nwbflow.LinkError, match="is in no file of this machine's disks"), out as target:
                target.write(with_series(series("a", data)))
        nwbflow.write(with_series(series("a", nwbflow.copy(file["d"]))), tmp_path / "b.nwb")
    assert np.array_equal(read_array(tmp_path / "b.nwb", "acquisition/a/data"), DATA)


@pytest.mark.requirement("X1")
def test_a_target_is_looked_at_again_when_it_is_linked(tmp_path, source):
    data = nwbflow.link(source)
    with h5py.File(source[0], "r+") as file:
        file[source[1]].attrs["unit"] = "amperes"
    with pytest.raises(nwbflow.LinkError, match="'amperes'"):
        nwbflow.write(with_series(series("a", data, unit="mV")), tmp_path / "a.nwb")
    with h5py.File(tmp_path / "grows.h5", "w") as file:
        grown = file.create_dataset("d", data=DATA, maxshape=(None, 4))
        grown.attrs.update(DESCRIBED)
        data = nwbflow.link(grown)
        grown.resize(50_000, axis=0)
        with pytest.raises(nwbflow.LinkError, match="give it again") as changed:
            nwbflow.write(with_series(series("a", data)), tmp_path / "a.nwb")
    assert changed.value.kind is ErrorKind.CHANGED


# --- the file being replaced -------------------------------------------------------------------


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("how", ["a link through another file", "a container", "a container that links back", "all"])
def test_a_file_is_not_replaced_by_what_leads_back_to_it(tmp_path, how):
    own, other = tmp_path / "own.nwb", tmp_path / "other.nwb"
    nwbflow.write(with_series(series("x", DATA)), own)
    target = (own, "/acquisition/x/data")
    data = nwbflow.concat([target]) if how == "a link through another file" else nwbflow.link(target)
    nwbflow.write(with_series(series("y", data)), other)
    before = own.read_bytes()
    if how == "a link through another file":
        nwbfile = with_series(series("x", nwbflow.link((other, "/acquisition/y/data"))))
    else:
        with pynwb.NWBHDF5IO(str(other if "back" in how else own), "r") as reading:
            read = reading.read()
            guest = next(iter(read.acquisition.values()))
            nwbfile = read if how == "all" else session()
            if how != "all":
                nwbfile.add_scratch(guest)
    with pytest.raises((nwbflow.LinkError, nwbflow.TargetError)) as refused:
        nwbflow.write(nwbfile, own, overwrite=True, external="link")
    assert "own.nwb" in str(refused.value)
    assert own.read_bytes() == before


# --- references --------------------------------------------------------------------------------


def with_tables(path):
    nwbfile = with_series(*(series(name, DATA[:5]) for name in ("a", "zz")))
    group = nwbfile.create_electrode_group("g", "d", "l", nwbfile.create_device("d"))
    for _ in range(4):
        nwbfile.add_electrode(group=group, location="CA1")
    region = nwbfile.create_electrode_table_region([0, 1], "two")
    nwbfile.add_acquisition(pynwb.ecephys.ElectricalSeries(name="e", data=DATA[:5, :2], electrodes=region, rate=1.0))
    nwbflow.write(nwbfile, path)


@pytest.mark.requirement("X1", "X2")
@pytest.mark.parametrize("make", [nwbflow.link, nwbflow.copy])
@pytest.mark.filterwarnings("ignore::nwbflow.LinkMismatchWarning")
def test_columns_of_references_are_neither_linked_nor_copied(tmp_path, make):
    with_tables(tmp_path / "s.nwb")
    name = "general/extracellular_ephys/electrodes/group"
    options = {"on_mismatch": "warn"} if make is nwbflow.link else {}
    column = VectorData(name="group", description="d", data=make((tmp_path / "s.nwb", name), **options))
    nwbfile = session()
    nwbfile.add_scratch(pynwb.core.DynamicTable(name="t", description="d", columns=[column], id=list(range(4))))
    with pytest.raises(nwbflow.NwbflowError, match="holds references"):
        nwbflow.write(nwbfile, tmp_path / "a.nwb")


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("policy", ["error", "warn"])
def test_a_region_of_a_table_is_not_linked_since_its_table_would_be_another_files(tmp_path, policy):
    with_tables(tmp_path / "s.nwb")
    nwbfile = session()
    group = nwbfile.create_electrode_group("g", "d", "l", nwbfile.create_device("d"))
    for _ in range(4):
        nwbfile.add_electrode(group=group, location="MINE")
    data = nwbflow.link((tmp_path / "s.nwb", "/acquisition/e/electrodes"), on_mismatch=policy)
    region = DynamicTableRegion(name="electrodes", description="two", data=data, table=nwbfile.electrodes)
    nwbfile.add_acquisition(pynwb.ecephys.ElectricalSeries(name="e", data=DATA[:5, :2], electrodes=region, rate=1.0))
    with pytest.raises(nwbflow.LinkError, match="holds references, which lead to objects of the other file"):
        nwbflow.write(nwbfile, tmp_path / "a.nwb")


@pytest.mark.requirement("X3")
@pytest.mark.parametrize("policy", ["link", None])
def test_a_series_that_shares_linked_data_can_be_read_by_stock_pynwb(tmp_path, policy):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("stamps", data=np.arange(10_000.0)).attrs.update({"unit": "seconds", "interval": 1})
    with h5py.File(tmp_path / "t.h5", "r") as file:
        one = TimeSeries(name="one", data=DATA, unit="V", timestamps=file["stamps"])
        two = TimeSeries(name="two", data=DATA, unit="V", timestamps=one)
        with nwbflow.NWBHDF5IO(tmp_path / "a.nwb", "w", external=policy) as out:
            out.write(with_series(one, two))
    with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "r") as reading:
        read = reading.read()
        assert np.array_equal(read.acquisition["two"].timestamps[:5], np.arange(5.0))
    with h5py.File(tmp_path / "a.nwb", "r") as file:
        assert isinstance(file["acquisition/two"].get("timestamps", getlink=True), h5py.ExternalLink)


@pytest.mark.requirement("X2")
def test_a_column_over_a_plain_dataset_is_not_linked(tmp_path):
    plain_file(tmp_path / "t.h5", q=np.arange(3.0))
    column = VectorData(name="q", description="d", data=nwbflow.link((tmp_path / "t.h5", "q"), on_mismatch="warn"))
    nwbfile = session()
    nwbfile.add_scratch(pynwb.core.DynamicTable(name="t", description="d", columns=[column], id=[0, 1, 2]))
    with (
        pytest.warns(nwbflow.LinkMismatchWarning),
        pytest.raises(nwbflow.LinkError, match="only what says so itself, by an attribute neurodata_type"),
    ):
        nwbflow.write(nwbfile, tmp_path / "a.nwb")


# --- what is copied is what was there -----------------------------------------------------------

CODECS = {
    "bitshuffle": hdf5plugin.Bitshuffle(cname="zstd"),
    "bitshuffle alone": hdf5plugin.Bitshuffle(cname="none"),
    "blosc": hdf5plugin.Blosc(),
    "blosc2": hdf5plugin.Blosc2(),
    "bzip2": hdf5plugin.BZip2(),
    "lz4": hdf5plugin.LZ4(),
    "zstd": hdf5plugin.Zstd(),
    "sz": hdf5plugin.SZ(absolute=0.1),
    "sz3": hdf5plugin.SZ3(absolute=0.1),
    "zfp": hdf5plugin.Zfp(rate=8),
    "lzf": {"compression": "lzf"},
    "szip": {"compression": "szip"},
    "scaleoffset": {"scaleoffset": 4},
    "all of HDF5's": {"compression": 9, "shuffle": True, "fletcher32": True},
}


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("name", CODECS)
def test_stored_chunks_are_kept_with_every_codec(tmp_path, name):
    data = (np.sin(np.arange(40_000.0)) * 100).astype("f4").reshape(-1, 4)
    with h5py.File(tmp_path / "s.h5", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.create_dataset("x", data=data, chunks=(1000, 4), **CODECS[name])
    nwbflow.write(with_series(series("a", nwbflow.copy((tmp_path / "s.h5", "x")))), tmp_path / "a.nwb", verify="full")
    with h5py.File(tmp_path / "s.h5", "r") as one, h5py.File(tmp_path / "a.nwb", "r") as other:
        theirs, ours = one["x"], other["acquisition/a/data"]
        lists = [d.id.get_create_plist() for d in (theirs, ours)]
        assert lists[0].get_filter(0) == lists[1].get_filter(0)
        assert ours.id.get_storage_size() == theirs.id.get_storage_size()
        assert np.array_equal(ours[:], theirs[:])


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("kind", ["12 of 16 bits", "NaN fill", "bare edges", "scalar"])
def test_unusual_datasets_are_copied_as_they_are(tmp_path, kind):
    path = tmp_path / "s.h5"
    with h5py.File(path, "w", libver="latest") as file:
        if kind == "NaN fill":
            dataset = file.create_dataset("x", (1000, 4), "f4", chunks=(100, 4), fillvalue=np.nan, compression=4)
            dataset[:100] = 1.0
        elif kind == "scalar":
            file["x"] = 2.5
        else:
            space = h5py.h5s.create_simple((1050, 4))
            created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            created.set_chunk((100, 4))
            stored = h5py.h5t.STD_U16LE.copy()
            if kind == "bare edges":
                created.set_deflate(4)
            else:
                stored.set_precision(12)
                stored.set_offset(4)
            dataset = h5py.Dataset(h5py.h5d.create(file.id, b"x", stored, space, created))
            dataset[:] = np.arange(4200).reshape(-1, 4) % 4000
            if kind == "bare edges":  # what H5Pset_chunk_opts leaves, which h5py can't set
                dataset.id.write_direct_chunk((1000, 0), np.zeros((100, 4), "u2").tobytes(), filter_mask=1)
    name = "starting_time" if kind == "scalar" else "data"
    if kind == "scalar":
        column = nwbflow.copy((path, "x"))
        builder = pynwb.NWBHDF5IO  # a single value is no data of a series: it goes through HDMF's own tree
        del builder, name
        with nwbflow.HDF5IO(tmp_path / "a.h5", mode="w", manager=pynwb.get_manager()) as out:
            from hdmf.build import DatasetBuilder, GroupBuilder

            out.write_builder(GroupBuilder("root", datasets={"x": DatasetBuilder("x", data=column)}))
        assert read_array(tmp_path / "a.h5", "x") == 2.5
        return
    receipt = nwbflow.write(with_series(series("a", nwbflow.copy((path, "x")))), tmp_path / "a.nwb", verify="full")
    with h5py.File(path, "r") as one, h5py.File(tmp_path / "a.nwb", "r") as other:
        theirs, ours = one["x"], other["acquisition/a/data"]
        assert np.array_equal(ours[:], theirs[:], equal_nan=kind == "NaN fill")
        assert ours.id.get_type().equal(theirs.id.get_type())
        assert ours.id.get_num_chunks() == theirs.id.get_num_chunks()
    assert all(d.encoded_by == "its source" for d in receipt.datasets)


@pytest.mark.requirement("X1")
def test_a_chunk_that_can_not_be_decoded_is_found_if_asked_for(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        dataset = file.create_dataset("x", data=DATA, chunks=(1000, 4), compression=4)
        dataset.id.write_direct_chunk((3000, 0), b"no deflate stream at all")
    nwbfile = with_series(series("a", nwbflow.copy((tmp_path / "s.h5", "x"))))
    with pytest.raises(nwbflow.VerifyError, match=r"the chunk at \(3000, 0\) can't be decoded"):
        nwbflow.write(nwbfile, tmp_path / "a.nwb", verify="full")
    assert not (tmp_path / "a.nwb").exists()


@pytest.mark.requirement("X1")
def test_a_copied_column_can_grow_like_one_that_pynwb_wrote(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("q", data=np.arange(5000.0), chunks=(100,), compression=4)
    table = pynwb.core.DynamicTable(
        name="t", description="d", id=list(range(5000)),
        columns=[VectorData(name="q", description="d", data=nwbflow.copy((tmp_path / "s.h5", "q")))],
    )  # fmt: skip
    nwbfile = session()
    nwbfile.add_scratch(table)
    nwbflow.write(nwbfile, tmp_path / "a.nwb")
    with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "r+") as out:
        read = out.read().scratch["t"]
        read.add_row(q=7.0)
        assert (len(read), len(read["q"].data), read["q"].data[-1]) == (5001, 5001, 7.0)


@pytest.mark.requirement("X1")
def test_rules_for_one_of_two_copies_are_followed(tmp_path, source):
    rules = {"rules": [{"location": "/acquisition/b/data", "codec": "none"}]}
    receipt = nwbflow.write(
        with_series(*(series(name, nwbflow.copy(source)) for name in "ab")), tmp_path / "a.nwb", rules=rules
    )
    assert {d.name: d.encoded_by for d in receipt.datasets} == {
        "/acquisition/a/data": "its source",
        "/acquisition/b/data": "none",
    }
    assert not receipt.notes
