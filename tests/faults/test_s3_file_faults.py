"""What an S3 server and the network do to an HDF5 file on its way: it is there whole, or what was there before is."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from s3_proxy import every, s3_proxy
from s3_server import KEYS, QUICK, s3_server
from support import session

import nwbflow
from nwbflow.errors import ErrorKind, StorageError, TargetError, VerifyError
from nwbflow.model.events import DatasetStarted
from nwbflow.sinks import file_upload

pytestmark = pytest.mark.requirement("P4")

HERE = Path(__file__).parent
DATA = np.random.default_rng(5).integers(0, 2**12, (20000, 16), dtype="i2")
PART, OBJECT = "partNumber=", "/lab/"
NAMES = iter(f"f{number}.nwb" for number in range(99))


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def proxy(server):
    with s3_proxy(server) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(file_upload, "PART_BYTES", 64 * 1024)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished file, made once."""
    path = tmp_path_factory.mktemp("made") / "a.nwb"
    nwbflow.write(session(a=DATA), path, progress=False)
    return path


@pytest.fixture
def url():
    return f"s3://lab/{next(NAMES)}"


def options(endpoint):
    return {"endpoint": endpoint, "region": "us-east-1", **KEYS, "retry_config": QUICK}


def upload(file, url, endpoint, **more):
    return nwbflow.upload(file, url, **{"storage_options": options(endpoint), "progress": False, **more})


def client(endpoint):
    import boto3

    given = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, **given)


def content(server, url):
    """Return the object's bytes as boto3 gives them; None if there is none."""
    found = client(server)
    try:
        return found.get_object(Bucket="lab", Key=url.removeprefix("s3://lab/"))["Body"].read()
    except found.exceptions.NoSuchKey:
        return None


def under_way(server, url):
    """Return how many uploads the server keeps parts of."""
    found = client(server).list_multipart_uploads(Bucket="lab", Prefix=url.removeprefix("s3://lab/"))
    return len(found.get("Uploads", ()))


def parts_sent(proxy):
    asked = (re.search(r"partNumber=(\d+)", path) for method, path in proxy.requests if method == "PUT")
    return [int(found[1]) for found in asked if found]


COMPLETING = re.compile(r"\?uploadId=|&uploadId=")


def completing(fault, times=99):
    """Let the last request, which makes the parts an object, fail."""
    tries = iter([fault] * times)
    return lambda method, path: next(tries, None) if method == "POST" and COMPLETING.search(path) else None


@pytest.mark.parametrize(
    "decide",
    [
        every(2, ("answer", 503, "SlowDown"), "PUT", PART),
        every(1, ("reset",), "PUT", PART),
        every(1, ("lost",), "PUT", PART),
        every(1, ("truncate",), "GET", ".partial"),
        every(1, ("lost",), "PUT", ".partial"),
        every(1, ("reset",), "POST", "?uploads"),
        every(1, ("reset",), "HEAD", OBJECT),
        completing(("answer", 500, "InternalError"), 2),
        completing(("reset",), 1),
        completing(("lost",), 1),
        completing(("answer", 200, "InternalError"), 1),
    ],
    ids=lambda value: "",
)
def test_what_passes_is_tried_again(server, proxy, made, url, decide):
    proxy.decide = decide
    upload(made, url, proxy.endpoint)
    assert content(server, url) == made.read_bytes()
    assert under_way(server, url) == 0


@pytest.mark.parametrize(
    ("method", "status", "code", "text"),
    [
        ("GET", 403, "InvalidAccessKeyId", "credentials are wrong"),
        ("GET", 403, "SignatureDoesNotMatch", "credentials are wrong"),
        ("GET", 400, "ExpiredToken", "have run out"),
        ("GET", 403, "RequestTimeTooSkewed", "clock differs"),
        ("HEAD", 403, "Forbidden", "may not do that"),
        ("PUT", 403, "AccessDenied", "may not do that"),
        ("PUT", 404, "NoSuchBucket", "no such bucket"),
        ("PUT", 503, "SlowDown", "asking to slow down"),
    ],
)
def test_a_refusal_comes_before_the_file_is_made(server, proxy, tmp_path, url, method, status, code, text):
    client(server).put_object(Bucket="lab", Key=url.removeprefix("s3://lab/"), Body=b"older")
    proxy.decide = lambda asked, path: ("answer", status, code) if asked == method else None
    seen = []
    with pytest.raises(TargetError, match=text) as caught:
        nwbflow.write(
            session(a=DATA),
            url,
            storage_options=options(proxy.endpoint),
            staging=tmp_path,
            overwrite=True,
            progress=seen.append,
        )
    assert "<?xml" not in str(caught.value)
    assert not any(isinstance(event, DatasetStarted) for event in seen)
    assert (content(server, url), list(tmp_path.iterdir())) == (b"older", [])


