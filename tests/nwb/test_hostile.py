"""Files from strangers: nothing outside of the folder is opened, the reason is told, and the rest can be read."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import support

sys.path.insert(0, str(Path(__file__).parent))

import hostile

pytestmark = [pytest.mark.requirement("X6")]

TRACE = "trace=open,openat,openat2,creat"


def run(folder, links, log=None, **environment):
    """Ask for everything in every file of a folder, in a process of its own, its opens logged if `log` is given."""
    command = [sys.executable, hostile.__file__, str(folder), links]
    if log is not None:
        command = ["strace", "-f", "-o", str(log), "-s", "9999", "-e", TRACE, *command]
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=folder.parent / "work",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def opened(log):
    """Return the names that were opened with success or without."""
    return re.findall(r'(?:open|openat|openat2|creat)\((?:AT_FDCWD, )?"((?:[^"\\]|\\.)*)"', log.read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of hostile files, the one outside, and a working folder with impostors."""
    top = tmp_path_factory.mktemp("hostile")
    home, out, sent = top / "home", top / "out", top / "sent"
    base = top / "base.nwb"
    nwbfile = support.session(h=np.arange(hostile.ROWS), fine=np.arange(7))
    support.write_nwb(nwbfile, base, support.StockNWBHDF5IO)
    hostile.stock(home, out)
    hostile.make_files(home, out, base, hostile.HOSTILE)
    sent.mkdir()
    for name in ("inside.h5", "inside.raw"):
        shutil.copy(home / name, sent)
    hostile.make_files(sent, out, base, hostile.SENT)
    shutil.copytree(out, top / "work")
    return top


@pytest.fixture(scope="module")
def contained(made):
    """What came of the hostile files, and the log of opens (``None`` without strace)."""
    log = made / "strace.log" if shutil.which("strace") else None
    return run(made / "home", "contained", log), log


@pytest.mark.parametrize("name", hostile.HOSTILE)
def test_a_hostile_file_is_read_but_for_what_is_refused(contained, name):
    found = contained[0][name]
    make, kind, text = hostile.HOSTILE[name]
    assert found["fine"] == list(range(7))
    told = [(error, problem) for where, error, problem in found["broken"] if where.startswith("/acquisition/h")]
    assert any(error == kind and re.search(text, problem) for error, problem in told), told
    if make in hostile.BESIDE:
        assert found["read"] == list(range(hostile.ROWS))
    else:
        assert found["read"][0] == kind
        assert re.search(text, found["read"][1])
        assert "/acquisition/h/data" in found["read"][1]


def test_there_are_enough_of_them():
    assert len(hostile.HOSTILE) + len(hostile.SENT) > 40


def test_nothing_outside_was_opened(made, contained):
    log = contained[1]
    if log is None:
        pytest.skip("strace is not installed")
    names = opened(log)
    assert f"{made}/home/friend.h5" in names  # the log sees what HDF5 opens
    for name in names:
        assert not name.startswith((f"{made}/out", f"{made}/work", "/dev/zero", "../out")), name
        assert "://" not in name, name
        assert Path(name).name not in ("pipe", "socket", "to_zero", "to_d.h5", "to_secret", "secret", "d.h5"), name


def test_the_environment_sends_nobody_outside(made):
    log = made / "sent.log" if shutil.which("strace") else None
    variables = ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX")
    found = run(made / "sent", "contained", log, **dict.fromkeys(variables, str(made / "out")))
    for name, (_, kind, text) in hostile.SENT.items():
        if kind is None:
            assert found[name]["read"] == [7] * hostile.ROWS
        else:
            assert found[name]["read"][0] == kind
            assert text in found[name]["read"][1]
            assert found[name]["fine"] == list(range(7))
    if log is not None:
        assert not [name for name in opened(log) if name.startswith(f"{made}/out")]


def test_no_other_file_is_opened_where_none_may_be(made, tmp_path):
    home = tmp_path / "home"
    (tmp_path / "work").mkdir()
    home.mkdir()
    names = (
        "link, upwards",
        "link, through a friend",
        "virtual, upwards",
        "raw, upwards",
        "virtual, of a friend's raw",
    )
    for name in names:
        shutil.copy(made / f"home/{name}.nwb", home)
    shutil.copy(made / "home/friend.h5", home)
    log = tmp_path / "strace.log" if shutil.which("strace") else None
    found = run(home, "deny", log)
    for name in names:
        assert found[name]["read"][0] == "refused"
        assert "links='deny'" in found[name]["read"][1]
    if log is not None:
        assert not [name for name in opened(log) if name.endswith(("friend.h5", "d.h5", "secret"))]


def test_who_trusts_a_file_gets_all_of_it(made, tmp_path):
    home = tmp_path / "home"
    (tmp_path / "work").mkdir()
    home.mkdir()
    shutil.copytree(made / "out", tmp_path / "out")
    names = ("link, upwards", "link, through a friend", "virtual, upwards", "raw, upwards", "virtual, growing")
    for name in names:
        shutil.copy(made / f"home/{name}.nwb", home)
    shutil.copy(made / "home/friend.h5", home)
    log = tmp_path / "strace.log" if shutil.which("strace") else None
    found = run(home, "allow", log)
    assert {name: found[name]["read"] for name in names} == dict.fromkeys(names, [13] * hostile.ROWS)
    if log is not None:
        assert [name for name in opened(log) if name.endswith("out/secret")]  # what the other tests look for is seen
