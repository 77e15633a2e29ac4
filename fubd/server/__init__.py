"""The listener: webhook route, probes, metrics, status page and live stream."""

from fubd.server.limits import Limits
from fubd.server.server import Server
from fubd.server.view import SPANS, ApiBudget, ChangeCounts, Completeness, Health, ModeChange, Overview, SourceHealth, View
from fubd.server.webhook import WebhookHandler

__all__ = [
    "SPANS",
    "ApiBudget",
    "ChangeCounts",
    "Completeness",
    "Health",
    "Limits",
    "ModeChange",
    "Overview",
    "Server",
    "SourceHealth",
    "View",
    "WebhookHandler",
]
