"""One place in an object store: the requests to it, and what their failures mean."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nwbflow.errors import ErrorKind, NwbflowError, SettingsError, StorageError, TargetError
from nwbflow.sinks.answers import NO_CREDENTIALS, meaning_of

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "https")
"""What an address may begin with."""

_LITERAL = ("s3", "s3a", "gs")  # a bucket, and a key as it is
_CREATIONS = 3
_ATTEMPTS = 3  # at answers that end too early; everything else obstore tries again
_CLIENT = {"timeout": "300s", "connect_timeout": "10s"}
_EXAMPLE = "such as s3://bucket/session.nwb.zarr"


@dataclass(frozen=True, slots=True)
class Found:
    """An object that a listing named: its size in bytes, and the tag the server gave its content."""

    size: int
    etag: str


class Place:
    """Where a Zarr store lies in an object store.

    Parameters
    ----------
    url : str
        Its address.
    options : mapping
        What ``obstore.store.from_url`` takes besides: settings of the service, ``client_options``, ``retry_config``,
        ``credential_provider``. What is not there comes from the environment (``AWS_...``).

    Raises
    ------
    SettingsError
        If the address or an option is wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        scheme, _, rest = url.partition("://")
        parent, _, self.name = rest.rstrip("/").rpartition("/")
        bucket, _, folder = parent.partition("/")
        literal = scheme in _LITERAL
        odd = r"[?#]|//|(^|/)\.\.?(/|$)" if literal else r"[?#%]|//|(^|/)\.\.?(/|$)"
        if scheme not in SCHEMES or not parent or re.search(odd, rest):
            raise SettingsError(
                f"{url!r} is no address a store can be written to: give one that begins with "
                f"{', '.join(SCHEMES)} and has a bucket and a name, {_EXAMPLE}",
                kind=ErrorKind.ADDRESS,
            )
        self.url = f"{scheme}://{parent}/{self.name}"
        client = {**_CLIENT, "allow_http": _plain(options), **options.get("client_options", {})}
        given: dict[str, Any] = {**options, "client_options": client}
        # obstore takes %20 in an address for a blank, which readers don't: so the folder is part of the keys
        self._folder = f"{folder}/" if literal and folder else ""
        try:
            self._store = from_url(f"{scheme}://{bucket if literal else parent}", **given)
        except (BaseError, ValueError, TypeError) as error:
            raise SettingsError(
                f"{url}: storage_options can't be used: {_first_line(error)}", kind=ErrorKind.OPTION
            ) from error
        self._conditions = True
        self.began = False
        """Whether anything was sent; failures before it leave everything as it was."""

    @property
    def beside(self) -> str:
        """Key of the manifest, beside the store."""
        return f"{self._folder}{self.name}.partial"

    def key(self, name: str) -> str:
        """Return the key of an object of the store."""
        return f"{self._folder}{self.name}/{name}"

    def put(self, key: str, data: bytes) -> str:
        """Store one object, whole or not at all, and return the server's tag of it.

        Raises
        ------
        TargetError, StorageError
            If the server can't be reached or refuses.
        """
        import obstore

        with self._spoken(f"sending {key}"):
            done = obstore.put(self._store, key, data, use_multipart=False)
            return (done["e_tag"] or "").strip('"')

    def create(self, key: str, data: bytes) -> str | None:
        """Do :meth:`put`, but only where there is no such object; return ``None`` where there is one.

        An answer that got lost makes it find its own object. Servers that know no conditions replace what is there.

        Raises
        ------
        TargetError, StorageError
            If the server can't be reached or refuses.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        for _ in range(_CREATIONS):
            if not self._conditions:
                return self.put(key, data)
            with self._spoken(f"sending {key}"):
                try:
                    done = obstore.put(self._store, key, data, use_multipart=False, mode="create")
                except (AlreadyExistsError, PreconditionError):
                    return None
                except (BaseError, NotImplementedError) as error:
                    if isinstance(error, NotImplementedError) or "NotImplemented" in str(error):
                        self._conditions = False
                    elif re.search(r"status code|<Code>", str(error)):
                        raise
                else:
                    return (done["e_tag"] or "").strip('"')
            # obstore does not make such a request again when no answer came: it may have been done
            if self._conditions and self.look(key) is not None:
                return None
        return self.put(key, data)

    def look(self, key: str) -> Found | None:
        """Return size and tag of an object; ``None`` if there is none.

        Raises
        ------
        TargetError, StorageError
            If the server can't be reached or refuses.
        """
        import obstore

        with self._spoken(f"looking at {key}"):
            try:
                found = obstore.head(self._store, key)
            except FileNotFoundError:
                return None
            return Found(int(found["size"]), (found["e_tag"] or "").strip('"'))

    def get(self, key: str) -> bytes | None:
        """Return an object; ``None`` if there is none.

        Raises
        ------
        TargetError, StorageError
            If the server can't be reached or refuses.
        """
        import obstore
        from obstore.exceptions import BaseError

        with self._spoken(f"reading {key}"):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return obstore.get(self._store, key).bytes().to_bytes()
                except FileNotFoundError as error:
                    if "NoSuchBucket" in str(error):
                        raise
                    return None
                except BaseError:
                    if attempt == _ATTEMPTS:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def objects(self) -> dict[str, Found]:
        """Return every object of the store by its name in it.

        Raises
        ------
        TargetError, StorageError
            If the server can't be reached or refuses.
        """
        import obstore

        with self._spoken("listing what is there"):
            found: dict[str, Found] = {}
            for batch in obstore.list(self._store, prefix=f"{self._folder}{self.name}"):
                for one in batch:
                    name = str(one["path"]).removeprefix(self.key(""))
                    found[name] = Found(int(one["size"]), (one["e_tag"] or "").strip('"'))
            return found

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error.

        Raises
        ------
        TargetError, StorageError
            If the server can't be reached or refuses.
        """
        import obstore

        with self._spoken("deleting what is not needed any more"), contextlib.suppress(FileNotFoundError):
            if keys:
                obstore.delete(self._store, list(keys))

    @contextlib.contextmanager
    def _spoken(self, doing: str) -> Iterator[None]:
        """Say what a failure means and what to do about it."""
        from obstore.exceptions import BaseError

        try:
            yield
        except NwbflowError:
            raise
        except (BaseError, OSError, ValueError) as error:
            kind, meaning = _meaning(str(error))
            failed = StorageError if self.began else TargetError
            raise failed(f"{self.url}: {doing} failed: {meaning}. The answer: {_answer(error)}", kind=kind) from error


def _plain(options: Mapping[str, Any]) -> bool:
    """Return whether an endpoint without encryption was asked for, as servers in a lab's own network are."""
    asked = [options.get(name, "") for name in ("endpoint", "endpoint_url", "aws_endpoint", "aws_endpoint_url")]
    asked += [os.environ.get(name, "") for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")]
    return any(str(address).startswith("http://") for address in asked)


def _meaning(text: str) -> tuple[ErrorKind, str]:
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+)", text)
    if "169.254.169.254" in text:
        return NO_CREDENTIALS
    return meaning_of("" if code is None else code[1], None if status is None else int(status[1]))


def _answer(error: BaseException) -> str:
    """Return what is worth reading of an error's text: no markup, no debug output."""
    text = str(error).partition("\n\nDebug source")[0]
    code, message = (re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S) for tag in ("Code", "Message"))
    head = text.partition("<?xml")[0].partition("<Error>")[0].strip().rstrip(":")
    said = ": ".join(found[1] for found in (code, message) if found is not None)
    return " - ".join(part for part in (head, said) if part)[:600]


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
