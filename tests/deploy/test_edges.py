"""The alert rules at their edges, on a real promtool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.edges import EDGES, Edge
from tests.deploy.programs import run
from tests.deploy.test_rules import ALERTS, RULES
from tests.support.documents import yaml_file
from tests.support.programs import require_program

pytestmark = pytest.mark.slow


def rules_for(alert: str) -> dict[str, Any]:
    """Return the rules file with this one alert, and the recording rules. Thousands of minutes of all alerts would take a minute."""
    groups = yaml_file(RULES)["groups"]
    kept = [group | {"rules": [rule for rule in group["rules"] if "record" in rule or rule["alert"] == alert]} for group in groups]
    return {"groups": [group for group in kept if group["rules"]]}


def write_tests(folder: Path, edges: list[Edge]) -> str:
    """Write promtool's file of tests for edges of one alert and one step, and return its name."""
    name = f"{edges[0].alert}-{edges[0].step}"
    rules = rules_for(edges[0].alert)
    (folder / f"{name}.rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    tests = {
        "rule_files": [f"{name}.rules.yaml"],
        "evaluation_interval": f"{edges[0].step}m",
        # Otherwise promtool may evaluate an alert before the recording rule that it reads, and it fires a minute later.
        "group_eval_order": [group["name"] for group in rules["groups"]],
        "tests": [edge.promtool_case() for edge in edges],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    return f"{name}.yaml"


async def test_alerts_fire_at_their_limits_and_not_before(tmp_path: Path) -> None:
    """A limit is exceeded by a little or just not, and a condition holds for its time or a minute less."""
    kinds = sorted({(edge.alert, edge.step) for edge in EDGES})
    files = [write_tests(tmp_path, [edge for edge in EDGES if (edge.alert, edge.step) == kind]) for kind in kinds]
    ended = await run(require_program("promtool"), "test", "rules", *files, folder=tmp_path, timeout_seconds=400.0)
    assert ended.code == 0, ended.report


def test_every_alert_has_its_edges() -> None:
    """Each alert has a situation in which it fires and one in which it does not."""
    names = {alert["alert"] for alert in ALERTS}
    assert {edge.alert for edge in EDGES if edge.firing} == names
    assert {edge.alert for edge in EDGES if edge.silent} == names
