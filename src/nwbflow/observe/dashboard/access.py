"""Who may look: addresses, tokens, and the names a browser may call this machine by."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass

from nwbflow.errors import ErrorKind, SettingsError

_EXAMPLES = "give a port such as 8765, or a host and a port such as 0.0.0.0:8765 or [::1]:8765"


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``[HOST:]PORT``; the host is loopback if none is given.

    Parameters
    ----------
    text : str
        Such as ``"8765"``, ``"0.0.0.0:8765"`` or ``"[::1]:8765"``.

    Raises
    ------
    nwbflow.errors.SettingsError
        Of kind ``ADDRESS`` if it is something else.
    """
    host, colon, port = text.strip().rpartition(":")
    wrong = colon and (not host or (":" in host and not (host.startswith("[") and host.endswith("]"))))
    if wrong or not (port.isascii() and port.isdecimal()):
        raise SettingsError(f"{text!r} is no address; {_EXAMPLES}", kind=ErrorKind.ADDRESS)
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", check_port(int(port))


def check_port(port: int) -> int:
    """Return `port` if there can be such a one.

    Raises
    ------
    nwbflow.errors.SettingsError
        Of kind ``ADDRESS`` if there can't.
    """
    if not 0 <= port <= 65535:
        raise SettingsError(
            f"there is no port {port}: they go from 1 to 65535; 0 is any free one", kind=ErrorKind.ADDRESS
        )
    return port


def is_loopback(host: str) -> bool:
    """Return whether a host's name or number means this machine, as seen from itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class Access:
    """What a request needs in order to be answered.

    On loopback, a name for this machine: a page of somebody else whose name was made to lead here
    (DNS rebinding) sends its own name. Anywhere else, the token.

    Parameters
    ----------
    token : str or None
        The token, or ``None`` on loopback.
    """

    token: str | None

    @classmethod
    def to(cls, bound: str) -> Access:
        """Return what is asked of those who come to an address this machine listens on."""
        return cls(None if is_loopback(bound) else secrets.token_urlsafe(32))

    def knows(self, given: str | None) -> bool:
        """Return whether `given` is the token; takes as long whatever is wrong with it."""
        if self.token is None or given is None:
            return False
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def refuses_host(self, header: str | None) -> bool:
        """Return whether a request's ``Host`` is none of this machine's own names."""
        if self.token is not None:
            return False
        host, colon, port = (header or "").rpartition(":")
        if not colon or not port.isdecimal():
            host = header or ""
        return not is_loopback(host.removeprefix("[").removesuffix("]"))
