"""NWB files made to have their reader open what is none of its business, and what they are told.

Run as a program with a folder and a policy, it opens every file in there with nwbflow.open, asks for everything, and
prints what came of it as JSON.
"""

import json
import os
import shutil
import socket
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

ROWS = 4


def to_external(file, path="/d"):
    return lambda group, out: group.__setitem__("data", h5py.ExternalLink(file.format(out=out), path))


def to_virtual(file, path="/d"):
    def make(group, out):
        layout = h5py.VirtualLayout((ROWS,), "i8")
        layout[:] = h5py.VirtualSource(file.format(out=out), path, (ROWS,))
        group.create_virtual_dataset("data", layout)

    return make


def to_raw(file, offset=0):
    def make(group, out):
        group.create_dataset("data", shape=(ROWS,), dtype="<i8", external=[(file.format(out=out), offset, ROWS * 8)])

    return make


def growing(group, out):
    layout = h5py.VirtualLayout((ROWS,), "i8", maxshape=(None,))
    source = h5py.VirtualSource("../out/d.h5", "/growing", (ROWS,), maxshape=(None,))
    layout[0 : h5s.UNLIMITED] = source[0 : h5s.UNLIMITED]
    group.create_virtual_dataset("data", layout)


def numbered(group, out):
    space = h5s.create_simple((ROWS,), (h5s.UNLIMITED,))
    space.select_hyperslab((0,), (h5s.UNLIMITED,), stride=(ROWS,), block=(ROWS,))
    created = h5p.create(h5p.DATASET_CREATE)
    created.set_layout(h5d.VIRTUAL)
    created.set_virtual(space, f"{out}/d%b.h5".encode(), b"/d", h5s.create_simple((ROWS,)))
    h5d.create(group.id, b"data", h5t.STD_I64LE, h5s.create_simple((ROWS,), (h5s.UNLIMITED,)), created)


def no_utf8(group, out):
    group.id.links.create_external(b"data", b"../out/\xff.h5", b"/d\xff")


def itself(group, out):
    group["data"] = h5py.SoftLink(group.name + "/data")


def soft_circle(group, out):
    group["data"] = h5py.SoftLink(group.name + "/other")
    group["other"] = h5py.SoftLink("data")


def hard_circle(group, out):
    group["more"] = group


def root_in_itself(group, out):
    group["more"] = group["/"]


def deep(group, out):
    at = group
    for _ in range(10_000):
        at = at.create_group("more")


BESIDE = (hard_circle, root_in_itself, deep)
"""What is made beside the data, not in their place."""


HOSTILE = {  # name: (what is at /acquisition/h/data, kind of error, part of its text)
    "link, absolute": (to_external("{out}/d.h5"), "refused", "outside of"),
    "link, upwards": (to_external("../out/d.h5"), "refused", "outside of"),
    "link, upwards from below": (to_external("sub/../../out/d.h5"), "refused", "outside of"),
    "link, symbolic link": (to_external("to_d.h5"), "refused", "outside of"),
    "link, symbolic folder": (to_external("to_out/d.h5"), "refused", "outside of"),
    "link, http": (to_external("http://127.0.0.1:9/d.h5"), "refused", "is a URL"),
    "link, s3": (to_external("s3://bucket/d.h5"), "refused", "is a URL"),
    "link, file url": (to_external("file://{out}/d.h5"), "refused", "is a URL"),
    "link, device": (to_external("/dev/zero"), "refused", "outside of"),
    "link, symbolic device": (to_external("to_zero"), "refused", "outside of"),
    "link, pipe": (to_external("pipe"), "refused", "is a pipe"),
    "link, socket": (to_external("socket"), "refused", "is a socket"),
    "link, folder": (to_external("sub"), "refused", "is a folder"),
    "link, no HDF5": (to_external("text"), "not-hdf5", "not an HDF5 file"),
    "link, Windows": (to_external("C:\\out\\d.h5"), "missing", "Windows"),
    "link, UNC": (to_external("\\\\out\\d.h5"), "missing", "Windows"),
    "link, long": (to_external("x" * 5000), "missing", "can't be looked at"),
    "link, NUL": (to_external("inside.h5?../out", "/d"), "missing", "no ../out in .*inside.h5"),
    "link, no UTF-8": (no_utf8, "refused", "outside of"),
    "link, through a friend": (to_external("friend.h5", "/out"), "refused", "on the way.*outside of"),
    "link, to a friend's raw": (to_external("friend.h5", "/raw"), "refused", "outside of"),
    "link, to a friend's virtual": (to_external("friend.h5", "/virtual"), "refused", "outside of"),
    "virtual, absolute": (to_virtual("{out}/d.h5"), "refused", "outside of"),
    "virtual, upwards": (to_virtual("../out/d.h5"), "refused", "outside of"),
    "virtual, symbolic link": (to_virtual("to_d.h5"), "refused", "outside of"),
    "virtual, symbolic folder": (to_virtual("to_out/d.h5"), "refused", "outside of"),
    "virtual, url": (to_virtual("http://127.0.0.1:9/d.h5"), "refused", "is a URL"),
    "virtual, device": (to_virtual("/dev/zero"), "refused", "outside of"),
    "virtual, pipe": (to_virtual("pipe"), "refused", "is a pipe"),
    "virtual, through a friend": (to_virtual("friend.h5", "/out"), "refused", "on the way.*outside of"),
    "virtual, through a link": (to_virtual("friend.h5", "/inside"), "refused", "on the way is an external link"),
    "virtual, of another type": (to_virtual("friend.h5", "/text"), "dtype", "would change them"),
    "virtual, of a friend's raw": (to_virtual("friend.h5", "/raw"), "refused", "itself stored in .*outside of"),
    "virtual, of a friend's virtual": (to_virtual("friend.h5", "/virtual"), "refused", "itself stored in .*outside of"),
    "virtual, growing": (growing, "refused", "outside of"),
    "virtual, numbered": (numbered, "refused", "can't be checked"),
    "virtual, of itself": (to_virtual(".", "/acquisition/h/data"), "cycle", "lead back to it"),
    "raw, absolute": (to_raw("{out}/secret"), "refused", "outside of"),
    "raw, upwards": (to_raw("../out/secret"), "refused", "outside of"),
    "raw, symbolic link": (to_raw("to_secret"), "refused", "outside of"),
    "raw, symbolic folder": (to_raw("to_out/secret"), "refused", "outside of"),
    "raw, device": (to_raw("/dev/zero"), "refused", "outside of"),
    "raw, pipe": (to_raw("pipe"), "refused", "is a pipe"),
    "raw, url": (to_raw("file://{out}/secret"), "refused", "is a URL"),
    "raw, short": (to_raw("text"), "length", "HDF5 would give zeros"),
    "circle, itself": (itself, "cycle", "they lead in a circle"),
    "circle, soft": (soft_circle, "cycle", "they lead in a circle"),
    "circle, hard": (hard_circle, "cycle", "leads back to"),
    "circle, root": (root_in_itself, "cycle", "leads back to /"),
    "circle, two files": (to_external("friend.h5", "/back"), "cycle", "they lead in a circle"),
    "ten thousand groups": (deep, "cycle", "more than 200 groups deep"),
}

