"""One write through HDMF: decide, plan, reserve, fill, verify; and the figures of it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
from hdmf.build import BuildManager, GroupBuilder

from nwbflow.encoding.plugin_names import may_change_values
from nwbflow.engine.afar import Executor
from nwbflow.engine.job import Tally
from nwbflow.engine.run import fill
from nwbflow.engine.settings import Settings
from nwbflow.engine.verify import Verification, verify
from nwbflow.errors import ErrorKind, PlanError, SettingsError
from nwbflow.model.data import Source, Stream
from nwbflow.model.events import Event, RunStarted, Warned
from nwbflow.model.receipt import DatasetReceipt, Receipt, SentFile
from nwbflow.nwb.candidates import Candidate, find, foreign_wrappers, links
from nwbflow.nwb.external import TargetSource
from nwbflow.nwb.layouts import Storage, Wishes, decide
from nwbflow.nwb.reservations import Reservation, job_of, request_of
from nwbflow.nwb.said import Adoption
from nwbflow.nwb.sending import Sending
from nwbflow.planning.memory import Plan, make_plan
from nwbflow.sinks.hdf5 import translated
from nwbflow.sources.arrays import SliceSource
from nwbflow.sources.parts import PartSource

CHECKPOINT_SECONDS = 10.0
"""Least time between two flushes while data that can't be read again are arriving."""

READING_SECONDS = 2.0
"""Reading that takes as long as this, and half of all the time, is worth a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How nwbflow's part of a write is run.

    Parameters
    ----------
    wishes : Wishes
        Profile and rules.
    workers : int
        Encoding threads.
    memory : int
        Allowed for the large arrays on their way, in bytes.
    verify : {"no", "stored", "full"}
        What is read back and compared.
    executor : Executor or None
        Who computes and encodes instead of this process.
    """

    wishes: Wishes
    workers: int
    memory: int
    verify: Verification
    executor: Executor | None = None


