"""What every source and stream must refuse."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from nwbflow.errors import ErrorKind, SourceError

_begun: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
# By identity: an iterator may define equality without a hash, or compare equal to another.


def is_first_pass(iterator: Iterator[Any]) -> bool:
    """Note that a pass over `iterator` begins, and return whether it is the first one nwbflow knows of.

    A used-up iterator gives nothing and says nothing, exactly like one that is empty. A generator can be
    asked whether it ended; what allows weak references (generators, objects of most classes) is remembered
    for as long as it lives. A list's iterator, ``map`` and ``zip`` allow neither: for these, the answer is
    always yes.
    """
    if inspect.isgenerator(iterator) and inspect.getgeneratorstate(iterator) == inspect.GEN_CLOSED:
        return False
    if _begun.get(id(iterator)) is iterator:
        return False
    with suppress(TypeError):
        _begun[id(iterator)] = iterator
    return True


def refuse_masked(data: Any, what: str) -> None:
    """Raise if `data` has masked elements: a file has no place for a mask.

    Raises
    ------
    SourceError
        Of kind ``LOSSY``; the text begins with `what`.
    """
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise SourceError(
            f"{what} has masked elements, which can't be stored: fill them first (.filled(value))",
            kind=ErrorKind.LOSSY,
        )
