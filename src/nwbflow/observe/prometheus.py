"""Metrics of runs, in the format that Prometheus reads. Needs the extra ``monitor``.

Names follow https://prometheus.io/docs/practices/naming/: base units, and ``_total`` for what only grows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nwbflow.errors import ErrorKind, SettingsError, UnsupportedError
from nwbflow.model.events import Event, RunStarted
from nwbflow.observe.counts import Counts

KEPT = 16
"""Files that are told of: the one being written, and the last ones before."""


class Prometheus:
    """Observer that keeps metrics of writes and recordings, for a Prometheus server to fetch.

    They are put together when they are asked for, so an event costs next to nothing. They stay when a run ends: a
    server that comes by later sees how it ended. One observer can watch many files, one after the other; each has its
    path as the label ``file``.

    Parameters
    ----------
    port : int, optional
        Serve them at ``http://127.0.0.1:PORT/metrics``, for this machine alone; 0 is any free port. Without it
        nothing is served: use :attr:`registry` or :meth:`app` in a server of your own, or the dashboard.

    Attributes
    ----------
    registry : prometheus_client.CollectorRegistry
        Of this observer alone.

    Raises
    ------
    nwbflow.errors.UnsupportedError
        If the extra ``monitor`` is not installed.
    nwbflow.errors.SettingsError
        Of kind ``ADDRESS`` if nobody can listen at the port.
    """

    def __init__(self, port: int | None = None) -> None:
        self._client = _client()
        self._lock = threading.Lock()
        self._runs: dict[Path, Counts] = {}
        self._now: Counts | None = None
        self.registry: Any = self._client.CollectorRegistry()
        self.registry.register(self)
        self._server: Any = None
        self._thread: threading.Thread | None = None
        if port is not None:
            self._serve(port)

    @property
    def port(self) -> int | None:
        """The port listened on, if there is one."""
        return None if self._server is None else int(self._server.server_port)

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`."""
        with self._lock:
            if isinstance(event, RunStarted):
                self._runs.pop(event.path, None)
                self._runs[event.path] = self._now = Counts()
                if len(self._runs) > KEPT:
                    del self._runs[next(iter(self._runs))]
            if self._now is not None:
                self._now(event)

    def collect(self) -> Iterator[Any]:
        """Give all metrics; this is what a registry calls."""
        with self._lock:
            figures = [(str(path), *figure) for path, run in self._runs.items() for figure in run.figures()]
        families: dict[str, Any] = {}
        core = self._client.core
        for file, name, text, labels, value in figures:
            if name not in families:
                kind = core.CounterMetricFamily if name.endswith("_total") else core.GaugeMetricFamily
                families[name] = kind(name, text, labels=["file", *(label for label, _ in labels)])
            families[name].add_metric([file, *(at for _, at in labels)], value)
        yield from families.values()

    def app(self) -> Any:
        """Return the metrics as an ASGI application, to be mounted in a server of your own."""
        return self._client.make_asgi_app(registry=self.registry)

    def stop(self) -> None:
        """Stop serving; the port is free then. May be called at any time."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            server.server_close()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self, port: int) -> None:
        try:
            self._server, self._thread = self._client.start_http_server(port, "127.0.0.1", self.registry)
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"metrics can't be served at 127.0.0.1:{port}: {error}; give another port, or 0 for any free one",
                kind=ErrorKind.ADDRESS,
            ) from error


def _client() -> Any:
    """Return the client library."""
    try:
        import prometheus_client
        import prometheus_client.core
    except ImportError as error:
        raise UnsupportedError(
            'metrics for Prometheus need prometheus_client, which is not installed: pip install "nwbflow[monitor]"',
            kind=ErrorKind.PLUGIN,
        ) from error
    return prometheus_client
