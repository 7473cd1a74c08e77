"""Sessions that are fed, and clients that say what they like."""

import socket
from datetime import UTC, datetime

import numpy as np
import pynwb

import nwbflow
from nwbflow.tools.feeds import Limits, wire


def session():
    """Return a session with a probe of eight channels, and licks with time stamps."""
    nwbfile = pynwb.NWBFile("fed", "fed", datetime(2026, 1, 1, tzinfo=UTC))
    probe = nwbflow.live((None, 8), "int16")
    nwbfile.add_acquisition(pynwb.TimeSeries(name="probe", data=probe, unit="V", rate=30_000.0))
    licks = {"data": nwbflow.live((None,), "float64"), "timestamps": nwbflow.live((None,), "float64")}
    nwbfile.add_acquisition(pynwb.TimeSeries(name="licks", unit="N", **licks))
    return nwbfile


QUICK = Limits(clients=16, frame_bytes=64 * 1024, hello_seconds=0.3, message_seconds=0.3)


class Raw:
    """A client that sends what it likes, and reads whole messages."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=20)
        self.received = b""

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))
        return self

    def read(self, *, skip=(wire.ACKNOWLEDGED,)):
        """Return the next message that is none of those to skip; ``None`` at the end."""
        while True:
            head = self._exactly(8)
            if head is None:
                return None
            kind, length = wire.HEAD.unpack(head)
            body = self._exactly(length)
            if kind not in skip:
                return kind, body

    def _exactly(self, count):
        while len(self.received) < count:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.received += data
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def hello(**changes):
    said = {"version": 1, "stream": "probe", "dtype": "int16", "shape": (8,), "timestamps": False, **changes}
    return wire.Hello(**said).pack()


def rows(first, data):
    return wire.Rows(first=first, data=np.asarray(data), timestamps=None).pack()
