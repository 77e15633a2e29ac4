"""The alert rules for a Grafana that evaluates them itself, generated from Prometheus's rules so that both files say the same.

    python -m tests.grafana.alerting

writes grafana/provisioning/alerting/fubd.yaml; a test compares the file with what this module generates.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_CHECKOUT = Path(__file__).parents[2]
RULES = _CHECKOUT / "deploy" / "prometheus" / "rules.yaml"
PROVISIONED = _CHECKOUT / "grafana" / "provisioning" / "alerting" / "fubd.yaml"

_HEAD = """\
# Generated from deploy/prometheus/rules.yaml by `python -m tests.grafana.alerting`: make changes there.
# For a Grafana that evaluates the alerts itself. Grafana takes query models and annotations as they are: a dollar sign is not doubled here.
"""
# Grafana evaluates in steps of ten seconds.
_INTERVAL = "30s"


def provisioning_file(rules: str) -> str:
    """Return the text of the provisioning file for the text of a rules file."""
    groups = yaml.safe_load(rules)["groups"]
    recorded = {rule["record"]: rule["expr"].strip() for group in groups for rule in group["rules"] if "record" in rule}
    with_alerts = []
    for group in groups:
        alerts = [_alert(rule, recorded) for rule in group["rules"] if "alert" in rule]
        if alerts:
            with_alerts.append({"orgId": 1, "name": group["name"], "folder": "fubd", "interval": _INTERVAL, "rules": alerts})
    return _HEAD + yaml.dump({"apiVersion": 1, "groups": with_alerts}, Dumper=_Dumper, sort_keys=False, width=140)


def _alert(rule: dict[str, Any], recorded: dict[str, str]) -> dict[str, Any]:
    return {
        "uid": rule["alert"].lower(),
        "title": rule["alert"],
        "condition": "threshold",
        "data": [_query(_inline_recorded(rule["expr"].strip(), recorded)), _any_number(), _threshold()],
        # As in Prometheus: no result, no alert. FubdGone asks for absence itself.
        "noDataState": "OK",
        "execErrState": "Error",
        "for": rule.get("for", "0s"),
        "labels": dict(rule["labels"]),
        # Prometheus's $value is a number; Grafana's is a text that describes the whole evaluation.
        "annotations": {name: text.replace("$value", "$values.query.Value") for name, text in rule["annotations"].items()},
    }


def _inline_recorded(expression: str, recorded: dict[str, str]) -> str:
    """Replace the names of recorded series by their expressions: the data source may not have our recording rules."""
    for name, text in recorded.items():
        expression = re.sub(rf"(?<![\w:]){re.escape(name)}(?![\w:{{\[])", f"({text})", expression)
    return expression


def _query(expression: str) -> dict[str, Any]:
    model = {"refId": "query", "expr": expression, "instant": True, "range": False, "editorMode": "code"}
    return {"refId": "query", "relativeTimeRange": {"from": 600, "to": 0}, "datasourceUid": "fubd-prometheus", "model": model}


def _any_number() -> dict[str, Any]:
    """Alert on any number that the query returns, 0 included: Grafana alone would treat 0 as normal."""
    return _step("any_number", {"type": "math", "expression": "is_number($query) || is_nan($query) || is_inf($query)"})


def _threshold() -> dict[str, Any]:
    return _step(
        "threshold", {"type": "threshold", "expression": "any_number", "conditions": [{"evaluator": {"type": "gt", "params": [0]}}]}
    )


def _step(name: str, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "refId": name,
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": "__expr__",
        "model": {"refId": name, "datasource": {"type": "__expr__", "uid": "__expr__"}, **model},
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and nothing by reference."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)

if __name__ == "__main__":
    PROVISIONED.write_text(provisioning_file(RULES.read_text(encoding="utf-8")), encoding="utf-8")
