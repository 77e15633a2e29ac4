"""The HTTP server: webhook routes, probes, metrics, status page and event stream."""

from fubd.server.access import AccessControl, page_audience
from fubd.server.limits import ServerLimits
from fubd.server.routes import ReadRoutes
from fubd.server.server import HttpServer
from fubd.server.sse import EventStream
from fubd.server.throttle import ReadThrottle
from fubd.server.view import (
    SPANS,
    AccountName,
    ApiBudget,
    ChangeCounts,
    Completeness,
    DatabaseHealth,
    Day,
    Health,
    ModeChange,
    Overview,
    ShownProblem,
    SourceHealth,
    StatusView,
)
from fubd.server.webhook import DeliveryCounts, WebhookHandler

__all__ = [
    "SPANS",
    "AccessControl",
    "AccountName",
    "ApiBudget",
    "ChangeCounts",
    "Completeness",
    "DatabaseHealth",
    "Day",
    "DeliveryCounts",
    "EventStream",
    "Health",
    "HttpServer",
    "ModeChange",
    "Overview",
    "ReadRoutes",
    "ReadThrottle",
    "ServerLimits",
    "ShownProblem",
    "SourceHealth",
    "StatusView",
    "WebhookHandler",
    "page_audience",
]