SENT = {  # with the environment variables set to the folder outside
    "sent, link": (to_external("inside.h5"), None, ""),
    "sent, virtual": (to_virtual("inside.h5"), "refused", "HDF5_VDS_PREFIX would send HDF5 to"),
    "sent, raw": (to_raw("inside.raw"), "refused", "HDF5_EXTFILE_PREFIX would send HDF5 to"),
}


def stock(home, out):
    """Make what the hostile files point to, in the folder and outside of it."""
    (home / "sub").mkdir(parents=True)
    out.mkdir()
    for folder, name in ((out, "d.h5"), (out, "d0.h5"), (out, "inside.h5"), (home, "inside.h5")):
        with h5py.File(folder / name, "w") as file:
            file["d"] = np.full(ROWS, 13 if folder == out else 7)
            file.create_dataset("growing", data=np.full(ROWS, 13), maxshape=(None,), chunks=(2,))
    shutil.copy(out / "d.h5", out / os.fsdecode(b"\xff.h5"))
    for folder, name in ((out, "secret"), (out, "inside.raw"), (home, "inside.raw")):
        (folder / name).write_bytes(np.full(ROWS, 13 if folder == out else 7).tobytes())
    (home / "text").write_text("text")
    for name, target in (("d.h5", "d.h5"), ("secret", "secret"), ("out", "")):
        (home / f"to_{name}").symlink_to(out / target)
    (home / "to_zero").symlink_to("/dev/zero")
    os.mkfifo(home / "pipe")
    before = Path.cwd()
    os.chdir(home)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.chdir(before)
    with h5py.File(home / "friend.h5", "w") as file:
        file["out"] = h5py.ExternalLink("../out/d.h5", "/d")
        file["inside"] = h5py.ExternalLink("inside.h5", "/d")
        file["text"] = np.array([b"a"] * ROWS)
        for name, make in (("raw", to_raw("../out/secret")), ("virtual", to_virtual("../out/d.h5"))):
            make(file.create_group("made"), out)
            file.move("made/data", name)
            del file["made"]
        file["back"] = h5py.ExternalLink("circle, two files.nwb", "/acquisition/h/data")


def make_files(home, out, base, table):
    """Make a hostile file for each entry of a table from an NWB file that has a series ``h``."""
    for name, (make, _, _) in table.items():
        path = home / f"{name}.nwb"
        shutil.copy(base, path)
        with h5py.File(path, "r+") as file:
            group = file["acquisition/h"]
            if make not in BESIDE:
                del group["data"]
            make(group, out)
        if name.endswith("NUL"):  # which h5py refuses to write
            path.write_bytes(path.read_bytes().replace(b"inside.h5?", b"inside.h5\0"))


def asked(path, links):
    """Open a file, ask for all there is, and return what came of it."""
    import nwbflow

    with warnings.catch_warnings(), nwbflow.open(path, links=links) as nwbfile:
        fine = np.asarray(nwbfile.acquisition["fine"].data).tolist()
        broken = [(p.name, str(p.error), str(p)) for p in nwbfile.read_io.broken_links]
        data = nwbfile.acquisition["h"].data
        text = repr(nwbfile) + repr(nwbfile.acquisition["h"]) + nwbfile._repr_html_()
        shape = list(getattr(data, "shape", ())) if isinstance(data, h5py.Dataset) else None
        try:
            read = np.asarray(data[:]).tolist()
        except nwbflow.LinkError as error:
            read = [str(error.kind), str(error)]
        return {"fine": fine, "broken": broken, "read": read, "shape": shape, "text": len(text)}


def main(folder, links):
    warnings.simplefilter("ignore")
    found = {}
    for path in sorted(Path(folder).glob("*.nwb")):
        try:
            found[path.stem] = asked(path, links)
        except Exception as error:
            raise RuntimeError(f"{path}: {error}") from error
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
