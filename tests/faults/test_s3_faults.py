"""What an S3 server and the network do to a write: nothing reads as a store that is not one, and the call goes on."""

import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from s3_proxy import every as s3_proxy_every
from s3_proxy import s3_proxy
from s3_server import options, s3_server, store_content
from support import session

import nwbflow
from nwbflow.errors import ErrorKind, StorageError, TargetError, VerifyError

pytestmark = [
    pytest.mark.requirement("P4"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part"),
]

HERE = Path(__file__).parent
DATA = np.random.default_rng(5).integers(0, 2**12, (20000, 16), dtype="i2")
PROFILE = nwbflow.Profile(name="p", codec=("gzip", 1), chunk_bytes=16384, min_bytes=0)
URL = "s3://lab/f.nwb.zarr"
ROOT = "/lab/f.nwb.zarr/zarr.json"
SHARD = "/a/data/c/"


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def proxy(server):
    with s3_proxy(server) as proxy:
        yield proxy
        proxy.decide = lambda method, path: None
        place = _place(proxy)
        place.delete([place.key(name) for name in place.objects()])
        place.delete([place.beside])


def _place(proxy):
    from nwbflow.sinks.remote import Place

    return Place(URL, options(proxy.endpoint))


def write(proxy, data=DATA, **more):
    given = {"profile": PROFILE, "memory": 500_000, "progress": False, "storage_options": options(proxy.endpoint)}
    return nwbflow.write(session(a=data), URL, **{**given, **more})


def has_root(proxy):
    return "zarr.json" in _place(proxy).objects()


def content(proxy):
    return store_content(proxy.endpoint, "f.nwb.zarr")


def every(number, fault, method="PUT", part=SHARD):
    return s3_proxy_every(number, fault, method, part)


@pytest.mark.parametrize(
    "decide",
    [
        every(2, ("answer", 503, "SlowDown")),
        every(1, ("answer", 500, "InternalError")),
        every(1, ("reset",)),
        every(1, ("lost",)),
        every(1, ("truncate",), "GET"),
        every(1, ("reset",), "GET"),
    ],
    ids=["slow-down", "internal", "reset", "lost-answer", "truncated", "reset-reading"],
)
def test_what_passes_is_tried_again(proxy, decide):
    proxy.decide = decide
    write(proxy)
    assert np.array_equal(content(proxy), DATA)


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (403, "InvalidAccessKeyId", ErrorKind.PERMISSION, "credentials are wrong"),
        (403, "SignatureDoesNotMatch", ErrorKind.PERMISSION, "credentials are wrong"),
        (400, "ExpiredToken", ErrorKind.PERMISSION, "have run out"),
        (403, "AccessDenied", ErrorKind.PERMISSION, "may not do that"),
        (403, "RequestTimeTooSkewed", ErrorKind.PERMISSION, "clock differs"),
        (404, "NoSuchBucket", ErrorKind.FOLDER, "no such bucket"),
        (503, "SlowDown", ErrorKind.IO, "asking to slow down"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_refusal_comes_before_anything_is_changed(proxy, method, status, code, kind, text):
    write(proxy, DATA[:999])
    proxy.decide = lambda asked, path: ("answer", status, code) if asked == method else None
    with pytest.raises(TargetError, match=text) as caught:
        write(proxy, overwrite=True)
    assert caught.value.kind is kind
    assert "<?xml" not in str(caught.value)
    proxy.decide = lambda method, path: None
    assert np.array_equal(content(proxy), DATA[:999])


@pytest.mark.parametrize(
    ("decide", "error"),
    [
        (every(99, ("answer", 503, "SlowDown")), StorageError),
        (every(99, ("reset",)), StorageError),
        (every(99, ("answer", 403, "AccessDenied"), part="/specifications/"), StorageError),
        (every(99, ("reset",), part=ROOT), StorageError),
        (every(99, ("truncate",), "GET"), StorageError),
        (every(99, ("alter",), "GET"), VerifyError),
    ],
    ids=["slow-down", "reset", "denied-late", "root", "truncated", "altered"],
)
def test_what_does_not_pass_leaves_no_store_and_the_same_call_goes_on(proxy, decide, error):
    proxy.decide = decide
    with pytest.raises(error) as caught:
        write(proxy)
    assert any("the same call goes on from there" in note for note in caught.value.__notes__)
    proxy.decide = lambda method, path: None
    assert not has_root(proxy)
    there = {name for name in _place(proxy).objects() if SHARD in f"/{name}"}
    proxy.requests.clear()
    receipt = write(proxy)
    sent = {path.removeprefix("/lab/f.nwb.zarr/") for method, path in proxy.requests if method == "PUT"}
    assert not there & sent
    assert len(there) == 0 or "were there already" in " ".join(receipt.notes)
    assert np.array_equal(content(proxy), DATA)


def test_an_endpoint_that_goes_away(server):
    with s3_proxy(server) as proxy:
        gone = every(0, None)

        def decide(method, path):
            nonlocal gone
            if method == "PUT" and SHARD in path:
                gone = lambda method, path: ("reset",)  # noqa: E731
            return gone(method, path)

        proxy.decide = decide
        with pytest.raises(StorageError, match="can't be reached, or broke off") as caught:
            write(proxy)
        assert caught.value.kind is ErrorKind.IO
    with pytest.raises(TargetError, match="can't be reached"):
        write(proxy)


def test_tags_that_are_no_md5_are_compared_by_the_note(proxy, monkeypatch):
    from nwbflow.sinks import uploads

    monkeypatch.setattr(uploads, "_NOTE_SECONDS", 0.0)
    forward = proxy.forward

    def other_tags(handler, body):
        status, headers, answer = forward(handler, body)
        headers = [(n, '"0' + v.strip('"')[::-1] + '"' if n.lower() == "etag" else v) for n, v in headers]
        return status, headers, _turned(answer) if b"ListBucketResult" in answer else answer

    proxy.forward = other_tags
    proxy.decide = every(99, ("answer", 403, "AccessDenied"), part="/c/5/")
    with pytest.raises(StorageError):
        write(proxy)
    proxy.decide = lambda method, path: None
    proxy.requests.clear()
    receipt = write(proxy)
    assert "were there already" in " ".join(receipt.notes)
    assert np.array_equal(content(proxy), DATA)


def _turned(answer):
    import re

    return re.sub(
        rb"<ETag>(.*?)</ETag>",
        lambda m: b"<ETag>&quot;0" + re.sub(rb'"|&quot;', b"", m[1])[::-1] + b"&quot;</ETag>",
        answer,
    )


def test_something_else_is_not_written_over(proxy):
    place = _place(proxy)
    place.put(place.key("thesis.pdf"), b"years of work")
    for overwrite in (False, True):
        with pytest.raises(TargetError, match=r"something else in it.*thesis\.pdf") as caught:
            write(proxy, overwrite=overwrite)
        assert caught.value.kind is ErrorKind.FOLDER
    place.delete([place.key("thesis.pdf")])
    place.put(place.beside, b"notes of mine")
    with pytest.raises(TargetError, match="is something else"):
        write(proxy, overwrite=True)
    assert place.get(place.beside) == b"notes of mine"


def test_of_two_writes_to_one_place_the_first_gives_way(proxy):
    entered = []

    def blocks():
        yield DATA[:10000]
        entered.append(write(proxy))
        yield DATA[10000:] + 1

    other = nwbflow.blocks(blocks(), shape=(None, 16), dtype="i2")
    with pytest.raises(TargetError, match="taken by another write") as caught:
        write(proxy, other)
    assert caught.value.kind is ErrorKind.LOCKED
    assert len(entered) == 1


def test_older_objects_do_not_show_through(proxy):
    write(proxy, np.concatenate([DATA, DATA]))
    write(proxy, DATA, overwrite=True)
    assert np.array_equal(content(proxy), DATA)
    names = _place(proxy).objects()
    assert max(int(name.split("/c/")[1].split("/")[0]) for name in names if SHARD in f"/{name}") < 99
    sizes = sum(SHARD in f"/{name}" for name in names)
    write(proxy, DATA[:5000], overwrite=True)
    assert sum(SHARD in f"/{name}" for name in _place(proxy).objects()) < sizes
    assert np.array_equal(content(proxy), DATA[:5000])


def test_writers_killed_between_requests_leave_nothing_that_reads_as_a_store():
    done = subprocess.run(
        [sys.executable, str(HERE / "s3_killer.py"), "4", "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 4
    assert sum(one["killed"] for one in found) >= 3
    for one in found:
        kept = ("whole", "old") if one["which"] == "replacing" else ("whole",)
        assert one["read"] in (kept if one["rooted"] else ("absent",)), found
        assert one["after"] == "whole", found
        assert not one["sent_again"], found


def test_the_reader_of_these_tests_sees_a_wrong_store(server, proxy):
    write(proxy)
    place = _place(proxy)
    name = next(name for name in place.objects() if SHARD in f"/{name}")
    place.delete([place.key(name)])
    assert not np.array_equal(content(proxy), DATA)
    assert zlib.crc32(content(proxy).tobytes()) != zlib.crc32(DATA.tobytes())
