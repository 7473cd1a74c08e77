"""Processes killed and power cut at random: what was acknowledged is recovered."""

import power
import pytest


@pytest.mark.requirement("S2", "S5")
def test_forty_random_kills_lose_nothing_that_was_acknowledged(tmp_path, reader):
    problems, recovered = power.kills(40, tmp_path, reader, seed=3)
    assert not problems
    assert recovered > 10


@pytest.mark.requirement("S2")
def test_a_real_loss_of_power_takes_nothing_that_was_acknowledged_with_sync_full(tmp_path, reader):
    try:
        problems, recovered = power.cuts(6, tmp_path, reader, seed=4)
    except power.NoDiskError as error:
        pytest.skip(str(error))
    assert not problems
    assert recovered > 2
