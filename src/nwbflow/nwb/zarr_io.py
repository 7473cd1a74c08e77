"""Drop-in replacements for hdmf-zarr's classes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import hdmf_zarr
import zarr
from hdmf.build import BuildManager, GroupBuilder
from hdmf_zarr.backend import ZarrIO as StockZarrIO

from nwbflow.engine.afar import Executor
from nwbflow.model.receipt import Receipt
from nwbflow.nwb.containers import forget_earlier_write, notice_new_wrappers, refuse_read_from
from nwbflow.nwb.session import CREATING, RulesLike
from nwbflow.nwb.ties import ExternalPolicy
from nwbflow.nwb.zarr_fill import StorePassage, reserved_in_store
from nwbflow.nwb.zarr_refusals import check_store_policy, refuse_other_files
from nwbflow.nwb.zarr_session import StoreSession
from nwbflow.observe.hub import Progress
from nwbflow.planning.profiles import Profile


class StoreFlow:
    """What both drop-in classes add to their upstream class."""

    _session: StoreSession
    _force: bool
    _leaving: bool = False
    _file: Any
    mode: str
    source: Any
    manager: BuildManager
    get_written: Any

    @contextlib.contextmanager
    def _opening(self, session: StoreSession, *, force: bool) -> Iterator[None]:
        self._session = session
        self._force = force
        try:
            yield
        except BaseException:
            session.give_up()
            raise

    def _open_file(self, store: Any, mode: str, storage_options: Any = None) -> Any:
        """Open a store (hdmf-zarr calls this); a new one is made beside its place."""
        local = isinstance(store, str) and "://" not in store and storage_options is None
        staged = self._session.stage(store, mode, force=self._force) if local else None
        if staged is None:
            return super()._open_file(store, mode, storage_options)  # type: ignore[misc]
        return zarr.open_group(staged, mode="a", zarr_format=3)

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
        number_of_jobs: int = 1,
        max_threads_per_process: int | None = None,
        multiprocessing_context: str | None = None,
        consolidate_metadata: bool = True,
    ) -> None:
        """Write a container: structure first, then the large arrays, encoded in parallel.

        Parameters
        ----------
        container : pynwb.NWBFile or hdmf.Container
            What to write. It is not changed, and may be written again to another store.
        cache_spec, link_data
            As in hdmf-zarr.
        exhaust_dci : bool
            ``True``: iterators are drained one after another, in this thread. ``False``: side by side, each in a
            thread of its own.
        number_of_jobs, max_threads_per_process, multiprocessing_context
            More than one job: ``GenericDataChunkIterator`` are left to hdmf-zarr and its processes. Threads
            (``workers``), which encode all else, are faster, but for iterators that hold Python's lock.
        consolidate_metadata : bool
            Whether all metadata are put together in the root's, which is done last.

        Raises
        ------
        nwbflow.errors.NwbflowError
            What stopped it. An older store at the path is then as it was.
        """
        if self._session.replacing:
            refuse_read_from(container, self.source)
        forget_earlier_write(container, self.source)
        with self._writing(side_by_side=not exhaust_dci, consolidate=consolidate_metadata) as passage:
            if passage is not None:
                passage.jobs = number_of_jobs
            super().write(  # type: ignore[misc]
                container=container,
                cache_spec=cache_spec,
                link_data=link_data,
                exhaust_dci=exhaust_dci,
                number_of_jobs=number_of_jobs,
                max_threads_per_process=max_threads_per_process,
                multiprocessing_context=multiprocessing_context,
                consolidate_metadata=consolidate_metadata and passage is None,
            )

    def check_before_publishing(self, check: Callable[[Any], None]) -> None:
        """Have the store looked at when everything is in it, before it appears at its path.

        Parameters
        ----------
        check : callable
            Takes the root; what it raises stops the write.
        """
        self._session.check = check

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Export what another IO object has read; see hdmf-zarr's documentation for the parameters.

        Raises
        ------
        nwbflow.errors.NwbflowError
            What stopped it. An older store at the path is then as it was.
        """
        given = {**dict(zip(("src_io", "container", "write_args"), args, strict=False)), **kwargs}
        if "nwbfile" in given:
            given["container"] = given.pop("nwbfile")
        notice_new_wrappers(given.get("container"))
        consolidate = given.pop("consolidate_metadata", True)
        with self._writing(side_by_side=False, consolidate=consolidate) as passage:
            if passage is not None:
                passage.jobs = given.get("number_of_jobs", 1)
            # hdmf-zarr's NWBZarrIO.export passes on three parameters only, and not this one
            StockZarrIO.export(self, **given, consolidate_metadata=consolidate and passage is None)

    def write_builder(
        self,
        builder: GroupBuilder,
        link_data: bool = True,
        exhaust_dci: bool = True,
        export_source: str | None = None,
        consolidate_metadata: bool = True,
    ) -> None:
        """Write a builder tree (HDMF calls this); the parameters are hdmf-zarr's."""
        with self._writing(side_by_side=not exhaust_dci, consolidate=consolidate_metadata) as passage:
            reservations = []
            with contextlib.ExitStack() as stack:
                if passage is not None:
                    refuse_other_files(
                        builder, str(self.source), export_source, self._session.external, self.get_written
                    )
                    copying = self._session.external == "copy" and export_source is None
                    passage.take_arrays, link_data = copying, link_data and not copying
                    storages = passage.prepare(
                        builder,
                        self.manager,
                        self.get_written,
                        self._session.options(),
                        side_by_side=not exhaust_dci,
                    )
                    reservations = stack.enter_context(reserved_in_store(builder, storages))
                super().write_builder(  # type: ignore[misc]
                    builder=builder,
                    link_data=link_data,
                    exhaust_dci=exhaust_dci,
                    export_source=export_source,
                    consolidate_metadata=consolidate_metadata and passage is None,
                )
            if passage is not None:
                passage.kept += reservations

    def write_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """Write one dataset; outside of a write of ours (where HDMF calls this) at once, in place."""
        self._session.go_in_place()
        return super().write_dataset(*args, **kwargs)  # type: ignore[misc]

    def write_group(self, *args: Any, **kwargs: Any) -> Any:
        """Write one group; outside of a write of ours (where HDMF calls this) at once, in place."""
        self._session.go_in_place()
        return super().write_group(*args, **kwargs)  # type: ignore[misc]

    def write_attributes(self, *args: Any, **kwargs: Any) -> Any:
        """Write attributes; outside of a write of ours (where HDMF calls this) at once, in place."""
        self._session.go_in_place()
        return super().write_attributes(*args, **kwargs)  # type: ignore[misc]

    @contextlib.contextmanager
    def _writing(self, *, side_by_side: bool, consolidate: bool) -> Iterator[StorePassage | None]:
        if self._file is None or self.mode in ("r", "r-"):
            yield None  # a closed or read-only store is hdmf-zarr's error to raise
            return
        with self._session.storing(
            self._file, str(self.source), side_by_side=side_by_side, consolidate=consolidate
        ) as passage:
            yield passage

    def close(self) -> None:
        """Close the store."""
        session = getattr(self, "_session", None)
        if session is not None and self._file is not None:
            session.leave(because_of_error=self._leaving)
        super().close()  # type: ignore[misc]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = kind is not None
        super().__exit__(kind, error, trace)  # type: ignore[misc]


