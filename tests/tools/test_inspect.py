"""The inspector, against files made by stock h5py and PyNWB, and against h5py's own figures."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest

from nwbflow.errors import ErrorKind, TargetError, UnsupportedError
from nwbflow.tools.inspect import DatasetReport, FileReport, inspect_file

pytestmark = pytest.mark.requirement("T3")

REALDATA = Path(os.environ.get("NWBFLOW_REALDATA", Path(__file__).parents[3] / "shared" / "realdata"))
RECORDINGS = sorted(REALDATA.glob("*.nwb"))


def by_path(report: FileReport) -> dict[str, DatasetReport]:
    return {d.path: d for d in report.datasets}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """One file with every kind of storage, link and type."""
    (tmp_path / "raw.bin").write_bytes(bytes(200))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.arange(100.0)
    path = tmp_path / "mixed.h5"
    with h5py.File(path, "w") as file:
        a = file.create_dataset("g/a", (10, 10), "<i2", chunks=(4, 4), maxshape=(None, 10), compression=4, shuffle=True)
        a[:4, :8] = 1
        file.create_dataset("g/f", data=np.arange(30), chunks=(7,), fletcher32=True)
        file["plain"] = np.arange(5, dtype=">f4")
        file["texts"] = ["a", "bb", "ccc"]
        file["fixed"] = np.array([b"abc", b"de"])
        file["scalar"] = 3
        file["flag"] = np.array([True, False])
        file["nothing"] = h5py.Empty("f8")
        file["references"] = np.array([file["g"].ref], dtype=h5py.ref_dtype)
        file.create_dataset("lists", (4,), h5py.vlen_dtype(np.int32))[0] = [1, 2]
        row = np.dtype([("start", "<i4"), ("name", h5py.string_dtype()), ("where", h5py.ref_dtype)])
        file.create_dataset("rows", (6,), row)
        file.create_dataset("empty", (0, 3), "i2", maxshape=(None, 3), chunks=(10, 3))
        file.create_dataset("raw", (100,), "<i2", external=[("raw.bin", 0, 200)])
        layout = h5py.VirtualLayout((100,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (100,))
        file.create_virtual_dataset("virtual", layout)
        file["soft"] = h5py.SoftLink("/g/a")
        file["broken"] = h5py.SoftLink("/not/there")
        file["external"] = h5py.ExternalLink("other.h5", "/x")
        file["second"] = file["g/a"]
        file["g/loop"] = file["/"]
        file["type"] = np.dtype("f8")
    return path


def test_every_dataset_is_there_once_with_h5pys_own_figures(mixed: Path) -> None:
    report = inspect_file(mixed)
    found = by_path(report)
    assert report.file_bytes == mixed.stat().st_size
    assert report.nwb_version is None
    assert report.problems == ()
    with h5py.File(mixed) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append("/" + name) if isinstance(item, h5py.Dataset) else None)
        assert sorted(found) == sorted(names)
        for name, entry in found.items():
            dataset = file[name]
            assert (entry.shape, entry.maxshape, entry.chunks) == (dataset.shape, dataset.maxshape, dataset.chunks)
            if entry.storage not in ("external", "virtual"):
                assert entry.stored_bytes == dataset.id.get_storage_size()
            if entry.storage == "contiguous" and entry.stored_bytes:
                assert entry.raw_bytes == entry.stored_bytes  # what is not filtered is as large on disk as before


def test_chunks_filters_and_ratio(mixed: Path) -> None:
    found = by_path(inspect_file(mixed))
    a = found["/g/a"]
    assert [f.id for f in a.filters] == [2, 1]
    assert a.filters[1].options == (4,)
    assert a.filters_text == "shuffle + gzip 4"
    assert (a.chunks_stored, a.chunks_total, a.complete) == (2, 9, False)
    assert a.raw_bytes == 200
    assert a.ratio == 200 / a.stored_bytes
    assert (found["/g/f"].chunks_stored, found["/g/f"].chunks_total, found["/g/f"].complete) == (5, 5, True)
    assert found["/g/f"].filters_text == "fletcher32"
    assert (found["/empty"].chunks_stored, found["/empty"].chunks_total, found["/empty"].ratio) == (0, 0, None)
    assert found["/plain"].filters_text == "none"
    assert found["/plain"].chunks_total is None


def test_types_in_words(mixed: Path) -> None:
    found = by_path(inspect_file(mixed))
    assert {name: found[name].dtype for name in ("/g/a", "/plain", "/texts", "/fixed", "/flag", "/lists")} == {
        "/g/a": "int16",
        "/plain": ">f4",
        "/texts": "text",
        "/fixed": "text of 3 bytes",
        "/flag": "bool",
        "/lists": "lists of int32",
    }
    assert found["/references"].dtype == "object reference"
    assert found["/nothing"].shape is None
    assert found["/scalar"].shape == ()


def test_storage_elsewhere_is_named_and_not_counted(mixed: Path) -> None:
    report = inspect_file(mixed)
    found = by_path(report)
    assert (found["/raw"].storage, found["/raw"].sources) == ("external", ("raw.bin",))
    assert (found["/virtual"].storage, found["/virtual"].sources) == ("virtual", ("other.h5:x",))
    assert found["/raw"].stored_bytes == found["/virtual"].stored_bytes == 0
    inside = [d for d in report.datasets if d.path not in ("/raw", "/virtual")]
    assert report.totals.raw_bytes == sum(d.raw_bytes for d in inside)
    assert report.totals.stored_bytes == sum(d.stored_bytes for d in inside)
    assert report.totals.stored_bytes + report.totals.other_bytes == report.file_bytes
    assert report.totals.ratio == pytest.approx(report.totals.raw_bytes / report.totals.stored_bytes)
    assert (report.totals.datasets, report.totals.links) == (len(report.datasets), 5)
    assert (report.totals.chunks_stored, report.totals.chunks_total) == (7, 14)


def test_links_are_named_by_kind(mixed: Path) -> None:
    links = {link.path: link for link in inspect_file(mixed).links}
    assert {path: (link.kind, link.file, link.target) for path, link in links.items()} == {
        "/soft": ("soft", None, "/g/a"),
        "/broken": ("soft", None, "/not/there"),
        "/external": ("external", "other.h5", "/x"),
        "/second": ("hard", None, "/g/a"),
        "/g/loop": ("hard", None, "/"),
    }


def test_no_other_file_is_opened(mixed: Path) -> None:
    whole = inspect_file(mixed)
    for other in ("raw.bin", "other.h5"):
        (mixed.parent / other).unlink()
    assert inspect_file(mixed) == whole


def test_a_version_behind_an_external_link_is_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["version"] = "NWB-9"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["nwb_version"] = h5py.ExternalLink("other.h5", "/version")
    assert inspect_file(tmp_path / "a.h5").nwb_version is None


def test_json_is_whole(mixed: Path) -> None:
    report = inspect_file(mixed)
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["totals"]["stored_bytes"] == report.totals.stored_bytes
    a = next(d for d in value["datasets"] if d["path"] == "/g/a")
    assert a["filters"] == [{"id": 2, "options": [2]}, {"id": 1, "options": [4]}]
    assert (a["shape"], a["maxshape"]) == ([10, 10], [None, 10])
    assert (a["ratio"], a["complete"], value["complete"]) == (200 / a["stored_bytes"], False, False)
    assert {link["kind"] for link in value["links"]} == {"soft", "external", "hard"}


def test_a_file_of_pynwb(tmp_path: Path) -> None:
    nwbfile = pynwb.NWBFile(
        session_description="s", identifier="i", session_start_time=datetime(2020, 1, 1, tzinfo=UTC)
    )
    data = pynwb.H5DataIO(np.zeros((1000, 4), "<i2"), chunks=(100, 4), compression="gzip", shuffle=True)
    nwbfile.add_acquisition(pynwb.TimeSeries(name="t", data=data, unit="V", rate=10.0))
    nwbfile.add_trial(start_time=0.0, stop_time=1.0)
    path = tmp_path / "a.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwbfile)
    report = inspect_file(path)
    found = by_path(report)
    with h5py.File(path) as file:
        assert report.nwb_version == file.attrs["nwb_version"]
    t = found["/acquisition/t/data"]
    assert (t.neurodata_type, t.filters_text) == ("TimeSeries", "shuffle + gzip 4")
    assert (t.chunks_stored, t.chunks_total, t.complete) == (10, 10, True)
    assert found["/intervals/trials/start_time"].neurodata_type == "VectorData"
    assert found["/acquisition/t/starting_time"].neurodata_type == "TimeSeries"


@pytest.mark.skipif(not RECORDINGS, reason="no real recordings; set NWBFLOW_REALDATA to their folder")
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_real_files(path: Path) -> None:
    report = inspect_file(path)
    assert report.problems == ()
    assert report.complete
    assert report.nwb_version is not None
    assert report.nwb_version[0] in "12"
    found = by_path(report)
    with h5py.File(path) as file:
        stored: dict[str, int] = {}
        file.visititems(
            lambda name, item: (
                stored.update({"/" + name: item.id.get_storage_size()}) if isinstance(item, h5py.Dataset) else None
            )
        )
        assert {name: entry.stored_bytes for name, entry in found.items()} == stored
        for name, entry in found.items():
            assert entry.shape == file[name].shape
            if file[name].chunks:
                expected = math.prod(-(-n // c) for n, c in zip(file[name].shape, file[name].chunks, strict=True))
                assert entry.chunks_total == expected
    json.dumps(report.to_json(), allow_nan=False)


def test_a_killed_write_says_how_far_it_got(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb.partial"
    code = (
        "import h5py, os, sys\n"
        "f = h5py.File(sys.argv[1], 'w')\n"
        "d = f.create_dataset('x', (1000, 8), 'i2', chunks=(100, 8))\n"
        "d[:300] = 1\n"
        "f.flush()\n"
        "d[300:] = 1\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    report = inspect_file(path)
    (x,) = report.datasets
    assert (x.chunks_stored, x.chunks_total) == (3, 10)
    assert not report.complete


def test_a_file_being_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    code = (
        "import h5py, sys\nf = h5py.File(sys.argv[1], 'w', locking=True)\nf['x'] = 1\nf.flush()\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(TargetError, match="being written by another process") as caught:
            inspect_file(path)
    assert caught.value.kind is ErrorKind.LOCKED
    assert [d.path for d in inspect_file(path).datasets] == ["/x"]


def test_a_file_marked_open_by_a_dead_writer_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    code = "import h5py, os, sys\nf = h5py.File(sys.argv[1], 'w', libver='latest')\nf.flush()\nos._exit(9)\n"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    with pytest.raises(TargetError, match="h5clear") as caught:
        inspect_file(path)
    assert caught.value.kind is ErrorKind.LOCKED


def test_what_is_no_hdf5_file_is_told_apart(tmp_path: Path, mixed: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("hello")
    empty = tmp_path / "empty.nwb"
    empty.touch()
    for path in (text, empty):
        with pytest.raises(UnsupportedError, match="not an HDF5 file") as unsupported:
            inspect_file(path)
        assert unsupported.value.kind is ErrorKind.NOT_HDF5
    for path, kind, match in (
        (tmp_path / "none.nwb", ErrorKind.MISSING, "no such file"),
        (tmp_path, ErrorKind.FOLDER, "folder"),
        (text / "x", ErrorKind.IO, "can't be read"),
    ):
        with pytest.raises(TargetError, match=match) as target:
            inspect_file(str(path))
        assert target.value.kind is kind
    cut = tmp_path / "cut.h5"
    shutil.copy(mixed, cut)
    os.truncate(cut, cut.stat().st_size // 2)
    with pytest.raises(TargetError, match="cut off"):
        inspect_file(cut)


def test_damage_inside_is_a_problem_with_its_path_and_the_rest_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["whole"] = np.arange(10)
        file["hurt/x"] = np.arange(10)
        where = h5py.h5o.get_info(file["hurt/x"].id).addr
    content = bytearray(path.read_bytes())
    content[where : where + 16] = b"\xff" * 16
    path.write_bytes(content)
    report = inspect_file(path)
    assert [d.path for d in report.datasets] == ["/whole"]
    (problem,) = report.problems
    assert problem.startswith("/hurt/x: ")
    assert not report.complete


def test_deep_files_are_walked(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group: h5py.Group = file
        for _ in range(1500):  # more than Python's recursion limit
            group = group.create_group("g")
        group["x"] = 1
    (x,) = inspect_file(tmp_path / "a.h5").datasets
    assert x.path == "/g" * 1500 + "/x"
