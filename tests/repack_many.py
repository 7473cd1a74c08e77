"""Repack every NWB file in folders to Zarr and back, and compare with stock h5py: ``python repack_many.py FOLDER...``.

Meant for what a run of the tests left (``pytest --basetemp FOLDER``): damaged files, files with links, odd ones. Prints
a line for each that differs otherwise than was said, or fails otherwise than by an error of nwbflow's; then numbers.
"""

import collections
import os
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import h5py
from linked_content import everything

import nwbflow

warnings.simplefilter("ignore")


def files(folders):
    """Give HDF5 files, without those that are hard links or copies of one met before."""
    seen = set()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            try:
                if not path.is_file() or path.is_symlink() or path.stat().st_size > 50_000_000:
                    continue
                known = (path.stat().st_size, zlib.crc32(path.read_bytes()))
                if known not in seen and h5py.is_hdf5(path):
                    seen.add(known)
                    yield path
            except OSError:
                continue


def one(path, folder):
    """Return what became of a file: ``equal``, ``refused: ...``, or what is wrong."""
    try:
        told = [
            nwbflow.repack(path, folder / "there.nwb.zarr", links="embed", progress=False, overwrite=True),
            nwbflow.repack(folder / "there.nwb.zarr", folder / "back.nwb", progress=False, overwrite=True),
        ]
        again = nwbflow.repack(path, folder / "again.nwb", links="embed", progress=False, overwrite=True)
    except nwbflow.NwbflowError as error:
        return f"refused: {type(error).__name__} {error.kind}"
    except Exception as error:
        return f"WRONG {type(error).__name__}: {error}"
    said = {entry.place.partition("@")[0] for part in told for entry in (*part.lost, *part.changed)}
    before, after, same = (everything(file) for file in (path, folder / "back.nwb", folder / "again.nwb"))
    differing = [at for at in before.keys() | after.keys() if before.get(at) != after.get(at)]
    unsaid = [at for at in differing if not any(at == place or at.startswith(f"{place}/") for place in said)]
    unsaid += [at for at in before if before[at] != same.get(at) and before[at] != ["nothing"] and not again.lost]
    return f"WRONG, differs unsaid: {sorted(unsaid)[:5]}" if unsaid else "equal"


def main(folders):
    os.environ["HDF5_EXTFILE_PREFIX"] = "${ORIGIN}"
    found = collections.Counter()
    try:
        look(folders, found)
    except KeyboardInterrupt:
        print("interrupted")
    for result, count in found.most_common():
        print(f"{count:6d}  {result}")


def look(folders, found):
    for path in files(folders):
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = one(path, Path(folder))
            except Exception as error:  # h5py's, of a source that nobody reads
                result = f"not compared: {type(error).__name__}"
        found[result.partition(":")[0] if result.startswith("WRONG") else result] += 1
        if result.startswith("WRONG"):
            print(path, result, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
