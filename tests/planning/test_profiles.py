"""The named profiles."""

import dataclasses

import pytest

from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.planning.profiles import PROFILES, Profile, get_profile


@pytest.mark.requirement("C5")
def test_the_named_profiles():
    assert set(PROFILES) == {"default", "fast", "archive", "cloud"}
    assert all(get_profile(name).name == name for name in PROFILES)
    assert get_profile("default").codec == ("gzip", 4)
    assert get_profile("fast").codec == "gzip-fast"
    assert get_profile("archive").codec == ("gzip", 6)
    assert [name for name, profile in PROFILES.items() if profile.checksum] == ["archive"]
    assert [name for name, profile in PROFILES.items() if profile.metadata_first] == ["cloud"]
    assert 4e6 <= (get_profile("cloud").chunk_bytes or 0) <= 1e7


def test_a_profile_of_ones_own_passes_through():
    own = dataclasses.replace(get_profile("cloud"), name="ours", min_bytes=0)
    assert get_profile(own) is own
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.codec = "lzf"


@pytest.mark.requirement("C5")
@pytest.mark.parametrize("name", ["tiny", "", ["default"]])
def test_unknown_profiles_list_the_names(name):
    with pytest.raises(SettingsError, match="known are 'default', 'fast', 'archive', 'cloud'") as caught:
        get_profile(name)
    assert caught.value.kind is ErrorKind.OPTION


def test_profiles_of_equal_settings_are_equal():
    assert Profile(name="a", codec="gzip") == Profile(name="a", codec="gzip")
