"""Leading links to where their targets are now: after a move, or by relative or absolute names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import h5py

from nwbflow.errors import ErrorKind, LinkError, NwbflowError, VerifyError
from nwbflow.links.inventory import hdf5_files
from nwbflow.links.problems import misplaced
from nwbflow.links.survey import Part, Seen, Survey
from nwbflow.links.walk import walk
from nwbflow.model.links import LinkKind
from nwbflow.sinks.replace import edited_copy
from nwbflow.tools.links.choosing import Chosen
from nwbflow.tools.links.circles import Renamed
from nwbflow.tools.links.fit import misfits
from nwbflow.tools.links.reports import RAW_NOTE, LinkChange, RenameReport, names_note
from nwbflow.tools.links.rewrite import Renaming, rename

_ROOM = 2**20  # what a file may grow by when names are recorded anew

type NewName = Callable[[Seen, Part, Survey], str | None]
"""Returns the new name of a part's file; ``None`` if it stays."""


def relocate(
    files: Sequence[str | Path],
    old: str | Path,
    new: str | Path,
    *,
    dry_run: bool = False,
    force: bool = False,
) -> tuple[RenameReport, ...]:
    """Lead links to where their targets are now.

    Every external link, source of a virtual dataset and raw file that leads to `old`, or below it, is led to `new`,
    or to the same place below that. Relative names stay relative, absolute ones absolute. All new targets are looked
    at before the first file is changed; then each file is replaced by a changed copy in one step.

    Parameters
    ----------
    files : sequence of str or pathlib.Path
        Files that have the links; folders are searched for ``.nwb``, ``.h5`` and ``.hdf5`` files.
    old : str or pathlib.Path
        File or folder where the targets were: as a path from the working folder, or as the links have it.
    new : str or pathlib.Path
        File or folder where they are now: as a path from the working folder; or, if `old` was given as the links have
        it and there is nothing there, from the folder of the linking file. For a file that was moved into a folder,
        the folder is enough.
    dry_run : bool
        Only say what would change.
    force : bool
        Don't look whether the new targets are there and the ones that were linked.

    Returns
    -------
    tuple of RenameReport
        File by file.

    Raises
    ------
    nwbflow.errors.LinkError
        A new target does not exist, lacks the dataset, has another shape, type or content than recorded, or leads
        back to the link; all that is wrong is listed, and no file was changed. Or no link leads to `old`, or a file
        can't be opened.
    nwbflow.errors.TargetError
        If a file can't be replaced. Files before it were; running it again does the rest.
    """
    move = _Move(str(old), str(new))

    def name(seen: Seen, part: Part, survey: Survey) -> str | None:
        del seen
        return move.name(part, survey)

    return _run(files, _Task(name, "relocated", look=not force, nothing=f"no link leads to {old}"), dry_run=dry_run)


def make_relative(
    files: Sequence[str | Path], *, only: Sequence[str] = (), dry_run: bool = False
) -> tuple[RenameReport, ...]:
    """Record relative names where absolute ones are, so that files and targets can be moved together.

    Parameters
    ----------
    files : sequence of str or pathlib.Path
        As in :func:`relocate`.
    only : sequence of str
        Patterns of the paths of links and datasets to change, such as ``"/acquisition/*"``; ``*`` includes slashes.
        Without any, all are.
    dry_run : bool
        Only say what would change.

    Returns
    -------
    tuple of RenameReport
        File by file.

    Raises
    ------
    nwbflow.errors.LinkError
        If a target is not there, a pattern matches no link, or a file can't be opened; no file was changed.
    nwbflow.errors.TargetError
        As in :func:`relocate`.
    """
    chosen = Chosen(only)

    def name(seen: Seen, part: Part, survey: Survey) -> str | None:
        if not chosen(seen.member.path) or not part.file.startswith("/"):
            return None
        return _relative(_found(seen, part, survey), survey.path)

    return _run(files, _Task(name, "made relative", chosen=chosen), dry_run=dry_run)


def make_absolute(
    files: Sequence[str | Path], *, only: Sequence[str] = (), dry_run: bool = False
) -> tuple[RenameReport, ...]:
    """Record absolute names where relative ones are, so that files can be moved without their targets.

    Parameters
    ----------
    files, only, dry_run
        As in :func:`make_relative`.

    Returns
    -------
    tuple of RenameReport
        File by file.

    Raises
    ------
    nwbflow.errors.LinkError, nwbflow.errors.TargetError
        As in :func:`make_relative`.
    """
    chosen = Chosen(only)

    def name(seen: Seen, part: Part, survey: Survey) -> str | None:
        if not chosen(seen.member.path) or part.file.startswith("/"):
            return None
        return str(_found(seen, part, survey))

    return _run(files, _Task(name, "made absolute", chosen=chosen), dry_run=dry_run)


