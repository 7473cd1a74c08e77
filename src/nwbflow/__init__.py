"""nwbflow: advanced data I/O for NWB, through PyNWB."""

from typing import TYPE_CHECKING

from nwbflow import parallel
from nwbflow.errors import (
    DurabilityError,
    ErrorKind,
    ExecutorError,
    LinkError,
    LinkMismatchWarning,
    NwbflowError,
    PlanError,
    SettingsError,
    SourceError,
    StorageError,
    TargetError,
    UnsupportedError,
    VerifyError,
)
from nwbflow.model.receipt import DatasetReceipt, Receipt, SentFile
from nwbflow.model.recovery import RecoveredDataset, Recovery
from nwbflow.model.repacked import Difference, Repacked
from nwbflow.nwb.data import DataIO, blocks, raw
from nwbflow.nwb.external import copy, link
from nwbflow.nwb.io import HDF5IO, NWBHDF5IO
from nwbflow.nwb.live import live
from nwbflow.nwb.mapping import concat, link_raw
from nwbflow.nwb.monitor import DataChunkProcessor, NumSampleCounter
from nwbflow.nwb.open import open  # noqa: A004
from nwbflow.nwb.parts import part
from nwbflow.nwb.recorded import RecordedSeries, Ticket
from nwbflow.nwb.recorder import Recorder, recorders
from nwbflow.nwb.stores import zarr_class
from nwbflow.nwb.write import write
from nwbflow.planning.profiles import Profile
from nwbflow.planning.rules import Rules
from nwbflow.record.tail import Tail, TailBlock, tail
from nwbflow.tools.recover import recover
from nwbflow.tools.repack.repack import repack
from nwbflow.tools.upload import upload

if TYPE_CHECKING:
    from nwbflow.nwb.zarr_io import NWBZarrIO

__version__ = "0.1.0"

__all__ = [
    "HDF5IO",
    "NWBHDF5IO",
    "NWBZarrIO",
    "DataChunkProcessor",
    "DataIO",
    "DatasetReceipt",
    "Difference",
    "DurabilityError",
    "ErrorKind",
    "ExecutorError",
    "LinkError",
    "LinkMismatchWarning",
    "NumSampleCounter",
    "NwbflowError",
    "PlanError",
    "Profile",
    "Receipt",
    "RecordedSeries",
    "Recorder",
    "RecoveredDataset",
    "Recovery",
    "Repacked",
    "Rules",
    "SentFile",
    "SettingsError",
    "SourceError",
    "StorageError",
    "Tail",
    "TailBlock",
    "TargetError",
    "Ticket",
    "UnsupportedError",
    "VerifyError",
    "__version__",
    "blocks",
    "concat",
    "copy",
    "link",
    "link_raw",
    "live",
    "open",
    "parallel",
    "part",
    "raw",
    "recorders",
    "recover",
    "repack",
    "tail",
    "upload",
    "write",
]


def __getattr__(name: str) -> type:
    """Load what needs hdmf-zarr only when it is asked for: nwbflow works without it, and beside an older Zarr."""
    if name == "NWBZarrIO":
        return zarr_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
