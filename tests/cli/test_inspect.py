"""``nwbflow inspect`` says what h5py says."""

import h5py
import numpy as np
import pytest


@pytest.fixture
def file(tmp_path):
    """An HDF5 file with a compressed, a plain, a tiny and an incomplete dataset, and links."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("big", data=np.arange(100_000), chunks=(30_000,), compression="gzip", shuffle=True)
        file.create_dataset("plain", data=np.zeros((300, 100)))
        file["tiny"] = 1
        holes = file.create_dataset("holes", (1000, 10), "i2", chunks=(100, 10), compression="lzf")
        holes[:250] = 7
        for number in range(15):
            file[f"links/{number:02d}"] = h5py.SoftLink("/big")
        file["links/out"] = h5py.ExternalLink("b.h5", "/x")
    return tmp_path / "a.h5"


@pytest.mark.requirement("T3")
@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_shows_what_h5py_says_and_fits(columns, file, nwbflow):
    done = nwbflow("inspect", file, columns=columns)
    assert (done.code, done.err) == (0, "")
    with h5py.File(file) as h5:
        ratio = 800_000 / h5["big"].id.get_storage_size()
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.startswith("/")}
    assert rows.keys() - {str(file)} == {"/big", "/plain", "/holes"}
    assert "4 of 30000" in rows["/big"]
    assert rows["/big"].rstrip().endswith(f"{ratio:.2f}" if ratio < 99.995 else f"{ratio:.0f}")
    assert "shuffle + gzip 4" in done.out
    assert "contiguous" in rows["/plain"]
    assert "300 x 100" in rows["/plain"]
    assert "3 of 10 of 100 x 10" in rows["/holes"]
    assert "incomplete: /holes has 3 of 10 chunks" in done.out
    assert "and 1 small dataset, 8 B together" in done.out
    assert "4 datasets:" in done.out
    assert "HDF5, not NWB" in done.out
    table = [line for line in done.out.splitlines() if line.startswith(("/big", "/plain", "/holes", "─"))]
    assert max(map(len, table)) <= columns


@pytest.mark.requirement("T3")
def test_all_shows_small_datasets_and_every_link(file, nwbflow):
    brief, full = nwbflow("inspect", file), nwbflow("inspect", file, "--all")
    assert "/tiny" in full.out
    assert "/tiny" not in brief.out
    assert full.out.count("soft link") == 15
    assert "external link /links/out -> b.h5:/x" in full.out
    assert "and 6 more links" in brief.out


@pytest.mark.requirement("T3", "T4")
def test_json_is_the_whole_report(file, nwbflow):
    done = nwbflow("inspect", file, "--json")
    assert (done.code, done.err) == (0, "")
    assert [d["path"] for d in done.json["datasets"]] == ["/big", "/holes", "/plain", "/tiny"]
    assert done.json["file_bytes"] == file.stat().st_size
    assert done.json["complete"] is False


@pytest.mark.requirement("T3")
def test_every_real_file_can_be_shown(realdata, nwbflow):
    files = sorted(realdata.glob("*.nwb"))
    assert files
    for path in files:
        done = nwbflow("inspect", path)
        assert (done.code, done.err) == (0, ""), path
        assert "NWB" in done.out.splitlines()[0]
        assert nwbflow("inspect", path, "--json").json["datasets"]


@pytest.mark.requirement("T4")
def test_what_is_no_hdf5_file_is_one_text_and_exit_code_1(tmp_path, nwbflow):
    (tmp_path / "text.nwb").write_text("hello")
    wrong = {"text.nwb": "is not an HDF5 file", "missing.nwb": "there is no such file", ".": "is a folder"}
    for name, text in wrong.items():
        for extra in ((), ("--json",)):
            done = nwbflow("inspect", name, *extra, folder=tmp_path)
            assert (done.code, done.out) == (1, "")
            assert text in done.err
            assert done.err.count("\n") == 1


def test_names_in_a_file_can_not_move_the_cursor(tmp_path, nwbflow):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a\x1b[2Jb", data=np.zeros(50_000))
        file["l\x1b[2J"] = h5py.SoftLink("/x\x1b[2J")
    done = nwbflow("inspect", tmp_path / "a.h5", "--all")
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "a?[2Jb" in done.out


@pytest.mark.requirement("T3")
def test_a_partial_that_cant_be_read_in_part_is_not_called_complete(tmp_path, nwbflow):
    path = tmp_path / "a.nwb.partial"
    with h5py.File(path, "w") as file:
        file["whole"] = np.arange(5)
        file["damaged"] = np.arange(5)
        header = h5py.h5o.get_info(file["damaged"].id).addr
    whole = nwbflow("inspect", path)
    assert "All its datasets are complete" in whole.out
    content = bytearray(path.read_bytes())
    content[header : header + 16] = b"\xff" * 16
    path.write_bytes(content)
    done = nwbflow("inspect", path)
    assert done.code == 0
    assert "can't be read: /damaged" in done.out
    assert "All its datasets are complete" not in done.out
    assert "Not all of it can be read" in done.out
