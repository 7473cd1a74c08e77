"""A client that writes a computed array of so many rows, and prints its peak memory in bytes.

Usage: client_memory.py SCHEDULER_FILE ROWS PATH
"""

import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from dask_cluster import lazy
from distributed import Client
from support import session

import nwbflow

if __name__ == "__main__":
    file, rows, path = sys.argv[1:]
    with Client(scheduler_file=file, timeout=60) as client:
        data = nwbflow.DataIO(lazy(int(rows), 512, 8192), chunks=(8192, 512), codec="none")
        executor = nwbflow.parallel.dask(client)
        nwbflow.write(session(x=data), path, progress=False, executor=executor, verify="no")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
