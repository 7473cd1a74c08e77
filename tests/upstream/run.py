"""Run HDMF's, PyNWB's and hdmf-zarr's own tests with nwbflow's classes in the place of theirs, and compare.

Usage::

    python tests/upstream/run.py [--fast] [--package hdmf|pynwb|hdmf-zarr] [--swap nwbflow|control|broken] [--keep DIR]

The source distributions of the *installed* versions are fetched with pip (once; they are kept in
``.cache/upstream``), unpacked twice, and their tests run as they are and with :file:`swap_plugin.py`.
The outcomes are compared test by test: a test that fails in both runs (a missing optional package)
is no difference. Exit code: 0 no unexpected difference, 1 some, 2 the comparison could not be made.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "upstream"
PACKAGES = ("hdmf", "pynwb", "hdmf-zarr")

NEEDS_NETWORK = {
    "hdmf": ("tests/unit/test_io_hdf5_streaming.py",),
    "pynwb": ("tests/integration/ros3", "tests/read_dandi"),
    "hdmf-zarr": ("tests/unit/test_fsspec_streaming.py",),
}
"""Left out: these fetch files from a public archive."""

FAST = {
    "hdmf": ("tests",),
    "pynwb": ("tests/integration/hdf5/test_io.py", "tests/integration/hdf5/test_modular_storage.py"),
    "hdmf-zarr": ("tests/unit/test_zarrio.py",),
}
"""What ``--fast`` runs: about half a minute."""

EXPECTED: dict[str, str] = {}
"""Tests (``package::module.Class::name``) whose outcome may differ, each with the reason."""

SEVERITY = ("absent", "skipped", "passed", "failed", "error")


class CannotRunError(Exception):
    """The comparison could not be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended.

    Parameters
    ----------
    result : str
        One of ``SEVERITY``.
    detail : str
        First line of the error or of the reason for skipping.
    """

    result: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """One test whose outcome differs."""

    test: str
    stock: Outcome
    swapped: Outcome


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of one package's tests, side by side.

    Parameters
    ----------
    package : str
        Name and version.
    stock, swapped : Counter
        Number of tests by result.
    differences : tuple of Difference
        The tests whose results differ, in alphabetical order.
    wrote : int
        Number of tests in which a swapped class wrote something.
    """

    package: str
    stock: Counter[str]
    swapped: Counter[str]
    differences: tuple[Difference, ...]
    wrote: int


