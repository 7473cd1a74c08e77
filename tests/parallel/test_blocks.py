"""What tasks for workers elsewhere cover."""

import numpy as np
import pytest
from support import session

import nwbflow
from nwbflow.parallel import blocks


class Here:
    """An executor that gives nothing out, and notes the blocks."""

    name, workers = "here", 1

    def __init__(self, rows):
        self.pieces = rows
        self.found = []

    def begin(self):
        """Do nothing."""

    def takes(self, source):
        return True

    def check(self, name, source, layout):
        """Do nothing."""

    def run(self, kit, source):
        self.found += [tuple(s.stop - s.start for s in r) for r in blocks.regions(kit, source, self.pieces)]
        raise KeyboardInterrupt
        yield


@pytest.mark.requirement("P1")
@pytest.mark.parametrize(
    ("shape", "chunks", "pieces", "expected"),
    [
        ((60_000, 384), (30_000, 64), None, {(30_000, 384)}),  # whole rows, though that is more than 16 MiB
        ((60_000, 384), (1000, 64), (30_000, 384), {(30_000, 384)}),
        ((60_000, 4096), (30_000, 64), None, {(30_000, 256)}),  # whole rows would be too much
        ((60_000, 64), (1000, 64), None, {(60_000, 64)}),
    ],
)
def test_tasks_take_whole_rows_where_that_is_not_too_much(tmp_path, shape, chunks, pieces, expected):
    executor = Here(pieces)
    data = nwbflow.DataIO(np.broadcast_to(np.int16(1), shape), chunks=chunks, codec="gzip")
    with pytest.raises(KeyboardInterrupt):
        nwbflow.write(session(x=data), tmp_path / "x.nwb", progress=False, executor=executor)
    assert set(executor.found) == expected
