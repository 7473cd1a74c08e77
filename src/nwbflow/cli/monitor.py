"""``--monitor``: the dashboard of a command that writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nwbflow.model.events import Observer
from nwbflow.observe.dashboard import Dashboard, parse_address


@contextmanager
def watched(address: str | None) -> Iterator[tuple[Observer, ...]]:
    """Give the observers that ``--monitor`` asks for, and end them when the command is done.

    Parameters
    ----------
    address : str or None
        ``[HOST:]PORT``; ``None`` where it was not asked for.

    Yields
    ------
    tuple of Observer
        The dashboard, or nothing. Its address has been printed then.

    Raises
    ------
    nwbflow.errors.SettingsError
        If the page can't be shown there; nothing has been written.
    """
    if address is None:
        yield ()
        return
    host, port = parse_address(address)
    with Dashboard(port, host=host) as page:
        yield (page,)
