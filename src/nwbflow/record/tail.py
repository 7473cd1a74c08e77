"""Watching a recording from another process: each block once, in order, from the first row to the last."""

from __future__ import annotations

import math
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from nwbflow.errors import ErrorKind, SettingsError, StorageError, TargetError
from nwbflow.model.data import Array
from nwbflow.record.finished import FinishedSeries
from nwbflow.record.following import Following
from nwbflow.sinks.occupied import journal_path

_SHORTEST, _LONGEST = 0.001, 0.05
"""Pauses while nothing comes, in seconds."""

_PATIENCE = 1.0
"""Seconds in which the recorder may write again what did not become whole."""

_PART = 8
"""A pause is this part of the time since the last block: short beside the time between blocks, whatever that is."""


@dataclass(frozen=True, slots=True, eq=False)
class TailBlock:
    """Some rows of a series, one behind the other.

    Parameters
    ----------
    first : int
        Row of the first of them in the series.
    arrays : dict of str to numpy.ndarray
        The rows of each dataset of the series, shape ``(count, ...)``, by what it is called there: ``"data"``,
        ``"timestamps"``, ``"control"``; of a table, by column.
    """

    first: int
    arrays: dict[str, Array]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, field: str) -> Array:
        """Return the rows of one dataset."""
        return self.arrays[field]


