"""Where recorded names lead: a table, and the promise that nothing outside is ever the answer."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind
from nwbflow.links import places
from nwbflow.links.places import Rules, find_file, folders
from nwbflow.model.links import LinkKind, Policy

EXTERNAL, VIRTUAL, RAW = LinkKind.EXTERNAL, LinkKind.VIRTUAL, LinkKind.RAW


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with a linking file and neighbours, one outside of it, and a working folder with an impostor."""
    for name in ("home/a.nwb", "home/b.nwb", "home/sub/c.nwb", "out/d.nwb", "work/b.nwb", "work/e.nwb", "pre/f.nwb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    home = tmp_path / "home"
    (home / "to_d.nwb").symlink_to(tmp_path / "out/d.nwb")
    (home / "to_out").symlink_to(tmp_path / "out")
    (home / "to_b.nwb").symlink_to("b.nwb")
    (home / "round").symlink_to("round")
    os.mkfifo(home / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.chdir(home)
        made.bind("socket")
    monkeypatch.chdir(tmp_path / "work")
    for variable in places.PREFIX_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(places, "AT_START", dict.fromkeys(LinkKind, ""))
    return tmp_path


def find(tree, recorded, kind=EXTERNAL, policy="contained"):
    linking = tree / "home/a.nwb"
    return find_file(recorded.replace("TREE", str(tree)), kind, linking, Rules.of(policy, linking))


FOUND = {  # recorded: (where it is, by policy)
    "b.nwb": ("home/b.nwb", "allow contained"),
    "./b.nwb": ("home/b.nwb", "allow contained"),
    "sub/c.nwb": ("home/sub/c.nwb", "allow contained"),
    "sub/../b.nwb": ("home/b.nwb", "allow contained"),
    "../home/b.nwb": ("home/b.nwb", "allow contained"),
    "to_b.nwb": ("home/b.nwb", "allow contained"),
    "TREE/home/b.nwb": ("home/b.nwb", "allow contained"),
    "../out/d.nwb": ("out/d.nwb", "allow"),
    "to_d.nwb": ("out/d.nwb", "allow"),
    "to_out/d.nwb": ("out/d.nwb", "allow"),
    "TREE/out/d.nwb": ("out/d.nwb", "allow"),
}


@pytest.mark.requirement("X6")
@pytest.mark.parametrize("kind", [EXTERNAL, VIRTUAL, RAW])
@pytest.mark.parametrize("policy", ["allow", "contained", "deny"])
@pytest.mark.parametrize("recorded", FOUND)
def test_a_name_leads_beside_the_linking_file_and_no_further_than_allowed(tree, recorded, policy, kind):
    place = find(tree, recorded, kind, policy)
    where, policies = FOUND[recorded]
    if policy in policies.split():
        assert (place.path, place.problem, place.kind) == (tree / where, "", None)
    else:
        assert place.path is None
        assert place.kind is ErrorKind.REFUSED
        assert place.by_policy
        leads = "lies" if recorded.startswith("TREE") else f"leads to {tree / where},"
        text = "none is opened here" if policy == "deny" else f"{leads} outside of {tree / 'home'}"
        assert text in place.problem


NOWHERE = {  # recorded: (kind of error, part of the text), whatever is allowed
    "gone.nwb": (ErrorKind.MISSING, "does not exist"),
    "e.nwb": (ErrorKind.MISSING, "does not exist"),  # it is in the working folder
    "a.nwb/b": (ErrorKind.MISSING, "does not exist"),
    "": (ErrorKind.MISSING, "is no file name"),
    "b.nwb\0c": (ErrorKind.MISSING, "is no file name"),
    "http://somewhere.org/b.nwb": (ErrorKind.REFUSED, "is a URL"),
    "s3://bucket/b.nwb": (ErrorKind.REFUSED, "is a URL"),
    "file:///etc/hostname": (ErrorKind.REFUSED, "is a URL"),
    "C:\\data\\b.nwb": (ErrorKind.MISSING, "Windows"),
    "C:/data/b.nwb": (ErrorKind.MISSING, "Windows"),
    "\\\\server\\share\\b.nwb": (ErrorKind.MISSING, "Windows"),
    "sub": (ErrorKind.REFUSED, "is a folder"),
    "pipe": (ErrorKind.REFUSED, "is a pipe"),
    "socket": (ErrorKind.REFUSED, "is a socket"),
    "round": (ErrorKind.MISSING, "can't be looked at"),
    "x" * 300: (ErrorKind.MISSING, "can't be looked at"),
    "y/" * 5000: (ErrorKind.MISSING, "can't be looked at"),
    "\udcff.nwb": (ErrorKind.MISSING, "does not exist"),
}


@pytest.mark.requirement("X6")
@pytest.mark.parametrize("policy", ["allow", "contained"])
@pytest.mark.parametrize("recorded", NOWHERE, ids=lambda name: ascii(name)[:20])
def test_a_name_that_leads_nowhere_says_why(tree, recorded, policy):
    place = find(tree, recorded, policy=policy)
    kind, text = NOWHERE[recorded]
    assert place.path is None
    assert (place.kind, place.by_policy) == (kind, False)
    assert text in place.problem


def test_a_device_is_refused_before_anything_is_opened(tree):
    assert find(tree, "/dev/zero", policy="allow").problem == "is a device"
    assert "outside of" in find(tree, "/dev/zero").problem


def test_double_slashes_are_a_name_like_any_other(tree):
    assert find(tree, "//server/share/b.nwb").kind is ErrorKind.REFUSED
    found = find(tree, "//server/share/gone.nwb", policy="allow")
    assert found.kind is ErrorKind.MISSING


def test_an_absolute_name_that_is_gone_is_looked_for_beside_the_file_if_all_is_allowed(tree):
    assert find(tree, "/nowhere/b.nwb", policy="allow").path == tree / "home/b.nwb"
    assert find(tree, "/nowhere/b.nwb", VIRTUAL, "allow").path == tree / "home/b.nwb"
    assert find(tree, "/nowhere/b.nwb", RAW, "allow").kind is ErrorKind.MISSING  # HDF5 would not, either
    assert find(tree, "/nowhere/b.nwb").kind is ErrorKind.REFUSED


def test_every_place_that_was_tried_is_told(tree):
    (tree / "alias.nwb").symlink_to(tree / "home/a.nwb")
    linking = tree / "alias.nwb"
    place = find_file("gone.nwb", EXTERNAL, linking, Rules.of("allow", linking))
    assert place.tried == (tree / "gone.nwb", tree / "home/gone.nwb")
    contained = find_file("gone.nwb", EXTERNAL, linking, Rules.of("contained", linking))
    assert contained.tried == (tree / "home/gone.nwb",)


def test_a_file_opened_by_a_symbolic_link_has_the_folder_it_is_in(tree):
    linking = tree / "work/alias.nwb"
    linking.symlink_to(tree / "home/a.nwb")
    found = {policy: find_file("b.nwb", EXTERNAL, linking, Rules.of(policy, linking)).path for policy in Policy}
    # HDF5 looks beside the symbolic link first; kept to a folder, it is the file's own
    assert found == {"allow": tree / "work/b.nwb", "contained": tree / "home/b.nwb", "deny": None}


def test_the_environment_is_followed_only_if_all_is_allowed(tree, monkeypatch):
    monkeypatch.setenv("HDF5_EXT_PREFIX", f"{tree}/nothing:{tree}/pre")
    assert find(tree, "f.nwb", policy="allow").path == tree / "pre/f.nwb"
    assert find(tree, "f.nwb").kind is ErrorKind.MISSING
    assert find(tree, "b.nwb", policy="allow").path == tree / "home/b.nwb"


@pytest.mark.parametrize("kind", [VIRTUAL, RAW])
def test_the_environment_counts_as_hdf5_found_it_when_it_was_loaded(tree, monkeypatch, kind):
    monkeypatch.setenv(places.PREFIX_VARIABLES[kind], str(tree / "pre"))
    assert find(tree, "f.nwb", kind, "allow").path is None
    monkeypatch.setattr(places, "AT_START", {kind: str(tree / "pre")})
    assert find(tree, "f.nwb", kind, "allow").path == tree / "pre/f.nwb"
    # for raw files HDF5 looks nowhere else
    assert find(tree, "b.nwb", kind, "allow").path == (None if kind is RAW else tree / "home/b.nwb")


def test_origin_is_the_linking_files_folder(tree, monkeypatch):
    monkeypatch.setattr(places, "AT_START", {RAW: "${ORIGIN}", VIRTUAL: "${ORIGIN}/sub"})
    assert find(tree, "b.nwb", RAW, "allow").path == tree / "home/b.nwb"
    assert find(tree, "c.nwb", VIRTUAL, "allow").path == tree / "home/sub/c.nwb"
    rules = Rules(Policy.ALLOW)
    assert folders(RAW, tree / "home/a.nwb", rules) == [tree / "home"]


def test_a_folder_that_may_not_be_entered_is_told(tree):
    if os.geteuid() == 0:
        pytest.skip("root may enter every folder")
    (tree / "home/sub").chmod(0)
    try:
        assert find(tree, "sub/c.nwb").kind is ErrorKind.PERMISSION
    finally:
        (tree / "home/sub").chmod(0o755)


NAMES = st.lists(
    st.sampled_from(["..", ".", "sub", "home", "out", "to_out", "to_d.nwb", "b.nwb", "c.nwb", "d.nwb", "", "round"]),
    min_size=1,
    max_size=7,
).map("/".join)


@pytest.mark.requirement("X6")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recorded=NAMES, start=st.sampled_from(["", "/", "TREE/", "TREE/home/"]))
def test_contained_never_leads_outside(tree, recorded, start):
    home = tree / "home"
    for kind in (EXTERNAL, VIRTUAL, RAW):
        place = find(tree, start + recorded, kind)
        if place.path is not None:
            assert place.path == Path(os.path.realpath(place.path))
            assert place.path.is_relative_to(home)
            assert place.path.is_file()
        allowed = find(tree, start + recorded, kind, "allow")
        if allowed.path is not None and allowed.path.is_relative_to(home) and len(allowed.tried) == 1:
            assert place.path == allowed.path
        assert find(tree, start + recorded, kind, "deny").path is None


def test_there_is_no_other_policy(tmp_path):
    with pytest.raises(ValueError, match="'trust'"):
        Rules.of("trust", tmp_path / "a.nwb")
