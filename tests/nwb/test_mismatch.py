"""What a container says against what it is linked to: every attribute, every policy, and what the user reads."""

import contextlib
import math
import os
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pynwb
import pytest
from hdmf.build.errors import ConstructError
from hdmf.common import VectorData, VectorIndex
from pynwb import TimeSeries
from pynwb.behavior import SpatialSeries
from pynwb.ecephys import ElectricalSeries
from pynwb.image import ImageSeries
from pynwb.misc import Units
from pynwb.ophys import OpticalChannel, TwoPhotonSeries
from support import session

import nwbflow
from nwbflow.errors import ErrorKind

POLICIES = ("error", "warn", "copy", "adopt")
LINKING = ("warn", "adopt")
UNLINKABLE = {"waveform_mean"}  # columns that can't be links at all, see the test of what PyNWB could not read back
ROWS = 6
SERIES = {"unit": "V", "conversion": 1.0, "offset": 0.0, "resolution": -1.0}
TIMES = {"unit": "seconds", "interval": 1}


def electrodes(nwbfile, count=4):
    device = nwbfile.create_device("probe")
    group = nwbfile.create_electrode_group("shank", "a shank", "cortex", device)
    for _ in range(count):
        nwbfile.add_electrode(group=group, location="cortex")
    return nwbfile.create_electrode_table_region(list(range(count)), "all of them")


def plane(nwbfile):
    device = nwbfile.create_device("microscope")
    channel = OpticalChannel(name="green", description="GCaMP", emission_lambda=510.0)
    return nwbfile.create_imaging_plane(
        name="plane", optical_channel=channel, description="a plane", device=device, excitation_lambda=920.0,
        indicator="GCaMP", location="V1",
    )  # fmt: skip


def time_series(nwbfile, data, said):
    nwbfile.add_acquisition(TimeSeries(name="s", data=data, rate=1.0, **{"unit": "V", **said}))


def electrical_series(nwbfile, data, said):
    nwbfile.add_acquisition(ElectricalSeries(name="s", data=data, rate=1.0, electrodes=electrodes(nwbfile), **said))


def image_series(nwbfile, data, said):
    nwbfile.add_acquisition(ImageSeries(name="s", data=data, rate=1.0, **{"unit": "V", **said}))


def two_photon_series(nwbfile, data, said):
    series = TwoPhotonSeries(name="s", data=data, rate=1.0, imaging_plane=plane(nwbfile), **{"unit": "V", **said})
    nwbfile.add_acquisition(series)


def spatial_series(nwbfile, data, said):
    nwbfile.add_acquisition(SpatialSeries(name="s", data=data, rate=1.0, reference_frame="door", **said))


def timestamps(nwbfile, data, said):
    nwbfile.add_acquisition(TimeSeries(name="s", data=np.zeros(ROWS), timestamps=data, unit="V"))


def units(nwbfile, data, said, column="waveform_mean"):
    description = said.get("description", DESCRIPTIONS[column])
    more = {"waveform_rate": "sampling_rate", "waveform_time_before_peak_in_ms": "time_before_peak_in_ms"}
    more = {name: said[attribute] for name, attribute in more.items() if attribute in said}
    columns = [VectorData(name=column, description=description, data=data)]
    nwbfile.units = Units(name="units", description="units", columns=columns, id=list(range(ROWS)), **more)


def quality(nwbfile, data, said):
    units(nwbfile, data, said, column="quality")


DESCRIPTIONS = {"waveform_mean": "mean waveforms", "quality": "how good"}
COLUMN = {"namespace": "hdmf-common", "neurodata_type": "VectorData", "object_id": "another"}
UNITS_SAID = {"sampling_rate": 30000.0, "time_before_peak_in_ms": 0.5}

