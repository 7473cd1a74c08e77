"""Named bundles of settings."""

from __future__ import annotations

from dataclasses import dataclass

from nwbflow.errors import ErrorKind, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Settings for all large arrays of a write that nothing more special says otherwise about.

    Parameters
    ----------
    name : str
        What it is called.
    codec : str or (str, int)
        Codec as a user would write it: its name, or name and level.
    checksum : bool
        Whether HDF5's Fletcher-32 checksum is stored with each chunk.
    chunk_bytes : int or None
        Size of a chunk before filters to aim at, in bytes; ``None`` is what suits each kind of
        array (:func:`nwbflow.planning.chunks.advise_chunks`).
    min_bytes : int
        Arrays smaller than this, in bytes, are left as PyNWB writes them.
    metadata_first : bool
        Whether room for all metadata, chunk indexes included, is kept before the large data.
    """

    name: str
    codec: str | tuple[str, int]
    checksum: bool = False
    chunk_bytes: int | None = None
    min_bytes: int = 64 * 2**10
    metadata_first: bool = False


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="default", codec=("gzip", 4)),
        Profile(name="fast", codec="gzip-fast"),
        Profile(name="archive", codec=("gzip", 6), checksum=True),
        # A request's 80 ms cost as much as 10 MB at 1 Gbit/s; HDMF recommends 2 to 16 MB.
        Profile(name="cloud", codec=("gzip", 4), chunk_bytes=8_000_000, metadata_first=True),
    )
}
"""The built-in profiles by name."""


def get_profile(profile: str | Profile) -> Profile:
    """Return the built-in profile of that name, or `profile` itself if it is one.

    Parameters
    ----------
    profile : str or Profile
        A name out of :data:`PROFILES`, or a profile of one's own.

    Raises
    ------
    SettingsError
        Kind ``OPTION``: no such profile; the text lists the names.
    """
    if isinstance(profile, Profile):
        return profile
    try:
        return PROFILES[profile]
    except (KeyError, TypeError):
        known = ", ".join(map(repr, PROFILES))
        raise SettingsError(f"profile={profile!r} is unknown: known are {known}", kind=ErrorKind.OPTION) from None
