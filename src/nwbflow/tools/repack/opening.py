"""The source: opened, or refused, and what it links to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from nwbflow.errors import ErrorKind, LinkError, TargetError, UnsupportedError
from nwbflow.links.files import open_file
from nwbflow.links.inventory import list_links
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
    if is_address(path):
        return
    source = Path(os.path.realpath(path))
    # nothing local is within an address
    target = source if is_address(out) else Path(os.path.realpath(out))
    if not is_address(out) and (_same(source, target) or source in target.parents):
        raise TargetError(
            f"{out} is {path} itself, or in it; give another name, and rename it when you have looked at it",
            kind=ErrorKind.EXISTS,
        )
    if any(_same(source, file) for file in _written(path, out)):
        raise TargetError(
            f"{path} has a name that is needed while {out} is written; give another one", kind=ErrorKind.EXISTS
        )
    if target in source.parents:
        raise TargetError(
            f"{out} is a folder, and {path} is in it; give the name of a new file or store, such as "
            f"{source.with_name(f'new {source.name}')}",
            kind=ErrorKind.FOLDER,
        )


def refuse_linked(path: str | Path, out: str | Path) -> None:
    """Refuse to replace what a file links to, at whatever remove: what it leads to would be gone.

    Parameters
    ----------
    path : str or pathlib.Path
        An HDF5 file with links to others.
    out : str or pathlib.Path
        What the result is going to be.

    Raises
    ------
    nwbflow.errors.TargetError
        Kind ``EXISTS``.
    """
    written = [file for file in _written(path, out) if file.exists()]
    waiting, seen = [Path(os.path.realpath(path))], set[Path]()
    while waiting and written:
        file = waiting.pop()
        if any(_same(file, one) for one in written):
            raise TargetError(
                f"{path} links to {file}, which would be replaced by {out}; give another name",
                kind=ErrorKind.EXISTS,
            )
        seen.add(file)
        try:
            links = list_links(file).links
        except LinkError:
            continue  # it is raw, or can't be read
        waiting += {to.place for link in links for to in link.targets if to.place is not None} - seen


def _written(path: str | Path, out: str | Path) -> list[Path]:
    """Return all files that a run writes or removes."""
    if is_address(out):
        return [_whole_path(path, out)]
    target = Path(os.path.realpath(out))
    return [target, partial_path(target), _whole_path(path, out)]


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


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


def _whole_path(path: str | Path, out: str | Path) -> Path:
    near = Path(os.path.realpath(path if is_address(out) else out))
    return near.with_name(f"{near.name}.embedded")


@contextmanager
def embedded(path: str | Path, out: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a file beside `out` that has all that another one links to; it is removed in the end.

    Parameters
    ----------
    path : str or pathlib.Path
        The file with links.
    out : str or pathlib.Path
        What the result is going to be; of an address, the file is made beside `path`.
    overwrite : bool
        Whether a file of that name, which an earlier run left, may be removed.

    Raises
    ------
    nwbflow.errors.TargetError
        There is a file of that name.
    nwbflow.errors.LinkError, nwbflow.errors.StorageError
        What is missing or changed, or the disk is full.
    """
    whole = _whole_path(path, out)
    if os.path.lexists(whole) and not overwrite:
        raise TargetError(
            f"{whole}, where copies of what is linked are to be made, exists: an interrupted run left it, or it "
            "is yours. Remove or rename it, or pass overwrite=True to remove it",
            kind=ErrorKind.EXISTS,
        )
    whole.unlink(missing_ok=True)
    try:
        embed(path, out=whole)
        yield whole
    finally:
        whole.unlink(missing_ok=True)
