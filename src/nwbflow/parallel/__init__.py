"""Encoding in other processes than this one: who computes and encodes, while one process stores."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from nwbflow.engine.afar import Executor
from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Executor", "dask", "processes"]


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
