"""Which links and datasets a command is about."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence


class Chosen:
    """Whether a path is to be changed; remembers which patterns were of use.

    Parameters
    ----------
    patterns : sequence of str
        Of paths; none means all.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._unused = list(dict.fromkeys(patterns))

    def __call__(self, path: str) -> bool:
        """Return whether a path matches."""
        fitting = {pattern for pattern in self._patterns if fnmatch.fnmatchcase(path, pattern)}
        self._unused = [pattern for pattern in self._unused if pattern not in fitting]
        return bool(fitting) or not self._patterns

    def missed(self) -> Iterator[str]:
        """Give, of each pattern that matched nothing, that it did."""
        for pattern in self._unused:
            yield f"nothing matches {pattern!r}: see the paths of links, virtual and raw datasets: nwbflow links list"
