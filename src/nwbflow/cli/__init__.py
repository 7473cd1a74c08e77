"""The command line: parsing and printing only; every command is one call into a tool."""

from nwbflow.cli.app import main

__all__ = ["main"]
