"""HDF5 files of many kinds, as PyNWB and h5py write them."""

import warnings
from datetime import UTC, datetime, timedelta

import h5py
import numpy as np
import pynwb
from hdmf.backends.hdf5 import H5DataIO
from hdmf.build import BuildManager
from hdmf.common import DynamicTable, VectorData
from hdmf.spec import NamespaceBuilder
from nwb import sessions
from pynwb.base import Images
from pynwb.file import Subject
from pynwb.image import GrayscaleImage, ImageSeries, RGBImage
from pynwb.spec import NWBDatasetSpec, NWBGroupSpec
from pynwb.testing.mock import behavior, ecephys, icephys, ogen, ophys
from pynwb.testing.mock.file import mock_NWBFile

BIG = sessions.NOISE


def ecephys_file():
    nwbfile = mock_NWBFile()
    group = ecephys.mock_ElectrodeGroup(nwbfile=nwbfile)
    for index in range(10):
        nwbfile.add_electrode(group=group, location="CA1", x=float(index))
    electrodes = nwbfile.create_electrode_table_region(list(range(0, 10, 2)), "every other")
    nwbfile.add_acquisition(ecephys.mock_ElectricalSeries(data=BIG[:, :5], electrodes=electrodes))
    spikes = {"data": BIG[:40].reshape(40, 2, 5).astype("f4"), "timestamps": np.arange(40) / 7.0}
    pair = nwbfile.create_electrode_table_region([1, 3], "a pair")
    nwbfile.add_acquisition(
        ecephys.mock_SpikeEventSeries(electrodes=pair, **spikes | {"data": spikes["data"][:, :, 0]})
    )
    return nwbfile


def ophys_file():
    nwbfile = mock_NWBFile()
    ophys.mock_OnePhotonSeries(nwbfile=nwbfile, data=np.arange(60_000, dtype="u2").reshape(60, 40, 25))
    ophys.mock_TwoPhotonSeries(nwbfile=nwbfile)
    ophys.mock_RoiResponseSeries(nwbfile=nwbfile)
    ophys.mock_DfOverF(nwbfile=nwbfile)
    return nwbfile


def icephys_file():
    nwbfile = mock_NWBFile()
    electrode = icephys.mock_IntracellularElectrode(nwbfile=nwbfile)
    for sweep in range(3):
        stimulus = icephys.mock_VoltageClampStimulusSeries(
            name=f"stimulus {sweep}", electrode=electrode, nwbfile=nwbfile
        )
        response = icephys.mock_VoltageClampSeries(
            name=f"response {sweep}", electrode=electrode, data=BIG[:, 0] * 1e-3, nwbfile=nwbfile
        )
        row = nwbfile.add_intracellular_recording(electrode=electrode, stimulus=stimulus, response=response)
        simultaneous = nwbfile.add_icephys_simultaneous_recording(recordings=[row])
    nwbfile.add_icephys_sequential_recording(simultaneous_recordings=[simultaneous], stimulus_type="square")
    return nwbfile


def behaviour_file():
    nwbfile = mock_NWBFile()
    for make in (behavior.mock_SpatialSeries, behavior.mock_TimeSeries):
        nwbfile.add_acquisition(make(data=np.random.default_rng(0).random((5000, 2))))
    nwbfile.add_acquisition(behavior.mock_Position())
    nwbfile.add_acquisition(behavior.mock_PupilTracking())
    ogen.mock_OptogeneticSeries(nwbfile=nwbfile)
    return nwbfile


def images_file():
    nwbfile = sessions.fresh()
    rng = np.random.default_rng(0)
    grey = GrayscaleImage(name="grey", data=rng.integers(0, 255, (120, 90), dtype="u1"), resolution=70.0)
    colour = RGBImage(name="colour", data=rng.integers(0, 255, (200, 150, 3), dtype="u1"))
    nwbfile.add_acquisition(Images(name="pictures", images=[grey, colour], description="two"))
    nwbfile.add_stimulus(
        ImageSeries(
            name="film",
            external_file=["a.avi", "b.avi"],
            starting_frame=[0, 9],
            format="external",
            timestamps=np.arange(20.0),
            unit="n.a.",
        )
    )
    return nwbfile


def long_table():
    nwbfile = sessions.fresh()
    count = 30_000
    columns = [
        VectorData(name="number", description="d", data=np.arange(count) * 0.5),
        VectorData(name="text", description="d", data=[f"row {i}" for i in range(count)]),
        VectorData(name="flag", description="d", data=np.arange(count) % 3 == 0),
    ]
    nwbfile.add_scratch(DynamicTable(name="long", description="d", columns=columns))
    nwbfile.add_scratch(np.arange(12).reshape(3, 4), name="grid", description="d")
    return nwbfile


def aged():
    """Everything that stands in a file's head."""
    start = datetime(2020, 1, 1, 12, 30, tzinfo=UTC)
    nwbfile = pynwb.NWBFile(
        "Sitzung №1",
        "id ü",
        start,
        experimenter=["Müller, A.", "Ōe, B."],
        keywords=["one", "two"],
        notes="",
        related_publications=("doi:1", "doi:2"),
        timestamps_reference_time=start - timedelta(days=1),
    )
    nwbfile.subject = Subject(subject_id="s", age="P90D", date_of_birth=start - timedelta(days=90), sex="U")
    return nwbfile


def write(make, **options):
    def to(path):
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(make(), **options)

    return to


