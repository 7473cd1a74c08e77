"""Every error nwbflow raises on purpose.

The tree is grouped by what a caller would do about it::

    NwbflowError
    ├── SettingsError (ValueError)        mend the request: codec, chunks, profile, rules
    ├── PlanError (ValueError)            refused before anything was written: give it more memory, other chunks
    ├── SourceError (ValueError)          the data are not what was promised: dtype, shape, length, order
    ├── TargetError (OSError)             the path can't be written: exists, folder, read-only, locked
    ├── LinkError (OSError)               what is linked is missing, refused, or not what the link's owner says it is
    ├── StorageError (OSError)            the disk failed or filled while writing; the handle is not trusted again
    │   └── DurabilityError               a recording can't make safe what it was given; says how much is safe
    ├── ExecutorError (RuntimeError)      the workers or their scheduler are gone, or can't do it: see to the cluster
    ├── VerifyError                       what is stored is not what was sent
    └── UnsupportedError (NotImplementedError)   right request, but not possible here: missing plugin, dtype

Each error is also the matching builtin, so generic handlers work, and carries a stable
:class:`ErrorKind` to branch on. The long diagnosis (dataset, place, way out) is in the text
and in notes (:pep:`678`).
"""

from __future__ import annotations

from enum import StrEnum


class ErrorKind(StrEnum):
    """Stable names for what went wrong. Members are only ever added."""

    CODEC = "codec"
    CHUNKS = "chunks"
    RULES = "rules"
    OPTION = "option"
    MEMORY = "memory"
    DTYPE = "dtype"
    LOSSY = "lossy"
    SHAPE = "shape"
    LENGTH = "length"
    EXHAUSTED = "exhausted"
    SHARED = "shared"
    BOUNDS = "bounds"
    CLOSED = "closed"
    EXISTS = "exists"
    FOLDER = "folder"
    PERMISSION = "permission"
    LOCKED = "locked"
    NO_SPACE = "no-space"
    IO = "io"
    MISMATCH = "mismatch"
    PLUGIN = "plugin"
    NOT_HDF5 = "not-hdf5"
    MISSING = "missing"
    FOREIGN = "foreign"
    REFUSED = "refused"
    CYCLE = "cycle"
    CHANGED = "changed"
    DROPPED = "dropped"
    ADDRESS = "address"
    INTERRUPTED = "interrupted"
    PICKLE = "pickle"
    WORKERS = "workers"
    PARTS = "parts"


class NwbflowError(Exception):
    """Base of all errors raised on purpose by nwbflow.

    Parameters
    ----------
    message : str
        What happened, where, and the way out.
    kind : ErrorKind
        Stable name of the cause.
    """

    kind: ErrorKind

    def __init__(self, message: str, *, kind: ErrorKind) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), self.kind), {"__notes__": getattr(self, "__notes__", [])})


def _rebuild(cls: type[NwbflowError], message: str, kind: ErrorKind) -> NwbflowError:
    return cls(message, kind=kind)


class SettingsError(NwbflowError, ValueError):
    """A setting (codec, chunks, profile, rule) is unknown, malformed or contradictory."""


class PlanError(NwbflowError, ValueError):
    """The write was refused before anything was written."""


class SourceError(NwbflowError, ValueError):
    """The data delivered are not the data promised, or can't be stored without loss."""


class TargetError(NwbflowError, OSError):
    """The path can't be written."""


class LinkError(NwbflowError, OSError):
    """What a link leads to is missing, refused, or not what it is said to be."""


class LinkMismatchWarning(UserWarning):
    """A container says one thing of its data, and the dataset that was linked in their place another."""


class StorageError(NwbflowError, OSError):
    """Storing failed; the file handle it happened on is not used again."""


class DurabilityError(StorageError):
    """A recording can't make safe what it was given; all that was acknowledged stays safe.

    Parameters
    ----------
    message : str
        What happened, where, and the way out.
    kind : ErrorKind
        Stable name of the cause.
    durable : int
        Rows of the stream that are acknowledged: they can be recovered.
    """

    durable: int

    def __init__(self, message: str, *, kind: ErrorKind, durable: int) -> None:
        super().__init__(message, kind=kind)
        self.durable = durable

    def __reduce__(self) -> tuple[object, ...]:
        arguments = (str(self), self.kind, self.durable)
        return (_rebuild_durability, arguments, {"__notes__": getattr(self, "__notes__", [])})


def _rebuild_durability(message: str, kind: ErrorKind, durable: int) -> DurabilityError:
    return DurabilityError(message, kind=kind, durable=durable)


class ExecutorError(NwbflowError, RuntimeError):
    """Workers in other processes, or what schedules them, are gone or can't do what is asked."""


class VerifyError(NwbflowError):
    """What was read back differs from what was sent."""


class UnsupportedError(NwbflowError, NotImplementedError):
    """A sound request that can't be met here."""
