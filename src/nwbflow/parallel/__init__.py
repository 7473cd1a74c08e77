"""Encoding in other processes than this one: who computes and encodes, while one process stores."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nwbflow.engine.afar import Executor
from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.model.receipt import Receipt
from nwbflow.parallel.manifest import Scouted

if TYPE_CHECKING:
    from distributed import Client
    from mpi4py.MPI import Intracomm

__all__ = ["Executor", "Ranks", "dask", "mpi", "processes"]


def dask(client: Client, *, patience: float = 60.0) -> Executor:
    """Let the workers of a Dask cluster compute and encode: ``nwbflow.write(..., executor=nwbflow.parallel.dask(client))``.

    Dask arrays are computed where they are encoded; raw files and memory maps are read by the workers that see the
    same path; all other arrays are read here, and sent to the workers a block at a time. Encoded chunks come back to
    this process, which stores them, each once, whatever workers have to do again. Streams are encoded here.

    Parameters
    ----------
    client : distributed.Client
        Connected to the scheduler. Workers and scheduler need the same nwbflow.
    patience : float
        Seconds to go on while there is no worker at all, or no answer of the scheduler.

    Returns
    -------
    Executor
        For ``executor=`` of :func:`nwbflow.write` and the drop-in classes; may be used again.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        Kind ``PLUGIN``: ``distributed`` is not installed.
    nwbflow.errors.SettingsError
        If `client` is no client that can be waited for, or `patience` is not above 0.
    """  # noqa: E501 - the call is one line
    if importlib.util.find_spec("distributed") is None:
        raise UnsupportedError(
            'Dask clusters need distributed, which is not installed: pip install "nwbflow[dask]"', kind=ErrorKind.PLUGIN
        )
    from distributed import Client

    from nwbflow.parallel.cluster import DaskExecutor

    if not isinstance(client, Client) or client.asynchronous:
        raise SettingsError(
            f"nwbflow.parallel.dask({type(client).__name__}): give a distributed.Client, not an asynchronous one",
            kind=ErrorKind.OPTION,
        )
    if not patience > 0:
        raise SettingsError(f"patience={patience!r}: give seconds, more than 0", kind=ErrorKind.OPTION)
    return DaskExecutor(client, patience)


def processes(workers: int | None = None) -> Executor:
    """Read and encode in processes of this machine: ``nwbflow.write(..., executor=nwbflow.parallel.processes())``.

    For data whose reading holds Python's lock, or a library's, and so leaves the encoding threads nothing to do: own
    array classes, compressed HDF5 and Zarr arrays, dask arrays. Processes open them by themselves, from a path or
    from what pickling keeps, and send encoded chunks back; this process stores them, each once. Arrays in memory, raw
    files, streams, and HDF5 files open for writing are read here and encoded in threads, as without it.

    Processes are started by the first write, in about two seconds, and kept as long as the executor. A script must
    do its work under ``if __name__ == "__main__":``. One that is killed is replaced, and its blocks are done again.

    Parameters
    ----------
    workers : int, optional
        How many processes; as many as this one may use cores if not given. Each takes some hundred MB, and three
        times its block: 16 MiB, or one stored or computed piece of the data if that is larger.

    Returns
    -------
    Executor
        For ``executor=`` of :func:`nwbflow.write` and the drop-in classes; may be used again.

    Raises
    ------
    nwbflow.errors.SettingsError
        If `workers` is no whole number of at least 1.
    nwbflow.errors.ExecutorError
        In a script without ``if __name__ == "__main__":``.
    """
    from nwbflow.parallel.pool import ProcessExecutor, refuse_unguarded

    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise SettingsError(f"workers={workers!r}: give a whole number of at least 1, or None", kind=ErrorKind.OPTION)
    refuse_unguarded()
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ProcessExecutor(workers or available)


@dataclass(frozen=True, slots=True)
class Ranks:
    """All ranks of an MPI communicator; made by :func:`mpi`, for :func:`nwbflow.write` on each of them.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        The communicator.
    """

    comm: Intracomm

    def together(
        self, scout: Callable[[], Scouted], write: Callable[[Executor], Receipt], workers: int | None
    ) -> Receipt:
        """Write on rank 0 with the help of all others; called on every rank.

        Parameters
        ----------
        scout : callable
            Looks at what this rank has.
        write : callable
            Writes the file; called on rank 0.
        workers : int or None
            Encoding threads of each rank.

        Returns
        -------
        Receipt
            Rank 0's, on every rank.

        Raises
        ------
        BaseException
            On every rank, whatever stopped it on any.
        """
        from nwbflow.parallel.ranks import follow, lead
        from nwbflow.parallel.wire import Wire

        wire = Wire(self.comm)
        return follow(wire, scout) if wire.rank else lead(wire, scout, write, workers)


def mpi(comm: Intracomm) -> Ranks:
    """Let all ranks of an MPI program write one file: ``nwbflow.write(..., executor=nwbflow.parallel.mpi(comm))``.

    Every rank calls :func:`nwbflow.write`, with an ``NWBFile`` of its own that has the same containers. Datasets of
    which each rank has some rows are declared with :func:`nwbflow.part`; each rank encodes its own. All else must be
    the same on every rank, and is taken from rank 0. Rank 0 stores, with ordinary h5py, and reports progress; the path
    and all settings are its own. Whatever stops one rank is raised on all.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        The ranks that take part, such as ``MPI.COMM_WORLD``.

    Returns
    -------
    Ranks
        For ``executor=`` of :func:`nwbflow.write`; may be used again.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        Kind ``PLUGIN``: ``mpi4py`` is not installed, or finds no MPI.
    nwbflow.errors.SettingsError
        If `comm` is no communicator of ranks.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # mpi4py's wheels look for a library of MPI when they are imported
        raise UnsupportedError(
            f'MPI needs mpi4py and a library of MPI: pip install "nwbflow[mpi]", and the cluster\'s MPI, or '
            f"pip install mpich ({error})",
            kind=ErrorKind.PLUGIN,
        ) from error
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise SettingsError(
            f"nwbflow.parallel.mpi({type(comm).__name__}): give a communicator that this process is in, such as "
            "mpi4py.MPI.COMM_WORLD",
            kind=ErrorKind.OPTION,
        )
    return Ranks(comm)