def plain(path):
    """Every codec that HDF5 has without plugins."""
    nwbfile = sessions.fresh()
    settings = {
        "gzip": {"compression": "gzip", "compression_opts": 6},
        "shuffled": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "lzf": {"compression": "lzf"},
        "szip": {"compression": "szip"},
        "chunks": {"chunks": (1000, 5)},
        "shuffle": {"shuffle": True},
        "filled": {"compression": "gzip", "fillvalue": 7},
        "growing": {"maxshape": (None, 10)},
    }
    for name, given in settings.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # HDMF's, of codecs that not every HDF5 has
            data = H5DataIO(BIG, **given)
        nwbfile.add_acquisition(pynwb.TimeSeries(name=name, data=data, unit="V", rate=1.0))
    for dtype in ("i1", "u1", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?"):
        data = BIG.astype(dtype)
        nwbfile.add_acquisition(pynwb.TimeSeries(name=f"as {np.dtype(dtype)}", data=data, unit="V", rate=1.0))
    write(lambda: nwbfile, cache_spec=False)(path)


def extension(path, folder):
    """A file with an extension, and its schema in it."""
    builder = NamespaceBuilder("for tests", "ndx-repack", version="0.1.0", author="A", contact="a@b.c")
    builder.include_type("TimeSeries", namespace="core")
    spec = NWBGroupSpec(
        "a series",
        neurodata_type_def="RepackSeries",
        neurodata_type_inc="TimeSeries",
        datasets=[NWBDatasetSpec("more", name="extra", dtype="float32", shape=(None,))],
    )
    builder.add_spec("repack.extensions.yaml", spec)
    builder.export("repack.namespace.yaml", outdir=str(folder))
    types = pynwb.get_type_map()  # a copy: other tests in this process don't know the extension
    types.load_namespaces(str(folder / "repack.namespace.yaml"))
    cls = types.get_dt_container_cls("RepackSeries", "ndx-repack")
    nwbfile = sessions.fresh()
    nwbfile.add_acquisition(cls(name="x", data=BIG, unit="V", rate=1.0, extra=np.arange(5, dtype="f4")))
    with pynwb.NWBHDF5IO(path, "w", manager=BuildManager(types)) as io:
        io.write(nwbfile)


def oddities(path):
    """What PyNWB doesn't know, but a store can hold."""
    write(sessions.linked_series, cache_spec=False)(path)
    with h5py.File(path, "r+") as file:
        file.attrs["laboratory"] = "B"
        file.attrs["numbers"] = np.arange(3, dtype="i4")
        file.attrs["square"] = np.eye(2)
        file.attrs["words"] = ["a", "ü"]
        file.attrs["single"] = np.float32(0.1)
        file.attrs["not a number"] = np.nan
        file.attrs["large"] = np.uint64(2**64 - 1)
        file.attrs["true"] = True
        file.attrs["leads to"] = file["acquisition/x"].ref
        group = file.create_group("laboratory of B")
        group.attrs["purpose"] = "calibration"
        group.create_group("empty")
        group["scalar"] = 3.5
        group["text"] = "ein Wort: ü"
        group["fixed"] = np.array([b"abc", b"de"])
        group["grid of text"] = np.array([["a", "b"], ["c", "d"]], dtype=h5py.string_dtype())
        group["no rows"] = np.empty((0, 4), "f4")
        group["flags"] = np.array([True, False])
        group["big endian"] = np.arange(50_000, dtype=">i4")
        group["half"] = np.arange(5, dtype="f2")
        group["cube"] = np.arange(24).reshape(2, 3, 4)
        group["pairs"] = np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
        group["references"] = np.array([file["acquisition/x"].ref, group.ref], dtype=h5py.ref_dtype)
        group["second name"] = file["acquisition/x/data"]
        group["soft"] = h5py.SoftLink("/acquisition/x/data")
        group["relative"] = h5py.SoftLink("empty")
        group["to a group"] = h5py.SoftLink("/acquisition/x")


def impossible(path):
    """What a store can't hold."""
    write(sessions.linked_series, cache_spec=False)(path)
    with h5py.File(path, "r+") as file:
        group = file.create_group("impossible")
        group["nothing"] = h5py.Empty("f8")
        group["complex"] = np.array([1 + 2j])
        ragged = group.create_dataset("ragged", (2,), dtype=h5py.vlen_dtype("i4"))
        ragged[0], ragged[1] = [1, 2], [3]
        group.create_dataset("regions", data=file["acquisition/x/data"].regionref[:5], dtype=h5py.regionref_dtype)
        group["opaque"] = np.array([b"12"], dtype="V2")
        group["type"] = np.dtype("i4")
        group["broken"] = h5py.SoftLink("/not/there")
        group["days"] = np.array([1, 2]).astype(h5py.opaque_dtype(np.dtype("M8[s]")))
        group.create_dataset("levels", data=np.array([1, 2], "i4"), dtype=h5py.enum_dtype({"LOW": 1, "HIGH": 2}, "i4"))
        group.attrs["empty"] = h5py.Empty("f8")
        group.attrs["bytes"] = np.void(b"\x00\x01")


SESSIONS = {
    "electrodes": sessions.electrodes,
    "units": sessions.units,
    "trials": sessions.trials,
    "intervals": sessions.intervals,
    "linked series": sessions.linked_series,
    "position": sessions.position,
    "masks": sessions.masks,
    "ecephys": ecephys_file,
    "ophys": ophys_file,
    "icephys": icephys_file,
    "behaviour": behaviour_file,
    "images": images_file,
    "long table": long_table,
    "head": aged,
}
"""Names, and what makes the session."""

SCHEMA_IN = ("electrodes", "head")
"""Files that have NWB's schema in them; it takes longer than all the rest."""

FILES = {name: write(make, cache_spec=name in SCHEMA_IN) for name, make in SESSIONS.items()} | {"codecs": plain}
"""Names, and what writes the file: all of it what PyNWB reads."""
