"""Listeners to a run's events."""

from nwbflow.observe.bar import ProgressBar
from nwbflow.observe.dashboard import Dashboard
from nwbflow.observe.hub import Hub, make_observers
from nwbflow.observe.jsonl import JsonLines, event_to_json

__all__ = ["Dashboard", "Hub", "JsonLines", "ProgressBar", "event_to_json", "make_observers"]
