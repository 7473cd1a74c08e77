"""HDF5 files for object stores: made and verified in a folder here, then sent."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nwbflow.errors import ErrorKind, NwbflowError, PlanError, TargetError, UnsupportedError
from nwbflow.model.address import Address
from nwbflow.model.events import Event
from nwbflow.model.receipt import SentFile
from nwbflow.sinks.file_upload import SENDERS, FileUpload, exists
from nwbflow.sinks.manifest import Manifest
from nwbflow.sinks.permitted import refuse_no_folder, refuse_protected
from nwbflow.sinks.s3_file import SCHEMES, S3File
from nwbflow.sinks.staging import check_target

_LARGEST_SHARE = 2
"""Of a folder nobody named, one part in so many of what is free may be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A file that goes to an object store when it is finished.

    Parameters
    ----------
    address : Address
        Where to.
    local : pathlib.Path
        Where it is made.
    place : S3File
        Speaks to the store.
    overwrite : bool
        Whether an object that is there may be replaced.
    room : int
        Bytes that parts on their way may take.
    named : bool
        Whether the user named the folder.
    """

    address: Address
    local: Path
    place: S3File
    overwrite: bool
    room: int
    named: bool

    def check_room(self, raw_bytes: int | None) -> None:
        """Refuse what may not fit into a folder that nobody named.

        Parameters
        ----------
        raw_bytes : int or None
            Size of the large arrays before filters; ``None`` if any length is unknown.

        Raises
        ------
        PlanError
            Kind ``NO_SPACE``.
        """
        if self.named:
            return
        folder = self.local.parent.parent
        stat = os.statvfs(folder)
        free = stat.f_bavail * stat.f_frsize
        if raw_bytes is not None and raw_bytes * _LARGEST_SHARE <= free:
            return
        size = "arrays of unknown length" if raw_bytes is None else f"arrays of {raw_bytes / 1e6:.0f} MB"
        raise PlanError(
            f"{self.address}: the file is made here before it is sent, and {size} may not fit into {folder}, "
            f"where {free / 1e6:.0f} MB are free; pass staging=FOLDER, on a disk with room for the file",
            kind=ErrorKind.NO_SPACE,
        )

    def refuse_links(self, linked: Mapping[str, str]) -> None:
        """Refuse links to other files, which lead nowhere from an object store.

        Raises
        ------
        UnsupportedError
            Naming all of them.
        """
        if linked:
            raise UnsupportedError(
                f"{self.address}: from an object store links to other files lead nowhere:"
                + "".join(f"\n    {name}  ({where})" for name, where in linked.items())
                + "\nUse nwbflow.copy(...) or nwbflow.raw(...) in their place",
                kind=ErrorKind.FOREIGN,
            )

    @contextlib.contextmanager
    def prepared(self) -> Iterator[Path]:
        """Make the folder, and see that the address can be written to before hours of work; give the file's path.

        Raises
        ------
        TargetError
            If it can't be.
        """
        self.local.parent.mkdir(exist_ok=True)
        try:
            target = check_target(self.local, overwrite=self.overwrite)
            self.place.leave_note(self.place.note() or Manifest().to_bytes())
            yield target
        except BaseException:
            self._take_note_back()
            raise
        finally:
            self._drop_folder()

    def _take_note_back(self) -> None:
        """Remove the note where no upload has begun."""
        with contextlib.suppress(NwbflowError):
            noted = Manifest.parse(self.place.note(), f"{self.address}.partial")
            if noted is not None and not noted.upload:
                self.place.remove_note()

    def send(self, emit: Callable[[Event], None], *, verify: bool) -> SentFile:
        """Send the finished file, then remove it here.

        Raises
        ------
        NwbflowError
            What stopped it, with what to do; the file is kept then.
        """
        upload = FileUpload(self.place, self.local, overwrite=self.overwrite, room=self.room, emit=emit)
        try:
            sent = upload.run(verify=verify)
        except BaseException as error:
            error.add_note(
                f"The file is whole and verified in {self.local}. This sends what is missing: "
                f"{command(self.local, self.address)}"
            )
            raise
        self.local.unlink(missing_ok=True)
        return sent

    def _drop_folder(self) -> None:
        """Remove the folder the file is made in, if nothing is in it."""
        if self.local.parent.is_dir() and not any(self.local.parent.iterdir()):
            self.local.parent.rmdir()


def command(file: Path, address: Address) -> str:
    """Return the command that sends a file."""
    return f"nwbflow upload {shlex.quote(str(file))} {shlex.quote(str(address))}"


def open_place(url: str, options: Mapping[str, Any]) -> S3File:
    """Return what speaks to the store at an address; nothing is sent yet.

    Raises
    ------
    UnsupportedError
        If HDF5 files can't be sent there, or botocore is missing.
    SettingsError
        If the address or an option is wrong.
    """
    if url.partition("://")[0] not in SCHEMES:
        raise UnsupportedError(
            f"{url}: HDF5 files are sent to S3 only (s3://bucket/x.nwb; with endpoint= also to servers that speak "
            f"like it, Google's among them). Write here and copy it, or give a name that ends in .zarr, such as "
            f"{url.rstrip('/').removesuffix('.nwb')}.nwb.zarr",
            kind=ErrorKind.OPTION,
        )
    if importlib.util.find_spec("botocore") is None:
        raise UnsupportedError(
            f'{url}: sending HDF5 files needs botocore, which is not installed: pip install "nwbflow[s3]"',
            kind=ErrorKind.PLUGIN,
        )
    return S3File(url, options, connections=SENDERS)


def plan_sending(
    url: str, options: Mapping[str, Any], staging: str | Path | None, *, overwrite: bool, room: int
) -> Sending:
    """Return how a file will be sent, or say why it can't be; nothing is made yet.

    Parameters
    ----------
    url : str
        Where to.
    options : mapping
        ``storage_options``.
    staging : str, pathlib.Path or None
        Folder to make it in; ``None`` is the system's for temporary files.
    overwrite : bool
        Whether an object that is there, or what an earlier call left here, may be replaced.
    room : int
        Bytes that parts on their way may take.

    Raises
    ------
    NwbflowError
        If it can't be.
    """
    place = open_place(url, options)
    folder = Path(tempfile.gettempdir() if staging is None else staging).absolute()
    local = local_path(folder, url)
    try:
        refuse_no_folder(local.parent)
        refuse_protected(local.parent)
    except TargetError as error:
        error.add_note(f"{folder} is where {url} would be made before it is sent (staging=)")
        raise
    sending = Sending(
        address=Address(url),
        local=local,
        place=place,
        overwrite=overwrite,
        room=room,
        named=staging is not None,
    )
    _check_local(sending)
    Manifest.parse(place.note(), f"{url}.partial")
    if place.there() is not None and not overwrite:
        raise exists(url)
    return sending


def _check_local(sending: Sending) -> None:
    """Refuse to go over what an earlier call made and did not send."""
    if sending.local.exists() and not sending.overwrite:
        raise TargetError(
            f"{sending.local} was made by an earlier call for {sending.address}, and may not be there yet. Send it: "
            f"{command(sending.local, sending.address)}; or pass overwrite=True to make it again",
            kind=ErrorKind.EXISTS,
        )
    if sending.local.parent.is_dir():
        check_target(sending.local, overwrite=sending.overwrite)


def local_path(folder: Path, url: str) -> Path:
    """Return where the file for an address is made in a folder: in one of its own."""
    return folder / f"nwbflow-{hashlib.sha256(url.encode()).hexdigest()[:12]}" / url.rpartition("/")[2]
