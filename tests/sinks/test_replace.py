"""A file is the old one, bit for bit, until the changed copy takes its place."""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from nwbflow.errors import ErrorKind, StorageError, TargetError, VerifyError
from nwbflow.sinks import replace
from nwbflow.sinks.replace import copy_file, edit_path, edited_copy

pytestmark = pytest.mark.requirement("X5")


@pytest.fixture
def target(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(10_000)
    return tmp_path / "a.h5"


def alone(target):
    """Say whether nothing lies beside the file."""
    return [p.name for p in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
def test_a_change_arrives_and_nothing_is_left(libver, tmp_path):
    target = tmp_path / "a.h5"
    with h5py.File(target, "w", libver=libver) as file:
        file["x"] = np.arange(10)
    target.chmod(0o640)
    inode = target.stat().st_ino
    with edited_copy(target) as file:
        assert file.filename == str(target)
        file["y"] = 5
        with h5py.File(target) as old:
            assert list(old) == ["x"]
    assert alone(target)
    assert target.stat().st_ino != inode
    assert target.stat().st_mode & 0o777 == 0o640
    code = "import h5py, sys; f = h5py.File(sys.argv[1]); print(sorted(f), f['x'][...].sum())"
    done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True, check=True)
    assert done.stdout == "['x', 'y'] 45\n"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError, SystemExit])
def test_whatever_goes_wrong_the_file_is_as_it_was(error, target):
    old = target.read_bytes()

    def change():
        with edited_copy(target) as file:
            del file["x"]
            raise error("on the way")

    with pytest.raises(StorageError if error in (ValueError, OSError) else error):
        change()
    assert target.read_bytes() == old
    assert alone(target)


def test_what_the_verification_refuses_is_not_put_in_place(target):
    old = target.read_bytes()

    def refuse(file):
        assert file.mode == "r"
        assert list(file) == []
        raise VerifyError("not what it should be", kind=ErrorKind.MISMATCH)

    with pytest.raises(VerifyError), edited_copy(target, verify=refuse) as file:
        del file["x"]
    assert target.read_bytes() == old
    assert alone(target)


def test_a_copy_can_be_put_elsewhere(target):
    old, out = target.read_bytes(), target.with_name("b.h5")
    with edited_copy(target, out=out) as file:
        file["y"] = 1
    assert target.read_bytes() == old
    with h5py.File(out) as file:
        assert sorted(file) == ["x", "y"]
    with pytest.raises(TargetError, match="exists") as caught, edited_copy(target, out=out):
        raise AssertionError("begun")
    assert caught.value.kind is ErrorKind.EXISTS


def test_a_symbolic_link_is_followed(target):
    (target.parent / "link.h5").symlink_to(target.name)
    with edited_copy(target.parent / "link.h5") as file:
        file["y"] = 1
    assert (target.parent / "link.h5").is_symlink()
    with h5py.File(target) as file:
        assert "y" in file


def test_what_a_killed_program_left_is_made_anew_and_what_a_write_left_stays(target):
    edit_path(target).write_bytes(b"half")
    target.with_name("a.h5.partial").write_bytes(b"rows of yesterday")
    with edited_copy(target) as file:
        file["y"] = 1
    assert sorted(p.name for p in target.parent.iterdir()) == ["a.h5", "a.h5.partial"]
    assert target.with_name("a.h5.partial").read_bytes() == b"rows of yesterday"


def test_two_programs_dont_change_one_file_at_once(target):
    code = (
        "import sys\nfrom nwbflow.sinks.replace import edited_copy\n"
        "try:\n with edited_copy(sys.argv[1]): print('begun')\nexcept OSError as error: print(error.kind, error)"
    )
    with edited_copy(target) as file:
        file["y"] = 1
        done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("locked ")
    with h5py.File(target) as file:
        assert "y" in file


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_is_open_is_refused(mode, target):
    old = target.read_bytes()
    with h5py.File(target, mode), pytest.raises(TargetError) as caught, edited_copy(target):
        raise AssertionError("begun")
    assert caught.value.kind is ErrorKind.LOCKED
    assert (target.read_bytes() == old) or mode == "r+"
    assert alone(target)


def test_a_file_changed_by_somebody_without_locks_is_not_replaced(target):
    with (
        pytest.raises(TargetError, match="was changed by another program") as caught,
        edited_copy(target),
        h5py.File(target, "r+", locking=False) as other,
    ):
        other["z"] = 1
    assert caught.value.kind is ErrorKind.CHANGED
    with h5py.File(target) as file:
        assert sorted(file) == ["x", "z"]
    assert alone(target)


def test_a_disk_without_room_is_told_before_anything_with_both_numbers(target):
    old = target.read_bytes()
    with pytest.raises(StorageError, match=r"takes 1\d{18} bytes") as caught, edited_copy(target, extra_bytes=10**18):
        raise AssertionError("begun")
    assert caught.value.kind is ErrorKind.NO_SPACE
    assert f"{target.parent} has " in str(caught.value)
    assert target.read_bytes() == old
    assert alone(target)


def test_a_disk_that_fills_leaves_the_file_as_it_was(target):
    """In a child, with a limit on file sizes for a full disk."""
    old = target.read_bytes()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) + 4096, resource.RLIM_INFINITY))
            with edited_copy(target) as file:
                file["y"] = np.arange(100_000)
        except StorageError as error:
            code = 0 if error.kind is ErrorKind.NO_SPACE else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert target.read_bytes() == old
    assert alone(target)


def test_who_may_not_write_is_told_so():
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to other users
        target = Path(folder) / "a.h5"
        with h5py.File(target, "w") as file:
            file["x"] = 1
        target.chmod(0o444)
        Path(folder).chmod(0o777)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)
                with edited_copy(target):
                    pass
            except TargetError as error:
                code = 0 if error.kind is ErrorKind.PERMISSION else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_root_gives_the_file_back_to_its_owner(target):
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(target, 65534, 65534)
    with edited_copy(target) as file:
        file["y"] = 1
    assert (target.stat().st_uid, target.stat().st_gid) == (65534, 65534)


def test_a_name_too_long_for_a_copy_beside_it_is_an_error_with_the_reason(tmp_path):
    target = tmp_path / ("n" * 249 + ".h5")
    with h5py.File(target, "w") as file:
        file["x"] = 1
    with pytest.raises(TargetError, match="the name is so long"), edited_copy(target):
        raise AssertionError("begun")


@pytest.mark.parametrize("how", ["as it is", "no clone", "through memory"])
def test_copies_are_equal_and_holes_stay_holes(how, tmp_path, monkeypatch):
    source, copy = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as file:
        file.write(b"front")
        file.seek(50_000_000)
        file.write(os.urandom(300_000))
        file.truncate(90_000_000)
    if how != "as it is":
        monkeypatch.setattr(replace, "_cloned", lambda original, copy: False)
    if how == "through memory":

        def refuse(*args):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    copy_file(source, copy)
    assert copy.stat().st_size == 90_000_000
    assert copy.stat().st_blocks * 512 < 5_000_000
    assert subprocess.run(["cmp", source, copy], check=False).returncode == 0
    with pytest.raises(StorageError):
        copy_file(source, copy)
