"""Which dataset can't be read, where something below stopped without a name."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from nwbflow.errors import ErrorKind, SourceError, UnsupportedError
from nwbflow.tools.repack.contents import Contents, pieces


@contextmanager
def damage_named(contents: Contents, moved: Collection[str]) -> Iterator[None]:
    """Look for a dataset that can't be read, where an error names none.

    HDMF and h5py read small datasets while they write others: what they raise says neither which nor what to do.

    Parameters
    ----------
    contents : Contents
        Of the source.
    moved : collection of str
        Datasets that the engine reads, which names them itself.

    Raises
    ------
    SourceError
        Kind ``IO``, with the dataset. If all can be read, what was raised.
    """
    try:
        yield
    except (OSError, RuntimeError, UnsupportedError) as error:
        for path, item in contents.objects.items():
            if item.shape is None or path in moved or item.elsewhere or item.kind is None or item.kind.sort == "other":
                continue
            try:
                for region in pieces(item.shape):
                    item.read(region)
            except (OSError, RuntimeError) as damage:
                raise SourceError(
                    f"{path} of {contents.name} can't be read: {damage}. To save what can be: nwbflow recover "
                    f"{contents.name}",
                    kind=ErrorKind.IO,
                ) from error
        raise
