"""What object stores answer when they refuse, and what to do about it."""

from __future__ import annotations

from nwbflow.errors import ErrorKind

_CLOCK = (
    ErrorKind.PERMISSION,
    "this machine's clock differs from the server's by more than it allows; set it right (timedatectl)",
)
_WRONG = (
    ErrorKind.PERMISSION,
    "the credentials are wrong or have run out; see to AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
    "AWS_SESSION_TOKEN, or storage_options",
)
_BUSY = (ErrorKind.IO, "the server went on asking to slow down; do the same call again later: it goes on from here")
_SAYINGS: dict[str, tuple[ErrorKind, str]] = {
    "RequestTimeTooSkewed": _CLOCK,
    "NoSuchBucket": (ErrorKind.FOLDER, "there is no such bucket; make it first, or correct its name"),
    "ContainerNotFound": (ErrorKind.FOLDER, "there is no such container; make it first, or correct its name"),
    "InvalidAccessKeyId": _WRONG,
    "SignatureDoesNotMatch": _WRONG,
    "InvalidToken": _WRONG,
    "ExpiredToken": _WRONG,
    "AuthenticationFailed": _WRONG,
    "AccessDenied": (
        ErrorKind.PERMISSION,
        "these credentials may not do that; writing takes the rights to list, get, put and delete objects there",
    ),
    "PermanentRedirect": (ErrorKind.OPTION, "the bucket is in another region; set AWS_REGION, or storage_options"),
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "InternalError": _BUSY,
    "RequestTimeout": _BUSY,
}
_STATUSES = {403: "AccessDenied", 401: "AuthenticationFailed", 429: "SlowDown", 503: "SlowDown", 500: "InternalError"}


NO_CREDENTIALS = (
    ErrorKind.PERMISSION,
    "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or pass storage_options",
)
UNREACHABLE = (
    ErrorKind.IO,
    "the server can't be reached, or broke off; see to the network and the address, then do the same call again",
)


def meaning_of(code: str, status: int | None) -> tuple[ErrorKind, str]:
    """Return the kind of an error, and what it means in words.

    Parameters
    ----------
    code : str
        S3's (or Azure's) name of the error; empty if there was none.
    status : int or None
        HTTP's; ``None`` where no answer came.
    """
    if code in _SAYINGS:
        return _SAYINGS[code]
    if status is not None and status in _STATUSES:
        return _SAYINGS[_STATUSES[status]]
    return UNREACHABLE
