"""``nwbflow upload``: a finished file to an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from nwbflow.cli.receipts import print_rows, receipt_to_json
from nwbflow.cli.screens import Bar, duration, note, print_json, size
from nwbflow.observe.jsonl import JsonLines
from nwbflow.tools.upload import upload as upload_file


def upload(
    file: Path,
    address: str,
    /,
    *,
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    memory: str | None = None,
    verify: Literal["stored", "full", "no"] = "stored",
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    events: Path | None = None,
    no_progress: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    quiet: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Send a finished HDF5 file to S3, or go on where an interrupted command stopped.

    It is sent in parts, which become the object in one step: nobody ever finds
    half a file. Parts that an earlier command sent are recognised by their
    checksums and not sent again. An example:

    nwbflow upload session.nwb s3://bucket/session.nwb

    Parameters
    ----------
    file
        The HDF5 file. It is only read; but one that convert made for this address, and could not send, is removed
        when it is there.
    address
        Where to, such as s3://bucket/session.nwb. Credentials and endpoint come from the environment (AWS_...).
    overwrite
        Replace what is at the address. It stays until the new file is there whole.
    memory
        What parts on their way may take, such as 64MiB; 1 GiB, or less where less is free, if not given.
    verify
        Compare what is there with what was sent: by the server's tag, or by reading it back where that tells nothing
        (stored and full are the same here); no: don't read back.
    json
        Print the result as one JSON object.
    events
        Append every event to this file, one JSON object a line.
    no_progress
        Show no progress bar (there is none either where standard error is no terminal).
    quiet
        Print nothing but notes and errors.
    """
    bar = [] if quiet or no_progress else [Bar()]
    receipt = upload_file(
        file,
        address,
        memory=memory,
        verify=verify,
        progress=[*bar, *([] if events is None else [JsonLines(events)])],
        overwrite=overwrite,
    )
    for text in receipt.notes:
        note(text)
    sent = receipt.sent
    if json:
        print_json(receipt_to_json(receipt))
    elif sent is not None and not quiet:
        before = f", {sent.kept} of them sent before" if sent.kept else ""
        print_rows(
            [
                ("written", f"{receipt.path}, {size(sent.size)}"),
                ("sent", f"{sent.parts} {'part' if sent.parts == 1 else 'parts'}{before}, tag {sent.tag}"),
                ("time", duration(receipt.seconds)),
            ]
        )