TYPES = {
    "TimeSeries": (time_series, "acquisition/s/data", (ROWS, 4), "i2", SERIES),
    "ElectricalSeries": (electrical_series, "acquisition/s/data", (ROWS, 4), "i2", {**SERIES, "unit": "volts"}),
    "ImageSeries": (image_series, "acquisition/s/data", (ROWS, 4, 5), "u1", SERIES),
    "TwoPhotonSeries": (two_photon_series, "acquisition/s/data", (ROWS, 4, 5), "u2", SERIES),
    "SpatialSeries": (spatial_series, "acquisition/s/data", (ROWS, 2), "f8", {**SERIES, "unit": "meters"}),
    "timestamps": (timestamps, "acquisition/s/timestamps", (ROWS,), "f8", TIMES),
    "waveform_mean": (
        units,
        "units/waveform_mean",
        (ROWS, 5),
        "f4",
        {**COLUMN, "description": "mean waveforms", "unit": "volts", **UNITS_SAID},
    ),
    "quality": (quality, "units/quality", (ROWS,), "f8", {**COLUMN, "description": "how good"}),
}
"""Name: how to make it, where its data are, their shape and type, and the attributes that agree with it."""

SAID = {
    "TimeSeries": {},
    "ElectricalSeries": {},
    "ImageSeries": {},
    "TwoPhotonSeries": {},
    "SpatialSeries": {"unit": "meters"},
    "timestamps": {},
    "waveform_mean": UNITS_SAID,
    "quality": {},
}

# attribute: what the container says, what the target holds
DIFFERENT = {
    "unit": ("apples", "V"),
    "conversion": (99.0, 1.0),
    "offset": (-3.5, 0.0),
    "resolution": (math.nan, 0.25),
    "continuity": ("step", "continuous"),
}
CASES = [
    *(
        (kind, name, said, held)
        for kind in ("TimeSeries", "ImageSeries", "TwoPhotonSeries", "SpatialSeries")
        for name, (said, held) in DIFFERENT.items()
        if name != "continuity" or kind == "TimeSeries"
    ),
    *(
        ("ElectricalSeries", name, said, held)
        for name, (said, held) in DIFFERENT.items()
        if name not in ("unit", "continuity")
    ),
    ("ElectricalSeries", "unit", None, "uV"),
    ("timestamps", "unit", None, "minutes"),
    ("timestamps", "interval", None, 2),
    ("waveform_mean", "description", "said", "held"),
    ("waveform_mean", "sampling_rate", 20000.0, 30000.0),
    ("waveform_mean", "time_before_peak_in_ms", 0.75, 0.25),
    ("waveform_mean", "unit", None, "uV"),
    ("quality", "description", "said", "held"),
    # not there, and no default says what that means
    ("TimeSeries", "unit", "V", None),
    ("TimeSeries", "conversion", 2.0, None),
    ("quality", "description", "said", None),
]
"""Type, attribute, what is said (``None``: the schema's fixed value), what is held (``None``: nothing)."""

MATRIX = [(*case, policy) for case in CASES for policy in POLICIES if not (case[0] in UNLINKABLE and policy in LINKING)]

FIXED = {("ElectricalSeries", "unit"), ("timestamps", "unit"), ("timestamps", "interval"), ("waveform_mean", "unit")}


def target_file(folder, kind, **changes):
    """Write the target; an attribute of ``None`` is left out."""
    _, where, shape, dtype, attributes = TYPES[kind]
    name = where.rpartition("/")[2]
    with h5py.File(folder / "target.h5", "w") as file:
        dataset = file.create_dataset(name, data=np.arange(math.prod(shape)).reshape(shape).astype(dtype))
        dataset.attrs.update({name: value for name, value in {**attributes, **changes}.items() if value is not None})
    return folder / "target.h5", name


def linked_session(kind, target, policy, said):
    nwbfile = session()
    TYPES[kind][0](nwbfile, nwbflow.link(target, on_mismatch=policy), {**SAID[kind], **said})
    return nwbfile


def container_value(nwbfile, kind, name):
    """Return what the container in memory says now."""
    if kind in ("waveform_mean", "quality"):
        of_table = {"sampling_rate": "waveform_rate", "time_before_peak_in_ms": "waveform_time_before_peak_in_ms"}
        return getattr(nwbfile.units, of_table[name]) if name in of_table else nwbfile.units[kind].description
    return getattr(nwbfile.acquisition["s"], name)


