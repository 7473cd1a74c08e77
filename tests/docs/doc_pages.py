"""The documentation's pages, cut into code blocks."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OUTPUT = 'text title="output"'
NOT_RUN = "<!-- not run: "


@dataclass(frozen=True, kw_only=True)
class CodeBlock:
    """One fenced block.

    Parameters
    ----------
    info : str
        What follows the opening fence, such as ``python`` or ``yaml title="rules.yaml"``.
    text : str
        The lines between the fences.
    line : int
        Number of the first of them in the page.
    output : str or None
        The text of the output block right after it, if there is one.
    reason : str or None
        Why it is not run, if it says so.
    """

    info: str
    text: str
    line: int
    output: str | None = None
    reason: str | None = None

    @property
    def language(self):
        return self.info.split()[0] if self.info else ""

    @property
    def title(self):
        return self.info.partition('title="')[2].partition('"')[0]


def pages():
    """Every page with code that a reader may copy."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page):
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page):
    """Every fenced block of a page in order; output blocks are joined to what they belong to."""
    blocks = []
    fresh = False  # nothing but blank lines since the last block
    reason = None
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    for number, line in lines:
        if line.startswith("```"):
            info = line[3:].strip()
            text = _until_fence(lines, page, number)
            if info == OUTPUT:
                if not fresh:
                    raise ValueError(f"{page}:{number}: an output block follows no block")
                last = blocks.pop()
                blocks.append(CodeBlock(info=last.info, text=last.text, line=last.line, output=text))
            else:
                blocks.append(CodeBlock(info=info, text=text, line=number + 1, reason=reason))
            fresh, reason = info != OUTPUT, None
        elif line.startswith(NOT_RUN):
            reason = line.removeprefix(NOT_RUN).removesuffix(" -->")
        elif line.strip():
            if line.lstrip().startswith("```"):
                raise ValueError(f"{page}:{number}: an indented block would not be run; start it at the margin")
            fresh, reason = False, None
    return blocks


def _until_fence(lines, page, start):
    found = []
    for _, line in lines:
        if line.startswith("```"):
            return "\n".join(found) + "\n"
        found.append(line)
    raise ValueError(f"{page}:{start}: the block has no end")
