"""What was sent of a store or file that is not complete yet: one small object beside it."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field

from nwbflow.errors import ErrorKind, TargetError

FORMAT = "nwbflow-upload-1"


@dataclass(frozen=True, slots=True)
class Sent:
    """One object that was sent: size in bytes, CRC-32, MD5 and the server's tag."""

    size: int
    crc32: int
    md5: str
    etag: str


@dataclass(slots=True)
class Manifest:
    """The objects sent, by name, and which run it is that sends them.

    Parameters
    ----------
    run : str
        Told apart from others that write to the same place.
    objects : dict
        By name in the store; the parts of a file by number.
    upload : str
        The server's name for the upload of a file in parts; empty for a store.
    part_bytes : int
        Size of its parts; 0 for a store.
    """

    run: str = field(default_factory=lambda: secrets.token_hex(8))
    objects: dict[str, Sent] = field(default_factory=dict)
    upload: str = ""
    part_bytes: int = 0

    def to_bytes(self, before: Manifest | None = None) -> bytes:
        """Return it as JSON, with what an earlier run had sent and this one has not come to yet."""
        known = self.objects.copy() if before is None else before.objects | self.objects.copy()
        objects = {name: asdict(sent) for name, sent in sorted(known.items())}
        parts = {"upload": self.upload, "part_bytes": self.part_bytes} if self.upload else {}
        return json.dumps({"format": FORMAT, "run": self.run, **parts, "objects": objects}).encode()

    @classmethod
    def parse(cls, data: bytes | None, where: str) -> Manifest | None:
        """Return a manifest; ``None`` if there is none.

        Raises
        ------
        TargetError
            If the object is something else.
        """
        if data is None:
            return None
        try:
            found = json.loads(data)
            if found["format"] != FORMAT:
                raise ValueError(found["format"])
            objects = {name: Sent(**sent) for name, sent in found["objects"].items()}
            return cls(found["run"], objects, found.get("upload", ""), found.get("part_bytes", 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TargetError(
                f"{where}, where a write notes what it has sent, is something else; remove it, or give another name",
                kind=ErrorKind.EXISTS,
            ) from error
