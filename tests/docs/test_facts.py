"""What the documentation says about the package as a whole is what the package is."""

import json
import re
import subprocess
import sys
import tomllib
from itertools import chain

import pytest
from doc_pages import DOCS, ROOT

import nwbflow
from nwbflow.cli import codes
from nwbflow.errors import ErrorKind
from nwbflow.planning.rules import Rule, rules_schema

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def first_cells(text):
    """What stands in code marks in the first cell of each table row."""
    cells = re.findall(r"^\| *(`[^|]*`) *\|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]*)`", cell)]


def package_name(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement).group()


def test_every_public_name_has_a_reference_entry():
    entries = re.findall(r"^::: (\S+)$", "\n".join(p.read_text() for p in (DOCS / "reference").glob("*.md")), re.M)
    missing = [name for name in nwbflow.__all__ if f"nwbflow.{name}" not in entries]
    assert not missing


def test_every_dependency_has_its_reason():
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [package_name(r) for r in [*PROJECT["project"]["dependencies"], *chain(*extras.values())]]
    rows = re.findall(r"^\|(.*)\|[^|]*\|$", page("explanation/dependencies.md"), re.MULTILINE)
    named = {name for cells in rows for name in re.findall(r"`([^`]*)`", cells)}
    assert named == {*wanted, *extras}


def test_every_room_is_in_the_architecture_and_no_other():
    source = ROOT / "src" / "nwbflow"
    rooms = {p.name for p in source.iterdir() if p.is_dir() and (p / "__init__.py").exists()} | {"errors"}
    table = page("explanation/architecture.md").partition("## Rooms")[2].partition("\n## ")[0]
    assert set(first_cells(table)) == rooms


def test_the_published_schema_of_rules_is_the_one_in_force():
    assert json.loads((DOCS / "reference" / "rules.schema.json").read_text()) == rules_schema()


def test_the_table_of_rule_keys_is_complete():
    assert set(first_cells(page("reference/rules.md"))) == set(Rule.model_fields)


def test_every_kind_of_error_is_explained():
    assert set(first_cells(page("reference/errors.md"))) == {str(kind) for kind in ErrorKind}


@pytest.mark.parametrize("path", sorted((ROOT / "changes").glob("*.md")), ids=lambda p: p.name)
def test_change_fragments_are_named_by_kind(path):
    kinds = "feature|change|fix|docs"
    assert path.name == "README.md" or re.fullmatch(rf"[a-z0-9-]+\.({kinds})\.md", path.name), (
        "see changes/README.md for the names"
    )


COMMANDS = ["convert", "inspect", "record", "recover", "repack", "upload", "demo", "demo record"]
LINKS = ["list", "check", "relocate", "relative", "absolute", "embed", "bundle"]


@pytest.mark.parametrize("command", [*COMMANDS, *(f"links {name}" for name in LINKS)])
def test_every_option_of_a_command_is_explained(command):
    shown = subprocess.run(
        [sys.executable, "-m", "nwbflow.cli", *command.split(), "--help"], capture_output=True, text=True, check=True
    )
    options = set(re.findall(r"--[a-z][a-z-]*", shown.stdout)) - {"--help"}
    text = page("reference/cli.md").partition(f"\n## nwbflow {command}\n")[2].partition("\n## ")[0]
    assert options
    assert options == {name for name in first_cells(text) if name.startswith("--")}


def test_every_exit_code_is_explained():
    text = page("reference/cli.md").partition("\n## Exit codes\n")[2]
    known = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == known
