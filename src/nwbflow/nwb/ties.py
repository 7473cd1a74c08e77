"""Datasets of other files that become links.

A link is made by us, not by HDMF: its builder is taken out of the tree while HDMF writes, and the link is put into the
file afterwards. So nothing has to be open for it, and its name is recorded as we decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder, LinkBuilder

from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.links.records import write_record
from nwbflow.links.targets import Target
from nwbflow.model.links import LinkRecord
from nwbflow.nwb.candidates import datasets, is_plain, path_of
from nwbflow.nwb.copies import copied_by_hdf5
from nwbflow.nwb.external import CopiedData
from nwbflow.nwb.said import holds_references
from nwbflow.sinks.hdf5 import translated

type ExternalPolicy = Literal["error", "link", "copy"] | None
"""What becomes of data of other files that come without a word: refused, linked, copied; ``None``: as in PyNWB."""

EXTERNAL = ("error", "link", "copy", None)

type Say = Callable[[str, str], None]
"""Takes a dataset's name and something a careful user wants to know of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """One dataset that becomes a link.

    Parameters
    ----------
    name : str
        Its path in the file being written.
    builder : DatasetBuilder or LinkBuilder
        What HDMF would have written; the second where a series shares what another one links to.
    target : Target
        What it leads to.
    inside : str or None
        A path in the same file, if it leads there: to a dataset that is there, or a copy made in this write.
    recorded : str
        The name of the target's file as the link has it.
    record : LinkRecord or None
        What the target is, to be kept beside the link.
    """

    name: str
    builder: DatasetBuilder | LinkBuilder
    target: Target
    inside: str | None = None
    recorded: str = ""
    record: LinkRecord | None = None

    @property
    def where(self) -> str:
        """Where it leads, as recorded."""
        return self.inside or f"{self.recorded}:{self.target.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What settling depends on.

    Parameters
    ----------
    manager : BuildManager
        What made the tree.
    written : callable
        Whether a builder is in the file already.
    own : pathlib.Path
        The file being written, by its final name, symbolic links resolved.
    policy : {"error", "link", "copy"} or None
        For data that come without a word.
    linking : bool
        Whether HDMF links bare datasets, where the policy is ``None``.
    exported : pathlib.Path or None
        The file that is being exported: its datasets are HDMF's to copy.
    replaced : bool
        Whether the file is a new one, that takes the place of what has its name now.
    ruled : callable
        Whether the user's rules say something of how a dataset is stored.
    say : callable
        Takes notes.
    """

    manager: BuildManager
    written: Callable[[Any], bool]
    own: Path
    policy: ExternalPolicy
    linking: bool
    exported: Path | None
    replaced: bool
    ruled: Callable[[DatasetBuilder], bool]
    say: Say


def check_external(policy: Any) -> ExternalPolicy:
    """Return `policy` if it is one.

    Raises
    ------
    nwbflow.errors.SettingsError
        If it is not ``"error"``, ``"link"``, ``"copy"`` or ``None``.
    """
    for known in EXTERNAL:
        if policy == known:
            return known  # type: ignore[return-value]
    raise SettingsError(f"external={policy!r}: give 'error', 'link' or 'copy'", kind=ErrorKind.OPTION)


@contextmanager
def taken_out(ties: Sequence[Tie], root: GroupBuilder, circumstances: Circumstances) -> Iterator[None]:
    """Keep builders of links away from HDMF while it writes, and show it those copies that are its to make."""
    with ExitStack() as stack:
        for tie in ties:
            held = tie.builder.parent.links if isinstance(tie.builder, LinkBuilder) else tie.builder.parent.datasets
            del held[tie.builder.name]
            stack.callback(held.__setitem__, tie.builder.name, tie.builder)
        for builder in datasets(root):
            data = builder.data
            if (
                isinstance(data, CopiedData)
                and not circumstances.written(builder)
                and not (circumstances.ruled(builder) and is_plain(data.dtype))
                and copied_by_hdf5(builder.dtype, data.target)
            ):
                open_dataset = stack.enter_context(data.opened())
                _refuse_copying(builder, data.target, open_dataset)
                stack.callback(builder.__setitem__, "data", data)
                builder["data"] = H5DataIO(data=open_dataset, link_data=False)
        yield


def _refuse_copying(builder: DatasetBuilder, target: Target, dataset: h5py.Dataset) -> None:
    """Refuse what HDF5 would copy into something else."""
    if holds_references(target.dtype):
        raise UnsupportedError(
            f"{path_of(builder)}: {target} holds references to objects of its own file, which a copy can't lead to. "
            "Give PyNWB the objects, or export the whole file (io.export)",
            kind=ErrorKind.DTYPE,
        )
    if dataset.is_virtual or dataset.external:
        raise UnsupportedError(
            f"{path_of(builder)}: {target} is a {target.dtype} dataset whose elements lie in other files; only numbers "
            "can be copied from those. Copy it into a file of its own first",
            kind=ErrorKind.DTYPE,
        )


def make(ties: Sequence[Tie], file: h5py.File) -> None:
    """Put the links into the file HDMF has written, with a record of what they lead to.

    Raises
    ------
    nwbflow.errors.StorageError
        If the disk fails.
    """
    for tie in ties:
        with translated(tie.name, "making the link"):
            group = file[tie.name.rpartition("/")[0] or "/"]
            if tie.inside is not None:
                group[tie.builder.name] = h5py.SoftLink(tie.inside)
                continue
            group[tie.builder.name] = h5py.ExternalLink(tie.recorded, tie.target.name)
            if tie.record is not None:
                write_record(group, tie.builder.name, tie.record)