class NWBZarrIO(StoreFlow, hdmf_zarr.NWBZarrIO):  # type: ignore[misc]
    """:class:`hdmf_zarr.NWBZarrIO`, several times faster and never leaving a broken store.

    Without nwbflow's own options it creates the same arrays as hdmf-zarr, except that iterators of unknown length
    never get chunks of one row. With a profile, large arrays are sharded. New stores (modes ``w``, ``w-``, ``x``) at a
    path are written beside it and put in place when complete; other modes, and store objects, are written in place.

    Parameters
    ----------
    path, mode, manager, storage_options, force_overwrite, load_namespaces
        As in hdmf-zarr.
    profile : str or Profile, optional
        ``"default"``, ``"fast"``, ``"archive"``, ``"cloud"``: codec, chunks and shards for large arrays that say
        nothing themselves. Without it they are stored as hdmf-zarr would.
    rules, workers, memory, verify, progress
        As in :class:`nwbflow.NWBHDF5IO`.
    external : {"error", "copy"}, optional
        What becomes of open datasets of other files that come without :func:`nwbflow.copy`: refused or copied.
        Without it as in hdmf-zarr.
    executor : Executor, optional
        Who computes and encodes arrays instead of threads of this process: :func:`nwbflow.parallel.dask`.

    Raises
    ------
    nwbflow.errors.SettingsError, nwbflow.errors.UnsupportedError
        For nwbflow's own options.
    nwbflow.errors.TargetError
        If the path can't be written.
    """

    def __init__(
        self,
        path: Any,
        mode: str,
        manager: BuildManager | None = None,
        storage_options: dict[str, Any] | None = None,
        force_overwrite: bool = False,
        load_namespaces: bool = True,
        *,
        profile: str | Profile | None = None,
        rules: RulesLike = None,
        workers: int | None = None,
        memory: str | int | None = None,
        verify: str = "stored",
        progress: Progress = False,
        external: ExternalPolicy = None,
        executor: Executor | None = None,
    ) -> None:
        session = _session(profile, rules, workers, memory, verify, progress, external, executor)
        with self._opening(session, force=force_overwrite):
            super().__init__(
                path=path,
                mode=mode,
                manager=manager,
                storage_options=storage_options,
                force_overwrite=force_overwrite and not _stages(path, mode, storage_options),
                load_namespaces=load_namespaces,
            )

    def put_in_place(self, *, overwrite: bool) -> None:
        """Say whether the new store may replace another one, and what an earlier, interrupted write had left."""
        self._session.replace(overwrite=overwrite)


