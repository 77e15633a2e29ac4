"""The alert rules: accepted by Prometheus, tested both ways, and documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import promql
from tests.deploy.programs import CHECKOUT, run
from tests.deploy.scaled import scaled
from tests.support.documents import anchors, yaml_file
from tests.support.programs import require_program

pytestmark = pytest.mark.slow

PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yaml"
CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
GUIDE = CHECKOUT / "deploy" / "README.md"


def rules() -> list[dict[str, Any]]:
    """Return every rule of the file."""
    return [rule for group in yaml_file(RULES)["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"]: frozenset(re.split("_", rule["record"].split(":")[0])) for rule in rules() if "record" in rule}


def cases(kind: str) -> Iterator[str]:
    """Yield the alerts that have a case of this kind: `firing` or `silent`."""
    for path in CASES:
        for case in yaml_file(path)["tests"]:
            tested = case["alert_rule_test"]
            fires = any(test["exp_alerts"] for test in tested)
            assert len({test["alertname"] for test in tested}) == 1, f"{case['name']}: one alert a case"
            assert case["name"].startswith(f"{tested[0]['alertname']} {'fires' if fires else 'stays silent'}: "), case["name"]
            if fires is (kind == "firing"):
                yield tested[0]["alertname"]


async def test_rules_are_accepted() -> None:
    """Promtool accepts the rules."""
    ended = await run(require_program("promtool"), "check", "rules", str(RULES))
    assert ended.code == 0, ended.report


async def test_the_scrape_configuration_is_accepted(tmp_path: Path) -> None:
    """Promtool accepts the configuration, with the rules and the token file that it names."""
    text = (PROMETHEUS / "prometheus.yaml").read_text()
    token_file = "/run/secrets/fubd_metrics_token"
    assert token_file in text
    token = tmp_path / "token"
    token.write_text("invented")
    (tmp_path / "rules.yaml").write_bytes(RULES.read_bytes())
    configuration = tmp_path / "prometheus.yaml"
    configuration.write_text(text.replace(token_file, str(token)))
    ended = await run(require_program("promtool"), "check", "config", str(configuration))
    assert ended.code == 0, ended.report


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
async def test_alerts_fire_and_stay_silent(path: Path) -> None:
    """Each alert fires when it should, with the right text, and stays silent when it should."""
    ended = await run(require_program("promtool"), "test", "rules", path.name, folder=path.parent)
    assert ended.code == 0, ended.report


def test_every_alert_is_tested_both_ways() -> None:
    """Each alert has a firing and a silent case, and each case names an existing alert."""
    names = {alert["alert"] for alert in ALERTS}
    assert set(cases("firing")) == names
    assert set(cases("silent")) == names


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule.get("alert") or rule.get("record")))
def test_a_rule_reads_only_what_is_exported(rule: dict[str, Any]) -> None:
    """Each series, label and value in a rule is exported by fubd or recorded by an earlier rule."""
    assert promql.errors_in(rule["expr"], recorded=RECORDED) == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_has_its_texts(alert: dict[str, Any]) -> None:
    """Each alert has one of three severities, a summary, a description, and a section of the guide with its name."""
    assert re.fullmatch(r"Fubd([A-Z][a-z]*)+", alert["alert"])
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"deploy/README.md#{alert['alert'].lower()}"
    assert alert["alert"].lower() in anchors(GUIDE.read_text())


def test_each_section_of_the_guide_has_its_alert() -> None:
    """The guide has no section for an alert that does not exist."""
    written = {anchor for anchor in anchors(GUIDE.read_text()) if anchor.startswith("fubd") and anchor.isalpha() and anchor != "fubd"}
    assert written == {alert["alert"].lower() for alert in ALERTS}


async def test_scaled_rules_are_accepted(tmp_path: Path) -> None:
    """Promtool accepts the rules with divided times, and their durations and ranges are that much shorter."""
    text = scaled(RULES.read_text(), by=600, shortest_range_seconds=2)
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    ended = await run(require_program("promtool"), "check", "rules", str(path))
    assert ended.code == 0, ended.report
    found = {rule["alert"]: rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"] if "alert" in rule}
    assert found["FubdFailoverLasting"]["for"] == "6000ms"
    assert "[2000ms])) > 0.1\n" in found["FubdBlind"]["expr"]
    assert found["FubdWebhookSilentForADay"]["expr"].rstrip().endswith("> 3 * 144")
