"""The view in which links are followed by us: it finds what HDF5 finds, and says what it must not follow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5o, h5p, h5s, h5t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.guard import Guard
from nwbflow.links.places import Rules
from nwbflow.links.views import BarredDataset, GuardedFile


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for files, beside a working folder and one that is out of bounds."""
    for name in ("home/sub", "work", "out"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


class Viewed:
    """A file, and its view."""

    def __init__(self, path, policy="contained", mode="r"):
        self.guard = Guard(Rules.of(policy, path))
        self.file = h5py.File(path, mode)
        self.view = self.guard.view(self.file)

    def __enter__(self):
        return self.view

    def __exit__(self, *_):
        self.guard.close_targets()
        self.file.close()

    def kinds(self):
        return {problem.name: problem.error for problem in self.guard.problems}


def make(path, **content):
    """Make a file: arrays become datasets, links links, ``None`` groups; ``__`` in names is ``/``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is None:
                file.require_group(name)
            elif callable(value):
                value(file)
            else:
                file[name.replace("__", "/")] = value
    return path


def problem_of(path, name, policy="contained", mode="r"):
    """Return the error that looking a name up, or reading what it gives, raises."""
    viewed = Viewed(path, policy, mode)
    with viewed as view, pytest.raises(LinkError) as caught:
        view[name][...]
    found = view_problem(viewed, caught.value)
    assert str(found) == str(caught.value)
    return caught.value


def view_problem(viewed, error):
    return next(problem for problem in viewed.guard.problems if str(problem) in (str(error), str(error)))


# --- following -------------------------------------------------------------------------------------------------


def test_links_of_every_kind_lead_to_the_same_object_as_in_h5py(folder, monkeypatch):
    make(folder / "c.h5", deep__x=np.arange(3))
    make(folder / "sub/b.h5", x=np.arange(4), on=h5py.ExternalLink("../c.h5", "/deep/x"), deep=h5py.SoftLink("/x"))
    path = make(
        folder / "a.h5",
        x=np.arange(5),
        g__soft=h5py.SoftLink("/x"),
        g__relative=h5py.SoftLink("inner/y"),
        g__inner__y=np.arange(6),
        g__external=h5py.ExternalLink("sub/b.h5", "/x"),
        g__unrooted=h5py.ExternalLink("sub/b.h5", "x"),
        g__chain=h5py.ExternalLink("sub/b.h5", "/on"),
        g__mixed=h5py.ExternalLink("sub/b.h5", "deep"),
        g__whole=h5py.ExternalLink("c.h5", "/"),
        g__itself=h5py.ExternalLink("a.h5", "/x"),
        through=h5py.SoftLink("/g/whole/deep/x"),
    )
    names = [*(f"g/{n}" for n in ["soft", "relative", "external", "unrooted", "chain", "mixed", "itself"]), "through"]
    names += ["/g/whole/deep/x", "g//whole/./deep/x/"]
    with Viewed(path) as view, h5py.File(path) as stock:
        for name in names:
            ours, theirs = view[name], stock[name]
            assert os.path.realpath(ours.file.filename) == os.path.realpath(theirs.file.filename), name
            assert h5o.get_info(ours.id).addr == h5o.get_info(theirs.id).addr
            np.testing.assert_array_equal(ours[...], theirs[...])
            assert ours.file[ours.name] == ours
            assert name in view
        assert view["g/external"].parent.name == "/"
        assert view["g"].parent == view["/"] == view
        assert sorted(view["g/whole"].keys()) == ["deep"]
        assert view["x"].file is not None


TREE_NAMES = ("a", "b", "c")


@st.composite
def trees(draw):
    """Two files with a few groups, datasets, and links of both kinds to any of their paths."""
    paths = st.lists(st.sampled_from([*TREE_NAMES, "."]), min_size=1, max_size=3).map("/".join)
    entry = st.tuples(
        st.lists(st.sampled_from(TREE_NAMES), min_size=1, max_size=3).map("/".join),
        st.sampled_from(["group", "dataset", "soft", "rooted", "external"]),
        paths,
        st.sampled_from(["one.h5", "two.h5"]),
    )
    return [draw(st.lists(entry, min_size=1, max_size=8)) for _ in range(2)], draw(st.lists(paths, min_size=1))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees())
def test_what_is_found_is_what_h5py_finds(folder, made):
    contents, wanted = made
    for name, entries in zip(("one.h5", "two.h5"), contents, strict=True):
        with h5py.File(folder / name, "w") as file:
            for at, kind, path, other in entries:
                try:
                    if kind == "group":
                        file.require_group(at)
                    else:
                        file[at] = {
                            "dataset": np.arange(3),
                            "soft": h5py.SoftLink(path),
                            "rooted": h5py.SoftLink(f"/{path}"),
                            "external": h5py.ExternalLink(other, path),
                        }[kind]
                except (ValueError, OSError, TypeError, RuntimeError, KeyError):
                    pass  # there is something already, or a dataset on the way
    with Viewed(folder / "one.h5") as view, h5py.File(folder / "one.h5") as stock:
        for path in wanted:
            ours, theirs = view.get(path), found_by_h5py(stock, path)
            assert (ours is None) == (theirs is None), path
            if ours is not None:
                assert ours.file.filename == theirs.file.filename
                assert h5o.get_info(ours.id).addr == h5o.get_info(theirs.id).addr
                assert type(ours).__mro__[-3:] == type(theirs).__mro__[-3:]


def found_by_h5py(file, path):
    try:
        return file[path]
    except (KeyError, OSError, RuntimeError, ValueError):
        return None


def test_files_are_opened_once_and_closed_with_the_guard(folder):
    make(folder / "b.h5", x=np.arange(3), y=np.arange(3))
    path = make(folder / "a.h5", x=h5py.ExternalLink("b.h5", "/x"), y=h5py.ExternalLink("./b.h5", "/y"))
    viewed = Viewed(path)
    with viewed as view:
        x, y = view["x"], view["y"]
        assert x.file == y.file
        assert x.file.id is y.file.id
    assert not x
    assert not y
    h5py.File(folder / "b.h5", "r+").close()


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_target_is_opened_as_the_file_is_or_else_for_reading(folder, mode):
    make(folder / "b.h5", x=np.arange(3))
    path = make(folder / "a.h5", x=h5py.ExternalLink("b.h5", "/x"))
    with Viewed(path, mode=mode) as view:
        assert view["x"].file.mode == mode
    with h5py.File(folder / "b.h5", "r"), Viewed(path, mode=mode) as view:
        assert view["x"].file.mode == "r"  # it is open for reading here
        np.testing.assert_array_equal(view["x"][:], [0, 1, 2])


def test_a_target_that_another_program_writes_is_told(folder):
    make(folder / "b.h5", x=np.arange(3))
    path = make(folder / "a.h5", x=h5py.ExternalLink("b.h5", "/x"))
    code = f"import h5py, sys; f = h5py.File({str(folder / 'b.h5')!r}, 'r+'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        error = problem_of(path, "x")
        writer.stdin.close()
    assert error.kind is ErrorKind.LOCKED
    assert "being written by another process" in str(error)


def test_links_say_what_they_are_without_being_followed(folder):
    path = make(
        folder / "a.h5",
        g__soft=h5py.SoftLink("nowhere"),
        g__external=h5py.ExternalLink("gone.h5", "/x"),
        g__x=np.arange(3),
    )
    with Viewed(path) as view:
        group = view["g"]
        assert group.get("soft", getlink=True).path == "nowhere"
        link = view.get("g/external", getlink=True)
        assert (link.filename, link.path) == ("gone.h5", "/x")
        assert isinstance(group.get("x", getlink=True), h5py.HardLink)
        classes = {name: group.get(name, getlink=True, getclass=True) for name in group}
        assert classes == {"soft": h5py.SoftLink, "external": h5py.ExternalLink, "x": h5py.HardLink}
        assert group.get("absent", 7, getlink=True) == 7
        assert view.get("absent/x", 7, getlink=True) == 7
        assert view.get("g", getclass=True) is h5py.Group
        assert view.get("g/x", getclass=True) is h5py.Dataset
        assert group.get("soft") is None
        assert "soft" not in group


def test_what_is_not_there_is_a_key_error_as_in_h5py(folder):
    path = make(folder / "a.h5", x=np.arange(3))
    with Viewed(path) as view:
        for name in ("y", "/y", "y/z", "x/y", "..", "/../x"):
            with pytest.raises(KeyError, match="there is no"):
                view[name]
            assert view.get(name, 3) == 3
        with pytest.raises(TypeError, match="int"):
            view[3]


def test_references_lead_to_views(folder):
    def refer(file):
        file["x"].attrs["to"] = file["g"].ref
        file.create_dataset("refs", data=[file["g"].ref], dtype=h5py.ref_dtype)

    make(folder / "b.h5", y=np.arange(3))
    path = make(folder / "a.h5", g__y=h5py.ExternalLink("b.h5", "/y"), x=np.arange(3), refs_made=refer)
    with Viewed(path, "deny") as view:
        group = view[view["x"].attrs["to"]]
        assert group.get("y") is None
        assert view["x"].file[view["refs"][0]].get("y") is None
        with pytest.raises(ValueError, match="reference"):
            view[h5py.Reference()]


def test_names_that_are_no_utf8_are_followed_too(folder):
    name = os.fsdecode(b"b\xff.h5")
    make(folder / name, x=np.arange(3))
    with h5py.File(folder / "a.h5", "w") as file:
        file.id.links.create_external(b"x", os.fsencode(name), b"/x")
        file.id.links.create_external(b"y\xff", b"gone\xff.h5", b"/x\xff")
    viewed = Viewed(folder / "a.h5")
    with viewed as view:
        np.testing.assert_array_equal(view["x"][:], [0, 1, 2])
        assert [view.get(n) is None for n in view] == [False, True]
    (problem,) = viewed.guard.problems
    assert "gone\\xff.h5" in str(problem)  # it can be printed
    str(problem).encode()


# --- what can't be followed ---------------------------------------------------------------------------------------


@pytest.mark.requirement("X3")
def test_a_missing_file_is_named_with_the_places_and_the_command_that_mends_it(folder):
    path = make(folder / "a.h5", g__x=h5py.ExternalLink("sub/my gone.h5", "/data"))
    error = problem_of(path, "g/x")
    assert error.kind is ErrorKind.MISSING
    assert str(error) == (
        f"{path}:/g/x is a link to sub/my gone.h5:/data, which can't be read: sub/my gone.h5 does not exist "
        f"(looked for at {folder}/sub/my gone.h5). If it was moved: nwbflow links relocate 'sub/my gone.h5' NEW {path}"
    )


def test_a_missing_path_is_told_with_the_file_it_is_missing_from(folder):
    make(folder / "b.h5", x=np.arange(3))
    path = make(folder / "a.h5", x=h5py.ExternalLink("b.h5", "/y"), y=h5py.SoftLink("/nowhere"))
    assert f"there is no /y in {folder}/b.h5. See what is there: nwbflow inspect {folder}/b.h5" in str(
        problem_of(path, "x")
    )
    assert "is a link to /nowhere, which can't be read: there is no /nowhere in this file" in str(problem_of(path, "y"))


@pytest.mark.requirement("X6")
def test_what_is_refused_says_how_to_allow_it(folder):
    make(folder.parent / "out/b.h5", x=np.arange(3))
    path = make(folder / "a.h5", x=h5py.ExternalLink("../out/b.h5", "/x"))
    error = problem_of(path, "x")
    assert error.kind is ErrorKind.REFUSED
    assert f"../out/b.h5 leads to {folder.parent}/out/b.h5, outside of {folder}" in str(error)
    assert f"If you trust {path}, open it with links='allow': nwbflow.open('{path}', links='allow')" in str(error)
    with Viewed(path, "allow") as view:
        np.testing.assert_array_equal(view["x"][:], [0, 1, 2])


def test_three_files_in_a_row_moved_together_and_apart(folder):
    make(folder / "c.h5", x=np.arange(3))
    make(folder / "b.h5", x=h5py.ExternalLink("c.h5", "/x"))
    make(folder / "a.h5", x=h5py.ExternalLink("b.h5", "/x"))
    together = folder.parent / "moved"
    folder.rename(together)
    with Viewed(together / "a.h5") as view:
        np.testing.assert_array_equal(view["x"][:], [0, 1, 2])
    (together / "c.h5").rename(folder.parent / "c.h5")
    error = problem_of(together / "a.h5", "x")
    assert error.kind is ErrorKind.MISSING
    assert f"on the way, {together}/b.h5:/x leads to c.h5:/x, and c.h5 does not exist" in str(error)
    assert f"nwbflow links relocate c.h5 NEW {together}/b.h5" in str(error)


def test_links_in_a_circle_are_told(folder):
    make(folder / "b.h5", x=h5py.ExternalLink("a.h5", "/x"))
    path = make(
        folder / "a.h5",
        x=h5py.ExternalLink("b.h5", "/x"),
        itself=h5py.SoftLink("/itself"),
        external=h5py.ExternalLink("a.h5", "/external"),
        one=h5py.SoftLink("/two"),
        two=h5py.SoftLink("one"),
        bomb0=h5py.SoftLink("/bomb1/bomb1"),
        **{f"bomb{i}": h5py.SoftLink(f"/bomb{i + 1}/bomb{i + 1}") for i in range(1, 40)},
    )
    for name in ("x", "itself", "external", "one", "two", "bomb0"):
        error = problem_of(path, name)
        assert error.kind is ErrorKind.CYCLE
        assert "more than 16 links follow each other; they lead in a circle" in str(error)


def test_as_many_links_in_a_row_as_hdf5_allows(folder):
    links = {f"l{i}": h5py.SoftLink(f"/l{i + 1}") for i in range(20)}
    path = make(folder / "a.h5", **links, l20=np.arange(3))
    with Viewed(path) as view, h5py.File(path) as stock:
        assert [n for n in links if n in view] == [n for n in links if found_by_h5py(stock, n) is not None]


def walked(group, depth=0):
    """Return every path that walking finds, as HDMF does, which asks for the link too."""
    found = []
    for name in group:
        child = group.get(name)
        if child is None:
            continue
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            assert child.file[link.path] == child  # where HDMF looks
        found.append(child.name)
        if isinstance(child, h5py.Group):
            found += walked(child, depth + 1)
    return found


def test_a_walk_does_not_go_in_circles(folder):
    make(folder / "b.h5", g__back=h5py.ExternalLink("a.h5", "/a"), g__x=np.arange(2))
    path = make(
        folder / "a.h5",
        a__b__up=h5py.SoftLink("/a"),
        a__b__top=h5py.SoftLink("/"),
        a__other=h5py.ExternalLink("b.h5", "/g"),
        hard=lambda file: file["a/b"].__setitem__("hard", file["a"]),
    )
    viewed = Viewed(path)
    with viewed as view, viewed.guard.reading():
        assert walked(view) == ["/a", "/a/b", "/g", "/g/x"]
        assert view["/a/b"].file["/a"].name == "/a"
    kinds = viewed.kinds()
    assert set(kinds.values()) == {ErrorKind.CYCLE}
    assert set(kinds) == {"/a/b/up", "/a/b/top", "/a/b/hard", "/g/back"}
    back = next(p for p in viewed.guard.problems if p.name == "/a/b/hard")
    assert "it leads back to /a, through which it was reached" in str(back)


def test_outside_of_a_walk_the_way_back_is_a_way_like_others(folder):
    path = make(folder / "a.h5", a__b__up=h5py.SoftLink("/a"))
    with Viewed(path) as view:
        assert view["a/b/up/b/up"] == view["a"]
        assert view["a/b"].parent == view["a"]
        assert view["a/b"].file["/a"] == view["a"]


def test_groups_ten_thousand_deep_are_cut(folder):
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        group = file["/"]
        for _ in range(10_000):
            group = group.create_group("g")
        file["x"] = np.arange(3)
    viewed = Viewed(path)
    with viewed as view, viewed.guard.reading():
        assert len(walked(view)) == 201
    (problem,) = viewed.guard.problems
    assert problem.error is ErrorKind.CYCLE
    assert "more than 200 groups deep" in str(problem)


# --- virtual and raw datasets -------------------------------------------------------------------------------------


def virtual(name, *sources, dtype="i8", maxshape=None):
    """Return a maker of a one-dimensional virtual dataset; sources are (file, dataset, length)."""

    def create(file):
        layout = h5py.VirtualLayout((sum(n for _, _, n in sources),), dtype)
        start = 0
        for other, dataset, n in sources:
            layout[start : start + n] = h5py.VirtualSource(other, dataset, (n,))
            start += n
        file.create_virtual_dataset(name, layout, fillvalue=-1)

    return create


def growing(name, other, dataset, n):
    def create(file):
        layout = h5py.VirtualLayout((n,), "i8", maxshape=(None,))
        source = h5py.VirtualSource(other, dataset, (n,), maxshape=(None,))
        layout[0 : h5s.UNLIMITED] = source[0 : h5s.UNLIMITED]
        file.create_virtual_dataset(name, layout)

    return create


def over_raw(name, *files, shape=(4,), dtype="<i8"):
    def create(file):
        file.create_dataset(name, shape=shape, dtype=dtype, external=list(files))

    return create


def test_virtual_and_raw_datasets_are_read_from_beside_the_file_whatever_the_working_folder_has(folder):
    make(folder / "b.h5", x=np.arange(4))
    make(Path("b.h5").absolute(), x=np.full(4, 13))
    for where in (folder, Path()):
        (where / "r.raw").write_bytes(np.full(4, 7 if where == folder else 13).tobytes())
    path = make(
        folder / "a.h5",
        v=virtual("v", ("b.h5", "/x", 4), (".", "/own", 2)),
        own=np.arange(2),
        r=over_raw("r", ("r.raw", 0, 32)),
    )
    for policy in ("contained", "allow"):
        with Viewed(path, policy) as view:
            np.testing.assert_array_equal(view["v"][:], [0, 1, 2, 3, 0, 1])
            np.testing.assert_array_equal(view["r"][:], [7, 7, 7, 7])
    with h5py.File(path) as stock:
        np.testing.assert_array_equal(stock["r"][:], [13, 13, 13, 13])  # the wrong file, and no word
    with Viewed(path, "deny") as view:
        assert isinstance(view["v"], BarredDataset)
        assert isinstance(view["r"], BarredDataset)


def numbered(file):
    space = h5s.create_simple((4,), (h5s.UNLIMITED,))
    space.select_hyperslab((0,), (h5s.UNLIMITED,), stride=(4,), block=(4,))
    created = h5p.create(h5p.DATASET_CREATE)
    created.set_layout(h5d.VIRTUAL)
    created.set_virtual(space, b"part%b.h5", b"/x", h5s.create_simple((4,)))
    h5d.create(file.id, b"d", h5t.STD_I64LE, h5s.create_simple((4,), (h5s.UNLIMITED,)), created)


BAD = {  # name: (maker, kind of error, part of the text)
    "missing source": (virtual("d", ("gone.h5", "/x", 4)), "missing", "gone.h5 does not exist"),
    "missing path": (virtual("d", ("b.h5", "/y", 4)), "missing", "there is no /y in"),
    "a group": (virtual("d", ("b.h5", "/g", 4)), "shape", "/g in .*b.h5 is no dataset"),
    "fewer rows": (virtual("d", ("b.h5", "/x", 5)), "shape", "has 4 elements .* made for 5"),
    "not HDF5": (virtual("d", ("r.raw", "/x", 4)), "not-hdf5", "not an HDF5 file"),
    "itself": (virtual("d", (".", "/d", 4)), "cycle", "lead back to it"),
    "a circle": (virtual("d", ("v.h5", "/back", 4)), "cycle", "lead back to it"),
    "broken within": (virtual("d", ("v.h5", "/broken", 4)), "missing", "itself stored in gone.raw, and gone.raw does"),
    "linked, broken": (virtual("d", ("v.h5", "/link", 4)), "missing", "on the way, .*v.h5:/link"),
    "short": (over_raw("d", ("r.raw", 8, 32)), "length", "has 24 bytes from byte 8 on, 32 are to be read"),
    "second is short": (over_raw("d", ("r.raw", 0, 24), ("r.raw", 30, 8)), "length", "has 2 bytes from byte 30 on, 8"),
    "beyond the end": (over_raw("d", ("r.raw", 99, 32)), "length", "has 0 bytes from byte 99 on"),
    "no such file": (over_raw("d", ("gone.raw", 0, 32)), "missing", "gone.raw does not exist"),
    "a pipe": (over_raw("d", ("pipe", 0, 32)), "refused", "is a pipe"),
    "outside": (over_raw("d", ("../out/r.raw", 0, 32)), "refused", "outside of"),
    "virtual outside": (virtual("d", ("../out/b.h5", "/x", 4)), "refused", "outside of"),
    "growing, outside": (growing("d", "../out/b.h5", "/x", 4), "refused", "outside of"),
    "raw outside, within": (virtual("d", ("v.h5", "/out", 4)), "refused", "stored in ../out/r.raw, and .*outside of"),
    "link outside, within": (virtual("d", ("v.h5", "/away", 4)), "refused", "on the way, .*outside of"),
    "numbered": (numbered, "refused", "can't be checked"),
}  # fmt: skip


@pytest.fixture
def stocked(folder):
    """Files for the sources of bad datasets."""
    make(folder / "b.h5", x=np.arange(4), g=None)
    make(
        folder / "v.h5",
        back=virtual("back", ("a.h5", "/d", 4)),
        broken=over_raw("broken", ("gone.raw", 0, 32)),
        out=over_raw("out", ("../out/r.raw", 0, 32)),
        link=h5py.SoftLink("/nowhere"),
        away=h5py.ExternalLink("../out/b.h5", "/x"),
    )
    (folder / "r.raw").write_bytes(bytes(32))
    os.mkfifo(folder / "pipe")
    (folder.parent / "out/r.raw").write_bytes(bytes(32))
    make(folder.parent / "out/b.h5", x=np.arange(4))
    return folder


@pytest.mark.requirement("X3", "X6")
@pytest.mark.parametrize("case", BAD)
def test_a_dataset_whose_elements_are_out_of_reach_shows_what_it_says_itself_and_no_element(stocked, case):
    create, kind, text = BAD[case]
    path = make(stocked / "a.h5", d=create, described=lambda file: file["d"].attrs.__setitem__("unit", "V"))
    viewed = Viewed(path)
    with viewed as view:
        dataset = view["d"]
        assert isinstance(dataset, BarredDataset)
        assert (dataset.ndim, dataset.dtype, dataset.attrs["unit"]) == (1, np.dtype("<i8"), "V")
        assert (len(dataset), dataset.shape, dataset.size) == (dataset.shape[0], dataset.shape, dataset.shape[0])
        assert "broken" in repr(dataset)
        for access in (
            lambda: dataset[0],
            lambda: dataset[...],
            lambda: list(dataset),
            lambda: np.asarray(dataset),
            lambda: dataset.astype("f4")[:],
            lambda: dataset.read_direct(np.empty(4)),
            lambda: dataset.__setitem__(0, 1),
            lambda: dataset.write_direct(np.empty(4)),
        ):
            with pytest.raises(LinkError, match=text) as caught:
                access()
            assert caught.value.kind == kind
    assert viewed.kinds()["/d"] == kind


def test_text_out_of_reach_is_not_there_since_readers_look_into_it_at_once(folder):
    def create(file):
        layout = h5py.VirtualLayout((2,), h5py.string_dtype())
        layout[:] = h5py.VirtualSource("gone.h5", "/x", (2,))
        file.create_virtual_dataset("d", layout)

    path = make(folder / "a.h5", d=create)
    assert "gone.h5 does not exist" in str(problem_of(path, "d"))


def test_sources_that_grow_are_read_as_they_are_now(folder):
    def source(file):
        file.create_dataset("x", data=np.arange(6), maxshape=(None,), chunks=(2,))

    make(folder / "b.h5", x=source)
    path = make(folder / "a.h5", d=growing("d", "b.h5", "/x", 4))
    with Viewed(path) as view:
        np.testing.assert_array_equal(view["d"][:], np.arange(6))


def test_parts_of_a_source_that_has_shrunk_are_told(folder):
    def create(file):
        layout = h5py.VirtualLayout((2,), "i8")
        layout[:] = h5py.VirtualSource("b.h5", "/x", (6,))[4:6]
        file.create_virtual_dataset("d", layout)

    make(folder / "b.h5", x=np.arange(5))
    path = make(folder / "a.h5", d=create)
    error = problem_of(path, "d")
    assert error.kind is ErrorKind.SHAPE
    assert "has shape (5,), the virtual dataset wants elements up to (5,)" in str(error)


def test_raw_files_with_relative_names_under_a_virtual_dataset_can_t_be_read_by_hdf5(folder):
    (folder / "r.raw").write_bytes(bytes(32))
    make(folder / "b.h5", r=over_raw("r", ("r.raw", 0, 32)))
    path = make(folder / "a.h5", d=virtual("d", ("b.h5", "/r", 4)))
    text = str(problem_of(path, "d"))
    assert "HDF5 would look for in the working folder" in text
    assert f"nwbflow links absolute {folder}/b.h5" in text
    make(folder / "b.h5", r=over_raw("r", (str(folder / "r.raw"), 0, 32)))
    with Viewed(path) as view:
        assert view["d"][:].tolist() == [0] * 4


def test_numbered_sources_are_hdf5s_to_find_if_all_is_allowed(folder):
    path = make(folder / "a.h5", d=numbered)
    with Viewed(path, "allow") as view:
        assert not isinstance(view["d"], BarredDataset)


def test_a_percent_sign_is_a_character_like_others(folder):
    make(folder / "100%.h5", x=np.arange(4))
    path = make(folder / "a.h5", d=virtual("d", ("100%%.h5", "/x", 4)))
    with Viewed(path) as view:
        np.testing.assert_array_equal(view["d"][:], np.arange(4))


def test_a_raw_dataset_that_is_open_in_another_way_is_told(folder):
    (folder / "r.raw").write_bytes(bytes(32))
    path = make(folder / "a.h5", r=over_raw("r", ("r.raw", 0, 32)))
    with h5py.File(path) as stock:
        held = stock["r"]
        error = problem_of(path, "r")
        assert held
    assert error.kind is ErrorKind.LOCKED
    assert "open elsewhere in this program" in str(error)
    with Viewed(path) as view:
        assert view["r"][:].tolist() == [0] * 4


ENVIRONMENT = """
import json, sys, h5py
from nwbflow.errors import LinkError
from nwbflow.links.guard import Guard
from nwbflow.links.places import Rules
found = {}
for policy in ("allow", "contained"):
    guard = Guard(Rules.of(policy, sys.argv[1]))
    file = h5py.File(sys.argv[1])
    for name in "xvr":
        try:
            found[f"{policy} {name}"] = int(guard.view(file)[name][0])
        except LinkError as error:
            found[f"{policy} {name}"] = f"{error.kind}: {error}"
    guard.close_targets()
    file.close()
print(json.dumps(found))
"""


@pytest.mark.requirement("X6")
def test_the_environment_sends_nobody_outside_unless_all_is_allowed(folder):
    for where, value in ((folder, 1), (folder.parent / "out", 2)):
        make(where / "b.h5", x=np.full(4, value))
        (where / "r.raw").write_bytes(np.full(4, value).tobytes())
    path = make(
        folder / "a.h5",
        x=h5py.ExternalLink("b.h5", "/x"),
        v=virtual("v", ("b.h5", "/x", 4)),
        r=over_raw("r", ("r.raw", 0, 32)),
    )
    variables = ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX")

    def read(value):
        environment = {**os.environ, **({} if value is None else dict.fromkeys(variables, value))}
        run = subprocess.run(
            [sys.executable, "-c", ENVIRONMENT, str(path)], env=environment, capture_output=True, timeout=60, check=True
        )
        return json.loads(run.stdout)

    assert set(read(None).values()) == {1}
    out = str(folder.parent / "out")
    sent = read(out)
    assert [sent[f"allow {name}"] for name in "xvr"] == [2, 2, 2]
    assert sent["contained x"] == 1  # which we look up ourselves
    for name, variable in zip("vr", variables[1:], strict=True):
        assert sent[f"contained {name}"].startswith("refused: ")
        assert f"the environment variable {variable} would send HDF5 to {out}" in sent[f"contained {name}"]
    assert {key: value for key, value in read("${ORIGIN}").items() if key != "allow x"} == dict.fromkeys(
        [key for key in sent if key != "allow x"], 1
    )


def test_a_file_opened_by_a_symbolic_link_finds_what_lies_beside_the_file(folder):
    make(folder / "b.h5", x=np.arange(4))
    (folder / "r.raw").write_bytes(bytes(32))
    path = make(
        folder / "a.h5",
        x=h5py.ExternalLink("b.h5", "/x"),
        v=virtual("v", ("b.h5", "/x", 4)),
        r=over_raw("r", ("r.raw", 0, 32)),
    )
    alias = folder.parent / "alias.h5"
    alias.symlink_to(path)
    for policy in ("contained", "allow"):
        with Viewed(alias, policy) as view:
            assert [view[n][3] for n in "xvr"] == [3, 3, 0]


def test_the_view_is_an_h5py_file(folder):
    path = make(folder / "a.h5", x=np.arange(3), g=None)
    viewed = Viewed(path, mode="r+")
    with viewed as view:
        assert isinstance(view, h5py.File)
        assert isinstance(view, GuardedFile)
        assert view == viewed.file
        view["g"]["y"] = np.arange(3)
        view["g"].create_group("h")["z"] = h5py.SoftLink("/x")
        view.attrs["a"] = 1
        assert view.require_group("g") == view["g"]
        assert view["g"].require_dataset("y", (3,), "i8")[2] == 2
        assert view["g/h/z"].file.attrs["a"] == 1
        assert (view.mode, view.filename) == ("r+", str(path))
    assert not viewed.file
    with h5py.File(path) as stock:
        assert sorted(stock["g"]) == ["h", "y"]


def test_the_property_list_is_the_default_for_what_needs_none(folder):
    path = make(folder / "a.h5", x=np.arange(3))
    with Viewed(path) as view, h5py.File(path) as stock:
        prefix = h5d.open(stock.id, b"x").get_access_plist().get_efile_prefix()
        assert view["x"].id.get_access_plist().get_efile_prefix() == prefix
        assert isinstance(h5p.create(h5p.DATASET_ACCESS), h5p.PropDAID)
