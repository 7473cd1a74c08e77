"""Ten crash files and more of other programs: what is recovered of each, read back by stock h5py and PyNWB."""

import json
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
from hdmf.backends.hdf5 import H5DataIO

import nwbflow
from nwbflow.errors import ErrorKind, SettingsError, TargetError, UnsupportedError

HERE = Path(__file__).parent
DATA, TIMES = "/acquisition/ES/data", "/acquisition/ES/timestamps"
CHANNELS = 4

MENDED = {"h5py-earliest", "h5py-latest", "h5py-swmr", "pynwb-swmr", "full-disk", "pynwb-raises", "cut-recording"}
NOTHING = {"pynwb-write", "pynwb-iterator"}
WHOLE = {"pynwb-append"}


def rows(count):
    index = np.arange(count)
    return ((index[:, None] * 7 + np.arange(CHANNELS) * 31) % 30011 + 1).astype("int16")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crashes")
    script = [sys.executable, HERE / "crash_files.py", folder, "3"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    return {each["case"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.requirement("S5")
def test_each_crash_file_gets_its_verdict(told):
    assert {case for case, each in told.items() if "datasets" in each} >= MENDED
    assert {case for case, each in told.items() if "error" in each} >= NOTHING
    assert {case for case, each in told.items() if each["fine"]} == WHOLE
    assert all(each["untouched"] for each in told.values())


@pytest.mark.requirement("S5")
def test_all_rows_that_were_flushed_are_there_bit_for_bit(told):
    for case in MENDED:
        each = told[case]
        kept = {dataset["name"]: dataset for dataset in each["datasets"]}
        with h5py.File(each["path"].replace(".nwb", ".recovered.nwb"), "r") as file:
            data = file[DATA][:]
        assert len(data) == kept[DATA]["kept"] >= each["flushed"], case
        assert kept[DATA]["damaged"] == [], case
        np.testing.assert_array_equal(data, rows(len(data)), err_msg=case)


@pytest.mark.requirement("S5")
def test_data_and_time_stamps_are_equal_in_length_and_valid(told):
    for case in MENDED - {"h5py-swmr"}:  # that one is no NWB file
        each = told[case]
        path = each["path"].replace(".nwb", ".recovered.nwb")
        assert each["invalid"] == [], case
        assert pynwb.validate(path=path) == [], case
        with pynwb.NWBHDF5IO(path, "r") as io:
            nwbfile = io.read()
            series = nwbfile.acquisition["ES"]
            assert len(series.data) == len(series.timestamps) > 0, case
            if case != "pynwb-raises":
                stamps = (np.arange(len(series.data)) + 1) / 1000.0
                np.testing.assert_array_equal(series.timestamps[:], stamps, err_msg=case)
                assert [group.name for group in nwbfile.electrodes["group"][:]] == ["shank"] * CHANNELS


@pytest.mark.requirement("S5")
def test_what_was_lost_and_filled_in_is_in_the_file(told):
    each = told["pynwb-raises"]
    assert {text.partition(" ")[0].rstrip(":") for text in each["placeholders"]} == {
        "/identifier",
        "/session_description",
        "/session_start_time",
        "/timestamps_reference_time",
        "/acquisition/ES",
        TIMES,
    }
    with pynwb.NWBHDF5IO(each["path"].replace(".nwb", ".recovered.nwb"), "r") as io:
        nwbfile = io.read()
        assert "all times are lost" in nwbfile.notes
        assert nwbfile.session_start_time == datetime(1970, 1, 1, tzinfo=UTC)
        assert np.isnan(nwbfile.acquisition["ES"].timestamps[:]).all()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.nwb"
    nwbfile = pynwb.NWBFile("a session", "id-1", datetime(2024, 5, 1, tzinfo=UTC))
    settings = {"chunks": (100, CHANNELS), "maxshape": (None, CHANNELS), "compression": "gzip"}
    data = H5DataIO(rows(3000), **settings)
    nwbfile.add_acquisition(pynwb.TimeSeries(name="ES", data=data, unit="V", rate=1000.0))
    nwbfile.add_trial(start_time=0.0, stop_time=1.0)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwbfile)
    return path


def flipped(path, chunk):
    """Change a byte of a stored chunk."""
    with h5py.File(path, "r") as file:
        found = file[DATA].id.get_chunk_info(chunk)
    content = bytearray(path.read_bytes())
    content[found.byte_offset + found.size // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.requirement("S5")
def test_a_broken_chunk_is_named_and_put_in_place_when_told(good, tmp_path):
    path = Path(shutil.copy(good, tmp_path / "x.nwb"))
    flipped(path, 7)
    flipped(path, 29)
    before = path.read_bytes()
    found = nwbflow.recover(path, in_place=True)
    assert (found.path, found.original) == (path, tmp_path / "x.nwb.damaged")
    assert found.original.read_bytes() == before
    data = next(each for each in found.datasets if each.name == DATA)
    assert (data.kept, data.lost, data.damaged) == (2900, 100, ((700, 800),))
    assert f"{DATA}: 2900 rows kept, 100 lost, damaged: rows 700 to 799" in str(found)
    assert not found.complete
    with h5py.File(path, "r") as file:
        stored = file[DATA][:]
        assert "rows 700 to 799" in file["general/notes"][()].decode()
    wanted = rows(2900)
    wanted[700:800] = 0
    np.testing.assert_array_equal(stored, wanted)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.nwb", "x.nwb.damaged"]


@pytest.mark.requirement("S5")
def test_beside_a_broken_chunk_everything_is_as_it_was(good, tmp_path):
    path = Path(shutil.copy(good, tmp_path / "x.nwb"))
    with h5py.File(path, "r+") as file:
        group = file.create_group("scratch/made", track_order=True)
        for name in "cab":
            group[name] = [1, 2]
        sparse = group.create_dataset("sparse", (1000, 2), "f8", chunks=(100, 1))
        sparse[200:300] = 1.5
        filled = group.create_dataset("filled", (1000,), "i2", chunks=(100,), fillvalue=-1)
        filled[900:] = 5
        group.create_dataset("untouched", (2**40,), "f8")  # 8 TB that nobody wrote
        sparse.attrs["lead"] = group["c"].ref
        group["again"], group["soft"] = sparse, h5py.SoftLink("/nowhere")
    flipped(path, 7)
    found = nwbflow.recover(path)
    assert [each.name for each in found.datasets if each.lost or each.damaged] == [DATA]
    assert "/scratch/made/filled: rows 0 to 899 were never stored; they are the fill value, as before" in found.notes
    with h5py.File(path) as old, h5py.File(found.path) as new:
        before, after = old["scratch/made"], new["scratch/made"]
        assert list(after) == list(before)
        for name in ("sparse", "filled"):
            np.testing.assert_array_equal(after[name][:], before[name][:])
            assert after[name].id.get_num_chunks() == before[name].id.get_num_chunks()
        assert (after["untouched"].shape, after["untouched"].id.get_storage_size()) == ((2**40,), 0)
        assert new[after["sparse"].attrs["lead"]] == after["c"]
        assert after["again"] == after["sparse"]
        assert after.get("soft", getlink=True).path == "/nowhere"


@pytest.mark.requirement("S5")
def test_what_a_series_is_may_be_written_as_an_array_with_one_text(good, tmp_path):
    path = Path(shutil.copy(good, tmp_path / "x.nwb"))
    with h5py.File(path, "r+") as file:
        file.attrs["nwb_version"] = np.array([b"2.0b"])
        file["acquisition/ES"].attrs["neurodata_type"] = np.array([b"CompartmentSeries"])
        file["acquisition/ES"].attrs["namespace"] = np.array([b"simulation_output"])
    flipped(path, 7)
    found = nwbflow.recover(path)
    assert (found.repaired, found.placeholders) == ((), ())
    with h5py.File(found.path) as file:
        assert file.attrs["nwb_version"].tolist() == [b"2.0b"]
        assert file["acquisition/ES"].attrs["neurodata_type"].tolist() == [b"CompartmentSeries"]


@pytest.mark.requirement("S5", "T4")
def test_the_command_leaves_a_whole_file_alone_and_says_so(good, capsys):
    from nwbflow.cli.app import main

    before = good.read_bytes()
    assert main(["recover", str(good), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["datasets"], told["invalid"]) == (str(good), [], [])
    assert "everything in it can be read; it was left as it is" in told["notes"]
    assert good.read_bytes() == before
    assert [each.name for each in good.parent.iterdir()] == ["good.nwb"]


@pytest.mark.requirement("S5", "T4")
def test_the_command_fails_where_nothing_can_be_had(good, tmp_path, capsys):
    from nwbflow.cli.app import main

    path = tmp_path / "x.nwb"
    path.write_bytes(good.read_bytes()[:90])
    assert main(["recover", str(path)]) == 1
    assert "nothing can be recovered" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["x.nwb"]


def test_the_partial_file_of_a_write_is_told_what_it_is(good, tmp_path):
    path = Path(shutil.copy(good, tmp_path / "x.nwb.partial"))
    found = nwbflow.recover(path)
    assert (found.path, found.datasets) == (path, ())
    assert any("interrupted write" in note for note in found.notes)
    flipped(path, 29)
    assert nwbflow.recover(path).path == tmp_path / "x.recovered.nwb"


@pytest.mark.parametrize("content", [b"", b"no HDF5", os.urandom(5000)])
def test_what_is_no_hdf5_is_refused(tmp_path, content):
    path = tmp_path / "x.nwb"
    path.write_bytes(content)
    with pytest.raises(UnsupportedError, match="not an HDF5 file"):
        nwbflow.recover(path)
    assert [each.name for each in tmp_path.iterdir()] == ["x.nwb"]


def test_what_is_no_file_is_refused_at_once(tmp_path):
    store, pipe = tmp_path / "x.nwb.zarr", tmp_path / "pipe"
    store.mkdir()
    os.mkfifo(pipe)
    with pytest.raises(TargetError, match="folder"):
        nwbflow.recover(store)
    with pytest.raises(TargetError, match="no regular file"):
        nwbflow.recover(pipe)
    with pytest.raises(TargetError) as caught:
        nwbflow.recover(tmp_path / "none.nwb")
    assert caught.value.kind is ErrorKind.MISSING


def test_nothing_is_replaced_and_nobody_is_disturbed(good, tmp_path):
    path = Path(shutil.copy(good, tmp_path / "x.nwb"))
    other = tmp_path / "x.recovered.nwb"
    other.write_text("mine")
    with pytest.raises(TargetError, match="exists") as caught:
        nwbflow.recover(path)
    assert caught.value.kind is ErrorKind.EXISTS
    assert other.read_text() == "mine"
    with pytest.raises(SettingsError, match="choose one"):
        nwbflow.recover(path, output=tmp_path / "y.nwb", in_place=True)
    with h5py.File(path, "r+"), pytest.raises(TargetError, match="close it there first"):
        nwbflow.recover(path, output=tmp_path / "y.nwb")


@pytest.mark.requirement("S5")
def test_hundreds_of_damaged_copies_never_hang_crash_or_lie(tmp_path):
    done = subprocess.run(
        [sys.executable, HERE / "mend_many.py", tmp_path, "40", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["lies"] == []
    assert told["mended"] > 20
    assert told["nothing"] > 0


def test_a_step_that_hangs_or_crashes_is_told(tmp_path):
    done = subprocess.run([sys.executable, HERE / "mend_many.py", "deaths"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["hang"] == ["reading it hung for 0.5 s", "/here"]
    assert told["crash"] == ["reading it crashed HDF5 (SIGSEGV)", "/there"]
    assert told["error"] == "ValueError: no"


def test_nothing_works_on_when_the_program_that_asked_is_killed():
    reading, writing = os.pipe()  # read to its end when nobody has it any more
    program = (
        "import os, time\n"
        "from nwbflow.tools.mend.isolated import isolated\n"
        f"isolated(lambda say: (os.write({writing}, b'!'), time.sleep(600), {{}})[-1])\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], pass_fds=[writing]) as asking:
        os.close(writing)
        assert os.read(reading, 1) == b"!"
        asking.kill()
    assert os.read(reading, 1) == b""  # or the time limit of the tests
    os.close(reading)


def test_a_recording_that_was_put_in_place_before_a_kill_is_finished(good, tmp_path):
    path, rest = Path(shutil.copy(good, tmp_path / "x.nwb")), tmp_path / "x.nwb.journal.done"
    rest.mkdir()
    assert "nothing to recover" in str(nwbflow.recover(path))
    assert [each.name for each in tmp_path.iterdir()] == ["x.nwb"]
