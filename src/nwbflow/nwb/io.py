"""Drop-in replacements for PyNWB's and HDMF's HDF5 classes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import pynwb
from hdmf.backends.hdf5 import HDF5IO as HdmfHDF5IO
from hdmf.build import BuildManager, GroupBuilder, LinkBuilder, TypeMap

from nwbflow.model.receipt import Receipt
from nwbflow.nwb.candidates import path_of
from nwbflow.nwb.containers import forget_earlier_write, notice_new_wrappers
from nwbflow.nwb.fill import Passage
from nwbflow.nwb.reservations import reserved
from nwbflow.nwb.session import EXPANDABLE, FileOptions, RulesLike, Session
from nwbflow.nwb.stands import mapped
from nwbflow.nwb.ties import Circumstances, ExternalPolicy, guests, make, settle, taken_out
from nwbflow.observe.hub import Progress
from nwbflow.planning.profiles import Profile


class _Flow:
    """What both drop-ins add to their upstream class."""

    _session: Session
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
        ours = file is None and not self._through_hdmf and isinstance(path, str | Path)
        try:
            yield session.open(path, mode, options) if ours and path is not None else file
        except BaseException:
            session.give_up()
            raise

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
        forget_earlier_write(container, self.source)
        with self._writing(side_by_side=not exhaust_dci):
            super().write(  # type: ignore[misc]
                container=container,
                cache_spec=cache_spec,
                link_data=link_data,
                exhaust_dci=exhaust_dci,
                herd=herd,
                expandable=expandable,
            )

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

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Export what another IO object has read; see HDMF's documentation for the parameters.

        Raises
        ------
        nwbflow.errors.NwbflowError
            What stopped it. An older file at the path is then as it was.
        """
        notice_new_wrappers(kwargs.get("nwbfile", kwargs.get("container", args[1] if len(args) > 1 else None)))
        with self._writing(side_by_side=False):
            super().export(*args, **kwargs)  # type: ignore[misc]

    def write_builder(self, builder: GroupBuilder, **kwargs: Any) -> None:
        """Write a builder tree (HDMF calls this)."""
        side_by_side = not kwargs.get("exhaust_dci", True)
        with self._writing(side_by_side=side_by_side) as passage:
            if passage is None:
                super().write_builder(builder=builder, **kwargs)  # type: ignore[misc]
                return
            options = self._session.options(tuple(kwargs.get("expandable", EXPANDABLE)))
            circumstances = self._circumstances(passage, kwargs.get("export_source"), kwargs.get("link_data", True))
            ties = settle(builder, circumstances)
            linked = [path_of(link) for link in guests(builder, circumstances)]
            in_place = mapped(builder, circumstances, replaced=passage.folder is not None)
            with taken_out(ties, builder, self.get_written), in_place as places:
                storages = passage.prepare(builder, self.manager, self.get_written, options, side_by_side=side_by_side)
                with reserved(builder, self.manager, storages) as reservations:
                    super().write_builder(builder=builder, **kwargs)  # type: ignore[misc]
            make(ties, self._file)
            for tie in ties:
                self._written_builders.set_written(tie.builder)
            passage.reservations += reservations
            passage.linked += [*(tie.name for tie in ties), *linked, *places]
            passage.notes += [f"{name}: not copied, it is in {place}" for name, place in places.items()]

    def _circumstances(self, passage: Passage, exported: str | None, linking: bool) -> Circumstances:
        return Circumstances(
            manager=self.manager,
            written=self.get_written,
            own=Path(os.path.realpath(self.source or self._file.filename)),
            policy=self._session.external,
            linking=linking,
            exported=None if exported is None else Path(os.path.realpath(exported)),
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


class NWBHDF5IO(_Flow, pynwb.NWBHDF5IO):  # type: ignore[misc]
    """:class:`pynwb.NWBHDF5IO`, many times faster and never leaving a broken file.

    Without nwbflow's own options it writes the same datasets with the same creation properties and attributes
    as PyNWB, except that iterators of unknown length never get chunks of one row. New files (modes ``w``, ``w-``,
    ``x``) are written beside the target and put in place when complete; other modes write in place.

    Parameters
    ----------
    path, mode, load_namespaces, manager, file, comm, driver, aws_region, herd_path
        As in PyNWB. With `comm` or `driver` the file is written by HDMF alone.
    profile : str or Profile, optional
        ``"default"``, ``"fast"``, ``"archive"``, ``"cloud"``: codec and chunks for large arrays that say nothing
        themselves. Without it they are stored as PyNWB would.
    rules : mapping, path or Rules, optional
        Settings by place in the file or neurodata type; a YAML or JSON file.
    workers : int, optional
        Encoding threads; as many as there are cores by default.
    memory : int or str, optional
        What large arrays may take on their way, in bytes or as ``"512 MiB"``.
    verify : {"stored", "full", "no"}
        Stored bytes against their checksum, decoded values against what was sent, or nothing.
    progress : bool, callable or sequence of callables
        ``True`` shows a progress bar; a callable gets every event.
    external : {"error", "link", "copy"}, optional
        What becomes of datasets and containers of other files that come without :func:`link` or :func:`copy`:
        refused, linked after a check, copied. Without it as in PyNWB (`link_data` decides), with a warning where a
        container says something else than what it is linked to.
    libver, locking, fs_strategy, fs_page_size, page_buf_size, rdcc_nbytes
        HDF5 file settings, as in :class:`h5py.File`.

    Raises
    ------
    nwbflow.errors.SettingsError
        For nwbflow's own options.
    nwbflow.errors.TargetError
        If the path can't be written.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        mode: str = "r",
        load_namespaces: bool = True,
        manager: BuildManager | None = None,
        file: h5py.File | None = None,
        comm: Any = None,
        driver: str | None = None,
        aws_region: str | None = None,
        herd_path: str | None = None,
        *,
        profile: str | Profile | None = None,
        rules: RulesLike = None,
        workers: int | None = None,
        memory: str | int | None = None,
        verify: str = "stored",
        progress: Progress = False,
        external: ExternalPolicy = None,
        libver: str | tuple[str, str] | None = None,
        locking: bool | str | None = None,
        fs_strategy: str | None = None,
        fs_page_size: int | None = None,
        page_buf_size: int | None = None,
        rdcc_nbytes: int | None = None,
    ) -> None:
        session = Session(
            profile=profile,
            rules=rules,
            workers=workers,
            memory=memory,
            verify=verify,
            progress=progress,
            external=external,
        )
        options = FileOptions(
            libver=libver,
            locking=locking,
            fs_strategy=fs_strategy,
            fs_page_size=fs_page_size,
            page_buf_size=page_buf_size,
            rdcc_nbytes=rdcc_nbytes,
        )
        self._through_hdmf = comm is not None or driver is not None
        with self._opening(path, mode, file, session, options) as opened:
            super().__init__(
                path=path,
                mode=mode,
                load_namespaces=load_namespaces,
                manager=manager,
                file=opened,
                comm=comm,
                driver=driver,
                aws_region=aws_region,
                herd_path=herd_path,
            )


class HDF5IO(_Flow, HdmfHDF5IO):  # type: ignore[misc]
    """:class:`hdmf.backends.hdf5.HDF5IO`, many times faster and never leaving a broken file.

    The same as :class:`NWBHDF5IO` for HDMF users without NWB; see there.

    Parameters
    ----------
    path, mode, manager, comm, file, driver, aws_region, herd_path
        As in HDMF.
    profile, rules, workers, memory, verify, progress, external
        As in :class:`NWBHDF5IO`.
    libver, locking, fs_strategy, fs_page_size, page_buf_size, rdcc_nbytes
        HDF5 file settings, as in :class:`h5py.File`.

    Raises
    ------
    nwbflow.errors.SettingsError, nwbflow.errors.TargetError
        As in :class:`NWBHDF5IO`.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        mode: str = "r",
        manager: TypeMap | BuildManager | None = None,
        comm: Any = None,
        file: h5py.File | None = None,
        driver: str | None = None,
        aws_region: str | None = None,
        herd_path: str | None = None,
        *,
        profile: str | Profile | None = None,
        rules: RulesLike = None,
        workers: int | None = None,
        memory: str | int | None = None,
        verify: str = "stored",
        progress: Progress = False,
        external: ExternalPolicy = None,
        libver: str | tuple[str, str] | None = None,
        locking: bool | str | None = None,
        fs_strategy: str | None = None,
        fs_page_size: int | None = None,
        page_buf_size: int | None = None,
        rdcc_nbytes: int | None = None,
    ) -> None:
        session = Session(
            profile=profile,
            rules=rules,
            workers=workers,
            memory=memory,
            verify=verify,
            progress=progress,
            external=external,
        )
        options = FileOptions(
            libver=libver,
            locking=locking,
            fs_strategy=fs_strategy,
            fs_page_size=fs_page_size,
            page_buf_size=page_buf_size,
            rdcc_nbytes=rdcc_nbytes,
        )
        self._through_hdmf = comm is not None or driver is not None
        with self._opening(path, mode, file, session, options) as opened:
            super().__init__(
                path=path,
                mode=mode,
                manager=manager,
                comm=comm,
                file=opened,
                driver=driver,
                aws_region=aws_region,
                herd_path=herd_path,
            )

    @classmethod
    def export_io(cls, path: str, comm: Any = None, **kwargs: Any) -> None:
        """Export to a new file, opened and closed here; see HDMF's documentation."""
        with cls(path=path, comm=comm, mode="w") as io:
            io.export(**kwargs)
