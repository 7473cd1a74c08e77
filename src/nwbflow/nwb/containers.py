"""What PyNWB remembers of an earlier write or read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hdmf.container import AbstractContainer, Data
from hdmf.data_utils import DataIO


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
