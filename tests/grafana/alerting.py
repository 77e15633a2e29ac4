"""The alert rules for a Grafana that evaluates them itself, made from Prometheus's rules so that the two say the same.

    python -m tests.grafana.alerting

writes grafana/provisioning/alerting/fubd.yaml anew; a test holds the file to this.
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
# Made from deploy/prometheus/rules.yaml by `python -m tests.grafana.alerting`: change it there.
# For a Grafana that evaluates the alerts itself. Grafana reads $$ as a plain dollar sign.
"""
# Grafana evaluates in steps of ten seconds.
_INTERVAL = "30s"


def provisioned(rules: str) -> str:
    """Give the text of the provisioning file for a rules file's text."""
    groups = yaml.safe_load(rules)["groups"]
    recorded = {rule["record"]: rule["expr"].strip() for group in groups for rule in group["rules"] if "record" in rule}
    made = []
    for group in groups:
        alerts = [_alert(rule, recorded) for rule in group["rules"] if "alert" in rule]
        if alerts:
            made.append({"orgId": 1, "name": group["name"], "folder": "fubd", "interval": _INTERVAL, "rules": alerts})
    return _HEAD + yaml.dump({"apiVersion": 1, "groups": made}, Dumper=_Dumper, sort_keys=False, width=140)


def _alert(rule: dict[str, Any], recorded: dict[str, str]) -> dict[str, Any]:
    return {
        "uid": rule["alert"].lower(),
        "title": rule["alert"],
        "condition": "threshold",
        "data": [_query(_inlined(rule["expr"].strip(), recorded)), _any_number(), _threshold()],
        # What Prometheus does: no result, no alert. FubdGone asks for absence itself.
        "noDataState": "OK",
        "execErrState": "Error",
        "for": rule.get("for", "0s"),
        "labels": dict(rule["labels"]),
        "annotations": {name: _text(text) for name, text in rule["annotations"].items()},
    }


def _inlined(expression: str, recorded: dict[str, str]) -> str:
    """Put what was recorded in the place of its name: the data source may be one without our recording rules."""
    for name, text in recorded.items():
        expression = re.sub(rf"(?<![\w:]){re.escape(name)}(?![\w:{{\[])", f"({text})", expression)
    return expression


def _text(text: str) -> str:
    return text.replace("$value", "$values.query.Value").replace("$", "$$")


def _query(expression: str) -> dict[str, Any]:
    model = {"refId": "query", "expr": expression.replace("$", "$$"), "instant": True, "range": False, "editorMode": "code"}
    return {"refId": "query", "relativeTimeRange": {"from": 600, "to": 0}, "datasourceUid": "fubd-prometheus", "model": model}


def _any_number() -> dict[str, Any]:
    """Any number that comes back is an alert, 0 included: Grafana by itself takes 0 for all well."""
    expression = "is_number($$query) || is_nan($$query) || is_inf($$query)"
    return _step("any_number", {"type": "math", "expression": expression})


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


def _represented(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represented)

if __name__ == "__main__":
    PROVISIONED.write_text(provisioned(RULES.read_text()))
