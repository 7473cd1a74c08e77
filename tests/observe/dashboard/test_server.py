"""The page's server: what it serves, whom it doesn't wait for, and how it ends."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace

import h5py
import httpx
import numpy as np
import pytest
import runs
from dash import many, messages, observed
from prometheus_client.parser import text_string_to_metric_families
from support import session

import nwbflow
from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.observe import Dashboard
from nwbflow.observe.dashboard import app, server

pytestmark = pytest.mark.requirement("M4")


def test_the_page_and_its_parts_are_there(get):
    start = get("/")
    assert start.headers["content-type"] == "text/html; charset=utf-8"
    for name in (
        "style.css",
        "theme.js",
        "page.js",
        "parts.js",
        "format.js",
        "streams.js",
        "datasets.js",
        "readings.js",
    ):
        answer = get(f"/{name}")
        assert answer.status_code == 200
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")  # nothing from elsewhere
        assert len(answer.text.splitlines()) < 400
    assert get("/icon.svg").headers["content-type"] == "image/svg+xml"
    assert get("/nothing").status_code == 404


def test_the_state_after_a_real_write_is_that_of_its_receipt(page, get, tmp_path):
    data = np.arange(400_000, dtype="int16").reshape(-1, 8)
    receipt = nwbflow.write(session(probe=data), tmp_path / "a.nwb", progress=page)
    state = get("/state.json").json()
    assert state["run"]["state"] == "finished"
    assert state["receipt"]["path"] == str(receipt.path)
    assert state["receipt"]["file_bytes"] == receipt.path.stat().st_size
    for name in ("raw_bytes", "stored_bytes", "ratio", "seconds", "verified"):
        assert state["receipt"][name] == getattr(receipt, name)
    assert [(d["name"], d["stored"]) for d in state["datasets"]] == [(d.name, d.stored_bytes) for d in receipt.datasets]


def test_metrics_are_there_for_a_real_parser(page, get, tmp_path):
    receipt = nwbflow.write(session(probe=np.zeros((70_000, 2), "int16")), tmp_path / "a.nwb", progress=page)
    answer = get("/metrics")
    assert answer.status_code == 200
    assert "text/plain" in answer.headers["content-type"]
    samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples]
    assert {s.labels["file"] for s in samples if "file" in s.labels} == {str(receipt.path)}
    assert receipt.stored_bytes in [s.value for s in samples]


def test_events_begin_with_all_there_is_and_end_with_a_farewell(page, tmp_path):
    page(runs.started(("/a",), 3))
    found = []
    ending = threading.Thread(target=page.stop)
    with httpx.stream("GET", f"{page.url}events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        for number, (event, data) in enumerate(messages(lines)):
            found.append((event, data))
            if number == 0:
                page(runs.chunk("/a", 0))
            if number == 1:
                ending.start()
    ending.join()
    (_, first), (_, second), *_, (_, last), (bye, _) = found
    assert "history" in first
    assert "history" not in second
    assert (first["run"]["raw_done"], second["run"]["raw_done"]) == (0, runs.CHUNK)
    assert last["run"]["raw_done"] == runs.CHUNK
    assert bye == "bye"


def test_a_quiet_stream_says_that_it_is_still_there(page, monkeypatch):
    monkeypatch.setattr(app, "HEARTBEAT", 0.02)
    with httpx.stream("GET", f"{page.url}events") as answer:
        events = messages(answer.iter_lines())
        next(events)
        assert next(events) == ("", "still here")


class Client(threading.Thread):
    """Follows the events until they end, and remembers the last state."""

    def __init__(self, page):
        super().__init__()
        self.last, self.ended, self.page = None, False, page
        self.begun = threading.Event()
        self.start()

    def run(self):
        with httpx.stream("GET", f"{self.page.url}events", timeout=60) as answer:
            for event, data in messages(answer.iter_lines()):
                self.begun.set()
                self.ended = event == "bye"
                self.last = data if event == "state" else self.last


def connections(page):
    return list(page._server._uvicorn.server_state.connections)


def unread(page):
    """Bytes that wait in this process for the client that keeps one waiting most."""
    return max((c.transport.get_write_buffer_size() for c in connections(page)), default=0)


def test_fifty_clients_of_which_one_never_reads(page, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_TICK", 0.002)
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        deaf.connect(("127.0.0.1", page.port))
        deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        clients = [Client(page) for _ in range(49)]
        for client in clients:
            assert client.begun.wait(60)
        # more than the system takes for a client that doesn't read
        streams, number = many(400), 0
        while unread(page) < 1 << 16:
            number += 1
            page(observed(*(replace(s, appended=number) for s in streams)))
            clients[0].join(0.002)
        most = unread(page)
        data = np.arange(2_000_000, dtype="int16").reshape(-1, 8)
        receipt = nwbflow.write(session(probe=data), tmp_path / "a.nwb", progress=page)
        assert unread(page) == most < 1 << 20  # one message is held for it, whatever comes
        page.stop()
        for client in clients:
            client.join()
    assert receipt.notes == ()
    with h5py.File(tmp_path / "a.nwb") as file:
        assert np.array_equal(file["acquisition/probe/data"], data)
    for client in clients:
        assert client.ended
        assert client.last["receipt"]["stored_bytes"] == receipt.stored_bytes


def test_a_client_that_never_reads_is_let_go(page, monkeypatch):
    monkeypatch.setattr(server, "_TICK", 0.002)
    monkeypatch.setattr(app, "PATIENCE", 0.2)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        deaf.connect(("127.0.0.1", page.port))
        deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        number, waiter = 0, threading.Event()
        while not connections(page):
            waiter.wait(0.002)
        while connections(page):
            number += 1
            page(observed(*(replace(s, appended=number) for s in many(100))))
            waiter.wait(0.002)
        deaf.settimeout(20)
        rest = b"".join(iter(lambda: deaf.recv(1 << 16), b""))
    assert not rest.endswith(b"0\r\n\r\n")  # cut off, not brought to an end


def test_a_taken_port_is_refused_before_anything_is_written(page, capsys):
    with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{page.port}.*0 for any free one") as caught:
        Dashboard(page.port)
    assert caught.value.kind is ErrorKind.ADDRESS


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", ""])
def test_an_address_of_another_machine_is_refused(host):
    with pytest.raises(SettingsError) as caught:
        Dashboard(0, host=host or "a" * 300)
    assert caught.value.kind is ErrorKind.ADDRESS


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_there_cannot_be_is_refused(port):
    with pytest.raises(SettingsError, match="65535"):
        Dashboard(port)


def test_the_address_is_printed_and_the_port_free_afterwards(no_thread_left, capsys):
    with Dashboard(0) as page:
        assert capsys.readouterr().err == f"dashboard: http://127.0.0.1:{page.port}/\n"
        assert str(page.port) in repr(page)
    with Dashboard(page.port) as again:
        assert again.port == page.port
    again.stop()
    again(runs.started(("/a",), 1))  # nobody looks; nobody minds


def test_a_dashboard_that_was_only_passed_on_ends_with_the_write(tmp_path, capsys):
    before = set(threading.enumerate())
    nwbflow.write(session(probe=np.zeros((70_000, 2), "int16")), tmp_path / "a.nwb", progress=Dashboard(0))
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()


def test_one_dashboard_shows_one_run_after_the_other(page, get, tmp_path):
    for number, name in enumerate(("a.nwb", "b.nwb"), start=1):
        nwbflow.write(session(probe=np.zeros((70_000, 2), "int16")), tmp_path / name, progress=page)
        run = get("/state.json").json()["run"]
        assert (run["number"], run["file"], run["state"]) == (number, name, "finished")


def test_a_recorder_is_shown_while_it_records(page, get, tmp_path):
    nwbfile = session(probe=nwbflow.live(shape=(None, 4), dtype="int16"))
    with nwbflow.Recorder(nwbfile, tmp_path / "a.nwb", progress=page) as recorder:
        recorder["probe"].append(np.ones((1000, 4), "int16")).wait()
        with httpx.stream("GET", f"{page.url}events", timeout=60) as answer:
            states = (data for event, data in messages(answer.iter_lines()) if event == "state")
            seen = next(s for s in states if s["streams"] and s["streams"][0]["acknowledged"])
    (stream,) = seen["streams"]
    assert (seen["run"]["kind"], seen["run"]["state"], seen["run"]["file"]) == ("recording", "recording", "a.nwb")
    assert (stream["name"], stream["acknowledged"], stream["declared_rate"]) == ("/acquisition/probe", 1000, 1000.0)
    state = get("/state.json").json()
    assert state["run"]["state"] == "finished"
    assert state["receipt"]["raw_bytes"] == 8000 == recorder.receipt.raw_bytes


PROGRAM = """
import sys
from nwbflow.observe import Dashboard
{block}
page = Dashboard(0)
sys.stdin.readline()
"""


def start(block=""):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(block=block)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_program_that_ends_says_farewell_and_leaves_no_warning():
    with start() as process:
        url = process.stderr.readline().split()[1]
        with httpx.stream("GET", f"{url}events", timeout=60) as answer:
            events = messages(answer.iter_lines())
            next(events)
            process.stdin.close()
            assert [event for event, _ in events][-1] == "bye"
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_the_extra_that_is_missing_is_named():
    with start("import sys; sys.modules['starlette'] = None; sys.modules['starlette.applications'] = None") as process:
        process.stdin.close()
        text = process.stderr.read()
    assert "the dashboard needs starlette" in text
    assert 'pip install "nwbflow[monitor]"' in text


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_keep_the_port(no_thread_left):
    reading, writing = os.pipe()
    page = Dashboard(0)
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    page.stop()
    with Dashboard(page.port) as again:
        assert httpx.get(f"{again.url}state.json").status_code == 200
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
