"""Ctrl-C in the middle of an append: whatever was being done, the recording goes on as if before it or after it."""

import sys
from pathlib import Path

import pytest
from test_drops import QUEUE, ROWS, append, go_on, problems, read, stall, stamped
from test_spill import Held

import nwbflow
import nwbflow.record

pytestmark = pytest.mark.usefixtures("no_thread_left")
BETWEEN = {str(Path(nwbflow.record.__file__).with_name(name)) for name in ("intake.py", "gaps.py", "queues.py")}
NOTHING_DONE_YET = {"put", "_check_size", "_check", "check_reentry", "size_of", "bytes_of"}


class Interruption:
    """Raises KeyboardInterrupt before the n-th line of what lies between those who append and the journal."""

    def __init__(self, number):
        self.left, self.seen = number, set()

    def __call__(self, frame, event, _):
        if frame.f_code.co_filename not in BETWEEN or frame.f_code.co_name in NOTHING_DONE_YET:
            return None
        line = frame.f_code, frame.f_lineno
        # once each: a with statement comes a second time at its end, where nothing can come before it is left
        if event == "line" and line not in self.seen:
            self.seen.add(line)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self

    def during(self, action):
        """Do something; return whether that was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            action()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


def rows_of(recorder):
    return recorder["a"].append([], timestamps=[]).first


def interrupted_after_a_gap(path, held, number):
    """Record, with a gap, and with an interruption of the block behind it; return whether there was one."""
    with nwbflow.Recorder(stamped("a"), path, queue=QUEUE, when_full="drop", workers=1) as recorder:
        stall(held, recorder, "a", 0)
        block = 1
        while not append(recorder, "a", block).dropped:
            block += 1
        go_on(held, recorder)
        before = rows_of(recorder)
        came = Interruption(number).during(lambda: append(recorder, "a", block + 1))
        if rows_of(recorder) == before:
            append(recorder, "a", block + 1)
        last = append(recorder, "a", block + 2)
        assert last.wait(30)
        assert last.first == before + ROWS
        recorder.close()
    assert problems(path, block + 3) == []
    assert len(read(path)[1]) == 1
    return came


def interrupted_at_a_drop(path, held, number):
    """Record, and interrupt a block that is dropped; return whether that was so."""
    with nwbflow.Recorder(stamped("a"), path, queue=QUEUE, when_full="drop", workers=1) as recorder:
        stall(held, recorder, "a", 0)
        block = 1
        while not append(recorder, "a", block).dropped:
            block += 1
        dropped = recorder["a"].dropped
        came = Interruption(number).during(lambda: append(recorder, "a", block + 1))
        if recorder["a"].dropped == dropped:
            append(recorder, "a", block + 1)
        go_on(held, recorder)
        append(recorder, "a", block + 2)
        receipt = recorder.close()
    assert problems(path, block + 3) == []
    assert f"{2 * ROWS} rows were dropped since its queue was full, in 1 gap" in receipt.notes[-1]
    return came


@pytest.mark.requirement("S2", "S3")
@pytest.mark.parametrize("record", [interrupted_after_a_gap, interrupted_at_a_drop])
def test_an_append_interrupted_at_any_line_is_taken_or_not(record, path, monkeypatch):
    held = Held(path.parent, monkeypatch)
    number = 1
    while record(path.with_name(f"{number}.nwb"), held, number):
        number += 1
    assert number > 12
