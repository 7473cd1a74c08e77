"""Writes of Zarr stores that are killed or whose disk is full: the path has the old store, the new one, or nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import session

import nwbflow
from nwbflow.errors import ErrorKind, StorageError

DISK_MIB = 8
KILLER = Path(__file__).with_name("zarr_killer.py")


@pytest.mark.requirement("P4")
@pytest.mark.parametrize(("kind", "before"), [("new", "absent"), ("replace", "old")])
def test_a_killed_write_leaves_the_path_absent_or_whole(tmp_path, kind, before):
    done = subprocess.run(
        [sys.executable, str(KILLER), str(tmp_path), kind, "6", "11"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 6
    # the number of operations differs by a few from run to run, so that the last point may lie behind the end
    assert all(one["killed"] or one["said"].isdigit() for one in found), found
    assert sum(one["killed"] for one in found) > 3
    assert {one["found"] for one in found} <= {before, "new"}, found
    assert any(one["found"] == before for one in found)
    names = {"s.nwb.zarr", "s.nwb.zarr.partial", "s.nwb.zarr.replaced-by-nwbflow"}
    assert all(set(one["left"]) <= names for one in found), found
    assert [one["after"] for one in found] == [["None", "new", ["s.nwb.zarr"]]] * len(found)


def _contents(folder):
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.requirement("P4")
@pytest.mark.parametrize("profile", ["default", "archive"])
def test_a_full_disk_is_named_and_the_old_store_stays(small_disk, profile):
    path = small_disk / "s.nwb.zarr"
    nwbflow.write(session(a=np.arange(50000.0)), path, progress=False)
    before = _contents(path)
    noise = np.random.default_rng(0).integers(0, 2**16, (80000, 100), dtype="u2")
    with pytest.raises(StorageError, match=r"/acquisition/b/data: the disk is full") as caught:
        nwbflow.write(session(b=noise), path, overwrite=True, progress=False, profile=profile, memory="20 MB")
    assert caught.value.kind is ErrorKind.NO_SPACE
    assert _contents(path) == before
    shutil.rmtree(small_disk / "s.nwb.zarr.partial")
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    with pytest.raises(StorageError, match="the disk is full") as caught:
        nwbflow.write(session(b=noise[:100]), path, overwrite=True, progress=False)
    assert caught.value.kind is ErrorKind.NO_SPACE
    assert _contents(path) == before


@pytest.mark.requirement("P4")
def test_a_folder_that_may_not_be_written(tmp_path):
    script = (
        "import os, sys, numpy; sys.path.insert(0, sys.argv[2]); from support import session; import nwbflow\n"
        "import nwbflow.nwb.zarr_io\n"
        "os.setuid(65534)\n"
        "try: nwbflow.write(session(a=numpy.arange(9.0)), sys.argv[1], progress=False)\n"
        "except nwbflow.TargetError as error: print(error.kind)\n"
    )
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o755)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    command = [sys.executable, "-c", script, str(folder / "x.nwb.zarr"), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "permission"
