"""The HTTP server: webhook routes, probes, metrics, status page and event stream."""

from fubd.server.limits import ServerLimits
from fubd.server.server import HttpServer
from fubd.server.view import SPANS, ApiBudget, ChangeCounts, Completeness, Health, ModeChange, Overview, SourceHealth, StatusView
from fubd.server.webhook import WebhookHandler

__all__ = [
    "SPANS",
    "ApiBudget",
    "ChangeCounts",
    "Completeness",
    "Health",
    "HttpServer",
    "ModeChange",
    "Overview",
    "ServerLimits",
    "SourceHealth",
    "StatusView",
    "WebhookHandler",
]
