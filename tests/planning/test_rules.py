"""Rules: matching, merging, files, schema, and errors that name file, key and what is allowed."""

import json
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.planning.rules import Rules, Settings, rules_schema

YAML_TEXT = """\
version: 1
rules:
  - location: /acquisition/ElectricalSeries*/data     # glob on the path inside the file
    codec: {name: gzip, level: 6}
    chunks: [null, 64]
  - type: TwoPhotonSeries
    dataset: data
    codec: blosc2
  - type: VectorData
    codec: none
    checksum: false
"""
MAPPING = {
    "version": 1,
    "rules": [
        {
            "location": "/acquisition/ElectricalSeries*/data",
            "codec": {"name": "gzip", "level": 6},
            "chunks": [None, 64],
        },
        {"type": "TwoPhotonSeries", "dataset": "data", "codec": "blosc2"},
        {"type": "VectorData", "codec": "none", "checksum": False},
    ],
}
EPHYS = ("/acquisition/ElectricalSeries1/data", ["ElectricalSeries", "TimeSeries", "NWBDataInterface"], "data")


def rules(*entries):
    return Rules.load({"rules": list(entries)})


@pytest.mark.requirement("C5")
def test_a_yaml_file_a_json_file_and_a_mapping_say_the_same(tmp_path):
    (tmp_path / "a.yaml").write_text(YAML_TEXT)
    (tmp_path / "a.json").write_text(json.dumps(MAPPING))
    loaded = Rules.load(tmp_path / "a.yaml")
    assert loaded == Rules.load(str(tmp_path / "a.json")) == Rules.load(MAPPING)
    assert loaded.to_mapping() == MAPPING
    assert Rules.load(loaded) is loaded
    assert Rules.load(None) == Rules.load({}) == Rules()