def settled(path: str | Path) -> Path:
    """Return an absolute path, symbolic links of folders resolved; a file that is a symbolic link stays one.

    ``..`` behind the link of a folder would lead elsewhere; but where data are managed by links to files, the names
    of the links are what users know.

    Parameters
    ----------
    path : str or pathlib.Path
        Any.
    """
    absolute = Path(path).absolute()
    return Path(os.path.realpath(absolute.parent)) / absolute.name


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be done.

    Parameters
    ----------
    name : NewName
        What gives new names.
    doing : str
        For texts.
    look : bool
        Whether new targets are looked at.
    nothing : str
        What is wrong if there is no new name at all; empty if that is fine.
    chosen : Chosen
        Which paths it is done to.
    renamed : Renamed
        Takes the new names of links and virtual datasets.
    met : list of str
        Takes the names that lead to what is to be changed.
    wrong : list of str
        Takes why it can't be done.
    """

    name: NewName
    doing: str
    look: bool = False
    nothing: str = ""
    chosen: Chosen = field(default_factory=lambda: Chosen(()))
    renamed: Renamed = field(default_factory=Renamed)
    met: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Plan:
    path: Path
    renamings: tuple[Renaming, ...]


def _run(files: Sequence[str | Path], task: _Task, *, dry_run: bool) -> tuple[RenameReport, ...]:
    plans = [_plan(path, task) for path in hdf5_files(files, task.wrong)]
    if task.look:
        for plan in plans:
            _refuse_circles(plan, task)
    task.wrong.extend(task.chosen.missed())
    if task.nothing and not task.met:
        task.wrong.append(f"{task.nothing} (nwbflow links list shows where they lead)")
    if task.wrong:
        listed = "\n    ".join(task.wrong)
        raise LinkError(f"nothing was {task.doing}, since\n    {listed}", kind=ErrorKind.REFUSED)
    reports: list[RenameReport] = []
    for plan in plans:
        written = bool(plan.renamings) and not dry_run
        changes = tuple(LinkChange(path=r.path, kind=r.kind, names=r.names) for r in plan.renamings)
        notes = tuple(_notes(plan))
        if written:
            _carry_out(plan, [report.path for report in reports if report.written])
        reports.append(RenameReport(path=plan.path, changes=changes, written=written, notes=notes))
    return tuple(reports)


def _notes(plan: _Plan) -> Iterator[str]:
    if plan.renamings:
        yield from names_note(plan.path)
    names = [new for renaming in plan.renamings if renaming.kind is LinkKind.RAW for new in renaming.names.values()]
    if any(not name.startswith("/") for name in names):
        yield RAW_NOTE


def _refuse_circles(plan: _Plan, task: _Task) -> None:
    paths = {renaming.path: renaming for renaming in plan.renamings}
    if not paths:
        return
    with Survey(plan.path) as survey:
        for seen in survey.links():
            renaming = paths.get(seen.member.path)
            if renaming is not None and task.renamed.leads_back(seen, survey):
                names = ", ".join(renaming.names.values())
                task.wrong.append(f"{plan.path}:{renaming.path}: by way of {names} it would lead back to itself")


def _plan(path: Path, task: _Task) -> _Plan:
    found = []
    wrong = task.wrong
    with Survey(path) as survey:
        for seen in survey.links():
            if seen.kind is LinkKind.SOFT:
                continue
            where = f"{path}:{seen.member.path}"
            try:
                names = dict(_new_names(seen, task, survey))
                if names and seen.note:
                    raise LinkError(seen.note, kind=ErrorKind.CHANGED)
                if names and task.look:
                    task.renamed.add(seen, names, survey)
                    wrong += dict.fromkeys(f"{where}: {text}" for text in misfits(seen, names, survey))
            except LinkError as error:
                wrong.append(f"{where}: {error}")
                continue
            if names:
                found.append(Renaming(path=seen.member.path, kind=seen.kind, names=names))
        wrong += [f"{path}:{problem}" for problem in survey.problems]
    return _Plan(path=path, renamings=tuple(sorted(found, key=lambda r: r.path)))


def _new_names(seen: Seen, task: _Task, survey: Survey) -> Iterator[tuple[str, str]]:
    for part in seen.parts:
        new = task.name(seen, part, survey) if part.file else None
        if new is None:
            continue
        task.met.append(part.file)
        if new != part.file:
            yield part.file, new


def _carry_out(plan: _Plan, done: Sequence[Path]) -> None:
    """Change a file; where that fails, the error names those that were changed before."""
    try:
        _change(plan)
    except NwbflowError as error:
        if not done:
            raise
        listed = ", ".join(map(str, done))
        text = f"{error}. Changed before that: {listed}; when this is mended, the same command does the rest"
        raise type(error)(text, kind=error.kind) from error


def _change(plan: _Plan) -> None:
    before: list[tuple[str, str]] = []

    def verify(file: h5py.File) -> None:
        verify_names(file, before, plan.path)

    with edited_copy(plan.path, extra_bytes=_ROOM, verify=verify) as file:
        before.extend(names_in(file))
        rename(file, plan.renamings)


def names_in(file: h5py.File) -> list[tuple[str, str]]:
    """Return every name in a file with what it is."""
    return [(member.path, member.kind) for member in walk(file["/"], [])]


def verify_names(file: h5py.File, before: Sequence[tuple[str, str]], path: Path) -> None:
    """Raise if a file doesn't have the names it had, or can't be read.

    Raises
    ------
    nwbflow.errors.VerifyError
        If so.
    """
    problems: list[str] = []
    now = [(member.path, member.kind) for member in walk(file["/"], problems)]
    if problems or sorted(now) != sorted(before):
        text = problems[0] if problems else "names are missing"
        raise VerifyError(f"{path}: the changed copy is not what it should be ({text})", kind=ErrorKind.MISMATCH)


def _found(seen: Seen, part: Part, survey: Survey) -> Path:
    if part.numbered:  # nobody knows how many files that is
        return settled(Path(os.path.realpath(survey.path)).parent / part.file)
    place = survey.place(part, seen.kind)
    if place.path is None:
        raise LinkError(
            f"{misplaced(place)}. Lead it to where it is now: nwbflow links relocate {shlex.quote(part.file)} NEW "
            f"{shlex.quote(str(survey.path))}",
            kind=place.kind or ErrorKind.MISSING,
        )
    return settled(place.tried[-1])


def _relative(target: Path, linking: Path) -> str:
    return os.path.relpath(target, Path(os.path.realpath(linking)).parent)


class _Move:
    """Finds the new name of what was moved."""

    def __init__(self, old: str, new: str) -> None:
        self._old = os.path.normpath(old)
        self._new = new
        self._places = {PurePosixPath(os.path.abspath(old)), PurePosixPath(os.path.realpath(old))}  # noqa: PTH100

    def name(self, part: Part, survey: Survey) -> str | None:
        folder = Path(os.path.realpath(survey.path)).parent
        below, as_recorded = self._below(part.file, folder)
        if below is None:
            return None
        base = self._base(folder, as_recorded=as_recorded)
        if below == PurePosixPath() and base.is_dir():
            below = PurePosixPath(PurePosixPath(self._old).name)
        target = settled(base / below)
        return str(target) if part.file.startswith("/") else _relative(target, survey.path)

    def _below(self, recorded: str, folder: Path) -> tuple[PurePosixPath | None, bool]:
        """Return the path below what was moved, and whether that was given as the link has it."""
        normal = PurePosixPath(os.path.normpath(recorded))
        if self._old != "." and normal.is_relative_to(self._old):
            return normal.relative_to(self._old), True
        joined = folder / recorded
        for target in (PurePosixPath(os.path.normpath(joined)), PurePosixPath(os.path.realpath(joined))):
            for place in self._places:
                if target.is_relative_to(place):
                    return target.relative_to(place), False
        return None, False

    def _base(self, folder: Path, *, as_recorded: bool) -> Path:
        here, there = Path(self._new).absolute(), folder / self._new
        if not as_recorded or self._new.startswith("/") or self._old.startswith("/") or here == there:
            return here
        if here.exists() and there.exists() and not here.samefile(there):
            raise LinkError(
                f"{self._new} is both {here} (from the working folder) and {there} (from the linking file's); give "
                "the absolute path",
                kind=ErrorKind.OPTION,
            )
        return here if here.exists() or not there.exists() else there
