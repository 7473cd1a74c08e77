"""The comparison is honest: its figures are the files', and a wrong file does not pass."""

import h5py
import numpy as np
import pytest

from nwbflow.errors import ErrorKind, PlanError, SettingsError, TargetError, VerifyError
from nwbflow.testing.simulate import neuropixels
from nwbflow.tools import demo
from nwbflow.tools.demo import DATASET, run_demo, stages


@pytest.fixture(scope="module")
def recording():
    return neuropixels(0.3, channels=128)


@pytest.mark.requirement("W3", "Q3")
def test_report_is_what_the_files_say(recording, tmp_path):
    steps = []
    report = run_demo(recording, tmp_path, rate=30000.0, keep=True, say=steps.append)
    assert (report.shape, report.dtype, report.raw_bytes) == ((9000, 128), "int16", recording.nbytes)
    assert report.kept
    assert sum("another process" in step for step in steps) == len(report.runs) == 3
    for run in report.runs:
        assert run.file_bytes == run.path.stat().st_size
        with h5py.File(run.path) as file:
            assert np.array_equal(file[DATASET][...], recording)
            assert file[DATASET].chunks == run.chunks
            assert len(file["general/extracellular_ephys/electrodes/id"]) == 128
        if run.receipt is not None:
            assert stages(run.receipt)["encode"] > 0
            assert run.receipt.verified == "stored"
    assert report.speed_up(report.runs[0]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(run.path.name for run in report.runs)


def test_files_go_unless_they_are_kept(recording, tmp_path):
    assert not run_demo(recording, tmp_path, rate=30000.0).kept
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", ["pynwb", "default", "fast"])
def test_a_file_with_one_wrong_sample_does_not_pass(which, recording, tmp_path):
    path = tmp_path / f"demo-{which}.nwb"

    def tamper(step):
        if path.name in step:
            with h5py.File(path, "r+") as file:
                file[DATASET][4321, 7] += 1

    with pytest.raises(VerifyError, match=path.name):
        run_demo(recording, tmp_path, rate=30000.0, say=tamper)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cant_be_read_does_not_pass(recording, tmp_path):
    def tamper(step):
        if step.startswith("reading demo-fast"):
            (tmp_path / "demo-fast.nwb").write_bytes(b"")

    with pytest.raises(VerifyError, match="can't be read by h5py"):
        run_demo(recording, tmp_path, rate=30000.0, say=tamper)


def test_nothing_is_written_over_or_begun_without_room(recording, tmp_path, monkeypatch):
    (tmp_path / "demo-fast.nwb").write_bytes(b"mine")
    with pytest.raises(TargetError, match="demo-fast"):
        run_demo(recording, tmp_path, rate=30000.0)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("demo-fast.nwb", b"mine")]
    (tmp_path / "demo-fast.nwb").unlink()
    monkeypatch.setattr(demo.shutil, "disk_usage", lambda _: demo.shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(PlanError, match="free") as caught:
        run_demo(recording, tmp_path, rate=30000.0)
    assert caught.value.kind is ErrorKind.NO_SPACE
    with pytest.raises(SettingsError, match="holds nothing"):
        run_demo(recording[:0], tmp_path, rate=30000.0)
