"""Recording from coroutines, and from iterables of both kinds."""

import asyncio
import itertools
import threading

import numpy as np
import pytest
from pynwb import NWBHDF5IO, TimeSeries
from support import session
from test_drops import QUEUE, Held, append, read, stall, stamped
from test_tables import trials

import nwbflow
from nwbflow.errors import DurabilityError, ErrorKind

pytestmark = pytest.mark.usefixtures("no_thread_left")


@pytest.fixture
def held(path, monkeypatch):
    return Held(path.parent, monkeypatch)


def stored(path, name):
    with NWBHDF5IO(str(path), "r") as io:
        series = io.read().acquisition[name]
        return series.data[:].tolist()


@pytest.mark.requirement("S1")
def test_tickets_are_awaited_without_a_thread_for_each(path, held):
    async def rig(recorder):
        stall(held, recorder, "a", 0)
        tickets = [append(recorder, "a", 1) for _ in range(2)]
        before = threading.active_count()
        waiting = [asyncio.ensure_future(_settled(ticket)) for ticket in tickets]
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [False, False]
        assert threading.active_count() == before
        held.gate.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert recorder.acknowledged("a") == 30
        return await tickets[0]  # again, and at once

    with nwbflow.Recorder(stamped("a"), path) as recorder:
        assert asyncio.run(rig(recorder)) is True


async def _settled(ticket):
    return await ticket


@pytest.mark.requirement("S1", "S3")
def test_a_coroutine_that_has_to_wait_for_room_does_not_hold_the_loop(path, held):
    async def rig(recorder):
        stall(held, recorder, "a", 0)
        feeder = asyncio.ensure_future(feed(recorder))
        for _ in range(100):  # the loop goes round and round, and the feeder has got stuck
            await asyncio.sleep(0)
        assert not feeder.done()
        cancelled = asyncio.ensure_future(recorder["a"].append_async([7], timestamps=[7.0]))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        held.gate.set()
        tickets = await feeder
        assert await tickets[-1]
        return tickets

    async def feed(recorder):
        return [
            await recorder["a"].append_async(np.arange(n * 10, n * 10 + 10), timestamps=np.arange(10))
            for n in range(1, 9)
        ]

    with nwbflow.Recorder(stamped("a"), path, queue=QUEUE) as recorder:
        tickets = asyncio.run(rig(recorder))
    assert [ticket.first for ticket in tickets] == list(range(10, 90, 10))
    assert stored(path, "a") == list(range(90))


@pytest.mark.requirement("S1")
def test_a_loop_that_is_closed_does_not_stop_the_recording(path, held):
    async def rig(recorder):
        stall(held, recorder, "a", 0)
        task = asyncio.ensure_future(_settled(append(recorder, "a", 1)))
        await asyncio.sleep(0)
        task.cancel()

    with nwbflow.Recorder(stamped("a"), path) as recorder:
        asyncio.run(rig(recorder))
        held.gate.set()
        assert append(recorder, "a", 2).wait(30)
    assert stored(path, "a") == list(range(30))


@pytest.mark.requirement("S1", "S3")
def test_an_awaited_ticket_raises_what_waiting_raises(path, held):
    async def rig(recorder):
        stall(held, recorder, "a", 0)
        tickets = [append(recorder, "a", block) for block in range(1, 9)]
        with pytest.raises(DurabilityError) as lost:
            await tickets[-1]
        assert lost.value.kind is ErrorKind.DROPPED
        held.gate.set()

    with nwbflow.Recorder(stamped("a"), path, queue=QUEUE, when_full="drop") as recorder:
        asyncio.run(rig(recorder))
    assert len(read(path)[1]) == 1


@pytest.mark.requirement("S2")
def test_a_coroutine_is_told_that_rows_never_will_be_safe(path, held):
    async def rig(recorder):
        stall(held, recorder, "a", 0)
        task = asyncio.ensure_future(_settled(append(recorder, "a", 1)))
        await asyncio.sleep(0)
        recorder._recording._intake.fail("the disk is gone", ErrorKind.IO)
        held.gate.set()
        with pytest.raises(DurabilityError, match="disk is gone"):
            await task

    recorder = nwbflow.Recorder(stamped("a"), path)
    asyncio.run(rig(recorder))
    with pytest.raises(DurabilityError):
        recorder.close()


@pytest.mark.requirement("S1", "S7")
def test_iterables_are_recorded_till_they_end(path):
    nwbfile = trials()
    nwbfile.add_acquisition(TimeSeries(name="plain", data=nwbflow.live((None, 2), "int16"), unit="V", rate=1.0))
    data, times = nwbflow.live((None,), "int16"), nwbflow.live()
    nwbfile.add_acquisition(TimeSeries(name="both", data=data, timestamps=times, unit="V"))
    blocks = np.arange(60).reshape(10, 3, 2)

    async def later():
        for block in blocks[5:]:
            await asyncio.sleep(0)
            yield block

    with nwbflow.Recorder(nwbfile, path) as recorder:
        assert recorder["plain"].extend(iter(blocks[:5])) == 15
        assert asyncio.run(recorder["plain"].extend_async(later())) == 15
        assert recorder["both"].extend([([1, 2], [0.1, 0.2]), {"timestamps": [0.3], "data": [3]}]) == 3
        assert asyncio.run(recorder["both"].extend_async([([4], [0.4])])) == 1
        assert recorder["trials"].extend({"start_time": n, "stop_time": n + 1} for n in range(4)) == 4
        assert recorder["plain"].extend([]) == 0
    assert stored(path, "plain") == blocks.reshape(30, 2).tolist()
    assert stored(path, "both") == [1, 2, 3, 4]


@pytest.mark.requirement("S1")
def test_an_iterable_that_never_ends_and_is_always_ready_can_be_cancelled(path):
    given = itertools.count()

    async def rig(recorder):
        feeder = asyncio.ensure_future(recorder["x"].extend_async([number] for number in given))
        for _ in range(20):
            await asyncio.sleep(0)
        feeder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feeder

    with nwbflow.Recorder(session(x=nwbflow.live((None,), "int64")), path) as recorder:
        asyncio.run(rig(recorder))
    assert stored(path, "x") == list(range(next(given)))


@pytest.mark.requirement("S1")
def test_what_an_iterable_gave_before_its_error_is_recorded(path):
    def unplugged():
        yield [1, 2], [0.1, 0.2]
        raise OSError("unplugged")

    async def unplugged_later():
        for block in unplugged():
            yield block

    with nwbflow.Recorder(stamped("a"), path) as recorder:
        with pytest.raises(OSError, match="unplugged"):
            recorder["a"].extend(unplugged())
        with pytest.raises(OSError, match="unplugged"):
            asyncio.run(recorder["a"].extend_async(unplugged_later()))
        for wrong in ([1, 2], ([1],), {"data": [1]}, ([1], [2.0], [3])):
            with pytest.raises(nwbflow.SettingsError, match=r"tuples \(data, timestamps\)"):
                recorder["a"].extend([([5], [0.5]), wrong])
    assert stored(path, "a") == [1, 2, 1, 2, 5, 5, 5, 5]
