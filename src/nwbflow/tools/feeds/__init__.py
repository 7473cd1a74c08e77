"""Rows from elsewhere into a recording: sockets and Lab Streaming Layer."""

from nwbflow.tools.feeds.client import Client, FeedError
from nwbflow.tools.feeds.connection import Limits
from nwbflow.tools.feeds.server import FeedServer
from nwbflow.tools.feeds.sockets import Listening, listen

__all__ = ["Client", "FeedError", "FeedServer", "Limits", "Listening", "listen"]
