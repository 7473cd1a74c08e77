"""Containers and arrays of another store: never a link that nobody asked for, or that leads nowhere."""

import hdmf_zarr
import numpy as np
import pytest
from support import session

import nwbflow
from nwbflow.errors import LinkError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")

DATA = np.arange(3000, dtype="i2").reshape(-1, 3)


@pytest.fixture
def guest(tmp_path):
    """A series that was read from a store."""
    nwbflow.write(session(a=DATA), tmp_path / "other.nwb.zarr", progress=False)
    with hdmf_zarr.NWBZarrIO(str(tmp_path / "other.nwb.zarr"), "r") as io:
        yield io.read().acquisition["a"]


@pytest.mark.requirement("P4")
def test_a_container_is_not_linked_where_a_copy_was_asked_for(tmp_path, guest):
    nwbfile = session()
    nwbfile.add_acquisition(guest)
    with pytest.raises(UnsupportedError, match=r"/acquisition/a .*\n.*nwbflow.DataIO"):
        nwbflow.write(nwbfile, tmp_path / "x.nwb.zarr", external="copy", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["other.nwb.zarr"]


@pytest.mark.parametrize("policy", ["error", "link", "copy"])
def test_an_hdf5_file_never_links_to_a_store(tmp_path, guest, policy):
    nwbfile = session()
    nwbfile.add_acquisition(guest)
    with pytest.raises(UnsupportedError, match=r"can't link to them:\n    /acquisition/a"):
        nwbflow.write(nwbfile, tmp_path / "x.nwb", external=policy, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["other.nwb.zarr"]


def test_what_the_refusal_of_an_array_advises_works(tmp_path, guest):
    path = tmp_path / "x.nwb.zarr"
    with pytest.raises(LinkError, match=r"nwbflow\.DataIO\(data\) for those of stores"):
        nwbflow.write(session(b=guest.data), path, progress=False)
    nwbflow.write(session(b=nwbflow.DataIO(guest.data)), path, progress=False)
    with hdmf_zarr.NWBZarrIO(str(path), "r") as io:
        assert np.array_equal(io.read().acquisition["b"].data[:], DATA)
