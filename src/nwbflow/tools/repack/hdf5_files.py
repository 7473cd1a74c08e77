"""An HDF5 file written anew as one: copied object by object, large arrays by the engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hdmf.build import BuildManager

from nwbflow.model.receipt import Receipt
from nwbflow.nwb.session import FileOptions, Session
from nwbflow.tools.repack.contents import Contents
from nwbflow.tools.repack.copying import Copy, numbers
from nwbflow.tools.repack.storage import Wishes
from nwbflow.tools.repack.stores import Check, Run


def rewrite_hdf5(
    contents: Contents, out: Path, wishes: Wishes, *, manager: BuildManager, asked: Run, check: Check
) -> Receipt:
    """Write an HDF5 file anew.

    Parameters
    ----------
    contents : Contents
        Of the source, which is open.
    out : pathlib.Path
        The new file.
    wishes : Wishes
        How arrays are to be stored.
    manager : BuildManager
        Knows the types.
    asked : Run
        How it is run.
    check : callable
        Takes the new file before it is put in place.

    Raises
    ------
    nwbflow.errors.NwbflowError
        What stopped it. An older file is then as it was.
    """
    source = Path(os.path.realpath(contents.name))
    root = numbers(contents, str(source))
    wishes.dress(root, manager)
    run = asked.less(wishes.kept_bytes)
    session = Session(
        profile=wishes.profile,
        rules=None,
        workers=run.workers,
        memory=run.memory,
        verify=run.verify,
        progress=run.progress,
        external=None,
    )
    session.hold(drop_leftover=run.overwrite)
    staged = session.open(out, "w", FileOptions())
    if staged is None:
        raise AssertionError("a new file is staged")
    failed = True
    try:
        with session.writing(staged, str(out), side_by_side=False) as passage:
            storages = passage.prepare(root, manager, lambda _: False, session.options(), side_by_side=False)
            copy = Copy(contents, source, Path(os.path.realpath(out)), {s.candidate.name: s for s in storages})
            wishes.moved.intersection_update(copy.storages)
            copy.structure(staged)
            session.check = _verified(copy, check)
            passage.linked = {}
            passage.reservations += copy.reservations
        failed = False
    finally:
        with session.closing(because_of_error=failed):
            staged.close()
    receipt = session.receipt
    if receipt is None:
        raise AssertionError("a write that succeeded has a receipt")
    return receipt


def _verified(copy: Copy, check: Check) -> Check:
    def both(file: Any) -> None:
        copy.verify(file)
        check(file)

    return both
