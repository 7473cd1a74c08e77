"""HDMF's and PyNWB's own tests must not notice nwbflow's classes in the place of theirs."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("upstream_run", Path(__file__).with_name("run.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


run = _load()


@pytest.fixture(params=["hdmf", "pynwb", "hdmf-zarr"])
def package(request):
    """Name of a package whose source distribution is at hand."""
    try:
        run.fetch(request.param)
    except run.CannotRunError as error:
        pytest.skip(str(error))
    return request.param


@pytest.mark.slow
@pytest.mark.requirement("W1", "P4")
def test_their_tests_end_alike_with_our_classes(package, tmp_path):
    comparison = run.compare(package, tmp_path, fast=True, swap="nwbflow")
    assert comparison.stock["passed"] > 30
    assert comparison.wrote > 20, "the swapped classes were hardly used: the swap does not work any more"
    assert not run.unexpected(comparison), run.table(comparison)


def test_a_class_that_cannot_write_is_noticed(tmp_path):
    """The comparison bites: a class that refuses to write makes passing tests fail."""
    try:
        run.fetch("hdmf")
    except run.CannotRunError as error:
        pytest.skip(str(error))
    comparison = run.compare("hdmf", tmp_path, fast=True, swap="broken", paths=["tests/unit/test_io_hdf5.py"])
    assert comparison.wrote > 3
    assert len(comparison.differences) == comparison.wrote
    assert all("broken on purpose" in d.swapped.detail for d in comparison.differences), run.table(comparison)


def test_every_kind_of_difference_is_listed():
    outcome = run.Outcome
    stock = {"a": outcome("passed"), "b": outcome("failed", "x"), "c": outcome("passed"), "d": outcome("skipped")}
    swapped = {
        "a": outcome("failed", "boom"),
        "b": outcome("failed", "y"),
        "d": outcome("skipped"),
        "e": outcome("passed"),
    }
    found = run.differences("hdmf", stock, swapped)
    assert [(d.test, d.stock.result, d.swapped.result) for d in found] == [
        ("hdmf::a", "passed", "failed"),
        ("hdmf::c", "passed", "absent"),
        ("hdmf::e", "absent", "passed"),
    ]


def test_the_worst_entry_of_a_test_counts(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="t.C" name="x"><failure message="first&#10;second">text</failure></testcase>'
        '<testcase classname="t.C" name="x"/>'
        '<testcase classname="t.C" name="y"><skipped message="no internet"/></testcase>'
        "</testsuite></testsuites>",
        encoding="utf-8",
    )
    assert run.read_report(report) == {
        "t.C::x": run.Outcome("failed", "first"),
        "t.C::y": run.Outcome("skipped", "no internet"),
    }
