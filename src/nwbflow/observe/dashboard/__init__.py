"""A page that shows a run while it goes on, in any browser."""

from nwbflow.observe.dashboard.access import parse_address
from nwbflow.observe.dashboard.dashboard import Dashboard

__all__ = ["Dashboard", "parse_address"]
