"""Bad inputs: what the user reads, and that nothing was destroyed (W6, W8)."""

import contextlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import support
from hdmf.data_utils import DataChunkIterator

import nwbflow
from nwbflow.errors import ErrorKind, SourceError, UnsupportedError

sys.path.insert(0, str(Path(__file__).parent))

from bad_inputs import ANY, CASES, ready


def files_below(folder):
    """Return the content of every regular file, and the kind of everything else."""
    found = {}
    for at in sorted(folder.rglob("*")):
        found[at] = at.read_bytes() if at.is_file() else at.stat().st_mode
    return found


def attempt(how, case, path):
    data = case.data(path.parent)
    nwbfile = support.session(bad=data) if how != "beside" else support.session(
        bad=data, good=nwbflow.blocks([ready((5, 4))], shape=(None, 4), dtype="int32"),
        other=nwbflow.blocks((ready((1, 2)) for _ in range(9)), shape=(None, 2), dtype="int32"),
    )  # fmt: skip
    options = {"progress": False, **case.options}
    if how == "dropin":
        options.pop("overwrite", None)
        support.write_nwb(nwbfile, path, **options)
    else:
        nwbflow.write(nwbfile, path, **{**ANY, **options})


@pytest.mark.requirement("W6", "W8")
@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize(
    ("name", "how"),
    # the drop-in replaces files, as PyNWB does, so what only nwbflow.write refuses is left out there
    [(name, how) for name in CASES for how in ("write", "beside", "dropin") if how != "dropin" or CASES[name].dropin],
)
def test_a_bad_input_is_explained_and_destroys_nothing(name, how, tmp_path):
    case = CASES[name]
    folder = tmp_path / "live"
    folder.mkdir()
    path = folder / "session.nwb"
    support.write_nwb(support.session(old=ready((50, 2))), path)
    with contextlib.ExitStack() as stack:
        if case.prepare is not None and (state := case.prepare(path)) is not None:
            stack.enter_context(state)
        before = files_below(folder)
        with pytest.raises(case.error) as raised:
            attempt(how, case, path)
        after = files_below(folder)
    error = raised.value
    assert type(error) is case.error
    assert getattr(error, "kind", None) == case.kind
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    missing = [phrase for phrase in case.reads if phrase.format(path=path) not in text]
    assert not missing, f"{missing} not in: {text}"
    check_left_overs(path, before, after, text)


def check_left_overs(path, before, after, text):
    """Check that nothing changed but for a partial file, and that it can be opened."""
    partial = path.with_name(path.name + ".partial")
    assert {at: content for at, content in after.items() if at != partial or at in before} == before
    if partial in after and partial not in before:
        assert partial.name in text, "the user is not told of the partial file"
        shapes = support.opens_in_pynwb(partial)
        assert "bad" in shapes
        with h5py.File(partial, "r") as file:
            file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)


@pytest.mark.requirement("W8")
def test_a_generator_in_two_series_is_refused(tmp_path):
    shared = nwbflow.blocks(iter([ready((2, 3))] * 4), shape=(None, 3), dtype="int32")
    generator = iter([ready((2, 3))] * 4)
    rows = iter([ready(3)] * 4)
    pairs = {
        "the same blocks": (shared, shared),
        "the same blocks in two wrappers": (nwbflow.DataIO(shared, codec="gzip"), nwbflow.DataIO(shared)),
        "one generator in two": tuple(nwbflow.blocks(generator, shape=(None, 3), dtype="int32") for _ in range(2)),
        "one generator in two of HDMF's": tuple(DataChunkIterator(data=rows, dtype=np.dtype("i4")) for _ in range(2)),
    }
    for what, (first, second) in pairs.items():
        path = tmp_path / "session.nwb"
        with pytest.raises(SourceError, match=r"/acquisition/.../data and /.*have the same") as raised:
            support.write_nwb(support.session(one=first, two=second), path)
        assert raised.value.kind is ErrorKind.SHARED, what
        assert not list(tmp_path.iterdir()), what


@pytest.mark.requirement("W2", "W8")
def test_a_list_may_feed_two_series(tmp_path):
    items = [ready((2, 3)), ready((1, 3))]
    one, two = (nwbflow.blocks(items, shape=(None, 3), dtype="int32") for _ in range(2))
    support.write_nwb(support.session(one=one, two=two), tmp_path / "session.nwb")
    with h5py.File(tmp_path / "session.nwb") as file:
        assert file["acquisition/one/data"].shape == file["acquisition/two/data"].shape == (3, 3)


@pytest.mark.requirement("C2")
@pytest.mark.parametrize("spec", ["'zstd'", "('blosc2', 5)", "32015", "{'name': 'bitshuffle'}"])
def test_a_missing_plugin_is_named_with_the_way_out(spec, tmp_path):
    code = f"""
        import sys
        sys.modules["hdf5plugin"] = None  # as if it were not installed
        import nwbflow
        from nwbflow.errors import ErrorKind, UnsupportedError
        try:
            nwbflow.DataIO([1, 2, 3], codec={spec})
        except UnsupportedError as error:
            assert error.kind is ErrorKind.PLUGIN
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert re.search(r"hdf5plugin, which is not installed: pip install", done.stdout)
    assert issubclass(UnsupportedError, NotImplementedError)