class Tail:
    """Gives the blocks of one series while they are recorded; made by :func:`nwbflow.tail`.

    Iterate over it, or call :meth:`read`, in one thread at a time. Close it, or use it in a ``with`` block.

    Attributes
    ----------
    series : str
        Absolute path of the series, or table, inside the file.
    fields : tuple of str
        Its datasets, as blocks have them.
    row : int
        Row of the next block's first sample.
    ended : bool
        Whether all rows have been given, and the file is finished.
    """

    series: str
    fields: tuple[str, ...]

    def __init__(self, target: Path, source: Following | FinishedSeries, start: int | Literal["now"]) -> None:
        self._target = target
        self._given = 0
        self._last = time.monotonic()
        self._following: Following | None = None
        self._finished: FinishedSeries | None = None
        self.row = 0 if start == "now" else start
        self.ended = False
        if isinstance(source, Following):
            self._following = source
            self.series, self.fields = source.spec.name, tuple(d.field for d in source.spec.datasets)
            if start == "now":
                source.to_end()
                self.row = source.row
            source.row = self.row
        else:
            self._finished = source
            self.series, self.fields = source.series, source.fields
            if start == "now":
                self.row = source.rows

    def read(self, timeout: float | None = None) -> TailBlock | None:
        """Return the next block; wait for it if there is none yet.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; 0 takes what is there.

        Returns
        -------
        TailBlock or None
            ``None`` at the end of the recording (``ended`` is true then), and where the time is over.

        Raises
        ------
        nwbflow.errors.StorageError
            Kind ``INTERRUPTED``: the recorder has gone and left the file unfinished. All rows that can be recovered
            have been given. Other kinds: the journal is damaged or can't be read, rows that were given did not get
            into the file, or it can't be told which file the recording has become.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self.ended:
            block = self._next()
            if block is not None:
                self.row = self._given = block.first + block.count
                self._last = time.monotonic()
                return block
            if not self.ended and not self._moves_on():
                now = time.monotonic()
                if now >= deadline:
                    return None
                time.sleep(min(max((now - self._last) / _PART, _SHORTEST), _LONGEST, deadline - now))
        return None

    def _next(self) -> TailBlock | None:
        """Return the next block if it is there."""
        if self._finished is not None:
            arrays = self._finished.read(self.row)
            self.ended = not arrays
            return TailBlock(self.row, arrays) if arrays else None
        if self._following is None:
            self.ended = True  # closed
            return None
        try:
            found = self._following.read()
        except StorageError:
            if not self._following.gone:
                raise
            return None
        return None if found is None else TailBlock(found.first, dict(zip(self.fields, found.parts, strict=True)))

    def _moves_on(self) -> bool:
        """Look what has become of the recording, as nothing comes; return whether there may be more at once."""
        following = self._following
        if following is None or self._finished is not None:
            return True
        had_ended = following.ended
        if following.gone:
            self._go_on_in_file(following)
            return True
        if had_ended or (following.damaged and time.monotonic() - self._last > _PATIENCE):
            self._complain(following)
        following.look()
        return following.ended  # then what is there has to be read once more, as what it will stay

    def _go_on_in_file(self, following: Following) -> None:
        self._finished = following.finished()
        if self._finished is None:
            raise StorageError(
                f"{self._target}: the recording has ended, but the file it made is not (or not certainly) the one that "
                f"is there now. {self._so_far()}; read the others from that file, if it is the right one",
                kind=ErrorKind.CHANGED,
            )
        following.close()
        self._following = None
        if self._finished.rows < self._given:
            raise StorageError(
                f"{self._target}: the finished file has {self._finished.rows} rows of {self.series}. "
                f"{self._so_far()}: the recorder could not make the last ones safe",
                kind=ErrorKind.MISMATCH,
            )

    def _complain(self, following: Following) -> None:
        """Raise for a recording that gives nothing more, and is not finished."""
        if following.damaged:
            raise StorageError(
                f"{journal_path(self._target)} is damaged behind what has been read. {self._so_far()}; rows up to "
                f"{max(following.beyond, self.row)} had been written. When the recorder has ended: nwbflow recover "
                f"{self._target}",
                kind=ErrorKind.MISMATCH,
            )
        raise StorageError(
            f"{self._target}: the recorder has gone and left the file unfinished. {self._so_far()}, which is all that "
            f"can be recovered; make the file with: nwbflow recover {self._target}",
            kind=ErrorKind.INTERRUPTED,
        )

    def _so_far(self) -> str:
        return f"Rows of {self.series} before {self.row} have been given"

    def close(self) -> None:
        """Stop watching; there are no more blocks then."""
        self.ended = True
        for source in (self._following, self._finished):
            if source is not None:
                source.close()
        self._following = self._finished = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TailBlock:
        block = self.read()
        if block is None:
            raise StopIteration
        return block

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_following"):
            self.close()


def tail(path: str | Path, series: str, *, start: int | Literal["now"] = 0, wait: float = 0.0) -> Tail:
    """Watch one series of a recording, from this or another process: each block once, in order.

    While the recorder runs, blocks come as they were appended, as soon as they are in the journal. When it has
    finished the file, what had not been given yet comes from there (and all rows, if there is no recording any more),
    in blocks as large as a row of chunks. The iteration ends when all rows have been given. Nothing is changed,
    and the recorder is never held up.

    A block is given when it has been written, which may be a little before it is acknowledged with ``sync="full"``:
    it survives the end of the recorder, however it comes, but perhaps not a loss of power in that moment.

    Parameters
    ----------
    path : str or pathlib.Path
        The file that is recorded to; the same as the recorder's.
    series : str
        Name of a series or table with live data; its path, where several have the same name.
    start : int or "now"
        First row to give; or what is appended from now on.
    wait : float
        Seconds to wait for the recording to begin, if there is neither a recording nor a file at `path`.

    Returns
    -------
    Tail
        To iterate over, or to :meth:`~nwbflow.Tail.read` from with a time limit.

    Raises
    ------
    nwbflow.errors.TargetError
        Kind ``MISSING``: there is nothing at `path`.
    nwbflow.errors.SettingsError
        If there is no such series, `start` is no row, or the recording has no journal (``journal=False``).
    nwbflow.errors.StorageError
        If what is there can't be read.
    """
    if not (start == "now" or (isinstance(start, int) and start >= 0)):
        raise SettingsError(f"start={start!r}: give the number of a row, or 'now'", kind=ErrorKind.OPTION)
    target = Path(os.path.realpath(path))
    began = time.monotonic()
    while True:
        following = Following.begin(target, series)
        if following is not None and following.gone:
            following.close()  # it ended in this moment
            continue
        source = following or _finished(target, series)
        if source is not None:
            return Tail(target, source, start)
        waited = time.monotonic() - began
        if waited >= wait:
            raise TargetError(
                f"{target}: there is neither a file nor a recording that has begun ({journal_path(target).name}). Give "
                "the path that is recorded to; wait=60 waits a minute for the recording to begin",
                kind=ErrorKind.MISSING,
            )
        time.sleep(min(_LONGEST, wait - waited))


def _finished(target: Path, series: str) -> FinishedSeries | None:
    """Return a series of the file at a path; nothing if there is no file, or a recording has begun meanwhile."""
    try:
        file = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError(f"{target} can't be opened: {error}", kind=ErrorKind.PERMISSION) from error
    if stat.S_ISDIR(os.fstat(file).st_mode):
        os.close(file)
        raise TargetError(
            f"{target} is a folder (a Zarr store?); only recordings, and HDF5 files, can be watched",
            kind=ErrorKind.FOLDER,
        )
    return FinishedSeries(file, target, series)
