"""Read NWB files with stock h5py, PyNWB, its validator and nwbinspector, in a process without nwbflow.

Arguments: files. Prints one JSON object: by file, what was found.
"""

import hashlib
import json
import sys
import warnings

import h5py
import nwbinspector
import pynwb

warnings.simplefilter("error")


def look(path):
    """Return what stock tools say about the one acquisition of a file."""
    with h5py.File(path, "r") as file:
        (series,) = file["acquisition"].values()
        data = series["data"]
        found = {
            "sha256": hashlib.sha256(data[...].tobytes()).hexdigest(),
            "shape": data.shape,
            "dtype": data.dtype.str,
            "stored": data.id.get_storage_size(),
            "chunks": data.chunks,
        }
    with pynwb.NWBHDF5IO(path, "r") as io:
        nwbfile = io.read()
        (held,) = nwbfile.acquisition.values()
        found |= {
            "through_pynwb": hashlib.sha256(held.data[...].tobytes()).hexdigest(),
            "type": type(held).__name__,
            "name": held.name,
            "rate": held.rate,
            "unit": held.unit,
            "conversion": held.conversion,
            "offset": held.offset,
            "start": nwbfile.session_start_time.isoformat(),
            "electrodes": 0 if nwbfile.electrodes is None else len(nwbfile.electrodes),
        }
    found["invalid"] = [str(error) for error in pynwb.validate(path=path)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nwbinspector's own
        messages = list(nwbinspector.inspect_nwbfile(nwbfile_path=path))
    found["complaints"] = sorted(
        (m.importance.name, m.check_function_name, m.object_type, m.location or "", m.message) for m in messages
    )
    return found


assert "nwbflow" not in sys.modules
print(json.dumps({path: look(path) for path in sys.argv[1:]}))
