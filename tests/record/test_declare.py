"""What can't be recorded is refused before anything is made."""

import numpy as np
import pytest
from pynwb import TimeSeries
from pynwb.core import ScratchData
from support import session

import nwbflow

pytestmark = pytest.mark.usefixtures("no_thread_left")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sync": "sometimes"}, "sync='sometimes'"),
        ({"queue": "much"}, "queue='much'"),
        ({"workers": 0}, "workers=0"),
        ({"profile": "best"}, "profile='best'"),
        ({"progress": 3}, "progress=3"),
    ],
)
def test_a_wrong_option_leaves_nothing_behind(options, text, path, paired):
    with pytest.raises(nwbflow.SettingsError, match=text):
        nwbflow.Recorder(paired, path, **options)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (lambda: nwbflow.live((100, 4)), r"\(None, 384\)"),
        (lambda: nwbflow.live((None, None)), r"\(None, 384\)"),
        (lambda: nwbflow.live((None, 0)), r"\(None, 384\)"),
        (lambda: nwbflow.live(()), r"\(None, 384\)"),
        (lambda: nwbflow.live((None,), "complex64"), "complex64"),
        (lambda: nwbflow.live((None,), "U5"), "U5"),
        (lambda: nwbflow.live((None,), codec="gzipp"), "gzipp"),
    ],
)
def test_what_can_not_be_live_is_refused_when_it_is_declared(declare, text):
    with pytest.raises(nwbflow.SettingsError, match=text):
        declare()


def unlike(series):
    nwbfile = session()
    nwbfile.add_acquisition(series)
    return nwbfile


def with_column():
    nwbfile = session()
    nwbfile.add_scratch(ScratchData(name="score", description="live scores", data=nwbflow.live()))
    return nwbfile


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: session(x=np.zeros(3)), "nothing in this file is live"),
        (with_column, "score can't be recorded"),
        (
            lambda: unlike(TimeSeries(name="x", data=nwbflow.live(), timestamps=np.zeros(20_000), unit="V")),
            "timestamps of the",
        ),
        (
            lambda: unlike(TimeSeries(name="x", data=np.zeros(20_000), timestamps=nwbflow.live(), unit="V")),
            "data of the same",
        ),
        (lambda: session(x=nwbflow.live((None,), codec="lzf")), "outside HDF5"),
        (lambda: session(x=nwbflow.live((None, 3), chunks=(10, 5))), "chunks"),
        (lambda: (lambda shared: session(x=shared, y=shared))(nwbflow.live()), "the same iterator"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Length of data does not match length of timestamps.*")
def test_what_can_not_be_recorded_is_refused_and_leaves_nothing_behind(make, text, path):
    with pytest.raises(nwbflow.NwbflowError, match=text):
        nwbflow.Recorder(make(), path)
    assert list(path.parent.iterdir()) == []
