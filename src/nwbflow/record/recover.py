"""Finish what a crash has interrupted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import h5py

from nwbflow.errors import ErrorKind, StorageError, TargetError
from nwbflow.model.events import Event
from nwbflow.model.recovery import RecoveredDataset, Recovery
from nwbflow.record.build import Built, build, is_intact, put_in_place
from nwbflow.record.folder import JournalFolder, kept_for_damage, mark_of, remove, sweep
from nwbflow.record.manifest import Manifest
from nwbflow.record.rebuild import REBUILDING, rebuild
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.occupied import journal_path
from nwbflow.sinks.staging import check_length, check_target, partial_path

SUFFIXES = (".partial", ".journal", REBUILDING)


def recover(path: str | Path, *, output: str | Path | None = None) -> Recovery:
    """Make the finished NWB file out of what an interrupted recording left.

    The file is made from the journal, beside its place, verified, and put in place in one step. What was read is
    removed after that, as the last thing; until then this can be interrupted and repeated at will. Every series has
    all rows that were acknowledged, without gaps, and those that had arrived in the journal besides.

    A journal that is damaged (a flipped bit, a bad sector) gives what is before the damage. It is kept then, under
    the name ``<name>.journal.damaged``, with the partial file in it, and does not stand in the way of a new recording.

    Of a recording without a journal the file is made from the chunks of the partial file, in the same way.

    Parameters
    ----------
    path : str or pathlib.Path
        The file that was recorded to; also what lies beside it (``.partial``, ``.journal``).
    output : str or pathlib.Path, optional
        Make another file, and leave all that is there as it is.

    Returns
    -------
    Recovery
        Rows kept and lost for each dataset; printable.

    Raises
    ------
    TargetError
        If there is no recording, it is still running, or something else is at the path.
    StorageError, VerifyError
        If the journal can't be read or the file not be written. Nothing has been removed then.
    """
    target = _target(path)
    wanted = None if output is None else Path(os.path.realpath(output))
    elsewhere = wanted if wanted != target else None
    if not target.name or not journal_path(target).is_dir():
        return _nothing_to_do(target)
    folder = JournalFolder.claim(target)
    try:
        return _recover(folder, elsewhere)
    finally:
        folder.let_go()


def _target(path: str | Path) -> Path:
    """Return what was recorded to: the path itself, unless there is nothing and a suffix says what it belongs to."""
    given = Path(os.path.realpath(path))
    suffix = next((suffix for suffix in SUFFIXES if given.name.endswith(suffix) and given.name != suffix), None)
    if suffix is None or journal_path(given).is_dir():
        return given
    stripped = given.with_name(given.name.removesuffix(suffix))
    return given if given.is_file() and not journal_path(stripped).is_dir() else stripped


def _nothing_to_do(target: Path) -> Recovery:
    if target.is_file():
        sweep(target)
        notes = ("there is no journal beside it, nothing to recover here", *_troubles(target))
        return Recovery(path=target, datasets=(), notes=notes)
    if target.is_dir():
        raise TargetError(f"{target} is a folder; give the path that was recorded to", kind=ErrorKind.FOLDER)
    raise TargetError(
        f"{target}: there is neither a file nor the journal of a recording ({journal_path(target).name}); give the "
        "path that was recorded to",
        kind=ErrorKind.MISSING,
    )


def _troubles(file: Path) -> tuple[str, ...]:
    """Say why a file can't be opened."""
    try:
        with file.open("rb"):
            pass
        if not h5py.is_hdf5(file):
            return ("it is no HDF5 file: empty, of another format, or damaged at its beginning",)
        with h5py.File(file, "r"):
            return ()
    except OSError as error:
        return (f"it can't be opened: {error}",)