def test_an_empty_file_holds_no_rules(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert Rules.load(tmp_path / "a.yaml") == Rules()


@pytest.mark.requirement("C5")
@pytest.mark.parametrize("name", ["b.yaml", "b.yml", "b.json"])
def test_a_file_round_trips_and_stays_as_it_is(tmp_path, name):
    loaded = Rules.load(MAPPING)
    loaded.dump(tmp_path / name)
    first = (tmp_path / name).read_bytes()
    again = Rules.load(tmp_path / name)
    assert again == loaded
    again.dump(tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


plain = st.one_of(st.booleans(), st.integers(-99, 99), st.floats(allow_nan=False), st.text("abn0 :#'~", min_size=1))
tables = st.dictionaries(st.text("abc", min_size=1), st.one_of(plain, st.lists(plain, max_size=3)), max_size=3).map(
    lambda options: {"name": "gzip", **options}
)
codecs = st.one_of(
    st.sampled_from(["gzip", "none", "null", "1", "no"]),
    st.integers(0, 40_000),
    tables,
    st.lists(st.one_of(st.just("shuffle"), st.integers(10, 40_000), tables), min_size=1, max_size=3),
)
places = st.one_of(
    st.fixed_dictionaries({"location": st.text("a*?[]é/", max_size=8).map("/".__add__)}),
    st.fixed_dictionaries({"type": st.text("aZ_", min_size=1)}, optional={"dataset": st.text("ab", min_size=1)}),
)
effects = st.fixed_dictionaries(
    {"codec": codecs},
    optional={
        "chunks": st.one_of(
            st.integers(1, 9), st.lists(st.one_of(st.none(), st.integers(1, 9)), min_size=1, max_size=4)
        ),
        "checksum": st.booleans(),
    },
)
entries = st.lists(st.builds(lambda place, setting: {**place, **setting}, places, effects), max_size=4)


@pytest.mark.requirement("C5")
@settings(deadline=None)
@given(entries, st.sampled_from(["yaml", "json"]))
def test_any_rules_round_trip_through_files_and_keep_the_schema(tmp_path_factory, listed, suffix):
    loaded = Rules.load({"rules": listed})
    assert loaded.to_mapping() == {"version": 1, "rules": listed}
    jsonschema.validate(loaded.to_mapping(), rules_schema())
    path = tmp_path_factory.getbasetemp() / f"any-rules.{suffix}"
    loaded.dump(path)
    assert Rules.load(path).to_mapping() == loaded.to_mapping()


@pytest.mark.requirement("C5")
def test_later_rules_win_setting_by_setting():
    loaded = rules(
        {"type": "TimeSeries", "codec": "lzf", "checksum": True},
        {"location": "/acquisition/*/data", "codec": {"name": "gzip", "level": 1}, "chunks": [None, 64]},
        {"type": "ElectricalSeries", "chunks": 100},
        {"type": "TwoPhotonSeries", "codec": "none"},
    )
    found = loaded.match(*EPHYS)
    assert found == Settings(codec={"name": "gzip", "level": 1}, chunks=100, checksum=True, rules=(0, 1, 2))


def test_nothing_said_is_none_and_false_is_said():
    assert Rules().match(*EPHYS) == Settings()
    found = rules({"type": "TimeSeries", "checksum": True}, {"type": "TimeSeries", "checksum": False}).match(*EPHYS)
    assert (found.codec, found.checksum) == (None, False)


def test_what_match_returns_is_the_callers_own():
    loaded = rules({"type": "TimeSeries", "codec": {"name": "zstd", "options": [1]}})
    loaded.match(*EPHYS).codec["options"].append(2)
    assert loaded.match(*EPHYS).codec == {"name": "zstd", "options": [1]}


def test_pythons_pair_becomes_a_table():
    assert rules({"type": "TimeSeries", "codec": ("gzip", 6), "chunks": (None, 64)}).to_mapping()["rules"] == [
        {"type": "TimeSeries", "codec": {"name": "gzip", "level": 6}, "chunks": [None, 64]}
    ]


@pytest.mark.parametrize(
    ("pattern", "path", "holds"),
    [
        ("/acquisition/ElectricalSeries*/data", "/acquisition/ElectricalSeries/data", True),
        ("/acquisition/ElectricalSeries*/data", "/acquisition/ElectricalSeriesLF/data", True),
        ("/acquisition/ElectricalSeries*/data", "/acquisition/ElectricalSeries/timestamps", False),
        ("/acquisition/*", "/acquisition/ElectricalSeries/data", False),
        ("/acquisition/**", "/acquisition/ElectricalSeries/data", True),
        ("/**/data", "/processing/ophys/DfOverF/RoiResponseSeries/data", True),
        ("/**/data", "/data", True),
        ("/**/data", "/units/data_index", False),
        ("/a/**/c/*", "/a/b/c/c/d", True),
        ("/a/[bc]/?", "/a/c/d", True),
        ("/a/[bc]/?", "/a/d/d", False),
        ("/A/b", "/a/b", False),
        ("/a/b/", "/a/b", True),
    ],
)
def test_globs_on_the_path(pattern, path, holds):
    assert bool(rules({"location": pattern, "codec": "lzf"}).match(path, [], "x").rules) is holds


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"type": "TimeSeries"}, True),
        ({"type": "Timeseries"}, False),
        ({"type": "TimeSeries", "dataset": "data"}, True),
        ({"type": "TimeSeries", "dataset": "timestamps"}, False),
        ({"type": "TimeSeries", "location": "/acquisition/**"}, True),
        ({"type": "TimeSeries", "location": "/stimulus/**"}, False),
        ({"type": "VectorData", "location": "/acquisition/**"}, False),
    ],
)
def test_types_and_datasets(rule, holds):
    assert bool(rules({**rule, "codec": "lzf"}).match(*EPHYS).rules) is holds


