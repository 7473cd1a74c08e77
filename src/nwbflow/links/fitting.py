"""Whether elements of one type can be read as another without loss."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

_NUMBERS = "biufc"


def type_misfit(has: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """Return what is wrong if a source's type is not the virtual dataset's, nor goes into it; empty if nothing is.

    Parameters
    ----------
    has, wanted : numpy.dtype
        Of the source and of the virtual dataset, as h5py gives them.
    """
    if _fits(has, wanted):
        return ""
    return f"has elements of type {has}, and HDF5 would change them to the virtual dataset's {wanted}"


def _fits(has: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    if has.kind in _NUMBERS and wanted.kind in _NUMBERS:
        return bool(np.can_cast(has, wanted, "safe"))
    if has.kind != wanted.kind:
        return False
    if has.kind == "S":
        return has.itemsize <= wanted.itemsize
    if has.kind == "O":  # text, references, arrays of any length; what they are is beside the type
        return all(getter(has) == getter(wanted) for getter in (h5py.check_ref_dtype, h5py.check_vlen_dtype))
    if has.names is not None and has.names == wanted.names:
        return all(_fits(has[name], wanted[name]) for name in has.names)
    return has == wanted
