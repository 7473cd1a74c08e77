"""Datasets and containers of other files in a builder tree: what each is to become, settled before anything is written.

A link is made by us, not by HDMF: its builder is taken out of the tree while HDMF writes, and the link is put into the
file afterwards. So nothing has to be open for it, and its name is recorded as we decide.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import BuildManager, DatasetBuilder, GroupBuilder, LinkBuilder, ReferenceBuilder
from hdmf.data_utils import DataIO as HdmfDataIO

from nwbflow.errors import ErrorKind, LinkError, LinkMismatchWarning, SettingsError, UnsupportedError
from nwbflow.links.compare import Difference, table
from nwbflow.links.fingerprint import fingerprint_dataset
from nwbflow.links.records import record_of, write_record
from nwbflow.links.targets import Target, target_of
from nwbflow.model.links import LinkRecord
from nwbflow.nwb.candidates import datasets, is_plain, path_of
from nwbflow.nwb.data import DataIO
from nwbflow.nwb.external import CopiedData, LinkedData, OnMismatch
from nwbflow.nwb.said import adopt, compare, unreadable_link
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
    builder : DatasetBuilder
        What HDMF would have written.
    target : Target
        What it leads to.
    inside : str or None
        A path in the same file, if it leads there: to a dataset that is there, or a copy made in this write.
    recorded : str
        The name of the target's file as the link has it.
    record : LinkRecord or None
        What the target is, to be kept beside a link to another file.
    """

    name: str
    builder: DatasetBuilder
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


def settle(root: GroupBuilder, circumstances: Circumstances) -> list[Tie]:
    """Decide what becomes of data of other files.

    Containers' data are changed where a mismatch says so: copies take the place of links, the target's values that of
    the container's.

    Parameters
    ----------
    root : GroupBuilder
        The tree.
    circumstances : Circumstances
        What it depends on.

    Returns
    -------
    list of Tie
        What becomes a link.

    Raises
    ------
    nwbflow.errors.LinkError
        Data of another file come without a word and the policy is ``"error"``; a container says something else than
        what it is to link to; a target is gone; a reference would lead into another file. All of them are listed.
    """
    _refuse_containers(root, circumstances)
    found = _Findings(circumstances)
    for builder in datasets(root):
        if not circumstances.written(builder):
            found.look_at(builder)
    found.refuse()
    _refuse_references(root, found)
    return [*found.ties, *_shared_copies(found.copies)]


