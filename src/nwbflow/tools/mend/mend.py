"""Mending one file, step by step, each in a process of its own; runs where there are no other threads."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import pynwb

from nwbflow.errors import ErrorKind, StorageError, VerifyError
from nwbflow.model.recovery import RecoveredDataset
from nwbflow.sinks.superblock import Superblock, read_superblock
from nwbflow.tools.mend.compare import differing
from nwbflow.tools.mend.complete import add_note, gaps, is_nwb
from nwbflow.tools.mend.isolated import QUIET_SECONDS, Outcome, Say, isolated
from nwbflow.tools.mend.lengths import cut, ragged
from nwbflow.tools.mend.overlay import opened
from nwbflow.tools.mend.rows import brief
from nwbflow.tools.mend.salvage import FAULTS, Salvage

_MOST_DEATHS = 12
"""Objects over which the process may die before it is given up."""
_NOT_NWB = "it is no NWB file: mended as HDF5, and nothing that NWB requires was added"
_FULL = ("No space left", "errno = 28", "Disk quota exceeded", "File too large", "errno = 27")


def mend(source: Path, building: Path, *, quiet_seconds: float = QUIET_SECONDS) -> dict[str, Any]:
    """Make a sound file out of a damaged one, if it is damaged.

    Parameters
    ----------
    source : pathlib.Path
        The file; it is only read.
    building : pathlib.Path
        Where the new one is made; nothing is there.
    quiet_seconds : float
        How long a step may be silent before it has hung.

    Returns
    -------
    dict
        The fields of a :class:`nwbflow.model.recovery.Recovery` that are found out here, and ``fine``: whether the
        file is whole, and none was made.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        It is no HDF5 file.
    nwbflow.errors.StorageError
        Nothing of it can be had, or the new one can't be written.
    nwbflow.errors.VerifyError
        What was stored reads back as something else.
    """
    try:
        return _mend(source, building, quiet_seconds)
    except BaseException:
        building.unlink(missing_ok=True)
        raise


def _mend(source: Path, building: Path, quiet_seconds: float) -> dict[str, Any]:
    superblock = read_superblock(source)
    problems = list(superblock.problems(source.stat().st_size))
    look = isolated(lambda say: _look(source, say), quiet_seconds=quiet_seconds)
    if look.result is not None and look.result["fine"]:
        return look.result | {"invalid": _validated(building=source, quiet_seconds=quiet_seconds)}
    used = superblock if problems else None
    if look.died:
        problems.append(f"opened as it is, {look.died}")
    crashed = bool(problems) or look.result is None
    found = _built(source, building, used, crashed, quiet_seconds)
    _refuse_empty(source, found, problems)
    done = isolated(lambda say: _complete(building, found, crashed, say), quiet_seconds=quiet_seconds)
    if done.result is None:
        found = _built(source, building, used, crashed, quiet_seconds)
        found["invalid"] = [f"what NWB requires could not be looked for: {done.died or done.failed}"]
    else:
        found = done.result
    found["repaired"] = [*problems, *found.get("repaired", [])]
    _verify(source, building, used, found, quiet_seconds)
    found["invalid"] = [*found.get("invalid", []), *_validated(building=building, quiet_seconds=quiet_seconds)]
    return found | {"fine": False}


def _look(source: Path, say: Say) -> dict[str, Any]:
    """Read the whole file as it is; nothing is written."""
    with opened(source, None) as file:
        found = Salvage(file, None, {}, say, crashed=False).run()
        broken = [dataset for dataset in found.datasets if dataset.damaged]
        nwb = is_nwb(file)
        missing = [gap.text for gap in gaps(file, []) if gap.needed] if nwb else []
        uneven = ragged(file, crashed=False) if nwb else []
    return {"fine": not (broken or found.lost or missing or uneven), "notes": found.notes}


def _built(
    source: Path, building: Path, superblock: Superblock | None, crashed: bool, quiet_seconds: float
) -> dict[str, Any]:
    """Copy what can be read; what kills the process is left out of the next try."""
    skip: dict[str, str] = {}
    outcome = Outcome()
    for _ in range(_MOST_DEATHS):
        building.unlink(missing_ok=True)
        outcome = isolated(
            lambda say: _build(source, building, superblock, skip, say, crashed=crashed), quiet_seconds=quiet_seconds
        )
        if outcome.result is not None:
            return outcome.result
        if not outcome.died or outcome.at in ("", "/") or outcome.at in skip:
            break
        skip[outcome.at] = outcome.died
    if any(sign in outcome.failed for sign in _FULL):
        text = f"{building}: the disk is full; make room, or choose another disk (output=)"
        raise StorageError(text, kind=ErrorKind.NO_SPACE)
    why = outcome.died or f"where its data lie can't be read (HDF5: {outcome.failed.partition(': ')[2]})"
    raise _nothing(source, why, list(superblock.problems(source.stat().st_size)) if superblock else [])


def _build(
    source: Path, building: Path, superblock: Superblock | None, skip: dict[str, str], say: Say, *, crashed: bool
) -> dict[str, Any]:
    old = superblock is None or superblock.version < 2
    libver = ("earliest", "latest") if old else ("v108", "latest")
    with opened(source, superblock) as file:
        try:
            len(file["/"])
        except FAULTS as error:
            raise OSError(f"x: its table of contents (the root group) can't be read: {brief(error)}") from error
        with h5py.File(building, "x", libver=libver, driver="nwbflow-write-through") as target:
            found = Salvage(file, target, skip, say, crashed=crashed).run()
            nothing = not any(True for _ in target)
    result = asdict(found)
    return result | {"empty": nothing}


def _refuse_empty(source: Path, found: dict[str, Any], problems: list[str]) -> None:
    rows = sum(dataset["kept"] for dataset in found["datasets"])
    if rows and not found["empty"]:
        return
    lost = found["lost"][:3]
    why = "; ".join(lost) if lost else "it opens, and there is nothing in it: its writer died before it wrote that down"
    raise _nothing(source, why, problems)


def _nothing(source: Path, why: str, problems: list[str]) -> StorageError:
    text = f"{source}: nothing can be recovered: {why or 'it can not be opened'}"
    error = StorageError(text, kind=ErrorKind.IO)
    for problem in problems:
        error.add_note(f"  {problem}")
    error.add_note(
        "  Where the data of an HDF5 file lie is written down when it is flushed or closed. The file is as it was; if "
        "there is another copy of it, try that."
    )
    return error


def _complete(building: Path, found: dict[str, Any], crashed: bool, say: Say) -> dict[str, Any]:
    """Fill in what NWB requires, and let parts that belong together be of one length."""
    repaired: list[str] = []
    placeholders: list[str] = []
    lost = [text.partition(":")[0] for text in found["lost"]]
    filled = ["/general/notes"]
    with h5py.File(building, "r+", driver="nwbflow-write-through") as file:
        if not is_nwb(file):
            return found | {"notes": [*found["notes"], _NOT_NWB]}
        for gap in gaps(file, lost):
            say("gaps")
            gap.fill()
            filled += [gap.path] if gap.path else []
            (placeholders if gap.placeholder else repaired).append(gap.text)
        datasets = _evened(file, [_dataset(each) for each in found["datasets"]], crashed, say)
        result = found | {
            "datasets": [asdict(dataset) for dataset in datasets],
            "repaired": repaired,
            "placeholders": placeholders,
        }
        text = _text_of(result)
        if text:
            add_note(file, text)
            result["notes"] = [*result["notes"], "what was lost and filled in is told in the file too: /general/notes"]
        result["filled"] = filled
    return result


def _dataset(fields: dict[str, Any]) -> RecoveredDataset:
    return RecoveredDataset(**fields | {"damaged": tuple((a, b) for a, b in fields["damaged"])})


def _evened(file: h5py.File, datasets: list[RecoveredDataset], crashed: bool, say: Say) -> list[RecoveredDataset]:
    rows: dict[str, int] = {}
    for wanted in ragged(file, crashed=crashed):
        for path, count in wanted.items():
            say(path)
            cut(file[path], count)
            rows[path] = count
    return [_shortened(dataset, rows.get(dataset.name)) for dataset in datasets]


def _shortened(dataset: RecoveredDataset, rows: int | None) -> RecoveredDataset:
    if rows is None:
        return dataset
    return RecoveredDataset(
        name=dataset.name,
        kept=rows,
        lost=dataset.lost + dataset.kept - rows,
        damaged=tuple((start, min(stop, rows)) for start, stop in dataset.damaged if start < rows),
        why=f"{dataset.why + '; ' if dataset.why else ''}cut to the length of what belongs to it",
    )


def _text_of(result: dict[str, Any]) -> str:
    """Return what a reader of the file alone has to know."""
    harmed = [dataset for each in result["datasets"] if (dataset := _dataset(each)).lost or dataset.damaged]
    lines = [*map(str, harmed), *result["lost"], *(f"placeholder: {text}" for text in result["placeholders"])]
    return "\n".join(["Recovered by nwbflow from a damaged file:", *lines]) if lines else ""


def _verify(
    source: Path, building: Path, superblock: Superblock | None, found: dict[str, Any], quiet_seconds: float
) -> None:
    damaged = {dataset["name"]: [tuple(span) for span in dataset["damaged"]] for dataset in found["datasets"]}
    filled = tuple(found.pop("filled", ()))

    def compare(say: Say) -> dict[str, Any]:
        with opened(source, superblock) as old, h5py.File(building, "r") as new:
            return {"wrong": differing(old, new, damaged, filled, say)}

    outcome = isolated(compare, quiet_seconds=quiet_seconds)
    if outcome.result is None or outcome.result["wrong"]:
        what = outcome.died or outcome.failed or f"{', '.join((outcome.result or {})['wrong'])} read back as another"
        raise VerifyError(
            f"{source}: the mended file could not be verified: {what}. Try again; if it happens again, look into the "
            "disk and the memory of this machine",
            kind=ErrorKind.MISMATCH,
        )


def _validated(building: Path, quiet_seconds: float) -> list[str]:
    """Return what PyNWB says against a file, if that is an NWB file."""

    def validate(say: Say) -> dict[str, Any]:
        warnings.simplefilter("ignore")
        with h5py.File(building, "r", locking=False) as file:
            if not is_nwb(file):
                return {"errors": []}
        say("pynwb.validate")
        errors = [str(error) for error in pynwb.validate(path=str(building))]
        say("reading it with PyNWB")
        with pynwb.NWBHDF5IO(str(building), "r") as io:
            io.read()
        return {"errors": errors}

    outcome = isolated(validate, quiet_seconds=quiet_seconds)
    if outcome.result is None:
        return [f"{outcome.at}: {outcome.died or outcome.failed}"]
    return list(outcome.result["errors"])
