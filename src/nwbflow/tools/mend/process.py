"""The process that mends: without threads, so that it can fork, and without the state of the program that asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import nwbflow
from nwbflow import errors
from nwbflow.errors import ErrorKind, NwbflowError, StorageError

_START = "import sys; sys.path[:] = {path!r}; from nwbflow.tools.mend.process import main; main()"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def mend_apart(source: Path, building: Path) -> dict[str, Any]:
    """Do what :func:`nwbflow.tools.mend.mend.mend` does, in another process.

    Parameters
    ----------
    source, building : pathlib.Path
        As there.

    Raises
    ------
    nwbflow.errors.NwbflowError
        As there; a :class:`nwbflow.errors.StorageError` also if that process died.
    """
    home = str(Path(nwbflow.__file__).parent.parent)
    start = _START.format(path=[*sys.path, home])
    with subprocess.Popen(
        [sys.executable, "-c", start],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | _ONE_THREAD,
        start_new_session=True,
    ) as process:
        try:
            request = {"source": str(source), "building": str(building), "parent": os.getpid()}
            answer, said = process.communicate(json.dumps(request).encode() + b"\n")
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    try:
        found = json.loads(answer)
    except ValueError:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        text = f"{source}: the process that mends it ended ({process.returncode}) {last}; try again"
        raise StorageError(text, kind=ErrorKind.IO) from None
    if "error" in found:
        raise _error(found)
    return dict(found)


def _error(found: dict[str, Any]) -> NwbflowError:
    error: NwbflowError = getattr(errors, found["error"])(found["text"], kind=ErrorKind(found["kind"]))
    for note in found["notes"]:
        error.add_note(note)
    return error


def main() -> None:
    """Mend what standard input asks for, and say on standard output what came of it."""
    import warnings

    from nwbflow.tools.mend.isolated import end_with
    from nwbflow.tools.mend.mend import mend

    warnings.simplefilter("ignore")
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed is no answer
    request = json.loads(sys.stdin.readline())
    end_with(request["parent"])
    try:
        found = mend(Path(request["source"]), Path(request["building"]))
    except NwbflowError as error:
        notes = getattr(error, "__notes__", [])
        found = {"error": type(error).__name__, "text": str(error), "kind": error.kind.value, "notes": notes}
    with os.fdopen(answer, "w") as file:
        json.dump(found, file)
