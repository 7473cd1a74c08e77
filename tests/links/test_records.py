"""Records beside links: what is written, what is read back, and what PyNWB makes of them."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import h5py
import numpy as np
import pynwb
import pytest

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.fingerprint import fingerprint_dataset
from nwbflow.links.records import (
    ATTRIBUTE,
    attributes_to_json,
    drop_record,
    read_records,
    record_of,
    type_name,
    write_record,
)
from nwbflow.links.targets import attributes_of, target_of

pytestmark = pytest.mark.requirement("X5")


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(20, dtype=">i2").reshape(4, 5)
        file["x"].attrs.update({"unit": "V", "conversion": np.float32(0.1), "offset": np.nan, "n": np.array([1, 2])})
        yield file


def made(file):
    return record_of(target_of(file["x"]), {"a.h5:/x": fingerprint_dataset(file["x"])})


def test_a_record_comes_back_as_it_was_written(file):
    record = made(file)
    write_record(file, "link", record)
    assert read_records(file) == {"link": record}
    assert (record.shape, record.dtype) == ((4, 5), ">i2")
    assert record.attributes["offset"] == {"float": "nan"}
    assert record.attributes["n"] == [1, 2]
    assert datetime.fromisoformat(record.made).utcoffset() is not None


def test_stock_h5py_sees_standard_json(file):
    write_record(file, "link", made(file))
    path = file.filename
    file.close()
    code = "import h5py, sys; print(h5py.File(sys.argv[1]).attrs['nwbflow_links'])"
    shown = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout

    def refuse(constant):
        raise AssertionError(constant)

    value = json.loads(shown, parse_constant=refuse)
    assert value["link"]["shape"] == [4, 5]


def test_records_of_other_links_stay(file):
    first, second = made(file), made(file)
    write_record(file, "a", first)
    write_record(file, "b", second)
    drop_record(file, "a")
    assert read_records(file) == {"b": second}
    drop_record(file, "nothing")
    drop_record(file, "b")
    assert ATTRIBUTE not in file.attrs
    assert read_records(file) == {}


def test_more_records_fit_than_an_attribute_in_a_header(file):
    record = made(file)
    for number in range(300):
        write_record(file, f"link {number}", record)
    assert len(file.attrs[ATTRIBUTE]) > 2**16
    assert read_records(file)["link 299"] == record


@pytest.mark.parametrize("value", ["{", "[]", '{"a": {}}', '{"a": 3}', np.arange(3), b"\xff", '{"a": {"made": "x"}}'])
def test_what_is_no_record_is_named_with_the_way_out(value, file):
    file.attrs[ATTRIBUTE] = value
    with pytest.raises(LinkError, match=f"{file.filename}:/: its attribute {ATTRIBUTE}") as caught:
        read_records(file)
    assert caught.value.kind is ErrorKind.CHANGED
    assert "Delete the attribute" in str(caught.value)
    with pytest.raises(LinkError):
        write_record(file, "b", made(file))


def test_every_kind_of_attribute_becomes_json(file):
    item = file["x"]
    item.attrs["reference"] = file["x"].ref
    item.attrs["nobody"] = h5py.Reference()
    item.attrs["references"] = np.array([file.ref, item.ref], dtype=h5py.ref_dtype)
    item.attrs["texts"] = ["a", "ü"]
    item.attrs["fixed"] = np.bytes_(b"abc")
    item.attrs["bytes"] = np.bytes_(b"\xff\xfe")
    item.attrs["yes"] = True
    item.attrs["inf"] = -np.inf
    item.attrs["complex"] = 1 + 2j
    item.attrs["empty"] = h5py.Empty("f4")
    item.attrs["none"] = np.zeros(0)
    item.attrs["row"] = np.array((1, 2.5), dtype=[("a", "i4"), ("b", "f8")])
    item.attrs["enum"] = np.array(1, dtype=h5py.enum_dtype({"off": 0, "on": 1}))
    item.attrs["big"] = 2**64 - 1
    item.attrs["long"] = "x" * 5000
    lists = np.empty(1, object)
    lists[0] = np.arange(2, dtype="i4")
    item.attrs.create("lists", lists, dtype=h5py.vlen_dtype("i4"))
    found = attributes_to_json(attributes_of(item))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    digest = found.pop("long")
    assert list(digest) == ["blake2b"]
    for name in ("unit", "conversion", "offset", "n"):
        del found[name]
    references = found.pop("references")
    assert len(references) == 2
    assert found == {
        "reference": {"reference": "/x"},
        "nobody": {"reference": ""},
        "texts": ["a", "ü"],
        "fixed": "abc",
        "bytes": {"bytes": "fffe"},
        "yes": True,
        "inf": {"float": "-inf"},
        "complex": {"complex": [1.0, 2.0]},
        "empty": {"empty": "<f4"},
        "none": [],
        "row": {"a": 1, "b": 2.5},
        "enum": 1,
        "big": 2**64 - 1,
        "lists": [[0, 1]],
    }
    item.attrs["long"] = "x" * 4999 + "y"
    assert attributes_to_json(attributes_of(item))["long"] != digest


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (">i2", ">i2"),
        ("?", "|b1"),
        (h5py.string_dtype(), "text"),
        (h5py.string_dtype(length=5), "|S5"),
        (h5py.vlen_dtype(np.dtype("<i4")), "lists of <i4"),
        (h5py.ref_dtype, "object reference"),
        (h5py.regionref_dtype, "region reference"),
        ([("a", "<i4"), ("b", h5py.string_dtype())], "{a: <i4, b: text}"),
    ],
)
def test_types_have_names(dtype, name):
    assert type_name(np.dtype(dtype)) == name


def test_pynwb_reads_validates_and_exports_a_file_with_records(tmp_path):
    path, out = tmp_path / "a.nwb", tmp_path / "b.nwb"
    nwbfile = pynwb.NWBFile("s", "i", datetime(2020, 1, 1, tzinfo=UTC))
    nwbfile.add_acquisition(pynwb.TimeSeries(name="t", data=np.arange(9), unit="V", rate=1.0))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwbfile)
    with h5py.File(path, "a") as file:
        dataset = file["acquisition/t/data"]
        record = record_of(target_of(dataset), {"x": fingerprint_dataset(dataset)})
        write_record(file["acquisition/t"], "data", record)
        write_record(dataset, "", record)
    assert pynwb.validate(path=path) == []
    with pynwb.NWBHDF5IO(path, "r") as read, pynwb.NWBHDF5IO(out, "w") as write:
        assert read.read().acquisition["t"].unit == "V"
        write.export(src_io=read)
    with h5py.File(out) as file:
        assert read_records(file["acquisition/t"]) == {"data": record}
