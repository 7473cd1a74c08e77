"""Files that are not as nwbflow would write them: two names for one thing, wrong types, nothing where something was."""

import subprocess
import sys
import warnings

import h5py
import numpy as np
import pynwb
import pytest
import support

import nwbflow
from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.guard import Guard
from nwbflow.links.places import Rules

ROWS = 4


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("home", "work", "away"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture
def base(folder):
    """Files written by stock PyNWB: a base, and two others that have a series of the same name."""
    for name, start in (("base", 0), ("one", 10), ("two", 20)):
        series = {"a": np.arange(ROWS) + start} if name != "base" else {"b": np.arange(ROWS)}
        support.write_nwb(support.session(**series), folder / f"{name}.nwb", support.StockNWBHDF5IO)
    return folder / "base.nwb"


def to(file, path):
    return h5py.ExternalLink(file, path)


def changed(path, **names):
    with h5py.File(path, "r+") as file:
        for name, value in names.items():
            place = name.replace("__", "/")
            if place in file or file.get(place, getlink=True) is not None:
                del file[place]
            file[place] = value(file) if callable(value) else value
    return path


def virtual(path, source, dataset="d", dtype="i8"):
    """Put a virtual dataset in the place of a series' data."""
    with h5py.File(path, "r+") as file:
        del file["acquisition/b/data"]
        layout = h5py.VirtualLayout((ROWS,), dtype)
        layout[:] = h5py.VirtualSource(source, dataset, (ROWS,))
        file["acquisition/b"].create_virtual_dataset("data", layout)
    return path


def series(path, cls=nwbflow.NWBHDF5IO, **options):
    """Return the data of all series, and what was told of broken links."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with cls(str(path), "r", **options) as io:
            data = {name: np.asarray(s.data).tolist() for name, s in io.read().acquisition.items()}
            return data, {p.name: p for p in getattr(io, "broken_links", ())}


def error_of(path, **options):
    """Return the error of opening a file and asking for a series' data."""
    with pytest.raises(LinkError) as caught:
        asked(path, **options)
    return caught.value


def asked(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with nwbflow.open(path, **options) as nwbfile:
            return nwbfile.acquisition["b"].data[:].tolist()


@pytest.mark.requirement("X6")
@pytest.mark.parametrize("impostor", ["work", "home/sub"])
def test_a_source_behind_an_external_link_does_not_come_from_elsewhere(folder, base, impostor):
    """HDF5 looks beside the symbolic link and in the working folder before it looks beside the file."""
    for name in ("sub", "real"):
        (folder / name).mkdir()
    changed_file(folder / "real/x.h5", np.arange(ROWS))
    with h5py.File(folder / "real/source.h5", "w") as file:
        file["d"] = to("x.h5", "/d")
    (folder / "sub/link.h5").symlink_to("../real/source.h5")
    if impostor == "work":
        changed_file(folder.parent / "work/x.h5", np.full(ROWS, 777))
    else:
        changed_file(folder.parent / "away/x.h5", np.full(ROWS, 666))
        (folder / "sub/x.h5").symlink_to(folder.parent / "away/x.h5")
    virtual(base, "sub/link.h5")
    error = error_of(base)
    assert error.kind == ErrorKind.REFUSED
    assert f"nwbflow.open('{base}', links='allow')" in str(error)
    if impostor == "work":
        error = error_of(base, links="allow")
        assert error.kind == ErrorKind.REFUSED
        assert f"{folder.parent}/work/x.h5" in str(error)


def changed_file(path, values):
    with h5py.File(path, "w") as file:
        file["d"] = values


@pytest.mark.parametrize("make", [lambda f: f["acquisition/b"], lambda _: h5py.SoftLink("/acquisition/b")])
def test_two_names_in_one_group_are_read_once(base, make):
    changed(base, acquisition__b2=make)
    data, broken = series(base)
    assert data == {"b": list(range(ROWS))}
    assert broken["/acquisition/b2"].error == ErrorKind.EXISTS
    assert asked(base) == list(range(ROWS))


def test_two_links_to_one_container_are_read_as_stock_reads_them(base):
    changed(base, acquisition__m1=to("one.nwb", "/acquisition/a"), acquisition__m2=to("one.nwb", "/acquisition/a"))
    data, broken = series(base)
    assert data == series(base, pynwb.NWBHDF5IO)[0]
    assert list(broken) in (["/acquisition/m1"], ["/acquisition/m2"])


def test_of_two_containers_of_one_name_one_is_read_and_the_other_told_of_and_exported(folder, base):
    changed(base, acquisition__m1=to("one.nwb", "/acquisition/a"), acquisition__m2=to("two.nwb", "/acquisition/a"))
    data, broken = series(base)
    assert data["a"] in ([10, 11, 12, 13], [20, 21, 22, 23])
    ((name, problem),) = broken.items()
    assert "PyNWB keeps one 'a' in a group" in str(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with nwbflow.NWBHDF5IO(str(base), "r") as io, nwbflow.NWBHDF5IO(str(folder / "out.nwb"), "w") as out:
            io.read()
            out.export(src_io=io)
    with h5py.File(folder / "out.nwb") as file:
        assert file["acquisition"].get(name.split("/")[-1], getlink=True).path == "/acquisition/a"


def test_a_link_of_the_name_of_a_container_does_not_cost_the_file(base):
    """Stock PyNWB can't read it."""
    changed(base, acquisition__c=to("two.nwb", "/acquisition/a"))
    with h5py.File(base, "r+") as file:
        file.copy("acquisition/b", "acquisition/a")
    data, broken = series(base)
    assert data == {"a": list(range(ROWS)), "b": list(range(ROWS))}
    assert broken["/acquisition/c"].error == ErrorKind.EXISTS


DEEP = """
import sys, warnings
import nwbflow
warnings.simplefilter("ignore")
nwbflow.open(sys.argv[1]).close()
"""


@pytest.mark.requirement("X6")
@pytest.mark.parametrize("hard", [True, False])
def test_forty_groups_with_two_names_each_are_read_at_once(base, hard):
    """2 to the 40 paths, if each was walked."""
    with h5py.File(base, "r+") as file:
        group = file["acquisition/b"]
        for i in range(40):
            group.create_group(f"g{i}")
        for i in range(39):
            for name in "ab":
                target = group[f"g{i + 1}"]
                group[f"g{i}/{name}"] = target if hard else h5py.SoftLink(target.name)
    subprocess.run([sys.executable, "-c", DEEP, str(base)], timeout=60, check=True)


@pytest.mark.parametrize("container", [True, False])
def test_an_export_from_stocks_reader_keeps_a_broken_link(folder, base, container):
    changed(base, acquisition__b__data=to("gone.h5", "/d"), acquisition__z=to("gone.nwb", "/acquisition/z"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            pynwb.NWBHDF5IO(str(base), "r") as io,
            nwbflow.NWBHDF5IO(str(folder.parent / "away/out.nwb"), "w") as out,
        ):
            nwbfile = io.read()
            out.export(src_io=io, nwbfile=nwbfile if container else None)
            notes = str(out.receipt)
    with h5py.File(folder.parent / "away/out.nwb") as file:
        assert file["acquisition/b"].get("data", getlink=True).filename == "../home/gone.h5"
        assert file["acquisition"].get("z", getlink=True).filename == "../home/gone.nwb"
    assert notes


def test_what_lies_beside_a_symbolic_link_is_found_where_all_is_allowed(folder, base):
    changed(base, acquisition__b__data=to("one.nwb", "/acquisition/a/data"))
    base.rename(folder.parent / "away/key")
    base.symlink_to("../away/key")
    assert asked(base, links="allow") == [10, 11, 12, 13]
    error = error_of(base)
    assert error.kind == ErrorKind.MISSING
    assert f"{base} is a symbolic link to {folder.parent}/away/key" in str(error)
    assert "links='allow'" in str(error)


def test_require_does_not_open_what_is_barred(folder):
    changed_file(folder.parent / "away/d.h5", np.full(ROWS, 13))
    with h5py.File(folder / "m.h5", "w") as file:
        layout = h5py.VirtualLayout((ROWS,), "i8")
        layout[:] = h5py.VirtualSource("../away/d.h5", "d", (ROWS,))
        file.create_virtual_dataset("v", layout)
        file["link"] = to("../away/d.h5", "/")
        file["own"] = np.arange(ROWS)
    guard = Guard(Rules.of("contained", folder / "m.h5"))
    with h5py.File(folder / "m.h5", "r+") as file:
        view = guard.view(file)
        with pytest.raises(LinkError, match="outside of"):
            view["/"].require_dataset("v", (ROWS,), "i8")[:]
        with pytest.raises(LinkError, match="outside of"):
            view["/"].require_group("link")
        assert view.require_dataset("own", (ROWS,), "i8")[:].tolist() == list(range(ROWS))
        with pytest.raises(TypeError, match="there already"):
            view.require_dataset("own", (ROWS + 1,), "i8")
        assert view.require_group("new").name == "/new"
        assert view["/"].require_dataset("made", (2,), "f4").shape == (2,)


@pytest.mark.parametrize(
    ("values", "wanted", "fits"),
    [
        (np.arange(ROWS) + 0.5, "i8", False),
        (np.arange(ROWS, dtype="i8"), "i2", False),
        (np.arange(ROWS, dtype="i2"), "u2", False),
        (np.array([b"a"] * ROWS), "i8", False),
        (np.arange(ROWS, dtype="i2"), "f8", True),
        (np.arange(ROWS, dtype=">i2"), "<i2", True),
        (np.zeros(ROWS, [("x", "i2"), ("y", "f4")]), [("x", "i4"), ("y", "f4")], True),
        (np.zeros(ROWS, [("x", "i2"), ("y", "f4")]), [("x", "i2"), ("z", "f4")], False),
    ],
)
def test_a_source_of_another_type_is_not_changed_silently(folder, values, wanted, fits):
    changed_file(folder / "s.h5", values)
    with h5py.File(folder / "m.h5", "w") as file:
        layout = h5py.VirtualLayout((ROWS,), wanted)
        layout[:] = h5py.VirtualSource("s.h5", "d", (ROWS,))
        file.create_virtual_dataset("v", layout)
    guard = Guard(Rules.of("contained", folder / "m.h5"))
    with h5py.File(folder / "m.h5") as file:
        view = guard.view(file)
        if fits:
            assert view["v"][:].tolist() == values.tolist()
            return
        with pytest.raises(LinkError, match="would change them") as caught:
            view["v"][:]
        assert caught.value.kind == ErrorKind.DTYPE


def test_data_that_lead_to_a_group_are_told_and_the_rest_is_read(base):
    changed(base, acquisition__b__data=to("one.nwb", "/acquisition/a"))
    error = error_of(base)
    assert error.kind == ErrorKind.SHAPE
    assert "that is a group" in str(error)


def test_what_pynwb_can_not_do_without_is_a_link_error(base):
    error = error_of(changed(base, general=to("gone.nwb", "/general")))
    assert error.kind == ErrorKind.MISSING
    assert f"{base}:/general is a link to gone.nwb" in str(error)


@pytest.mark.parametrize(("place", "name"), [("acquisition/b", "ref"), ("/", ".specloc")])
def test_a_reference_to_what_was_deleted_is_a_link_error(base, place, name):
    with h5py.File(base, "r+") as file:
        gone = file.create_group("gone")
        file[place].attrs[name] = gone.ref
        del file["gone"]
    error = error_of(base)
    assert error.kind == ErrorKind.MISSING
    assert f"{base} can't be read: an object reference" in str(error)


def test_the_way_out_names_the_file_that_was_opened(folder, base):
    changed_file(folder.parent / "away/d.h5", np.arange(ROWS))
    with h5py.File(folder / "friend.h5", "w") as file:
        file["d"] = to(f"{folder.parent}/away/d.h5", "/d")
    text = str(error_of(changed(base, acquisition__b__data=to("friend.h5", "/d"))))
    assert f"nwbflow.open('{base}', links='allow')" in text
    assert f"{folder.parent}/away/d.h5 lies outside of {folder}" in text


def test_a_device_was_not_moved(base):
    text = str(error_of(changed(base, acquisition__b__data=to("/dev/zero", "/d")), links="allow"))
    assert "is a device" in text
    assert "If it was moved" not in text
    assert "Only files on this machine's disks are read" in text
