"""Files that the ranks of an MPI program write together, under a real mpirun."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

TESTS = Path(__file__).parents[1]
BESIDE = Path(sys.executable).parent / "mpirun"
MPIRUN = str(BESIDE) if BESIDE.exists() else shutil.which("mpirun")
ENVIRONMENT = {  # more ranks than cores, and as root: Open MPI wants to be told, others don't mind
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}

pytest.importorskip("mpi4py", reason="mpi4py is not installed")
if MPIRUN is None:
    pytest.skip("there is no mpirun (pip install mpich)", allow_module_level=True)


def run(case, folder, ranks, *, ends_well=True):
    """Run a case of mpi_child.py, and return what each rank left, or what was printed."""
    done = subprocess.run(
        [MPIRUN, "-n", str(ranks), sys.executable, "-m", "mpi4py", str(TESTS / "mpi_child.py"), case, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )
    assert (done.returncode == 0) == ends_well, f"{done.stdout}\n{done.stderr}"
    if not ends_well:
        return done.stdout + done.stderr
    return [json.loads((folder / f"{case}-{rank}.json").read_text()) for rank in range(ranks)]


def described(path):
    """Every dataset of every series as stock h5py sees it: how it is stored, its values, and each stored chunk."""
    found = {}
    with h5py.File(path, "r") as file:
        for name, series in file["acquisition"].items():
            for field in ("data", "timestamps"):
                if field not in series:
                    continue
                data, plist = series[field], series[field].id.get_create_plist()
                filters = [plist.get_filter(at)[:3] for at in range(plist.get_nfilters())]
                count = data.id.get_num_chunks() if data.chunks else 0
                offsets = sorted(data.id.get_chunk_info(at).chunk_offset for at in range(count))
                raw = [data.id.read_direct_chunk(offset) for offset in offsets]
                how = (data.shape, data.maxshape, data.dtype, data.chunks, filters, data.fillvalue)
                found[name, field] = (how, data[()].tobytes(), raw)
    return found


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The files that threads make."""
    folder = tmp_path_factory.mktemp("serial")
    run("alone", folder, 1)
    return folder


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda n: f"{n}-ranks")
def written(request, tmp_path_factory):
    """What so many ranks write, and what they returned."""
    folder = tmp_path_factory.mktemp(f"ranks{request.param}")
    return request.param, folder, run("good", folder, request.param)


@pytest.mark.requirement("P3")
def test_ranks_make_the_datasets_that_threads_make(written, serial):
    _, folder, _ = written
    for name in ("rows.nwb", "tiles.nwb"):
        found, wanted = described(folder / name), described(serial / name)
        assert found.keys() == wanted.keys()
        assert [key for key in wanted if found[key] != wanted[key]] == [], name


@pytest.mark.requirement("P3")
def test_every_rank_gets_the_receipt_and_only_rank_0_the_events(written):
    ranks, folder, results = written
    assert all(result["path"] == str(folder / "rows.nwb") for result in results)
    assert all(result["crc"] == results[0]["crc"] for result in results)
    assert all(f"MPI: {ranks} ranks encoded, rank 0 stored" in result["notes"] for result in results)
    assert results[0]["events"] > 0
    assert [result["events"] for result in results[1:]] == [0] * (ranks - 1)
    by = results[0]["by"]
    assert {by[name] for name in ("gzip", "fast", "stamped", "same")} == {"MPI"}
    assert (by["contiguous"], by["plain"], by["own filters"]) == ("none", "none", "HDF5")


