"""Appending to one series of a recording, and what that is answered with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nwbflow.errors import DurabilityError, ErrorKind, SettingsError
from nwbflow.record.queues import Place
from nwbflow.record.recording import Recording


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one ``append`` was given: a place in its series, not yet a promise.

    ``await ticket`` waits in a coroutine until the block is safe, and raises what :meth:`wait` raises.

    Parameters
    ----------
    first : int
        Row of the block's first sample in the series; of a dropped block, the row before which it is missing.
    count : int
        Number of rows that were taken: all of the block, or none.
    dropped : int
        Number of rows that were dropped since the queue was full, with ``when_full="drop"``; else 0.
    """

    first: int
    count: int
    dropped: int
    _recording: Recording
    _series: int

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the block is safe, as ``sync`` has it.

        In a recorder with ``journal=False`` it is safe when the chunks its last row is in are full, or the recorder is
        closed: more has to be appended, by another thread perhaps, for this to return.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether it is safe.

        Raises
        ------
        nwbflow.errors.DurabilityError
            If it never will be: the block was dropped (kind ``DROPPED``), or nothing can be made safe any more.
        """
        if self.dropped:
            raise self._was_dropped()
        return self._recording.wait(self._series, self.first + self.count, timeout)

    def __await__(self) -> Generator[Any, None, bool]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> bool:
        if self.dropped:
            raise self._was_dropped()
        return await self._recording.wait_async(self._series, self.first + self.count)

    def _was_dropped(self) -> DurabilityError:
        name = self._recording.manifest.series[self._series].name
        return DurabilityError(
            f"{name}: the {self.dropped} rows of this block were dropped before row {self.first}, since the queue was "
            "full, as when_full='drop' asks for; look at ticket.dropped before waiting",
            kind=ErrorKind.DROPPED,
            durable=self._recording.acknowledged(self._series),
        )


class RecordedSeries:
    """One series or table of a recorder; made by ``recorder[name]``.

    Parameters
    ----------
    name : str
        Absolute path inside the file.
    fields : tuple of str
        Its live datasets: what every append takes.
    """

    def __init__(self, name: str, fields: tuple[str, ...], recording: Recording, position: int) -> None:
        self.name = name
        self.fields = fields
        self._recording = recording
        self._position = position
        self._is_table = recording.manifest.series[position].is_table

    def append(
        self, data: object, *, timestamps: object = None, control: object = None, timeout: float | None = None
    ) -> Ticket:
        """Take one block of samples, or of rows of a table, from any thread.

        What is given in one call goes into the file together or not at all. Blocks of one thread stay in order, and
        nothing comes between the rows of a block. While the queue of the series is full, this waits, or drops the
        block, as ``when_full`` of the recorder says.

        Parameters
        ----------
        data : array_like, or mapping of str to array_like
            Samples, shape ``(k, ...)``. Of a table: for each column its name and k rows, or one row as bare values:
            ``{"start_time": 1.0, "stop_time": 2.0}``. Copied: the caller may use the memory again at once.
        timestamps : array_like
            Shape ``(k,)``, in seconds; exactly if they were declared live.
        control : array_like
            Shape ``(k,)``; exactly if it was declared live.
        timeout : float, optional
            Seconds to wait at most while the queue is full. (Where blocks are dropped, there is no waiting.)

        Returns
        -------
        Ticket
            First row, number of rows, how many were dropped, and a way to wait until they are safe.

        Raises
        ------
        nwbflow.errors.SourceError
            If the block is not what was declared, or larger than the queue. Nothing was taken.
        nwbflow.errors.SettingsError
            If the recorder is closed, or belongs to another process.
        nwbflow.errors.DurabilityError
            If the block can't be taken in time, or nothing can be made safe any more.
        """
        return self._ticket(self._recording.append(self._position, self._in_order(data, timestamps, control), timeout))

    async def append_async(self, data: object, *, timestamps: object = None, control: object = None) -> Ticket:
        """Do as :meth:`append` in a coroutine: while the queue is full, others go on.

        Parameters
        ----------
        data, timestamps, control
            As in :meth:`append`. Copied at once.

        Returns
        -------
        Ticket
            Can be awaited.

        Raises
        ------
        nwbflow.errors.NwbflowError
            As :meth:`append`. If it is cancelled, the block was not taken.
        """
        blocks = self._in_order(data, timestamps, control)
        return self._ticket(await self._recording.append_async(self._position, blocks))

    def extend(self, blocks: Iterable[object], *, timeout: float | None = None) -> int:
        """Append every block of an iterable, till it ends.

        Parameters
        ----------
        blocks : iterable
            Of a series with nothing but data, blocks of samples; else tuples of blocks in the order of ``fields``,
            such as ``(data, timestamps)``, or mappings of field (or column) to block.
        timeout : float, optional
            As in :meth:`append`, for each block.

        Returns
        -------
        int
            Number of rows that were taken.

        Raises
        ------
        nwbflow.errors.NwbflowError
            As :meth:`append`. After that, and after an error of the iterable, what was appended before is recorded.
        """
        rows = 0
        for block in blocks:
            rows += self._recording.append(self._position, self._taken_apart(block), timeout).count
        return rows

    async def extend_async(self, blocks: Iterable[object] | AsyncIterable[object]) -> int:
        """Do as :meth:`extend` in a coroutine, of an asynchronous iterable (or of another one); others go on.

        Parameters
        ----------
        blocks : async iterable or iterable
            As in :meth:`extend`.

        Returns
        -------
        int
            Number of rows that were taken.

        Raises
        ------
        nwbflow.errors.NwbflowError
            As in :meth:`extend`.
        """
        rows = 0
        async for block in _asynchronous(blocks):
            rows += (await self._recording.append_async(self._position, self._taken_apart(block))).count
            await asyncio.sleep(0)  # an iterable that is always ready, and a queue with room, would hold the loop
        return rows

    def _ticket(self, place: Place) -> Ticket:
        return Ticket(place.first, place.count, place.dropped, self._recording, self._position)

    def _taken_apart(self, block: object) -> tuple[object, ...]:
        """Return what one item of an iterable has for each dataset."""
        if self._is_table:
            return self._in_order(block, None, None)
        if isinstance(block, tuple) and len(block) == len(self.fields):
            return block
        if isinstance(block, Mapping) and set(block) == set(self.fields):
            return tuple(block[field] for field in self.fields)
        if isinstance(block, tuple | Mapping) or len(self.fields) > 1:
            names = ", ".join(self.fields)
            raise SettingsError(
                f"{self.name}: a block is a {type(block).__name__}; give tuples ({names}) or mappings of these names",
                kind=ErrorKind.OPTION,
            )
        return (block,)

    def _in_order(self, data: object, timestamps: object, control: object) -> tuple[object, ...]:
        """Return a block for each dataset, in the order of the manifest."""
        given: Mapping[Any, object] = {"data": data, "timestamps": timestamps, "control": control}
        given = {field: block for field, block in given.items() if block is not None}
        if self._is_table:
            if not isinstance(data, Mapping) or len(given) > 1:
                example = ", ".join(f"{field!r}: ..." for field in self.fields)
                raise SettingsError(
                    f"{self.name}: rows of a table are appended as a mapping of its columns: append({{{example}}})",
                    kind=ErrorKind.OPTION,
                )
            given = data
        if set(given) != set(self.fields):
            wrong = [f"{field} is missing" for field in self.fields if field not in given]
            wrong += [f"{field} was not declared live" for field in given if field not in self.fields]
            raise SettingsError(
                f"{self.name}: {'; '.join(wrong)}. With every append it takes {', '.join(self.fields)}"
                + (" (ids are counted by themselves)" if self._is_table and "id" in given else ""),
                kind=ErrorKind.OPTION,
            )
        return tuple(given[field] for field in self.fields)

    @property
    def row_types(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Type and shape of one row of each live dataset, as declared, by field."""
        declared = self._recording.manifest.series[self._position].given
        return {dataset.field: (dataset.layout.dtype, dataset.row_shape) for dataset in declared}

    @property
    def dropped(self) -> int:
        """Number of rows that were dropped since the queue was full."""
        return self._recording.states()[self._position].dropped

    @property
    def acknowledged(self) -> int:
        """Number of rows that are safe: all rows before this one can be recovered, bit for bit."""
        return self._recording.acknowledged(self._position)


async def _asynchronous(blocks: Iterable[object] | AsyncIterable[object]) -> AsyncIterator[object]:
    if isinstance(blocks, AsyncIterable):
        async for block in blocks:
            yield block
    else:
        for block in blocks:
            yield block
