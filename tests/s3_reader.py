"""Reads stores, and HDF5 files, from an S3 server with stock hdmf-zarr and PyNWB; nothing of nwbflow is imported.

Usage: ``s3_reader.py ENDPOINT``. For each address on standard input it prints one JSON line: the CRC-32 of each
acquisition's elements by name, or an error.
"""

import json
import logging
import sys
import zlib

import h5py
import hdmf_zarr
import numpy as np
import pynwb
import s3fs


def look_into_file(settings, url):
    store = s3fs.S3FileSystem(**settings, skip_instance_cache=True)
    with store.open(url, "rb") as remote, h5py.File(remote, "r") as file, pynwb.NWBHDF5IO(file=file, mode="r") as io:
        return {name: zlib.crc32(series.data[:].tobytes()) for name, series in io.read().acquisition.items()}


def look(endpoint, url):
    settings = {"endpoint_url": endpoint, "key": "key", "secret": "secret", "use_listings_cache": False}
    if url.endswith(".nwb"):
        return look_into_file(settings, url)
    with hdmf_zarr.NWBZarrIO(url, "r", storage_options={**settings, "skip_instance_cache": True}) as io:
        return {
            name: zlib.crc32(np.ascontiguousarray(series.data[:]).tobytes())
            for name, series in io.read().acquisition.items()
        }


logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # sessions that s3fs leaves open
for line in sys.stdin:
    try:
        found = look(sys.argv[1], line.strip())
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(found), flush=True)
