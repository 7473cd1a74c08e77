"""What ``nwbflow links`` prints for people: tables that fit in 80 columns, states in words, and the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nwbflow.cli.screens import DIM, clean, note, out, say, size
from nwbflow.links.problems import shown
from nwbflow.model.links import LinkKind
from nwbflow.tools.links import (
    BundleReport,
    CheckReport,
    EmbedReport,
    Inventory,
    LinkCheck,
    LinkEntry,
    LinkState,
    RenameReport,
)

_WORDS = {
    LinkState.OK: "ok",
    LinkState.MISSING: "missing",
    LinkState.REFUSED: "refused",
    LinkState.UNREADABLE: "unreadable",
    LinkState.SHORT: "too short",
    LinkState.CYCLE: "in a circle",
    LinkState.CHANGED: "changed",
}
_MOST = 3
"""Targets of one dataset shown in the table."""


def print_listed(found: Sequence[Inventory]) -> None:
    """Print links file by file."""
    console = out()
    for inventory in found:
        say(console, (shown(str(inventory.path)), "bold"), f"  {_count(inventory.links)}")
        if inventory.links:
            console.print(_table(inventory.links))
        for link in inventory.links:
            if link.state is not LinkState.OK:
                _trouble(console, link, link.state, [link.detail])
        for problem in inventory.problems:
            say(console, ("can't be read: ", "red"), shown(problem))


def print_checked(found: Sequence[CheckReport]) -> None:
    """Print what is wrong, file by file, and what was compared."""
    console = out()
    for report in found:
        wrong = [link for link in report.links if not link.ok]
        notes = [(link, text) for link in report.links for text in link.notes]
        if wrong or report.problems:
            say(console, (shown(str(report.path)), "bold"))
        for link in wrong:
            _trouble(console, link.entry, link.state, link.differences)
        for problem in report.problems:
            say(console, ("can't be read: ", "red"), shown(problem))
        for link, text in notes:
            note(f"{shown(str(report.path))}:{shown(link.entry.path)}: {text.replace('pass full=True', 'pass --full')}")
    say(console, _summary(found))


def _summary(found: Sequence[CheckReport]) -> str:
    checks = [link for report in found for link in report.links]
    files = "1 file" if len(found) == 1 else f"{len(found)} files"
    if not checks:
        return f"no links in {files}"
    states = Counter(link.state for link in checks)
    parts = [f"{states[state]} {_WORDS[state]}" for state in LinkState if states[state]]
    lines = [f"{len(checks)} {'link' if len(checks) == 1 else 'links'} in {files}: {', '.join(parts)}"]
    lines += [f"  {text}" for text in _how([link for link in checks if link.ok]) if text]
    return "\n".join(lines)


def _how(fine: Sequence[LinkCheck]) -> list[str]:
    """Say on what it rests that links are called ok."""
    compared = Counter(link.compared for link in fine)
    soft = sum(link.entry.kind is LinkKind.SOFT for link in fine)
    bare = sum(not link.entry.recorded for link in fine) - soft
    partly = compared["no"] - bare - soft
    return [
        f"{compared['all']} ok: content the same, every byte" if compared["all"] else "",
        f"{compared['sample']} ok: content the same in a sample of 64 blocks" if compared["sample"] else "",
        f"{partly} ok: recorded, but content not (or not wholly) compared" if partly else "",
        f"{bare} ok: can be read; nothing was recorded to compare with" if bare else "",
        f"{soft} ok: {'leads' if soft == 1 else 'lead'} to an object of the file itself" if soft else "",
    ]


def print_renamed(found: Sequence[RenameReport], nothing: str, *, dry_run: bool) -> None:
    """Print which names change to which."""
    console = out()
    changed = [report for report in found if report.changes]
    if not changed:
        say(console, f"{nothing} Nothing to do in {len(found)} {'file' if len(found) == 1 else 'files'}.")
        return
    for report in changed:
        say(console, (shown(str(report.path)), "bold"))
        pairs = Counter(pair for change in report.changes for pair in change.names.items())
        for (old, new), count in sorted(pairs.items()):
            say(console, f"  {shown(old)} -> {shown(new)}{f'  ({count} links)' if count > 1 else ''}")
    for text in dict.fromkeys(text for report in changed for text in report.notes):
        note(shown(text))
    total = sum(len(report.changes) for report in changed)
    what = f"{total} {'link' if total == 1 else 'links'} in {len(changed)} {'file' if len(changed) == 1 else 'files'}"
    say(console, f"Would change {what}. Nothing was written (dry run)." if dry_run else f"Changed {what}.")


def print_embedded(report: EmbedReport, *, dry_run: bool) -> None:
    """Print what was embedded."""
    console = out()
    table = _empty(("link\nkind", "from"), "size")
    for item in report.embedded:
        source = f"{item.source}\nsoft link to {item.same_as}" if item.same_as else item.source
        table.add_row(
            _two(shown(item.path), str(item.kind)), clean(shown(source)), "" if item.same_as else size(item.nbytes)
        )
    if report.embedded:
        console.print(table)
    for text in report.notes:
        note(shown(text))
    count = len(report.embedded)
    what = f"{count} {'link' if count == 1 else 'links'}, {size(report.nbytes)}"
    if dry_run:
        say(console, f"Would embed {what}. Nothing was written (dry run).")
    elif not report.written:
        say(console, "There is nothing to embed.")
    else:
        say(console, f"Embedded {what}, in {shown(str(report.path))}.")


def print_bundled(report: BundleReport) -> None:
    """Print what a bundle consists of."""
    console = out()
    table = _empty(("file", "from"), "size")
    for name, source in report.files.items():
        table.add_row(clean(shown(name)), clean(shown(str(source))), size(source.stat().st_size))
    console.print(table)
    files = "1 file" if len(report.files) == 1 else f"{len(report.files)} files"
    what = f"{files}, {size(report.nbytes)}"
    folder = shown(str(report.folder))
    say(console, f"Bundled {what}, in {folder}." if report.written else f"Would bundle {what}, in {folder} (dry run).")
    for text in report.notes:
        note(shown(text))


def _count(links: Sequence[LinkEntry]) -> str:
    if not links:
        return "no links"
    states = Counter(link.state for link in links)
    parts = [f"{states[state]} {_WORDS[state]}" for state in LinkState if states[state]]
    return f"{len(links)} {'link' if len(links) == 1 else 'links'}: {', '.join(parts)}"


def _table(links: Sequence[LinkEntry]) -> Table:
    table = _empty(("link\nkind", "leads to", "state\nrecorded"), "size")
    for link in links:
        targets = [str(target) for target in link.targets[:_MOST]]
        if len(link.targets) > _MOST:
            targets.append(f"and {len(link.targets) - _MOST} more")
        recorded = "" if link.kind is LinkKind.SOFT else "recorded" if link.recorded else "not recorded"
        table.add_row(
            _two(shown(link.path), str(link.kind)),
            clean("\n".join(targets)),
            _two(_WORDS[link.state], recorded),
            "" if link.nbytes is None else size(link.nbytes),
        )
    return table


def _empty(left: Sequence[str], right: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for heading in left:
        table.add_column(Text(heading), overflow="fold")
    table.add_column(Text(right), justify="right", no_wrap=True)
    return table


def _two(first: str, second: str) -> Text:
    return Text("\n").join([clean(first), Text(clean(second).plain, DIM)]) if second else clean(first)


def _trouble(console: Console, link: LinkEntry, state: LinkState, texts: Sequence[str]) -> None:
    say(console, (f"{_WORDS[state]}: ", "red"), shown(link.path))
    for text in texts:
        say(console, f"  {text}")
    if link.mend:  # whole, so that a command in it can be copied
        console.print(Text(f"  {clean(link.mend).plain}"), soft_wrap=True)
    elif state is LinkState.CHANGED:
        say(console, "  Restore what was linked; or, if the new one is right, link it again (nwbflow.link).")
