"""Every Python and nwbflow command block of the documentation runs, page by page, and prints what the page says."""

import contextlib
import doctest
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import code_blocks, name_of, pages

RUN = ("python", "bash")
# page -> reasons of the blocks that are not run
ALLOWED = {
    "README.md": ["installs packages", "sets up an environment of its own"],
    "CONTRIBUTING.md": ["sets up an environment of its own"],
    "docs/how-to/dask.md": ["installs packages"],
    "docs/how-to/monitor.md": ["listens on the network"],
    "docs/how-to/mpi.md": ["installs packages", "needs a cluster", "needs a Slurm cluster", "builds h5py"],
    "docs/how-to/record-streams.md": ["needs an LSL stream", "waits for clients"],
    "docs/how-to/repack.md": ["needs a file with links"],
    "docs/how-to/raw-in-place.md": ["starts a program of the reader's own"],
    "docs/how-to/s3.md": ["installs packages", "nothing was interrupted on this page"],
    # tests/docs/test_slurm.py runs them, with stand-ins for Slurm's commands
    "docs/how-to/slurm.md": ["a job runs it", *["a job of Slurm"] * 4],
    "docs/how-to/zarr.md": ["installs packages"],
}


def runnable(page):
    return [block for block in code_blocks(page) if block.language in (*RUN, "yaml", "json") and block.reason is None]


@pytest.mark.requirement("Q2")
@pytest.mark.parametrize("page", [p for p in pages() if runnable(p)], ids=name_of)
def test_blocks_run_in_order_and_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in runnable(page):
        printed = run(block, page, namespace)
        if block.output is not None:
            same = doctest.OutputChecker().check_output(block.output, printed, doctest.ELLIPSIS)
            assert same, f"{name_of(page)}:{block.line} printed\n{printed}\nthe page says\n{block.output}"


def run(block, page, namespace):
    if block.language == "python" and not block.title:
        printed = io.StringIO()
        # blank lines in front make line numbers in a traceback those of the page
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        return printed.getvalue()
    if block.language == "bash":
        return run_commands(block, page)
    if block.title:
        Path(block.title).write_text(block.text, encoding="utf-8")
    return ""


def run_commands(block, page):
    where = f"{name_of(page)}:{block.line}"
    assert all(line.startswith(("nwbflow ", "mpirun ", " ", "#")) for line in block.text.splitlines() if line), (
        f"{where}: only nwbflow commands and mpirun are run; mark others with <!-- not run: reason -->"
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", block.text],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{where} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_blocks_that_are_not_run_are_few_and_known():
    found = {name_of(page): [b.reason for b in code_blocks(page) if b.reason is not None] for page in pages()}
    assert {page: reasons for page, reasons in found.items() if reasons} == ALLOWED


def test_a_page_that_prints_something_else_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text title="output"\n2\n```\n')
    first, second = code_blocks(page)
    namespace = {}
    assert first.output is None
    run(first, page, namespace)
    assert (run(second, page, namespace), second.output, second.line) == ("1\n", "2\n", 6)