class _Findings:
    """What was found, builder by builder."""

    def __init__(self, circumstances: Circumstances) -> None:
        self._c = circumstances
        self.ties: list[Tie] = []
        self.by_hdmf: list[DatasetBuilder] = []
        self.copies: list[tuple[DatasetBuilder, CopiedData]] = []
        self._foreign: list[str] = []
        self._mismatches: list[str] = []
        self._unreadable: list[str] = []

    def look_at(self, builder: DatasetBuilder) -> None:
        given = builder.data
        data = given.data if isinstance(given, HdmfDataIO) else given
        if isinstance(data, LinkedData):
            if isinstance(given, HdmfDataIO):
                raise SettingsError(
                    f"{path_of(builder)}: a link has no chunks or codec of its own; take the "
                    f"{type(given).__name__} away, or use nwbflow.copy(...) in it",
                    kind=ErrorKind.OPTION,
                )
            self._link(builder, data.target, data.on_mismatch)
        elif isinstance(data, CopiedData):
            self.copies.append((builder, data))
        elif isinstance(data, h5py.Dataset) and data and not isinstance(given, DataIO):
            self._bare(builder, data, given if isinstance(given, H5DataIO) else None)

    def _bare(self, builder: DatasetBuilder, dataset: h5py.Dataset, wrapper: H5DataIO | None) -> None:
        """Settle an open dataset that came without a word, or with HDMF's."""
        file = Path(os.path.realpath(dataset.file.filename))
        if file in (self._c.own, self._c.exported):
            return
        policy: ExternalPolicy = self._c.policy
        if policy is not None and wrapper is not None:
            policy = "link" if wrapper.link_data else "copy"
        if policy == "error":
            self._foreign.append(f"{path_of(builder)}  ({file}:{dataset.name})")
        elif policy == "link":
            self._link(builder, target_of(dataset), "error")
        elif policy == "copy":
            builder["data"] = CopiedData(target_of(dataset))
            self.copies.append((builder, builder.data))
        elif wrapper.link_data if wrapper is not None else self._c.linking:
            self.by_hdmf.append(builder)
            target = target_of(dataset)
            self._warn(builder, target, compare(builder, target, self._c.manager))
            if why := unreadable_link(builder, target, self._c.manager):
                self._note(builder, f"linked to {target}, and the table can't be read back: {why}")

    def _link(self, builder: DatasetBuilder, target: Target, on_mismatch: OnMismatch) -> None:
        found = compare(builder, target, self._c.manager)
        if found and on_mismatch == "adopt":
            found = adopt(builder, found, target, self._c.manager)
        if found and on_mismatch == "warn":
            self._warn(builder, target, found)
            found = []
        if found and on_mismatch == "copy" and not any(d.structural for d in found):
            self._c.say(path_of(builder), f"copied from {target}, not linked: {_brief(found)}")
            builder["data"] = CopiedData(target)
            self.copies.append((builder, builder.data))
        elif found:
            self._mismatches.append(f"{path_of(builder)} -> {target}\n{table(found, 'the container', 'the target')}")
        elif why := unreadable_link(builder, target, self._c.manager):
            self._unreadable.append(f"{path_of(builder)} -> {target}: {why}")
        else:
            self.ties.append(self._tie(builder, target))

    def _tie(self, builder: DatasetBuilder, target: Target) -> Tie:
        name = path_of(builder)
        if target.file == self._c.own and self._c.replaced:
            raise LinkError(
                f"{name}: {target} is in the very file that is being replaced. Write to another name, or use "
                "nwbflow.copy(...)",
                kind=ErrorKind.CYCLE,
            )
        if target.file == self._c.own:
            return Tie(name=name, builder=builder, target=target, inside=target.name)
        recorded = os.path.relpath(target.file, self._c.own.parent)
        with target.opened() as dataset:
            prints = {f"{recorded}:{target.name}": fingerprint_dataset(dataset)}
        return Tie(name=name, builder=builder, target=target, recorded=recorded, record=record_of(target, prints))

    def _warn(self, builder: DatasetBuilder, target: Target, found: list[Difference]) -> None:
        if not found:
            return
        self._note(builder, f"linked to {target}, whose values readers get: {_brief(found)}")

    def _note(self, builder: DatasetBuilder, text: str) -> None:
        self._c.say(path_of(builder), text)
        warnings.warn(f"{path_of(builder)}: {text}", LinkMismatchWarning, stacklevel=2)

    def refuse(self) -> None:
        """Raise for everything that was found to be wrong, one kind of wrong at a time."""
        if self._unreadable:
            raise LinkError(
                f"{self._c.own}: these columns can't be links, since PyNWB could not read their tables back:\n    "
                + "\n    ".join(self._unreadable)
                + "\nUse nwbflow.concat([target]), a dataset here over the same data without a copy, or "
                "nwbflow.copy(target)",
                kind=ErrorKind.REFUSED,
            )
        if self._foreign:
            raise LinkError(
                f"{self._c.own}: these data lie in other files, and nothing says whether to link or to copy them:\n    "
                + "\n    ".join(self._foreign)
                + "\nWrap them in nwbflow.link(...) or nwbflow.copy(...), or pass external='link' or external='copy' "
                "for all of them",
                kind=ErrorKind.FOREIGN,
            )
        if self._mismatches:
            raise LinkError(
                f"{self._c.own}: a link has no attributes of its own, so readers would get the target's values, which "
                "differ from what the container says:\n"
                + "\n".join(self._mismatches)
                + "\nMend one of the two, or choose: nwbflow.link(target, on_mismatch='adopt') to take the target's "
                "values, 'copy' to copy the data and keep the container's values, 'warn' to link all the same; or "
                "nwbflow.concat([target]) to keep the container's values over the same data without a copy. "
                "(A type, shape or number of rows that doesn't fit can't be settled by the first two.)",
                kind=ErrorKind.MISMATCH,
            )


def _brief(found: Sequence[Difference]) -> str:
    return "; ".join(f"{d.name} is {d.held!r} there, the container says {d.said!r}" for d in found)


