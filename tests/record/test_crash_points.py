"""Every point at which a crash could hit a recording: what was acknowledged can be recovered, bit for bit."""

import random
import shutil
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest

import nwbflow
from nwbflow.errors import TargetError

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
sys.path.insert(0, str(Path(__file__).parent))

import rig
from replay import power_cut, replay
from writelog import CHANGES, NoCompilerError, read_log, record, shim

ACKS = "acks"
FILE = "session.nwb"


class Judge:
    """Recovers a folder and holds the result against the promise; looks at equal files once."""

    def __init__(self, reader, layout, scratch):
        self.reader, self.layout, self.scratch = reader, layout, scratch
        self.known = {}
        self.recovered = self.kept = 0

    def __call__(self, folder):
        """Return what is wrong with what can be had from a folder (which is left as it is)."""
        if self.scratch.exists():
            shutil.rmtree(self.scratch)
        shutil.copytree(folder, self.scratch)
        self.prepare()
        acknowledged = acknowledged_in(folder)
        path = self.scratch / FILE
        try:
            recovery = nwbflow.recover(path)
        except TargetError as error:
            return [f"{error}"] if acknowledged else []  # it had not begun
        self.recovered += 1
        damaged = set() if recovery.journal is None else {recovery.journal.name}
        self.kept += len(damaged)
        left = {p.name for p in self.scratch.iterdir()} - {FILE, ACKS} - damaged
        stray = self.stray(left)
        return [f"left behind: {stray}"] * bool(stray) + rig.violations(self.look(path), self.layout, acknowledged)

    def prepare(self):
        """Make the copy one that can be recovered."""

    def stray(self, left):
        """Return what should not be left."""
        return {name for name in left if not name.startswith(f"{FILE}.structure.nwb")}

    def look(self, path):
        content = zlib.crc32(path.read_bytes())
        if content not in self.known:
            self.known[content] = self.reader.open(path, data=True)
        return self.known[content]


def acknowledged_in(folder):
    path = folder / ACKS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return {line.split()[0]: int(line.split()[1]) for line in lines if line.endswith("\n")}


def recorded(logged, folder, log, layout, sync, **more):
    """Record under the log, and return what was done."""
    folder.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    request = {"sync": sync, "blocks": 24, "acks": str(folder / ACKS), "log": str(log), **more}
    end = logged.write(folder / FILE, layout, **request)
    assert end.code == (0 if more.get("ends", True) else 9), end
    return read_log(log)


@pytest.mark.requirement("S2", "W12")
@pytest.mark.parametrize("sync", ["process", "full"])
@pytest.mark.parametrize("layout", ["paired", "rates"])
def test_at_every_point_of_a_recording_what_was_acknowledged_is_recovered(layout, sync, logged, reader, tmp_path):
    live, before = tmp_path / "live", tmp_path / "before"
    before.mkdir()
    log = recorded(logged, live, tmp_path / "log", layout, sync)
    judge = Judge(reader, layout, tmp_path / "scratch")
    problems, points = [], 0
    for point in replay(log, before, tmp_path / "rebuilt", torn=True):
        points += 1
        problems += [f"{point}: {what}" for what in judge(point.folder)]
    assert not problems, f"{len(problems)} at {points} points:\n" + "\n".join(problems[:20])
    assert judge.recovered > 100
    assert judge.kept == 0  # a kill damages no journal
    assert len(judge.known) > 5  # files of many lengths
    assert {p.name for p in (tmp_path / "rebuilt").iterdir()} == {FILE, ACKS}
    assert acknowledged_in(live).keys() == rig.LAYOUTS[layout].keys()


@pytest.mark.requirement("S2")
def test_what_is_there_when_it_is_replaced_survives_until_the_new_file_is_whole(logged, reader, tmp_path):
    live, before, log = tmp_path / "live", tmp_path / "before", tmp_path / "log"
    recorded(logged, live, log, "paired", "full", blocks=2)
    (live / ACKS).unlink()
    shutil.copytree(live, before)
    old = (live / FILE).read_bytes()
    done = recorded(logged, live, log, "paired", "full", overwrite=True)
    new = (live / FILE).read_bytes()
    assert old != new
    judge = Judge(reader, "paired", tmp_path / "scratch")
    for point in replay(done, before, tmp_path / "rebuilt", every=5):
        assert (point.folder / FILE).read_bytes() in (old, new), str(point)
        if (point.folder / f"{FILE}.journal" / "manifest.json").exists():
            assert judge(point.folder) == [], str(point)


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("layout", ["paired", "rates"])
def test_a_loss_of_power_takes_nothing_that_was_acknowledged_with_sync_full(layout, logged, reader, tmp_path):
    live, before = tmp_path / "live", tmp_path / "before"
    before.mkdir()
    log = recorded(logged, live, tmp_path / "log", layout, "full")
    judge = Judge(reader, layout, tmp_path / "scratch")
    chance = random.Random(5)
    changes = [index for index, operation in enumerate(log) if operation.kind in CHANGES]
    problems = []
    for _ in range(200):
        at = chance.choice(changes)
        power_cut(log[: at + 1], before, tmp_path / "cut", chance=chance, keep=(ACKS,))
        problems += [
            f"cut after operation {at} ({log[at].kind.name} {log[at].path}): {w}" for w in judge(tmp_path / "cut")
        ]
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:20])
    assert judge.recovered > 100


