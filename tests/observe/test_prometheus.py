"""Metrics, fetched over HTTP and read by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import importlib
import socket
import subprocess
import sys
import urllib.request

import httpx
import numpy as np
import pytest
import runs
from prometheus_client.parser import text_string_to_metric_families
from pynwb import TimeSeries
from support import session

import nwbflow
from nwbflow.errors import ErrorKind, SettingsError
from nwbflow.model.events import RunFailed, RunStarted, Warned
from nwbflow.observe import Prometheus
from nwbflow.observe.prometheus import KEPT

pytestmark = pytest.mark.requirement("M3")

Metrics = dict[tuple[str, tuple[str, ...]], float]


def parsed(text: str) -> Metrics:
    """Return the values, by name and the labels' values besides the file."""
    return {
        (sample.name, tuple(value for name, value in sample.labels.items() if name != "file")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(metrics: Prometheus) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
        return answer.read().decode()


def of_datasets(receipt: nwbflow.Receipt) -> Metrics:
    expected: Metrics = {}
    for dataset in receipt.datasets:
        expected["nwbflow_dataset_chunks_total", (dataset.name,)] = dataset.chunks
        expected["nwbflow_dataset_raw_bytes_total", (dataset.name,)] = dataset.raw_bytes
        expected["nwbflow_dataset_stored_bytes_total", (dataset.name,)] = dataset.stored_bytes
        expected["nwbflow_dataset_encode_seconds_total", (dataset.name,)] = dataset.encode_seconds
        expected["nwbflow_dataset_verified", (dataset.name,)] = 1.0
    return expected


def test_what_is_scraped_of_a_recording_is_what_its_receipt_says(tmp_path):
    nwbfile = session()
    for name, clock in (("probe", {"rate": 1000.0}), ("lick", {"timestamps": nwbflow.live()})):
        data = nwbflow.live((None, 4), "int16", chunks=(100, 4))
        nwbfile.add_acquisition(TimeSeries(name=name, data=data, unit="V", **clock))
    rows = (np.arange(4000) % 251).astype("i2").reshape(-1, 4)
    with Prometheus(0) as metrics:
        with nwbflow.Recorder(nwbfile, tmp_path / "a.nwb", progress=metrics) as recorder:
            recorder["probe"].append(rows)
            recorder["lick"].append(rows[:30], timestamps=np.arange(30.0)).wait()
        text = scraped(metrics)
    found = parsed(text)
    expected = of_datasets(recorder.receipt)
    for name, count, nbytes in (("/acquisition/probe", 1000, 8), ("/acquisition/lick", 30, 16)):
        for what in ("appended", "acknowledged", "stored"):
            expected[f"nwbflow_stream_{what}_rows_total", (name,)] = count
        expected["nwbflow_stream_appended_bytes_total", (name,)] = count * nbytes
        for what in ("dropped_rows_total", "queue_bytes", "lag_seconds"):
            expected[f"nwbflow_stream_{what}", (name,)] = 0
    expected["nwbflow_stream_declared_rate_hertz", ("/acquisition/probe",)] = 1000.0
    expected["nwbflow_compression_ratio", ()] = recorder.receipt.ratio
    expected["nwbflow_journal_bytes", ()] = 0
    expected["nwbflow_warnings_total", ()] = 0
    expected |= {("nwbflow_run_state", (s,)): float(s == "finished") for s in ("running", "closing", "failed")}
    expected["nwbflow_run_state", ("finished",)] = 1.0
    assert {key: found.get(key) for key in expected} == expected
    assert found["nwbflow_disk_free_bytes", ()] > 0
    assert found["nwbflow_stream_queue_limit_bytes", ("/acquisition/lick",)] == 64 * 2**20
    assert ("nwbflow_stream_declared_rate_hertz", ("/acquisition/lick",)) not in found
    assert f'file="{tmp_path / "a.nwb"}"' in text


def test_a_write_is_told_of_in_the_same_way(tmp_path):
    nwbfile = session()
    data = nwbflow.DataIO((np.arange(60_000) % 251).astype("i2").reshape(-1, 4), chunks=(1000, 4))
    nwbfile.add_acquisition(TimeSeries(name="probe", data=data, unit="V", rate=1.0))
    with Prometheus(0) as metrics:
        receipt = nwbflow.write(nwbfile, tmp_path / "a.nwb", progress=metrics)
        found = parsed(scraped(metrics))
    expected = of_datasets(receipt) | {("nwbflow_compression_ratio", ()): receipt.ratio}
    assert {key: found.get(key) for key in expected} == expected
    assert not any(name.startswith("nwbflow_stream") for name, _ in found)


def test_names_are_good_to_prometheus_and_each_metric_comes_once(tmp_path):
    metrics = Prometheus()
    for event in runs.run():
        metrics(event)
    families = list(metrics.registry.collect())
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation.endswith(".")
        assert family.name.startswith("nwbflow_")
        assert all((sample.name.endswith("_total")) == (family.type == "counter") for sample in family.samples)


def test_runs_that_fail_or_warn_and_files_written_again():
    metrics = Prometheus()
    started = next(iter(runs.run()))
    assert isinstance(started, RunStarted)
    metrics(Warned(dataset=None, message="before anything has begun"))
    metrics(started)
    metrics(Warned(dataset=None, message="look"))
    assert parsed(_text(metrics))["nwbflow_warnings_total", ()] == 1
    failed = runs.failed()
    assert isinstance(failed, RunFailed)
    metrics(failed)
    assert parsed(_text(metrics))["nwbflow_run_state", ("failed",)] == 1
    metrics(started)
    assert parsed(_text(metrics))["nwbflow_warnings_total", ()] == 0


def test_only_the_last_files_are_told_of():
    metrics = Prometheus()
    for number in range(KEPT + 3):
        metrics(RunStarted(path=runs.PATH.with_name(f"{number}.nwb"), datasets=(), raw_bytes=0, workers=1))
    assert _text(metrics).count("nwbflow_run_start_time_seconds{") == KEPT
    assert f"{KEPT + 2}.nwb" in _text(metrics)
    assert "/2.nwb" not in _text(metrics)


def test_it_can_be_mounted_in_another_server():
    metrics = Prometheus()
    for event in runs.run():
        metrics(event)

    async def fetch() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(metrics.app()), base_url="http://here") as client:
            return await client.get("/metrics")

    answer = asyncio.run(fetch())
    assert answer.headers["content-type"].startswith("text/plain")
    assert ("nwbflow_run_state", ("finished",)) in parsed(answer.text)


def test_only_this_machine_can_look_and_the_port_is_free_afterwards():
    with Prometheus(0) as metrics:
        port = metrics.port
        assert metrics._server.server_address[0] == "127.0.0.1"
        with pytest.raises(SettingsError, match="give another port") as caught:
            Prometheus(port)
        assert caught.value.kind is ErrorKind.ADDRESS
    metrics.stop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))


def test_without_the_extra_there_is_an_error_that_names_it():
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import nwbflow, nwbflow.observe\n"
        "try: nwbflow.observe.Prometheus()\n"
        "except nwbflow.UnsupportedError as error: print(error.kind, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert 'pip install "nwbflow[monitor]"' in done.stdout


def test_importing_nwbflow_does_not_import_the_client():
    code = "import sys, nwbflow.observe; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def _text(metrics: Prometheus) -> str:
    exposition = importlib.import_module("prometheus_client.exposition")
    return exposition.generate_latest(metrics.registry).decode()
