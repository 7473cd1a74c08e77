"""Copying into a file what it links to, so that it stands alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py

from nwbflow.errors import ErrorKind, LinkError, TargetError
from nwbflow.links.survey import Survey
from nwbflow.sinks.replace import edited_copy
from nwbflow.tools.links.embed_plan import EmbedPlan, plan_embedding
from nwbflow.tools.links.embed_run import Embedding
from nwbflow.tools.links.renaming import names_in, verify_names
from nwbflow.tools.links.reports import EmbedReport, names_note

_OBJECT_BYTES = 4096  # of metadata, generously


def embed(
    path: str | Path,
    *,
    only: Sequence[str] = (),
    out: str | Path | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> EmbedReport:
    """Copy into a file what it links to: external links, virtual and raw datasets become ordinary groups and datasets.

    Stored chunks are copied as they are. A virtual dataset gets the chunks and filters of its sources, if those are
    all alike; else it is contiguous, as raw ones are. What several links lead to is copied once, and the others become
    soft links to it. Of a group everything in it is copied, and what it links to. Attributes are those that readers
    saw through the links. References are led to the copies; one to an object that is not copied is led to the object
    of the file that has the same ``object_id``.

    The file is replaced by a changed copy in one step.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    only : sequence of str
        Patterns of the paths of links and datasets to embed, such as ``"/acquisition/*"``; ``*`` includes slashes.
        Without any, all are.
    out : str or pathlib.Path, optional
        Write the result there, where nothing is yet, and leave the file alone.
    dry_run : bool
        Only look whether all can be embedded, and how much that is.
    force : bool
        Embed also what is not what was linked, as it is now.

    Returns
    -------
    EmbedReport
        What was embedded.

    Raises
    ------
    nwbflow.errors.LinkError
        A target is missing, unreadable or not what was linked, or refers to something outside, or a pattern matches
        nothing; all that is wrong is listed, and nothing was changed.
    nwbflow.errors.TargetError
        If the file can't be replaced, or something is at `out`.
    nwbflow.errors.StorageError
        If the disk is too small or fails; the file is as it was.
    """
    path = Path(path)
    stamp = _stamp(path)
    wrong: list[str] = []
    with Survey(path) as survey:
        plan = plan_embedding(survey, only, wrong, force=force)
    if wrong:
        listed = "\n    ".join(dict.fromkeys(wrong))
        raise LinkError(f"{path}: nothing was embedded, since\n    {listed}", kind=ErrorKind.REFUSED)
    written = not dry_run and (bool(plan.nodes) or out is not None)
    notes = tuple(names_note(path)) if plan.nodes and out is None else ()
    if written:
        _carry_out(path, plan, out, stamp)
    return EmbedReport(
        path=path if out is None else Path(out), embedded=tuple(plan.embedded), written=written, notes=notes
    )


def _carry_out(path: Path, plan: EmbedPlan, out: str | Path | None, stamp: tuple[int, ...]) -> None:
    names: list[tuple[str, str]] = []
    embedding = Embedding(plan)

    def verify(file: h5py.File) -> None:
        verify_names(file, names, path)
        embedding.verify(file)

    extra = plan.nbytes + len(plan.nodes) * _OBJECT_BYTES
    with edited_copy(path, out=out, extra_bytes=extra, verify=verify) as file:
        if _stamp(path) != stamp:
            raise TargetError(f"{path} was changed while it was looked at; begin again", kind=ErrorKind.CHANGED)
        with Survey(path) as survey:
            embedding.run(file, survey)
        names.extend(names_in(file))


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return ()  # opening it says why
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
