"""Writing what could not be read: broken and refused links stay links, as they are."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
from h5py import h5o
from hdmf.build import DatasetBuilder, GroupBuilder
from hdmf.data_utils import DataIO as HdmfDataIO

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.moved import moved
from nwbflow.links.problems import BrokenLink
from nwbflow.links.records import read_records, write_record
from nwbflow.links.resolve import link_of
from nwbflow.links.views import BarredDataset
from nwbflow.model.links import LinkKind
from nwbflow.nwb.broken import BrokenData
from nwbflow.nwb.candidates import datasets, path_of
from nwbflow.nwb.mending import Lost
from nwbflow.nwb.ties import Circumstances
from nwbflow.sinks.hdf5 import translated

_ELSEWHERE = re.compile(r"^(/|[A-Za-z]:[\\/]|\\\\|[A-Za-z][A-Za-z0-9+.-]+://)")
"""Names that are not relative to the linking file."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """What was not readable in the file that is written again, and how it is to be kept.

    Parameters
    ----------
    circumstances : Circumstances
        What is being written, and how.
    lost : sequence of Lost
        From reading the source of an export; empty for other writes.
    """

    circumstances: Circumstances
    lost: Sequence[Lost]

    @contextmanager
    def taken_out(self, root: GroupBuilder, file: h5py.File) -> Iterator[list[tuple[str, BrokenLink]]]:
        """Keep data that can't be read away from HDMF while it writes.

        Parameters
        ----------
        root : GroupBuilder
            The tree; afterwards it is as it was.
        file : h5py.File
            What is written.

        Yields
        ------
        list of (str, BrokenLink)
            What was taken out, for :meth:`put_back`.

        Raises
        ------
        nwbflow.errors.LinkError
            If it would have to be copied, or is the data of something new.
        """
        taken: list[tuple[str, BrokenLink]] = []
        with ExitStack() as stack:
            for builder in list(datasets(root)):
                data = builder.data.data if isinstance(builder.data, HdmfDataIO) else builder.data
                if isinstance(data, BrokenData) and not self.circumstances.written(builder):
                    self._take(builder, data, file, stack, taken)
            yield taken

    def _take(
        self,
        builder: DatasetBuilder,
        data: BrokenData,
        file: h5py.File,
        stack: ExitStack,
        taken: list[tuple[str, BrokenLink]],
    ) -> None:
        name, c, problem = path_of(builder), self.circumstances, data.problem
        if c.exported is not None and not c.linking:
            raise LinkError(f"{name} can't be copied into {c.own} (link_data=False): {problem}", kind=problem.error)
        there = c.exported is None and _is_link(file, name)
        if not there and (c.exported is None or Path(os.path.realpath(problem.file)) != c.exported):
            raise LinkError(f"{name} can't be written: its data can't be read. {problem}", kind=problem.error)
        if data.barred is not None and problem.kind in (LinkKind.VIRTUAL, LinkKind.RAW) and not there:
            stack.callback(builder.__setitem__, "data", builder.data)
            builder["data"] = data.barred  # HDMF and HDF5 copy what it says, and look at no element
            self._note(name, problem)
            return
        held = builder.parent.datasets
        del held[builder.name]
        stack.callback(held.__setitem__, builder.name, builder)
        if not there:
            taken.append((name, problem))

    def put_back(self, taken: Sequence[tuple[str, BrokenLink]], file: h5py.File) -> None:
        """Make the links anew that were taken out, and those that no container has a place for.

        Parameters
        ----------
        taken : sequence of (str, BrokenLink)
            From :meth:`taken_out`.
        file : h5py.File
            What was written.

        Raises
        ------
        nwbflow.errors.StorageError
            If the disk fails.
        """
        by_problem = {id(lost.problem): lost for lost in self.lost}
        wanted = [(name, by_problem[id(problem)]) for name, problem in taken if id(problem) in by_problem]
        named = {id(lost) for _, lost in wanted}
        wanted += [(lost.path, lost) for lost in self.lost if id(lost) not in named and self._is_own(lost)]
        for name, lost in wanted:
            folder, last = posixpath.split(name)
            group = file.get(folder)
            if isinstance(group, h5py.Group) and link_of(group.id, group._e(last)) is None:
                with translated(name, "keeping a broken link"):
                    self._make(group, last, lost)
                self._note(name, lost.problem)

    def _is_own(self, lost: Lost) -> bool:
        return Path(os.path.realpath(lost.group.held.name)) == self.circumstances.exported

    def _make(self, group: h5py.Group, name: str, lost: Lost) -> None:
        link = link_of(lost.group.id, lost.group._e(lost.name))
        if isinstance(link, h5py.ExternalLink):
            recorded = self.rebased(link.filename)
            group[name] = h5py.ExternalLink(recorded, link.path)
            _rename_record(group, name, f"{link.filename}:{link.path}", f"{recorded}:{link.path}")
        elif isinstance(link, h5py.SoftLink):
            group[name] = link
        elif lost.barred is not None:
            self._dataset(group, name, lost, lost.barred)
        elif lost.problem.error in (ErrorKind.CYCLE, ErrorKind.EXISTS) and lost.problem.target in group.file:
            group[name] = group.file[lost.problem.target]

    def _dataset(self, group: h5py.Group, name: str, lost: Lost, barred: BarredDataset) -> None:
        """Copy a dataset that must not be read; HDF5 copies where its elements are, not those."""
        new = moved(barred, self.circumstances.own)
        if new is None:
            h5o.copy(lost.group.id, lost.group._e(lost.name), group.id, group._e(name))
            return
        dataset = group.create_dataset(name, **new.create)
        for key in barred.attrs:
            dataset.attrs[key] = barred.attrs[key]
        if new.record is not None:
            write_record(dataset, "", new.record)

    def rebased(self, recorded: str) -> str:
        """Return a file name as it has to be recorded in the file being written.

        Parameters
        ----------
        recorded : str
            As the source of the export has it.
        """
        source, own = self.circumstances.exported, self.circumstances.own
        if source is None or source.parent == own.parent or _ELSEWHERE.match(recorded):
            return recorded
        return f"{os.path.relpath(source.parent, own.parent)}/{recorded}"

    def _note(self, name: str, problem: BrokenLink) -> None:
        self.circumstances.say(name, f"it could not be read, and is kept as it is. {problem}")


def _is_link(file: h5py.File, name: str) -> bool:
    folder, last = posixpath.split(name)
    group = file.get(folder)
    return isinstance(group, h5py.Group) and link_of(group.id, group._e(last)) is not None


def _rename_record(group: h5py.Group, name: str, old: str, new: str) -> None:
    try:
        record = read_records(group).get(name)
    except LinkError:  # none of ours
        return
    if record is not None and old != new:
        prints = {new if key == old else key: value for key, value in record.fingerprints.items()}
        write_record(group, name, replace(record, fingerprints=prints))
