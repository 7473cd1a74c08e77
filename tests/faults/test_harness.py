"""The crash harness itself: it sees every change, rebuilds every point, and finds a known loss."""

import errno
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reader import Reader
from replay import replay
from writelog import Kind, NoCompilerError, read_log, record, shim

STOCK_WRITE = """
    import sys
    from datetime import UTC, datetime
    import numpy as np
    from pynwb import NWBHDF5IO, H5DataIO, NWBFile, TimeSeries

    nwbfile = NWBFile("s", "id", datetime(2020, 1, 1, tzinfo=UTC))
    data = np.random.default_rng(int(sys.argv[2])).integers(-500, 500, (20000, 8)).astype("i2")
    data = H5DataIO(data, chunks=(2000, 8), compression="gzip")
    nwbfile.add_acquisition(TimeSeries(name="raw", data=data, unit="V", rate=1000.0))
    with NWBHDF5IO(sys.argv[1], "w") as io:
        io.write(nwbfile)
"""

MANY_CALLS = """
    import os, pathlib, shutil, sys, tempfile
    root = pathlib.Path(sys.argv[1])
    os.chdir(root)
    (root / "a.txt").write_bytes(b"x" * 10000)
    with open("a.txt", "r+b", buffering=0) as f:
        f.seek(100); f.write(b"written")
        os.pwrite(f.fileno(), b"pwritten", 9000)
        os.pwritev(f.fileno(), [b"one", b"two"], 12000)
        other = os.dup(f.fileno())
        os.rename("a.txt", "b.txt")
        os.pwrite(other, b"through a duplicate, after the rename", 50)
        os.ftruncate(other, 12005); os.fsync(other); os.close(other)
    with open("log.txt", "ab", buffering=0) as f:
        f.write(b"appended"); os.writev(f.fileno(), [b" in", b" pieces"])
    os.mkdir("sub")
    folder = os.open("sub", os.O_RDONLY | os.O_DIRECTORY)
    fd = os.open("inner", os.O_WRONLY | os.O_CREAT, dir_fd=folder); os.write(fd, b"inner"); os.close(fd)
    os.rename("inner", "moved", src_dir_fd=folder, dst_dir_fd=folder)
    os.link("sub/moved", "linked.txt")
    shutil.copyfile("b.txt", "copy.txt")
    os.replace("log.txt", "sub/log.txt")
    gone = open("gone.txt", "wb", buffering=0); os.unlink("gone.txt"); gone.write(b"nobody sees this"); gone.close()
    with open("old.txt", "wb") as f: f.write(b"shorter")
    os.mkdir("empty"); os.rmdir("empty")
    os.truncate("copy.txt", 5)
    with tempfile.NamedTemporaryFile(dir=root, delete=False) as f: f.write(b"temporary")
    os.replace(f.name, "kept.txt")
"""


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    try:
        shim()
    except NoCompilerError as error:
        pytest.skip(str(error))


def tree(folder):
    """Return all files and folders below `folder` with their content."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def run(script, folder, log, *arguments, **faults):
    return record(["-c", textwrap.dedent(script), *arguments], folder, log, **faults)


def test_the_whole_log_rebuilds_the_folder_byte_for_byte(tmp_path):
    live, log, before = tmp_path / "live", tmp_path / "log", tmp_path / "before"
    live.mkdir()
    (live / "old.txt").write_bytes(b"what was there")
    shutil.copytree(live, before)
    done = run(MANY_CALLS, live, log, str(live))
    assert done.returncode == 0, done.stderr
    operations = read_log(log)
    points = list(replay(operations, before, tmp_path / "rebuilt"))
    assert tree(tmp_path / "rebuilt") == tree(live)
    assert (live / "sub" / "moved").read_bytes() == b"inner"
    assert len(points) > 25
    assert {Kind.FSYNC, Kind.CLOSE, Kind.RENAME, Kind.LINK, Kind.UNLINK} <= {o.kind for o in operations}


def test_each_point_is_the_folder_after_so_many_changes(tmp_path):
    live, log, before = tmp_path / "live", tmp_path / "log", tmp_path / "before"
    live.mkdir()
    before.mkdir()
    script = """
        import os, sys
        fd = os.open(sys.argv[1] + "/f", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"a"); os.write(fd, b"b" * 9000); os.ftruncate(fd, 1)
    """
    assert run(script, live, log, str(live)).returncode == 0
    operations = read_log(log)
    sizes = [(p.torn, (p.folder / "f").stat().st_size) for p in replay(operations, before, tmp_path / "r", torn=True)]
    assert sizes == [(False, 0), (False, 1), (True, 4096), (False, 9001), (False, 1)]
    assert [p.operation.kind for p in replay(operations, before, tmp_path / "r", every=3)] == [
        Kind.WRITE,
        Kind.TRUNCATE,
    ]


def test_the_chosen_write_fails_and_the_log_says_so(tmp_path):
    live, log = tmp_path / "live", tmp_path / "log"
    live.mkdir()
    script = """
        import os, sys
        fd = os.open(sys.argv[1] + "/f", os.O_WRONLY | os.O_CREAT)
        for letter in b"abcd":
            try:
                os.write(fd, bytes([letter]))
            except OSError as error:
                print(letter, error.errno)
    """
    done = run(script, live, log, str(live), fail_at=3, errno=errno.ENOSPC)
    assert done.stdout.split() == [str(ord("c")), str(errno.ENOSPC)]
    assert (live / "f").read_bytes() == b"abd"
    kinds = [o.kind for o in read_log(log)]
    assert kinds == [Kind.CREATE, Kind.WRITE, Kind.WRITE, Kind.FAILED, Kind.WRITE]


def test_a_shared_mapping_is_refused_because_its_changes_are_unseen(tmp_path):
    live, log = tmp_path / "live", tmp_path / "log"
    live.mkdir()
    (live / "f").write_bytes(b"0" * 8192)
    script = """
        import mmap, sys
        with open(sys.argv[1] + "/f", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
            m[:3] = b"new"
    """
    assert run(script, live, log, str(live)).returncode == 0
    with pytest.raises(ValueError, match="mapped into memory"):
        read_log(log)


def test_stock_pynwb_writing_over_a_good_file_is_found_to_destroy_it(tmp_path):
    """The canary: what this harness must find, or it would find nothing in nwbflow either."""
    live, log, before = tmp_path / "live", tmp_path / "log", tmp_path / "before"
    live.mkdir()
    path = live / "session.nwb"
    first = run(STOCK_WRITE, live, log, str(path), "1")
    assert first.returncode == 0, first.stderr
    shutil.copytree(live, before)
    assert run(STOCK_WRITE, live, log, str(path), "2").returncode == 0
    old, new = (before / path.name).read_bytes(), path.read_bytes()
    destroyed = []
    with Reader() as reader:
        assert reader.open(path).shapes == {"raw": (20000, 8)}
        for point in replay(read_log(log), before, tmp_path / "rebuilt", every=10):
            rebuilt = point.folder / path.name
            if rebuilt.read_bytes() not in (old, new) and (len(destroyed) > 5 or reader.open(rebuilt).error):
                destroyed.append(point)
    assert tree(tmp_path / "rebuilt") == tree(live)
    assert len(destroyed) > 5
