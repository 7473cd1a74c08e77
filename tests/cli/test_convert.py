"""Raw recordings become NWB files that stock tools read, value by value, and accept."""

import hashlib
import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest
from pynwb.ecephys import ElectricalSeries

METADATA = """\
session_description: a short piece
session_start_time: 2024-05-01T14:30:00+02:00
identifier: piece-1
experimenter: ["Last, First"]
experiment_description: resting
lab: a laboratory
institution: a university
keywords: [rest]
subject: {subject_id: s01, species: Homo sapiens, sex: F, age: P30Y}
device: {name: amplifier, description: sixteen channels, manufacturer: a maker, model: A16}
series: {description: as recorded}
"""
ELECTRODES = """\
electrode_group: {name: cap, description: on the scalp, location: scalp}
electrodes: {filtering: none}
"""
RECORDINGS = {
    "patch_clamp_4ch": "timeseries",
    "eeg_16ch": "electrical",
    "eeg_32ch_float": "electrical",
    "lfp_ca1": "timeseries",
    "calcium_traces": "timeseries",
}


def plainly(raw, about, kind, path):
    """Write the same session with plain PyNWB, by hand."""
    data = np.fromfile(raw, about["dtype"]).reshape(about["shape"])
    subject = pynwb.file.Subject(subject_id="s01", species="Homo sapiens", sex="F", age="P30Y")
    nwbfile = pynwb.NWBFile(
        "a short piece",
        "piece-1",
        datetime.fromisoformat("2024-05-01T14:30:00+02:00"),
        experimenter=["Last, First"],
        experiment_description="resting",
        lab="a laboratory",
        institution="a university",
        keywords=["rest"],
        subject=subject,
    )
    model = nwbfile.create_device_model(name="A16", manufacturer="a maker")
    device = nwbfile.create_device(name="amplifier", description="sixteen channels", model=model)
    common = {"data": data, "rate": about["rate"], "conversion": about["conversion"], "description": "as recorded"}
    if kind == "timeseries":
        nwbfile.add_acquisition(pynwb.TimeSeries(name="TimeSeries", unit=about["unit"], **common))
    else:
        group = nwbfile.create_electrode_group("cap", "on the scalp", "scalp", device)
        for _ in range(data.shape[1]):
            nwbfile.add_electrode(group=group, location="scalp", filtering="none")
        region = nwbfile.create_electrode_table_region(list(range(data.shape[1])), "all electrodes")
        nwbfile.add_acquisition(ElectricalSeries(name="ElectricalSeries", electrodes=region, **common))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwbfile)


@pytest.fixture(scope="module")
def converted(realdata, nwbflow, stock, tmp_path_factory):
    """Every real recording: what it is, what came of it, and of the same by plain PyNWB."""
    folder = tmp_path_factory.mktemp("converted")
    (folder / "series.yaml").write_text(METADATA)
    (folder / "probe.yaml").write_text(METADATA + ELECTRODES)
    (folder / "plain").mkdir()
    about = {name: json.loads((realdata / f"{name}.json").read_text()) for name in RECORDINGS}
    for name, kind in RECORDINGS.items():
        what = about[name]
        options = ["--dtype", what["dtype"], "--channels", [*what["shape"], 1][1], "--rate", what["rate"]]
        options += ["--kind", kind, "--conversion", what["conversion"], "--quiet"]
        options += ["--metadata", "probe.yaml"] if kind == "electrical" else ["--metadata", "series.yaml"]
        options += ["--unit", what["unit"]] if kind == "timeseries" else []
        done = nwbflow("convert", realdata / f"{name}.bin", f"{name}.nwb", *options, folder=folder)
        assert (done.code, done.out, done.err) == (0, "", "")
        plainly(realdata / f"{name}.bin", what, kind, folder / "plain" / f"{name}.nwb")
    files = [folder / f"{name}.nwb" for name in RECORDINGS]
    plain = [folder / "plain" / f"{name}.nwb" for name in RECORDINGS]
    found = stock(*files, *plain)
    return dict(
        zip(RECORDINGS, zip(about.values(), found[: len(files)], found[len(files) :], strict=True), strict=True)
    )


