"""Open files in stock PyNWB in a separate process, many in a row; survive crashes and hangs of it.

As a script: reads one JSON request a line (``{"path": ..., "data": bool}``), answers one a line.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Seen:
    """What stock PyNWB saw in a file.

    Parameters
    ----------
    error : str
        Empty if it opened and every series could be touched.
    shapes : dict
        Shape of each series' data, by name.
    checksums : dict
        CRC-32 of each series' data, by name; only if they were asked for.
    times : dict
        Number and CRC-32 of each series' time stamps, if it has any; only if data were asked for.
    """

    error: str = ""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)
    times: dict[str, tuple[int, int]] = field(default_factory=dict)


class Reader:
    """A process that opens files, started again when it dies or hangs."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def open(self, path: Path, *, data: bool = False) -> Seen:
        """Open `path` in the other process; read all data too if asked for."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"path": str(path), "data": data}) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], self._seconds)
        answer = self._process.stdout.readline() if ready else ""
        if not answer:
            code = self._stop()
            return Seen(error="the reading process " + (f"died with code {code}" if ready else "hung"))
        content = json.loads(answer)
        shapes = {name: tuple(shape) for name, shape in content["shapes"].items()}
        times = {name: (count, crc) for name, (count, crc) in content["times"].items()}
        return Seen(content["error"], shapes, content["checksums"], times)

    def _stop(self) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        process.stdout.close()
        return code


def look(path: str, *, data: bool) -> dict[str, Any]:
    """Open one file in this process and touch every series."""
    import zlib

    import numpy as np
    from pynwb import NWBHDF5IO, TimeSeries

    seen: dict[str, Any] = {"error": "", "shapes": {}, "checksums": {}, "times": {}}
    try:
        with NWBHDF5IO(path, "r") as io:
            for item in io.read().objects.values():
                if isinstance(item, TimeSeries):
                    seen["shapes"][item.name] = item.data.shape
                    if data:
                        seen["checksums"][item.name] = zlib.crc32(np.ascontiguousarray(item.data[...]).tobytes())
                    if data and item.timestamps is not None:
                        stamps = np.ascontiguousarray(item.timestamps[...])
                        seen["times"][item.name] = (len(stamps), zlib.crc32(stamps.tobytes()))
    except Exception as error:
        seen["error"] = f"{type(error).__name__}: {error}"
    return seen


def _serve() -> None:
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(look(request["path"], data=request["data"])), flush=True)


if __name__ == "__main__":
    _serve()
