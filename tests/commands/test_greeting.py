"""The daemon's first lines on a terminal."""

from __future__ import annotations

from fubd import __version__
from fubd.commands.greeting import facts
from fubd.settings import load


def test_the_first_lines_say_where_everything_is() -> None:
    """Version, page, database, webhooks, mode, and what to do next; no secret."""
    lines = dict(facts(load({"DATABASE_URL": "postgresql://me:secret@db.example/x", "PORT": "81"}, env_file=None), "db.example:5432/x"))
    assert list(lines) == ["fubd", "page", "database", "webhooks", "mode", "next"]
    assert (lines["fubd"], lines["database"]) == (__version__, "db.example:5432/x")
    assert lines["page"] == "http://localhost:81/, from this machine only"
    assert "PUBLIC_URL is not set" in lines["webhooks"]
    assert "fubd check" in lines["next"]


def test_they_follow_the_settings() -> None:
    """A public URL, a token, an address of IPv6, and the embedded database."""
    settings = {"PUBLIC_URL": "https://fubd.example", "FUBD_METRICS_TOKEN": "an-invented-token-16", "FUBD_HOST": "::1"}
    lines = dict(facts(load(settings, env_file=None), "/data:5432/postgres"))
    assert lines["page"] == "http://[::1]:8080/, with FUBD_METRICS_TOKEN as password"
    assert lines["webhooks"] == "received at https://fubd.example/webhook/fub"
    assert "embedded" in lines["database"]
