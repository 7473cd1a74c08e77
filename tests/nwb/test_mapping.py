"""Recordings as NWB files without copying a byte: read back by stock tools, in a process of their own."""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import h5py
import numpy as np
import pynwb
import pytest
from hdmf.backends.hdf5 import H5DataIO
from hdmf.common import DynamicTable, VectorData, VectorIndex
from pynwb import NWBFile, TimeSeries
from pynwb.ecephys import ElectricalSeries
from support import opens_in_pynwb, read_array, session

import nwbflow
from nwbflow.errors import ErrorKind, LinkError, NwbflowError, SettingsError, SourceError, UnsupportedError
from nwbflow.links.fingerprint import fingerprint_dataset, fingerprint_raw
from nwbflow.links.records import read_records

CHANNELS = 384
DATA = np.arange(4000, dtype="<i2").reshape(-1, 4)
SERIES = "/acquisition/x/data"

READ_BACK = """
import sys, json, hashlib, pynwb
assert not any(name.startswith("nwbflow") for name in sys.modules)
path, series, *bounds = sys.argv[1:]
with pynwb.NWBHDF5IO(path, "r") as io:
    data = io.read().acquisition[series].data
    bounds = [tuple(map(int, b.split(":"))) for b in bounds] or [(0, data.shape[0])]
    print(json.dumps([data.shape, [hashlib.sha256(data[a:b].tobytes()).hexdigest() for a, b in bounds]]))
"""


def stock(path, folder, *bounds, series="x", **environment):
    """Return shape and digests of slices as stock PyNWB reads them, in another process and working folder."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ_BACK, str(path), series, *(f"{a}:{b}" for a, b in bounds)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise OSError(result.stderr)
    shape, digests = json.loads(result.stdout)
    return tuple(shape), digests


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def raw(path, **options):
    return nwbflow.link_raw(path, **{"dtype": "<i2", "shape": (None, 4), **options})


def write(nwbfile, path, **options):
    return nwbflow.write(nwbfile, path, progress=False, **options)


def allocated(path):
    return path.stat().st_blocks * 512


@pytest.fixture
def recording(tmp_path):
    DATA.tofile(tmp_path / "rec.bin")
    return tmp_path / "rec.bin"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The working folder, in which nothing is but a file of the recording's name."""
    (tmp_path / "elsewhere").mkdir()
    np.zeros_like(DATA).tofile(tmp_path / "elsewhere" / "rec.bin")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


# --- the size that matters ---------------------------------------------------------------------


