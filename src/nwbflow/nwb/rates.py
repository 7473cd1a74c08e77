"""Rates that time series were declared with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nwbflow.nwb.layouts import Storage


def declared_rates(storages: Sequence[Storage]) -> dict[str, float]:
    """Return the rate of every series that has one, in hertz, by the series' path inside the file."""
    rates: dict[str, float] = {}
    for storage in storages:
        start = storage.candidate.builder.parent.datasets.get("starting_time")
        rate = None if start is None else start.attributes.get("rate")
        if rate is not None and math.isfinite(rate):
            rates[storage.candidate.name.rpartition("/")[0]] = float(rate)
    return rates
