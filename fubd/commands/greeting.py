"""The daemon's first lines on a terminal: what runs, where its page is, and what to do next."""

from __future__ import annotations

from fubd import __version__
from fubd.core.vocabulary import WEBHOOK_ROUTE
from fubd.settings import Settings

_NEXT = "run `fubd check` in another terminal: it says what is still to be done; Ctrl-C stops the daemon"


def facts(settings: Settings, place: str) -> list[tuple[str, str]]:
    """Return the first lines, each with its name. `place`: the database's host, port and name."""
    host = "localhost" if settings.host is None else f"[{settings.host}]" if ":" in settings.host else settings.host
    page = f"http://{host}:{settings.port}/" if settings.port else "on a free port: see the line `listening on port`"
    where = place if settings.database_url is not None else f"{place} (embedded, because DATABASE_URL is not set)"
    return [
        ("fubd", __version__),
        ("page", f"{page}, with FUBD_METRICS_TOKEN as password" if settings.metrics_token else f"{page}, from this machine only"),
        ("database", where),
        ("webhooks", _webhooks(settings)),
        ("mode", "starting: the first poll decides; the page, the log and `fubd status` show it"),
        ("next", _NEXT),
    ]


def _webhooks(settings: Settings) -> str:
    if settings.public_url is None:
        return "PUBLIC_URL is not set, so Follow Up Boss cannot reach fubd: changes are found by polling alone"
    managed = "" if settings.manage_webhooks else "; their registration is yours (FUBD_MANAGE_WEBHOOKS is false)"
    return f"received at {settings.public_url}{WEBHOOK_ROUTE}{managed}"
