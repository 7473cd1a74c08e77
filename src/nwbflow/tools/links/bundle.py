"""A file and everything it links to, in one folder that can be sent away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nwbflow.errors import ErrorKind, LinkError, TargetError, VerifyError
from nwbflow.links.inventory import LinkState, list_links
from nwbflow.links.survey import Part, Seen, Survey
from nwbflow.model.links import LinkKind
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.permitted import refuse_no_folder, refuse_protected
from nwbflow.sinks.replace import copy_file, edited_copy, refuse_full
from nwbflow.tools.links.fit import difference
from nwbflow.tools.links.renaming import names_in, settled, verify_names
from nwbflow.tools.links.reports import RAW_NOTE, BundleReport
from nwbflow.tools.links.rewrite import Renaming, rename

_ROOM = 2**20


@dataclass(slots=True)
class _Plan:
    """What goes into the folder.

    Parameters
    ----------
    names : dict of Path to str
        Name in the folder, by real path; the bundled file first.
    sources : dict of Path to Path
        What each is opened by, by real path.
    hdf5 : dict of Path to list of Renaming
        What changes in the HDF5 files, by real path.
    notes : list of str
        For the report.
    wrong : list of str
        Why it can't be done.
    force : bool
        Whether what is not what was linked is bundled all the same.
    """

    names: dict[Path, str] = field(default_factory=dict)
    sources: dict[Path, Path] = field(default_factory=dict)
    hdf5: dict[Path, list[Renaming]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    force: bool = False

    def add(self, path: Path) -> str:
        """Return the name that a file has in the folder."""
        real = Path(os.path.realpath(path))
        if real not in self.names:
            taken = {name.casefold() for name in self.names.values()}  # it may be unpacked where case doesn't count
            names = [path.name, *(f"{path.stem}-{number}{path.suffix}" for number in range(2, len(taken) + 3))]
            self.names[real] = next(name for name in names if name.casefold() not in taken)
            self.sources[real] = path
        return self.names[real]


def bundle(path: str | Path, folder: str | Path, *, dry_run: bool = False, force: bool = False) -> BundleReport:
    """Copy a file and everything it links to into a new folder, with relative names.

    Linked HDF5 files are copied whole, with everything they link to themselves, and so are raw files. The originals
    are only read. For a copy with everything in one file, see :func:`embed` and its `out`.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    folder : str or pathlib.Path
        The folder to make; it appears in one step when everything is in it.
    dry_run : bool
        Only look whether all is there, and how much that is.
    force : bool
        Bundle also what is not what was linked, as it is now.

    Returns
    -------
    BundleReport
        What is in it.

    Raises
    ------
    nwbflow.errors.LinkError
        If something the file links to is missing, unreadable or not what was linked; all that is wrong is listed.
    nwbflow.errors.TargetError
        If something is at `folder`, or it can't be made.
    nwbflow.errors.StorageError
        If the disk is too small or fails; nothing is left then.
    nwbflow.errors.VerifyError
        If the links of the bundled file don't hold in the folder.
    """
    path, folder = Path(path), Path(folder).absolute()
    _check_folder(folder)
    plan = _planned(path, force=force)
    if plan.wrong:
        listed = "\n    ".join(dict.fromkeys(plan.wrong))
        raise LinkError(f"{path}: not bundled, since\n    {listed}", kind=ErrorKind.REFUSED)
    nbytes = sum(real.stat().st_size for real in plan.names)
    refuse_full(folder.parent, nbytes, f"{folder}: the bundle")
    if not dry_run:
        _make(plan, folder)
    files = {name: plan.sources[real] for real, name in plan.names.items()}
    return BundleReport(folder=folder, files=files, nbytes=nbytes, notes=tuple(plan.notes), written=not dry_run)


def _check_folder(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or next(folder.iterdir(), None) is not None)):
        raise TargetError(f"{folder} exists; name a folder that doesn't, or an empty one", kind=ErrorKind.EXISTS)
    refuse_no_folder(folder)
    refuse_protected(folder)


def _planned(path: Path, *, force: bool) -> _Plan:
    plan = _Plan(force=force)
    plan.add(path)
    main = next(iter(plan.names))
    waiting = [main]
    while waiting:
        real = waiting.pop(0)
        if real not in plan.hdf5:
            plan.hdf5[real] = []
            waiting += _look_at(plan, real, plan.wrong if real == main else plan.notes)
    return plan


def _look_at(plan: _Plan, real: Path, complaints: list[str]) -> list[Path]:
    """Note what one file links to; return the HDF5 files among that."""
    found = []
    raw = False
    with Survey(plan.sources[real]) as survey:
        for seen in survey.links():
            if seen.kind is LinkKind.SOFT:
                continue
            if seen.problem is not None:
                complaints.append(str(seen.problem))
                continue
            names: dict[str, str] = {}
            for part, target in _targets(seen, survey, complaints):
                names[part.file] = plan.add(target)
                if seen.kind is LinkKind.RAW:
                    raw = True
                else:
                    found.append(Path(os.path.realpath(target)))
            changed = "" if plan.force else difference(seen, survey, "bundle")
            if changed:
                complaints.append(f"{survey.path}:{seen.member.path}: {changed}")
            if any(old != new for old, new in names.items()):
                if seen.note:  # it would have to be written anew
                    plan.wrong.append(f"{survey.path}:{seen.member.path}: {seen.note}")
                plan.hdf5[real].append(Renaming(path=seen.member.path, kind=seen.kind, names=names))
        complaints += [f"{survey.path}:{problem}" for problem in survey.problems]
    if raw and RAW_NOTE not in plan.notes:
        plan.notes.append(RAW_NOTE)
    return found


def _targets(seen: Seen, survey: Survey, complaints: list[str]) -> Iterator[tuple[Part, Path]]:
    for part in seen.parts:
        if not part.file:
            continue
        place = survey.place(part, seen.kind)
        if place.path is None or part.numbered:  # nobody knows how many files %b stands for
            complaints.append(
                f"{survey.path}:{seen.member.path} leads to {part.file}, which can't be bundled; embed it"
            )
        else:
            yield part, settled(place.tried[-1])


def _make(plan: _Plan, folder: Path) -> None:
    made = folder.with_name(folder.name + ".bundle.partial")
    with _staged(made):
        for real, name in plan.names.items():
            if real in plan.hdf5:
                _copy_hdf5(plan.sources[real], made / name, plan.hdf5[real])
            else:
                copy_file(real, made / name)
                _sync(made / name, os.O_RDONLY)
        _verify(made / next(iter(plan.names.values())))
        with translated(str(folder), "putting the folder in place"):
            _sync(made, os.O_RDONLY | os.O_DIRECTORY)
            made.rename(folder)
            _sync(folder.parent, os.O_RDONLY | os.O_DIRECTORY)


@contextlib.contextmanager
def _staged(made: Path) -> Iterator[None]:
    """Make a folder of that name, held by a lock; what a killed program left under it is removed first."""
    if made.is_symlink() or (made.exists() and not made.is_dir()):
        raise TargetError(f"{made}, where the bundle is prepared, is a link or file; remove it", kind=ErrorKind.EXISTS)
    with translated(str(made), "making the folder"):
        made.mkdir(exist_ok=True)
        handle = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TargetError(
                f"{made} is in use: another program is making this bundle", kind=ErrorKind.LOCKED
            ) from error
        except OSError:
            pass  # a file system without locks
        for old in made.iterdir():
            old.unlink()
        try:
            yield
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _copy_hdf5(source: Path, target: Path, renamings: list[Renaming]) -> None:
    before: list[tuple[str, str]] = []
    with edited_copy(
        source, out=target, extra_bytes=_ROOM, verify=lambda file: verify_names(file, before, source)
    ) as file:
        before.extend(names_in(file))
        rename(file, renamings)


def _verify(main: Path) -> None:
    for link in list_links(main).links:
        if link.kind is not LinkKind.SOFT and link.state is not LinkState.OK:
            raise VerifyError(
                f"{link.path} would not be readable in the folder: {link.detail}. Bundle into one file instead: "
                "nwbflow links bundle --one-file",
                kind=ErrorKind.MISMATCH,
            )


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
