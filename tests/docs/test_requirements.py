"""docs/requirements.md and the tests' marks agree: no row is called done without a test that proves it."""

import ast
import re
from collections import defaultdict

import pytest
from doc_pages import DOCS, ROOT

STATUSES = {"done", "partly", "later"}
# | W1 | what | how it is proven | priority | status | tests |
ROW = re.compile(r"^\| (?P<id>[A-Z]\d+) \| .+ \| [123] \|(?P<status>[^|]*)\|(?P<tests>[^|]*)\|$")


def rows(text):
    """Return (status, files) by requirement."""
    found = {}
    for line in text.splitlines():
        match = ROW.match(line)
        if match is None:
            assert not re.match(r"^\| [A-Z]\d+ ", line), f"not understood: {line}"
            continue
        assert match["id"] not in found, f"{match['id']} is there twice"
        found[match["id"]] = (match["status"].strip(), re.findall(r"`([^`]+)`", match["tests"]))
    return found


def marks(source):
    """Return the requirements a module's marks name (``pytest.mark.requirement("W1", "W2")``), without running it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="requirement", value=ast.Attribute(attr="mark")), args=names):
                found |= {name.value for name in names if isinstance(name, ast.Constant)}
    return found


def proofs():
    """Return the test files that prove each requirement."""
    found = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in marks(path.read_text(encoding="utf-8")):
            found[name].add(path.relative_to(ROOT / "tests").as_posix())
    return found


@pytest.fixture(scope="module")
def table():
    return rows((DOCS / "requirements.md").read_text(encoding="utf-8"))


def test_every_status_is_known_and_every_row_is_read(table):
    assert {status for status, _ in table.values()} <= STATUSES
    assert len(table) > 40


def test_what_is_done_has_tests_that_say_so(table):
    proven = proofs()
    unproven = [name for name, (status, files) in table.items() if status == "done" and not (files and proven[name])]
    assert not unproven


def test_tests_named_in_a_row_carry_its_mark(table):
    proven = proofs()
    wrong = {name: sorted(set(files) - proven[name]) for name, (_, files) in table.items()}
    assert not {name: files for name, files in wrong.items() if files}


def test_every_mark_names_a_row_that_is_not_later(table):
    wrong = {name: sorted(files) for name, files in proofs().items() if table.get(name, ("later",))[0] == "later"}
    assert not wrong


def test_marks_are_found_wherever_they_stand():
    source = """
pytestmark = [pytest.mark.requirement("A1")]

@pytest.mark.slow
@pytest.mark.requirement("A2", "A3")
def test_one(): ...

@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.requirement("A4"))])
def test_two(x): ...

def helper():
    requirement("A5")
"""
    assert marks(source) == {"A1", "A2", "A3", "A4"}


def test_a_row_without_tests_is_seen():
    assert rows("| W1 | a | b | 1 | done | |") == {"W1": ("done", [])}
    assert rows("| W1 | a | b | 1 | partly | `x/test_y.py` |") == {"W1": ("partly", ["x/test_y.py"])}
