"""MPI: every rank encodes what it has, rank 0 stores."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from nwbflow.engine.afar import Batch, Executor, Kit
from nwbflow.engine.intake import located
from nwbflow.errors import ErrorKind, SourceError
from nwbflow.model.data import Array, Region, Source
from nwbflow.model.layout import Layout
from nwbflow.model.receipt import Receipt
from nwbflow.parallel.manifest import Manifest, Scouted, agreed
from nwbflow.parallel.shares import Encoding, divided_blocks, own_blocks
from nwbflow.parallel.wire import NAP, PATIENCE, Failure, Tag, Wire
from nwbflow.planning.parts import common, lengths_of, within
from nwbflow.sources.arrays import show_region
from nwbflow.sources.parts import PartSource

type Place = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Hello:
    """What a rank says first.

    Parameters
    ----------
    place : tuple of (str, tuple of int)
        Its machine, and the cores it may use there.
    manifest : Manifest or Failure
        What it is about to write.
    """

    place: Place
    manifest: Manifest | Failure


@dataclass(frozen=True, slots=True)
class Encode:
    """Encode what you have of a dataset, with so many threads, and send it."""

    kit: Kit
    part: Region
    threads: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send the elements of a region as they are."""

    name: str
    region: Region


def lead(
    wire: Wire, scout: Callable[[], Scouted], write: Callable[[Executor], Receipt], workers: int | None
) -> Receipt:
    """Write the file on rank 0, and tell the others how it ended.

    Raises
    ------
    BaseException
        Whatever stopped it, here or on another rank.
    """
    try:
        own = scout()
        hellos = {rank: wire.wait(Tag.HELLO, rank, lambda: None) for rank in wire.others}
        for hello in hellos.values():
            if isinstance(hello.manifest, Failure):
                raise hello.manifest.error()
        parts = agreed([own.manifest, *(hellos[rank].manifest for rank in wire.others)])
        threads = share([here(), *(hellos[rank].place for rank in wire.others)], workers)
        with _Gathering(wire, parts, own.sources, threads).connected() as gathering:
            receipt = write(gathering)
        receipt = replace(receipt, notes=(*receipt.notes, f"MPI: {wire.size} ranks encoded, rank 0 stored"))
    except BaseException as error:
        wire.end(Failure.of(error, 0), patience=PATIENCE)
        raise
    wire.end(receipt, patience=PATIENCE)
    return receipt


def follow(wire: Wire, scout: Callable[[], Scouted]) -> Receipt:
    """Do what rank 0 asks for, on all others, and return what it returns.

    Raises
    ------
    BaseException
        Whatever stopped it, on any rank.
    """
    trouble: BaseException | None = None
    try:
        own = scout()
        wire.tell(Hello(here(), own.manifest), 0, Tag.HELLO)
        outcome = _serve(wire, own.sources)
    except BaseException as error:
        trouble = error
        failure = Failure.of(error, wire.rank)
        wire.tell(Hello(here(), failure), 0, Tag.HELLO)
        wire.tell(failure, 0, Tag.TROUBLE)
        outcome = _outcome(wire)
    wire.leave()
    if isinstance(outcome, Receipt) and trouble is None:
        return outcome
    if trouble is not None and not isinstance(trouble, Exception):
        raise trouble  # an interrupt stays one
    if not isinstance(outcome, Failure):
        raise AssertionError("rank 0 finished without what this rank had") from trouble
    raise outcome.error() from trouble


