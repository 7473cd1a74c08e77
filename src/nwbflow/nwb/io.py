"""Drop-in replacements for PyNWB's and HDMF's HDF5 classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pynwb
from hdmf.backends.hdf5 import HDF5IO as HdmfHDF5IO
from hdmf.build import BuildManager, TypeMap

from nwbflow.engine.afar import Executor
from nwbflow.nwb.flow import Flow
from nwbflow.nwb.reading import Reading
from nwbflow.nwb.session import FileOptions, RulesLike, Session
from nwbflow.nwb.ties import ExternalPolicy
from nwbflow.observe.hub import Progress
from nwbflow.planning.profiles import Profile


class NWBHDF5IO(Flow, pynwb.NWBHDF5IO):  # type: ignore[misc]
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
    executor : Executor, optional
        Who computes and encodes arrays instead of threads of this process: :func:`nwbflow.parallel.dask`.
    links : {"allow", "contained", "deny"}
        Which other files reading may open, by links or for data that lie in them: any, as PyNWB does (but the working
        folder is not searched), those in the file's folder and below it, or none.
    verify_links : bool
        Whether reading compares what links lead to with what was recorded when nwbflow made them.
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
        executor: Executor | None = None,
        links: str = "allow",
        verify_links: bool = False,
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
            executor=executor,
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
        self._reading = Reading.of(links, verify_links)
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


class HDF5IO(Flow, HdmfHDF5IO):  # type: ignore[misc]
    """:class:`hdmf.backends.hdf5.HDF5IO`, many times faster and never leaving a broken file.

    The same as :class:`NWBHDF5IO` for HDMF users without NWB; see there.

    Parameters
    ----------
    path, mode, manager, comm, file, driver, aws_region, herd_path
        As in HDMF.
    profile, rules, workers, memory, verify, progress, external, executor, links, verify_links
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
        executor: Executor | None = None,
        links: str = "allow",
        verify_links: bool = False,
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
            executor=executor,
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
        self._reading = Reading.of(links, verify_links)
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
