"""Converting from Python: metadata, plans, and what is assumed."""

from datetime import UTC, datetime

import h5py
import numpy as np
import pynwb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, NwbflowError, SettingsError, TargetError
from nwbflow.tools.convert import convert_raw, plan_raw
from nwbflow.tools.metadata import Metadata, load_metadata
from nwbflow.tools.recording import SeriesSettings, make_draft


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "raw.bin"
    np.random.default_rng(0).integers(-300, 300, (40_000, 4)).astype("i2").tofile(path)
    return path


FOUR = SeriesSettings(channels=4, rate=1000.0, conversion=1e-6)


@pytest.mark.requirement("W2", "T4")
def test_plan_is_what_is_then_written(raw, tmp_path):
    plan = plan_raw(raw, tmp_path / "a.nwb", dtype="int16", series=FOUR, profile="archive", workers=1)
    assert list(tmp_path.iterdir()) == [raw]
    receipt = convert_raw(raw, tmp_path / "a.nwb", dtype="int16", series=FOUR, profile="archive", workers=1)
    (planned,), (written,) = plan.plan.datasets, receipt.datasets
    assert planned.layout == written.layout
    assert planned.chunks_total == written.chunks
    assert (plan.shape, plan.seconds, plan.raw_bytes) == ((40_000, 4), 40.0, 320_000)
    assert plan.notes == receipt.notes
    assert not plan.replaces
    assert plan_raw(raw, tmp_path / "a.nwb", dtype="int16", series=FOUR, overwrite=True).replaces


@pytest.mark.requirement("T4")
@pytest.mark.parametrize(
    "wrong",
    [
        {"profile": "best"},
        {"memory": "1 kB"},
        {"workers": 0},
        {"rules": {"rules": [{"codec": "gzip"}]}},
        {"dtype": "O"},
    ],
    ids=lambda w: next(iter(w)),
)
def test_plan_refuses_what_converting_refuses_in_the_same_words(wrong, raw, tmp_path):
    said = []
    for do in (plan_raw, convert_raw):
        with pytest.raises(NwbflowError) as caught:
            do(raw, tmp_path / "a.nwb", **{"dtype": "int16", "series": FOUR, **wrong})
        said.append((type(caught.value), caught.value.kind, str(caught.value)))
    assert said[0] == said[1]
    assert not (tmp_path / "a.nwb").exists()


def test_a_recording_below_64_kib_is_pynwbs_and_right(tmp_path):
    values = np.arange(40, dtype="i2").reshape(10, 4)
    values.tofile(tmp_path / "raw.bin")
    receipt = convert_raw(tmp_path / "raw.bin", tmp_path / "a.nwb", dtype="int16", series=FOUR)
    assert receipt.datasets == ()
    with h5py.File(tmp_path / "a.nwb") as file:
        assert np.array_equal(file["acquisition/ElectricalSeries/data"][...], values)


def test_metadata_files_give_what_mappings_give(tmp_path):
    text = (
        "session_start_time: 2024-05-01 14:30:00Z\nexperimenter: Last, First\n"
        "subject: {date_of_birth: '2024-01-01T00:00:00+00:00', age: P90D/P120D, weight: 20 g}\n"
        "electrodes: {rel_x: [1, 2.5], good: true}\n"
    )
    (tmp_path / "m.yaml").write_text(text)
    as_mapping = {
        "session_start_time": datetime(2024, 5, 1, 14, 30, tzinfo=UTC),
        "experimenter": "Last, First",
        "subject": {"date_of_birth": datetime(2024, 1, 1, tzinfo=UTC), "age": "P90D/P120D", "weight": "20 g"},
        "electrodes": {"rel_x": [1, 2.5], "good": True},
    }
    loaded = load_metadata(tmp_path / "m.yaml")
    assert loaded == load_metadata(as_mapping) == load_metadata(loaded)
    assert loaded.electrodes["good"] is True
    (tmp_path / "empty.yaml").write_text("")
    assert load_metadata(tmp_path / "empty.yaml") == load_metadata(None) == Metadata()


NAIVE = [datetime(2024, 5, 1), "2024-05-01T10:00", "yesterday", 1714557600]


@pytest.mark.parametrize("value", NAIVE, ids=str)
def test_a_start_without_a_time_zone_is_refused_with_an_example(value):
    given = {"session_start_time": value}
    with pytest.raises(SettingsError, match="time zone, such as 2024-05-01T14:30:00") as caught:
        load_metadata(given)
    assert caught.value.kind is ErrorKind.OPTION


@pytest.mark.parametrize("age", ["P90D", "P1Y", "P2Y6M", "P12W", "P1.5Y", "PT36H", "P1DT12H", "P90D/P120D", "P90D/"])
def test_ages_that_are_durations(age):
    assert load_metadata({"subject": {"age": age}}).subject.age == age


@pytest.mark.parametrize("age", ["P", "90D", "P90", "PT", "P1D2Y", "P90D/P", "adult", ""])
def test_ages_that_are_none(age):
    with pytest.raises(SettingsError, match=r"subject\.age is .*: give"):
        load_metadata({"subject": {"age": age}})


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from([*Metadata.model_fields, "other"])


@given(st.dictionaries(_KEYS, _VALUES, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mapping_is_metadata_or_one_settings_error_that_names_a_key(value):
    try:
        said = None if load_metadata(value) else ""
    except SettingsError as error:
        said = str(error)
    assert said is None or any(key in said for key in value)


@pytest.mark.parametrize("channels", [1, 700])
def test_many_channels_get_one_electrode_each(channels):
    series = SeriesSettings(channels=channels, rate=10.0)
    metadata = Metadata(electrodes={"rel_y": list(range(channels)), "shank": 1})
    data = np.zeros((3, channels), "i2")
    made = datetime(2024, 1, 1, tzinfo=UTC)
    draft = make_draft(data, data.dtype, series, metadata, origin="x", made=made)
    table = draft.nwbfile.electrodes.to_dataframe()
    assert list(table["rel_y"]) == list(range(channels))
    assert table["rel_y"].dtype == float
    assert isinstance(draft.nwbfile.acquisition["ElectricalSeries"], pynwb.ecephys.ElectricalSeries)
    assert draft.nwbfile.session_start_time == made


def test_an_old_file_stays_when_the_recording_is_refused(raw, tmp_path):
    target = tmp_path / "a.nwb"
    target.write_bytes(b"old")
    with pytest.raises(TargetError, match="exists"):
        convert_raw(raw, target, dtype="int16", series=FOUR)
    with pytest.raises(NwbflowError, match="whole number of samples"):
        convert_raw(raw, target, dtype="int16", series=SeriesSettings(channels=7, rate=1.0), overwrite=True)
    assert target.read_bytes() == b"old"
    assert not list(tmp_path.glob("*.partial"))