def _recover(folder: JournalFolder, elsewhere: Path | None) -> Recovery:
    target = folder.target
    if not folder.begun:
        raise TargetError(
            f"{folder.path}: this recording had not begun, so nothing had been accepted; record again to {target}, "
            "which clears this up",
            kind=ErrorKind.MISSING,
        )
    manifest = folder.manifest()
    if elsewhere is None:
        published = folder.published(manifest.replaces)
        if published is not None:
            note = "the file was in place already, complete and verified"
            return _after(folder, Recovery(path=target, datasets=(), notes=(note,)), damaged=published == "damaged")
        _refuse_other_file(target, manifest)
    output = target if elsewhere is None else check_target(elsewhere, overwrite=False)
    building = output.with_name(output.name + REBUILDING)
    check_length(output, building)
    built = _build(folder, manifest, building, in_place=elsewhere is None)
    try:
        recovery = _report(output, manifest, built, _loose_links(building, output, target.parent))
        put_in_place(building, output, folder if elsewhere is None else None, damaged=built.damaged)
    except BaseException:
        remove(building)
        raise
    if elsewhere is None:
        return _after(folder, recovery, damaged=built.damaged)
    return _told_of_damage(recovery, folder.path) if built.damaged else recovery


def _build(folder: JournalFolder, manifest: Manifest, building: Path, *, in_place: bool) -> Built:
    """Build the file; on a full disk once more without the partial file, if the journal has all that is in that."""
    workers, partial = len(os.sched_getaffinity(0)), partial_path(folder.target)
    if not manifest.has_journal:
        return rebuild(folder, manifest, partial, building)
    try:
        built = build(folder, manifest, building, workers=workers, emit=_ignore)
    except StorageError as error:
        if error.kind is not ErrorKind.NO_SPACE or not in_place or not partial.exists():
            raise
        if not is_intact(folder, manifest):
            raise
        remove(partial)
        built = build(folder, manifest, building, workers=workers, emit=_ignore)
    return built


def _after(folder: JournalFolder, recovery: Recovery, *, damaged: bool) -> Recovery:
    """Remove what the file was made of, or put it aside."""
    with translated(str(folder.path), "putting away what is left of the recording"):
        if damaged:
            return _told_of_damage(recovery, folder.keep())
        remove(partial_path(folder.target))
        folder.retire()
    return recovery


def _told_of_damage(recovery: Recovery, journal: Path) -> Recovery:
    return replace(recovery, notes=(*recovery.notes, kept_for_damage(journal)), journal=journal)


def _loose_links(built: Path, output: Path, home: Path) -> list[str]:
    """Say which external links with relative names do not lead from `output` to where they lead from `home`."""
    notes = []

    def look(name: str, link: object) -> None:
        if not isinstance(link, h5py.ExternalLink) or Path(link.filename).is_absolute():
            return
        here, there = _file_at(output.parent / link.filename), _file_at(home / link.filename)
        if output.parent / link.filename != output and (here is None or (there is not None and here != there)):
            notes.append(
                f"the link /{name} to {link.filename} leads {'nowhere' if here is None else 'elsewhere'} from "
                f"{output.parent}; move that file there, or change the link: nwbflow links relocate"
            )

    with translated(str(built), "looking at its links"), h5py.File(built, "r") as file:
        file.visititems_links(look)
    return notes


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_other_file(target: Path, manifest: Manifest) -> None:
    """Refuse to replace a file that is not the one the recording was allowed to replace."""
    if target.exists() and mark_of(target) != manifest.replaces:
        raise TargetError(
            f"{target} exists, and is not what was there when the recording began; move it away, or recover to another "
            "file (output=, --output)",
            kind=ErrorKind.EXISTS,
        )


def _report(path: Path, manifest: Manifest, built: Built, more: list[str]) -> Recovery:
    datasets = tuple(
        RecoveredDataset(name=dataset.name, kept=kept, lost=max(0, beyond - kept))
        for series, kept, beyond in zip(manifest.series, built.rows, built.beyond, strict=True)
        for dataset in series.datasets
    )
    return Recovery(path=path, datasets=datasets, notes=(*built.notes, *more))


def _ignore(event: Event) -> None:
    del event
