"""The documentation builds without a warning, and the site loads nothing from elsewhere."""

import importlib.util
import re
import subprocess
import sys

import pytest
from doc_pages import ROOT

TOOLS = {"mkdocs": "mkdocs", "material": "mkdocs-material", "mkdocstrings": "mkdocstrings[python]"}
LOADED = re.compile(r'<(?:script|img|iframe|source)[^>]* src="?(?://|https?:)|<link[^>]* href="?(?://|https?:)[^>]*>')
IMPORTED = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    missing = [package for module, package in TOOLS.items() if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"building the documentation needs {', '.join(missing)}: pip install --group docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.requirement("Q2")
def test_every_page_is_built(site):
    pages = [p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md")]
    built = [
        site / (p.with_name("index.html") if p.stem == "index" else p.with_suffix("") / "index.html") for p in pages
    ]
    assert len(built) > 10
    assert not [page for page in built if not page.exists()]


def test_nothing_is_loaded_from_elsewhere(site):
    pages = {p: p.read_text(encoding="utf-8") for p in site.rglob("*.html")}
    styles = {p: p.read_text(encoding="utf-8") for p in site.rglob("*.css")}
    assert pages
    assert styles
    loaded = [f"{p.name}: {m.group()}" for p, text in pages.items() for m in LOADED.finditer(text)]
    loaded += [f"{p.name}: {m.group()}" for p, text in styles.items() for m in IMPORTED.finditer(text)]
    assert not loaded
