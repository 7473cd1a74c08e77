"""Clients over sockets: what was acknowledged is in the file, exactly, whatever other clients do."""

import contextlib
import hashlib
import socket
import threading

import numpy as np
import pytest
from feeders import QUICK, Raw, hello, rows, session

import nwbflow
from nwbflow.errors import ErrorKind, SettingsError, TargetError
from nwbflow.tools.feeds import Client, FeedError, FeedServer, listen, wire

pytestmark = pytest.mark.requirement("S7")
PROBE = "/acquisition/probe/data"


def digest(array):
    return [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(), list(array.shape), array.dtype.str]


def probe_client(server, **options):
    return Client(server.addresses[0], "probe", dtype="int16", shape=(8,), **options)


def failure(client):
    kind, body = client.read()
    assert kind == wire.FAILED
    return body.decode()


def test_rows_of_two_clients_over_tcp_and_unix_are_in_the_file(tmp_path, recorder, probe_rows, stored):
    times = np.arange(900) / 7
    address = tmp_path / "feeds"
    with FeedServer(recorder, ["probe", "licks"], listen(tcp=("127.0.0.1", 0), unix=address), limits=QUICK) as server:
        assert server.addresses[1] == str(address)
        with (
            probe_client(server) as probe,
            Client(address, "licks", dtype="float64", timestamps=True) as licks,
        ):
            assert [probe.send(probe_rows[:50]), probe.send(probe_rows[50:])] == [0, 50]
            for start in range(0, 900, 30):
                licks.send(np.sqrt(times[start : start + 30]), times[start : start + 30])
            assert probe.wait(30)
            assert (probe.rows, probe.acknowledged, recorder.acknowledged("probe")) == (60_000,) * 3
        assert server.wait_until_done(30)
        assert licks.acknowledged == 900
    assert not address.exists()
    assert recorder.close().notes == ()
    names = (PROBE, "/acquisition/licks/data", "/acquisition/licks/timestamps")
    assert stored(tmp_path / "fed.nwb", *names) == dict(
        zip(names, map(digest, (probe_rows, np.sqrt(times), times)), strict=True)
    )


class Cutter:
    """Between a client and a server; cuts every connection after some bytes, without a word."""

    def __init__(self, address, sizes):
        self.address, self.sizes, self.cuts = address, iter(sizes), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            with near, socket.create_connection(self.address) as far:
                back = threading.Thread(target=self.copy, args=(far, near, None), daemon=True)
                back.start()
                self.copy(near, far, next(self.sizes, None))
                self.cuts += 1
                for end in (near, far):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                back.join()

    def copy(self, source, sink, limit):
        try:
            while limit is None or limit > 0:
                data = source.recv(65536 if limit is None else min(limit, 65536))
                if not data:
                    return
                sink.sendall(data)
                limit = None if limit is None else limit - len(data)
        except OSError:
            return


def test_a_client_whose_connection_is_cut_again_and_again_loses_and_repeats_nothing(
    tmp_path, recorder, server, probe_rows, stored, monkeypatch
):
    monkeypatch.setattr("nwbflow.tools.feeds.client.RETRY_SECONDS", 0.001)
    sizes = [5, 60, *np.random.default_rng(1).integers(100, 120_000, 12).tolist()]
    cutter = Cutter(server.addresses[0], sizes)
    with Client(cutter.listener.getsockname(), "probe", dtype="int16", shape=(8,)) as client:
        for start in range(0, 60_000, 700):
            assert client.send(probe_rows[start : start + 700]) == start
    assert client.acknowledged == 60_000
    cutter.listener.close()
    assert cutter.cuts > 5
    server.close()
    assert any("middle of a message" in note or "without saying DONE" in note for note in recorder.close().notes)
    assert stored(tmp_path / "fed.nwb", PROBE) == {PROBE: digest(probe_rows)}