@pytest.mark.requirement("P3")
def test_stock_pynwb_opens_what_ranks_wrote(written):
    _, folder, _ = written
    code = (
        "import sys; from pynwb import NWBHDF5IO, validate\n"
        "with NWBHDF5IO(sys.argv[1], 'r') as io:\n"
        "    for series in io.read().acquisition.values():\n"
        "        print(series.name, series.data.shape, series.data[-1:].sum())\n"
        "assert not validate(path=sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "rows.nwb")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "gzip (100003, 64)" in done.stdout


@pytest.mark.requirement("P3")
def test_pynwbs_tutorial_on_mpi_works_with_compression(written):
    ranks, folder, _ = written
    with h5py.File(folder / "tutorial.nwb", "r") as file:
        data = file["acquisition/tutorial/data"]
        assert (list(data), data.compression) == (list(range(ranks)), "gzip")


@pytest.mark.requirement("P3")
def test_ranks_write_zarr_stores_too(written, serial):
    zarr = pytest.importorskip("zarr")
    _, folder, _ = written
    with h5py.File(serial / "rows.nwb", "r") as file:
        wanted = file["acquisition/gzip/data"][()]
    assert np.array_equal(zarr.open(str(folder / "rows.nwb.zarr"), mode="r")["acquisition/gzip/data"][:], wanted)


# --- what goes wrong --------------------------------------------------------------------

EXPECTED = {  # case -> type, kind, a part of the text, the rank in the note of where it was raised
    "raises": ("ValueError", "", "no rows any more", 1),
    "raises on 0": ("ValueError", "", "nor here", 0),
    "raises, uncompressed": ("KeyError", "", "lost", 2),
    "unpicklable": ("ExecutorError", "workers", "rank 2 raised Local: mine", 2),
    "shapes": ("SourceError", "shape", "(90000, 64) on rank 0 and (90001, 64) on rank 2", 0),
    "types": ("SourceError", "dtype", "int16 on rank 0 and int32 on rank 1", 0),
    "overlap": ("SourceError", "parts", "ranks 0 and 1 both have [29990:30000, 0:64]", 0),
    "gap": ("SourceError", "parts", "64000 elements of an array of shape (90000, 64) are on no rank", 0),
    "containers": ("SourceError", "parts", "/acquisition/y", 0),
    "whole, but other": ("SourceError", "parts", "nwbflow.part(rows", 0),
    "short, but other": ("SourceError", "parts", "other values on rank 1 than on rank 0", 0),
    "iterators": ("SourceError", "parts", "an iterator on every rank", 0),
    "closed": ("ExecutorError", "workers", "rank 1 raised BuildError", 1),
    "there": ("TargetError", "exists", "there.nwb", 0),
    "memory": ("PlanError", "memory", "1.0 kB", 0),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return folder, run("faults", folder, 3)


@pytest.mark.requirement("P3")
@pytest.mark.parametrize("case", EXPECTED)
def test_every_rank_gets_the_error_of_one(case, faulty):
    folder, results = faulty
    kind, code, text, raiser = EXPECTED[case]
    for rank, result in enumerate(results):
        found = result["found"][case]
        assert found is not None, f"rank {rank} noticed nothing"
        assert (found[0], found[1]) == (kind, code)
        assert text in found[2]
        assert rank == 0 == raiser or f"raised on rank {raiser}" in found[3]
    target = folder / f"{case.replace(',', '')}.nwb"
    assert target.exists() == (case == "there")


def test_what_can_not_be_is_said(faulty):
    folder, results = faulty
    for result in results:
        found = result["misused"]
        assert {name: kind for name, (kind, _) in found.items()} == dict.fromkeys(found, "option")
        assert len(found) == 3
        assert "call nwbflow.write on every rank" in found["drop-in"][1]
        assert "COMM_WORLD" in found["no communicator"][1]
    assert not (folder / "x.nwb").exists()


def test_what_a_failed_write_left_has_no_holes(faulty):
    folder, _ = faulty
    with h5py.File(folder / "raises.nwb.partial", "r") as left, h5py.File(folder / "after.nwb", "r") as whole:
        found = left["acquisition/x/data"][()]
        assert np.array_equal(found, whole["acquisition/x/data"][: len(found)])


@pytest.mark.requirement("P3")
def test_ranks_that_failed_write_again(faulty):
    folder, _ = faulty
    with h5py.File(folder / "after.nwb", "r") as file:
        assert file["acquisition/x/data"].shape == (90_000, 64)


def test_a_rank_that_fails_before_it_writes_ends_all(tmp_path):
    assert "rank 1 has no data" in run("early", tmp_path, 2, ends_well=False)
    assert not (tmp_path / "early.nwb").exists()


@pytest.mark.requirement("P3")
def test_no_rank_works_while_it_waits(faulty):
    _, results = faulty
    for waiting in (result["idle"] for result in results[1:]):
        assert waiting["waited"] > 1.9
        assert waiting["worked"] < waiting["waited"] / 2
