"""A raw file is looked at before it is linked, and again before the file that links to it is written."""

import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from nwbflow.errors import ErrorKind, LinkError, SourceError, UnsupportedError
from nwbflow.links.raw import MOST_STRETCHES, part_of, stretch_names, stretches

I2 = np.dtype("<i2")


def part(path, shape=(None, 4), offset=0, dtype=I2, *, relative=False):
    return part_of(path, dtype=dtype, shape=shape, offset=offset, relative=relative)


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "rec.bin"
    np.arange(400, dtype="<i2").tofile(path)
    return path


@pytest.mark.requirement("X4")
def test_what_a_raw_file_holds(recording):
    found = part(recording, offset=16)
    assert (found.shape, found.nbytes, found.dtype.str) == ((98, 4), 784, "<i2")
    assert str(found) == str(recording)


def missing(folder):
    return folder / "nothing.bin"


def inside_a_file(folder):
    (folder / "file").write_bytes(b"1234")
    return folder / "file" / "rec.bin"


def folder(folder):
    return folder


def fifo(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def device(folder):
    return "/dev/zero"


def circle(folder):
    (folder / "circle.bin").symlink_to("circle.bin")
    return folder / "circle.bin"


def too_long(folder):
    return folder / ("x" * 300)


def with_nul(folder):
    return folder / "a\0b.bin"


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (missing, ErrorKind.MISSING, "no such file"),
        (inside_a_file, ErrorKind.MISSING, "no such file"),
        (folder, ErrorKind.FOLDER, "is a folder"),
        (fifo, ErrorKind.REFUSED, "device, pipe or socket"),
        (device, ErrorKind.REFUSED, "device, pipe or socket"),
        (circle, ErrorKind.IO, "symbolic links"),
        (too_long, ErrorKind.IO, "too long"),
        (with_nul, ErrorKind.MISSING, "no file name"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, make, kind, text):
    with pytest.raises(LinkError, match=text) as caught:
        part(make(tmp_path))
    assert caught.value.kind is kind


@pytest.mark.requirement("X4")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not read")
def test_a_file_that_may_not_be_read_is_refused():
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        path = place / "secret.bin"
        path.write_bytes(b"\0" * 8)
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(LinkError, match="may not be read") as caught:
                part(path)
        finally:
            os.seteuid(0)
        assert caught.value.kind is ErrorKind.PERMISSION
    finally:
        shutil.rmtree(place)


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("shape", "offset", "text"),
    [
        ((101, 4), 0, "holds 100 samples of 8 bytes, shape .* declares 101"),
        ((99, 4), 0, "holds 100 samples of 8 bytes, shape .* declares 99"),
        ((None, 3), 0, "no whole number of samples of 6 bytes"),
        ((None, 4), 3, "797 bytes after an offset of 3 are no whole number"),
        ((None, 4), 801, "has 800 bytes, offset=801 is behind its end"),
        ((None, 4), 800, "has no elements: 800 bytes, of which offset=800 skips 800"),
        ((0, 4), 800, "has no elements"),
        ((None, 4), -8, "nothing negative"),
        ((4, None), 0, "only the first axis may be None"),
        ((), 0, "only the first axis"),
    ],
)
def test_the_size_must_fit_what_is_declared(recording, shape, offset, text):
    with pytest.raises(SourceError, match=text) as caught:
        part(recording, shape, offset)
    assert "rec.bin" in str(caught.value)


@pytest.mark.requirement("X4")
def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.bin").touch()
    with pytest.raises(SourceError, match=r"empty\.bin has no elements: 0 bytes"):
        part(tmp_path / "empty.bin")


def grown(path):
    with path.open("ab") as file:
        file.write(b"\0" * 8)


def cut(path):
    os.truncate(path, 792)


def replaced(path):
    # as large, and by its times no younger
    about = path.stat()
    other = path.with_name("other.bin")
    other.write_bytes(b"\1" * 800)
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    other.replace(path)


def rewritten(path):
    about = path.stat()
    path.write_bytes(b"\1" * 800)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))


@pytest.mark.requirement("X4")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (grown, "had 800 bytes when it was given, and has 808 now"),
        (cut, "had 800 bytes when it was given, and has 792 now"),
        (replaced, "was written to or replaced"),
        (rewritten, "was written to or replaced"),
    ],
)
def test_a_change_is_noticed(recording, change, text):
    found = part(recording)
    found.check()
    change(recording)
    with pytest.raises(LinkError, match=text) as caught:
        found.check()
    assert caught.value.kind is ErrorKind.CHANGED
    assert "link_raw again" in str(caught.value)


@pytest.mark.requirement("X4")
def test_a_file_that_is_gone_is_noticed(recording):
    found = part(recording)
    recording.unlink()
    with pytest.raises(LinkError, match="no such file") as caught:
        found.check()
    assert caught.value.kind is ErrorKind.MISSING


@pytest.mark.requirement("X4")
def test_names_are_absolute_or_count_from_the_linking_file(recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert part("rec.bin").recorded(tmp_path / "elsewhere") == str(tmp_path / "rec.bin")
    relative = part("rec.bin", relative=True)
    assert relative.recorded(tmp_path) == "rec.bin"
    assert relative.recorded(tmp_path / "a" / "b") == "../../rec.bin"


@pytest.mark.requirement("X4")
def test_relative_names_lead_there_through_folders_that_are_links(recording, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    recording.rename(tmp_path / "deep" / "er" / "rec.bin")
    (tmp_path / "short").symlink_to("deep/er")
    (tmp_path / "here").mkdir()
    name = part(tmp_path / "short" / "rec.bin", relative=True).recorded(tmp_path / "here")
    assert (tmp_path / "here" / name).resolve() == tmp_path / "deep" / "er" / "rec.bin"


@pytest.mark.requirement("X4")
def test_a_file_that_is_a_link_is_recorded_as_the_link(recording, tmp_path):
    # data managers swap what such links lead to
    recording.rename(tmp_path / "object-1234")
    recording.symlink_to("object-1234")
    assert part(recording, relative=True).recorded(tmp_path) == "rec.bin"


@pytest.mark.requirement("X4")
def test_as_many_stretches_as_hdf5_can_note(recording, tmp_path):
    parts = [part(recording)] * MOST_STRETCHES
    with h5py.File(tmp_path / "most.h5", "w") as file:
        dataset = file.create_dataset("x", (100 * len(parts), 4), "<i2", external=stretches(parts, tmp_path))
        assert dataset[-1].tolist() == [396, 397, 398, 399]
    with pytest.raises(UnsupportedError, match=f"in {MOST_STRETCHES} raw files, these are {MOST_STRETCHES + 1}"):
        stretches([*parts, parts[0]], tmp_path)


def test_stretches_of_one_file_have_names_of_their_own():
    found = [("a.bin", 0, 8), ("b.bin", 0, 8), ("a.bin", 8, 8)]
    assert stretch_names(found) == ["a.bin @ 0", "b.bin", "a.bin @ 8"]
