"""Series whose rows arrive at another rate than they were declared with."""

import numpy as np
import pytest
from pynwb import TimeSeries
from support import session

import nwbflow
from nwbflow.nwb import rates
from nwbflow.record.queues import Arrivals

pytestmark = pytest.mark.requirement("S3")


@pytest.mark.parametrize(
    ("rows", "seconds", "blocks", "text"),
    [
        (2_850_000, 100.0, 100, None),  # 5 % less
        (
            2_840_000,
            100.0,
            100,
            "a rate of 30000 Hz, but 2.84e+04 rows a second have arrived, over 100 s",
        ),
        (3_200_000, 100.0, 100, "3.2e+04 rows"),
        (100_000, 9.9, 100, None),  # too short to say anything
        (100_000, 100.0, 19, None),  # blocks too large
    ],
)
def test_only_what_is_clearly_off_over_a_while_is_told(rows, seconds, blocks, text):
    found = rates.rate_notes({"/a": 30_000.0}, [("/a", Arrivals(blocks, rows, seconds)), ("/b", Arrivals(99, 1, 99.0))])
    assert [text in note for note in found] == ([] if text is None else [True])


def test_the_receipt_says_so_of_series_with_a_rate(path, monkeypatch):
    monkeypatch.setattr(rates, "LEAST_SECONDS", 0.0)
    nwbfile = session()
    for name, clock in (
        ("fast", {"rate": 0.5}),
        ("unsteady", {"timestamps": nwbflow.live()}),
        ("still", {"rate": 9.0}),
    ):
        nwbfile.add_acquisition(TimeSeries(name=name, data=nwbflow.live(), unit="V", **clock))
    with nwbflow.Recorder(nwbfile, path) as recorder:
        for number in range(40):
            recorder["fast"].append(np.zeros(5))
            recorder["unsteady"].append([1.0], timestamps=[float(number)])
        recorder["still"].append(np.zeros(5))
        receipt = recorder.close()
    (note,) = receipt.notes
    assert note.startswith("/acquisition/fast: declared with a rate of 0.5 Hz, but ")
    assert note in str(receipt)