@pytest.mark.parametrize(
    "decide",
    [
        every(99, ("answer", 503, "SlowDown"), "PUT", "partNumber=3"),
        every(99, ("reset",), "PUT", "partNumber=3"),
        every(99, ("answer", 403, "AccessDenied"), "PUT", "partNumber=3"),
        completing(("reset",)),
        completing(("answer", 403, "AccessDenied")),
    ],
    ids=["slow-down", "reset", "denied", "complete-reset", "complete-denied"],
)
def test_what_does_not_pass_leaves_the_old_object_and_only_what_is_missing_is_sent(
    server, proxy, tmp_path, url, decide
):
    client(server).put_object(Bucket="lab", Key=url.removeprefix("s3://lab/"), Body=b"older")
    proxy.decide = decide
    given = {"storage_options": options(proxy.endpoint), "staging": tmp_path, "progress": False, "overwrite": True}
    with pytest.raises(StorageError) as caught:
        nwbflow.write(session(a=DATA), url, **given)
    way_out = next(note for note in caught.value.__notes__ if "nwbflow upload" in note)
    kept = Path(re.search(r"nwbflow upload (\S+) s3://", way_out)[1])
    whole = kept.read_bytes()
    assert content(server, url) == b"older"
    proxy.decide = lambda method, path: None
    proxy.requests.clear()
    receipt = upload(kept, url, proxy.endpoint, overwrite=True)
    assert len(parts_sent(proxy)) == receipt.sent.parts - receipt.sent.kept
    assert receipt.sent.kept > 0
    assert content(server, url) == whole
    assert (under_way(server, url), list(tmp_path.iterdir())) == (0, [])


def test_the_same_call_goes_on_with_parts_that_are_the_same(server, proxy, tmp_path, url):
    nwbfile = session(a=DATA)
    given = {"storage_options": options(proxy.endpoint), "staging": tmp_path, "progress": False, "overwrite": True}
    proxy.decide = completing(("answer", 403, "AccessDenied"))
    with pytest.raises(StorageError):
        nwbflow.write(nwbfile, url, **given)
    proxy.decide = lambda method, path: None
    receipt = nwbflow.write(nwbfile, url, **given)
    assert receipt.sent.kept >= receipt.sent.parts - 2  # not those with HDMF's own time stamps
    assert under_way(server, url) == 0


def test_other_data_get_nothing_of_an_interrupted_upload(server, proxy, made, tmp_path, url, monkeypatch):
    nwbflow.write(session(a=DATA + 1), tmp_path / "b.nwb", progress=False)
    proxy.decide = completing(("answer", 403, "AccessDenied"))
    with pytest.raises(StorageError):
        upload(made, url, proxy.endpoint)
    upload(tmp_path / "b.nwb", url, server)
    assert content(server, url) == (tmp_path / "b.nwb").read_bytes()
    with pytest.raises(StorageError):
        upload(made, url, proxy.endpoint, overwrite=True)
    monkeypatch.setattr(file_upload, "PART_BYTES", 128 * 1024)  # parts that fit no more are given up
    upload(made, url, server, overwrite=True)
    assert content(server, url) == made.read_bytes()
    assert under_way(server, url) == 0


def test_an_endpoint_that_goes_away(server, made, url):
    with s3_proxy(server) as proxy:
        gone = threading.Event()

        def decide(method, path):
            if "partNumber=2" in path:
                gone.set()
            return ("reset",) if gone.is_set() else None

        proxy.decide = decide
        with pytest.raises(StorageError, match="can't be reached, or broke off") as caught:
            upload(made, url, proxy.endpoint)
        assert caught.value.kind is ErrorKind.IO
    with pytest.raises(TargetError, match="can't be reached"):
        upload(made, url, proxy.endpoint)
    assert content(server, url) is None
    assert upload(made, url, server).sent.kept >= 0
    assert content(server, url) == made.read_bytes()


def other_tags(proxy):
    """Give tags that are no MD5s, as stores with their own encryption do."""
    forward, real = proxy.forward, {}

    def turned(tag):
        return tag[::-1]  # as long, so that requests stay so

    def change(handler, body):
        for tag, known in real.items() if handler.command == "POST" else ():
            body = body.replace(tag.encode(), known.encode())
        status, headers, answer = forward(handler, body)
        for tag in re.findall(r"[0-9a-f]{32}(?:-\d+)?", " ".join(v for n, v in headers if n.lower() == "etag")):
            real[turned(tag)] = tag
        headers = [(n, turned(v.strip('"')).join('""') if n.lower() == "etag" else v) for n, v in headers]
        answer = re.sub(
            rb"<ETag>(.*?)</ETag>",
            lambda m: b"<ETag>%s</ETag>" % turned(re.sub(r'"|&quot;', "", m[1].decode())).encode(),
            answer,
        )
        return status, headers, answer

    proxy.forward = change


