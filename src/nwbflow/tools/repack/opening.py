"""The source: opened, or refused, and what it links to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from nwbflow.errors import ErrorKind, LinkError, TargetError, UnsupportedError
from nwbflow.links.files import open_file
from nwbflow.model.address import is_address
from nwbflow.nwb.stores import need_zarr
from nwbflow.sinks.occupied import refuse_recording
from nwbflow.sinks.staging import partial_path
from nwbflow.tools.links.embed import embed
from nwbflow.tools.repack.contents import Contents
from nwbflow.tools.repack.hdf5_contents import hdf5_contents
from nwbflow.tools.repack.tree import Backend

_VERSION = "nwb_version"


@contextmanager
def opened(path: str | Path, backend: Backend) -> Iterator[Contents]:
    """Give what is in a file or store.

    Parameters
    ----------
    path : str or pathlib.Path
        Where it is.
    backend : {"HDF5", "Zarr"}
        What it is.

    Raises
    ------
    nwbflow.errors.LinkError, nwbflow.errors.TargetError, nwbflow.errors.UnsupportedError
        It is not there, can't be read, is being written, what a crash left, or no NWB file.
    """
    _refuse_unfinished(path)
    if backend == "Zarr":
        with _store(Path(path)) as contents:
            yield contents
        return
    open_file(path).close()  # which says what is wrong
    # without a cache for each dataset, which would be kept as long as the file is open
    with h5py.File(path, "r", rdcc_nbytes=0) as file:
        contents = hdf5_contents(file, str(path))
        if contents.problems:
            listed = "\n    ".join(contents.problems)
            raise LinkError(
                f"{path} is damaged; these can't be read:\n    {listed}\nTo save what can be: nwbflow recover {path}",
                kind=ErrorKind.IO,
            )
        if _VERSION not in file.attrs:
            raise LinkError(
                f"{path} is an HDF5 file, but no NWB 2 file: it has no attribute nwb_version. See what it is: nwbflow "
                f"inspect {path}",
                kind=ErrorKind.NOT_HDF5,
            )
        yield contents


@contextmanager
def _store(path: Path) -> Iterator[Contents]:
    need_zarr()
    import zarr

    from nwbflow.tools.repack.zarr_contents import zarr_contents

    if any((path / name).is_file() for name in (".zgroup", ".zmetadata")):
        raise UnsupportedError(
            f"{path} is a Zarr v2 store; read it with hdmf_zarr.NWBZarrV2IO and export it", kind=ErrorKind.OPTION
        )
    if not (path / "zarr.json").is_file():
        raise TargetError(f"{path} is a folder, and no Zarr store", kind=ErrorKind.FOLDER)
    try:
        root = zarr.open_group(path, mode="r", zarr_format=3)
        contents = zarr_contents(root, str(path))
    except Exception as error:  # whatever zarr-python makes of it
        raise TargetError(f"{path} can't be read as a Zarr v3 store: {error}", kind=ErrorKind.IO) from error
    if _VERSION not in root.attrs:
        raise TargetError(
            f"{path} is a Zarr store, but no NWB file: it has no attribute nwb_version", kind=ErrorKind.FOLDER
        )
    yield contents


def _refuse_unfinished(path: str | Path) -> None:
    if is_address(path):
        raise UnsupportedError(
            f"{path}: stores are not repacked from an address yet; copy it to a disk first", kind=ErrorKind.ADDRESS
        )
    real = Path(os.path.realpath(path))
    refuse_recording(real)
    if real.name.endswith((".partial", ".journal")):
        raise TargetError(
            f"{path} is what an interrupted write or recording left. Write again from the source, or make the best "
            f"of it first: nwbflow recover {path}",
            kind=ErrorKind.INTERRUPTED,
        )


def refuse_itself(path: str | Path, out: str | Path) -> None:
    """Refuse to replace a file by itself, under whatever name.

    Raises
    ------
    nwbflow.errors.TargetError
        Kind ``EXISTS``.
    """
    if is_address(path) or is_address(out):
        return
    source, target = Path(os.path.realpath(path)), Path(os.path.realpath(out))
    same = any(file.exists() and source.exists() and file.samefile(source) for file in (target, partial_path(target)))
    if same or (source.is_dir() and target.is_relative_to(source)) or source.is_relative_to(target):
        raise TargetError(
            f"{out} is {path} itself, or in it; give another name, and rename it when you have looked at it",
            kind=ErrorKind.EXISTS,
        )


def outside(contents: Contents) -> dict[str, str]:
    """Return what is in other files: by path, how."""
    found = {path: f"a link to {link.to}" for path, link in contents.links.items() if link.sort == "external"}
    return found | {path: "a virtual or raw dataset" for path, item in contents.objects.items() if item.elsewhere}


def refuse_outside(contents: Contents, source: Backend, target: Backend) -> None:
    """Refuse what leads to other files where that can't be kept.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        Kind ``FOREIGN``, with all of it.
    """
    found = outside(contents)
    if not found:
        return
    way = "Copies can be made of it all: pass links='embed'" if source == "HDF5" else "Copy what it leads to first"
    raise UnsupportedError(
        f"{contents.name} leads to other files, and from {source} to {target} that can't be kept:"
        + "".join(f"\n    {path}  ({what})" for path, what in found.items())
        + f"\n{way}",
        kind=ErrorKind.FOREIGN,
    )


@contextmanager
def embedded(path: str | Path, out: str | Path) -> Iterator[Path]:
    """Give a file beside `out` that has all that another one links to; it is removed in the end.

    Parameters
    ----------
    path : str or pathlib.Path
        The file with links.
    out : str or pathlib.Path
        What the result is going to be; of an address, the file is made beside `path`.

    Raises
    ------
    nwbflow.errors.LinkError, nwbflow.errors.StorageError
        What is missing or changed, or the disk is full.
    """
    near = Path(os.path.realpath(path if is_address(out) else out))
    whole = near.with_name(f"{near.name}.embedded")
    whole.unlink(missing_ok=True)
    try:
        embed(path, out=whole)
        yield whole
    finally:
        whole.unlink(missing_ok=True)
