"""What every command says about itself, and how commands end."""

import inspect as signatures
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import nwbflow as package
from nwbflow.cli import app as cli
from nwbflow.cli.convert import convert
from nwbflow.cli.demo import demo
from nwbflow.cli.inspect import inspect
from nwbflow.cli.record import record
from nwbflow.cli.recover import recover
from nwbflow.cli.repack import repack
from nwbflow.errors import ErrorKind, TargetError

COMMAND = Path(sys.executable).with_name("nwbflow")
OPTIONS = {"all_": "--all", "out_folder": "--out", "raw": "RAW", "in_file": "IN", "out_file": "OUT", "file": "FILE"}


@pytest.mark.requirement("T4")
@pytest.mark.parametrize("command", [convert, demo, inspect, record, recover, repack], ids=lambda c: c.__name__)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_names_every_option_and_the_exit_codes_and_fits(command, columns, nwbflow):
    done = nwbflow(command.__name__, "--help", columns=columns)
    assert (done.code, done.err) == (0, "")
    for name in signatures.signature(command).parameters:
        option = OPTIONS.get(name, "--" + name.replace("_", "-"))
        assert re.search(rf"{option}\b", done.out), option
    told = " ".join(done.out.split())
    for code in ("0 all went well", "1 failed", "2 the command line", "130 interrupted", "143 told to end (SIGTERM)"):
        assert code in told
    assert max(len(line.rstrip()) for line in done.out.splitlines()) <= columns


@pytest.mark.requirement("T4")
def test_the_command_alone_lists_its_commands(nwbflow):
    done = nwbflow()
    assert done.code == 0
    for name in ("convert", "demo", "inspect", "links", "record", "recover", "repack", "upload"):
        assert re.search(rf"\b{name}\b", done.out)


@pytest.mark.requirement("T4")
@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("frobnicate",), "frobnicate"),
        (("inspect",), "FILE"),
        (("inspect", "a.nwb", "--depth", "3"), "--depth"),
        (("convert", "a.bin", "a.nwb", "--dtype", "int16", "--channels", "x", "--rate", "1"), "--channels"),
        (("convert", "a.bin", "a.nwb"), "--dtype"),
        (("convert", "a", "b", "--dtype", "int16", "--channels", "1", "--rate", "1", "--kind", "video"), "--kind"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(args, text, nwbflow):
    done = nwbflow(*args)
    assert (done.code, done.out) == (2, "")
    assert text in done.err
    assert "Traceback" not in done.err


@pytest.mark.requirement("T4")
@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "nwbflow.cli"]], ids=["script", "module"])
def test_the_installed_command_says_its_version(command):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{package.__version__}\n", "")


@pytest.mark.requirement("T4")
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_closed_pipe_ends_a_command_quietly(extra, realdata):
    file = realdata / "pynapple_A8604-211122.nwb"
    with subprocess.Popen(
        [COMMAND, "inspect", file, "--all", *extra], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.fixture
def unchanged_process(monkeypatch):
    """Undo what the command changes in its process."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.requirement("T4")
@pytest.mark.usefixtures("unchanged_process")
def test_an_error_nobody_expects_asks_for_a_report_with_its_place(monkeypatch, capsys):
    def broken(*_, **__):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(cli, "app", broken)
    assert cli.main([]) == 1
    err = capsys.readouterr().err
    assert err.startswith("ZeroDivisionError: by nothing\n")
    assert "please report it" in err
    assert "in broken" in err


@pytest.mark.requirement("T4")
@pytest.mark.usefixtures("unchanged_process")
def test_notes_of_an_error_are_printed_after_it(monkeypatch, capsys):
    def refuse(*_, **__):
        error = TargetError("x.nwb exists; pass overwrite=True to replace it", kind=ErrorKind.EXISTS)
        error.add_note("kept: x.nwb.partial")
        raise error

    monkeypatch.setattr(cli, "app", refuse)
    assert cli.main([]) == 1
    assert capsys.readouterr().err == "x.nwb exists; pass --overwrite to replace it\nkept: x.nwb.partial\n"
