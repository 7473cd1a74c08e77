"""What PyNWB remembers of an earlier write or read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hdmf.build import BuildManager
from hdmf.container import AbstractContainer, Data
from hdmf.data_utils import DataIO

from nwbflow.errors import ErrorKind, LinkError, TargetError


def notice_new_wrappers(container: object) -> None:
    """Mark containers whose data were wrapped since they were read (``set_data_io``) as modified.

    HDMF does not: its export would copy the old dataset and drop the new settings in silence.

    Parameters
    ----------
    container : AbstractContainer
        The root to be exported.
    """
    for item in _tree(container) if isinstance(container, AbstractContainer) else ():
        held = [*item.fields.values(), item.data] if isinstance(item, Data) else item.fields.values()
        if not item.modified and any(isinstance(value, DataIO) for value in held):
            item.set_modified()


def forget_earlier_write(container: object, source: str | None) -> None:
    """Let containers made in memory be written again, to another file.

    HDMF notes on every container the file it was written to, and refuses a second one. That note
    matters for containers that were read from a file (they become links); for those made in memory
    it only says that they were written once.

    Parameters
    ----------
    container : AbstractContainer
        The root to be written.
    source : str or None
        The file it is going to.
    """
    if not isinstance(container, AbstractContainer):
        return  # HDMF says what it expects
    earlier = container.container_source
    if earlier is None or earlier == source or container.read_io is not None:
        return
    for item in _tree(container):
        if item.container_source == earlier and item.read_io is None:
            # there is no public way to take the note back
            item._AbstractContainer__container_source = None


def refuse_read_from(container: object, source: str | None) -> None:
    """Refuse to replace a file by what was read from it: what was not changed since would be missing.

    Parameters
    ----------
    container : AbstractContainer
        The root to be written.
    source : str or None
        The file it is going to.

    Raises
    ------
    nwbflow.errors.TargetError
        If anything in it was read from that file.
    """
    if not isinstance(container, AbstractContainer) or source is None:
        return
    root = [container] if container.read_io is not None else []
    for item in [*root, *(guest for guest, _ in _guests(container))]:
        read_from = item.container_source
        if read_from is not None and Path(os.path.realpath(read_from)) == Path(os.path.realpath(source)):
            raise TargetError(
                f"{source}: {item.name!r} was read from this file and lies in it, so it can't be written over it. "
                "Export to another name (io.export(src_io=..., nwbfile=...)), or add to the file with mode 'r+'",
                kind=ErrorKind.EXISTS,
            )


def manager_of_guests(container: object) -> BuildManager | None:
    """Return what has read the containers of other files in `container`: only that can make links to them.

    Parameters
    ----------
    container : AbstractContainer
        The root to be written.

    Returns
    -------
    BuildManager or None
        ``None`` where there are none.

    Raises
    ------
    nwbflow.errors.LinkError
        If two objects have read them, each knowing only its own.
    """
    if not isinstance(container, AbstractContainer):
        return None
    found = {id(io.manager): guest for guest, io in _guests(container)}
    if len(found) > 1:
        names = ", ".join(f"{guest.name!r} of {guest.container_source}" for guest in found.values())
        raise LinkError(
            f"{names} were read separately, so no file can link to both. Open their files with one manager: "
            "manager = pynwb.get_manager(); NWBHDF5IO(path, 'r', manager=manager)",
            kind=ErrorKind.FOREIGN,
        )
    return next((io.manager for _, io in _guests(container)), None)


def _guests(root: AbstractContainer) -> Iterator[tuple[Any, Any]]:
    """Give the containers that were read from a file and added to one made in memory, and what has read them."""
    for item in _tree(root):
        for value in item.fields.values() if item.get_read_io() is None else ():
            several = isinstance(value, list | tuple) and value and isinstance(value[0], AbstractContainer)
            for guest in value.values() if isinstance(value, dict) else value if several else [value]:
                if isinstance(guest, AbstractContainer) and (io := guest.get_read_io()) is not None:
                    yield guest, io


def _tree(root: AbstractContainer) -> Iterator[Any]:
    """Give a container and everything below it, each once."""
    stack: list[Any] = [root]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if id(item) not in seen:
            seen.add(id(item))
            stack.extend(item.children)
            yield item
