"""One object in S3 that is sent in parts: the requests that takes, and what their failures mean."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nwbflow.errors import ErrorKind, SettingsError, StorageError, TargetError
from nwbflow.sinks.answers import NO_CREDENTIALS, UNREACHABLE, meaning_of
from nwbflow.sinks.remote import Found
from nwbflow.sinks.s3_options import make_client, retries_of

SCHEMES = ("s3", "s3a")
"""What the address of an HDF5 file may begin with."""

_PASSING = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests", "BadDigest"}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")


class Answered(Exception):  # noqa: N818 - what the caller has a use for is no error
    """A refusal that the caller asked to be told.

    Parameters
    ----------
    code : str
        S3's name of it.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class S3File:
    """Where an HDF5 file is to be in S3.

    Parameters
    ----------
    url : str
        Its address.
    options : mapping
        ``storage_options``, named as obstore does.
    connections : int
        How many requests are made at one time.

    Raises
    ------
    SettingsError
        If the address or an option is wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, connections: int = 1) -> None:
        scheme, _, rest = url.partition("://")
        self._bucket, _, self.key = rest.partition("/")
        odd = not self._bucket or not self.key or re.search(r"[?#]|//|(^|/)\.\.?(/|$)|/$", rest)
        if scheme not in SCHEMES or odd:
            raise SettingsError(
                f"{url!r} is no address an HDF5 file can be sent to: give a bucket and a name, such as "
                "s3://bucket/session.nwb",
                kind=ErrorKind.ADDRESS,
            )
        self.url = url
        self.beside = f"{self.key}.partial"
        self._client = make_client(url, options, connections=connections)
        self._retries = retries_of(options)
        self.ended = threading.Event()
        """Set when nothing is to be tried again."""
        self.began = False
        """Whether a part was sent."""

    def there(self) -> Found | None:
        """Return the object at the address; ``None`` if there is none."""
        answer = self._ask("looking what is there", "head_object", {}, absent=("404", "NoSuchKey", "NotFound"))
        return None if answer is None else Found(int(answer["ContentLength"]), _tag(answer))

    def note(self) -> bytes | None:
        """Return what is noted beside it; ``None`` if there is nothing."""
        return self._read("reading the note", {"Key": self.beside}, absent=("404", "NoSuchKey"))

    def leave_note(self, data: bytes) -> None:
        """Replace what is noted beside it."""
        self._ask("leaving a note", "put_object", {"Key": self.beside, "Body": data})

    def remove_note(self) -> None:
        """Remove what is noted beside it."""
        self._ask("removing the note", "delete_object", {"Key": self.beside})

    def begin(self) -> str:
        """Begin an upload; nobody sees it before it is complete. Return its name."""
        answer = self._ask("beginning the upload", "create_multipart_upload", {})
        return str((answer or {})["UploadId"])

    def parts(self, upload: str) -> dict[int, Found] | None:
        """Return the parts of an upload by number, from 1 on; ``None`` if there is no such upload."""
        found: dict[int, Found] = {}
        given: dict[str, Any] = {"UploadId": upload}
        while True:
            answer = self._ask("asking what was sent", "list_parts", given, absent=("NoSuchUpload", "404"))
            if answer is None:
                return None
            found |= {int(p["PartNumber"]): Found(int(p["Size"]), _tag(p)) for p in answer.get("Parts", ())}
            if not answer.get("IsTruncated"):
                return found
            given["PartNumberMarker"] = answer["NextPartNumberMarker"]

    def send(self, upload: str, number: int, data: bytes, md5: bytes) -> str:
        """Send one part, which the server compares with its MD5; return the server's tag of it.

        Raises
        ------
        Answered
            ``"NoSuchUpload"``.
        """
        given = {
            "UploadId": upload,
            "PartNumber": number,
            "Body": data,
            "ContentMD5": base64.b64encode(md5).decode(),
        }
        answer = self._ask(f"sending part {number}", "upload_part", given, told=("NoSuchUpload",))
        return _tag(answer or {})

    def complete(self, upload: str, tags: Sequence[str], *, replace: bool) -> str:
        """Make the parts the object, in one step; return the server's tag of it.

        Parameters
        ----------
        upload : str
            The upload.
        tags : sequence of str
            Of every part, in order: the server compares them with what it has.
        replace : bool
            Whether an object that is there may be replaced.

        Raises
        ------
        Answered
            ``"NoSuchUpload"``, ``"InvalidPart"``, ``"PreconditionFailed"`` (an object is there).
        """
        listed = [{"PartNumber": number, "ETag": f'"{tag}"'} for number, tag in enumerate(tags, 1)]
        given: dict[str, Any] = {"UploadId": upload, "MultipartUpload": {"Parts": listed}}
        doing, told = "completing the upload", ("NoSuchUpload", "InvalidPart", "PreconditionFailed")
        if replace:
            return _tag(self._ask(doing, "complete_multipart_upload", given, told=told) or {})
        try:
            unless = {**given, "IfNoneMatch": "*"}
            conditions = (*told, "NotImplemented", "501", "ConditionalRequestConflict")
            return _tag(self._ask(doing, "complete_multipart_upload", unless, told=conditions) or {})
        except Answered as answer:
            if answer.code == "ConditionalRequestConflict":
                raise Answered("PreconditionFailed") from None
            if answer.code in told:
                raise
        if self.there() is not None:  # servers that know no conditions
            raise Answered("PreconditionFailed")
        return _tag(self._ask(doing, "complete_multipart_upload", given, told=told) or {})

    def abort(self, upload: str) -> None:
        """Give an upload up, and with it its parts, which cost money as long as they are there."""
        given = {"UploadId": upload}
        self._ask("giving an upload up", "abort_multipart_upload", given, absent=("NoSuchUpload", "404"))

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the object."""
        given = {"Key": self.key, "Range": f"bytes={start}-{start + length - 1}"}
        return self._read("reading back", given, absent=()) or b""

    def _read(self, doing: str, given: Mapping[str, Any], *, absent: Sequence[str]) -> bytes | None:
        def body(request: dict[str, Any]) -> dict[str, Any]:
            return {"Body": self._client.get_object(**request)["Body"].read()}

        answer = self._ask(doing, body, given, absent=absent)
        return None if answer is None else bytes(answer["Body"])

    def _ask(
        self,
        doing: str,
        operation: str | Callable[[dict[str, Any]], dict[str, Any]],
        given: Mapping[str, Any],
        *,
        absent: Sequence[str] = (),
        told: Sequence[str] = (),
    ) -> dict[str, Any] | None:
        """Make a request until it passes; return the answer, or ``None`` for codes that say that nothing is there."""
        from botocore.exceptions import BotoCoreError, ClientError

        request = {"Bucket": self._bucket, "Key": self.key, **given}
        attempt = 0
        while True:
            try:
                answer: dict[str, Any] = (
                    getattr(self._client, operation)(**request) if isinstance(operation, str) else operation(request)
                )
            except (ClientError, BotoCoreError, OSError) as error:
                code, status = _code_of(error)
                if code in absent:
                    return None
                if code in told:
                    raise Answered(code) from error
                attempt += 1
                if not _passes(error, code, status) or attempt > self._retries.most or self.ended.is_set():
                    raise self._spoken(doing, error, code, status) from error
                self.ended.wait(self._retries.pause(attempt))
            else:
                return answer

    def _spoken(self, doing: str, error: BaseException, code: str, status: int | None) -> StorageError | TargetError:
        """Say what a failure means and what to do about it."""
        if type(error).__name__ in _NO_CREDENTIALS:
            kind, meaning = NO_CREDENTIALS
        elif type(error).__name__ == "ParamValidationError":
            kind, meaning = ErrorKind.ADDRESS, "there can't be such a bucket or key; correct the address"
        elif code == "404" or status is None:
            kind, meaning = meaning_of("NoSuchBucket", None) if code == "404" else UNREACHABLE
        else:
            kind, meaning = meaning_of(code, status)
        failed = StorageError if self.began else TargetError
        text = str(error).removeprefix("An error occurred ")[:600]
        return failed(f"{self.url}: {doing} failed: {meaning}. The answer: {text}", kind=kind)


def _code_of(error: BaseException) -> tuple[str, int | None]:
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict):
        return "", None
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return str(answer.get("Error", {}).get("Code", "")), status if isinstance(status, int) else None


def _passes(error: BaseException, code: str, status: int | None) -> bool:
    """Return whether a failure may be gone when the request is made again."""
    if type(error).__name__ in (*_NO_CREDENTIALS, "ParamValidationError"):
        return False
    return status is None or status >= 500 or status == 429 or code in _PASSING


def _tag(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ETag") or "").strip('"')