HOSTILE = {
    "a web browser": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "zeros": bytes(5000),
    "rows first": rows(0, np.zeros((2, 8), "i2")),
    "a hello of 4 GB": b"HELO\xff\xff\xff\xff",
    "a hello that is no JSON": wire.pack(b"HELO", b"hello!"),
    "another version": wire.pack(b"HELO", b'{"version":7}'),
    "another stream": hello(stream="\ud800prob"),
    "another type": hello(dtype="float32"),
    "another shape": hello(shape=(7,)),
    "time stamps where there are none": hello(timestamps=True),
    "rows of 4 GB": hello() + b"ROWS\xff\xff\xff\xff",
    "rows longer than allowed": hello() + b"ROWS" + (QUICK.frame_bytes + 1).to_bytes(4, "little"),
    "more rows than bytes": hello() + wire.pack(b"ROWS", (0).to_bytes(8, "little") + (2**60).to_bytes(8, "little")),
    "rows to come later": hello() + rows(7, np.zeros((2, 8), "i2")),
    "two hellos": hello() + hello(),
    "an answer": hello() + wire.pack_count(b"ACKN", 5),
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
def test_who_breaks_the_format_is_told_why_and_the_recording_goes_on(sent, raw, server, recorder, probe_rows, tmp_path):
    client = raw().send(sent)
    kind, body = client.read(skip=(wire.WELCOME, wire.ACKNOWLEDGED))
    assert kind == wire.FAILED
    assert client.read() is None
    with probe_client(server) as good:
        good.send(probe_rows[:100])
    server.close()
    (note,) = recorder.close().notes
    assert "was dropped: " + body.decode() in note


def test_a_client_that_stalls_is_dropped_and_one_that_is_idle_is_not(raw, server, probe_rows):
    idle = raw().send(hello(stream="licks", dtype="float64", shape=(), timestamps=True))
    assert idle.read()[0] == wire.WELCOME
    for begun in (b"", b"HEL", hello()[:-1]):
        assert "no whole message came within 0.3 seconds" in failure(raw().send(begun))
    stalled = raw().send(hello(), rows(0, probe_rows[:100])[:-1])
    assert stalled.read()[0] == wire.WELCOME
    assert "no whole message came within 0.3 seconds" in failure(stalled)
    idle.send(wire.pack(wire.DONE))
    assert idle.read() == (wire.DONE, (0).to_bytes(8, "little"))


def test_rows_that_come_twice_are_taken_once(raw, server, recorder, probe_rows, tmp_path, stored):
    client = raw().send(hello(client="me"), rows(0, probe_rows[:100]), rows(0, probe_rows[:100]))
    client.send(rows(40, probe_rows[40:130]), rows(130, probe_rows[:0]), wire.pack(wire.DONE))
    assert client.read()[0] == wire.WELCOME
    assert client.read() == (wire.DONE, (130).to_bytes(8, "little"))
    server.close()
    recorder.close()
    assert stored(tmp_path / "fed.nwb", PROBE) == {PROBE: digest(probe_rows[:130])}


def test_a_stream_has_one_client_and_a_client_that_comes_back_takes_its_place(raw, probe_rows):
    old = raw().send(hello(client="me"), rows(0, probe_rows[:10]))
    assert old.read()[0] == wire.WELCOME
    while old.read(skip=())[1] != (10).to_bytes(8, "little"):
        pass
    kind, text = raw().send(hello(client="somebody else")).read()
    assert kind == wire.BUSY
    assert b"is fed by 127.0.0.1" in text
    new = raw().send(hello(client="me"))
    kind, body = new.read()
    assert (kind, wire.Welcome.unpack(body).rows) == (wire.WELCOME, 10)
    assert old.read() is None


def test_hundreds_of_random_clients_hold_up_nobody(server, recorder, probe_rows, tmp_path, stored):
    random = np.random.default_rng(8)
    crowd = []
    with probe_client(server) as good:
        for number in range(200):
            with contextlib.suppress(OSError):  # dropped while it was sending
                crowd.append(client := Raw(server.addresses[0]))
                begin = (b"", hello(stream="licks", dtype="float64", shape=(), timestamps=True), b"ROWS")[number % 3]
                client.send(begin + random.bytes(int(random.integers(0, 3000))))
            good.send(probe_rows[number * 300 : number * 300 + 300])
    for client in crowd:
        client.close()
    server.close()
    notes = recorder.close().notes
    assert len(notes) < 250
    assert stored(tmp_path / "fed.nwb", PROBE) == {PROBE: digest(probe_rows)}


def test_too_many_clients_are_sent_away_until_others_go(raw, server, recorder):
    crowd = [raw() for _ in range(QUICK.clients)]
    assert failure(crowd[0]).startswith("no whole message")  # all have come in, and some go
    with probe_client(server) as client:
        client.send(np.zeros((5, 8), "i2"))
        assert client.wait(30)


def test_a_client_learns_that_the_recording_has_ended_and_how_much_is_safe(server, recorder, probe_rows):
    client = probe_client(server)
    client.send(probe_rows[:500])
    client.wait(30)
    server.close()

    def send_on():
        while True:
            client.send(probe_rows[:1], timeout=30)

    with pytest.raises(FeedError, match="the recording has ended; 500 rows of the stream are safe"):
        send_on()
    assert client.acknowledged == 500
    with contextlib.suppress(FeedError):  # where a row was taken before that was known
        client.close()


def test_a_client_goes_on_in_a_new_recording_with_what_was_not_acknowledged(tmp_path, probe_rows, stored, monkeypatch):
    monkeypatch.setattr("nwbflow.tools.feeds.client.RETRY_SECONDS", 0.001)
    address = tmp_path / "feeds"

    class Deaf:
        """Greets as a recording would, takes rows, and acknowledges 60 of them."""

        def __enter__(self):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(str(address))
            self.socket.listen()
            threading.Thread(target=self.run, daemon=True).start()
            return self

        def run(self):
            client, _ = self.socket.accept()
            welcome = wire.Welcome(rows=0, frame_bytes=16 + 16 * 50, recording=b"a" * 16, start=0.0)
            with client:
                client.sendall(welcome.pack())
                got = 0
                while got < 60 * 16 + 200:
                    got += len(client.recv(2000))
                client.sendall(wire.pack_count(wire.ACKNOWLEDGED, 60))

        def __exit__(self, *_):
            self.socket.close()
            address.unlink()

    with Deaf():
        client = Client(address, "probe", dtype="int16", shape=(8,))
        client.send(probe_rows[:100])
        with client._state:
            assert client._state.wait_for(lambda: client.acknowledged == 60, 30)
    with (
        nwbflow.Recorder(session(), tmp_path / "new.nwb") as recorder,
        FeedServer(recorder, ["probe"], listen(unix=address)) as server,
    ):
        client.close(30)
        assert server.wait_until_done(30)
    assert stored(tmp_path / "new.nwb", PROBE) == {PROBE: digest(probe_rows[60:100])}


def test_beyond_this_machine_clients_need_the_token(recorder, tmp_path):
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0 can be reached from other machines: give a token"):
        FeedServer(recorder, ["probe"], listen(tcp=("0.0.0.0", 0)))
    with FeedServer(recorder, ["probe"], listen(tcp=("0.0.0.0", 0), token="sésame")) as server:
        port = server.addresses[0][1]
        for wrong in ("", "sesame"):
            with pytest.raises(FeedError, match="the token is missing or wrong"):
                Client(("127.0.0.1", port), "probe", dtype="int16", shape=(8,), token=wrong)
        with Client(("127.0.0.1", port), "probe", dtype="int16", shape=(8,), token="sésame") as client:
            client.send(np.ones((3, 8), "i2"))
    assert client.acknowledged == 3


def test_addresses_that_cannot_be_listened_on_say_why(recorder, tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(TargetError, match="give another port") as caught,
    ):
        FeedServer(recorder, ["probe"], listen(tcp=taken.getsockname()))
    assert caught.value.kind is ErrorKind.LOCKED
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(TargetError, match="is there already, and no socket"):
        FeedServer(recorder, ["probe"], listen(unix=file))
    assert file.read_text() == "precious"
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(left))  # and never listened: as after a kill, nobody answers
    with FeedServer(recorder, ["probe"], listen(unix=left)):
        assert left.stat().st_mode & 0o077 == 0
        with pytest.raises(TargetError, match="somebody listens there already"):
            FeedServer(recorder, ["probe"], listen(unix=left))
    with pytest.raises(SettingsError, match="nowhere to listen"):
        FeedServer(recorder, ["probe"], listen())


@pytest.mark.parametrize(
    ("data", "times", "text"),
    [
        (np.zeros((2, 8)), None, "a block of float64; this stream is int16"),
        (np.zeros((2, 7), "i2"), None, r"a block of shape \(2, 7\); expected \(k, 8\)"),
        (np.zeros((2, 8), "i2"), [0, 1], "has no time stamps"),
    ],
)
def test_a_client_refuses_blocks_that_are_not_what_it_said(server, data, times, text):
    with probe_client(server) as client, pytest.raises(ValueError, match=text):
        client.send(data, times)


def test_nobody_there_is_an_error_in_time():
    with pytest.raises(FeedError, match=r"no recording has answered within 0\.2 s: .*refused"):
        Client(("127.0.0.1", 1), "probe", dtype="int16", timeout=0.2)


def test_something_else_that_answers_is_no_recording():
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer():
            client, _ = other.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                client.recv(1000)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(FeedError, match="no recording"):
            Client(other.getsockname(), "probe", dtype="int16")
