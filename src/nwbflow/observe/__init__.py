"""Listeners to a run's events."""

from nwbflow.observe.bar import ProgressBar
from nwbflow.observe.dashboard import Dashboard
from nwbflow.observe.hub import Hub, make_observers
from nwbflow.observe.jsonl import JsonLines, event_to_json
from nwbflow.observe.prometheus import Prometheus

__all__ = ["Dashboard", "Hub", "JsonLines", "ProgressBar", "Prometheus", "event_to_json", "make_observers"]
