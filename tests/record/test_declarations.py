"""What can be declared live beside what, and what lies around a recording."""

import warnings

import h5py
import numpy as np
import pynwb
import pytest
from pynwb import NWBHDF5IO, TimeSeries
from support import session

import nwbflow
from nwbflow.errors import ErrorKind, SettingsError

pytestmark = pytest.mark.usefixtures("no_thread_left")


def stamped(name, timestamps, data=None):
    data = nwbflow.live((None,), "int16") if data is None else data
    return TimeSeries(name=name, data=data, timestamps=timestamps, unit="V")


@pytest.mark.requirement("S1")
@pytest.mark.parametrize("data", [None, np.arange(3)])
def test_time_stamps_of_another_live_series_are_refused(data, path):
    nwbfile = session()
    first = stamped("first", nwbflow.live())
    nwbfile.add_acquisition(first)
    nwbfile.add_acquisition(stamped("second", first, data))
    with pytest.raises(SettingsError, match=r"second.*live") as refused:
        nwbflow.Recorder(nwbfile, path)
    assert refused.value.kind is ErrorKind.LENGTH
    assert list(path.parent.iterdir()) == []


@pytest.mark.requirement("S1")
def test_data_and_time_stamps_of_the_same_live_series_can_be_shared(path):
    nwbfile = session()
    first = stamped("first", nwbflow.live())
    nwbfile.add_acquisition(first)
    nwbfile.add_acquisition(stamped("second", first, first))
    with nwbflow.Recorder(nwbfile, path) as recorder:
        recorder["first"].append(np.arange(4), timestamps=np.arange(4.0))
    with NWBHDF5IO(str(path), "r") as io:
        second = io.read().acquisition["second"]
        assert (second.data.shape, second.timestamps.shape) == ((4,), (4,))


@pytest.mark.requirement("S1")
def test_half_precision_is_refused_since_nwb_has_none():
    with pytest.raises(SettingsError, match="float16"):
        nwbflow.live((None,), "float16")


@pytest.mark.requirement("S1")
def test_infinite_time_stamps_are_stored_and_going_back_is_noted(path):
    nwbfile = session()
    nwbfile.add_acquisition(stamped("x", nwbflow.live()))
    times = [np.inf, np.inf, -np.inf, -np.inf, np.nan, 1.0, 0.5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nwbflow.Recorder(nwbfile, path) as recorder:
            recorder["x"].append(np.arange(7), timestamps=times)
    assert [note.split(": ")[1] for note in recorder.receipt.notes] == [
        "1 time stamps are no number (NaN)",
        "time goes backwards at 2 places",
    ]
    with h5py.File(path) as file:
        assert np.array_equal(file["acquisition/x/timestamps"][:], times, equal_nan=True)


@pytest.mark.requirement("S1")
def test_a_container_of_another_open_file_becomes_a_link(path):
    source = path.with_name("source.nwb")
    with NWBHDF5IO(str(source), "w") as io:
        io.write(session(raw=np.arange(5)))
    with pynwb.NWBHDF5IO(str(source), "r") as io:
        nwbfile = session(x=nwbflow.live((None,), "int16"))
        nwbfile.add_acquisition(io.read().acquisition["raw"])
        with nwbflow.Recorder(nwbfile, path) as recorder:
            recorder["x"].append(np.arange(3))
    with NWBHDF5IO(str(path), "r") as io:
        acquisition = io.read().acquisition
        assert (acquisition["raw"].data[:].tolist(), len(acquisition["x"].data)) == ([0, 1, 2, 3, 4], 3)


@pytest.mark.requirement("S5")
def test_a_file_with_the_name_of_the_layout_is_left_alone(path):
    others = [path.with_name(path.name + end) for end in (".structure.nwb", ".structure1.nwb.partial")]
    for other in others:
        other.write_bytes(b"mine")
    with nwbflow.Recorder(session(x=nwbflow.live((None,), "int16")), path) as recorder:
        recorder["x"].append(np.arange(3))
    assert {other.read_bytes() for other in others} == {b"mine"}
    assert {file.name for file in path.parent.iterdir()} == {path.name, *(other.name for other in others)}
