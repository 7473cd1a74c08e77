"""What stands for data that can't be read: a broken or refused link raises its error when data are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Never, Self

import numpy as np
from hdmf.data_utils import AbstractDataChunkIterator

from nwbflow.links.problems import BrokenLink
from nwbflow.links.views import BarredDataset

_BUILDING: ContextVar[bool] = ContextVar("building", default=False)


@contextlib.contextmanager
def building() -> Iterator[None]:
    """Surround HDMF's making of containers or builders, which looks at shapes and types: they are unknown then."""
    token = _BUILDING.set(True)
    try:
        yield
    finally:
        _BUILDING.reset(token)


def is_building() -> bool:
    """Return whether HDMF is making containers or builders."""
    return _BUILDING.get()


type Fitting = tuple[tuple[int | None, ...], np.dtype[Any]]
"""A shape and a type that the schema allows."""

ANYTHING: Fitting = ((None,), np.dtype("int64"))
"""Where the schema says nothing."""


class BrokenData(AbstractDataChunkIterator):  # type: ignore[misc]
    """Stands for the data of a link that can't be followed, or of a dataset whose elements can't be read.

    PyNWB takes it as data of unknown length. Whoever asks for its elements, and for its shape and type where they are
    not known, gets the error.

    Parameters
    ----------
    problem : BrokenLink
        What is wrong.
    dataset : BarredDataset or None
        The dataset, where there is one: only its elements are out of reach.
    fitting : (shape, dtype)
        What the schema allows here, lengths unknown: for HDMF, which refuses data without them.
    """

    def __init__(
        self,
        problem: BrokenLink,
        dataset: BarredDataset | None = None,
        fitting: Fitting = ANYTHING,
    ) -> None:
        self.problem = problem
        self.barred = dataset
        self._fitting = fitting
        self._known = None if dataset is None else (dataset.shape, dataset.maxshape, dataset.dtype)

    def __repr__(self) -> str:
        return f"<broken: {self.problem}>"

    def __getattr__(self, name: str) -> Never:
        """Refuse what arrays have; HDMF, which looks for this and that, is told that there is no such thing."""
        if name.startswith("_") or _BUILDING.get():
            raise AttributeError(name)
        self._refuse()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: there are no data to be copied."""
        memo[id(self)] = self
        return self

    @property
    def shape(self) -> Any:
        """Lengths of the axes, in elements, where they are known."""
        return self._fact(0, self._fitting[0])

    @property
    def maxshape(self) -> Any:
        """Lengths the axes may grow to, where they are known."""
        return self._fact(1, None)

    @property
    def dtype(self) -> Any:
        """Type of the elements, where it is known."""
        return self._fact(2, self._fitting[1])

    @property
    def ndim(self) -> int:
        """Number of axes, where it is known."""
        if self._known is None or _BUILDING.get():
            self._refuse()
        return len(self._known[0])

    def _fact(self, index: int, while_building: Any) -> Any:
        if _BUILDING.get():
            return while_building
        if self._known is None:
            self._refuse()
        return self._known[index]

    def _refuse(self) -> Never:
        raise self.problem.as_error()

    def __len__(self) -> int:
        return int(self.shape[0])

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, args: Any) -> Never:
        self._refuse()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Never:
        self._refuse()

    def __iter__(self) -> Never:
        self._refuse()

    def __next__(self) -> Never:
        self._refuse()

    def recommended_chunk_shape(self) -> Never:
        """Refuse."""
        self._refuse()

    def recommended_data_shape(self) -> Never:
        """Refuse."""
        self._refuse()
