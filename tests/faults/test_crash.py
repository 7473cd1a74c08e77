"""Whatever ends a write, the published path holds the old file bit for bit, or the whole new one."""

import errno
import os
import random
import shutil
import signal
import sys
import threading
import time
import zlib
from pathlib import Path

import h5py
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reader import Reader
from replay import replay
from writelog import CHANGES, Kind, NoCompilerError, environment, read_log, shim
from writer import COLUMNS, ROWS, Writer, samples

OLD_SEED, NEW_SEED = 100, 200
DISK_MIB = 8
DATASETS = ("acquisition/raw/data", "acquisition/filtered/data")


@pytest.fixture(scope="module")
def writer():
    """A process that starts writers."""
    with Writer() as process:
        yield process


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A process that starts writers whose changes can be logged."""
    try:
        shim()
    except NoCompilerError as error:
        pytest.skip(str(error))
    nowhere = tmp_path_factory.mktemp("nowhere")
    with Writer(environment(nowhere, nowhere.parent / "nothing.log")) as process:
        yield process


@pytest.fixture(scope="module")
def reader():
    """A process that opens files in stock PyNWB."""
    with Reader() as process:
        yield process


@pytest.fixture
def target(tmp_path, writer):
    """The path of a good older file, alone in its folder."""
    path = tmp_path / "live" / "session.nwb"
    path.parent.mkdir()
    assert writer.write(path, "array", seed=OLD_SEED).code == 0
    return path


def checksums(seed):
    """What the reader sees in a whole file written with `seed`."""
    return {"raw": zlib.crc32(samples(seed).tobytes()), "filtered": zlib.crc32(samples(seed + 1).tobytes())}


def partial(path):
    return path.with_name(path.name + ".partial")


def first_chunk_written(log, path):
    """Return the position in the log of the first write of chunk data into the file that became `path`."""
    with h5py.File(path) as file:
        chunks = set()
        for name in DATASETS:
            dataset = file[name].id
            for index in range(dataset.get_num_chunks()):
                info = dataset.get_chunk_info(index)
                chunks.add((info.byte_offset, info.size))
    assert len(chunks) == 24
    return next(i for i, o in enumerate(log) if o.kind is Kind.WRITE and (o.offset, len(o.data)) in chunks)


def unmarked(content):
    """Clear the mark "open for writing" of a version 0 superblock: no reader looks at it, closing removes it."""
    assert content[8] == 0, "another superblock version: the mark is elsewhere, and readers refuse it"
    return content[:20] + bytes(4) + content[24:]


def differing(content, expected):
    """Say where two contents differ."""
    if len(content) != len(expected):
        return f"{len(content)} bytes instead of {len(expected)}"
    places = [i for i, (a, b) in enumerate(zip(content, expected, strict=True)) if a != b]
    return f"{len(places)} bytes differ, the first at {places[0]}"


@pytest.mark.requirement("W5", "W6")
@pytest.mark.parametrize("how", ["array", "stream", "dropin"])
def test_at_every_point_of_a_write_the_path_holds_the_old_file_or_the_new_one(how, target, logged, reader, tmp_path):
    before, log_file = tmp_path / "before", tmp_path / "log"
    shutil.copytree(target.parent, before)
    end = logged.write(target, how, seed=NEW_SEED, log=str(log_file))
    assert end.code == 0, end
    log = read_log(log_file)
    old, new = (before / target.name).read_bytes(), target.read_bytes()
    assert old != new
    first_chunk = first_chunk_written(log, target)
    published, opened, broken = [], [], []
    for point in replay(log, before, tmp_path / "rebuilt", torn=True):
        path = point.folder / target.name
        content = path.read_bytes()
        if content not in (old, new):
            # The drop-in puts the file in place while its user still holds it open.
            if how != "dropin" or unmarked(content) != unmarked(new):
                broken.append(f"{point}: neither the old file nor the new one: {differing(content, new)}")
            elif reader.open(path, data=True).checksums != checksums(NEW_SEED):
                broken.append(f"{point}: the new file can't be read while it is marked as open")
        published.append(content != old)
        if not partial(path).exists() or point.index < first_chunk:
            continue
        seen = reader.open(partial(path))
        if seen.error:
            broken.append(f"{point}: {seen.error}")
        else:
            opened.append(seen.shapes)
    assert not broken, f"{len(broken)} of {len(published)} points:\n" + "\n".join(broken[:20])
    assert published == sorted(published), "the new file came and went again"
    assert {os.path.relpath(p, point.folder) for p in point.folder.rglob("*")} == {target.name}
    assert reader.open(target, data=True).checksums == checksums(NEW_SEED)
    assert len(opened) > 20
    assert {name for shapes in opened for name in shapes} == {"raw", "filtered"}
    assert all(shape[0] <= ROWS and shape[1] == COLUMNS for shapes in opened for shape in shapes.values())


@pytest.mark.requirement("W6", "W11")
def test_from_the_moment_of_publication_on_any_file_version_opens_in_stock_pynwb(target, logged, reader, tmp_path):
    """Newer file versions are marked while open for writing; a kill must not leave that mark in a published file."""
    before, log_file = tmp_path / "before", tmp_path / "log"
    shutil.copytree(target.parent, before)
    assert logged.write(target, "dropin", seed=NEW_SEED, libver="latest", log=str(log_file)).code == 0
    points = 0
    for point in replay(read_log(log_file), before, tmp_path / "rebuilt"):
        if not partial(point.folder / target.name).exists() and point.operation.kind in (Kind.RENAME, Kind.WRITE):
            seen = reader.open(point.folder / target.name, data=True)
            assert not seen.error, f"{point}: {seen.error}"
            assert seen.checksums == checksums(NEW_SEED), str(point)
            points += 1
    assert points


def seconds_of_a_write(writer, target):
    """Return how long a write takes from its beginning to its return."""
    writer.start(target, "array", seed=NEW_SEED)
    writer.wait_for("started")
    began = time.perf_counter()
    writer.wait_for("finished")
    duration = time.perf_counter() - began
    assert writer.end().code == 0
    return duration


@pytest.mark.requirement("W5", "W6")
def test_forty_random_kills_leave_the_old_file_or_the_new_one(target, writer, reader):
    old = target.read_bytes()
    duration = seconds_of_a_write(writer, target)
    chance = random.Random(7)
    inside = replaced = 0
    for _ in range(40):
        target.write_bytes(old)
        writer.start(target, "array", seed=NEW_SEED)
        writer.wait_for("started")
        threading.Event().wait(chance.uniform(0, duration))
        writer.send(signal.SIGKILL)
        end = writer.end()
        inside += end.inside
        if target.read_bytes() != old:
            replaced += 1
            assert reader.open(target, data=True).checksums == checksums(NEW_SEED)
    assert inside > 0, f"no kill hit a write ({replaced} of 40 were complete): the delays are wrong"


@pytest.mark.requirement("W6")
def test_a_source_that_raises_leaves_the_old_file_and_a_readable_partial(target, writer, reader):
    old = target.read_bytes()
    end = writer.write(target, "raise", seed=NEW_SEED)
    assert end.code == 1
    assert "the amplifier was unplugged" in end.said["error"]
    assert "/acquisition/raw/data" in end.said["error"]
    assert partial(target).name in end.said["error"]
    assert end.said["threads"] == []
    assert target.read_bytes() == old
    seen = reader.open(partial(target))
    assert not seen.error
    assert seen.shapes["raw"][1] == COLUMNS


def after_failed_write(end, log, target, old, reader):
    """Return what went wrong after a single write had failed; None is as it should be.

    HDF5 goes on with the rest of a flush in which a write has failed, so writes may follow until the
    error has been dealt with (the file named "failed" marks that), but none after.
    """
    failed = next(i for i, o in enumerate(log) if o.kind is Kind.FAILED)
    dealt_with = next((i for i, o in enumerate(log) if o.path == "failed"), failed)
    later = [o for o in log[dealt_with:] if o.path == log[failed].path and o.kind in CHANGES - {Kind.UNLINK}]
    if log[failed].path == target.name:  # while closing the published file
        if reader.open(target, data=True).checksums != checksums(NEW_SEED):
            return "the new file is damaged"
        return None if end.code in (0, 1) else f"exit code {end.code}"
    if target.read_bytes() != old:
        return f"the old file is gone ({end})"
    if end.code != 1 or not end.said.get("error", "").startswith("StorageError") or end.said["threads"]:
        return str(end)
    return f"then {later[0].kind.name} at {later[0].offset}" if later and "creating" not in end.said["error"] else None


@pytest.mark.slow
@pytest.mark.requirement("W6")
@pytest.mark.parametrize("how", ["array", "dropin"])
def test_any_single_failing_write_is_an_error_and_the_old_file_stays(how, target, logged, reader, tmp_path):
    old, log_file = target.read_bytes(), tmp_path / "log"
    assert logged.write(target, how, seed=NEW_SEED, log=str(log_file)).code == 0
    writes = sum(o.kind is Kind.WRITE for o in read_log(log_file))
    assert writes > 30
    problems = []
    for number in range(1, writes + 1):
        for file in (*target.parent.iterdir(), log_file):
            file.unlink()
        target.write_bytes(old)
        end = logged.write(target, how, seed=NEW_SEED, log=str(log_file), fail_at=number, errno=errno.EIO)
        problem = after_failed_write(end, read_log(log_file), target, old, reader)
        if problem:
            problems.append(f"write {number} of {writes}: {problem}")
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems)


@pytest.mark.requirement("W6")
@pytest.mark.parametrize("megabytes", [13, 40])  # below and above HDMF's chunk cache of 32 MiB
def test_a_full_disk_leaves_the_old_file(megabytes, small_disk, writer):
    target = small_disk / "session.nwb"
    assert writer.write(target, "array", seed=OLD_SEED).code == 0
    old = target.read_bytes()
    end = writer.write(target, "noise", seed=NEW_SEED, megabytes=megabytes)
    assert end.code == 1, end
    assert end.said["error"].startswith("StorageError"), end
    assert end.said["threads"] == []
    assert target.read_bytes() == old


@pytest.mark.requirement("W6")
def test_control_c_in_the_middle_of_an_endless_stream_ends_the_write(target, writer):
    old = target.read_bytes()
    writer.start(target, "endless", seed=NEW_SEED)
    writer.wait_for("middle")
    writer.send(signal.SIGINT)
    end = writer.end()
    assert end.code == -signal.SIGINT, end
    assert end.said["causes"][0] == "KeyboardInterrupt"
    assert end.said["threads"] == []
    assert target.read_bytes() == old


@pytest.mark.requirement("W6")
def test_control_c_at_random_times_ends_the_write_or_comes_too_late(target, writer, reader):
    old = target.read_bytes()
    duration = seconds_of_a_write(writer, target)
    chance = random.Random(11)
    for _ in range(15):
        target.write_bytes(old)
        writer.start(target, "array", seed=NEW_SEED)
        writer.wait_for("started")
        threading.Event().wait(chance.uniform(0, duration))
        writer.send(signal.SIGINT)
        end = writer.end()
        assert end.code in (0, 1, -signal.SIGINT), end  # by the interrupt, and by nothing worse
        assert end.said.get("threads", []) == []  # the interrupt may also come in the middle of reporting
        if "error" in end.said:
            # HDMF gives an interrupt that comes while it sets an attribute another type.
            assert "KeyboardInterrupt" in end.said["causes"], end
        if target.read_bytes() != old:
            assert reader.open(target, data=True).checksums == checksums(NEW_SEED)
