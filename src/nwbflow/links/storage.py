"""Datasets whose elements lie in other files: whether they may be read, and will read as they were meant.

HDF5 opens the sources of virtual datasets and raw files itself, when elements are asked for. So all that is checked
here is checked before: where each name leads, that it may be followed, and that what is there is complete. (HDF5
reads zeros where a source is missing or a raw file is too short.)
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from h5py import h5d, h5i, h5p, h5s

from nwbflow.errors import ErrorKind, LinkError
from nwbflow.links.fitting import type_misfit
from nwbflow.links.names import SAME_FILE, unescaped
from nwbflow.links.places import ORIGIN, PREFIX_VARIABLES, find_file, folders, prefixes, taken_instead
from nwbflow.links.problems import BrokenLink, misplaced, way_out
from nwbflow.links.resolve import Files, OpenFile, Resolver, Spot, name_of, root_of
from nwbflow.links.steps import Steps
from nwbflow.model.links import LinkKind, Place, Policy

type Mapping = tuple[str, Any, Any]
"""Name of a source dataset; the selections it has in the virtual dataset and in itself."""


type Extent = tuple[tuple[int, ...], tuple[int | None, ...]]
"""Lengths of the axes, and those they may grow to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found out about a dataset.

    Parameters
    ----------
    problem : BrokenLink or None
        Why its elements must not be read.
    raw_prefix : str
        Folder that HDF5 has to be told for raw files with relative names; empty if none.
    virtual_prefix : str
        The same for virtual sources.
    extent : tuple or None
        Shape, and shape it may grow to, of a virtual dataset that grows with its sources: HDF5 would open those when
        asked for it. ``None`` for others.
    """

    problem: BrokenLink | None = None
    raw_prefix: str = ""
    virtual_prefix: str = ""
    extent: Extent | None = None

    def access(self) -> Any:
        """Return the property list to open the dataset with; ``None`` for HDF5's default."""
        if not self.raw_prefix and not self.virtual_prefix:
            return None
        access = h5p.create(h5p.DATASET_ACCESS)
        if self.raw_prefix:
            access.set_efile_prefix(os.fsencode(self.raw_prefix))
        if self.virtual_prefix:
            access.set_virtual_prefix(os.fsencode(self.virtual_prefix))
        return access


PLAIN = Verdict()
"""Of a dataset that has its elements itself."""


class _StopError(Exception):
    def __init__(self, problem: BrokenLink) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Examiner:
    """Examines datasets, each once.

    Parameters
    ----------
    files : Files
        What opens files.
    resolver : Resolver
        What follows names.
    """

    def __init__(self, files: Files, resolver: Resolver) -> None:
        self._files = files
        self._resolver = resolver
        self._known: dict[tuple[tuple[int, int], int], Verdict] = {}

    def examine(self, spot: Spot) -> Verdict:
        """Return what is to be known about a dataset before its shape or elements are asked for.

        Parameters
        ----------
        spot : Spot
            The dataset.
        """
        created = spot.id.get_create_plist()
        virtual = created.get_layout() == h5d.VIRTUAL
        if not virtual and not created.get_external_count():
            return PLAIN
        if spot.key not in self._known:
            case = _Case(self._files, self._resolver, self, spot, created)
            self._known[spot.key] = Verdict(problem=case.circle())  # while it is examined
            self._known[spot.key] = case.virtual() if virtual else case.raw()
        return self._known[spot.key]


