"""Compares files and stores with what they were made from, with stock h5py, PyNWB and hdmf-zarr.

Reads JSON objects, one a line: ``source`` and ``back`` are HDF5 files, ``store`` is a Zarr store or missing. Answers
each with the paths at which the files differ, and with what differs for PyNWB and hdmf-zarr (empty if nothing does).
"""

import json
import sys
import warnings

import hdmf_zarr
import pynwb
from hdmf.testing import TestCase
from linked_content import everything

warnings.simplefilter("ignore")
CASE = TestCase()


def differing(source, back):
    before, after = everything(source), everything(back)
    return [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]


def containers(source, store):
    try:
        with pynwb.NWBHDF5IO(source, "r") as one, hdmf_zarr.NWBZarrIO(store, "r") as other:
            before, after = one.read(), other.read()
            CASE.assertContainerEqual(before, after, ignore_hdmf_attrs=True)
            assert before.objects.keys() == after.objects.keys(), "object ids differ"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    assert "nwbflow" not in sys.modules
    for line in sys.stdin:
        asked = json.loads(line)
        found = {"differing": differing(asked["source"], asked["back"])}
        if "store" in asked:
            found["containers"] = containers(asked["source"], asked["store"])
        print(json.dumps(found), flush=True)