@pytest.mark.requirement("C5")
def test_rules_that_matched_nothing_are_described(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(YAML_TEXT)
    loaded = Rules.load(path)
    used = loaded.match(*EPHYS).rules
    assert loaded.unmatched(used) == (
        f"{path}: rules[1] (type TwoPhotonSeries, dataset data) matched nothing",
        f"{path}: rules[2] (type VectorData) matched nothing",
    )
    assert loaded.unmatched(range(3)) == ()


def bad(**keys):
    return {"rules": [{"type": "A", "codec": "gzip"}, {"type": "B", "codec": "gzip", **keys}]}


CODEC = "give a name such as gzip, a filter id, a table such as {name: gzip, level: 6}, a list of those, or none"
CHUNKS = "give whole numbers of at least 1, or null where free, such as [null, 64]"
KEYS = "known are location, type, dataset, codec, chunks, checksum"


@pytest.mark.requirement("C5")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (bad(codec=3.5), f"rules[1].codec is 3.5: {CODEC}"),
        (bad(codec=True), f"rules[1].codec is True: {CODEC}"),
        (bad(codec=""), f"rules[1].codec is '': {CODEC}"),
        (bad(codec=["gzip", 6]), f"rules[1].codec[1] is 6: {CODEC}"),
        (bad(codec={"level": 6}), "rules[1].codec is a table without a name: give name, or id for a filter's number"),
        (bad(codec={"name": "gzip", "level": {}}), f"rules[1].codec.level is {{}}: {CODEC}"),
        (
            bad(codec=None),
            f"rules[1].codec is null: leave it out, or {CODEC}",
        ),
        (bad(chunks=[None, 0]), f"rules[1].chunks[1] is 0: {CHUNKS}"),
        (bad(chunks=["64"]), f"rules[1].chunks[0] is '64': {CHUNKS}"),
        (bad(chunks=True), f"rules[1].chunks is True: {CHUNKS}"),
        (bad(chunks=[]), f"rules[1].chunks is []: {CHUNKS}"),
        (bad(checksum="yes"), "rules[1].checksum is 'yes': give true or false"),
        (bad(type=5), "rules[1].type is 5: give the name of a neurodata type, such as TwoPhotonSeries"),
        (bad(location="acquisition"), "rules[1].location is 'acquisition': give text that starts with /, such as "),
        (bad(chunk=[64]), f"rules[1].chunk is no known key (did you mean chunks?): {KEYS}"),
        (bad(compression="gzip"), f"rules[1].compression is no known key (did you mean codec?): {KEYS}"),
        (bad(xyz=1), f"rules[1].xyz is no known key: {KEYS}"),
        ({"rule": []}, "rule is no known key (did you mean rules?): known are version, rules"),
        ({"version": 2}, "version is 2: give the number 1"),
        ({"rules": {"type": "A"}}, "rules is {'type': 'A'}: give a list of rules"),
        ({"rules": ["gzip"]}, "rules[0] is 'gzip': give a table, such as {type: …, codec: …}"),
        ({"rules": [{"codec": "gzip"}]}, "rules[0] says not where it applies: give location or type"),
        ({"rules": [{"type": "A"}]}, "rules[0] sets nothing: give codec, chunks or checksum"),
        (
            {"rules": [{"location": "/a", "dataset": "data", "codec": "lzf"}]},
            "rules[0] dataset goes with type; with location, give the dataset's whole path",
        ),
        ([1, 2], "the whole is [1, 2]: give a table with the keys version and rules"),
    ],
)
def test_bad_keys_are_named_with_file_path_and_what_is_allowed(tmp_path, value, text):
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(value))
    with pytest.raises(SettingsError) as caught:
        Rules.load(path)
    assert str(caught.value).startswith(f"{path}: {text}")
    assert ";" not in str(caught.value).replace("type; with", ""), "each fault is told once"
    assert caught.value.kind is ErrorKind.RULES
    words_only = ("sets nothing", "dataset goes with", "a table without a name")  # beyond what the schema says
    valid = jsonschema.Draft202012Validator(rules_schema()).is_valid(value)
    assert valid is any(words in text for words in words_only)


def test_all_faults_are_told_at_once():
    with pytest.raises(SettingsError, match=r"rules\[0\]\.codec is 1\.5.*; rules\[1\]\.checksum is 3"):
        rules({"type": "A", "codec": 1.5}, {"type": "B", "checksum": 3})


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.yaml", "rules: [", "is no YAML: "),
        ("a.yaml", "version: 1\nversion: 1\n", "is no YAML: .*duplicate key"),
        ("a.json", "{", "is no JSON: "),
        ("a.json", '{"version": 1, "version": 1}', "is no JSON: key 'version' is there twice"),
        ("a.yaml", b"\xff\xfe\x00", "is no YAML: "),
        ("a.toml", "", "a rules file ends in .yaml, .yml or .json"),
    ],
)
def test_files_that_are_no_rules_are_named(tmp_path, name, content, text):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=f"(?s){re.escape(str(path))}: {text}") as caught:
        Rules.load(path)
    assert caught.value.kind is ErrorKind.RULES


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SettingsError, match=r"gone\.yaml: can't be read: No such file"):
        Rules.load(tmp_path / "gone.yaml")
    with pytest.raises(SettingsError, match="rules=5: give a mapping"):
        Rules.load(5)
    with pytest.raises(SettingsError, match=r"ends in \.yaml"):
        Rules().dump(tmp_path / "a.txt")


def test_the_schema_is_a_schema_that_forbids_what_it_does_not_know():
    schema = rules_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Rule"]["additionalProperties"] is False
    json.dumps(schema)
