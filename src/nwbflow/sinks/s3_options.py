"""What ``storage_options`` mean for S3, for who speaks to it with botocore: the names are obstore's."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from nwbflow.errors import ErrorKind, SettingsError

_SAME = {"token": "session_token", "endpoint_url": "endpoint", "default_region": "region"}
_SECONDS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_KNOWN = {
    "access_key_id",
    "secret_access_key",
    "session_token",
    "region",
    "endpoint",
    "virtual_hosted_style_request",
    "skip_signature",
    "allow_http",
    "client_options",
    "retry_config",
    "credential_provider",
}
_RETRIES, _FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 10, 0.1, 15.0, 2.0  # obstore's


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a request is tried again, and how long is waited before: seconds, growing by a factor."""

    most: int = _RETRIES
    first: float = _FIRST_PAUSE
    longest: float = _LONGEST_PAUSE
    growth: float = _GROWTH

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait before trying for the `attempt`-th time again, from 1 on."""
        return float(min(self.longest, self.first * self.growth ** (attempt - 1)))


def retries_of(options: Mapping[str, Any]) -> Retries:
    """Return what ``retry_config`` asks for.

    Raises
    ------
    SettingsError
        If it can't be understood.
    """
    given = dict(options.get("retry_config") or {})
    pauses = dict(given.get("backoff") or {})
    return Retries(
        most=int(given.get("max_retries", _RETRIES)),
        first=_seconds(pauses.get("init_backoff", _FIRST_PAUSE)),
        longest=_seconds(pauses.get("max_backoff", _LONGEST_PAUSE)),
        growth=float(pauses.get("base", _GROWTH)),
    )


def make_client(url: str, options: Mapping[str, Any], *, connections: int) -> Any:
    """Return botocore's client for S3.

    What is not in the options comes from the environment, and from ``~/.aws``.

    Parameters
    ----------
    url : str
        The address, for errors.
    options : mapping
        ``storage_options``.
    connections : int
        How many requests are made at one time.

    Raises
    ------
    SettingsError
        If an option is unknown, or has no meaning here.
    """
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    given = _normal(url, options)
    client = dict(given.get("client_options") or {})
    endpoint = given.get("endpoint") or _from_environment("AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    session = botocore.session.get_session()
    if given.get("credential_provider") is not None:
        session.register_component("credential_provider", _Provided(url, given["credential_provider"]))
    virtual = bool(given.get("virtual_hosted_style_request", endpoint is None))
    config = Config(
        connect_timeout=_seconds(client.get("connect_timeout", 10.0)),
        read_timeout=_seconds(client.get("timeout", 300.0)),
        retries={"mode": "standard", "total_max_attempts": 1},  # trying again is the caller's
        max_pool_connections=connections,
        s3={"addressing_style": "auto" if virtual else "path"},
        # other than Amazon's servers don't know the checksums that botocore adds; each part has its MD5
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version=botocore.UNSIGNED if given.get("skip_signature") else None,
    )
    region = given.get("region") or _from_environment("AWS_REGION", "AWS_DEFAULT_REGION")
    try:
        return session.create_client(
            "s3",
            region_name=region or session.get_config_variable("region") or "us-east-1",
            endpoint_url=endpoint,
            aws_access_key_id=given.get("access_key_id"),
            aws_secret_access_key=given.get("secret_access_key"),
            aws_session_token=given.get("session_token"),
            config=config,
            verify=not client.get("allow_invalid_certificates", False),
        )
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"{url}: storage_options can't be used: {error}", kind=ErrorKind.OPTION) from error


def _normal(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by one of their names, without ``aws_``."""
    short = {str(name).lower().removeprefix("aws_"): value for name, value in options.items()}
    given = {_SAME.get(name, name): value for name, value in short.items()}
    if unknown := sorted(given.keys() - _KNOWN):
        raise SettingsError(
            f"{url}: storage_options can't be used: {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} "
            f"unknown where an HDF5 file is sent; known are {', '.join(sorted(_KNOWN))}",
            kind=ErrorKind.OPTION,
        )
    others = dict(given.get("client_options") or {}).keys()
    if unknown := sorted(others - {"timeout", "connect_timeout", "allow_http", "allow_invalid_certificates"}):
        raise SettingsError(
            f"{url}: client_options can't be used: {', '.join(unknown)}; known where an HDF5 file is sent are timeout, "
            "connect_timeout and allow_invalid_certificates (proxies come from HTTPS_PROXY)",
            kind=ErrorKind.OPTION,
        )
    return given


def _from_environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _seconds(value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(value))
    if found is None or found[2] not in _SECONDS:
        raise SettingsError(
            f"storage_options: {value!r} is no time; give a timedelta, or text such as '30s' or '5min'",
            kind=ErrorKind.OPTION,
        )
    return float(found[1]) * _SECONDS[found[2]]


class _Provided:
    """Where botocore finds credentials that one of obstore's providers gives."""

    def __init__(self, url: str, provider: Callable[[], Any]) -> None:
        if inspect.iscoroutinefunction(getattr(type(provider), "__call__", None)):  # noqa: B004
            raise SettingsError(
                f"{url}: an asynchronous credential_provider can't be used where an HDF5 file is sent; give the one "
                "that is not, such as obstore.auth.boto3.Boto3CredentialProvider()",
                kind=ErrorKind.OPTION,
            )
        self._provider = provider

    def _ask(self) -> dict[str, Any]:
        found = self._provider()
        until = found.get("expires_at")
        return {
            "access_key": found["access_key_id"],
            "secret_key": found["secret_access_key"],
            "token": found.get("token"),
            "expiry_time": None if until is None else until.isoformat(),
        }

    def load_credentials(self) -> Any:
        """Return credentials that are asked for again before they end (botocore calls this)."""
        from botocore.credentials import Credentials, RefreshableCredentials

        first = self._ask()
        if first["expiry_time"] is None:
            return Credentials(first["access_key"], first["secret_key"], first["token"], method="nwbflow")
        return RefreshableCredentials.create_from_metadata(first, self._ask, "nwbflow")
