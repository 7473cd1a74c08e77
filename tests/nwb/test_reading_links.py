"""Reading and exporting files with links: beside stock PyNWB on the same files, in processes of their own."""

import json
import math
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import support
from hdmf.backends.warnings import BrokenLinkWarning
from pynwb import TimeSeries
from pynwb.behavior import SpatialSeries

import nwbflow
from nwbflow.errors import ErrorKind, LinkError, SettingsError
from nwbflow.links.views import GuardedFile

LENGTH = 6
IN_A_PROCESS = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
cls = __import__(sys.argv[1]).NWBHDF5IO
def shown(value):
    try:
        return None if value is None else [int(v) for v in np.asarray(value)]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
def run(path, out=None, container=False):
    try:
        with cls(path, "r") as io:
            nwbfile = io.read()
            if out:
                with cls(out, "w") as exporting:
                    exporting.export(src_io=io, nwbfile=nwbfile if container else None)
            return {name: [shown(s.data), shown(s.timestamps)] for name, s in nwbfile.acquisition.items()}
    except Exception as error:
        return f"{type(error).__name__}: {error}"
print(json.dumps([run(*job) for job in json.loads(sys.argv[2])]))
"""


def in_a_process(library, *jobs, cwd):
    """Read files with a library in a process of its own, and export them where a job is more than a path.

    Returns data and time stamps by series for each job.
    """
    jobs = [[str(part) if isinstance(part, Path) else part for part in job] for job in jobs]
    run = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, library, json.dumps(jobs)],
        cwd=cwd,
        capture_output=True,
        timeout=120,
        check=True,
    )
    return json.loads(run.stdout)


def stamped(**starts):
    """Return a session with series whose data begin with a number, and whose time stamps with ten times that."""
    nwbfile = support.session()
    for name, start in starts.items():
        values = np.arange(LENGTH) + start
        nwbfile.add_acquisition(
            TimeSeries(name=name, data=values, unit="V", conversion=0.5, timestamps=(values * 10.0))
        )
    return nwbfile


def values(start):
    return list(range(start, start + LENGTH))


def stamps(start):
    return [10 * value for value in values(start)]


@pytest.fixture
def folder(tmp_path):
    for name in ("home", "work", "away/deep"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def base(folder):
    """A session written by stock PyNWB: series x, y, z, and a table of units."""
    nwbfile = stamped(x=100, y=200, z=300)
    place = np.zeros((LENGTH, 2))
    nwbfile.add_acquisition(
        SpatialSeries(name="place", data=place, unit="cm", reference_frame="box", rate=1.0, conversion=2.0)
    )
    for count in range(3):
        nwbfile.add_unit(spike_times=np.arange(count + 1.0))
    nwbfile.add_unit_column("quality", "how good", data=np.arange(3))
    support.write_nwb(nwbfile, folder / "base.nwb", support.StockNWBHDF5IO)
    return folder / "base.nwb"


@contextmanager
def changed(path):
    with h5py.File(path, "r+") as file:
        yield file


def replaced(path, name, link):
    with changed(path) as file:
        del file[name]
        file[name] = link
    return path


def read(path, **options):
    """Return what ours reads, without warnings, and the IO, to be closed."""
    io = nwbflow.NWBHDF5IO(str(path), "r", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrokenLinkWarning)
        return io, io.read()


def link(path, name):
    with h5py.File(path) as file:
        found = file.get(name, getlink=True)
    if isinstance(found, h5py.ExternalLink):
        return ("external", found.filename, found.path)
    return ("soft", found.path) if isinstance(found, h5py.SoftLink) else type(found).__name__


# --- two links, one last name -------------------------------------------------------------------------------------


@pytest.mark.requirement("X3")
@pytest.mark.parametrize("how", ["external", "soft"])
def test_two_links_whose_targets_share_a_last_name(base, folder, how):
    path = folder / "linking.nwb"
    support.write_nwb(stamped(linked=0, own=500), path, support.StockNWBHDF5IO)
    for name, target in (("data", "x"), ("timestamps", "y")):
        replaced(path, f"acquisition/linked/{name}", h5py.ExternalLink("base.nwb", f"/acquisition/{target}/data"))
    if how == "soft":
        path = base
        replaced(path, "acquisition/z/data", h5py.SoftLink("/acquisition/x/data"))
        replaced(path, "acquisition/z/timestamps", h5py.SoftLink("/acquisition/y/data"))
    name = "linked" if how == "external" else "z"
    away = folder.parent / "away"
    stock, _ = in_a_process("pynwb", (path,), (path, folder / "by_stock.nwb"), cwd=folder)
    assert stock[name] != [values(100), values(200)], "PyNWB has mended it: tell it in the documentation"
    found = in_a_process(
        "nwbflow",
        (path,),
        (path, away / "one.nwb"),
        (path, away / "deep/two.nwb", True),
        (away / "one.nwb",),
        (away / "deep/two.nwb",),
        cwd=folder.parent / "work",
    )
    assert [series[name] for series in found] == [[values(100), values(200)]] * 5
    for exported in (away / "one.nwb", away / "deep/two.nwb"):
        in_group = {n: link(exported, f"acquisition/{name}/{n}") for n in ("data", "timestamps")}
        assert [found[-1] for found in in_group.values()] == ["/acquisition/x/data", "/acquisition/y/data"]
        with h5py.File(exported) as file:
            assert file[f"acquisition/{name}/data"][:].tolist() == values(100)
            assert file[f"acquisition/{name}/timestamps"][:].tolist() == values(200)
    with h5py.File(folder / "by_stock.nwb") as file:
        lost = [n for n in ("data", "timestamps") if n not in file[f"acquisition/{name}"]]
    assert lost == ["data"], "PyNWB has mended it: tell it in the documentation"


def test_two_hard_links_are_both_there_under_their_own_names(base, folder):
    with changed(base) as file:
        for name, target in (("data", "y/data"), ("timestamps", "x/timestamps")):
            del file["acquisition/z"][name]
            file["acquisition/z"][name] = file["acquisition"][target]
        del file["acquisition/x/timestamps"]
        file["acquisition/x/timestamps"] = file["acquisition/z/data"]
    for name in ("base.nwb", "out_base.nwb"):
        io, nwbfile = read(folder / name)
        with io:
            z, x = nwbfile.acquisition["z"], nwbfile.acquisition["x"]
            assert [list(z.data), list(z.timestamps)] == [values(200), stamps(100)]
            assert [list(x.data), list(x.timestamps)] == [values(100), values(200)]
            with nwbflow.NWBHDF5IO(str(folder / f"out_{name}"), "w") as out:
                out.export(src_io=io)


def test_time_stamps_linked_to_a_dataset_that_belongs_to_no_series(base):
    with changed(base) as file:
        file["clocks/clock"] = np.arange(LENGTH) * 7.0
    replaced(base, "acquisition/z/timestamps", h5py.SoftLink("/clocks/clock"))
    io, nwbfile = read(base)
    with io:
        assert list(nwbfile.acquisition["z"].timestamps) == [7 * n for n in range(LENGTH)]


def test_time_stamps_shared_between_series_are_still_shared(base):
    replaced(base, "acquisition/z/timestamps", h5py.SoftLink("/acquisition/x/timestamps"))
    io, nwbfile = read(base)
    with io:
        x, z = nwbfile.acquisition["x"], nwbfile.acquisition["z"]
        assert z.fields["timestamps"] is x
        assert list(z.timestamps) == stamps(100)
        assert x.timestamp_link == {z}


def test_links_through_three_files_and_relative_ones(base, folder):
    with h5py.File(folder / "middle.h5", "w") as file:
        file["on"] = h5py.ExternalLink("base.nwb", "/acquisition/x/data")
        file["group"] = h5py.ExternalLink("base.nwb", "/acquisition/y")
    path = folder / "linking.nwb"
    support.write_nwb(stamped(linked=0, other=500), path, support.StockNWBHDF5IO)
    replaced(path, "acquisition/linked/data", h5py.ExternalLink("middle.h5", "/on"))
    replaced(path, "acquisition/linked/timestamps", h5py.SoftLink("../acquisition/nothing"))
    replaced(path, "acquisition/linked/timestamps", h5py.SoftLink("data"))
    replaced(path, "acquisition/other", h5py.ExternalLink("middle.h5", "/group"))
    (stock,) = in_a_process("pynwb", (path,), cwd=folder)
    assert isinstance(stock, str), "PyNWB follows such links now"
    out = folder.parent / "away/out.nwb"
    ours, again = in_a_process("nwbflow", (path, out), (out,), cwd=folder.parent / "work")
    assert ours["linked"] == [values(100), values(100)]
    assert ours["y"] == [values(200), stamps(200)]
    assert again["linked"] == ours["linked"]


# --- broken links ---------------------------------------------------------------------------------------------------


@pytest.mark.requirement("X3")
def test_a_broken_link_beside_stock_pynwb(base, folder):
    replaced(base, "acquisition/x/data", h5py.ExternalLink("gone.nwb", "/acquisition/x/data"))
    homes = [folder, folder.parent / "away"]
    stock, *_ = in_a_process("pynwb", *((base, home / "stock.nwb") for home in homes), cwd=folder)
    assert stock["x"] == [[], stamps(100)], "PyNWB no longer reads an empty array: tell it in the documentation"
    ours, *_ = in_a_process("nwbflow", *((base, home / "ours.nwb") for home in homes), cwd=folder)
    assert ours["x"][0].startswith("LinkError: ")
    assert ours["x"][1] == stamps(100)
    others = {"y", "z", "place"}
    assert {name: ours[name] for name in others} == {name: stock[name] for name in others}
    for home, name in zip(homes, ("gone.nwb", "../home/gone.nwb"), strict=True):
        assert link(home / "ours.nwb", "acquisition/x/data") == ("external", name, "/acquisition/x/data")
        assert link(home / "stock.nwb", "acquisition/x/data") == "NoneType", "PyNWB no longer drops the link"


@pytest.mark.requirement("X3")
def test_a_file_of_the_same_name_in_the_working_folder_is_somebody_elses(base, folder):
    path = folder / "linking.nwb"
    work = folder.parent / "work"
    support.write_nwb(stamped(linked=0), path, support.StockNWBHDF5IO)
    replaced(path, "acquisition/linked/data", h5py.ExternalLink("target.nwb", "/acquisition/x/data"))
    support.write_nwb(stamped(x=900), work / "target.nwb", support.StockNWBHDF5IO)
    (stock,) = in_a_process("pynwb", (path,), cwd=work)
    assert stock["linked"][0] == values(900)  # the impostor
    (ours,) = in_a_process("nwbflow", (path,), cwd=work)
    assert "target.nwb does not exist (looked for at " in ours["linked"][0]
    base.rename(folder / "target.nwb")
    (ours,) = in_a_process("nwbflow", (path,), cwd=work)
    assert ours["linked"][0] == values(100)


ACCESSES = {
    "an element": lambda data: data[0],
    "a slice": lambda data: data[1:3],
    "all": lambda data: data[:],
    "a loop": list,
    "next": next,
    "numpy": np.asarray,
    "arithmetic": np.mean,
    "length": len,
    "shape": lambda data: data.shape,
    "maxshape": lambda data: data.maxshape,
    "type": lambda data: data.dtype,
    "rank": lambda data: data.ndim,
    "what h5py has": lambda data: data.attrs,
}


@pytest.mark.requirement("X3")
@pytest.mark.parametrize("access", ACCESSES)
def test_asking_for_data_behind_a_broken_link_raises_the_whole_story(base, folder, access):
    replaced(base, "acquisition/x/data", h5py.ExternalLink("gone.nwb", "/data"))
    io, nwbfile = read(base)
    with io, pytest.raises(LinkError) as caught:
        ACCESSES[access](nwbfile.acquisition["x"].data)
    assert caught.value.kind is ErrorKind.MISSING
    assert str(caught.value) == (
        f"{base}:/acquisition/x/data is a link to gone.nwb:/data, which can't be read: gone.nwb does not exist "
        f"(looked for at {folder}/gone.nwb). If it was moved: nwbflow links relocate gone.nwb NEW {base}"
    )


def test_all_else_of_the_series_and_the_file_can_be_read(base):
    for name in ("x/data", "y/timestamps", "place/data"):
        replaced(base, f"acquisition/{name}", h5py.ExternalLink("gone.nwb", "/data"))
    io, nwbfile = read(base)
    with io:
        x, y, place = (nwbfile.acquisition[name] for name in ("x", "y", "place"))
        assert (x.name, x.comments, list(x.timestamps)) == ("x", "no comments", stamps(100))
        assert list(y.data) == values(200)
        assert (y.unit, y.conversion) == ("V", 0.5)
        # what the target would say is unknown
        assert (x.unit, place.unit) == ("unknown", "unknown")
        assert all(math.isnan(v) for v in (x.conversion, x.offset, x.resolution, place.conversion))
        for shown in (repr(x), repr(y), repr(nwbfile), x._repr_html_(), nwbfile._repr_html_()):
            assert "x" in shown
        assert "gone.nwb does not exist" in repr(x)
        with pytest.raises(LinkError):
            _ = x.num_samples
        with pytest.raises(LinkError):
            y.get_timestamps()[0]
        assert [problem.name for problem in io.broken_links] == [
            "/acquisition/place/data",
            "/acquisition/x/data",
            "/acquisition/y/timestamps",
        ]


@pytest.mark.parametrize("name", ["quality", "spike_times_index", "id"])
def test_a_table_with_a_column_behind_a_broken_link(base, name):
    replaced(base, f"units/{name}", h5py.ExternalLink("gone.nwb", "/data"))
    io, nwbfile = read(base)
    with io:
        units = nwbfile.units
        assert units.colnames == ("spike_times", "quality")
        with pytest.raises(LinkError, match=r"gone.nwb does not exist"):
            units.to_dataframe()
        if name != "quality":
            assert list(units["quality"].data) == [0, 1, 2]
        if name in ("quality", "id"):
            assert list(units.spike_times_index[2]) == [0, 1, 2]


def test_a_whole_container_behind_a_broken_link_is_told_at_once(base):
    replaced(base, "acquisition/x", h5py.ExternalLink("gone.nwb", "/acquisition/x"))
    with nwbflow.NWBHDF5IO(str(base), "r") as io:
        with pytest.warns(BrokenLinkWarning) as told:
            nwbfile = io.read()
        assert "x" not in nwbfile.acquisition
        (problem,) = io.broken_links
        assert str(problem) in [str(warning.message) for warning in told]
        assert "relocate gone.nwb NEW" in str(problem)


def test_what_a_file_can_t_do_without_is_named(base):
    replaced(base, "session_description", h5py.SoftLink("/nowhere"))
    with pytest.raises(LinkError, match="session_description is a link to /nowhere"), pytest.warns(BrokenLinkWarning):
        nwbflow.open(base)


# --- export, and writing in place -----------------------------------------------------------------------------------


@pytest.fixture
def broken(base):
    """A file with links of many kinds that lead nowhere; returns it and the links by name."""
    (base.parent / "sub").mkdir()
    links = {
        "acquisition/x/data": ("external", "sub/gone.nwb", "/data"),
        "acquisition/y/timestamps": ("soft", "/acquisition/nothing/timestamps"),
        "acquisition/z": ("external", "/nowhere/gone.nwb", "/acquisition/z"),
        "acquisition/url": ("external", "s3://bucket/gone.nwb", "/acquisition/z"),
        "units/quality": ("external", "C:\\data\\gone.nwb", "/quality"),
        "general/keywords": ("soft", "nowhere"),
    }
    for name, (kind, *where) in links.items():
        with changed(base) as file:
            if name in file:
                del file[name]
            file[name] = h5py.SoftLink(*where) if kind == "soft" else h5py.ExternalLink(*where)
    return base, links


def moved(links, prefix):
    """Return the links as they have to be in another folder."""
    relative = {"sub/gone.nwb": f"{prefix}sub/gone.nwb"}
    return {name: tuple(relative.get(part, part) for part in found) for name, found in links.items()}


@pytest.mark.requirement("X3")
@pytest.mark.parametrize("container", ["file", "nwbfile", "changed"])
@pytest.mark.parametrize("where", ["home", "away/deep"])
def test_export_keeps_broken_links(broken, folder, container, where):
    path, links = broken
    out = folder.parent / where / "out.nwb"
    io, nwbfile = read(path)
    events = []
    with io, nwbflow.NWBHDF5IO(str(out), "w", progress=events.append) as exporting:
        if container == "changed":
            for item in (nwbfile.acquisition["x"], nwbfile.acquisition["y"], nwbfile.units, *nwbfile.units.columns):
                item.set_modified()
            nwbfile.add_acquisition(TimeSeries(name="more", data=np.arange(3), unit="V", rate=1.0))
        exporting.export(src_io=io, nwbfile=None if container == "file" else nwbfile)
        notes = exporting.receipt.notes
    expected = moved(links, "../../home/" if where != "home" else "")
    assert {name: link(out, name) for name in links} == expected
    for name in links:
        assert any(note.startswith(f"/{name}: it could not be read, and is kept as it is.") for note in notes), name
    told = [event for event in events if type(event).__name__ == "Warned"]
    assert len(told) == len(links)
    with h5py.File(out) as file:
        assert list(file["acquisition/x/timestamps"]) == stamps(100)
        assert dict(file["acquisition/y/data"].attrs)["conversion"] == 0.5
        assert ("more" in file["acquisition"]) == (container == "changed")
    io, nwbfile = read(out)
    with io:
        assert len(io.broken_links) == len(links)


def test_links_that_are_kept_lead_there_again_when_the_file_is_back(broken, folder):
    path, _ = broken
    io, _ = read(path)
    out = folder.parent / "away/deep/out.nwb"
    with io, nwbflow.NWBHDF5IO(str(out), "w") as exporting:
        exporting.export(src_io=io)
    with h5py.File(folder / "sub/gone.nwb", "w") as file:
        file["data"] = np.arange(LENGTH)
    for file in (path, out):
        io, nwbfile = read(file)
        with io:
            assert list(nwbfile.acquisition["x"].data) == list(range(LENGTH))


def test_a_copy_can_t_be_made_of_what_is_not_there(broken, folder):
    path, _ = broken
    out = folder / "out.nwb"
    out.write_bytes(b"an older file")
    io, _ = read(path)
    with io, nwbflow.NWBHDF5IO(str(out), "w") as exporting:
        with pytest.raises(LinkError, match=r"can't be copied into .*out.nwb \(link_data=False\)") as caught:
            exporting.export(src_io=io, write_args={"link_data": False})
        assert caught.value.kind is ErrorKind.MISSING
    assert out.read_bytes() == b"an older file"


def test_data_that_can_t_be_read_are_no_data_for_something_new(broken, folder):
    path, _ = broken
    io, nwbfile = read(path)
    with io:
        new = support.session(new=nwbfile.acquisition["x"].data)
        with pytest.raises(LinkError, match=r"/acquisition/new/data can't be written: its data can't be read"):
            support.write_nwb(new, folder / "new.nwb")
        new = support.session(new=nwbfile.acquisition["x"].data)
        with pytest.raises(Exception, match="could not convert 'data'") as caught:
            support.write_nwb(new, folder / "stock.nwb", support.StockNWBHDF5IO)
        assert "gone.nwb does not exist" in str(caught.value.__cause__)
    assert not (folder / "new.nwb").exists()


@pytest.mark.requirement("X3")
def test_writing_in_place_leaves_broken_links_as_they_are(broken):
    path, links = broken
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrokenLinkWarning)
        with nwbflow.NWBHDF5IO(str(path), "r+") as io:
            nwbfile = io.read()
            nwbfile.add_acquisition(TimeSeries(name="new", data=np.arange(100_000), unit="V", rate=1.0))
            nwbfile.acquisition["x"].set_modified()
            nwbfile.units.set_modified()
            io.write(nwbfile)
    assert {name: link(path, name) for name in links} == links
    with h5py.File(path) as file:
        assert file["acquisition/new/data"][99_999] == 99_999


@pytest.mark.parametrize("touched", [False, True])
def test_what_was_refused_is_kept_by_export(base, folder, touched):
    outside = folder.parent / "away/deep/target.nwb"
    support.write_nwb(stamped(t=700), outside, support.StockNWBHDF5IO)
    (outside.parent / "r.raw").write_bytes(np.arange(LENGTH).tobytes())
    replaced(base, "acquisition/x/data", h5py.ExternalLink("../away/deep/target.nwb", "/acquisition/t/data"))
    with changed(base) as file:
        group = file["acquisition/y"]
        attributes = dict(group["data"].attrs)
        del group["data"]
        raw = group.create_dataset(
            "data", shape=(LENGTH,), dtype="<i8", external=[("../away/deep/r.raw", 0, LENGTH * 8)]
        )
        raw.attrs.update(attributes)
    with h5py.File(folder / "friend.h5", "w") as file:
        file.create_dataset("d", shape=(LENGTH,), dtype="<i8", external=[("../away/deep/r.raw", 0, LENGTH * 8)])
    replaced(base, "acquisition/z/data", h5py.ExternalLink("friend.h5", "/d"))
    out = folder.parent / "away/out.nwb"
    io, nwbfile = read(base, links="contained")
    with io, nwbflow.NWBHDF5IO(str(out), "w") as exporting:
        assert {p.name: p.error for p in io.broken_links} == {
            "/acquisition/x/data": ErrorKind.REFUSED,
            "/acquisition/y/data": ErrorKind.REFUSED,
            "/acquisition/z/data": ErrorKind.REFUSED,
        }
        y = nwbfile.acquisition["y"]
        assert (y.unit, y.conversion, y.data.shape, y.data.dtype) == ("V", 0.5, (LENGTH,), np.dtype("i8"))
        with pytest.raises(LinkError, match="outside of"):
            y.data[0]
        with pytest.raises(LinkError, match=r"/z/data is a link to friend.h5:/d, .* lie in ../away/deep/r.raw"):
            nwbfile.acquisition["z"].data[0]
        for name in "xyz" if touched else "":
            nwbfile.acquisition[name].set_modified()
        exporting.export(src_io=io, nwbfile=nwbfile if touched else None)
    io, nwbfile = read(out)
    with io:
        assert io.broken_links == ()
        assert list(nwbfile.acquisition["x"].data) == values(700)
        assert list(nwbfile.acquisition["y"].data) == list(range(LENGTH))
        assert list(nwbfile.acquisition["z"].data) == list(range(LENGTH))
        assert nwbfile.acquisition["y"].conversion == 0.5


# --- the options ------------------------------------------------------------------------------------------------------


def test_hdf5io_takes_the_same_options(base, folder):
    replaced(base, "acquisition/x/data", h5py.ExternalLink("../away/t.nwb", "/data"))
    with h5py.File(folder.parent / "away/t.nwb", "w") as file:
        file["data"] = np.arange(3)
    for cls in (nwbflow.HDF5IO, nwbflow.NWBHDF5IO):
        manager = support.pynwb.get_manager()
        with cls(str(base), mode="r", manager=manager, links="deny") as io:
            with pytest.warns(BrokenLinkWarning):
                io.read()
            assert [p.error for p in io.broken_links] == [ErrorKind.REFUSED]


def test_the_policy_must_be_one(base):
    with pytest.raises(SettingsError, match="links='trust': give 'allow', 'contained', 'deny'"):
        nwbflow.NWBHDF5IO(str(base), "r", links="trust")
    with pytest.raises(SettingsError, match="trust"):
        nwbflow.open(base, links="trust")


def test_files_the_user_opened_are_followed_too(base):
    replaced(base, "acquisition/x/data", h5py.ExternalLink("gone.nwb", "/data"))
    with h5py.File(base) as file:
        with nwbflow.NWBHDF5IO(file=file) as io:
            assert isinstance(io._file, GuardedFile)
            with pytest.warns(BrokenLinkWarning):
                nwbfile = io.read()
            with pytest.raises(LinkError, match=r"gone.nwb does not exist"):
                nwbfile.acquisition["x"].data[0]
        assert not file  # as HDMF does


def test_files_that_are_on_no_disk_are_hdf5s(base):
    with base.open("rb") as raw, h5py.File(raw) as file, nwbflow.NWBHDF5IO(file=file) as io:
        assert list(io.read().acquisition["x"].data) == values(100)
    with (
        base.open("rb") as raw,
        h5py.File(raw) as file,
        pytest.raises(SettingsError, match="files on a disk only, opened by name"),
    ):
        nwbflow.NWBHDF5IO(file=file, links="contained")
    for asked in ({"links": "deny"}, {"verify_links": True}):
        with pytest.raises(SettingsError, match="without `driver`"):
            nwbflow.NWBHDF5IO(str(base), "r", driver="core", **asked)


def test_an_older_way_to_look_at_the_file_still_works(base):
    with nwbflow.NWBHDF5IO(str(base), "r") as io:
        nwbfile = io.read()
        data = nwbfile.acquisition["x"].data
        assert isinstance(data, h5py.Dataset)
        assert data.file.filename == str(base)
        assert data.parent.name == "/acquisition/x"
        assert io.get_container(io._file["acquisition/x"]) is nwbfile.acquisition["x"]
    assert not data


# --- checked links ------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(base, folder):
    """A file made by nwbflow whose series are a link, a virtual and a raw dataset."""
    (folder / "r.raw").write_bytes(np.arange(LENGTH, dtype="<i8").tobytes())
    nwbfile = support.session(
        virtual=nwbflow.concat([(base, "/acquisition/y/data")]),
        raw=nwbflow.link_raw(folder / "r.raw", dtype="<i8", shape=(LENGTH,)),
    )
    nwbfile.add_acquisition(
        TimeSeries(name="link", data=nwbflow.link((base, "/acquisition/x/data")), unit="V", conversion=0.5, rate=1.0)
    )
    nwbflow.write(nwbfile, folder / "linked.nwb")
    return folder / "linked.nwb"


def change_values(base, folder):
    with changed(base) as file:
        file["acquisition/x/data"][0] = -1


def change_attribute(base, folder):
    with changed(base) as file:
        file["acquisition/x/data"].attrs["conversion"] = 7.0


def change_source(base, folder):
    with changed(base) as file:
        file["acquisition/y/data"][0] = -1


def change_raw(base, folder):
    with (folder / "r.raw").open("r+b") as file:
        file.write(b"\xff")


CHANGES = {
    "values": (change_values, "/acquisition/link/data", "its content is not what it was"),
    "attribute": (change_attribute, "/acquisition/link/data", "attribute conversion was 0.5, is 7.0"),
    "source": (change_source, "/acquisition/virtual/data", "its content is not what it was"),
    "raw": (change_raw, "/acquisition/raw/data", "its content is not what it was"),
}


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("links", ["contained", "allow"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_linked_is_compared_with_what_it_was_if_asked(base, linked, folder, change, links):
    with nwbflow.open(linked, verify_links=True, links=links) as nwbfile:
        assert list(nwbfile.acquisition["link"].data) == values(100)
    alter, name, text = CHANGES[change]
    alter(base, folder)
    with pytest.raises(LinkError, match=text) as caught:
        nwbflow.open(linked, verify_links=True, links=links)
    assert caught.value.kind is ErrorKind.CHANGED
    assert name in str(caught.value)
    assert {other for _, other, _ in CHANGES.values() if other in str(caught.value)} == {name}
    for mode in ("r", "r+"):
        with (
            nwbflow.NWBHDF5IO(str(linked), mode, verify_links=True, links=links) as io,
            pytest.raises(LinkError, match=text),
        ):
            io.read()
    with nwbflow.open(linked, links=links) as nwbfile:
        assert len(nwbfile.acquisition["link"].data) == LENGTH


def test_nothing_outside_is_opened_to_be_compared(linked, folder):
    with pytest.warns(BrokenLinkWarning):
        opened = nwbflow.open(linked, verify_links=True, links="deny")
    with opened as nwbfile:
        assert list(nwbfile.acquisition) == ["link", "raw", "virtual"]
        assert len(nwbfile.read_io.broken_links) == 3


def test_a_file_with_broken_links_is_validated_as_by_pynwb(base):
    for name in ("x/data", "y/timestamps"):
        replaced(base, f"acquisition/{name}", h5py.ExternalLink("gone.nwb", "/data"))
    found = []
    for cls in (support.StockNWBHDF5IO, nwbflow.NWBHDF5IO):
        with cls(str(base), "r") as io, warnings.catch_warnings():
            warnings.simplefilter("ignore", BrokenLinkWarning)
            found.append(sorted(str(error) for error in support.pynwb.validate(io=io)))
            if cls is nwbflow.NWBHDF5IO:
                with pytest.raises(LinkError):
                    io.read().acquisition["x"].data[0]
    assert found[0] == found[1]
    assert any("acquisition/x" in error for error in found[0])


# --- nwbflow.open ----------------------------------------------------------------------------------------------------


def test_open_gives_the_nwbfile_and_closes_it(base):
    with nwbflow.open(base) as nwbfile:
        assert list(nwbfile.acquisition["x"].data) == values(100)
        dataset = nwbfile.acquisition["x"].data
    assert not dataset


def test_open_without_with(base):
    opened = nwbflow.open(str(base), links="deny")
    try:
        assert sorted(opened.nwbfile.acquisition) == ["place", "x", "y", "z"]
        assert opened.broken_links == ()
        assert opened.io.mode if hasattr(opened.io, "mode") else True
    finally:
        opened.close()
    os.rename(base, base.with_name("moved.nwb"))


def bad_files(folder):
    (folder / "text.nwb").write_text("an NWB file, really")
    (folder / "empty.nwb").touch()
    with h5py.File(folder / "plain.h5", "w") as file:
        file["x"] = np.arange(3)
    support.write_nwb(stamped(x=0), folder / "cut.nwb", support.StockNWBHDF5IO)
    with (folder / "cut.nwb").open("r+b") as file:
        file.truncate(4000)
    os.mkfifo(folder / "pipe.nwb")
    return {
        "gone.nwb": (ErrorKind.MISSING, "there is no such file"),
        "": (ErrorKind.FOLDER, "is a folder"),
        "text.nwb": (ErrorKind.NOT_HDF5, "is not an HDF5 file"),
        "empty.nwb": (ErrorKind.NOT_HDF5, "is not an HDF5 file"),
        "plain.h5": (ErrorKind.NOT_HDF5, "is an HDF5 file, but no NWB file"),
        "cut.nwb": (ErrorKind.IO, "damaged or cut off"),
        "pipe.nwb": (ErrorKind.REFUSED, "is no regular file"),
    }


def test_open_says_what_is_wrong_with_the_file(folder):
    for name, (kind, text) in bad_files(folder).items():
        with pytest.raises(LinkError, match=text) as caught:
            nwbflow.open(folder / name)
        assert caught.value.kind is kind, name
    assert sorted(path.name for path in Path(folder).iterdir()) == [
        "cut.nwb",
        "empty.nwb",
        "pipe.nwb",
        "plain.h5",
        "text.nwb",
    ]
