"""What both drop-in classes add to their upstream class."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
from hdmf.build import BuildManager, GroupBuilder, LinkBuilder

from nwbflow.links.guard import Guard
from nwbflow.links.problems import BrokenLink
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.broken import building, is_building
from nwbflow.nwb.containers import forget_earlier_write, notice_new_wrappers, refuse_read_from
from nwbflow.nwb.fill import Passage
from nwbflow.nwb.guests import guests
from nwbflow.nwb.keeping import Keeper
from nwbflow.nwb.losses import lost_in
from nwbflow.nwb.mending import Lost, Mender
from nwbflow.nwb.reading import Reading
from nwbflow.nwb.reservations import reserved
from nwbflow.nwb.sending import Sending
from nwbflow.nwb.session import CREATING, EXPANDABLE, FileOptions, Session
from nwbflow.nwb.settle import settle
from nwbflow.nwb.stands import mapped
from nwbflow.nwb.ties import Circumstances, make, taken_out


class Flow:
    """How files are opened, read, written and closed, under HDMF's methods."""

    _session: Session
    _reading: Reading
    _guard: Guard | None = None
    _lost: tuple[Lost, ...] = ()
    _mender: Mender | None = None
    _exported: Any = None
    _through_hdmf: bool
    _leaving: bool = False
    _file: Any
    source: Any
    comm: Any
    manager: BuildManager
    get_written: Any
    _written_builders: Any

    @contextlib.contextmanager
    def _opening(
        self, path: str | Path | None, mode: str, file: h5py.File | None, session: Session, options: FileOptions
    ) -> Iterator[h5py.File | None]:
        """Surround HDMF's initialisation; gives the file to hand to it, or ``None`` where HDMF opens it itself."""
        self._session = session
        opened = None
        if file is None and not self._through_hdmf and isinstance(path, str | Path):
            opened = session.open(path, mode, options)
        try:
            yield self._guarded(file or opened, mode, options)
        except BaseException:
            session.give_up()
            if opened is not None:
                opened.close()
            raise

    def _guarded(self, file: h5py.File | None, mode: str, options: FileOptions) -> h5py.File | None:
        """Return the view of a file in which links are followed by us, if it is going to be read."""
        if self._through_hdmf:
            self._reading.refuse_others()
        if file is None or self._through_hdmf or mode in CREATING:
            return file
        self._guard = self._reading.guard(file, options.locking)
        return file if self._guard is None else self._guard.view(file)

    @property
    def broken_links(self) -> tuple[BrokenLink, ...]:
        """What could not be read because a link, or the file that data lie in, is missing or was refused.

        Known after reading. For links to data that are asked for, the same is the error's text.
        """
        return tuple(lost.problem for lost in self._lost)

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """Read the file; see PyNWB's documentation for the parameters.

        Links that lead nowhere, or where they must not, are told by warnings and in :attr:`broken_links`. Where data
        were linked, asking for the data raises the error.

        Raises
        ------
        nwbflow.errors.LinkError
            With ``verify_links``, if what was linked has changed since.
        """
        if self._guard is not None and self._file:
            self._reading.compare(self._file.filename, self._guard.rules)
        with building():
            return super().read(*args, **kwargs)  # type: ignore[misc]

    def read_builder(self) -> GroupBuilder:
        """Return the file as a tree of builders (HDMF calls this)."""
        if self._guard is None:
            return super().read_builder()  # type: ignore[misc]
        with self._guard.reading() as recorder:
            root: GroupBuilder = super().read_builder()  # type: ignore[misc]
            if recorder.groups:  # not what was read before
                self._mender = Mender(self, recorder, self._guard)
                self._mender.mend(root)
                self._lost = tuple(self._mender.lost)
            if self._mender is not None and is_building():
                self._mender.stand_in()
        return root

    def close_linked_files(self) -> None:
        """Close the files that links led to."""
        super().close_linked_files()  # type: ignore[misc]
        if self._guard is not None:
            self._guard.close_targets()

    @property
    def receipt(self) -> Receipt | None:
        """What the last write did; ``None`` before the first."""
        return self._session.receipt

    def write(
        self,
        container: Any,
        cache_spec: bool = True,
        link_data: bool = True,
        exhaust_dci: bool = True,
        herd: Any = None,
        expandable: tuple[str, ...] | list[str] = EXPANDABLE,
    ) -> None:
        """Write a container: structure first, then the large arrays, encoded in parallel.

        Parameters
        ----------
        container : pynwb.NWBFile or hdmf.Container
            What to write. It is not changed, and may be written again to another file.
        cache_spec : bool
            Whether the schema is stored too.
        link_data : bool
            Whether h5py datasets become links (else copies).
        exhaust_dci : bool
            ``True``: iterators are drained one after another, in this thread. ``False``: side by side,
            each in a thread of its own.
        herd : hdmf.common.HERD, optional
            External resources.
        expandable : sequence of str
            Types whose datasets can be appended to.

        Raises
        ------
        nwbflow.errors.NwbflowError
            What stopped it. An older file at the path is then as it was.
        """
        if self._session.staging:
            refuse_read_from(container, self.source)
        forget_earlier_write(container, self.source)
        with self._writing(side_by_side=not exhaust_dci), building():
            super().write(  # type: ignore[misc]
                container=container,
                cache_spec=cache_spec,
                link_data=link_data,
                exhaust_dci=exhaust_dci,
                herd=herd,
                expandable=expandable,
            )

    def send_when_closed(self, sending: Sending) -> None:
        """Let a new file go to an object store when it is closed; :func:`nwbflow.write` calls it."""
        self._session.hold(drop_leftover=True)
        self._session.sending = sending

    def put_in_place_when_closed(self, *, drop_leftover: bool = False) -> None:
        """Let a new file appear at its path when it is closed, not already when it is written.

        Call it before :meth:`write`. :func:`nwbflow.write` does.

        Parameters
        ----------
        drop_leftover : bool
            Whether what an earlier, interrupted write had left is removed then; else it is kept, as
            ``<name>.partial.old``.
        """
        self._session.hold(drop_leftover=drop_leftover)

    def check_before_publishing(self, check: Callable[[Any], None]) -> None:
        """Have the open file looked at when everything is in it, before it appears at its path.

        Parameters
        ----------
        check : callable
            Takes the file; what it raises stops the write.
        """
        self._session.check = check

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Export what another IO object has read; see HDMF's documentation for the parameters.

        Raises
        ------
        nwbflow.errors.NwbflowError
            What stopped it. An older file at the path is then as it was.
        """
        notice_new_wrappers(kwargs.get("nwbfile", kwargs.get("container", args[1] if len(args) > 1 else None)))
        self._exported = kwargs.get("src_io", args[0] if args else None)
        try:
            with self._writing(side_by_side=False), building():
                super().export(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._exported = None

    def write_builder(self, builder: GroupBuilder, **kwargs: Any) -> None:
        """Write a builder tree (HDMF calls this)."""
        side_by_side = not kwargs.get("exhaust_dci", True)
        with self._writing(side_by_side=side_by_side) as passage:
            if passage is None:
                super().write_builder(builder=builder, **kwargs)  # type: ignore[misc]
                return
            options = self._session.options(tuple(kwargs.get("expandable", EXPANDABLE)))
            circumstances = self._circumstances(passage, kwargs.get("export_source"), kwargs.get("link_data", True))
            with ExitStack() as stack:
                keeper = Keeper(circumstances, stack.enter_context(lost_in(self._exported)))
                broken = stack.enter_context(keeper.taken_out(builder, self._file))
                settled = settle(builder, circumstances)
                ties = settled.ties
                linked = guests(builder, circumstances)
                stack.enter_context(taken_out(ties, builder, circumstances))
                places = stack.enter_context(mapped(builder, circumstances))
                if passage.sending is not None:
                    passage.sending.refuse_links({tie.name: tie.where for tie in ties} | linked | dict(places))
                storages = passage.prepare(builder, self.manager, self.get_written, options, side_by_side=side_by_side)
                with reserved(builder, self.manager, storages) as reservations:
                    super().write_builder(builder=builder, **kwargs)  # type: ignore[misc]
                keeper.put_back(broken, self._file)
            make(ties, self._file)
            for tie in ties:
                self._written_builders.set_written(tie.builder)
            passage.adoptions += settled.adoptions
            passage.reservations += reservations
            passage.linked |= {tie.name: tie.where for tie in ties} | linked | dict(places)

    def _circumstances(self, passage: Passage, exported: str | None, linking: bool) -> Circumstances:
        return Circumstances(
            manager=self.manager,
            written=self.get_written,
            own=Path(os.path.realpath(self.source or self._file.filename)),
            policy=self._session.external,
            linking=linking,
            exported=None if exported is None else Path(os.path.realpath(exported)),
            replaced=passage.folder is not None,
            ruled=partial(self._session.ruled, manager=self.manager),
            say=passage.say,
        )

    def write_link(self, parent: h5py.Group, builder: LinkBuilder, export_source: str | None = None) -> Any:
        """Write a link (HDMF calls this).

        HDMF tells links inside the file by the file's name, which is another one while the file is staged.
        """
        if builder.builder.source is not None and builder.builder.source == self.source:
            export_source = self.source
        return super().write_link(parent=parent, builder=builder, export_source=export_source)  # type: ignore[misc]

    @contextlib.contextmanager
    def _writing(self, *, side_by_side: bool) -> Iterator[Passage | None]:
        if self._through_hdmf or not self._file or self._file.mode == "r":
            yield None  # MPI is HDMF's own way; a closed or read-only file is HDMF's error to raise
            return
        with self._session.writing(self._file, str(self.source or self._file.filename), side_by_side=side_by_side) as p:
            yield p

    def close(self, close_links: bool = True) -> None:
        """Close the file, and put it in place if that was not done before."""
        session = getattr(self, "_session", None)
        with session.closing(because_of_error=self._leaving) if session is not None else contextlib.nullcontext():
            super().close(close_links=close_links)  # type: ignore[misc]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = kind is not None
        super().__exit__(kind, error, trace)  # type: ignore[misc]
