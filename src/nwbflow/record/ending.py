"""How a recording ends: its file is made, compared, put in place, and the journal removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nwbflow.errors import DurabilityError, ErrorKind, NwbflowError, StorageError, TargetError
from nwbflow.model.events import Event
from nwbflow.record.build import Built, build, finish, put_in_place
from nwbflow.record.fold import Fold
from nwbflow.record.folder import JournalFolder, kept_for_damage, mark_of, remove, sweep
from nwbflow.record.manifest import Manifest
from nwbflow.record.rebuild import REBUILDING, rebuild


class Ending:
    """Finishes one recording; where that fails or is interrupted, it can be done again.

    Parameters
    ----------
    folder : JournalFolder
        Its journal.
    manifest : Manifest
        What is recorded.
    partial : pathlib.Path
        The file that was filled meanwhile.
    workers : int
        Encoding threads, if the file has to be made from the journal.
    emit : callable
        Takes events.
    """

    def __init__(
        self, folder: JournalFolder, manifest: Manifest, partial: Path, *, workers: int, emit: Callable[[Event], None]
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._partial = partial
        self._workers = workers
        self._emit = emit
        self._made_at = partial
        self._built: Built | None = None
        self._is_placed = False

    def finish(
        self, fold: Fold | None, acknowledged: Sequence[int], warn: Callable[[str], None]
    ) -> tuple[Built, float]:
        """Make the file, unless that was done, and put it in place; remove the journal last.

        Parameters
        ----------
        fold : Fold or None
            With all rows taken in; ``None`` if the file has to be made from the journal.
        acknowledged : sequence of int
            Rows that each series must have at least.
        warn : callable
            Takes a text for those who watch and for the receipt.

        Returns
        -------
        Built
            What was stored.
        float
            Seconds it took to put it in place.

        Raises
        ------
        NwbflowError
            What stopped it; the journal is kept, unless it is the removal itself.
        """
        if self._built is None or not self._is_there():
            self._built = self._made(fold, warn)
            self._check_complete(self._built, acknowledged)
        built, started = self._built, time.perf_counter()
        if not self._is_there():
            self._refuse_other_file()
            put_in_place(self._made_at, self._folder.target, self._folder, damaged=built.damaged)
            self._is_placed = True
        return self._put_away(built), time.perf_counter() - started

    def take_again(self) -> None:
        """Take the journal that was let go when an earlier attempt ended.

        Raises
        ------
        StorageError
            If it is not there any more.
        TargetError
            If it is being recovered right now.
        """
        try:
            ours = self._folder.take_again(self._manifest.identity)
        except FileNotFoundError:
            ours = False
        except TargetError:
            if not self._is_placed:
                raise
            ours = False  # there is another recording to the path already
        if not ours and not self._is_placed:
            target = self._folder.target
            raise StorageError(
                f"{self._folder.path} is not there any more: somebody has recovered {target.name}, or moved the "
                f"journal; look at {target}, and for {self._folder.path.name}.damaged beside it",
                kind=ErrorKind.CLOSED,
            )

    def _is_there(self) -> bool:
        """Whether the file is in place; an interruption may have come right after that."""
        if not self._is_placed and self._built is not None:
            self._is_placed = self._folder.published(self._manifest.replaces) is not None
        return self._is_placed

    def _made(self, fold: Fold | None, warn: Callable[[str], None]) -> Built:
        """Return the finished file: as it was folded, or made anew if that failed."""
        if fold is not None:
            try:
                return finish(fold, self._partial)
            except NwbflowError as error:
                source = "the journal" if self._manifest.has_journal else "its chunks"
                warn(f"the partial file was not right ({error}); the file was made from {source} again")
        if not self._manifest.has_journal:
            target = self._folder.target
            self._made_at = target.with_name(target.name + REBUILDING)
            return rebuild(self._folder, self._manifest, self._partial, self._made_at)
        return build(self._folder, self._manifest, self._partial, workers=self._workers, emit=self._emit)

    def _check_complete(self, built: Built, acknowledged: Sequence[int]) -> None:
        """Refuse to publish less than was acknowledged, whatever the reason may be."""
        for series, rows, durable in zip(self._manifest.series, built.rows, acknowledged, strict=True):
            if rows < durable:
                raise DurabilityError(
                    f"{series.name}: of {durable} acknowledged rows the disk gives back {rows}. "
                    f"{self._folder.path} is kept; please keep it too, and look after that disk",
                    kind=ErrorKind.MISMATCH,
                    durable=rows,
                )

    def _refuse_other_file(self) -> None:
        """Refuse to replace a file that came to the path in the meantime."""
        target = self._folder.target
        if target.exists() and not (target.is_file() and mark_of(target) == self._manifest.replaces):
            raise TargetError(
                f"{target} is not what was there when the recording began, and is not replaced. What was recorded is "
                f"complete and kept in {self._folder.path}: move that file away, or make another one: nwbflow recover "
                f"{target} --output OTHER.nwb",
                kind=ErrorKind.EXISTS,
            )

    def _put_away(self, built: Built) -> Built:
        """Remove the journal; one that is damaged is put aside, as a recovery does."""
        if not self._folder.is_held:
            sweep(self._folder.target)  # an earlier attempt got as far as that
            return built
        if not built.damaged:
            if self._made_at != self._partial:
                remove(self._partial)
            self._folder.retire()
            return built
        kept = self._folder.keep()
        return replace(built, notes=(*built.notes, kept_for_damage(kept)))