def test_tags_that_are_no_md5_are_compared_by_the_note_and_by_reading_back(server, proxy, made, url):
    other_tags(proxy)
    proxy.decide = completing(("answer", 403, "AccessDenied"))
    with pytest.raises(StorageError):
        upload(made, url, proxy.endpoint)
    proxy.decide = lambda method, path: None
    proxy.requests.clear()
    assert upload(made, url, proxy.endpoint).sent.kept > 3
    assert content(server, url) == made.read_bytes()
    name = url.removeprefix("s3:/")
    assert sum(method == "GET" and path == name for method, path in proxy.requests) > 3
    proxy.decide = lambda method, path: ("alter",) if method == "GET" and path == name else None
    with pytest.raises(VerifyError, match="reads back different"):
        upload(made, url, proxy.endpoint, overwrite=True)


def test_what_is_there_already_is_recognised(server, proxy, made, url):
    upload(made, url, server)
    again = upload(made, url, proxy.endpoint)
    assert (again.sent.kept, parts_sent(proxy)) == (again.sent.parts, [])
    assert content(server, url) == made.read_bytes()


def test_an_object_that_comes_meanwhile_is_not_replaced(server, proxy, made, url):
    def put_another(method, path):
        if "partNumber=2" in path:
            client(server).put_object(Bucket="lab", Key=url.removeprefix("s3://lab/"), Body=b"somebody's")

    proxy.decide = put_another
    with pytest.raises(TargetError, match="exists") as caught:
        upload(made, url, proxy.endpoint)
    assert caught.value.kind is ErrorKind.EXISTS
    assert content(server, url) == b"somebody's"
    assert upload(made, url, server, overwrite=True).sent.kept > 3
    assert content(server, url) == made.read_bytes()


@pytest.mark.parametrize("meanwhile", [False, True])
def test_servers_that_know_no_conditions(server, proxy, made, url, meanwhile):
    forward = proxy.forward

    def refuse(handler, body):
        if handler.headers.get("If-None-Match"):
            if meanwhile:
                client(server).put_object(Bucket="lab", Key=url.removeprefix("s3://lab/"), Body=b"somebody's")
            return 501, [], b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>"
        return forward(handler, body)

    proxy.forward = refuse
    if meanwhile:
        with pytest.raises(TargetError, match="exists"):
            upload(made, url, proxy.endpoint)
        assert content(server, url) == b"somebody's"
    else:
        upload(made, url, proxy.endpoint)
        assert content(server, url) == made.read_bytes()


def test_of_two_writes_to_one_place_the_first_gives_way_and_no_parts_get_mixed(server, proxy, made, tmp_path, url):
    nwbflow.write(session(a=DATA + 1), tmp_path / "b.nwb", progress=False)
    entered, forward = [], proxy.forward

    def meanwhile(handler, body):
        if "partNumber=4" in handler.path and not entered:
            entered.append(True)
            upload(tmp_path / "b.nwb", url, server)
        return forward(handler, body)

    proxy.forward = meanwhile
    with pytest.raises(TargetError, match="taken by another write") as caught:
        upload(made, url, proxy.endpoint)
    assert caught.value.kind is ErrorKind.LOCKED
    assert content(server, url) == (tmp_path / "b.nwb").read_bytes()


def test_a_part_that_another_sends_late_is_put_right(server, proxy, made, url):
    forward = proxy.forward
    spoilt = []

    def spoil(handler, body):
        if handler.command == "POST" and COMPLETING.search(handler.path) and not spoilt:
            upload_id = re.search(r"uploadId=([^&]+)", handler.path)[1]
            spoilt.append(upload_id)
            name = url.removeprefix("s3://lab/")
            client(server).upload_part(Bucket="lab", Key=name, UploadId=upload_id, PartNumber=2, Body=b"late")
        return forward(handler, body)

    proxy.forward = spoil
    upload(made, url, proxy.endpoint)
    assert spoilt
    assert content(server, url) == made.read_bytes()


def test_a_file_that_changes_meanwhile_is_not_put_in_place(server, proxy, made, tmp_path, url):
    copy = tmp_path / "copy.nwb"
    copy.write_bytes(made.read_bytes())

    def change(method, path):
        if "partNumber=2" in path:
            with copy.open("r+b") as file:
                file.seek(100)
                file.write(b"\0")

    proxy.decide = change
    with pytest.raises(nwbflow.SourceError, match="changed while it was sent") as caught:
        upload(copy, url, proxy.endpoint)
    assert caught.value.kind is ErrorKind.CHANGED
    assert content(server, url) is None


def test_a_note_that_is_something_else_is_left(server, made, url):
    name = url.removeprefix("s3://lab/")
    client(server).put_object(Bucket="lab", Key=f"{name}.partial", Body=b"notes of mine")
    with pytest.raises(TargetError, match="is something else"):
        upload(made, url, server, overwrite=True)
    assert content(server, f"{url}.partial") == b"notes of mine"


def test_writers_killed_between_requests_leave_no_part_of_a_file():
    done = subprocess.run(
        [sys.executable, str(HERE / "s3_file_killer.py"), "4", "3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 4
    assert sum(one["killed"] for one in found) >= 3
    for one in found:
        assert one["read"] in ("whole", "old" if one["which"] == "replacing" else "absent"), found
        assert one["after"] == "whole", found
        assert not one["sent_again"], found
        assert not one["left"], found
