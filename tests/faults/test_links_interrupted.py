"""Whatever ends a change of links, each file is the old one or the whole new one; the same command does the rest."""

import os
import random
import shutil
import signal
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from linked import content, external, raw, recording, virtual

from nwbflow.tools.links import bundle, check_links, embed, list_links, relocate

sys.path.insert(0, str(Path(__file__).parent))

from replay import replay
from writelog import Kind, NoCompilerError, read_log, record, shim

pytestmark = pytest.mark.requirement("X5")
INSIDE = "/acquisition/probe/data"
TRIES = 8
"""Of each kind of change, with two kills each."""


def make_tree(folder, rows):
    """A file with links of every kind; half of its targets were moved since."""
    data = folder / "data"
    values = np.random.default_rng(4).integers(-900, 900, (rows, 6)).astype("<i2")
    for number in range(3):
        recording(data / f"{number}.h5", values + number, chunks=(rows // 8, 6), compression=1)
    values.tofile(data / "raw.bin")
    with h5py.File(folder / "a.nwb", "w") as file:
        external(file, "/g/e", data / "0.h5", INSIDE)
        virtual(file, "/v", [(data / f"{n}.h5", INSIDE) for n in (1, 2)], shape=values.shape)
        raw(file, "/r", data / "raw.bin", values.shape)
        references = np.array([file["v"].ref, file["r"].ref], dtype=h5py.ref_dtype)
        file.create_dataset("references", data=references, chunks=(2,), maxshape=(None,))
    return folder / "a.nwb"


def moved(folder):
    (folder / "data").rename(folder / "moved")


def relocated(folder):
    relocate([folder / "a.nwb"], folder / "data", folder / "moved")


def embedded(folder):
    embed(folder / "a.nwb")


def bundled(folder):
    if not (folder / "out").exists():  # then the last one was killed when all was done
        bundle(folder / "a.nwb", folder / "out")


CHANGES = {"relocate": relocated, "embed": embedded, "bundle": bundled}


def targets(folder):
    """The bytes of everything that is linked to."""
    return {
        p.name: p.read_bytes()
        for p in sorted((folder / "data").parent.rglob("*"))
        if p.parent.name in ("data", "moved")
    }


def finished(folder, how):
    """Say whether a change was carried out, by what is there."""
    if how == "bundle":
        return (folder / "out").exists()
    kinds = {link.kind for link in list_links(folder / "a.nwb").links}
    return not kinds if how == "embed" else check_links(folder / "a.nwb").ok


class Tree:
    """A folder before a change, and what must be true of it at every moment."""

    def __init__(self, folder, how, rows):
        self.how, self.folder = how, folder
        folder.mkdir()
        path = make_tree(folder, rows)
        (self.reads,) = content(path)
        if how == "relocate":
            moved(folder)
        self.old, self.targets = path.read_bytes(), targets(folder)

    def wrong(self, folder):
        """Return what is wrong at a moment; an empty text if nothing is."""
        path = folder / "a.nwb"
        if targets(folder) != self.targets:
            return "a target was changed"
        if path.read_bytes() != self.old:
            if self.how == "bundle":
                return "the original was changed"
            if content(path) != [self.reads] or not finished(folder, self.how):
                return "neither the old file nor the new one"
        if (folder / "out").exists():
            names = sorted(p.name for p in (folder / "out").iterdir())
            if names != ["0.h5", "1.h5", "2.h5", "a.nwb", "raw.bin"] or content(folder / "out/a.nwb") != [self.reads]:
                return f"a bundle that is not whole: {names}"
        return ""

    def wrong_after_another_try(self, folder):
        """Do it again, and return what is wrong then."""
        CHANGES[self.how](folder)
        partial = [p.name for p in folder.rglob("*.partial")]
        if partial or not finished(folder, self.how):
            return f"another try does not finish it: {partial}"
        return self.wrong(folder)


@pytest.fixture(params=list(CHANGES))
def how(request):
    return request.param


def logged(how, folder, log, **fault):
    """Carry a change out in a process whose writes are logged; skip the test where that can't be done."""
    try:
        shim()
    except NoCompilerError as error:
        pytest.skip(str(error))
    call = {
        "relocate": "relocate([f / 'a.nwb'], f / 'data', f / 'moved')",
        "embed": "embed(f / 'a.nwb')",
        "bundle": "bundle(f / 'a.nwb', f / 'out')",
    }[how]
    code = f"import sys, pathlib\nfrom nwbflow.tools.links import *\nf = pathlib.Path(sys.argv[1])\n{call}\n"
    return record(["-c", code, str(folder)], folder, log, **fault)


@pytest.mark.slow
def test_a_write_that_fails_is_an_error_and_leaves_everything_as_it_was(how, tmp_path):
    tree = Tree(tmp_path / "before", how, 400)
    shutil.copytree(tree.folder, tmp_path / "0")
    assert logged(how, tmp_path / "0", tmp_path / "log").returncode == 0
    writes = sum(o.kind is Kind.WRITE for o in read_log(tmp_path / "log"))
    for number in range(1, writes + 1, writes // 2):
        folder = tmp_path / str(number)
        shutil.copytree(tree.folder, folder)
        done = logged(how, folder, tmp_path / "log", fail_at=number)
        assert (done.returncode, "StorageError" in done.stderr) == (1, True), f"{number} of {writes}: {done.stderr}"
        assert tree.wrong(folder) == ""
        assert not finished(folder, how)
        assert not list(folder.rglob("*.partial"))


def test_at_every_point_the_path_holds_the_old_file_or_the_whole_new_one(how, tmp_path):
    tree = Tree(tmp_path / "live", how, 400)
    before = tmp_path / "before"
    shutil.copytree(tree.folder, before)
    done = logged(how, tree.folder, tmp_path / "log")
    assert done.returncode == 0, done.stderr
    problems, changed, points = [], [], 0
    for points, point in enumerate(
        replay(read_log(tmp_path / "log"), before, tmp_path / "rebuilt", torn=True), start=1
    ):
        whole = point.folder / ("out" if how == "bundle" else "a.nwb")
        changed.append(whole.exists() if how == "bundle" else whole.read_bytes() != tree.old)
        text = tree.wrong(point.folder)
        if not text and points % 7 == 1:
            shutil.copytree(point.folder, tmp_path / "again" / str(points))
            text = tree.wrong_after_another_try(tmp_path / "again" / str(points))
        if text:
            problems.append(f"{point}: {text}")
    assert not problems, f"{len(problems)} of {points} points:\n" + "\n".join(problems[:10])
    assert points > 10
    assert changed == sorted(changed)
    assert changed[-1]


def calls_of(change, folder, kill_at=0):
    """Carry a change out, counting Python's calls, into C too; at one of them the process kills itself."""
    count = 0

    def seen(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(seen)
    try:
        change(folder)
    finally:
        sys.setprofile(None)
    return count


def killed(change, folder, kill_at):
    """Carry a change out in a process of its own that kills itself; return how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            calls_of(change, folder, kill_at)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_random_moments_nothing_is_lost_and_another_try_finishes(how, tmp_path):
    tree = Tree(tmp_path / "before", how, 6_000)
    chance = random.Random(how)
    shutil.copytree(tree.folder, tmp_path / "counted")
    calls = calls_of(CHANGES[how], tmp_path / "counted")
    ends, left, problems = [], 0, []
    for number in range(TRIES):
        first = 1 if number % 2 else calls // 2  # planning comes first, and takes most of the calls
        folder = tmp_path / str(number)
        shutil.copytree(tree.folder, folder)
        for _ in range(2):  # the second one meets what the first one left
            ends.append(killed(CHANGES[how], folder, chance.randrange(first, calls)))
            left += bool(list(folder.rglob("*.partial")))
            problems.append(tree.wrong(folder))
        problems.append(tree.wrong_after_another_try(folder))
        shutil.rmtree(folder)
    assert not any(problems), problems
    assert ends.count(-signal.SIGKILL) >= TRIES
    assert set(ends) <= {0, -signal.SIGKILL}  # 0: the first one was killed when all was done
    assert left, "none was killed in the middle"