@pytest.mark.requirement("X2")
@pytest.mark.parametrize(("kind", "name", "said", "held", "policy"), MATRIX, ids=str)
def test_every_attribute_under_every_policy(tmp_path, kind, name, said, held, policy):
    target = target_file(tmp_path, kind, **{name: held})
    nwbfile = linked_session(kind, target, policy, {} if said is None else {name: said})
    where, path = TYPES[kind][1], tmp_path / "out.nwb"
    meant = TYPES[kind][4][name] if said is None else said
    unadoptable = policy == "adopt" and ((kind, name) in FIXED or (held is None and name != "conversion"))
    if policy == "error" or unadoptable:
        with pytest.raises(nwbflow.LinkError) as refused:
            nwbflow.write(nwbfile, path)
        assert refused.value.kind is ErrorKind.MISMATCH
        lines = [line.split() for line in str(refused.value).splitlines()]
        shown = repr(held).split() if held is not None else ["(not", "there)"]
        assert [name, *repr(meant).split(), *shown] in lines
        assert f"/{where} -> {target[0]}:/{target[1]}" in str(refused.value)
        assert not path.exists()
        return
    with pytest.warns(nwbflow.LinkMismatchWarning, match=name) if policy == "warn" else contextlib.nullcontext():
        receipt = nwbflow.write(nwbfile, path)
    with h5py.File(path, "r") as file:
        group, last = where.rsplit("/", 1)
        link, dataset = file[group].get(last, getlink=True), file[where]
        stored = dataset.attrs.get(name)
        if policy == "copy":
            assert isinstance(link, h5py.HardLink)
            assert stored == meant or (math.isnan(meant) and math.isnan(stored))
            assert any(name in note and "copied" in note for note in receipt.notes)
        else:
            assert isinstance(link, h5py.ExternalLink)
            assert stored == held
        with h5py.File(target[0], "r") as source:
            assert np.array_equal(dataset[:], source[target[1]][:])
    if policy == "adopt":
        assert container_value(nwbfile, kind, name) == (1.0 if held is None else held)
    if policy == "warn":
        assert any(name in note for note in receipt.notes)


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in UNLINKABLE])
def test_where_nothing_differs_every_policy_links_in_silence(tmp_path, kind, policy):
    target = target_file(tmp_path, kind)
    nwbfile = linked_session(kind, target, policy, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        receipt = nwbflow.write(nwbfile, tmp_path / "out.nwb")
    assert not receipt.notes
    with pynwb.NWBHDF5IO(str(tmp_path / "out.nwb"), "r") as io:
        read = io.read()
        data = read.units[kind].data if "units" in TYPES[kind][1] else getattr(
            read.acquisition["s"], TYPES[kind][1].rsplit("/", 1)[1]
        )  # fmt: skip
        assert data.shape == TYPES[kind][2]


@pytest.mark.requirement("X2")
@pytest.mark.parametrize(
    ("said", "held"),
    [
        ({"resolution": math.nan}, {"resolution": math.nan}),
        ({"conversion": 2.34e-6}, {"conversion": np.float32(2.34e-6)}),
        ({"conversion": 2.0}, {"conversion": np.int64(2)}),
        ({"conversion": 2.0}, {"conversion": np.array([2.0])}),
        ({"unit": "µV"}, {"unit": "µV".encode()}),
        ({"unit": "V"}, {"unit": np.array(["V"], dtype=object)}),
        ({"conversion": 1.0, "offset": 0.0, "resolution": -1.0}, dict.fromkeys(["conversion", "offset", "resolution"])),
    ],
    ids=repr,
)
def test_values_are_compared_by_what_they_mean(tmp_path, said, held):
    target = target_file(tmp_path, "TimeSeries", **held)
    nwbflow.write(linked_session("TimeSeries", target, "error", said), tmp_path / "out.nwb")


STRUCTURE = {
    "dtype of timestamps": ("timestamps", (ROWS,), "i4", "dtype", "float64", "int32"),
    "dtype of a column": ("waveform_mean", (ROWS, 5), "i2", "dtype", "float32", "int16"),
    "columns of positions": ("SpatialSeries", (ROWS, 4), "f8", "shape", "(?, 3)", f"({ROWS}, 4)"),
    "channels": ("ElectricalSeries", (ROWS, 7), "i2", "channels, as electrodes", "4", "7"),
}


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", STRUCTURE)
@pytest.mark.filterwarnings("ignore::UserWarning")  # PyNWB's own, of data that don't fit
def test_elements_that_do_not_fit_are_refused_unless_only_a_warning_is_asked_for(tmp_path, name, policy):
    kind, shape, dtype, what, said, held = STRUCTURE[name]
    with h5py.File(tmp_path / "target.h5", "w") as file:
        file.create_dataset(kind, data=np.zeros(shape, dtype)).attrs.update(TYPES[kind][4])
    nwbfile = linked_session(kind, (tmp_path / "target.h5", kind), policy, {})
    if policy == "warn":
        unlinkable = pytest.raises(nwbflow.LinkError) if kind in UNLINKABLE else contextlib.nullcontext()
        with pytest.warns(nwbflow.LinkMismatchWarning, match=what), unlinkable:
            nwbflow.write(nwbfile, tmp_path / "out.nwb")
        return
    with pytest.raises(nwbflow.LinkError) as refused:
        nwbflow.write(nwbfile, tmp_path / "out.nwb")
    line = next(line for line in str(refused.value).splitlines() if line.strip().startswith(what))
    assert said in line
    assert held in line


@pytest.mark.requirement("X2")
def test_all_differences_of_all_links_are_in_one_error(tmp_path):
    target = target_file(tmp_path, "TimeSeries")
    nwbfile = session()
    for name, unit in (("a", "V"), ("b", "mV"), ("c", "apples")):
        series = TimeSeries(name=name, data=nwbflow.link(target), unit=unit, rate=1.0, conversion=3.0)
        nwbfile.add_acquisition(series)
    with pytest.raises(nwbflow.LinkError) as refused:
        nwbflow.write(nwbfile, tmp_path / "out.nwb")
    assert str(refused.value) == (
        f"{tmp_path}/out.nwb: a link has no attributes of its own, so readers would get the target's values, which "
        "differ from what the container says:\n"
        f"/acquisition/a/data -> {tmp_path}/target.h5:/data\n"
        "                the container  the target\n"
        "    conversion  3.0            1.0\n"
        f"/acquisition/b/data -> {tmp_path}/target.h5:/data\n"
        "                the container  the target\n"
        "    conversion  3.0            1.0\n"
        "    unit        'mV'           'V'\n"
        f"/acquisition/c/data -> {tmp_path}/target.h5:/data\n"
        "                the container  the target\n"
        "    conversion  3.0            1.0\n"
        "    unit        'apples'       'V'\n"
        "Mend one of the two, or choose: nwbflow.link(target, on_mismatch='adopt') to take the target's values, "
        "'copy' to copy the data and keep the container's values, 'warn' to link all the same; or "
        "nwbflow.concat([target]) to keep the container's values over the same data without a copy. (A type, shape or "
        "number of rows that doesn't fit can't be settled by the first two.)"
    )


@pytest.mark.requirement("X2")
def test_the_drop_in_links_as_pynwb_does_and_warns(tmp_path):
    target = target_file(tmp_path, "TimeSeries")
    with h5py.File(target[0], "r") as file:
        nwbfile = session()
        nwbfile.add_acquisition(TimeSeries(name="s", data=file[target[1]], unit="apples", rate=1.0))
        with nwbflow.NWBHDF5IO(tmp_path / "out.nwb", "w") as io:
            with pytest.warns(nwbflow.LinkMismatchWarning, match="unit is 'V' there, the container says 'apples'"):
                io.write(nwbfile)
            assert io.receipt.linked == {"/acquisition/s/data": f"{target[0]}:/data"}
            assert "apples" in io.receipt.notes[0]
    with h5py.File(tmp_path / "out.nwb", "r") as file:
        assert isinstance(file["acquisition/s"].get("data", getlink=True), h5py.ExternalLink)
        assert "nwbflow_links" not in file["acquisition/s"].attrs


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("policy", ["link", None])
def test_a_column_that_is_referred_to_can_not_be_a_link(tmp_path, policy):
    with h5py.File(tmp_path / "target.h5", "w") as file:
        column = {**COLUMN, "description": "times"}
        file.create_dataset("times", data=np.arange(5.0)).attrs.update(column)
    with h5py.File(tmp_path / "target.h5", "r") as file:
        column = VectorData(name="times", description="times", data=file["times"])
        index = VectorIndex(name="times_index", data=[2, 5], target=column)
        nwbfile = session()
        nwbfile.units = Units(name="units", description="units", columns=[column, index], id=[0, 1])
        with (
            nwbflow.NWBHDF5IO(tmp_path / "out.nwb", "w", external=policy) as io,
            pytest.raises(nwbflow.LinkError, match=r"/units/times is referred to by /units/times_index") as refused,
        ):
            io.write(nwbfile)
    assert refused.value.kind is ErrorKind.REFUSED
    assert "nwbflow.concat" in str(refused.value)


@pytest.mark.requirement("X2")
@pytest.mark.parametrize("policy", ["error", *LINKING])
@pytest.mark.parametrize(("kind", "last"), [("waveform_mean", "waveform_mean"), ("quality", "other")])
def test_columns_that_pynwb_could_not_read_back_are_not_linked(tmp_path, kind, last, policy):
    folder, name = target_file(tmp_path, kind)
    with h5py.File(folder, "r+") as file:
        if last != name:
            file.move(name, last)
    with pytest.raises(nwbflow.LinkError, match=f"/units/{kind} -> .*: PyNWB") as refused:
        nwbflow.write(linked_session(kind, (folder, last), policy, {}), tmp_path / "out.nwb")
    assert refused.value.kind is ErrorKind.REFUSED
    assert "nwbflow.concat" in str(refused.value)
    # stock PyNWB makes the link, and can't open the file again: when it can, this rule may go
    with h5py.File(folder, "r") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nwbfile = session()
        TYPES[kind][0](nwbfile, file[last], SAID[kind])
        with pynwb.NWBHDF5IO(str(tmp_path / "stock.nwb"), "w") as io:
            io.write(nwbfile)
    with pynwb.NWBHDF5IO(str(tmp_path / "stock.nwb"), "r") as io, pytest.raises((ConstructError, AttributeError)):
        io.read()


# --- targets that are no targets ---------------------------------------------------------


def make_fifo(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe", "x"


def truncated(folder):
    target_file(folder, "TimeSeries")
    os.truncate(folder / "target.h5", 600)
    return folder / "target.h5", "x"


def text_file(folder):
    (folder / "notes.txt").write_text("no data here")
    return folder / "notes.txt", "x"


def group_in(folder):
    with h5py.File(folder / "target.h5", "w") as file:
        file.create_group("x/y")
    return folder / "target.h5", "x"


def dead_end(folder):
    with h5py.File(folder / "target.h5", "w") as file:
        file["x"] = h5py.ExternalLink("gone.h5", "/y")
    return folder / "target.h5", "x"


def circle(folder):
    with h5py.File(folder / "target.h5", "w") as file:
        file["x"] = h5py.SoftLink("/y")
        file["y"] = h5py.SoftLink("/x")
    return folder / "target.h5", "x"


def empty_dataset(folder):
    with h5py.File(folder / "target.h5", "w") as file:
        file["x"] = h5py.Empty("f8")
    return folder / "target.h5", "x"


def closed(folder):
    with h5py.File(target_file(folder, "TimeSeries")[0], "r") as file:
        return file["data"]


BAD_TARGETS = {
    "missing file": (lambda folder: (folder / "gone.h5", "x"), ErrorKind.MISSING, "there is no such file"),
    "missing path": (lambda f: (target_file(f, "TimeSeries")[0], "y/z"), ErrorKind.MISSING, "does not exist"),
    "folder": (lambda folder: (folder, "x"), ErrorKind.FOLDER, "is a folder"),
    "pipe": (make_fifo, ErrorKind.REFUSED, "no regular file"),
    "/dev/zero": (lambda _: ("/dev/zero", "x"), ErrorKind.REFUSED, "no regular file"),
    "not HDF5": (text_file, ErrorKind.NOT_HDF5, "is not an HDF5 file"),
    "cut off": (truncated, ErrorKind.IO, "damaged or cut off"),
    "group": (group_in, ErrorKind.SHAPE, "is a group; a dataset is needed"),
    "broken link": (
        dead_end,
        ErrorKind.MISSING,
        "is a link to gone.h5:/y, which can't be read: gone.h5 does not exist",
    ),
    "links in a circle": (circle, ErrorKind.CYCLE, "is a link to /y, which can't be read"),
    "no elements": (empty_dataset, ErrorKind.SHAPE, "is an empty dataset"),
    "closed": (closed, ErrorKind.CLOSED, "is closed"),
    "a name with a NUL": (lambda _: ("a\0b.h5", "x"), ErrorKind.MISSING, "is no file name"),
    "a very long name": (lambda folder: (folder / ("x" * 5000), "x"), ErrorKind.IO, "name too long"),
    "a name that is no UTF-8": (lambda f: (os.fsdecode(os.fsencode(f / "a") + b"\xff"), "x"), ErrorKind.MISSING, "no"),
    "something else": (lambda _: 5, ErrorKind.OPTION, "a target is an open h5py dataset or a pair"),
}


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("make", [nwbflow.link, nwbflow.copy])
@pytest.mark.parametrize("name", BAD_TARGETS)
def test_what_can_not_be_a_target_is_refused_at_once(tmp_path, name, make):
    prepare, kind, text = BAD_TARGETS[name]
    with pytest.raises(nwbflow.NwbflowError, match=f"(?i){text}") as refused:
        make(prepare(tmp_path))
    assert refused.value.kind is kind


@pytest.mark.requirement("X1")
def test_a_policy_that_does_not_exist_is_refused_at_once(tmp_path):
    with pytest.raises(nwbflow.SettingsError, match="on_mismatch='ignore': give 'error', 'warn', 'copy', 'adopt'"):
        nwbflow.link(target_file(tmp_path, "TimeSeries"), on_mismatch="ignore")


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("how", ["gone", "resized", "closed"])
@pytest.mark.parametrize("make", [nwbflow.link, nwbflow.copy])
def test_a_target_that_changed_before_it_was_written_is_refused(tmp_path, make, how):
    target = target_file(tmp_path, "TimeSeries")
    old = tmp_path / "out.nwb"
    nwbflow.write(session(), old)
    before = old.read_bytes()
    with contextlib.ExitStack() as stack:
        if how == "closed":
            file = stack.enter_context(h5py.File(target[0], "r"))
            nwbfile = session(a=make(file["data"]))
            file.close()
        else:
            nwbfile = session(a=make(target))
            target[0].unlink()
        if how == "resized":
            with h5py.File(target[0], "w") as file:
                file.create_dataset("data", data=np.zeros((9, 4), "i2")).attrs.update(SERIES)
        kind = {"gone": ErrorKind.MISSING, "resized": ErrorKind.CHANGED, "closed": ErrorKind.CLOSED}[how]
        with pytest.raises(nwbflow.LinkError) as refused:
            nwbflow.write(nwbfile, old, overwrite=True)
    assert refused.value.kind is kind
    assert str(target[0]) in str(refused.value)
    assert old.read_bytes() == before


@pytest.mark.requirement("X1")
def test_settings_around_a_link_are_refused(tmp_path):
    data = nwbflow.DataIO(nwbflow.link(target_file(tmp_path, "TimeSeries")), codec="gzip")
    with pytest.raises(nwbflow.SettingsError, match=r"/acquisition/a/data: a link has no chunks or codec of its own"):
        nwbflow.write(session(a=data), tmp_path / "out.nwb")


@pytest.mark.requirement("X1")
@pytest.mark.parametrize("make", [nwbflow.link, nwbflow.copy])
def test_a_target_that_somebody_is_writing_is_refused(tmp_path, make):
    target = target_file(tmp_path, "TimeSeries")
    code = "import sys, h5py; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target[0])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(nwbflow.LinkError, match="is being written by another process") as refused:
            make(target)
        writer.stdin.close()
    assert refused.value.kind is ErrorKind.LOCKED
    make(target)
