"""Files made for remote reading: how many ranges a reader asks for before the first sample."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import h5py
import numpy as np
import pynwb
import pytest

import nwbflow

BLOCK = 2**20
"""What range-reading file objects fetch at a time, in bytes."""


class Counting(io.FileIO):
    """A file object that notes which blocks a reader touches."""

    def __init__(self, path):
        super().__init__(path, "rb")
        self.blocks = set()

    def readinto(self, buffer):
        at = self.tell()
        if len(buffer):
            self.blocks |= set(range(at // BLOCK, (at + len(buffer) - 1) // BLOCK + 1))
        return super().readinto(buffer)


def _many_series():
    nwbfile = pynwb.NWBFile(
        session_description="many series", identifier="cloud", session_start_time=datetime(2026, 1, 1, tzinfo=UTC)
    )
    rng = np.random.default_rng(0)
    for number in range(30):
        data = rng.integers(-3000, 3000, (200_000, 8)).astype("i2")
        nwbfile.add_acquisition(
            pynwb.TimeSeries(name=f"series{number:02}", data=nwbflow.DataIO(data, chunks=(2000, 8)), unit="V", rate=1e3)
        )
    return nwbfile


def _blocks_to_open(path):
    """Return how many blocks PyNWB touches to open the file and find every chunk."""
    with Counting(path) as source, h5py.File(source, "r") as file, pynwb.NWBHDF5IO(file=file, mode="r") as reader:
        for series in reader.read().acquisition.values():
            assert series.data.id.get_num_chunks() == 100
            assert series.data.id.get_chunk_info(99).size > 0
        return len(source.blocks)


@pytest.mark.requirement("C5")
def test_the_cloud_profile_keeps_all_metadata_together(tmp_path):
    nwbfile = _many_series()
    touched = {}
    for profile in ("default", "cloud"):
        path = tmp_path / f"{profile}.nwb"
        nwbflow.write(nwbfile, path, profile=profile, progress=False)
        touched[profile] = _blocks_to_open(path)
        first = _first_chunk(path)
    size = path.stat().st_size
    assert touched["default"] > 20  # chunk indexes lie scattered between the data
    assert touched["cloud"] <= 6, f"{touched} of {size // BLOCK} blocks"
    assert first >= BLOCK  # everything else lies before the large data


def _first_chunk(path):
    with h5py.File(path) as file:
        return min(
            series["data"].id.get_chunk_info(index).byte_offset
            for series in file["acquisition"].values()
            for index in (0, 99)
        )
