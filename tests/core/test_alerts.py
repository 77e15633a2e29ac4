"""The text of alerts: complete, in the office's time, and harmless in a chat."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from fubd.core.alerts import Alert, AlertEvent, alert_document
from fubd.core.links import person_url

_ADDRESS = "https://app.followupboss.com/2/people/view/1"
_STAGE = AlertEvent(
    7,
    {
        "kind": "stage",
        "person_id": "1",
        "stage_from": None,
        "stage_to": "B",
        "changed_at": "2026-01-05T10:12:00+00:00",
        "changed_after": "2026-01-05T10:00:00+00:00",
        "source": "polling",
    },
)


def _written(*events: AlertEvent, zone: tzinfo = UTC, domain: str | None = None) -> dict[str, object]:
    return alert_document(Alert(events, attempts=1), zone=zone, domain=domain)


def test_unknown_values_are_left_out_of_the_text() -> None:
    """Without a name, a previous stage, an agent, the account's domain or an exact instant the text is still complete."""
    document = _written(_STAGE)
    assert document["id"] == 7
    assert document["text"] == (
        f"Person 1 entered B, between 2026-01-05 10:00:00 and 2026-01-05 10:12:00 UTC (seen by polling). {_ADDRESS}"
    )


def test_what_is_sent_late_says_when_it_was() -> None:
    """A receiver that was down for long gets what was true then; a program finds the time in the document."""
    at = datetime(2026, 1, 5, 10, tzinfo=UTC)
    content = {"kind": "problem", "text": "fubd: problem key_refused. 401.", "at": at.isoformat()}
    alert = Alert([AlertEvent(7, content)], attempts=9)
    soon, late = (alert_document(alert, zone=UTC, domain=None, now=at + timedelta(minutes=minutes)) for minutes in (2, 30))
    assert soon["text"] == content["text"]
    assert late == {**content, "text": "fubd: problem key_refused. 401. (Sent late: this was on 2026-01-05 at 10:00:00 UTC.)"}


def test_everything_that_is_known_is_in_the_text() -> None:
    """Who, from which stage, when by the office's clock, the agent, and where to find the person."""
    known = replace(_STAGE, content={**_STAGE.content, "stage_from": "A", "changed_after": None, "source": "webhook"}, first_name="Ada")
    document = _written(replace(known, assigned_user_name="@Bo Agent"), zone=ZoneInfo("America/Chicago"), domain="Acme")
    assert document["text"] == (
        "Ada (1) entered B, from A, on 2026-01-05 at 04:12:00 CST (seen by webhook). Assigned to (at)Bo Agent."
        " https://acme.followupboss.com/2/people/view/1"
    )
    assert (document["assigned_user_name"], document["url"]) == ("@Bo Agent", "https://acme.followupboss.com/2/people/view/1")


@pytest.mark.parametrize("domain", [None, "", "evil.example/", "a.b", "-a", "a" * 64, "\u0430cme"])
def test_a_domain_that_is_none_makes_no_link_to_another_host(domain: str | None) -> None:
    """The address that serves every account is used instead."""
    assert person_url("1", domain) == _ADDRESS


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<!channel>", "\u2039!channel\u203a"),
        ("@all", "(at)all"),
        ("Ada\n\x1b[31m Red\u202e", "Ada (31m Red"),
        ("[you won](https://won.example)", "(you won)(https\u2236//won\u2024example)"),
        ("Ada www.won.example", "Ada www\u2024won\u2024example"),
        ("Dr. J. R. Example", "Dr. J. R. Example"),
        ("`Ada`", "'Ada'"),
        ("x" * 200, "x" * 80 + "\u2026"),
    ],
)
def test_a_name_is_harmless_in_a_chat(name: str, shown: str) -> None:
    """A name that a lead typed mentions no channel, makes no link, has no control character and limited length."""
    document = _written(replace(_STAGE, first_name=name))
    assert str(document["text"]).startswith(f"{shown} (1) entered")
    assert document["first_name"] == name


def test_a_digest_names_a_few_people_of_a_few_stages() -> None:
    """The stage with the most changes first, each person once; the JSON lists at most a hundred changes."""
    events = [
        replace(
            _STAGE, id=number, content={**_STAGE.content, "person_id": str(number // 2), "stage_to": f"S{number % 7 if number < 20 else 0}"}
        )
        for number in range(1, 150)
    ]
    document = _written(*events)
    lines = str(document["text"]).split("\n")
    assert lines[0] == "67 people entered S0: person 3, person 7, person 10, person 11, person 12 and 62 more."
    assert lines[1] == "3 people entered S1: person 0, person 4, person 7."
    assert lines[-2:] == ["5 changes into 2 other stages.", "All between 2026-01-05 10:00:00 and 2026-01-05 10:12:00 UTC."]
    assert (document["kind"], document["count"], len(lines)) == ("stages", 149, 7)
    changes = document["changes"]
    assert isinstance(changes, list)
    assert (len(changes), changes[0]["url"]) == (100, "https://app.followupboss.com/2/people/view/0")
