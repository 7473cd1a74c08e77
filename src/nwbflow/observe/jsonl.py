"""Events as JSON lines: one object per event, for logs and other programs.

The format is https://jsonlines.org: UTF-8 (here always plain ASCII), one object a line.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np

from nwbflow.errors import ErrorKind, TargetError
from nwbflow.model.events import Event, RunFailed, RunFinished
from nwbflow.model.layout import Layout


def event_to_json(event: Event) -> dict[str, Any]:
    """Return an event as values that :func:`json.dumps` takes.

    Parameters
    ----------
    event : Event
        Any event.

    Returns
    -------
    dict
        ``"event"``: the class's name; ``"time"``: now, ISO 8601 in UTC with milliseconds; then
        every field. Paths and dtypes become text, tuples lists, layouts what
        :meth:`nwbflow.model.layout.Layout.to_json` gives, and numbers that JSON does not know
        the texts ``"nan"``, ``"inf"`` and ``"-inf"``.
    """
    return {
        "event": type(event).__name__,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **_fields(event),
    }


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Layout):
        return _plain(value.to_json())
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


class JsonLines:
    """Observer that writes one JSON object per event and flushes every line.

    Parameters
    ----------
    target : str, pathlib.Path or text file
        A path is appended to (a log may hold several runs) and closed at the last event of a
        run; an open text file, e.g. ``sys.stderr``, is written to and left open.

    Raises
    ------
    nwbflow.errors.TargetError
        The path can't be opened for appending: raised here, before any run has begun.
    """

    def __init__(self, target: str | Path | TextIO) -> None:
        self._path: Path | None = None
        self._file: TextIO | None = None
        if isinstance(target, str | Path):
            self._path = Path(target).absolute()
            self._open(self._path).close()
        else:
            self._file = target

    def __call__(self, event: Event, /) -> None:
        """Write one line."""
        if self._file is None and self._path is not None:
            self._file = self._open(self._path)
        if self._file is not None:
            self._file.write(json.dumps(event_to_json(event), allow_nan=False) + "\n")
            self._file.flush()
        if isinstance(event, RunFinished | RunFailed):
            self.close()

    def close(self) -> None:
        """Close the file if it was opened here; a later event opens it again."""
        if self._path is not None and self._file is not None:
            file, self._file = self._file, None
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _open(path: Path) -> TextIO:
        try:
            return path.open("a", encoding="ascii")
        except OSError as error:
            kind = ErrorKind.FOLDER if isinstance(error, IsADirectoryError) else ErrorKind.IO
            kind = ErrorKind.PERMISSION if isinstance(error, PermissionError) else kind
            raise TargetError(
                f"JSON lines can't be written to {path}: {error.strerror or error}; give another path", kind=kind
            ) from error
