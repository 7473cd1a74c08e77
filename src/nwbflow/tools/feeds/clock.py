"""Which second of the session a moment of Lab Streaming Layer is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from nwbflow.model.data import Array


@dataclass(frozen=True, slots=True)
class SessionClock:
    """LSL's clock of this machine, against the session's start.

    Parameters
    ----------
    origin : float
        What LSL's local clock showed when the session started, in seconds.
    """

    origin: float

    @classmethod
    def starting(cls, session_start: datetime, now: datetime, local_clock: float) -> SessionClock:
        """Return the clock of a session, from what both clocks show now.

        Parameters
        ----------
        session_start, now : datetime.datetime
            With a time zone.
        local_clock : float
            What LSL's local clock shows now, in seconds.
        """
        return cls(local_clock - (now.astimezone(UTC) - session_start.astimezone(UTC)).total_seconds())

    def seconds(self, stamps: Array, correction: float) -> Array:
        """Return seconds from the session's start: stamp + correction - origin.

        Parameters
        ----------
        stamps : numpy.ndarray
            As the sender gave them, by its own clock; shape (k,), in seconds.
        correction : float
            What has to be added to the sender's clock to get this machine's, in seconds.
        """
        return (np.asarray(stamps, "f8") + correction) - self.origin
