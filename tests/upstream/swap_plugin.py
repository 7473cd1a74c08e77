"""A pytest plugin that puts nwbflow's I/O classes in the place of HDMF's and PyNWB's.

Loaded with ``-p swap_plugin`` by :file:`run.py`, before any test module is imported, so that
``from pynwb import NWBHDF5IO`` in an upstream test hands out nwbflow's class: what a user gets who
changes one import. HDMF's own inner use of its ``HDF5IO`` (``isinstance`` checks, name-mangled
static methods) keeps seeing the original; only what is imported from outside is exchanged.

Environment
-----------
NWBFLOW_SWAP
    ``nwbflow`` (default), ``control`` (empty subclasses of the originals: what subclassing alone
    changes) or ``broken`` (empty subclasses that refuse to write: proof that the comparison bites).
NWBFLOW_SWAP_PACKAGE
    Whose tests are run; hdmf-zarr's classes are exchanged for its own only.
NWBFLOW_SWAP_REPORT
    File to receive, one a line, the tests in which a swapped class wrote something.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from pathlib import Path
from typing import Any

import hdmf.backends.hdf5.h5tools as h5tools
import hdmf.common
import hdmf.testing
import pynwb
import pynwb.testing

WRITERS: set[str] = set()
"""Tests in which a swapped class wrote something."""


def _classes(kind: str) -> tuple[Any, Any]:
    """Return the stand-ins for HDMF's and PyNWB's class."""
    if kind == "nwbflow":
        import nwbflow

        return nwbflow.HDF5IO, nwbflow.NWBHDF5IO
    return type("HDF5IO", (h5tools.HDF5IO,), {}), type("NWBHDF5IO", (pynwb.NWBHDF5IO,), {})


def _note_writes(cls: Any, *, refuse: bool) -> None:
    """Make `cls` note in which test it writes, and raise instead if it is to `refuse`."""
    original = cls.write_builder

    @functools.wraps(original)
    def write_builder(self: object, *args: object, **kwargs: object) -> object:
        if type(self) is cls:
            WRITERS.add(os.environ.get("PYTEST_CURRENT_TEST", "?").rsplit(" ", 1)[0])
        if refuse:
            raise RuntimeError("this class is broken on purpose")
        return original(self, *args, **kwargs)

    cls.write_builder = write_builder


def _exchange(name: str, old: type, new: type, but: types.ModuleType) -> None:
    """Replace `old` by `new` under `name` in every module of HDMF and PyNWB but the one that defines it."""
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith(("hdmf", "pynwb")) or module is but:
            continue
        if getattr(module, name, None) is old:
            setattr(module, name, new)


def _show_copy(module: types.ModuleType, name: str, new: type) -> types.ModuleType:
    """Show a copy of the module that defines a class to importers; its own functions keep the original."""
    shown = types.ModuleType(module.__name__)
    shown.__dict__.update(module.__dict__)
    shown.__dict__[name] = new
    sys.modules[module.__name__] = shown
    return shown


def _swap_zarr(kind: str) -> None:
    import hdmf_zarr
    from hdmf_zarr import backend

    new_zarr = type("ZarrIO", (backend.ZarrIO,), {})
    new_nwb = type("NWBZarrIO", (hdmf_zarr.NWBZarrIO,), {})
    if kind == "nwbflow":
        from nwbflow.nwb.zarr_io import NWBZarrIO, ZarrIO

        new_zarr, new_nwb = ZarrIO, NWBZarrIO
    for cls in (new_zarr, new_nwb):
        _note_writes(cls, refuse=kind == "broken")
    _exchange("ZarrIO", backend.ZarrIO, new_zarr, but=backend)
    _exchange("NWBZarrIO", hdmf_zarr.NWBZarrIO, new_nwb, but=backend)
    hdmf_zarr.backend = _show_copy(backend, "ZarrIO", new_zarr)


def _swap() -> None:
    kind = os.environ.get("NWBFLOW_SWAP", "nwbflow")
    hdmf_class, nwb_class = _classes(kind)
    for cls in (hdmf_class, nwb_class):
        _note_writes(cls, refuse=kind == "broken")
    _exchange("HDF5IO", h5tools.HDF5IO, hdmf_class, but=h5tools)
    _exchange("NWBHDF5IO", pynwb.NWBHDF5IO, nwb_class, but=h5tools)
    hdmf.backends.hdf5.h5tools = _show_copy(h5tools, "HDF5IO", hdmf_class)
    if os.environ.get("NWBFLOW_SWAP_PACKAGE") == "hdmf-zarr":
        _swap_zarr(kind)


def pytest_sessionfinish() -> None:
    report = os.environ.get("NWBFLOW_SWAP_REPORT")
    if report:
        Path(report).write_text("".join(f"{test}\n" for test in sorted(WRITERS)), encoding="utf-8")


_swap()
