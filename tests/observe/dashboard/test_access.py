"""Who may look at the page."""

import logging
import socket
import threading

import httpx
import pytest

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.observe import Dashboard
from nwbflow.observe.dashboard import parse_address, server
from nwbflow.observe.dashboard.access import Access

pytestmark = pytest.mark.requirement("M4")


@pytest.fixture(scope="module")
def page():
    """One page for all the questions."""
    with Dashboard(0) as dashboard:
        yield dashboard


TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def guarded(guarded_page):
    """The port of a page that asks for a token."""
    with guarded_page(TOKEN) as (_, port):
        yield port


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8765", ("127.0.0.1", 8765)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:8765", ("0.0.0.0", 8765)),
        ("rig.example.org:80", ("rig.example.org", 80)),
        ("[::1]:8765", ("::1", 8765)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "page", "localhost", ":8765", "::1:8765", "1:2:3", "8765:", "65536", "-1", "٣"])
def test_what_is_no_address_is_refused_with_the_way_out(text):
    with pytest.raises(SettingsError, match=r"8765|65535") as caught:
        parse_address(text)
    assert caught.value.kind is ErrorKind.ADDRESS


@pytest.mark.parametrize("bound", ["127.0.0.1", "127.0.0.2", "::1"])
def test_on_loopback_no_token_is_needed(bound):
    assert Access.to(bound).token is None


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "192.0.2.7", "2001:db8::7"])
def test_anywhere_else_every_page_has_a_token_of_its_own(bound):
    first, second = Access.to(bound).token, Access.to(bound).token
    assert min(len(first), len(second)) >= 32
    assert first != second


@pytest.mark.parametrize("path", ["/", "/events", "/state.json", "/style.css", "/nothing"])
@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=wrong", f"?token={TOKEN[:-1]}", f"?Token={TOKEN}", "?token=%ff"]
)
def test_without_the_token_there_is_nothing_to_see(guarded, path, query):
    answer = httpx.get(f"http://127.0.0.1:{guarded}{path}{query}", cookies={f"nwbflow-{guarded}": "wrong"})
    assert answer.status_code == 403
    assert "printed" in answer.text
    assert TOKEN not in answer.text


def test_the_token_becomes_a_cookie_and_leaves_the_address(guarded):
    with httpx.Client(base_url=f"http://127.0.0.1:{guarded}") as client:
        answer = client.get("/", params={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert client.get("/").status_code == 200
        assert client.get("/state.json").json()["run"]["state"] == "waiting"
        with client.stream("GET", "/events") as stream:
            assert stream.status_code == 200


def test_programs_give_the_token_with_each_request(guarded):
    assert httpx.get(f"http://127.0.0.1:{guarded}/state.json", params={"token": TOKEN}).status_code == 200


def test_the_token_is_in_no_log(guarded, caplog):
    with caplog.at_level(logging.DEBUG):
        httpx.get(f"http://127.0.0.1:{guarded}/?token={TOKEN}")
        with socket.create_connection(("127.0.0.1", guarded)) as sock:
            sock.sendall(f"GET /?token={TOKEN} HTTP/1.1\r\nbroken\r\n\r\n".encode())
            assert b"400" in sock.recv(1000)
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert ours
    assert TOKEN not in "".join(record.getMessage() for record in ours)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "192.0.2.1"]
)
def test_names_that_are_not_this_machines_are_refused_on_loopback(get, host):
    answer = get("/state.json", headers={"host": host})
    assert answer.status_code == 421
    assert "localhost" in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9999", "127.0.0.1:80", "[::1]:8765", "127.0.0.1"])
def test_this_machines_own_names_are_answered_whatever_the_port(get, host):
    assert get("/state.json", headers={"host": host}).status_code == 200  # a tunnel ends at a port of its own


def test_a_request_without_a_host_is_refused(page):
    with socket.create_connection(("127.0.0.1", page.port)) as sock:
        sock.sendall(b"GET /state.json HTTP/1.0\r\n\r\n")
        assert sock.makefile("rb").readline().startswith(b"HTTP/1.1 421")


def test_every_answer_forbids_what_the_page_does_not_need(get):
    for path in ("/", "/state.json", "/page.js", "/nothing"):
        headers = get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%2e%2e/app.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
        b"DELETE /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
    ids=range(10),
)
def test_malformed_requests_get_an_error_and_the_page_goes_on(page, get, request_bytes, capfd):
    with socket.create_connection(("127.0.0.1", page.port)) as sock:
        sock.settimeout(20)
        try:
            sock.sendall(request_bytes)
            status = sock.makefile("rb").readline()
        except ConnectionError:
            status = b""
    expected = (b"", b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 421")
    upgrade = b"Upgrade" in request_bytes  # ignored, as HTTP allows
    assert status.startswith(b"HTTP/1.1 200") if upgrade else status.startswith(expected)
    assert get("/state.json").status_code == 200
    assert capfd.readouterr().err == ""


def test_a_client_that_says_nothing_is_let_go(page, monkeypatch):
    monkeypatch.setattr(server, "_GREETING", 0.05)
    with socket.create_connection(("127.0.0.1", page.port)) as sock:
        sock.settimeout(20)
        assert lost(sock)


def test_more_connections_than_descriptors_can_be_spared_for_are_closed(page, get, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    held = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(6)]
    closed = []
    threads = [threading.Thread(target=lambda s=s: closed.append(s) if lost(s) else None) for s in held]
    for sock in held:
        sock.settimeout(20)
    for thread in threads:
        thread.start()
    while len(closed) < 3:
        threads[0].join(0.01)
    for sock in set(held) - set(closed):
        sock.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for sock in held:
        sock.close()


def lost(sock):
    """Wait for the other side to end a connection."""
    try:
        return sock.recv(1) == b""
    except OSError:
        return True