def _refuse_containers(root: GroupBuilder, circumstances: Circumstances) -> None:
    """Refuse whole containers of other files, unless they are to be linked: HDMF can't copy them."""
    links = guests(root, circumstances)
    if not links or circumstances.policy in (None, "link"):
        return
    found = [f"{name}  ({where})" for name, where in links.items()]
    listed = "\n    ".join([f"{circumstances.own}: these were read from other files, so they would be links:", *found])
    if circumstances.policy == "error":
        raise LinkError(f"{listed}\nPass external='link' if that is what you want", kind=ErrorKind.FOREIGN)
    raise UnsupportedError(
        f"{listed}\nA container that belongs to another file can't be copied as a whole. Make a new one, with "
        "data=nwbflow.copy(old.data), or write with external='link' and then run: nwbflow links embed",
        kind=ErrorKind.FOREIGN,
    )


def guests(root: GroupBuilder, circumstances: Circumstances) -> dict[str, str]:
    """Return the paths of links to containers of other files that HDMF is about to make, and where they lead."""
    own = {circumstances.own, circumstances.exported}
    return {
        path_of(link): f"{link.builder.source}:{path_of(link.builder)}"
        for link in _links(root)
        if not circumstances.written(link)
        and link.builder.source is not None
        and Path(os.path.realpath(link.builder.source)) not in own
    }


def _refuse_references(root: GroupBuilder, found: _Findings) -> None:
    """Refuse references to what lies in another file: HDF5 would make one that leads to something else."""
    away = {id(b): path_of(b) for b in [*(tie.builder for tie in found.ties), *found.by_hdmf]}
    for holder in _all(root):
        for name, value in holder.attributes.items():
            if isinstance(value, ReferenceBuilder) and id(value.builder) in away:
                target = away[id(value.builder)]
                raise LinkError(
                    f"{target} is referred to by {path_of(holder)} ({name}), and HDF5's references can't lead into "
                    "another file. Use nwbflow.concat([target]), a dataset here over the same data without a copy, or "
                    "nwbflow.copy(target)",
                    kind=ErrorKind.REFUSED,
                )


def _shared_copies(copies: Sequence[tuple[DatasetBuilder, CopiedData]]) -> list[Tie]:
    """Return the copies that need not be made, since an earlier one says the same; columns have identities."""
    first: dict[tuple[Path, str], list[DatasetBuilder]] = {}
    ties = []
    for builder, data in copies:
        earlier = first.setdefault((data.target.file, data.target.name), [])
        twin = next((b for b in earlier if _interchangeable(b, builder)), None)
        if twin is None:
            earlier.append(builder)
        else:
            ties.append(Tie(name=path_of(builder), builder=builder, target=data.target, inside=path_of(twin)))
    return ties


def _interchangeable(one: DatasetBuilder, other: DatasetBuilder) -> bool:
    bare = not isinstance(one.data, HdmfDataIO) and not isinstance(other.data, HdmfDataIO)
    return bare and "object_id" not in one.attributes and dict(one.attributes) == dict(other.attributes)


def _all(group: GroupBuilder) -> Iterator[DatasetBuilder | GroupBuilder]:
    yield group
    for child in group.groups.values():
        yield from _all(child)
    yield from group.datasets.values()


def _links(group: GroupBuilder) -> Iterator[LinkBuilder]:
    for child in group.groups.values():
        yield from _links(child)
    yield from group.links.values()


@contextmanager
def taken_out(ties: Sequence[Tie], root: GroupBuilder, written: Callable[[Any], bool]) -> Iterator[None]:
    """Keep builders of links away from HDMF while it writes, and show it those copies that are its to make."""
    with ExitStack() as stack:
        for tie in ties:
            parent = tie.builder.parent
            del parent.datasets[tie.builder.name]
            stack.callback(parent.datasets.__setitem__, tie.builder.name, tie.builder)
        for builder in datasets(root):
            data = builder.data
            if isinstance(data, CopiedData) and not is_plain(data.dtype) and not written(builder):
                open_dataset = stack.enter_context(data.opened())
                if open_dataset.is_virtual or open_dataset.external:
                    raise UnsupportedError(
                        f"{path_of(builder)}: {data.target} is a {data.dtype} dataset whose elements lie in other "
                        "files; only numbers can be copied from those. Copy it into a file of its own first",
                        kind=ErrorKind.DTYPE,
                    )
                stack.callback(builder.__setitem__, "data", data)
                builder["data"] = H5DataIO(data=open_dataset, link_data=False)
        yield


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
            if tie.inside is not None or tie.record is None:
                group[tie.builder.name] = h5py.SoftLink(tie.inside or tie.target.name)
                continue
            group[tie.builder.name] = h5py.ExternalLink(tie.recorded, tie.target.name)
            write_record(group, tie.builder.name, tie.record)
