"""What is known of data that live in another file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from nwbflow.errors import ErrorKind
from nwbflow.model.layout import Shape


class Policy(StrEnum):
    """Which other files a file may make its reader open."""

    ALLOW = "allow"
    """Any, as HDF5 does, but for the working folder, which is never searched."""
    CONTAINED = "contained"
    """Those in the folder of the file that was opened, or below it."""
    DENY = "deny"
    """None."""


class LinkKind(StrEnum):
    """How a file refers to data that are not where they appear to be."""

    SOFT = "soft"
    """Another place in the same file (or, through it, in another)."""
    EXTERNAL = "external"
    """An object of another HDF5 file."""
    VIRTUAL = "virtual"
    """Pieces of other datasets, seen as one (HDF5 virtual dataset)."""
    RAW = "raw"
    """Bytes of files that are not HDF5 (HDF5 external storage)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a recorded file name leads.

    Parameters
    ----------
    recorded : str
        The name as the linking file has it.
    path : pathlib.Path or None
        The regular file it leads to, symbolic links resolved; ``None`` if it leads nowhere, or where it must not.
    tried : tuple of pathlib.Path
        The places that were looked at, in order.
    problem : str
        Why it leads nowhere, as the end of a sentence; empty if it does not.
    kind : ErrorKind or None
        The stable name of the problem.
    by_policy : bool
        Whether it is the policy that forbids it, so that another one may not.
    """

    recorded: str
    path: Path | None
    tried: tuple[Path, ...]
    problem: str = ""
    kind: ErrorKind | None = None
    by_policy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What the content of a target was, in a few bytes.

    Parameters
    ----------
    method : str
        ``"full"``: every byte was read; ``"sampled"``: blocks spread evenly over it were.
    digest : str
        BLAKE2b-256 of what was read, as hexadecimal digits.
    nbytes : int
        Bytes the content takes.
    """

    method: str
    digest: str
    nbytes: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values; :meth:`from_json` reverses it."""
        return {"method": self.method, "digest": self.digest, "nbytes": self.nbytes}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fingerprint:
        """Build a fingerprint from what :meth:`to_json` returned."""
        return cls(method=str(value["method"]), digest=str(value["digest"]), nbytes=int(value["nbytes"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRecord:
    """What a target was when it was linked; stored beside the link, so that it can be checked later.

    Parameters
    ----------
    made : str
        When, in ISO 8601 with the offset to UTC.
    shape : tuple of int
        Lengths of the axes of the linked dataset, in elements.
    dtype : str
        Its numpy type, byte order included, such as ``"<i2"``.
    attributes : mapping
        Its attributes, as JSON-serialisable values; empty for virtual and raw datasets, which have their own.
    fingerprints : mapping of str to Fingerprint
        By the target's name: for an external link and the sources of a virtual dataset ``file:dataset`` as
        recorded in the link, for raw files their recorded names.
    """

    made: str
    shape: Shape
    dtype: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable values; :meth:`from_json` reverses it."""
        return {
            "made": self.made,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "attributes": dict(self.attributes),
            "fingerprints": {name: print_.to_json() for name, print_ in self.fingerprints.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LinkRecord:
        """Build a record from what :meth:`to_json` returned."""
        return cls(
            made=str(value["made"]),
            shape=tuple(int(n) for n in value["shape"]),
            dtype=str(value["dtype"]),
            attributes=dict(value["attributes"]),
            fingerprints={str(k): Fingerprint.from_json(v) for k, v in value["fingerprints"].items()},
        )
