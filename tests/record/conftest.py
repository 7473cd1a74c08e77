"""Shared by the tests of recordings."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pynwb import TimeSeries

import nwbflow

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import rig
from reader import Reader
from support import session
from writelog import NoCompilerError, environment, shim
from writer import Writer


@pytest.fixture(scope="session")
def reader():
    """A process that opens files in stock PyNWB."""
    with Reader() as process:
        yield process


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A process that starts rigs whose changes can be logged, and made to fail."""
    try:
        shim()
    except NoCompilerError as error:
        pytest.skip(str(error))
    nowhere = tmp_path_factory.mktemp("nowhere")
    with Writer(environment(nowhere, nowhere.parent / "nothing.log"), rig.__file__) as process:
        yield process


@pytest.fixture
def path(tmp_path):
    """Where to record to: a folder with nothing else in it."""
    folder = tmp_path / "recording"
    folder.mkdir()
    return folder / "session.nwb"


@pytest.fixture
def paired():
    """A session with data and time stamps, and another series with a rate."""
    nwbfile = session()
    data = nwbflow.live((None, 4), "int16", chunks=(100, 2))
    clock = nwbflow.live((None,), chunks=100)
    nwbfile.add_acquisition(TimeSeries(name="probe", data=data, timestamps=clock, unit="V"))
    nwbfile.add_acquisition(TimeSeries(name="lick", data=nwbflow.live((None,), "f4"), unit="V", rate=10.0))
    return nwbfile


@pytest.fixture
def block():
    """Samples and time stamps of so many rows."""

    def make(rows, first=0):
        data = (np.arange(first * 4, (first + rows) * 4) % 30011).astype("i2").reshape(rows, 4)
        return data, np.arange(first, first + rows) / 1000.0

    return make
