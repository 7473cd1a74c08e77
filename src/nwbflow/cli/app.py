"""The commands, how they are read, and how they end."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from cyclopts import App, CycloptsError

from nwbflow.cli.codes import CODES, FAILED, INTERRUPTED, OK, PIPE_CLOSED, TERMINATED, USAGE
from nwbflow.cli.convert import convert
from nwbflow.cli.demo import demo
from nwbflow.cli.demo_record import demo_record
from nwbflow.cli.inspect import inspect
from nwbflow.cli.links import links
from nwbflow.cli.record import record
from nwbflow.cli.recover import recover
from nwbflow.cli.repack import repack
from nwbflow.cli.screens import err, out, say, show_warnings_as_notes
from nwbflow.cli.upload import upload
from nwbflow.errors import NwbflowError

_HELP = "Write large arrays of NWB files, many times faster and never left broken."
_EPILOGUE = (
    f"{CODES} A write that failed or was ended leaves an older file as it was, and what was written beside it as "
    "NAME.partial, a valid file."
)

app = App(
    name="nwbflow",
    help=_HELP,
    help_epilogue=_EPILOGUE,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
app.command(convert)
app.command(inspect)
app.command(record)
app.command(recover)
app.command(repack)
app.command(links)
app.command(upload)
demos = App(name="demo", help_format="plaintext", help_epilogue=_EPILOGUE)
demos.default(demo)
demos.command(demo_record, name="record")
app.command(demos)


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    tokens : sequence of str, optional
        The command line without the program's name; by default this process's.

    Returns
    -------
    int
        The exit code.
    """
    signal.signal(signal.SIGTERM, _end)
    show_warnings_as_notes()
    try:
        code = app(
            list(sys.argv[1:] if tokens is None else tokens),
            console=out(),
            error_console=err(),
            exit_on_error=False,
        )
        sys.stdout.flush()
    except CycloptsError:
        return USAGE  # cyclopts has said what is wrong
    except NwbflowError as error:
        return _say(error, _as_options(str(error)), FAILED)
    except KeyboardInterrupt as error:
        return _say(error, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
        return PIPE_CLOSED
    except OSError as error:
        return _say(error, f"{error.filename or 'input/output'}: {error.strerror or error}", FAILED)
    except SystemExit as error:
        return _say(error, "ended by SIGTERM", TERMINATED) if error.code == TERMINATED else _code(error)
    except Exception as error:
        _say(error, f"{type(error).__name__}: {error}", FAILED)
        say(err(), ("This is no error nwbflow expects; please report it with this:\n" + traceback.format_exc(), "dim"))
        return FAILED
    return code if isinstance(code, int) else OK


def _end(number: int, frame: FrameType | None) -> None:
    """Turn the first SIGTERM into an exception, so that what was written is kept; ignore further ones."""
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(TERMINATED)


def _as_options(text: str) -> str:
    """Name options as on the command line where a library's text names keyword arguments."""
    text = re.sub(r"pass ([a-z]+)=True", r"pass --\1", text)
    return re.sub(r"(^|pass )([a-z]+)=", r"\1--\2 ", text)


def _code(error: SystemExit) -> int:
    if error.code is None:
        return OK
    return error.code if isinstance(error.code, int) else FAILED


def _say(error: BaseException, text: str, code: int) -> int:
    """Print an error with its notes; return its exit code."""
    with suppress(BrokenPipeError):
        say(err(), (text, "red"))
        for line in getattr(error, "__notes__", []):
            say(err(), line)
    return code
