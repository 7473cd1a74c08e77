"""Writes to S3 whose last answers get lost, who meet another write, or whose objects somebody else touches."""

import re
import threading

import numpy as np
import pytest
from s3_proxy import every, s3_proxy
from s3_server import options, s3_server, store_content
from support import Pieces, session

import nwbflow
from nwbflow.errors import ErrorKind, StorageError, TargetError, VerifyError

pytestmark = [
    pytest.mark.requirement("P4"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part"),
]

DATA = np.random.default_rng(5).integers(0, 2**12, (20000, 16), dtype="i2")
PROFILE = nwbflow.Profile(name="p", codec=("gzip", 1), chunk_bytes=16384, min_bytes=0)
NAMES = iter(f"s{number}.nwb.zarr" for number in range(99))


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def proxy(server):
    with s3_proxy(server) as proxy:
        yield proxy


@pytest.fixture
def name():
    return next(NAMES)


def write(endpoint, name, data=DATA, **more):
    given = {"profile": PROFILE, "memory": 500_000, "progress": False, "storage_options": options(endpoint)}
    return nwbflow.write(session(a=data), f"s3://lab/{name}", **{**given, **more})


def place(server, name):
    from nwbflow.sinks.remote import Place

    return Place(f"s3://lab/{name}", options(server))


def root(name):
    return f"/{name}/zarr.json"


def refused(name):
    return every(99, ("answer", 403, "AccessDenied"), "PUT", root(name))


def test_a_last_answer_that_gets_lost_is_looked_for(server, proxy, name):
    proxy.decide = every(99, ("lost",), "PUT", root(name))
    write(proxy.endpoint, name)
    assert np.array_equal(store_content(server, name), DATA)
    assert place(server, name).get(f"{name}.partial") is None


def test_where_it_can_not_be_looked_for_that_is_said(server, proxy, name):
    gone = threading.Event()

    def decide(method, path):
        if method == "PUT" and path.endswith(root(name)):
            gone.set()
            return ("lost",)
        return ("reset",) if gone.is_set() else None

    proxy.decide = decide
    with pytest.raises(StorageError) as caught:
        write(proxy.endpoint, name)
    assert "is there whole, or not at all" in " ".join(caught.value.__notes__)
    assert np.array_equal(store_content(server, name), DATA)
    receipt = write(server, name, overwrite=True)
    assert "were there already" in " ".join(receipt.notes)


def test_without_the_right_to_delete_a_new_store_is_written_and_its_note_named(server, proxy, name):
    proxy.decide = lambda method, path: ("answer", 403, "AccessDenied") if method in ("POST", "DELETE") else None
    receipt = write(proxy.endpoint, name)
    assert f"{name}.partial, a note that is not needed any more, could not be deleted" in " ".join(receipt.notes)
    assert np.array_equal(store_content(server, name), DATA)
    with pytest.raises(TargetError, match="may not do that"):
        write(proxy.endpoint, name, DATA[:99], overwrite=True)
    assert np.array_equal(store_content(server, name), DATA)


def test_a_refusal_to_delete_single_objects_is_noticed(server, proxy, name):
    write(server, name)
    forward = proxy.forward

    def refuse(handler, body):
        if handler.command != "POST":
            return forward(handler, body)
        keys = re.findall(rb"<Key>(.*?)</Key>", body)
        errors = b"".join(b"<Error><Key>%s</Key><Code>AccessDenied</Code></Error>" % key for key in keys)
        return 200, [], b"<DeleteResult>" + errors + b"</DeleteResult>"

    proxy.forward = refuse
    with pytest.raises(TargetError):
        write(proxy.endpoint, name, DATA[:99], overwrite=True)
    assert np.array_equal(store_content(server, name), DATA)


@pytest.mark.parametrize("verify", ["no", "stored"])
def test_what_is_sent_twice_is_not_taken_for_what_was_there(server, proxy, name, verify):
    proxy.decide = refused(name)
    with pytest.raises(StorageError):
        write(proxy.endpoint, name)  # all shards are there now, as they will be
    whole = slice(0, len(DATA))
    again = Pieces([(whole, DATA + 1), (whole, DATA)], (None, 16), "i2")
    write(server, name, again, verify=verify)
    assert np.array_equal(store_content(server, name), DATA)


@pytest.mark.parametrize("gone", [True, False])
def test_objects_that_somebody_else_touches_are_noticed_before_it_is_a_store(server, proxy, name, gone):
    store = place(server, name)

    def touched():
        yield DATA[:15000]
        shard = min(key for key in store.objects() if "/a/data/c/" in key)
        store.delete([store.key(shard)]) if gone else store.put(store.key(shard), b"mine")
        yield DATA[15000:]

    blocks = nwbflow.blocks(touched(), shape=(None, 16), dtype="i2")
    with pytest.raises(VerifyError, match=r"is gone|is not what was sent") as caught:
        write(server, name, blocks, verify="no")
    assert caught.value.kind is ErrorKind.MISMATCH
    assert "zarr.json" not in store.objects()
    write(server, name)
    assert np.array_equal(store_content(server, name), DATA)


def test_what_is_no_part_of_a_store_is_not_deleted(server, proxy, name):
    store = place(server, name)
    proxy.decide = refused(name)
    with pytest.raises(StorageError):
        write(proxy.endpoint, name)
    store.put(store.key("thesis.pdf"), b"years of work")
    write(server, name)
    others = {"thesis.pdf": b"years of work", "notes/2024.txt": b"more of it", "notes/2025": b"the rest"}
    older = ["v2/a/.zarray", "v2/a/0.0", "v2/a/10/3"]
    for key, data in (others | dict.fromkeys(older, b"x")).items():
        store.put(store.key(key), data)
    write(server, name, DATA[:500], overwrite=True)
    assert {key: store.get(store.key(key)) for key in others} == others
    assert {store.get(store.key(key)) for key in older} == {None}
    assert np.array_equal(store_content(server, name), DATA[:500])


def test_a_list_that_is_cut_off_is_not_taken_for_an_empty_place(server, proxy, name):
    write(server, name)
    proxy.decide = every(99, ("truncate",), "GET", "list-type=2")
    with pytest.raises(TargetError, match="listing what is there failed"):
        write(proxy.endpoint, name, DATA[:99])
    assert np.array_equal(store_content(server, name), DATA)


def test_servers_that_know_no_conditions(server, proxy, name):
    forward, refused = proxy.forward, []

    def refuse(handler, body):
        if handler.headers.get("If-None-Match"):
            refused.append(handler.path)
            return 501, [], b"<Error><Code>NotImplemented</Code><Message>no such header</Message></Error>"
        return forward(handler, body)

    proxy.forward = refuse
    write(proxy.endpoint, name)
    assert refused
    assert np.array_equal(store_content(server, name), DATA)


def held(proxy, part):
    """Hold the first PUT of a kind before it is forwarded; return events: it came, and it may go on."""
    came, go_on, forward = threading.Event(), threading.Event(), proxy.forward

    def hold(handler, body):
        if handler.command == "PUT" and part in handler.path and not came.is_set():
            came.set()
            assert go_on.wait(60)
        return forward(handler, body)

    proxy.forward = hold
    return came, go_on


def in_thread(function, *arguments):
    """Call in a thread; return what gives the error, or None."""
    found = []

    def call():
        try:
            function(*arguments)
            found.append(None)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()

    def ended():
        thread.join(60)
        return found[0]

    return ended


def test_an_object_that_comes_late_does_not_get_into_anothers_store(server, proxy, name):
    came, go_on = held(proxy, "/a/data/c/2/")
    first = in_thread(write, proxy.endpoint, name)
    assert came.wait(60)
    write(server, name, DATA + 1)
    go_on.set()
    error = first()
    assert isinstance(error, TargetError)
    assert error.kind is ErrorKind.LOCKED
    assert np.array_equal(store_content(server, name), DATA + 1)


def test_a_root_that_comes_late_makes_no_store_of_what_another_has_begun(server, proxy, name):
    came, go_on = held(proxy, root(name))
    first = in_thread(write, proxy.endpoint, name)
    assert came.wait(60)
    seen = []

    def blocks():
        yield DATA[:15000] + 1
        go_on.set()
        seen.append(first())
        seen.append("zarr.json" in place(server, name).objects())
        yield DATA[15000:] + 1

    write(server, name, nwbflow.blocks(blocks(), shape=(None, 16), dtype="i2"))
    assert [type(seen[0]), seen[1]] == [TargetError, False]
    assert seen[0].kind is ErrorKind.LOCKED
    assert np.array_equal(store_content(server, name), DATA + 1)
