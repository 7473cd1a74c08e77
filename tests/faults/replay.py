"""Rebuild a folder as it was after every operation of a log: each point at which a kill could hit.

Fault model PREFIX (:func:`replay`): whatever a process handed to the kernel before it was killed survives, in
order, and nothing else. With ``torn`` a write may also have got only as far as a page boundary inside it.

Fault model SUBSET (:func:`power_cut`): what was synced survives a loss of power. Of the rest, any part of the
writes into a file survives, in whole pages; and of the names made, changed and removed in a folder, the first so many.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Collection, Iterator, Sequence
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


def power_cut(
    log: Sequence[Operation],
    initial: Path,
    target: Path,
    *,
    chance: random.Random,
    keep: Collection[str] = (),
) -> None:
    """Rebuild a folder as a loss of power right after the last operation of `log` could have left it.

    Parameters
    ----------
    log : sequence of Operation
        What the process did until then.
    initial : pathlib.Path
        The folder as it was before, all of it on disk.
    target : pathlib.Path
        Where to rebuild it; is made anew.
    chance : random.Random
        Decides what of the rest survives.
    keep : collection of str
        Files of the test itself, of which nothing is lost.
    """
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(initial, target)
    owners = _owners(log)
    last_sync = {owner: index for index, owner in enumerate(owners) if log[index].kind is Kind.FSYNC}
    names = [i for i, o in enumerate(log) if o.kind in CHANGES and o.kind not in (Kind.WRITE, Kind.TRUNCATE)]
    pending = [i for i in names if i > last_sync.get(owners[i], -1) and log[i].path not in keep]
    dropped = set(pending[chance.randint(0, len(pending)) :])
    gone: set[str] = set()  # owners whose creation was lost
    for index, operation in enumerate(log):
        owner = owners[index]
        if operation.kind not in CHANGES or owner in gone:
            continue
        if index in dropped:
            if operation.kind is Kind.CREATE:
                gone.add(_file_of(log, index))
            continue
        synced = operation.path in keep or index <= last_sync.get(owner, -1)
        pieces = [operation] if synced or operation.kind is not Kind.WRITE else _survivors(operation, chance)
        for piece in pieces:
            with contextlib.suppress(FileNotFoundError, FileExistsError):  # where it depends on what was lost
                apply(piece, target)


def _file_of(log: Sequence[Operation], index: int) -> str:
    return f"file {index} {log[index].path}"


def _owners(log: Sequence[Operation]) -> list[str]:
    """Return for each operation what must be synced to make it last: a file, whatever its name is then, or a folder."""
    files: dict[str, str] = {}
    owners = []
    for index, operation in enumerate(log):
        folder = operation.path.rpartition("/")[0]
        match operation.kind:
            case Kind.WRITE | Kind.TRUNCATE:
                owners.append(files.get(operation.path, f"file {operation.path}"))
            case Kind.FSYNC:
                owners.append(files.get(operation.path, operation.path or ""))
            case _:
                owners.append(folder)
        if operation.kind is Kind.CREATE:
            files[operation.path] = _file_of(log, index)
        elif operation.kind is Kind.RENAME:
            moved = {name: file for name, file in files.items() if (name + "/").startswith(operation.path + "/")}
            for name, file in moved.items():
                del files[name]
                files[operation.second + name[len(operation.path) :]] = file
    return owners


def _survivors(operation: Operation, chance: random.Random) -> Iterator[Operation]:
    """Give the pages of a write that reached the disk: all, none, or some."""
    mood = chance.random()
    at = 0
    while at < len(operation.data):
        end = min(len(operation.data), at + PAGE - (operation.offset + at) % PAGE)
        if mood < 0.3 or (mood < 0.7 and chance.random() < 0.5):
            yield Operation(operation.kind, operation.path, offset=operation.offset + at, data=operation.data[at:end])
        at = end
