"""Everything that stock h5py reads in files, through their links.

Reads names of files, one a line, as JSON; answers each with a JSON object, by path, or a text if that can't be done.
"""

import hashlib
import json
import sys

import h5py
import numpy as np

RECORD = "nwbflow_links"


def said(value, file):
    """Return a value such that equal ones are equal text: references by what they lead to."""
    if isinstance(value, h5py.RegionReference):
        return f"region of {file[value].name}: {np.asarray(file[value][value]).tolist()}" if value else "null"
    if isinstance(value, h5py.Reference):
        return f"reference to {file[value].name}" if value else "null"
    if isinstance(value, h5py.Empty):
        return f"empty {value.dtype}"
    if isinstance(value, np.void) and value.dtype.names:
        return str([said(value[name], file) for name in value.dtype.names])
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return str([said(item, file) for item in value.reshape(-1)])
    return repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)


def attributes(item):
    return {name: said(item.attrs[name], item.file) for name in sorted(item.attrs) if name != RECORD}


def look(item):
    if not isinstance(item, h5py.Dataset):
        return [type(item).__name__, attributes(item)]
    values = item[()]
    text = (
        values.tobytes() if isinstance(values, np.ndarray) and not values.dtype.hasobject else said(values, item.file)
    )
    digest = hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()
    return ["Dataset", attributes(item), str(item.shape), str(item.dtype), digest]


def everything(path):
    found = {}
    with h5py.File(path, "r") as file:
        waiting = [("", file["/"], ())]
        while waiting:
            prefix, group, above = waiting.pop()
            here = (group.file.filename, h5py.h5o.get_info(group.id).addr)
            found[prefix or "/"] = look(group)
            for name in group:
                item = group.get(name)
                at = f"{prefix}/{name}"
                if item is None:
                    found[at] = ["nothing"]
                elif isinstance(item, h5py.Group) and here not in above:
                    waiting.append((at, item, (*above, here)))
                elif not isinstance(item, h5py.Group):
                    found[at] = look(item)
    return found


def answer(path):
    try:
        return everything(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    assert "nwbflow" not in sys.modules
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
