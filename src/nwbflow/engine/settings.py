"""How the engine is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nwbflow.engine.afar import Executor


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run.

    Parameters
    ----------
    workers : int
        Encoding threads.
    keep_raw_crc : bool
        Whether to sum the elements too, for full verification.
    checkpoint : callable
        Called now and then so that what is stored survives the process.
    checkpoint_seconds : float
        Least time between two checkpoints; infinite for none.
    executor : Executor or None
        Who encodes sources that can be read again; ``None``: the threads.
    """

    workers: int
    keep_raw_crc: bool
    checkpoint: Callable[[], None]
    checkpoint_seconds: float
    executor: Executor | None = None
