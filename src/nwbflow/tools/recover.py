"""Recovering: of recordings from their journals, and of what other programs left."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from nwbflow.errors import ErrorKind, SettingsError, TargetError
from nwbflow.model.recovery import RecoveredDataset, Recovery
from nwbflow.record.build import put_in_place
from nwbflow.record.folder import done_path
from nwbflow.record.recover import SUFFIXES
from nwbflow.record.recover import recover as finish_recording
from nwbflow.sinks.hdf5 import translated
from nwbflow.sinks.occupied import is_locked, journal_path
from nwbflow.sinks.replace import refuse_full
from nwbflow.sinks.staging import check_length, check_target, free_name
from nwbflow.sinks.superblock import read_superblock
from nwbflow.tools.mend.process import mend_apart

_ROOM = 2**20
_PARTIAL_NOTE = (
    "this is what an interrupted write left: it has the rows that were stored until then. Write again from the "
    "source, if that is still there"
)


def recover(path: str | Path, *, output: str | Path | None = None, in_place: bool = False) -> Recovery:
    """Make a finished NWB file out of what a crash left.

    **A recording of nwbflow** (a journal lies beside the file): the file is made from the journal, beside its place,
    verified, and put in place in one step. What was read is removed after that, as the last thing; until then this can
    be interrupted and repeated at will. Every series has all rows that were acknowledged, without gaps, and those that
    had arrived in the journal besides. A journal that is damaged gives what is before the damage; it is kept then,
    under the name ``<name>.journal.damaged``, with the partial file in it. Of a recording with ``journal=False`` it is
    the chunks of the partial file that are taken.

    **Any other HDF5 file**, NWB or not, that a program left when it died, or that was cut off or damaged: everything
    that can be read goes into a new file, ``x.recovered.nwb`` beside ``x.nwb``, which is compared with the old one and
    put in place in one step; the old one stays as it is. Rows at the end that can't be read are left out; rows before
    that which can't be read are NaN (or the fill value) and named. Series and tables whose parts differ in length are
    cut to the shortest. What NWB requires and is missing is filled in, and named. All reading is done in processes of
    their own, since HDF5 can hang or crash over damaged files. A file that is whole is left alone.

    Parameters
    ----------
    path : str or pathlib.Path
        The file that was recorded to, or what lies beside it (``.partial``, ``.journal``); or a damaged file.
    output : str or pathlib.Path, optional
        Make this file instead, where nothing is yet, and leave all that is there as it is.
    in_place : bool
        Put a mended file in the place of the damaged one, which is kept as ``<name>.damaged``. A recording goes to its
        own place in any case.

    Returns
    -------
    Recovery
        Rows kept and lost for each dataset; printable.

    Raises
    ------
    TargetError
        If there is nothing to recover at `path`, it is being written, or something is at the place of the new file.
    UnsupportedError
        If it is no HDF5 file.
    StorageError, VerifyError
        If nothing can be recovered, or the new file not be written. Nothing has been changed then.
    SettingsError
        If both `output` and `in_place` are given.
    """
    if output is not None and in_place:
        raise SettingsError("output= and in_place= are given: choose one", kind=ErrorKind.OPTION)
    given = Path(path)
    if not _is_strangers(given):
        return finish_recording(path, output=output)
    source = Path(os.path.realpath(given))
    _check(source)
    target = source if in_place else _free(_beside(source) if output is None else Path(output))
    building = target.with_name(target.name + ".recovering")
    check_length(target, building)
    return _mended(source, target, building)


def _is_strangers(path: Path) -> bool:
    """Whether there is a file here, and no journal that it belongs to."""
    real = Path(os.path.realpath(path))
    if not real.name or not os.path.lexists(real) or journal_path(real).is_dir() or done_path(real).is_dir():
        return False
    stripped = [real.with_name(real.name.removesuffix(suffix)) for suffix in SUFFIXES if real.name.endswith(suffix)]
    return not any(journal_path(one).is_dir() for one in stripped) and not (real.is_dir() and stripped)


def _beside(source: Path) -> Path:
    name = source.name.removesuffix(".partial")
    stem, dot, suffix = name.rpartition(".")
    return source.with_name(f"{stem}.recovered.{suffix}" if stem and dot else f"{name}.recovered")


def _check(source: Path) -> None:
    """Refuse what can't be read as a file: reading a pipe would wait for ever."""
    try:
        kind = source.stat().st_mode
        if stat.S_ISDIR(kind):
            raise TargetError(
                f"{source} is a folder (a Zarr store?); only HDF5 files can be recovered", kind=ErrorKind.FOLDER
            )
        if not stat.S_ISREG(kind):
            raise TargetError(f"{source} is no regular file (a device, pipe or socket)", kind=ErrorKind.FOLDER)
        with source.open("rb"):
            pass
    except PermissionError as error:
        raise TargetError(f"{source} may not be read by this user", kind=ErrorKind.PERMISSION) from error
    if is_locked(source):
        raise TargetError(f"{source} is open in a program that writes it; close it there first", kind=ErrorKind.LOCKED)


def _free(target: Path) -> Path:
    if os.path.lexists(target):
        raise TargetError(
            f"{target} exists, from an earlier recovery perhaps; remove it, or make another file (output=)",
            kind=ErrorKind.EXISTS,
        )
    return check_target(target, overwrite=False)


def _mended(source: Path, target: Path, building: Path) -> Recovery:
    before = source.stat()
    refuse_full(target.parent, before.st_blocks * 512 + _ROOM, f"{target}: the recovered file")
    try:
        building.unlink(missing_ok=True)
        read_superblock(source)  # at once, if it is no HDF5 file
        found = mend_apart(source, building)
        now = source.stat()
        if (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
            raise TargetError(
                f"{source} changed while it was read: a program is writing it. Wait until that has ended, then recover",
                kind=ErrorKind.CHANGED,
            )
        notes = [*found["notes"], *([_PARTIAL_NOTE] if source.name.endswith(".partial") else [])]
        if found["fine"]:
            whole = "everything in it can be read; it was left as it is"
            return Recovery(path=source, datasets=(), notes=(whole, *notes), invalid=tuple(found["invalid"]))
        original = _keep(source) if target == source else None
        put_in_place(building, target, None)
    finally:
        building.unlink(missing_ok=True)
    return _report(target, found, notes, original)


def _keep(source: Path) -> Path:
    """Give the damaged file a second name, under which it stays."""
    kept = free_name(source.with_name(source.name + ".damaged"))
    with translated(str(kept), "keeping the damaged file"):
        os.link(source, kept)
    return kept


def _report(target: Path, found: dict[str, Any], notes: list[str], original: Path | None) -> Recovery:
    datasets = tuple(
        RecoveredDataset(**fields | {"damaged": tuple((start, stop) for start, stop in fields["damaged"])})
        for fields in found["datasets"]
    )
    told: dict[str, tuple[str, ...]] = {
        name: tuple(found.get(name, ())) for name in ("repaired", "lost", "placeholders", "invalid")
    }
    return Recovery(
        path=target,
        datasets=datasets,
        notes=tuple(notes),
        repaired=told["repaired"],
        lost=told["lost"],
        placeholders=told["placeholders"],
        invalid=told["invalid"],
        original=original,
    )
