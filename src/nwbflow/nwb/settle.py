"""What becomes of datasets of other files in a builder tree, settled before anything is written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import DatasetBuilder, GroupBuilder, ReferenceBuilder
from hdmf.data_utils import DataIO as HdmfDataIO

from nwbflow.errors import ErrorKind, LinkError, LinkMismatchWarning, SettingsError
from nwbflow.links.compare import Difference, table
from nwbflow.links.fingerprint import fingerprint_dataset
from nwbflow.links.records import record_of
from nwbflow.links.targets import Target, target_of
from nwbflow.links.virtual import files_behind
from nwbflow.model.links import Fingerprint
from nwbflow.nwb.candidates import datasets, path_of
from nwbflow.nwb.data import DataIO
from nwbflow.nwb.external import CopiedData, LinkedData, OnMismatch
from nwbflow.nwb.guests import links_below, refuse_guests
from nwbflow.nwb.said import Adoption, adoptions, compare, unreadable_link
from nwbflow.nwb.ties import Circumstances, ExternalPolicy, Tie


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of data of other files.

    Parameters
    ----------
    ties : list of Tie
        What becomes a link.
    adoptions : list of Adoption
        What containers take over from what they link to, when all is written.
    """

    ties: list[Tie]
    adoptions: list[Adoption]


def settle(root: GroupBuilder, circumstances: Circumstances) -> Settled:
    """Decide what becomes of data of other files. Containers are not changed yet.

    Parameters
    ----------
    root : GroupBuilder
        The tree.
    circumstances : Circumstances
        What it depends on.

    Returns
    -------
    Settled
        What becomes a link, and what is adopted.

    Raises
    ------
    nwbflow.errors.LinkError
        Data of another file come without a word and the policy is ``"error"``; a container says something else than
        what it is to link to; a target is gone; a reference would lead into another file. All of them are listed.
    """
    refuse_guests(root, circumstances)
    found = _Findings(circumstances)
    for builder in datasets(root):
        if not circumstances.written(builder):
            found.look_at(builder)
    found.refuse()
    _refuse_references(root, found)
    shared = [*found.shared_links(root), *_shared_copies(found.copies, circumstances)]
    return Settled([*found.ties, *shared], found.adoptions)


class _Findings:
    """What was found, builder by builder."""

    def __init__(self, circumstances: Circumstances) -> None:
        self._c = circumstances
        self.ties: list[Tie] = []
        self.by_hdmf: list[Tie] = []
        self.adoptions: list[Adoption] = []
        self.copies: list[tuple[DatasetBuilder, CopiedData]] = []
        self._foreign: list[str] = []
        self._mismatches: list[str] = []
        self._unreadable: list[str] = []
        self._prints: dict[tuple[Path, str], Fingerprint] = {}

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
            target = target_of(dataset)
            self.by_hdmf.append(Tie(name=path_of(builder), builder=builder, target=target, recorded=self._name(target)))
            self._warn(builder, target, compare(builder, target, self._c.manager))
            if why := unreadable_link(builder, target, self._c.manager):
                self._note(builder, f"linked to {target}, and can't be read back: {why}")

    def _link(self, builder: DatasetBuilder, target: Target, on_mismatch: OnMismatch) -> None:
        target = _again(target, path_of(builder))
        found = compare(builder, target, self._c.manager)
        if found and on_mismatch == "adopt":
            taken, left = adoptions(builder, found, target, self._c.manager)
            found = left and found
            self.adoptions += [] if left else taken
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
        files = {target.file, *files_behind(target)}
        if self._c.replaced and self._c.own in files:
            raise LinkError(
                f"{name}: {target} is in {self._c.own}, the very file that is being replaced, or consists of data in "
                "it. Write to another name, or use nwbflow.copy(...)",
                kind=ErrorKind.CYCLE,
            )
        if target.file == self._c.own:
            return Tie(name=name, builder=builder, target=target, inside=target.name)
        recorded = self._name(target)
        record = record_of(target, {f"{recorded}:{target.name}": self._fingerprint(target)})
        return Tie(name=name, builder=builder, target=target, recorded=recorded, record=record)

    def _name(self, target: Target) -> str:
        """Return the name of a target's file as a link is to have it."""
        if not target.file.is_file():
            raise LinkError(
                f"{target} is in no file of this machine's disks (but in memory, or remote), so no link can lead to "
                "it. Use nwbflow.copy(...)",
                kind=ErrorKind.MISSING,
            )
        return os.path.relpath(target.file, self._c.own.parent)

    def _fingerprint(self, target: Target) -> Fingerprint:
        key = (target.file, target.name)
        if key not in self._prints:
            with target.opened() as dataset:
                self._prints[key] = fingerprint_dataset(dataset)
        return self._prints[key]

    def shared_links(self, root: GroupBuilder) -> list[Tie]:
        """Return the links of series that share what another series links to, each to lead there itself.

        HDMF would make a link to the link, at which stock PyNWB fails to read the whole file.
        """
        known = {id(tie.builder): tie for tie in (*self.ties, *self.by_hdmf) if tie.inside is None}
        return [
            replace(tie, name=path_of(link), builder=link)
            for link in links_below(root)
            if not self._c.written(link) and (tie := known.get(id(link.builder))) is not None
        ]

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
                f"{self._c.own}: these can't be links, since they could not be read back:\n    "
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


def _again(target: Target, name: str) -> Target:
    """Return what a target is now, that it is going to be linked; it may have changed since it was given."""
    with target.opened():  # says so if it was closed, or is another one by now
        pass
    now = target_of((target.file, target.name) if target.dataset is None else target.dataset)
    if (now.shape, now.dtype) != (target.shape, target.dtype):
        raise LinkError(
            f"{name}: {target} was {target.shape} {target.dtype} when it was given, and is {now.shape} {now.dtype} "
            "now; give it again",
            kind=ErrorKind.CHANGED,
        )
    return now


def _brief(found: Sequence[Difference]) -> str:
    return "; ".join(f"{d.name} is {d.held!r} there, the container says {d.said!r}" for d in found)


def _refuse_references(root: GroupBuilder, found: _Findings) -> None:
    """Refuse references to what lies in another file: HDF5 would make one that leads to something else."""
    away = {id(tie.builder): tie.name for tie in (*found.ties, *found.by_hdmf)}
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


def _shared_copies(copies: Sequence[tuple[DatasetBuilder, CopiedData]], circumstances: Circumstances) -> list[Tie]:
    """Return the copies that need not be made, since an earlier one says the same; columns have identities."""
    first: dict[tuple[Path, str], list[DatasetBuilder]] = {}
    ties = []
    for builder, data in copies:
        earlier = first.setdefault((data.target.file, data.target.name), [])
        free = not circumstances.ruled(builder)
        twin = next((b for b in earlier if free and _interchangeable(b, builder)), None)
        if twin is None and free:
            earlier.append(builder)
        elif twin is None:
            continue
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