@pytest.mark.requirement("W2", "T4", "Q3")
@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recordings_read_back_bit_for_bit(name, converted, realdata):
    about, found, plain = converted[name]
    expected = hashlib.sha256((realdata / f"{name}.bin").read_bytes()).hexdigest()
    assert found["sha256"] == found["through_pynwb"] == expected == plain["sha256"]
    assert found["shape"] == about["shape"]
    assert found["dtype"] == about["dtype"]
    told = ("type", "name", "rate", "unit", "conversion", "offset", "start", "electrodes")
    assert {key: found[key] for key in told} == {key: plain[key] for key in told}
    assert found["conversion"] == about["conversion"]
    assert found["stored"] < plain["stored"]


@pytest.mark.requirement("Q3")
@pytest.mark.parametrize("name", RECORDINGS)
def test_validator_and_inspector_have_no_complaint_plain_pynwb_files_dont_get(name, converted):
    _, found, plain = converted[name]
    assert found["invalid"] == []
    new = [complaint for complaint in found["complaints"] if complaint not in plain["complaints"]]
    assert new == []
    assert not [c for c in found["complaints"] if c[0] in ("CRITICAL", "BEST_PRACTICE_VIOLATION", "ERROR")]


@pytest.mark.requirement("T4", "Q3")
def test_without_metadata_the_file_is_valid_and_what_was_assumed_is_said(nwbflow, stock, recording, basic, tmp_path):
    os.utime(recording, (1_600_000_000, 1_600_000_000))
    done = nwbflow("convert", recording, "a.nwb", *basic, folder=tmp_path)
    assert done.code == 0
    assert "note: no session_start_time given: the recording's modification time, 2020-09-13T" in done.err
    assert "note: no conversion given: one count is stored as 1 V" in done.err
    (found,) = stock(tmp_path / "a.nwb")
    assert datetime.fromisoformat(found["start"]).timestamp() == 1_600_000_000
    assert found["invalid"] == []
    grave = [c[1] for c in found["complaints"] if c[0] in ("CRITICAL", "BEST_PRACTICE_VIOLATION", "ERROR")]
    assert sorted(grave) == ["check_electrical_series_unscaled_data", "check_subject_exists"]


@pytest.mark.requirement("T4")
def test_quiet_still_says_what_was_assumed_and_nothing_else(nwbflow, recording, basic, tmp_path):
    done = nwbflow("convert", recording, "a.nwb", *basic, "--quiet", "--conversion", "1e-6", folder=tmp_path)
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("note: no session_start_time given")


