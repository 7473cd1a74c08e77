"""The wire format of rows on a socket, version 1: bytes to messages and back, and nothing else.

A message is a kind (four ASCII letters), the length of its body (u32) and the body. All numbers are little-endian.
``docs/reference/wire-format.md`` says who sends what when.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array
from nwbflow.model.layout import Shape

VERSION = 1
"""What a hello has to say."""

HELLO, ROWS, DONE = b"HELO", b"ROWS", b"DONE"
"""What a client sends: who it is, rows, and that there will be no more."""

WELCOME, ACKNOWLEDGED, BUSY, FAILED = b"WELC", b"ACKN", b"BUSY", b"FAIL"
"""What a server sends, besides ``DONE``."""

HELLO_BYTES = 4096
"""A hello is no longer than this."""

HEAD = struct.Struct("<4sI")
_ROWS = struct.Struct("<QQ")
_WELCOME = struct.Struct("<QQ16sd")
_COUNT = struct.Struct("<Q")

ROWS_HEAD_BYTES = _ROWS.size
"""What precedes the rows in the body of a ``ROWS`` message."""

_TEXT_BYTES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFormat:
    """What one row of a stream is.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of the elements.
    shape : tuple of int
        Shape of one row of the data; empty where it is one value.
    timestamps : bool
        Whether each row has a time stamp, float64, in seconds.
    """

    dtype: np.dtype[np.generic]
    shape: Shape
    timestamps: bool

    @property
    def row_bytes(self) -> int:
        """Size of one row with its time stamp, in bytes."""
        return prod(self.shape) * self.dtype.itemsize + 8 * self.timestamps

    def words(self) -> str:
        """Return it as it is said in a hello."""
        return f"dtype {self.dtype.name}, shape {list(self.shape)}, timestamps {str(self.timestamps).lower()}"


class Hello(BaseModel):
    """The first message of a client; its body is this as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: int
    stream: str
    dtype: str
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), strict=False)
    timestamps: bool = False
    client: str = ""
    token: str = ""

    def pack(self) -> bytes:
        """Return the message."""
        return pack(HELLO, json.dumps(self.model_dump()).encode())

    @classmethod
    def unpack(cls, body: bytes) -> Hello:
        """Return what a body says.

        Raises
        ------
        SourceError
            If it is no hello of this version.
        """
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            raise malformed("the hello is no JSON object in UTF-8") from None
        if isinstance(said, dict) and said.get("version", VERSION) != VERSION:
            raise malformed(f"version {str(said['version'])[:20]} of the wire format; this server speaks {VERSION}")
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])[:60] or "the hello"
            raise malformed(f"hello: {where}: {fault['msg']}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """A server's answer to a hello.

    Parameters
    ----------
    rows : int
        Rows of the stream that it has; the client goes on from there.
    frame_bytes : int
        The longest body of a message that it takes.
    recording : bytes
        16 bytes, different for each recording.
    start : float
        What time stamps count from, in seconds since 1970 (UTC); NaN where the server does not know.
    """

    rows: int
    frame_bytes: int
    recording: bytes
    start: float

    def pack(self) -> bytes:
        """Return the message."""
        return pack(WELCOME, _WELCOME.pack(self.rows, self.frame_bytes, self.recording, self.start))

    @classmethod
    def unpack(cls, body: bytes) -> Welcome:
        """Return what a body says."""
        _of_size(body, _WELCOME.size)
        rows, frame_bytes, recording, start = _WELCOME.unpack(body)
        return cls(rows=rows, frame_bytes=frame_bytes, recording=recording, start=start)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """A block of rows.

    Parameters
    ----------
    first : int
        Row of the stream that the first of them is.
    data : numpy.ndarray
        Shape (k, ...).
    timestamps : numpy.ndarray or None
        Shape (k,), in seconds.
    """

    first: int
    data: Array
    timestamps: Array | None

    def pack(self) -> bytes:
        """Return the message."""
        data = np.ascontiguousarray(self.data, self.data.dtype.newbyteorder("<")).tobytes()
        times = b"" if self.timestamps is None else np.ascontiguousarray(self.timestamps, "<f8").tobytes()
        return pack(ROWS, _ROWS.pack(self.first, len(self.data)) + data + times)

    @classmethod
    def unpack(cls, body: bytes | bytearray, form: RowFormat) -> Rows:
        """Return the rows in a body; they share its memory.

        Raises
        ------
        SourceError
            If the body is not as long as its rows.
        """
        if len(body) < _ROWS.size:
            raise malformed(f"a ROWS message of {len(body)} bytes; its head alone has {_ROWS.size}")
        first, count = _ROWS.unpack_from(body)
        if first + count >= 2**63 or len(body) != _ROWS.size + count * form.row_bytes:
            raise malformed(
                f"a ROWS message of {len(body)} bytes says it holds {count} rows from row {first} on; with "
                f"{form.row_bytes} bytes a row ({form.words()}) it would have {_ROWS.size + count * form.row_bytes}"
            )
        elements = count * prod(form.shape)
        data = np.frombuffer(body, form.dtype.newbyteorder("<"), elements, _ROWS.size).reshape(count, *form.shape)
        times = np.frombuffer(body, "<f8", count, len(body) - 8 * count) if form.timestamps else None
        return cls(first=first, data=data, timestamps=times)


def pack(kind: bytes, body: bytes = b"") -> bytes:
    """Return a message."""
    return HEAD.pack(kind, len(body)) + body


def pack_count(kind: bytes, rows: int) -> bytes:
    """Return a message whose body is a number of rows: ``ACKN``, or a server's ``DONE``."""
    return pack(kind, _COUNT.pack(rows))


def unpack_count(body: bytes) -> int:
    """Return the number of rows in a body."""
    _of_size(body, _COUNT.size)
    return int(_COUNT.unpack(body)[0])


def pack_text(kind: bytes, text: str) -> bytes:
    """Return a message whose body is a text, ``BUSY`` or ``FAIL``; long ones are cut."""
    return pack(kind, text.encode("utf-8", "replace")[:_TEXT_BYTES].decode("utf-8", "ignore").encode())


def check_length(kind: bytes, length: int, frame_bytes: int) -> None:
    """Refuse a message by its head alone, before anything of its body is read.

    Raises
    ------
    SourceError
        If no client sends such a message, or not as long a one.
    """
    most = {HELLO: HELLO_BYTES, ROWS: frame_bytes, DONE: 0}.get(kind)
    if most is None:
        raise malformed(f"a message of kind {kind!r}; a client sends HELO, ROWS or DONE")
    if length > most:
        raise malformed(f"a {kind.decode()} message of {length} bytes; at most {most} are taken")


def malformed(text: str) -> SourceError:
    """Return the error for what breaks the format."""
    return SourceError(text, kind=ErrorKind.BOUNDS)


def _of_size(body: bytes, size: int) -> None:
    if len(body) != size:
        raise malformed(f"a body of {len(body)} bytes; there should be {size}")
