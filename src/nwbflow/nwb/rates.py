"""Rates that time series were declared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from nwbflow.nwb.layouts import Storage
from nwbflow.record.queues import Arrivals

LEAST_SECONDS, LEAST_BLOCKS = 10.0, 20
"""Time and blocks from which on the rate at which rows arrived says something."""

TOLERANCE = 0.05
"""Part by which it may differ from the declared one."""


def declared_rates(storages: Sequence[Storage]) -> dict[str, float]:
    """Return the rate of every series that has one, in hertz, by the series' path inside the file."""
    rates: dict[str, float] = {}
    for storage in storages:
        start = storage.candidate.builder.parent.datasets.get("starting_time")
        rate = None if start is None else start.attributes.get("rate")
        if rate is not None and math.isfinite(rate):
            rates[storage.candidate.name.rpartition("/")[0]] = float(rate)
    return rates


def rate_notes(rates: Mapping[str, float], arrivals: Iterable[tuple[str, Arrivals]]) -> list[str]:
    """Say which series were declared with another rate than their rows have arrived at, for the receipt.

    Parameters
    ----------
    rates : mapping of str to float
        Declared rates in hertz, by name.
    arrivals : iterable of tuple
        Name of each series, and how its blocks came.
    """
    notes = []
    for name, came in arrivals:
        declared = rates.get(name)
        if declared is None or came.seconds < LEAST_SECONDS or came.blocks < LEAST_BLOCKS:
            continue
        found = came.rows / came.seconds
        if abs(found - declared) > TOLERANCE * declared:
            notes.append(
                f"{name}: declared with a rate of {declared:g} Hz, but {found:.4g} rows a second have arrived, over "
                f"{came.seconds:.0f} s by this computer's clock. Unless that is how they were sent (in pauses, or from "
                "a store), times that are computed from the declared rate are wrong"
            )
    return notes
