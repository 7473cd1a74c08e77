"""Streams and observers for the tests of a running engine."""

import numpy as np

import nwbflow

PATIENCE = 60.0
"""Seconds after which a test that hangs gives up."""

DATA = np.random.default_rng(3).integers(-99, 99, (4000, 8)).astype("i2")


def pieces(rows=500, data=DATA):
    return [data[at : at + rows] for at in range(0, len(data), rows)]


def stream(iterable, codec="gzip", chunks=(500, 8)):
    return nwbflow.DataIO(nwbflow.blocks(iterable, shape=(None, 8), dtype="i2"), chunks=chunks, codec=codec)


class Recorder:
    """Keeps every event; calls ``on`` with each."""

    def __init__(self, on=lambda event: None):
        self.events = []
        self.on = on

    def __call__(self, event):
        self.events.append(event)
        self.on(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]