@pytest.mark.requirement("S2")
def test_without_syncing_a_loss_of_power_is_found_to_lose_rows(logged, reader, tmp_path):
    """The canary of the model above: what is acknowledged at sync="process" is not safe from it."""
    live, before = tmp_path / "live", tmp_path / "before"
    before.mkdir()
    log = recorded(logged, live, tmp_path / "log", "paired", "process")
    judge = Judge(reader, "paired", tmp_path / "scratch")
    chance = random.Random(6)
    last = max(index for index, operation in enumerate(log) if operation.path == ACKS)
    lost = 0
    for _ in range(10):
        power_cut(log[: last + 1], before, tmp_path / "cut", chance=chance, keep=(ACKS,))
        lost += bool(judge(tmp_path / "cut"))
    assert lost > 5


@pytest.mark.requirement("S2", "S5")
def test_recovering_may_itself_be_killed_at_any_point(logged, reader, tmp_path):
    live, before, log_file = tmp_path / "live", tmp_path / "before", tmp_path / "log"
    recorded(logged, live, log_file, "both", "process", ends=False, blocks=12)
    shutil.copytree(live, before)
    log_file.unlink()
    assert logged.write(live / FILE, "recover", log=str(log_file)).code == 0
    judge = Judge(reader, "both", tmp_path / "scratch")
    chance = random.Random(8)
    log = read_log(log_file)
    for point in replay(log, before, tmp_path / "rebuilt", torn=True):
        assert judge(point.folder) == [], str(point)
    for at in chance.sample(range(len(log)), 20):
        power_cut(log[: at + 1], before, tmp_path / "cut", chance=chance, keep=(ACKS,))
        assert judge(tmp_path / "cut") == [], f"cut after operation {at}"
    assert len(judge.known) == 1  # the same file, whenever it was killed
    assert {p.name for p in live.iterdir()} == {FILE, ACKS}


PLAIN_FLUSH = """
    import os, sys
    from datetime import UTC, datetime
    import h5py, numpy as np
    from pynwb import H5DataIO, NWBHDF5IO, NWBFile, TimeSeries

    path, acks = sys.argv[1:]
    nwbfile = NWBFile("s", "id", datetime(2020, 1, 1, tzinfo=UTC))
    data = H5DataIO(np.zeros((0, 4), "i2"), maxshape=(None, 4), chunks=(16, 4))
    nwbfile.add_acquisition(TimeSeries(name="probe", data=data, unit="V", rate=1000.0))
    with NWBHDF5IO(path, "w") as io:
        io.write(nwbfile)
    acks = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with h5py.File(path, "r+") as file:
        data = file["acquisition/probe/data"]
        for number in range(100):
            rows = data.shape[0]
            data.resize(rows + 16, axis=0)
            data[rows:] = number
            file.flush()
            os.write(acks, f"probe {rows + 16}\\n".encode())
"""


def plain_checksums(rows, acknowledged):
    """What the data may look like; the last block, if it was not acknowledged, may be missing."""
    data = np.repeat(np.arange(rows // 16, dtype="i2"), 16)[:, None].repeat(4, axis=1)
    whole = zlib.crc32(data.tobytes())
    data[acknowledged:] = 0
    return {whole, zlib.crc32(data.tobytes())} if rows >= acknowledged else set()


@pytest.mark.requirement("S2")
def test_plain_hdf5_with_a_flush_after_each_block_is_found_to_lose_rows(reader, tmp_path):
    """The canary: what this harness must find, or it would find nothing in a recording either."""
    try:
        shim()
    except NoCompilerError as error:
        pytest.skip(str(error))
    live, before, log = tmp_path / "live", tmp_path / "before", tmp_path / "log"
    live.mkdir()
    before.mkdir()
    done = record(["-c", textwrap.dedent(PLAIN_FLUSH), str(live / FILE), str(live / ACKS)], live, log)
    assert done.returncode == 0, done.stderr
    lost = []
    for point in replay(read_log(log), before, tmp_path / "rebuilt"):
        acknowledged = acknowledged_in(point.folder).get("probe", 0)
        if acknowledged < 16 * 60:  # HDF5's table of chunks is one piece until then
            continue
        seen = reader.open(point.folder / FILE, data=True)
        if seen.error or seen.checksums["probe"] not in plain_checksums(seen.shapes["probe"][0], acknowledged):
            lost.append(f"{point}: {acknowledged} acknowledged, {seen}")
            break
    assert lost