def fetch(package: str) -> Path:
    """Return the source distribution of the installed `package`, downloading it if it is not kept yet.

    Raises
    ------
    CannotRunError
        If pip can't deliver it (no network, no pip).
    """
    version = importlib.metadata.version(package)
    archive = CACHE / f"{package.replace('-', '_')}-{version}.tar.gz"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package]
            done = subprocess.run(
                [*command, "--dest", folder, f"{package}=={version}"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise CannotRunError(f"the source distribution of {package} {version} could not be fetched: {reason}")
            (Path(folder) / archive.name).replace(archive)
    return archive


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the tests and the settings of a source distribution; return its root."""
    root = archive.name.removesuffix(".tar.gz")
    wanted = (f"{root}/tests/", f"{root}/pyproject.toml")
    with tarfile.open(archive) as tar:
        members = [m for m in tar.getmembers() if m.name.startswith(wanted)]
        tar.extractall(folder, members=members, filter="data")
    return folder / root


def run_tests(root: Path, package: str, paths: Sequence[str], swap: str | None) -> dict[str, Outcome]:
    """Run the tests of `package` below `root`, with the classes swapped unless `swap` is None."""
    report = root / "report.xml"
    # Their own settings file, named, so that no other one further up is found.
    command = [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", "--rootdir", ".", "--tb=short"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest", "--timeout=300"]
    command += [f"--ignore={path}" for path in NEEDS_NETWORK[package]]
    command += [f"--junit-xml={report.name}", *(["-p", "swap_plugin"] if swap else []), *paths]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_") and k != "PYTHONWARNINGS"}
    # Some upstream tests start the package's own commands.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    if swap:
        environment |= {"PYTHONPATH": str(HERE), "NWBFLOW_SWAP": swap, "NWBFLOW_SWAP_REPORT": str(root / "wrote.txt")}
        environment |= {"NWBFLOW_SWAP_PACKAGE": package}
    with (root / "log.txt").open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(
                command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=1800
            )
        except subprocess.TimeoutExpired as error:
            raise CannotRunError(f"the tests of {package} did not end within half an hour") from error
    if done.returncode not in (0, 1) or not report.exists():
        tail = "\n".join((root / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
        raise CannotRunError(f"the tests of {package} broke off with exit code {done.returncode}:\n{tail}")
    return read_report(report)


def read_report(path: Path) -> dict[str, Outcome]:
    """Read a JUnit report; of several entries for one test (subtests, teardown) the worst counts."""
    outcomes: dict[str, Outcome] = {}
    for case in ET.parse(path).iter("testcase"):
        test = f"{case.get('classname')}::{case.get('name')}"
        outcome = _outcome(case)
        seen = outcomes.get(test, Outcome("absent"))
        if SEVERITY.index(outcome.result) > SEVERITY.index(seen.result):
            outcomes[test] = outcome
    return outcomes


def _outcome(case: ET.Element) -> Outcome:
    for tag, result in (("error", "error"), ("failure", "failed"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            lines = (found.get("message") or found.text or "").strip().splitlines()
            return Outcome(result, lines[0] if lines else "")
    return Outcome("passed")


def differences(package: str, stock: Mapping[str, Outcome], swapped: Mapping[str, Outcome]) -> tuple[Difference, ...]:
    """Return the tests whose results differ; ids get the package's name in front."""
    absent = Outcome("absent")
    pairs = ((test, stock.get(test, absent), swapped.get(test, absent)) for test in sorted({*stock, *swapped}))
    return tuple(Difference(f"{package}::{test}", a, b) for test, a, b in pairs if a.result != b.result)


def compare(package: str, folder: Path, *, fast: bool, swap: str, paths: Sequence[str] = ()) -> Comparison:
    """Run the tests of one package twice, at once, in two folders, and compare.

    Parameters
    ----------
    package : str
        ``hdmf``, ``pynwb`` or ``hdmf-zarr``.
    folder : pathlib.Path
        Where to unpack and run.
    fast : bool
        Run only the part about files and iterators.
    swap : str
        What to put in place of the classes; see :file:`swap_plugin.py`.
    paths : sequence of str, optional
        Run only these files of the distribution.

    Raises
    ------
    CannotRunError
        If a run breaks off.
    """
    archive = fetch(package)
    chosen = paths or (FAST[package] if fast else ("tests",))
    roots = [unpack(archive, folder / name) for name in ("stock", "swapped")]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run_tests, root, package, chosen, kind) for root, kind in zip(roots, (None, swap), strict=True)
        ]
        stock, swapped = (run.result() for run in runs)
    wrote = len((roots[1] / "wrote.txt").read_text(encoding="utf-8").splitlines())
    return Comparison(
        package=roots[0].name,
        stock=Counter(o.result for o in stock.values()),
        swapped=Counter(o.result for o in swapped.values()),
        differences=differences(package, stock, swapped),
        wrote=wrote,
    )


def table(comparison: Comparison) -> str:
    """Return the comparison as text."""
    lines = [
        f"{comparison.package}: {max(comparison.stock.total(), comparison.swapped.total())} tests, "
        f"{comparison.wrote} of them wrote through a swapped class, {len(comparison.differences)} differ"
    ]
    lines.append("  stock:  " + _counts(comparison.stock))
    lines.append("  swapped:" + _counts(comparison.swapped))
    for difference in comparison.differences:
        lines.append(f"  {difference.test}")
        lines.append(f"      stock:   {difference.stock.result} {difference.stock.detail}".rstrip())
        lines.append(f"      swapped: {difference.swapped.result} {difference.swapped.detail}".rstrip())
        if difference.test in EXPECTED:
            lines.append(f"      expected: {EXPECTED[difference.test]}")
    return "\n".join(lines)


def _counts(counts: Counter[str]) -> str:
    return "".join(f"{counts[result]:6} {result}" for result in SEVERITY[1:])


def unexpected(comparison: Comparison) -> list[Difference]:
    """Return the differences for which no reason is given."""
    return [difference for difference in comparison.differences if difference.test not in EXPECTED]


@contextlib.contextmanager
def _work_folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
            yield Path(folder)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="only HDMF's suite and PyNWB's tests of the I/O class")
    parser.add_argument("--package", choices=PACKAGES, help="only this one")
    parser.add_argument("--swap", choices=("nwbflow", "control", "broken"), default="nwbflow")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave logs and files in DIR")
    options = parser.parse_args(arguments)
    code = 0
    with _work_folder(options.keep) as folder:
        for package in [options.package] if options.package else PACKAGES:
            try:
                comparison = compare(package, folder, fast=options.fast, swap=options.swap)
            except CannotRunError as error:
                print(error, file=sys.stderr)
                return 2
            print(table(comparison), flush=True)
            if unexpected(comparison) or not comparison.wrote:
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
