"""An S3 server on loopback, in a process of its own: moto's, with one bucket, ``lab``.

As a script it prints its port and serves until its standard input ends.
"""

import contextlib
import os
import subprocess
import sys
from datetime import timedelta

BUCKET = "lab"
KEYS = {"access_key_id": "key", "secret_access_key": "secret"}
SOON = timedelta(milliseconds=20)
QUICK = {"max_retries": 4, "backoff": {"base": 2.0, "init_backoff": SOON, "max_backoff": 4 * SOON}}


def options(endpoint, **more):
    """Return storage_options for nwbflow.write."""
    return {"endpoint": endpoint, "region": "us-east-1", **KEYS, "retry_config": QUICK, **more}


def store_content(endpoint, name):
    """Return what stock zarr-python reads of the series ``a`` of a store."""
    import zarr
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    given = {name: value for name, value in options(endpoint).items() if name != "retry_config"}
    store = S3Store(BUCKET, prefix=name, client_options={"allow_http": True}, **given)
    return zarr.open_group(ObjectStore(store, read_only=True), mode="r")["acquisition/a/data"][:]


@contextlib.contextmanager
def s3_server():
    """Run a server; give its address."""
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"S3_UPLOAD_PART_MIN_SIZE": "1"},
    ) as server:
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()


def main():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    import http.client

    connection = http.client.HTTPConnection(host, port)
    connection.request("PUT", f"/{BUCKET}")
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(answer.read().decode())
    print(port, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
