"""The link manager: which links files have, whether they hold, and moving, embedding and bundling what they lead to."""

from nwbflow.links.check import CheckReport, LinkCheck, check_links
from nwbflow.links.inventory import Inventory, LinkEntry, LinkState, LinkTarget, list_links
from nwbflow.tools.links.bundle import bundle
from nwbflow.tools.links.embed import embed
from nwbflow.tools.links.renaming import make_absolute, make_relative, relocate
from nwbflow.tools.links.reports import BundleReport, Embedded, EmbedReport, LinkChange, RenameReport

__all__ = [
    "BundleReport",
    "CheckReport",
    "EmbedReport",
    "Embedded",
    "Inventory",
    "LinkChange",
    "LinkCheck",
    "LinkEntry",
    "LinkState",
    "LinkTarget",
    "RenameReport",
    "bundle",
    "check_links",
    "embed",
    "list_links",
    "make_absolute",
    "make_relative",
    "relocate",
]