@pytest.mark.parametrize("dtype", [">i2", "uint16", "int32", "uint8", "<f4", "float64", "int64"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.requirement("W2")
def test_types_byte_orders_and_headers(dtype, channels, nwbflow, tmp_path):
    values = np.random.default_rng(1).integers(0, 120, (20_000, channels)).astype(dtype)
    (tmp_path / "raw.bin").write_bytes(b"a header, 19 bytes." + values.tobytes())
    options = ("--dtype", dtype, "--channels", channels, "--rate", 250, "--offset", 19, "--kind", "timeseries")
    done = nwbflow("convert", "raw.bin", "a.nwb", *options, "--unit", "V", "--name", "trace", folder=tmp_path)
    assert done.code == 0, done.err
    with h5py.File(tmp_path / "a.nwb") as file:
        data = file["acquisition/trace/data"]
        assert data.shape == ((20_000,) if channels == 1 else (20_000, channels))
        assert data.dtype == np.dtype(dtype).newbyteorder("=")
        assert np.array_equal(data[...].reshape(-1, channels), values)


def test_one_channel_of_an_electrical_series_keeps_its_axis(nwbflow, recording, tmp_path):
    options = ("--dtype", "int16", "--channels", 1, "--rate", 1000)
    assert nwbflow("convert", recording, "a.nwb", *options, folder=tmp_path).code == 0
    with h5py.File(tmp_path / "a.nwb") as file:
        assert file["acquisition/ElectricalSeries/data"].shape == (48_000, 1)


@pytest.mark.requirement("T4")
def test_json_is_the_receipt_and_agrees_with_the_file(nwbflow, realdata, tmp_path):
    options = ("--dtype", "int16", "--channels", 4, "--rate", 20000, "--kind", "timeseries", "--unit", "V")
    raw = realdata / "patch_clamp_4ch.bin"
    done = nwbflow("convert", raw, "a.nwb", *options, "--json", "--verify", "full", folder=tmp_path)
    assert done.code == 0, done.err
    (dataset,) = done.json["datasets"]
    assert done.json["raw_bytes"] == raw.stat().st_size
    assert done.json["verified"] == "full"
    assert any("session_start_time" in text for text in done.json["notes"])
    with h5py.File(tmp_path / "a.nwb") as file:
        data = file[dataset["name"]]
        assert list(data.shape) == dataset["layout"]["shape"]
        assert list(data.chunks) == dataset["layout"]["chunks"]
        assert data.id.get_storage_size() == dataset["stored_bytes"] == done.json["stored_bytes"]


@pytest.mark.requirement("T4")
def test_dry_run_writes_nothing_and_plans_what_is_then_written(nwbflow, recording, basic, tmp_path):
    (tmp_path / "r.yaml").write_text("rules: [{type: ElectricalSeries, chunks: [700, 4], codec: gzip}]")
    options = (*basic, "--rules", "r.yaml", "--workers", 3, "--memory", "50MB")
    before = sorted(tmp_path.iterdir())
    dry = nwbflow("convert", recording, "a.nwb", *options, "--dry-run", "--json", folder=tmp_path)
    shown = nwbflow("convert", recording, "a.nwb", *options, "--dry-run", folder=tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert dry.code == shown.code == 0
    real = nwbflow("convert", recording, "a.nwb", *options, "--json", folder=tmp_path)
    planned, written = dry.json["datasets"][0], real.json["datasets"][0]
    assert planned["name"] == written["name"]
    assert planned["layout"] == written["layout"]
    assert planned["layout"]["chunks"] == [700, 4]
    assert planned["chunks_total"] == written["chunks"] == 18
    assert (dry.json["workers"], dry.json["memory"]) == (3, 50_000_000)
    assert dry.json["seconds"] == 6.0
    assert "18 of 700 x 4" in shown.out
    assert "Nothing was written" in shown.out


@pytest.mark.requirement("T4", "M3")
def test_events_are_json_lines_that_sum_up_to_the_receipt(nwbflow, recording, basic, tmp_path):
    (tmp_path / "r.yaml").write_text("rules: [{type: ElectricalSeries, chunks: [500, 8], codec: gzip}]")
    options = (*basic, "--rules", "r.yaml", "--events", "events.jsonl", "--json")
    done = nwbflow("convert", recording, "a.nwb", *options, folder=tmp_path)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["RunStarted", "RunFinished"]
    chunks = [e for e in events if e["event"] == "ChunkStored"]
    assert len(chunks) == 12
    assert sum(e["stored_bytes"] for e in chunks) == done.json["stored_bytes"]


@pytest.mark.requirement("W6", "T4")
def test_a_file_is_replaced_only_when_asked(nwbflow, recording, basic, tmp_path):
    target = tmp_path / "a.nwb"
    target.write_bytes(b"something else")
    done = nwbflow("convert", recording, target, *basic)
    assert done.code == 1
    assert f"{target} exists; pass --overwrite to replace it" in done.err
    assert target.read_bytes() == b"something else"
    assert nwbflow("convert", recording, target, *basic, "--overwrite").code == 0
    assert h5py.is_hdf5(target)


@pytest.mark.requirement("W6")
@pytest.mark.parametrize("how", ["same", "symlink", "hardlink", "partial"])
def test_the_recording_itself_is_never_written_over(how, nwbflow, recording, basic, tmp_path):
    target = tmp_path / "a.nwb"
    source, before = recording, recording.read_bytes()
    if how == "same":
        target = recording
    elif how == "symlink":
        target.symlink_to(recording)
    elif how == "hardlink":
        target.hardlink_to(recording)
    else:
        source = tmp_path / "a.nwb.partial"
        shutil.move(recording, source)
    for extra in ((), ("--dry-run",)):
        done = nwbflow("convert", source, target, *basic, "--overwrite", *extra)
        assert done.code == 1
        assert "is the recording itself" in done.err
        assert source.read_bytes() == before


BAD = {
    "session_start_time: 2024-05-01T14:30:00": "session_start_time is '2024-05-01T14:30:00': give date, time and time",
    "session_start_time: 2024-05-01": "session_start_time is '2024-05-01': give date, time and time zone",
    "subject: {sex: female}": "subject.sex is 'female': give M, F, U (unknown) or O (other)",
    "subject: {age: 30}": "subject.age is 30: give an ISO 8601 duration",
    "subject: {subject_id: 7}": "subject.subject_id is 7: give text",
    "subject: {name: x}": "subject.name is no known key",
    "labb: x": "labb is no known key (did you mean lab?)",
    "electrodes: {rel_x: [1, 2]}": "electrodes.rel_x has 2 values: give 8",
    "electrodes: {rel_x: left}": "electrodes.rel_x holds 'left': give numbers only",
    "electrodes: {location: [a, b, c, d, e, f, g, 8]}": "electrodes.location holds 8: give text only",
    "electrodes: {id: 3}": "electrodes.id is a field of the table itself",
    "electrodes: {description: x}": "electrodes.description is a field of the table itself",
    "electrodes: {a/b: 3}": "electrodes.a/b is 3: give the column a name without '/'",
    "electrodes: {count: 99999999999999999999}": "electrodes.count is 99999999999999999999: give",
    "device: {name: a/b}": "device.name is 'a/b': give a name without '/'",
    "device: {name: models}": "device.name models is where NWB keeps device models",
    "device: {model: 'x:1'}": "device.model is 'x:1': give a name without '/'",
    "electrode_group: {name: electrodes}": "electrode_group.name electrodes is where NWB keeps",
    "electrodes: {depth: [{}]}": "electrodes.depth",
    "series: {unit: mV}": "series.unit is 'mV': an ElectricalSeries is in volts",
    "series: {conversion: much}": "series.conversion is 'much': give a number",
    "[a, b]": "the whole is ['a', 'b']: give a table",
    "a: [": "m.yaml: is no YAML",
}


@pytest.mark.requirement("T4")
@pytest.mark.parametrize("text", BAD)
def test_bad_metadata_are_named_with_the_path_of_the_key(text, nwbflow, recording, basic, tmp_path):
    (tmp_path / "m.yaml").write_text(text)
    done = nwbflow("convert", recording, "a.nwb", *basic, "--metadata", "m.yaml", folder=tmp_path)
    assert done.code == 1
    assert BAD[text] in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("a.nwb*"))


WRONG = [
    (("--channels", "7"), "no whole number of samples of 14 bytes"),
    (("--dtype", "int12"), "--dtype 'int12' is no type of a recording"),
    (("--dtype", "complex64"), "is no type of a recording"),
    (("--dtype", "float16"), "is no type of a recording"),
    *[
        (("--dtype", nonsense), f"--dtype '{nonsense}' is no type of a recording")
        for nonsense in ("i2,i2", "i2,,i2", "(2,i2", "99999999999i2", "2i2", "O", "S4", "M8[s]", "c16", "")
    ],
    (("--rate", "0"), "--rate 0.0: give samples per second"),
    (("--rate", "nan"), "give samples per second"),
    (("--channels", "0"), "--channels 0: give at least 1"),
    (("--offset", "-2"), "offset -2"),
    (("--offset", "96000"), "holds no samples"),
    (("--conversion", "0"), "--conversion 0.0: give what one count is"),
    (("--unit", "mV"), "--unit 'mV': an ElectricalSeries is in volts"),
    (("--name", "a/b"), "--name 'a/b': give a name without"),
    (("--name", "."), "--name '.': give a name without"),
    (("--memory", "lots"), "--memory 'lots' is no amount of memory"),
    (("--memory", "1kB"), "pass --memory '"),
    (("--workers", "0"), "--workers 0: give a whole number of at least 1"),
    (("--rules", "nope.yaml"), "nope.yaml: can't be read"),
    (("--metadata", "nope.yaml"), "nope.yaml: can't be read: No such file"),
    (("--events", "nowhere/e.jsonl"), "JSON lines can't be written to"),
    (("--kind", "timeseries", "--metadata", "e.yaml"), "electrodes belongs to an ElectricalSeries"),
]


@pytest.mark.requirement("T4")
@pytest.mark.parametrize(("options", "text"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_what_is_refused_is_one_text_and_exit_code_1(options, text, nwbflow, recording, basic, tmp_path):
    (tmp_path / "e.yaml").write_text("electrodes: {rel_x: 0}")
    given = dict(zip(basic[::2], basic[1::2], strict=True)) | dict(zip(options[::2], options[1::2], strict=True))
    flat = [part for option in given.items() for part in option]
    done = nwbflow("convert", recording, "a.nwb", *flat, folder=tmp_path)
    assert done.code == 1, done.err
    assert text in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not list(tmp_path.glob("a.nwb*"))


def test_targets_that_cant_be(nwbflow, recording, basic, tmp_path):
    missing = nwbflow("convert", recording, "no/where.nwb", *basic, folder=tmp_path)
    folder = nwbflow("convert", recording, tmp_path, *basic, folder=tmp_path)
    source = nwbflow("convert", "nothing.bin", "a.nwb", *basic, folder=tmp_path)
    assert (missing.code, folder.code, source.code) == (1, 1, 1)
    assert "does not exist; make the folder first" in missing.err
    assert "is a folder; give a file name" in folder.err
    assert "nothing.bin: no such file" in source.err


def test_electrodes_columns_are_in_the_table(nwbflow, recording, basic, tmp_path):
    (tmp_path / "m.yaml").write_text(
        "electrode_group: {location: CA1}\nelectrodes: {rel_x: 3, imp: [1, 2, 3, 4, 5.5, 6, 7, 8], good: true, port: A}"
    )
    done = nwbflow("convert", recording, "a.nwb", *basic, "--metadata", "m.yaml", folder=tmp_path)
    assert done.code == 0, done.err
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        table = io.read().electrodes.to_dataframe()
    assert list(table["imp"]) == [1, 2, 3, 4, 5.5, 6, 7, 8]
    assert set(table["location"]) == {"CA1"}
    assert set(table["rel_x"]) == {3.0}
    assert set(table["good"]) == {True}
    assert set(table["port"]) == {"A"}


def test_a_name_from_outside_can_not_move_the_cursor(nwbflow, recording, basic, tmp_path):
    bad = Path(tmp_path / "a\x1b[2Jb.bin")
    shutil.move(recording, bad)
    done = nwbflow("convert", bad, "a.nwb", *(*basic[:2], "--channels", "7", *basic[4:]), folder=tmp_path)
    assert done.code == 1
    assert "\x1b" not in done.err


@pytest.mark.requirement("X4")
def test_samples_that_stay_in_place(nwbflow, recording, basic, tmp_path):
    out = tmp_path / "out.nwb"
    planned = nwbflow("convert", recording, out, *basic, "--in-place", "--dry-run")
    assert "the samples stay where they are" in planned.out
    assert not out.exists()
    done = nwbflow("convert", recording, out, *basic, "--in-place", columns=200)
    assert done.code == 0
    assert "/acquisition/ElectricalSeries/data, its samples stay in " in done.out
    with h5py.File(out, "r") as file:
        data = file["acquisition/ElectricalSeries/data"]
        assert data.external == [(str(recording), 0, recording.stat().st_size)]
        assert data[:].tobytes() == recording.read_bytes()
    refused = nwbflow("convert", recording, out, *basic, "--in-place", "--overwrite", "--profile", "archive")
    assert refused.code == 1
    assert "leave profile and rules away" in refused.err