def here() -> Place:
    """Return which machine this is, and the cores this process may use."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return platform.node(), tuple(sorted(cores))


def share(places: Sequence[Place], workers: int | None) -> list[int]:
    """Return the encoding threads of each rank: `workers`, or its share of the cores it may use."""
    ranks = Counter(places)
    return [max(1, len(place[1]) // ranks[place]) if workers is None else workers for place in places]


# --- rank 0 -----------------------------------------------------------------------------------


class _Lane:
    """The blocks of another rank, as they arrive."""

    def __init__(self, wire: Wire, rank: int, blocks: int) -> None:
        self._wire, self._rank, self.left = wire, rank, blocks

    def poll(self) -> Batch | None:
        """Return the next block, if it has come."""
        found = self._wire.hear(Tag.BATCH, self._rank)
        if found is None:
            return None
        self.left -= 1
        batch: Batch = found[1]
        return batch


class _Gathering:
    """All ranks as an executor of rank 0.

    Parameters
    ----------
    wire : Wire
        To the others.
    parts : mapping of str to sequence of tuple of slice
        Which rank has what of the datasets that lie in parts; all else rank 0 has itself.
    sources : mapping of str to Source
        What is here.
    threads : sequence of int
        Encoding threads of each rank.
    """

    name = "MPI"

    def __init__(
        self,
        wire: Wire,
        parts: Mapping[str, Sequence[Region]],
        sources: Mapping[str, Source],
        threads: Sequence[int],
    ) -> None:
        self._wire, self._parts, self._sources, self._threads = wire, parts, sources, threads

    @property
    def workers(self) -> int:
        """Encoding threads of all ranks."""
        return sum(self._threads)

    def begin(self) -> None:
        """Do nothing: all ranks have said hello before."""

    def takes(self, source: Source, /) -> bool:  # noqa: ARG002
        """Whether this is encoded by way of the ranks: all is, what is whole here by rank 0's own threads."""
        return True

    def check(self, name: str, source: Source, layout: Layout, /) -> None:
        """Do nothing: what the ranks have was compared before."""

    @contextmanager
    def connected(self) -> Generator[_Gathering]:
        """Let what is read here of data in parts come from the other ranks."""
        connected = [(n, s) for n in self._parts if isinstance(s := self._sources[n], PartSource)]
        try:
            for name, source in connected:
                source.elsewhere = partial(self._fetch, name, source)
            yield self
        finally:
            for _, source in connected:
                source.elsewhere = None

    def run(self, kit: Kit, source: Source, /) -> Generator[Batch | None]:
        """Yield blocks of all ranks by turns, in an order that depends on nothing but their parts.

        Raises
        ------
        NwbflowError, Exception
            What a rank raised.
        """
        everything = tuple(slice(0, n) for n in kit.layout.shape)
        parts = self._parts.get(kit.name, (everything,))
        with ThreadPoolExecutor(self._threads[0], thread_name_prefix="nwbflow-encode") as pool:
            window = 2 * self._threads[0] + 1
            own = Encoding(pool, window, kit, own_blocks(kit, parts[0]), source.read)
            divided = Encoding(pool, window, kit, divided_blocks(kit, parts), source.read)
            lanes: list[_Lane | Encoding] = [own]
            for rank, part in enumerate(parts):
                if rank and (blocks := own_blocks(kit, part)):
                    self._wire.tell(Encode(kit, part, self._threads[rank]), rank, Tag.COMMAND)
                    lanes.append(_Lane(self._wire, rank, len(blocks)))
            lanes.append(divided)
            try:
                yield from self._by_turns(lanes)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _by_turns(self, lanes: Sequence[_Lane | Encoding]) -> Generator[Batch | None]:
        fed = [lane for lane in lanes if isinstance(lane, Encoding)]
        while lanes := [lane for lane in lanes if lane.left]:
            for lane in lanes:
                while (batch := lane.poll()) is None:
                    self._listen()
                    if not sum(encoding.feed() for encoding in fed):  # all of them
                        time.sleep(NAP)
                        yield None
                for encoding in fed:
                    encoding.feed()  # the threads have work while this one stores
                yield batch

    def _fetch(self, name: str, source: PartSource, region: Region) -> Array:
        """Return elements of which not all are here."""
        found = np.empty(lengths_of(region), source.dtype)
        start = tuple(s.start for s in region)
        asked: list[tuple[int, Region]] = []
        for rank, part in enumerate(self._parts[name]):
            shared = common(part, region)
            if shared is not None and rank:
                self._wire.tell(Fetch(name, shared), rank, Tag.COMMAND)
                asked.append((rank, shared))
            elif shared is not None:
                found[within(shared, start)] = source.read(shared)
        for rank, shared in asked:
            found[within(shared, start)] = self._wire.wait(Tag.PIECE, rank, self._listen)
        return found

    def _listen(self) -> None:
        """Raise what another rank has raised."""
        heard = self._wire.hear(Tag.TROUBLE)
        if heard is not None:
            raise heard[1].error()


# --- all others -------------------------------------------------------------------------------


def _serve(wire: Wire, sources: Mapping[str, Source]) -> Any:
    """Encode and send what rank 0 asks for, until it says how it ended."""
    pool: ThreadPoolExecutor | None = None
    work: Encoding | None = None
    window = 1
    try:
        while True:
            heard = wire.hear(Tag.COMMAND, 0)
            command = None if heard is None else heard[1]
            if isinstance(command, Encode):
                if pool is None:
                    pool = ThreadPoolExecutor(command.threads, thread_name_prefix="nwbflow-encode")
                window = 2 * command.threads + 1
                blocks = own_blocks(command.kit, command.part)
                work = Encoding(pool, window, command.kit, blocks, sources[command.kit.name].read)
            elif isinstance(command, Fetch):
                wire.tell(_piece(sources[command.name], command), 0, Tag.PIECE)
            elif command is not None:
                return command
            busy = command is not None or (work is not None and _advance(wire, work, window))
            if not busy:
                time.sleep(NAP)
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _advance(wire: Wire, work: Encoding, window: int) -> bool:
    """Begin the next block, and send the one that is done; what rank 0 has not taken counts as well."""
    batch = work.poll()
    if batch is not None:
        wire.tell(batch, 0, Tag.BATCH)
    return work.feed(window - wire.unsent) or batch is not None


def _piece(source: Source, command: Fetch) -> Array:
    try:
        data = source.read(command.region)
    except Exception as error:
        raise located(error, command.name, f"in {show_region(command.region)}") from error.__cause__
    if data.shape != lengths_of(command.region):
        raise SourceError(
            f"{command.name}: reading {show_region(command.region)} gave shape {data.shape}", kind=ErrorKind.SHAPE
        )
    return np.ascontiguousarray(data)


def _outcome(wire: Wire) -> Any:
    """Wait for how it ended; nothing else is done any more."""
    while True:
        heard = wire.hear(Tag.COMMAND, 0)
        if heard is not None and not isinstance(heard[1], Encode | Fetch):
            return heard[1]
        time.sleep(NAP)
