"""Rebuild a folder as it was after every operation of a log: each point at which a kill could hit.

Fault model PREFIX: whatever a process handed to the kernel before it was killed survives, in order,
and nothing else. With ``torn`` a write may also have got only as far as a page boundary inside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from writelog import CHANGES, Kind, Operation

PAGE = 4096


@dataclass(frozen=True, slots=True)
class Point:
    """The folder after one operation.

    Parameters
    ----------
    index : int
        Position of the operation in the log.
    operation : Operation
        The last one applied.
    folder : pathlib.Path
        The rebuilt folder; it changes when the next point is asked for, so copy what is to stay.
    torn : bool
        Only the front part of the operation's data was applied.
    """

    index: int
    operation: Operation
    folder: Path
    torn: bool = False

    def __str__(self) -> str:
        o = self.operation
        torn = ", torn" if self.torn else ""
        return f"after operation {self.index} ({o.kind.name} {o.path} at {o.offset}, {len(o.data)} bytes{torn})"


def replay(
    log: Sequence[Operation], initial: Path, target: Path, *, every: int = 1, torn: bool = False
) -> Iterator[Point]:
    """Yield the folder after every `every`-th operation that changes it, and after the last one.

    Parameters
    ----------
    log : sequence of Operation
        What the process did.
    initial : pathlib.Path
        The folder as it was before.
    target : pathlib.Path
        Where to rebuild it; is made anew.
    every : int
        Stop after every so many changes; 1 enumerates all points.
    torn : bool
        Stop also in the middle of each chosen write that crosses a page boundary.
    """
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(initial, target)
    changes = [(index, operation) for index, operation in enumerate(log) if operation.kind in CHANGES]
    for count, (index, operation) in enumerate(changes, start=1):
        chosen = count % every == 0 or count == len(changes)
        half = _page_boundary(operation)
        if chosen and torn and half:
            front = Operation(operation.kind, operation.path, offset=operation.offset, data=operation.data[:half])
            apply(front, target)
            yield Point(index, operation, target, torn=True)
        apply(operation, target)
        if chosen:
            yield Point(index, operation, target)


def _page_boundary(operation: Operation) -> int:
    """Return the length of the data up to the page boundary nearest their middle (0 if there is none)."""
    if operation.kind is not Kind.WRITE:
        return 0
    middle = operation.offset + len(operation.data) // 2
    boundary = (middle // PAGE) * PAGE
    return max(0, boundary - operation.offset)


def apply(operation: Operation, folder: Path) -> None:
    """Do to `folder` what `operation` did to the original.

    Raises
    ------
    ValueError
        If it moved a file into the watched folder from elsewhere: its content is not in the log.
    """
    path = folder / operation.path
    second = folder / operation.second
    match operation.kind:
        case Kind.CREATE:
            path.touch(exist_ok=False)
        case Kind.WRITE:
            with path.open("r+b") as file:
                file.seek(operation.offset)
                file.write(operation.data)
        case Kind.TRUNCATE:
            with path.open("r+b") as file:
                file.truncate(operation.offset)
        case Kind.RENAME | Kind.LINK if not operation.path:
            raise ValueError(f"{operation.second} came from outside the watched folder")
        case Kind.RENAME if operation.second:
            path.replace(second)
        case Kind.LINK if operation.second:
            second.hardlink_to(path)
        case Kind.RENAME | Kind.UNLINK:
            path.unlink()
        case Kind.MKDIR:
            path.mkdir()
        case Kind.RMDIR:
            path.rmdir()
        case _:
            pass
