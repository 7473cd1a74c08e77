"""The blocks of one rank: how many are on their way, and in which order they come."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from nwbflow.engine.afar import Kit
from nwbflow.errors import SourceError
from nwbflow.model.encoding import Encoded
from nwbflow.model.layout import Layout
from nwbflow.parallel import shares
from nwbflow.parallel.shares import Encoding, divided_blocks, own_blocks

SHAPE, CHUNKS = (100, 6), (10, 4)
VALUES = np.arange(600, dtype=np.int16).reshape(SHAPE)


@dataclass(frozen=True)
class Gate:
    """An encoder that gives the bytes as they are, when it is allowed to."""

    open: threading.Event = field(default_factory=threading.Event)

    def encode(self, chunk):
        assert self.open.wait(60)
        return Encoded(chunk.tobytes(), 0)


@pytest.fixture
def kit(monkeypatch):
    monkeypatch.setattr(shares, "BLOCK_BYTES", 10 * 8 * 2)
    layout = Layout(shape=SHAPE, maxshape=SHAPE, dtype=np.dtype("i2"), chunks=CHUNKS, filters=(), fillvalue=0)
    return Kit("/x", layout, Gate(), keep_raw_crc=False)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_no_more_is_read_than_the_window_holds(kit, pool):
    read = []
    work = Encoding(pool, 3, kit, own_blocks(kit, (slice(0, 100), slice(0, 6))), lambda r: read.append(r) or VALUES[r])
    while work.feed(2):
        pass
    assert len(read) == 2
    while work.feed():
        pass
    assert len(read) == 3
    assert work.poll() is None
    kit.encoder.open.set()
    found = []
    while work.left:
        work.feed()
        batch = work.poll()
        found += [offset for offset, _ in batch.chunks] if batch is not None else []
        assert len(read) - 3 <= len(found) / 2
    assert found == [(row, column) for row in range(0, 100, 10) for column in (0, 4)]


def test_an_error_of_the_data_names_dataset_and_rows(kit, pool):
    def read(region):
        raise SourceError("no", kind="length")

    with pytest.raises(SourceError, match="/x: no"):
        Encoding(pool, 3, kit, own_blocks(kit, (slice(0, 100), slice(0, 6))), read).feed()

    def break_down(region):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as raised:
        Encoding(pool, 3, kit, own_blocks(kit, (slice(10, 100), slice(0, 6))), break_down).feed()
    assert raised.value.__notes__ == ["raised by the data of /x, in [10:20, 0:6]"]


def test_chunks_in_several_parts_are_in_none_of_their_blocks(kit):
    parts = [(slice(0, 47), slice(0, 6)), (slice(47, 100), slice(0, 6))]
    shown = [(r[0].start, r[0].stop) for part in parts for r in own_blocks(kit, part)]
    assert shown == [(at, at + 10) for at in (0, 10, 20, 30, 50, 60, 70, 80, 90)]
    assert divided_blocks(kit, parts) == [(slice(40, 50), slice(0, 6))]
