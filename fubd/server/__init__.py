"""The listener: webhook route, probes, metrics, status page and live stream."""

from fubd.server.limits import Limits
from fubd.server.server import WEBHOOK_PATHS, Server
from fubd.server.view import SPANS, ApiBudget, Captures, Completeness, Health, ModeChange, Overview, SourceHealth, View
from fubd.server.webhook import Door

__all__ = [
    "SPANS",
    "WEBHOOK_PATHS",
    "ApiBudget",
    "Captures",
    "Completeness",
    "Door",
    "Health",
    "Limits",
    "ModeChange",
    "Overview",
    "Server",
    "SourceHealth",
    "View",
]