class _Case:
    """One dataset under examination."""

    def __init__(self, files: Files, resolver: Resolver, examiner: Examiner, spot: Spot, created: Any) -> None:
        self._files = files
        self._resolver = resolver
        self._examiner = examiner
        self._spot = spot
        self._created = created
        self._held = spot.held
        self._kind = LinkKind.VIRTUAL if created.get_layout() == h5d.VIRTUAL else LinkKind.RAW
        self._folders = folders(self._kind, self._held.name, files.rules)
        self._bases: set[Path] = set()

    def circle(self) -> BrokenLink:
        return self._broken("itself", "its sources lead back to it", ErrorKind.CYCLE)

    def raw(self) -> Verdict:
        try:
            self._refuse_environment()
            self._raw_files()
            return Verdict(raw_prefix=self._prefix())
        except _StopError as stop:
            return Verdict(problem=stop.problem)

    def virtual(self) -> Verdict:
        count = self._created.get_virtual_count()
        spaces = [self._created.get_virtual_vspace(i) for i in range(count)]
        extent = _extent(spaces[0]) if any(_unlimited(space) for space in spaces) else None
        try:
            self._refuse_environment()
            for file, mappings in self._by_file(count).items():
                self._source_file(file, mappings)
            return Verdict(virtual_prefix=self._prefix(), extent=extent)
        except _StopError as stop:
            return Verdict(problem=stop.problem, extent=extent)

    def _refuse_environment(self) -> None:
        """Refuse what HDF5 would look for where an environment variable says, but for the harmless one."""
        sent = [value for value in prefixes(self._kind) if value != ORIGIN]
        if sent and self._files.rules.policy is not Policy.ALLOW:
            variable = PREFIX_VARIABLES[self._kind]
            raise self._stop(
                "other files",
                f"the environment variable {variable} would send HDF5 to {sent[0]}",
                ErrorKind.REFUSED,
                out=f"Start again without {variable}, or open {self._held.name} with links='allow'",
            )

    def _raw_files(self) -> None:
        left = math.prod(self._spot.id.shape) * self._spot.id.dtype.itemsize
        for index in range(self._created.get_external_count()):
            recorded, offset, size = self._created.get_external(index)
            place = self._place(os.fsdecode(recorded))
            wanted = left if size == h5s.UNLIMITED else min(left, int(size))
            left -= wanted
            has = max(0, Path(str(place.path)).stat().st_size - int(offset))
            if has < wanted:
                raise self._stop(
                    place.recorded,
                    f"{place.path} has {has} bytes from byte {offset} on, {wanted} are to be read; HDF5 would give "
                    "zeros for the rest",
                    ErrorKind.LENGTH,
                )

    def _place(self, recorded: str) -> Place:
        place = find_file(recorded, self._kind, self._held.name, self._files.rules)
        if place.path is None:
            kind = place.kind or ErrorKind.MISSING
            raise self._stop(recorded, misplaced(place), kind, tried=place.tried, out=self._way_out(place))
        if not os.access(place.path, os.R_OK):
            raise self._stop(recorded, f"{place.path} may not be read by this user", ErrorKind.PERMISSION)
        if not recorded.startswith("/"):
            self._bases.add(self._folders[len(place.tried) - 1])
        return place

    def _way_out(self, place: Place) -> str:
        return way_out(place, self._held.name, self._files.opened)

    def _prefix(self) -> str:
        """Return the folder HDF5 has to be told; it would look for raw files in the working folder."""
        if not self._bases or prefixes(self._kind):
            return ""
        base, *others = self._bases
        beside = Path(self._held.name).absolute().parent
        if others:
            text = f"its files lie in different folders, {beside} and {Path(os.path.realpath(self._held.name)).parent}"
            raise self._stop("several files", text, ErrorKind.MISSING)
        if base != beside:
            return str(base)
        return ORIGIN if self._kind is LinkKind.RAW else ""

    def _by_file(self, count: int) -> dict[str, list[Mapping]]:
        found: dict[str, list[Mapping]] = {}
        for index in range(count):
            try:
                file = self._created.get_virtual_filename(index)
                dataset = self._created.get_virtual_dsetname(index)
            except UnicodeDecodeError as error:
                text = f"the name of source {index} is no UTF-8 and can't be read"
                raise self._stop("other datasets", text, ErrorKind.REFUSED) from error
            if any("%b" in name.replace("%%", "") for name in (file, dataset)):
                if self._files.rules.policy is not Policy.ALLOW:
                    text = f"{file}:{dataset} stands for any number of files (%b), which can't be checked"
                    out = f"If you trust {self._files.opened or self._held.name}, open it with links='allow'"
                    raise self._stop(f"{file}:{dataset}", text, ErrorKind.REFUSED, out=out)
                continue
            spaces = self._created.get_virtual_vspace(index), self._created.get_virtual_srcspace(index)
            found.setdefault(unescaped(file), []).append((unescaped(dataset), *spaces))
        return found

    def _source_file(self, recorded: str, mappings: list[Mapping]) -> None:
        with self._opened(recorded, mappings[0][0]) as held:
            for dataset, there, here in mappings:
                self._source(f"{recorded}:{dataset}", held, dataset, there, here)

    @contextmanager
    def _opened(self, recorded: str, dataset: str) -> Iterator[OpenFile]:
        if recorded == SAME_FILE:
            yield self._held
            return
        with ExitStack() as stack:
            try:
                held = stack.enter_context(self._files.visit(self._place(recorded)))
            except LinkError as error:
                raise self._stop(f"{recorded}:{dataset}", str(error), error.kind) from error
            yield held

    def _source(self, target: str, held: OpenFile, dataset: str, there: Any, here: Any) -> None:
        steps = Steps()
        found = self._resolver.walk(root_of(held), dataset.encode("utf-8", "surrogateescape"), steps)
        if isinstance(found, BrokenLink):
            raise self._stop(target, f"on the way, {found}", found.error)
        if found is None:
            out = f"See what is there: nwbflow inspect {held.name}"
            raise self._stop(target, f"there is no {dataset} in {held.name}", ErrorKind.MISSING, out=out)
        if h5i.get_type(found.id) != h5i.DATASET:
            raise self._stop(target, f"{dataset} in {held.name} is no dataset", ErrorKind.SHAPE)
        self._crossings(target, steps)
        self._inner(target, found)
        misfit = shape_misfit(found.id.shape, there, here)
        if misfit:
            raise self._stop(target, f"{dataset} in {held.name} {misfit}", ErrorKind.SHAPE)
        misfit = type_misfit(found.id.dtype, self._spot.id.dtype)
        if misfit:
            raise self._stop(target, f"{dataset} in {held.name} {misfit}", ErrorKind.DTYPE)

    def _crossings(self, target: str, steps: Steps) -> None:
        """Refuse a source behind an external link, which HDF5 follows in its own way, unless that ends where ours does.

        It looks beside the name the source file was opened by, which may be a symbolic link, and in the working
        folder. So only who trusts the file gets there.
        """
        if not steps.crossed:
            return
        if self._files.rules.policy is not Policy.ALLOW:
            place, linking = steps.crossed[0]
            text = f"on the way is an external link of {linking} to {place.recorded}, which HDF5 would follow unchecked"
            opened = self._files.opened or self._held.name
            out = f"If you trust {opened}, open it with links='allow': nwbflow.open({opened!r}, links='allow')"
            raise self._stop(target, text, ErrorKind.REFUSED, out=out)
        for place, linking in steps.crossed:
            other = taken_instead(place, linking)
            if other is not None:
                text = f"on the way HDF5 would take {other} of the working folder for {place.path}"
                raise self._stop(target, text, ErrorKind.REFUSED, out=f"Start in another folder than {Path.cwd()}")

    def _inner(self, target: str, source: Spot) -> None:
        """Refuse a source that has its elements elsewhere, where they must not or can't be read."""
        verdict = self._examiner.examine(source)
        if verdict.problem is not None:
            inner = verdict.problem
            if inner.error is ErrorKind.CYCLE:
                raise self._stop(target, inner.reason, inner.error)
            reason = f"that is itself stored in {inner.target}, and {inner.reason}"
            raise self._stop(target, reason, inner.error, tried=inner.tried, out=inner.way_out)
        where = source.held.name
        if verdict.raw_prefix and self._kind is LinkKind.VIRTUAL:
            raise self._stop(
                target,
                "that is stored in a raw file with a relative name, which HDF5 would look for in the working folder",
                ErrorKind.MISSING,
                out=f"Make the name absolute: nwbflow links absolute {where}. Or set HDF5_EXTFILE_PREFIX='{ORIGIN}' "
                "before starting",
            )
        if verdict.virtual_prefix:
            real = os.path.realpath(where)
            text = f"that is virtual itself, and its sources lie beside {real}"
            raise self._stop(target, text, ErrorKind.MISSING, out=f"Open {real}, not the symbolic link to it")

    def _broken(
        self, target: str, reason: str, error: ErrorKind, *, tried: tuple[Path, ...] = (), out: str = ""
    ) -> BrokenLink:
        return BrokenLink(
            file=self._held.name,
            name=name_of(self._held, self._spot.id),
            kind=self._kind,
            target=target,
            reason=reason,
            error=error,
            tried=tried,
            way_out=out,
        )

    def _stop(
        self, target: str, reason: str, error: ErrorKind, *, tried: tuple[Path, ...] = (), out: str = ""
    ) -> _StopError:
        return _StopError(self._broken(target, reason, error, tried=tried, out=out))