def count_workers(workers: int | None) -> int:
    """Return the number of encoding threads: `workers`, or as many as this process may use cores.

    Raises
    ------
    SettingsError
        If `workers` is no whole number of at least 1.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise SettingsError(f"workers={workers!r}: give a whole number of at least 1, or None", kind=ErrorKind.OPTION)
    return workers


def check_verify(level: str) -> Verification:
    """Return `level` if it is one.

    Raises
    ------
    SettingsError
        If it is not "no", "stored" or "full".
    """
    for known in ("no", "stored", "full"):
        if level == known:
            return known
    raise SettingsError(f"verify={level!r}: give 'stored', 'full' or 'no'", kind=ErrorKind.OPTION)


def check_executor(executor: Executor | None) -> Executor | None:
    """Return `executor` if it is one.

    Raises
    ------
    SettingsError
        If it is anything else, such as a Dask client itself.
    """
    if executor is None or all(hasattr(executor, name) for name in ("begin", "takes", "check", "run")):
        return executor
    raise SettingsError(
        f"executor={type(executor).__name__}: give what nwbflow.parallel.dask(client) or nwbflow.parallel.processes() "
        "returns, or None; with nwbflow.parallel.mpi(comm), call nwbflow.write on every rank",
        kind=ErrorKind.OPTION,
    )


@dataclass(slots=True)
class Passage:
    """One builder tree on its way into one file.

    Parameters
    ----------
    path : pathlib.Path
        The file's final name.
    options : Options
        How to run.
    emit : callable
        Takes events.
    folder : pathlib.Path or None
        Where a new file grows; ``None`` for a file written in place.
    sending : Sending, optional
        What takes the finished file to an object store.
    """

    path: Path
    options: Options
    emit: Callable[[Event], None]
    folder: Path | None
    sending: Sending | None = None
    sent: SentFile | None = None
    reservations: list[Reservation] = field(default_factory=list)
    plan: Plan = Plan(datasets=(), workers=1, memory=0, peak_bytes=0)  # noqa: RUF009 - it is frozen
    receipts: list[DatasetReceipt] = field(default_factory=list)
    linked: dict[str, str] = field(default_factory=dict)
    adoptions: list[Adoption] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    structure_seconds: float = 0.0
    fill_seconds: float = 0.0
    verify_seconds: float = 0.0

    def prepare(
        self,
        root: GroupBuilder,
        manager: BuildManager,
        written: Callable[[Any], bool],
        options: Options,
        *,
        side_by_side: bool,
    ) -> list[Storage]:
        """Decide how everything is stored and refuse what can't be; nothing is written yet.

        Raises
        ------
        SettingsError, PlanError, SourceError
            What is wrong with the request, the memory it takes, or the data.
        """
        found = find(root, manager, written)
        self.linked |= links(root, written)  # those that HDMF makes, or copies
        for name, wrapper in foreign_wrappers(root, written):
            self.say(
                name,
                f"its settings were not used: {wrapper} carries none for HDF5 (a copy of hdmf's H5DataIO has lost "
                "them). Wrap the data in nwbflow.DataIO",
            )
        storages = decide(found, options.wishes, manager)
        self._plan(found, storages, options, options.memory, side_by_side=side_by_side)
        return storages

    def _plan(
        self,
        found: Sequence[Candidate],
        storages: Sequence[Storage],
        options: Options,
        memory: int,
        *,
        side_by_side: bool,
    ) -> None:
        """Plan what was decided in `memory`, check what can be, and say that it begins."""
        self.plan = make_plan(
            [request_of(s) for s in storages],
            workers=options.workers,
            memory=memory,
            concurrent_streams=side_by_side,
        )
        self._check_space(sum(s.layout.nbytes for s in storages if not s.layout.filters))
        self._check_rules(found, options)
        sizes = [_size(s) for s in storages]
        whole = None if None in sizes else sum(size for size in sizes if size is not None)
        if self.sending is not None:
            self.sending.check_room(whole)
        workers = self._check_executor(storages, options)
        names = tuple(s.candidate.name for s in storages)
        self.emit(RunStarted(path=self.path, datasets=names, raw_bytes=whole, workers=workers))

    def _check_executor(self, storages: Sequence[Storage], options: Options) -> int:
        """Refuse what workers elsewhere can't be given; return how many there are, there or here."""
        for storage in storages:
            if isinstance(storage.candidate.data, PartSource):
                storage.candidate.data.check(storage.candidate.name)
        executor = options.executor
        if executor is None or not storages:
            return options.workers
        executor.begin()
        for storage in storages:
            data = storage.candidate.data
            if isinstance(data, Source) and executor.takes(data):
                executor.check(storage.candidate.name, data, storage.layout)
        return executor.workers

    def _check_rules(self, found: Sequence[Candidate], options: Options) -> None:
        rules = options.wishes.rules
        used = (place for c in found for place in rules.match(c.name, c.types, c.builder.name).rules)
        for text in rules.unmatched(used):
            self.notes.append(text)
            self.emit(Warned(dataset=None, message=text))

    def _check_space(self, needed: int) -> None:
        """Refuse what can't fit; how far filters shrink the rest is not known beforehand."""
        if self.folder is None:
            return
        stat = os.statvfs(self.folder)
        free = stat.f_bavail * stat.f_frsize
        if needed > free:
            raise PlanError(
                f"{self.path}: uncompressed arrays of {needed / 1e6:.0f} MB don't fit on the disk, "
                f"{free / 1e6:.0f} MB are free. Free some space, choose another disk, or compress (codec='gzip')",
                kind=ErrorKind.NO_SPACE,
            )

    def fill(self, file: h5py.File, *, side_by_side: bool) -> None:
        """Fill what was reserved, structure first on disk.

        Raises
        ------
        SourceError, StorageError, VerifyError
            What stopped it.
        """
        self._flush(file, "writing the structure")
        self.structure_seconds = time.perf_counter() - self.began
        started = time.perf_counter()
        passing = any(not isinstance(r.storage.candidate.data, Source) for r in self.reservations)
        threads = side_by_side and len(self.reservations) > 1
        plans = {plan.name: plan for plan in self.plan.datasets}
        jobs = [
            job_of(r, plans[r.storage.candidate.name], aside=threads and r.storage.candidate.live)
            for r in self.reservations
        ]
        checkpoint = partial(self._flush, file, "flushing what has been stored")
        tallies = fill(jobs, self._settings(checkpoint, passing=passing), self.emit)
        self._flush(file, "flushing")
        self.fill_seconds = time.perf_counter() - started
        self._verify(tallies)
        self._note(tallies)
        self.linked = {name: where for name, where in self.linked.items() if _leads_elsewhere(file, name)}
        self.reservations = []
        for adoption in self.adoptions:
            adoption.apply()

    def _settings(self, checkpoint: Callable[[], None], *, passing: bool) -> Settings:
        return Settings(
            workers=self.options.workers,
            keep_raw_crc=self.options.verify == "full",
            checkpoint=checkpoint,
            # what can be read again is not worth a flush, during which HDF5 files are vulnerable
            checkpoint_seconds=CHECKPOINT_SECONDS if passing or self.folder is None else math.inf,
            executor=self.options.executor,
        )

    def _flush(self, file: h5py.File, doing: str) -> None:
        with translated(str(self.path), doing):
            file.flush()

    def _verify(self, tallies: Sequence[Tally]) -> None:
        started = time.perf_counter()
        verify(tallies, self.options.verify, self.emit)
        self.verify_seconds = time.perf_counter() - started

    def _note(self, tallies: Sequence[Tally]) -> None:
        for tally in tallies:
            receipt = tally.receipt()
            self.receipts.append(receipt)
            if receipt.encoded_by in ("HDF5", "zarr-python"):
                by = receipt.encoded_by
                self.say(receipt.name, f"its codec can't be run outside {by}; {by}'s own filters did it, in one thread")
            if may_change_values(receipt.layout.filters) and self.options.verify != "no":
                self.say(receipt.name, "its codec may change values, so decoded elements were not compared")
            if tally.largest_block > self.options.memory:
                self.say(
                    receipt.name,
                    f"its blocks had up to {tally.largest_block / 1e6:.0f} MB, more than memory= allows; they are the "
                    "iterator's own memory: make smaller ones",
                )
            if self._starved(tally):
                self.say(
                    receipt.name,
                    f"{tally.read_seconds:.1f} of {tally.seconds:.1f} s went into reading its data in this process, "
                    f"and the {self.options.workers} encoding threads had little to do. If that is computing or "
                    "decoding, executor=nwbflow.parallel.processes() does it on all cores",
                )
            if receipt.unwritten:
                self.say(receipt.name, f"{receipt.unwritten} elements were never given and read as the fill value")
            if tally.scattered:
                self.say(
                    receipt.name,
                    f"{tally.scattered} blocks with selections that are no rectangle went through "
                    f"{tally.job.sink.backend} one by one; its chunks carry no checksum of ours and were not verified",
                )

    def _starved(self, tally: Tally) -> bool:
        """Return whether other processes might have read what the encoders waited for."""
        job = tally.job
        elsewhere = isinstance(job.data, SliceSource | TargetSource) and job.encoder is not None and job.stored is None
        slow = tally.read_seconds >= max(READING_SECONDS, tally.seconds / 2)
        return elsewhere and slow and self.options.executor is None and self.options.workers > 1

    def say(self, dataset: str, text: str) -> None:
        """Note something a careful user wants to know of a dataset."""
        self.notes.append(f"{dataset}: {text}")
        self.emit(Warned(dataset=dataset, message=text))

    def receipt(self, publish_seconds: float) -> Receipt:
        """Return what was done."""
        return Receipt(
            path=self.path,
            datasets=tuple(self.receipts),
            seconds=time.perf_counter() - self.began,
            structure_seconds=self.structure_seconds,
            fill_seconds=self.fill_seconds,
            verify_seconds=self.verify_seconds,
            publish_seconds=publish_seconds,
            verified=self.options.verify if self.receipts else "no",
            linked=dict(self.linked),
            notes=tuple(self.notes),
            sent=self.sent,
        )


def _size(storage: Storage) -> int | None:
    """Return the size of an array before filters, in bytes; ``None`` where its length is not known."""
    data = storage.candidate.data
    return None if isinstance(data, Stream) and None in data.maxshape else storage.layout.nbytes


def _leads_elsewhere(file: h5py.File, name: str) -> bool:
    """Return whether there is a link, or a dataset whose elements lie elsewhere, and not a copy."""
    if isinstance(file.get(name, getlink=True), h5py.SoftLink | h5py.ExternalLink):
        return True
    found = file[name]
    return isinstance(found, h5py.Dataset) and bool(found.is_virtual or found.external)
