"""What commands that write a file say at the end."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from nwbflow.cli.screens import DIM, clean, duration, out, ratio, say, shape, size
from nwbflow.encoding.codecs import describe
from nwbflow.model.address import is_address
from nwbflow.model.events import RunFinished
from nwbflow.model.receipt import Receipt
from nwbflow.observe.jsonl import event_to_json
from nwbflow.tools.inspect_store import size_on_disk

_VERIFIED = {"stored": "stored bytes read back", "full": "every value read back", "no": "nothing read back"}


def receipt_to_json(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as JSON-serialisable values."""
    return {
        **event_to_json(RunFinished(receipt=receipt))["receipt"],
        "raw_bytes": receipt.raw_bytes,
        "stored_bytes": receipt.stored_bytes,
        "ratio": receipt.ratio,
    }


def print_receipt(receipt: Receipt) -> None:
    """Print what was stored, and how long it took."""
    stages = (
        f"structure {duration(receipt.structure_seconds)}, samples {duration(receipt.fill_seconds)}, "
        f"verify {duration(receipt.verify_seconds)}, publish {duration(receipt.publish_seconds)}"
    )
    sent = receipt.sent
    if sent is not None:
        here = f", {size(sent.size)}, sent in {sent.parts} {'part' if sent.parts == 1 else 'parts'}"
        here += f", {sent.kept} of them sent before" if sent.kept else ""
    else:
        here = "" if is_address(receipt.path) else f", {size(size_on_disk(receipt.path))}"
    rows = [("written", f"{receipt.path}{here}")]
    for dataset in receipt.datasets:
        layout = dataset.layout
        rows += [
            ("dataset", f"{dataset.name}, {shape(layout.shape)} {layout.dtype.name}"),
            ("chunks", f"{dataset.chunks} of {shape(layout.chunks)}, {describe(layout.filters)}"),
            (
                "stored",
                f"{size(dataset.raw_bytes)} as {size(dataset.stored_bytes)}, ratio {ratio(dataset.ratio)}, "
                f"{_VERIFIED[receipt.verified]}",
            ),
        ]
    rows += [("dataset", f"{name}, its samples stay in {where}") for name, where in receipt.linked.items()]
    if not receipt.datasets and not receipt.linked:
        rows.append(("dataset", "so small that PyNWB wrote it, uncompressed"))
    speed = f", {receipt.raw_bytes / 1e6 / receipt.seconds:.0f} MB/s" if receipt.raw_bytes else ""
    rows.append(("time", f"{duration(receipt.seconds)}{speed} ({stages})"))
    print_rows(rows)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print names and values: a grid in a terminal, lines elsewhere."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=DIM)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, clean(value))
    console = out()
    if console.is_terminal:
        console.print(grid)
    else:
        for name, value in rows:
            say(console, f"{name}: {value}")
