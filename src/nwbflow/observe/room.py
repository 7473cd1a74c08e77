"""How long the disk of a recording lasts."""

from __future__ import annotations

from nwbflow.model.events import StreamsObserved


def seconds_to_full(state: StreamsObserved, raw: int, stored: int) -> float | None:
    """Return when the disk will be full if all streams go on as they do, in seconds.

    The journal takes what comes, and the file what that becomes. What is free says less: the journal reserves its
    segments in advance, and others use the disk too.

    Parameters
    ----------
    state : StreamsObserved
        How the recording stands.
    raw, stored : int
        Size of the chunks stored so far, before and after filters, in bytes.

    Returns
    -------
    float or None
        ``None`` while nothing comes, and when nothing more will.
    """
    rate = sum(stream.rows_per_second * stream.row_bytes for stream in state.streams)
    if state.closing or rate <= 0:
        return None
    appended = sum(stream.appended * stream.row_bytes for stream in state.streams)
    kept = min(1.0, state.journal_bytes / appended) if appended else 1.0  # less if it is elsewhere, or there is none
    shrunk = stored / raw if raw else 1.0
    return state.disk_free / (rate * (kept + shrunk))
