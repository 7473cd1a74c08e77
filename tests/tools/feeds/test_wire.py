"""The wire format: bytes to messages and back, and nothing but errors for everything else."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.tools.feeds import wire

pytestmark = pytest.mark.requirement("S7")

FORMS = st.builds(
    wire.RowFormat,
    dtype=st.sampled_from(["int8", "int16", "uint16", "int32", "int64", "float32", "float64"]).map(np.dtype),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    timestamps=st.booleans(),
)


@given(form=FORMS, first=st.integers(0, 2**62), count=st.integers(0, 9), seed=st.integers(0, 99))
def test_rows_come_back_as_they_were(form, first, count, seed):
    random = np.random.default_rng(seed)
    data = random.integers(0, 255, (count, *form.shape, form.dtype.itemsize), "u1").view(form.dtype)[..., 0]
    times = random.random(count) if form.timestamps else None
    message = wire.Rows(first=first, data=data, timestamps=times).pack()
    kind, length = wire.HEAD.unpack_from(message)
    assert (kind, length) == (wire.ROWS, len(message) - wire.HEAD.size)
    assert length == wire.ROWS_HEAD_BYTES + count * form.row_bytes
    back = wire.Rows.unpack(bytearray(message[wire.HEAD.size :]), form)
    assert (back.first, back.data.shape, back.data.dtype) == (first, data.shape, form.dtype)
    assert back.data.tobytes() == data.tobytes()
    assert (back.timestamps is None) == (times is None)
    assert times is None or np.array_equal(back.timestamps, times)


def test_the_bytes_are_those_of_the_description():
    message = wire.Rows(first=5, data=np.array([[1, -2]], ">i2"), timestamps=np.array([0.5])).pack()
    assert message.hex(" ", 4) == ("524f5753 1c000000 05000000 00000000 01000000 00000000 0100feff 00000000 0000e03f")
    assert wire.pack_count(wire.ACKNOWLEDGED, 258).hex(" ", 4) == "41434b4e 08000000 02010000 00000000"


@given(body=st.binary(max_size=80), form=FORMS)
def test_other_bodies_are_refused_or_fit_exactly(body, form):
    count = int.from_bytes(body[8:16], "little")
    if len(body) >= 16 and len(body) == wire.ROWS_HEAD_BYTES + count * form.row_bytes and body[7] < 128:
        assert len(wire.Rows.unpack(body, form).data) == count
        return
    with pytest.raises(SourceError) as caught:
        wire.Rows.unpack(body, form)
    assert caught.value.kind is ErrorKind.BOUNDS


@given(rows=st.integers(0, 2**63), size=st.integers(0, 2**63), recording=st.binary(min_size=16, max_size=16))
def test_a_welcome_comes_back(rows, size, recording):
    welcome = wire.Welcome(rows=rows, frame_bytes=size, recording=recording, start=1.5)
    assert wire.Welcome.unpack(welcome.pack()[wire.HEAD.size :]) == welcome


def test_a_hello_comes_back():
    hello = wire.Hello(version=1, stream="µ", dtype="int16", shape=(4, 2), timestamps=True, client="a", token="b")
    assert wire.Hello.unpack(hello.pack()[wire.HEAD.size :]) == hello


GOOD = {"version": 1, "stream": "probe", "dtype": "int16", "shape": [4]}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"\xff\xfe", "no JSON"),
        (b"", "no JSON"),
        (b"[" * 4000, "no JSON"),
        (b"[1]", "hello"),
        (json.dumps({**GOOD, "version": 2}), "version 2 of the wire format; this server speaks 1"),
        (json.dumps({**GOOD, "version": "9" * 400}), "speaks 1"),
        (json.dumps({"version": 1, "stream": "probe"}), "dtype"),
        (json.dumps({**GOOD, "shape": [0]}), "shape.0"),
        (json.dumps({**GOOD, "shape": 4}), "shape"),
        (json.dumps({**GOOD, "timestamps": "yes"}), "timestamps"),
        (json.dumps({**GOOD, "colour": 1}), "colour"),
    ],
)
def test_what_is_no_hello_is_refused_and_says_why(said, text):
    with pytest.raises(SourceError, match=text) as caught:
        wire.Hello.unpack(said if isinstance(said, bytes) else said.encode())
    assert len(str(caught.value)) < 300


@given(body=st.binary(max_size=60))
def test_random_hellos_are_refused(body):
    with pytest.raises(SourceError):
        wire.Hello.unpack(body)


@pytest.mark.parametrize(
    ("kind", "length", "text"),
    [
        (b"HELO", wire.HELLO_BYTES + 1, "at most 4096"),
        (b"ROWS", 1001, "at most 1000"),
        (b"DONE", 1, "at most 0"),
        (b"GET ", 0, "HELO, ROWS or DONE"),
        (b"ACKN", 8, "HELO, ROWS or DONE"),
        (b"\xff\0\n\x1b", 8, "HELO, ROWS or DONE"),
    ],
)
def test_heads_are_refused_before_anything_is_read(kind, length, text):
    with pytest.raises(SourceError, match=text):
        wire.check_length(kind, length, 1000)
    wire.check_length(b"ROWS", 1000, 1000)


def test_long_texts_are_cut_between_characters():
    kind, length = wire.HEAD.unpack_from(message := wire.pack_text(wire.FAILED, "é" * 5000))
    assert (kind, length) == (wire.FAILED, len(message) - wire.HEAD.size)
    assert set(message[wire.HEAD.size :].decode()) == {"é"}
