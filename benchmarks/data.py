"""What is written: simulated recordings, and the real ones if they are there."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pynwb

from nwbflow.testing.simulate import neuropixels

REAL = Path(os.environ.get("NWBFLOW_REALDATA", Path(__file__).resolve().parents[2] / "shared" / "realdata"))
LEAST = 256_000_000
"""Real recordings are repeated end to end to this many bytes: the small ones would time PyNWB's start."""


def simulated(seconds: float) -> np.ndarray:
    """Return 384-channel int16 at 30 kHz."""
    return neuropixels(seconds)


def real() -> dict[str, np.ndarray]:
    """Return the real recordings by name; empty if the folder is absent."""
    found = {}
    for description in sorted(REAL.glob("*.json")):
        about = json.loads(description.read_text())
        once = np.fromfile(description.with_suffix(".bin"), dtype=about["dtype"]).reshape(about["shape"])
        found[description.stem] = np.concatenate([once] * -(-LEAST // once.nbytes))
    return found


def nwbfile(data: object, name: str = "series") -> pynwb.NWBFile:
    """Return a small NWB file around one series."""
    file = pynwb.NWBFile(
        session_description="benchmark",
        identifier="benchmark",
        session_start_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    file.add_acquisition(pynwb.TimeSeries(name=name, data=data, unit="V", rate=30000.0))
    return file