def _extent(space: Any) -> Extent:
    """Return shape and largest shape of a virtual dataset, as they were when it was made."""
    most = space.get_simple_extent_dims(True)
    largest = tuple(None if n == h5s.UNLIMITED else int(n) for n in most)
    return tuple(int(n) for n in space.get_simple_extent_dims()), largest


def _unlimited(space: Any) -> bool:
    """Return whether a selection has no end."""
    if space.get_select_type() != h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return False
    _, _, count, block = space.get_regular_hyperslab()
    return h5s.UNLIMITED in (*count, *block)


def shape_misfit(shape: tuple[int, ...], there: Any, here: Any) -> str:
    """Return what is wrong if a source has another shape than its mapping was made for; empty if nothing is.

    Parameters
    ----------
    shape : tuple of int
        Of the source, in elements.
    there, here : h5py SpaceID
        The mapping's selections in the virtual dataset and in the source.
    """
    if _unlimited(there) or _unlimited(here):
        return ""
    if here.get_select_type() == h5s.SEL_ALL:
        has, wanted = math.prod(shape), int(there.get_select_npoints())
        return "" if has == wanted else f"has {has} elements (shape {shape}), the virtual dataset is made for {wanted}"
    _, last = here.get_select_bounds()
    if len(last) == len(shape) and all(int(at) < n for at, n in zip(last, shape, strict=True)):
        return ""
    return f"has shape {shape}, the virtual dataset wants elements up to {tuple(int(n) for n in last)}"


def reopened(spot: Spot, verdict: Verdict) -> Spot | BrokenLink:
    """Return a dataset opened anew, so that HDF5 finds the files of its elements.

    Parameters
    ----------
    spot : Spot
        The dataset. Its identifier is closed, since HDF5 refuses two openings that differ in this.
    verdict : Verdict
        What is to be known about it.

    Returns
    -------
    Spot or BrokenLink
        The latter if it is open elsewhere in this program.
    """
    access = verdict.access()
    if access is None:
        return spot
    name, path = name_of(spot.held, spot.id), h5i.get_name(spot.id)
    spot.id.close()
    try:
        return Spot(spot.held, h5d.open(spot.held.file.id, path, access), spot.address)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = f"it is open elsewhere in this program, in a way in which its files would not be found ({error})"
        return BrokenLink(
            file=spot.held.name,
            name=name,
            kind=LinkKind.RAW if verdict.raw_prefix else LinkKind.VIRTUAL,
            target="other files",
            reason=reason,
            error=ErrorKind.LOCKED,
            way_out="Close it there first",
        )
