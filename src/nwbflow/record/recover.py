"""Finish what a crash has interrupted."""

from __future__ import annotations

import os
from pathlib import Path

from nwbflow.errors import ErrorKind, TargetError
from nwbflow.model.events import Event
from nwbflow.model.recovery import RecoveredDataset, Recovery
from nwbflow.record.build import Built, build, put_in_place
from nwbflow.record.folder import JournalFolder, mark_of, remove, sweep
from nwbflow.record.manifest import Manifest
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.staging import check_target, journal_path, partial_path

SUFFIXES = (".partial", ".journal", ".recovering")


def recover(path: str | Path, *, output: str | Path | None = None) -> Recovery:
    """Make the finished NWB file out of what an interrupted recording left.

    The file is made from the journal, beside its place, verified, and put in place in one step. What was read is
    removed after that, as the last thing; until then this can be interrupted and repeated at will. Every series has
    all rows that were acknowledged, without gaps, and those that had arrived in the journal besides.

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
    if not journal_path(target).is_dir():
        return _nothing_to_do(target)
    folder = JournalFolder.claim(target)
    try:
        return _recover(folder, elsewhere)
    finally:
        folder.let_go()


def _target(path: str | Path) -> Path:
    target = Path(os.path.realpath(path))
    for suffix in SUFFIXES:
        if target.name.endswith(suffix):
            return target.with_name(target.name.removesuffix(suffix))
    return target


def _nothing_to_do(target: Path) -> Recovery:
    if target.is_file():
        sweep(target)
        return Recovery(path=target, datasets=(), notes=("there was nothing to recover: the file is finished",))
    raise TargetError(
        f"{target}: there is neither a file nor the journal of a recording ({journal_path(target).name}); give the "
        "path that was recorded to",
        kind=ErrorKind.MISSING,
    )


def _recover(folder: JournalFolder, elsewhere: Path | None) -> Recovery:
    target = folder.target
    if not folder.begun:
        raise TargetError(
            f"{folder.path}: this recording had not begun, so nothing had been accepted; record again to {target}, "
            "which clears this up",
            kind=ErrorKind.MISSING,
        )
    manifest = folder.manifest()
    if elsewhere is None and folder.is_published():
        _clear(folder)
        return Recovery(path=target, datasets=(), notes=("the file was in place already, complete and verified",))
    output = target if elsewhere is None else check_target(elsewhere, overwrite=False)
    if elsewhere is None:
        _refuse_other_file(target, manifest)
    building = output.with_name(output.name + ".recovering")
    built = build(folder, manifest, building, workers=len(os.sched_getaffinity(0)), emit=_ignore)
    put_in_place(building, output, folder if elsewhere is None else None)
    if elsewhere is None:
        _clear(folder)
    return _report(output, manifest, built)


def _refuse_other_file(target: Path, manifest: Manifest) -> None:
    """Refuse to replace a file that is not the one the recording was allowed to replace."""
    if target.exists() and mark_of(target) != manifest.replaces:
        raise TargetError(
            f"{target} exists, and is not what was there when the recording began; move it away, or recover to another "
            "file (output=, --output)",
            kind=ErrorKind.EXISTS,
        )


def _clear(folder: JournalFolder) -> None:
    with translated(str(folder.path), "removing what is left of the recording"):
        remove(partial_path(folder.target))
        folder.retire()


def _report(path: Path, manifest: Manifest, built: Built) -> Recovery:
    datasets = tuple(
        RecoveredDataset(name=dataset.name, kept=kept, lost=max(0, beyond - kept))
        for series, kept, beyond in zip(manifest.series, built.rows, built.beyond, strict=True)
        for dataset in series.datasets
    )
    return Recovery(path=path, datasets=datasets, notes=built.notes)


def _ignore(event: Event) -> None:
    del event
