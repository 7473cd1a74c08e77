"""Opening an NWB file that somebody else made, in one call."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hdmf.build import ConstructError
from pynwb import NWBFile

from nwbflow.errors import ErrorKind, LinkError, NwbflowError
from nwbflow.links.files import open_file
from nwbflow.links.problems import BrokenLink
from nwbflow.nwb.io import NWBHDF5IO


@dataclass(frozen=True, slots=True, eq=False)
class OpenedNWB:
    """An NWB file that was read; its data are read when they are asked for.

    In a ``with`` statement it gives the :class:`pynwb.NWBFile`, and closes the file at the end.

    Parameters
    ----------
    nwbfile : pynwb.NWBFile
        What was read.
    io : NWBHDF5IO
        What has read it, and has the file open.
    """

    nwbfile: NWBFile
    io: NWBHDF5IO

    @property
    def broken_links(self) -> tuple[BrokenLink, ...]:
        """What could not be read, and why; asking for such data raises the same as an error."""
        return self.io.broken_links

    def close(self) -> None:
        """Close the file, and those that its links led to."""
        self.io.close()

    def __enter__(self) -> NWBFile:
        return self.nwbfile

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open(path: str | Path, *, links: str = "contained", verify_links: bool = False) -> OpenedNWB:  # noqa: A001
    """Open an NWB file for reading; nothing outside of its folder is opened, whatever links it has.

    Links, virtual datasets and raw files are looked for beside the file that names them, never in the working folder.
    What can't be followed is left out with a warning, and told by ``broken_links``; where it is data, asking for them
    raises the error. The rest of the file can be read.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    links : {"contained", "allow", "deny"}
        Which other files may be opened: those in the file's folder (symbolic links resolved) and below it; any, also
        beside a symbolic link that `path` is and where HDF5's environment variables send it; or none. Pass
        ``"allow"`` for files you trust.
    verify_links : bool
        Whether what links lead to is compared with what was recorded when nwbflow made them: data by their shape,
        type, attributes and content (a sample of it where it is large); of linked containers, only that they are
        there; links that lead nowhere are warned of, as without.

    Returns
    -------
    OpenedNWB
        Use it in a ``with`` statement, which gives the :class:`pynwb.NWBFile`; or use ``.nwbfile`` and ``.close()``.

    Raises
    ------
    nwbflow.errors.LinkError
        The file is missing, no regular file, not permitted, no NWB file, damaged or being written; something it can't
        do without is out of reach; or, with `verify_links`, something has changed.
    nwbflow.errors.SettingsError
        If there is no such policy.
    """
    file = open_file(path)
    if "nwb_version" not in file.attrs:
        file.close()
        raise LinkError(
            f"{path} is an HDF5 file, but no NWB file: it has no nwb_version. See what it is: nwbflow inspect {path}",
            kind=ErrorKind.NOT_HDF5,
        )
    file.close()
    # a symbolic link is not resolved: with links="allow" names count from beside it too, as for HDF5
    name = str(Path(path).absolute())
    try:
        io = NWBHDF5IO(name, "r", links=links, verify_links=verify_links)
    except _READING as error:
        raise _unreadable(error, path, ()) from error
    try:
        return OpenedNWB(io.read(), io)
    except _READING as error:
        io.close()
        raise _unreadable(error, path, io.broken_links) from error
    except BaseException:
        io.close()
        raise


def _unreadable(error: Exception, path: str | Path, broken: tuple[BrokenLink, ...]) -> Exception:
    """Return the error to raise for one of HDMF's or h5py's."""
    if isinstance(error, NwbflowError):
        return error
    if isinstance(error, RecursionError):
        return LinkError(f"{path} has containers inside each other without end", kind=ErrorKind.CYCLE)
    if broken:
        listed = "\n    ".join(map(str, broken))
        text = f"{path} can't be read, since something it needs is out of reach:\n    {listed}"
        return LinkError(text, kind=broken[0].error)
    not_built = isinstance(error, ConstructError)
    if not_built:  # NWB's rules are broken, which is PyNWB's to say
        return error
    why = f"{path} can't be read: {{}}. {_LOOK} {shlex.quote(str(path))}"
    plain = str(error).strip("'\"")
    if any(text in plain for text in _DELETED):
        text = f"an object reference in it leads to what is not there any more (HDF5: {plain})"
        return LinkError(why.format(text), kind=ErrorKind.MISSING)
    text = f"it is damaged, or not made as NWB files are ({type(error).__name__}: {plain})"
    return LinkError(why.format(text), kind=ErrorKind.MISMATCH)


_READING = (ConstructError, KeyError, AttributeError, TypeError, ValueError, IndexError, RuntimeError, OSError)
"""What HDMF and h5py raise where a file is not as they expect."""

_DELETED = ("by token", "Invalid HDF5 object reference", "dereference")
"""What h5py says of references to objects that were deleted."""

_LOOK = "Find what is wrong: pynwb-validate"