class ZarrIO(StoreFlow, StockZarrIO):  # type: ignore[misc]
    """:class:`hdmf_zarr.ZarrIO`, several times faster and never leaving a broken store.

    The same as :class:`NWBZarrIO` for HDMF users without NWB; see there.

    Parameters
    ----------
    path, mode, manager, storage_options, force_overwrite
        As in hdmf-zarr.
    profile, rules, workers, memory, verify, progress, external, executor
        As in :class:`NWBZarrIO`.

    Raises
    ------
    nwbflow.errors.SettingsError, nwbflow.errors.TargetError
        As in :class:`NWBZarrIO`.
    """

    def __init__(
        self,
        path: Any,
        mode: str,
        manager: BuildManager | None = None,
        storage_options: dict[str, Any] | None = None,
        force_overwrite: bool = False,
        *,
        profile: str | Profile | None = None,
        rules: RulesLike = None,
        workers: int | None = None,
        memory: str | int | None = None,
        verify: str = "stored",
        progress: Progress = False,
        external: ExternalPolicy = None,
        executor: Executor | None = None,
    ) -> None:
        session = _session(profile, rules, workers, memory, verify, progress, external, executor)
        with self._opening(session, force=force_overwrite):
            super().__init__(
                path=path,
                mode=mode,
                manager=manager,
                storage_options=storage_options,
                force_overwrite=force_overwrite and not _stages(path, mode, storage_options),
            )


def _session(
    profile: str | Profile | None,
    rules: RulesLike,
    workers: int | None,
    memory: str | int | None,
    verify: str,
    progress: Progress,
    external: ExternalPolicy,
    executor: Executor | None,
) -> StoreSession:
    check_store_policy(external)
    return StoreSession(
        profile=profile,
        rules=rules,
        workers=workers,
        memory=memory,
        verify=verify,
        progress=progress,
        external=external,
        executor=executor,
    )


def _stages(path: Any, mode: str, storage_options: dict[str, Any] | None) -> bool:
    """Return whether a new store is made beside its place: hdmf-zarr must not clear that before."""
    return isinstance(path, str | Path) and "://" not in str(path) and mode in CREATING and storage_options is None