def sparse_raw(path, rows, seed):
    """Make a raw file of zeros that takes no room, with noise at its start, middle and end."""
    row = CHANNELS * 2
    path.touch()
    os.truncate(path, rows * row)
    noise = np.random.default_rng(seed).integers(-500, 500, (300, CHANNELS)).astype("<i2")
    with path.open("r+b") as file:
        for start in (0, rows // 2 - 150, rows - 300):
            file.seek(start * row)
            file.write(noise.tobytes())
    return noise


def electrical(data):
    nwbfile = NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    device = nwbfile.create_device(name="probe")
    group = nwbfile.create_electrode_group("shank", description="d", location="CA1", device=device)
    for _ in range(CHANNELS):
        nwbfile.add_electrode(group=group, location="CA1")
    region = nwbfile.create_electrode_table_region(list(range(CHANNELS)), "all")
    nwbfile.add_acquisition(ElectricalSeries(name="x", data=data, electrodes=region, rate=30_000.0, conversion=2.34e-6))
    return nwbfile


@pytest.mark.requirement("X4")
def test_twenty_gigabytes_of_raw_data_become_an_nwb_file_of_a_few_megabytes(tmp_path, elsewhere):
    rows = 20 * 10**9 // (CHANNELS * 2)
    noise = sparse_raw(tmp_path / "rec.bin", rows, 1)
    before = allocated(tmp_path / "rec.bin"), (tmp_path / "rec.bin").stat().st_mtime_ns
    data = nwbflow.link_raw(tmp_path / "rec.bin", dtype="<i2", shape=(None, CHANNELS))
    receipt = write(electrical(data), tmp_path / "session.nwb")

    assert set(receipt.linked) == {SERIES}
    assert "rec.bin (raw)" in receipt.linked[SERIES]
    assert allocated(tmp_path / "session.nwb") < 4 * 10**6
    assert (allocated(tmp_path / "rec.bin"), (tmp_path / "rec.bin").stat().st_mtime_ns) == before
    middle = rows // 2
    shape, found = stock(
        tmp_path / "session.nwb",
        elsewhere,
        (0, 300),
        (middle - 150, middle + 150),
        (rows - 300, rows),
        (1000, 1300),
    )
    assert shape == (rows, CHANNELS)
    assert found == [digest(noise)] * 3 + [digest(np.zeros_like(noise))]
    assert pynwb.validate(path=str(tmp_path / "session.nwb")) == []


def ten_raw(folder, rows):
    paths = [folder / f"part{number}.bin" for number in range(10)]
    noises = [sparse_raw(path, rows, number) for number, path in enumerate(paths)]
    return [nwbflow.link_raw(path, dtype="<i2", shape=(None, CHANNELS)) for path in paths], noises


def ten_hdf5(folder, rows):
    pieces, noises = [], []
    for number in range(10):
        noises.append(np.random.default_rng(number).integers(-500, 500, (300, CHANNELS)).astype("<i2"))
        with h5py.File(folder / f"part{number}.h5", "w") as file:
            dataset = file.create_dataset("data", (rows, CHANNELS), "<i2")
            for start in (0, rows // 2 - 150, rows - 300):
                dataset[start : start + 300] = noises[-1]
        pieces.append((folder / f"part{number}.h5", "/data"))
    return pieces, noises


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("make", [ten_raw, ten_hdf5])
def test_ten_files_of_two_gigabytes_each_become_one_series(tmp_path, elsewhere, make):
    rows = 2 * 10**9 // (CHANNELS * 2)
    pieces, noises = make(tmp_path, rows)
    assert sum(allocated(path) for path in tmp_path.glob("part*")) < 50 * 10**6  # else the machine has no sparse files
    receipt = write(electrical(nwbflow.concat(pieces)), tmp_path / "session.nwb")

    assert set(receipt.linked) == {SERIES}
    assert "and 9 more" in receipt.linked[SERIES]
    assert allocated(tmp_path / "session.nwb") < 4 * 10**6
    starts = [number * rows for number in range(10)]
    shape, found = stock(
        tmp_path / "session.nwb",
        elsewhere,
        *((start, start + 300) for start in starts),
        *((start + rows // 2 - 150, start + rows // 2 + 150) for start in starts),
        *((start + rows - 300, start + rows) for start in starts),
        (rows - 300, rows + 300),
    )
    assert shape == (10 * rows, CHANNELS)
    assert found == [digest(noise) for noise in noises] * 3 + [digest(np.concatenate([noises[0], noises[1]]))]
    assert pynwb.validate(path=str(tmp_path / "session.nwb")) == []


# --- raw files ---------------------------------------------------------------------------------


@pytest.mark.requirement("X4")
def test_a_linked_raw_file_reads_like_an_array(recording):
    data = raw(recording, offset=8)
    assert (data.shape, data.dtype, len(data)) == ((999, 4), np.dtype("<i2"), 999)
    assert np.array_equal(data[5:100:7, 1:3], DATA[1:][5:100:7, 1:3])
    assert np.array_equal(data[-1], DATA[-1])
    assert repr(data) == f"RawData({recording} (raw), shape=(999, 4), dtype='<i2')"
    both = nwbflow.concat([data, raw(recording)])
    assert np.array_equal(both[990:1010], np.concatenate([DATA[1:], DATA])[990:1010])


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("cls", [nwbflow.NWBHDF5IO, None], ids=["drop-in", "nwbflow.write"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f8", ">f4", "u1", "?"])
def test_bytes_are_read_as_the_type_says(tmp_path, elsewhere, cls, dtype):
    values = (np.arange(600).reshape(-1, 3) % 2).astype(dtype) if dtype == "?" else np.arange(600).reshape(-1, 3)
    values = values.astype(dtype)
    (tmp_path / "rec.bin").write_bytes(b"a header " + values.tobytes())
    nwbfile = session(x=nwbflow.link_raw(tmp_path / "rec.bin", dtype=dtype, shape=(None, 3), offset=9))
    if cls is None:
        write(nwbfile, tmp_path / "s.nwb")
    else:
        with cls(tmp_path / "s.nwb", "w") as io:
            io.write(nwbfile)
    with h5py.File(tmp_path / "s.nwb") as file:
        dataset = file[SERIES]
        assert dataset.external == [(str(tmp_path / "rec.bin"), 9, values.nbytes)]
        assert dataset.dtype == np.dtype(dtype)
        assert dataset.attrs["unit"] == "V"
        record = read_records(dataset)[""]
        assert (record.shape, record.dtype) == ((200, 3), np.dtype(dtype).str)
        assert record.fingerprints == {
            str(tmp_path / "rec.bin"): fingerprint_raw(tmp_path / "rec.bin", 9, values.nbytes)
        }
    assert np.array_equal(read_array(tmp_path / "s.nwb", SERIES), values)


@pytest.mark.requirement("X4")
def test_plain_pynwb_stores_the_data(recording, tmp_path):
    with pynwb.NWBHDF5IO(tmp_path / "s.nwb", "w") as io:
        io.write(session(x=nwbflow.concat([raw(recording), raw(recording)])))
    recording.unlink()
    assert np.array_equal(read_array(tmp_path / "s.nwb", SERIES), np.concatenate([DATA, DATA]))


@pytest.mark.requirement("X4")
def test_a_relative_name_survives_moving_both(recording, tmp_path, elsewhere):
    (tmp_path / "nwb").mkdir()
    write(session(x=raw(recording, relative=True)), tmp_path / "nwb" / "s.nwb")
    with h5py.File(tmp_path / "nwb" / "s.nwb") as file:
        assert file[SERIES].external == [("../rec.bin", 0, DATA.nbytes)]
    (tmp_path / "moved").mkdir()
    for name in ("nwb", "rec.bin"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    path = tmp_path / "moved" / "nwb" / "s.nwb"
    expected = ((1000, 4), [digest(DATA)])
    assert stock(path, path.parent) == expected  # stock readers count from their working folder
    assert stock(path, elsewhere, HDF5_EXTFILE_PREFIX="${ORIGIN}") == expected


@pytest.mark.requirement("X4")
def test_an_absolute_name_is_read_when_the_nwb_file_is_moved(recording, tmp_path, elsewhere):
    write(session(x=raw(recording)), tmp_path / "s.nwb")
    (tmp_path / "moved").mkdir()
    (tmp_path / "s.nwb").rename(tmp_path / "moved" / "s.nwb")
    expected = ((1000, 4), [digest(DATA)])
    assert stock(tmp_path / "moved" / "s.nwb", elsewhere) == expected
    assert stock(tmp_path / "moved" / "s.nwb", elsewhere, HDF5_EXTFILE_PREFIX="${ORIGIN}") == expected


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("links", ["allow", "contained"])
def test_our_reader_finds_relative_names_from_any_folder(recording, tmp_path, elsewhere, links):
    write(session(x=DATA + 1), tmp_path / "src.nwb")
    pieces = [(tmp_path / "src.nwb", SERIES)]
    write(session(x=raw(recording, relative=True), y=nwbflow.concat(pieces)), tmp_path / "s.nwb")
    (tmp_path / "moved").mkdir()
    for name in ("s.nwb", "rec.bin", "src.nwb"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    with nwbflow.NWBHDF5IO(tmp_path / "moved" / "s.nwb", "r", links=links) as io:
        nwbfile = io.read()
        assert np.array_equal(nwbfile.acquisition["x"].data[:], DATA)
        assert np.array_equal(nwbfile.acquisition["y"].data[:], DATA + 1)


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(("name", "series"), [("rec.bin", "x"), ("src.nwb", "y")])
def test_our_reader_says_what_is_missing(recording, tmp_path, name, series):
    write(session(x=DATA), tmp_path / "src.nwb")
    write(session(x=raw(recording), y=nwbflow.concat([(tmp_path / "src.nwb", SERIES)])), tmp_path / "s.nwb")
    (tmp_path / name).rename(tmp_path / "renamed")
    with nwbflow.NWBHDF5IO(tmp_path / "s.nwb", "r") as io:
        with pytest.warns(UserWarning, match=rf"{name} does not exist"):
            data = io.read().acquisition[series].data
        with pytest.raises(LinkError, match=rf"{name}.*does not exist.*nwbflow links relocate") as caught:
            data[:]
    assert caught.value.kind is ErrorKind.MISSING


@pytest.mark.requirement("X4")
def test_one_session_written_to_two_folders_has_right_names_in_each(recording, tmp_path, elsewhere):
    write(session(x=DATA), tmp_path / "src.nwb")
    nwbfile = session(x=raw(recording, relative=True), y=nwbflow.concat([(tmp_path / "src.nwb", SERIES)]))
    for folder, back in (("a", ".."), ("b/c", "../..")):
        (tmp_path / folder).mkdir(parents=True)
        write(nwbfile, tmp_path / folder / "s.nwb")
        with h5py.File(tmp_path / folder / "s.nwb") as file:
            assert file[SERIES].external[0][0] == f"{back}/rec.bin"
            assert file["/acquisition/y/data"].virtual_sources()[0].file_name == f"{back}/src.nwb"
        assert np.array_equal(read_array(tmp_path / folder / "s.nwb", "/acquisition/y/data"), DATA)


@pytest.mark.requirement("X4")
def test_the_target_behind_a_symbolic_link_has_right_names(recording, tmp_path, elsewhere):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    write(session(x=DATA), tmp_path / "src.nwb")
    write(session(x=DATA), tmp_path / "real" / "deep" / "s.nwb")
    (tmp_path / "s.nwb").symlink_to("real/deep/s.nwb")
    nwbfile = session(x=nwbflow.concat([(tmp_path / "src.nwb", SERIES)]), y=raw(recording, relative=True))
    write(nwbfile, tmp_path / "s.nwb", overwrite=True)
    with h5py.File(tmp_path / "s.nwb") as file:
        assert file["/acquisition/y/data"].external[0][0] == "../../rec.bin"
    for path in (tmp_path / "s.nwb", tmp_path / "real" / "deep" / "s.nwb"):
        assert np.array_equal(read_array(path, SERIES), DATA)


@pytest.mark.requirement("X4")
def test_stretches_of_one_file_are_recorded_apart(recording, tmp_path, elsewhere):
    data = nwbflow.concat([raw(recording, shape=(None, 4), offset=8), raw(recording)])
    write(session(x=data), tmp_path / "s.nwb")
    with h5py.File(tmp_path / "s.nwb") as file:
        assert read_records(file[SERIES])[""].fingerprints == {
            f"{recording} @ 8": fingerprint_raw(recording, 8, DATA.nbytes - 8),
            f"{recording} @ 0": fingerprint_raw(recording, 0, DATA.nbytes),
        }
    assert np.array_equal(read_array(tmp_path / "s.nwb", SERIES), np.concatenate([DATA[1:], DATA]))


@pytest.mark.requirement("X4", "Q3")
@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (hdf5-tools) is not installed")
def test_h5dump_shows_where_the_bytes_are(recording, tmp_path):
    write(session(x=nwbflow.concat([raw(recording, offset=16), raw(recording)])), tmp_path / "s.nwb")
    command = ["h5dump", "-p", "-H", "-d", SERIES, str(tmp_path / "s.nwb")]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shown = re.findall(r"FILENAME\s+(\S+)\s+SIZE\s+(\d+)\s+OFFSET\s+(\d+)", head)
    assert "EXTERNAL" in head
    assert shown == [(str(recording), "7984", "16"), (str(recording), "8000", "0")]
    out = tmp_path / "values.bin"
    command = ["h5dump", "-d", SERIES, "-b", "LE", "-o", str(out), str(tmp_path / "s.nwb")]
    subprocess.run(command, capture_output=True, check=True)
    assert out.read_bytes() == DATA[2:].tobytes() + DATA.tobytes()


# --- datasets of HDF5 files --------------------------------------------------------------------


@pytest.mark.requirement("X4")
def test_open_named_and_read_datasets_become_one(tmp_path, elsewhere):
    for name in ("day1", "day2", "day3"):
        write(session(x=DATA + len(name) * int(name[-1])), tmp_path / f"{name}.nwb")
    with (
        h5py.File(tmp_path / "day2.nwb") as file,
        pynwb.NWBHDF5IO(tmp_path / "day3.nwb", "r") as io,
    ):
        third = io.read().acquisition["x"].data
        data = nwbflow.concat([(tmp_path / "day1.nwb", SERIES), file[SERIES], third])
    # both are closed by now
    whole = np.concatenate([DATA + 4, DATA + 8, DATA + 12])
    assert np.array_equal(data[995:2005], whole[995:2005])
    receipt = write(session(x=data), tmp_path / "s.nwb")
    assert set(receipt.linked) == {SERIES}
    with h5py.File(tmp_path / "s.nwb") as file:
        record = read_records(file[SERIES])[""]
        with h5py.File(tmp_path / "day2.nwb") as day2:
            assert record.fingerprints[f"day2.nwb:{SERIES}"] == fingerprint_dataset(day2[SERIES])
        assert list(record.fingerprints) == [f"day{n}.nwb:{SERIES}" for n in (1, 2, 3)]
    assert stock(tmp_path / "s.nwb", elsewhere) == ((3000, 4), [digest(whole)])


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("axis", [1, -1])
def test_datasets_are_put_beside_each_other(tmp_path, elsewhere, axis):
    write(session(x=DATA, y=DATA[:, :1]), tmp_path / "src.nwb")
    pieces = [(tmp_path / "src.nwb", f"/acquisition/{name}/data") for name in "xyx"]
    write(session(x=nwbflow.concat(pieces, axis=axis)), tmp_path / "s.nwb")
    whole = np.concatenate([DATA, DATA[:, :1], DATA], axis=1)
    assert np.array_equal(read_array(tmp_path / "s.nwb", SERIES), whole)


@pytest.mark.requirement("X2", "X4")
def test_one_piece_gives_a_dataset_attributes_of_its_own(tmp_path):
    write(session(x=DATA), tmp_path / "src.nwb")
    nwbfile = session()
    data = nwbflow.concat([(tmp_path / "src.nwb", SERIES)])
    nwbfile.add_acquisition(TimeSeries(name="x", data=data, unit="counts", conversion=0.5, rate=2.0))
    write(nwbfile, tmp_path / "s.nwb")
    with h5py.File(tmp_path / "s.nwb") as file, h5py.File(tmp_path / "src.nwb") as source:
        assert (file[SERIES].attrs["unit"], file[SERIES].attrs["conversion"]) == ("counts", 0.5)
        assert source[SERIES].attrs["unit"] == "V"
        assert np.array_equal(file[SERIES][()], DATA)
    assert pynwb.validate(path=str(tmp_path / "s.nwb")) == []


@pytest.mark.requirement("X4")
def test_references_lead_to_mapped_columns(tmp_path):
    times = np.arange(30, dtype="<f8")
    times.tofile(tmp_path / "spikes.bin")
    with h5py.File(tmp_path / "sorted.h5", "w") as file:
        file["amplitude"] = times * 2
    nwbfile = session()
    spikes = VectorData(
        name="spikes", description="d", data=nwbflow.link_raw(tmp_path / "spikes.bin", dtype="<f8", shape=(None,))
    )
    amplitudes = VectorData(
        name="amplitudes", description="d", data=nwbflow.concat([(tmp_path / "sorted.h5", "amplitude")])
    )
    columns = [  # indices first: HDMF looks for their targets before it puts iterators aside
        VectorIndex(name="spikes_index", data=[10, 30], target=spikes),
        spikes,
        VectorIndex(name="amplitudes_index", data=[10, 30], target=amplitudes),
        amplitudes,
    ]
    nwbfile.add_scratch(DynamicTable(name="table", description="d", columns=columns))
    write(nwbfile, tmp_path / "s.nwb")
    with h5py.File(tmp_path / "s.nwb") as file:
        table = file["scratch/table"]
        assert table["spikes"].external
        assert table["amplitudes"].is_virtual
        assert file[table["spikes_index"].attrs["target"]] == table["spikes"]
    with pynwb.NWBHDF5IO(tmp_path / "s.nwb", "r") as io:
        table = io.read().scratch["table"]
        assert np.array_equal(table["spikes"][1], times[10:])
        assert np.array_equal(table["amplitudes"][0], times[:10] * 2)
    assert pynwb.validate(path=str(tmp_path / "s.nwb")) == []


@pytest.mark.requirement("X4")
def test_timestamps_and_control_are_mapped_too(tmp_path, elsewhere):
    stamps = np.arange(1000) / 30.0
    stamps.astype("<f8").tofile(tmp_path / "stamps.bin")
    DATA.tofile(tmp_path / "rec.bin")
    nwbfile = session()
    timestamps = nwbflow.link_raw(tmp_path / "stamps.bin", dtype="<f8", shape=(1000,))
    nwbfile.add_acquisition(TimeSeries(name="x", data=raw(tmp_path / "rec.bin"), unit="V", timestamps=timestamps))
    receipt = write(nwbfile, tmp_path / "s.nwb")
    assert set(receipt.linked) == {SERIES, "/acquisition/x/timestamps"}
    with h5py.File(tmp_path / "s.nwb") as file:
        assert file["acquisition/x/timestamps"].external
        assert np.array_equal(file["acquisition/x/timestamps"][()], stamps)
    assert opens_in_pynwb(tmp_path / "s.nwb") == {"x": (1000, 4)}


# --- into files that are there, and out of them ------------------------------------------------


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("options", [{}, {"libver": "latest"}])
def test_series_are_added_to_a_file(recording, tmp_path, elsewhere, options):
    write(session(old=DATA + 1), tmp_path / "s.nwb")
    with nwbflow.NWBHDF5IO(tmp_path / "s.nwb", "r+", **options) as io:
        nwbfile = io.read()
        old = nwbfile.acquisition["old"].data
        both = nwbflow.concat([old, (tmp_path / "s.nwb", "/acquisition/old/data")])
        nwbfile.add_acquisition(TimeSeries(name="x", data=raw(recording), unit="V", rate=1.0))
        nwbfile.add_acquisition(TimeSeries(name="both", data=both, unit="V", rate=1.0))
        io.write(nwbfile)
        assert set(io.receipt.linked) == {SERIES, "/acquisition/both/data"}
    with h5py.File(tmp_path / "s.nwb") as file:
        assert {s.file_name for s in file["/acquisition/both/data"].virtual_sources()} == {"."}
    (tmp_path / "s.nwb").rename(tmp_path / "renamed.nwb")
    for series, expected in (("x", DATA), ("both", np.concatenate([DATA + 1] * 2)), ("old", DATA + 1)):
        assert np.array_equal(read_array(tmp_path / "renamed.nwb", f"/acquisition/{series}/data"), expected)


@pytest.mark.requirement("X4")
def test_series_are_added_while_exporting(recording, tmp_path, elsewhere):
    write(session(old=DATA), tmp_path / "old.nwb")
    with nwbflow.NWBHDF5IO(tmp_path / "old.nwb", "r") as source:
        nwbfile = source.read()
        nwbfile.add_acquisition(TimeSeries(name="x", data=raw(recording), unit="V", rate=1.0))
        nwbfile.set_modified()
        with nwbflow.NWBHDF5IO(tmp_path / "new.nwb", "w") as io:
            io.export(src_io=source, nwbfile=nwbfile)
            assert set(io.receipt.linked) == {SERIES}
    assert np.array_equal(read_array(tmp_path / "new.nwb", SERIES), DATA)


@pytest.mark.requirement("X3", "X4")
@pytest.mark.parametrize("way", ["export", "link_data=False", "H5DataIO"])
def test_names_go_on_leading_there_from_another_folder(recording, tmp_path, elsewhere, way):
    write(session(x=DATA + 1), tmp_path / "src.nwb")
    data = {"x": nwbflow.concat([(tmp_path / "src.nwb", SERIES)] * 2), "y": raw(recording, relative=True)}
    write(session(**data), tmp_path / "old.nwb")
    (tmp_path / "new").mkdir()
    with pynwb.NWBHDF5IO(tmp_path / "old.nwb", "r") as source, nwbflow.NWBHDF5IO(tmp_path / "new/s.nwb", "w") as io:
        nwbfile = source.read()
        held = {name: nwbfile.acquisition[name].data for name in "xy"}
        if way == "export":
            io.export(src_io=source, nwbfile=nwbfile)
        elif way == "H5DataIO":
            io.write(session(**{name: H5DataIO(data, link_data=False) for name, data in held.items()}))
        else:
            io.write(session(**held), link_data=False)
        assert set(io.receipt.linked) == {SERIES, "/acquisition/y/data"}
    (tmp_path / "moved").mkdir()
    for name in ("new", "src.nwb", "rec.bin"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    path = tmp_path / "moved/new/s.nwb"
    with h5py.File(path) as file:
        assert file["/acquisition/y/data"].external == [("../rec.bin", 0, DATA.nbytes)]
        assert list(read_records(file["/acquisition/y/data"])[""].fingerprints) == ["../rec.bin"]
        assert list(read_records(file[SERIES])[""].fingerprints) == [f"../src.nwb:{SERIES}"]
    assert np.array_equal(read_array(path, SERIES), np.concatenate([DATA + 1] * 2))
    assert stock(path, path.parent, series="y") == ((1000, 4), [digest(DATA)])


@pytest.mark.requirement("X4")
def test_a_session_keeps_its_data_and_is_written_again(recording, tmp_path):
    data = raw(recording)
    nwbfile = session(x=data)
    for name in ("one.nwb", "two.nwb"):
        write(nwbfile, tmp_path / name)
        assert nwbfile.acquisition["x"].data is data
        assert np.array_equal(read_array(tmp_path / name, SERIES), DATA)


# --- what is refused ---------------------------------------------------------------------------


def refused(nwbfile, path, **options):
    """Write, and return the error; whatever was at the path is as it was, and nothing lies beside it."""
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in path.parent.iterdir() if p.is_file()}
    with pytest.raises(NwbflowError) as caught:
        write(nwbfile, path, overwrite=True, **options)
    after = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in path.parent.iterdir() if p.is_file()}
    assert after == before
    return caught.value


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: nwbflow.DataIO(data, codec="gzip"),
        lambda data: nwbflow.DataIO(data, chunks=(100, 4)),
        lambda data: nwbflow.DataIO(data, maxshape=(None, 4)),
        lambda data: nwbflow.DataIO(data, checksum=True),
        lambda data: nwbflow.DataIO(data, fillvalue=1),
        lambda data: H5DataIO(data, compression="gzip"),
        lambda data: H5DataIO(data, chunks=(100, 4)),
    ],
)
def test_settings_for_what_is_not_stored_are_refused(recording, tmp_path, wrap):
    error = refused(session(x=wrap(raw(recording))), tmp_path / "s.nwb")
    assert isinstance(error, SettingsError)
    assert str(error).startswith(f"{SERIES}: it is not copied")
    assert "nwbflow.raw(...)" in str(error)


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("wrap", [nwbflow.DataIO, H5DataIO])
def test_a_wrapper_that_asks_for_nothing_does_no_harm(recording, tmp_path, wrap):
    write(session(x=wrap(raw(recording))), tmp_path / "s.nwb", profile="archive")
    with h5py.File(tmp_path / "s.nwb") as file:
        assert file[SERIES].external


@pytest.mark.requirement("X4")
def test_a_type_the_schema_does_not_take_is_refused(tmp_path):
    np.arange(1000, dtype="<f4").tofile(tmp_path / "stamps.bin")
    timestamps = nwbflow.link_raw(tmp_path / "stamps.bin", dtype="<f4", shape=(None,))
    nwbfile = session()
    nwbfile.add_acquisition(TimeSeries(name="x", data=DATA, unit="V", timestamps=timestamps))
    with pytest.warns(UserWarning, match="float32 is being converted to data type float64"):  # says HDMF
        error = refused(nwbfile, tmp_path / "s.nwb")
    assert (type(error), error.kind) == (LinkError, ErrorKind.DTYPE)
    assert "/acquisition/x/timestamps: the schema wants float64 here" in str(error)
    assert "holds float32" in str(error)


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("change", ["grown", "gone"])
def test_a_raw_file_that_changed_meanwhile_is_refused(recording, tmp_path, change):
    write(session(x=DATA), tmp_path / "s.nwb")
    nwbfile = session(x=raw(recording))
    if change == "gone":
        recording.rename(tmp_path / "other.bin")
    else:
        with recording.open("ab") as file:
            file.write(b"\0" * 8)
    error = refused(nwbfile, tmp_path / "s.nwb")
    assert error.kind is {"gone": ErrorKind.MISSING, "grown": ErrorKind.CHANGED}[change]
    assert str(error).startswith(f"{SERIES}: {recording}")


@pytest.mark.requirement("X4")
def test_a_dataset_that_changed_meanwhile_is_refused(tmp_path):
    write(session(x=nwbflow.DataIO(DATA, maxshape=(None, 4))), tmp_path / "src.nwb")
    nwbfile = session(x=nwbflow.concat([(tmp_path / "src.nwb", SERIES)]))
    with h5py.File(tmp_path / "src.nwb", "r+") as file:
        file[SERIES].resize(999, axis=0)
    error = refused(nwbfile, tmp_path / "s.nwb")
    assert error.kind is ErrorKind.CHANGED
    assert f"{SERIES}: " in str(error)


@pytest.mark.requirement("X4")
@pytest.mark.parametrize("through", ["itself", "a virtual dataset", "a raw file"])
def test_a_file_that_would_be_replaced_by_what_consists_of_it_is_refused(tmp_path, through):
    path = tmp_path / "s.nwb"
    write(session(x=DATA), path)
    if through == "itself":
        data = nwbflow.concat([(path, SERIES)])
    elif through == "a virtual dataset":
        write(session(x=nwbflow.concat([(path, SERIES)])), tmp_path / "between.nwb")
        data = nwbflow.concat([(tmp_path / "between.nwb", SERIES)])
    else:
        data = nwbflow.link_raw(path, dtype="u1", shape=(None,))
    error = refused(session(x=data), path)
    assert error.kind is ErrorKind.CYCLE
    assert "that is the file being written" in str(error)
    assert np.array_equal(read_array(path, SERIES), DATA)


def missing_dataset(folder):
    return [(folder / "src.h5", "nothing")]


def missing_file(folder):
    return [(folder / "nothing.h5", "d")]


def not_hdf5(folder):
    return [(folder / "rec.bin", "d")]


def group(folder):
    return [(folder / "src.h5", "/")]


def mixed(folder):
    return [raw(folder / "rec.bin"), (folder / "src.h5", "d")]


def copied(folder):
    return [nwbflow.raw(folder / "rec.bin", dtype="<i2", shape=(None, 4))]


def narrower(folder):
    return [raw(folder / "rec.bin"), raw(folder / "rec.bin", shape=(None, 2))]


def of_another_type(folder):
    return [raw(folder / "rec.bin"), raw(folder / "rec.bin", dtype=">i2")]


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("make", "axis", "expected", "text"),
    [
        (lambda _: [], 0, SettingsError, "the list is empty"),
        (missing_dataset, 0, LinkError, "does not exist"),
        (missing_file, 0, LinkError, "no such file"),
        (not_hdf5, 0, LinkError, "not an HDF5 file"),
        (group, 0, LinkError, "is a group"),
        (mixed, 0, UnsupportedError, r"Write an NWB file with the link_raw\(...\) alone first"),
        (lambda folder: [raw(folder / "rec.bin")] * 2, 1, UnsupportedError, "along axis 0 only"),
        (lambda folder: [raw(folder / "rec.bin")] * 2, 2, SettingsError, "has 2 axes"),
        (narrower, 0, LinkError, "may differ along axis 0 only"),
        (of_another_type, 0, LinkError, "of type >i2"),
        (copied, 0, SettingsError, r"give link_raw\(...\)"),
        (lambda _: [DATA], 0, SettingsError, "not ndarray"),
        (lambda folder: str(folder / "src.h5"), 0, SettingsError, "give a list"),
        (lambda folder: raw(folder / "rec.bin"), 0, SettingsError, "give a list"),
    ],
)
def test_what_can_not_be_concatenated_is_refused_at_once(recording, tmp_path, make, axis, expected, text):
    with h5py.File(tmp_path / "src.h5", "w") as file:
        file["d"] = DATA
    with pytest.raises(expected, match=text):
        nwbflow.concat(make(tmp_path), axis=axis)


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("options", "expected", "text"),
    [
        ({"dtype": "U4"}, SettingsError, "no type of numbers"),
        ({"dtype": [("a", "i2")]}, SettingsError, "no type of numbers"),
        ({"shape": 4}, SettingsError, "give whole numbers"),
        ({"shape": (None, 4.0)}, SettingsError, "give whole numbers"),
        ({"offset": "8"}, SettingsError, "give whole numbers"),
        ({"shape": (999, 4)}, SourceError, "holds 1000 samples of 8 bytes"),
        ({"offset": 9000}, SourceError, "behind its end"),
    ],
)
def test_a_raw_file_that_is_described_wrong_is_refused_at_once(recording, options, expected, text):
    with pytest.raises(expected, match=text):
        raw(recording, **options)


@pytest.mark.requirement("X4")
def test_every_recording_is_as_it_was_after_all_ways_of_writing(recording, tmp_path):
    before = recording.read_bytes(), recording.stat().st_mtime_ns
    recording.chmod(0o444)
    for profile, mode in itertools.product(["default", "cloud"], ["w", "r+"]):
        path = tmp_path / f"{profile}.nwb"
        if mode == "w":
            write(session(x=raw(recording)), path, profile=profile)
        else:
            with nwbflow.NWBHDF5IO(path, "r+", profile=profile) as io:
                nwbfile = io.read()
                nwbfile.add_acquisition(TimeSeries(name="y", data=raw(recording), unit="V", rate=1.0))
                io.write(nwbfile)
    assert (recording.read_bytes(), recording.stat().st_mtime_ns) == before
