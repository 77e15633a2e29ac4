"""The provisioned alert rules, as Grafana reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.programs import run
from tests.deploy.promql import errors_in
from tests.grafana.alerting import PROVISIONED, RULES, provisioning_file
from tests.grafana.dashboards import GRAFANA
from tests.grafana.grammar import interpolate, math_names
from tests.support.documents import yaml_file
from tests.support.programs import require_program

pytestmark = pytest.mark.slow

GROUPS: list[dict[str, Any]] = yaml_file(PROVISIONED)["groups"]
ALERTS: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
# What Grafana defines before it expands an annotation (pkg/services/ngalert/state/template/template.go), as far as our texts use it.
DEFINITIONS = "{{- $labels := .Labels -}}{{- $values := .Values -}}"
each_alert = pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["title"]))


def interpolated_texts(rule: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of a rule in which Grafana replaces environment variables."""
    yield from (rule[key] for key in ("uid", "title", "condition", "noDataState", "execErrState", "for"))
    yield from rule["labels"].values()
    yield from (step[key] for step in rule["data"] for key in ("refId", "datasourceUid"))


async def check_templates(folder: Path, texts: list[str]) -> tuple[int, str]:
    """Parse templates with the engine that Grafana uses too, Go's with Prometheus's functions. Returns promtool's exit code and output."""
    rules = [{"alert": "Template", "expr": "vector(1)", "annotations": {f"text{i}": DEFINITIONS + text for i, text in enumerate(texts)}}]
    file = folder / "templates.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "templates", "rules": rules}]}), encoding="utf-8")
    # Prometheus defines $labels, too; Go allows a second definition, but not an unknown variable.
    ended = await run(require_program("promtool"), "check", "rules", str(file))
    return ended.code, ended.report


def test_the_file_is_generated_from_prometheus_rules() -> None:
    """The file is what the generator writes; when not: `python -m tests.grafana.alerting`."""
    assert PROVISIONED.read_text(encoding="utf-8") == provisioning_file(RULES.read_text(encoding="utf-8"))


@each_alert
def test_an_alert_needs_no_recording_rule(rule: dict[str, Any]) -> None:
    """Each alert reads only metrics that fubd exports, from a provisioned data source, and its condition is one of its steps."""
    query = rule["data"][0]
    assert errors_in(query["model"]["expr"]) == []
    assert rule["condition"] in {step["refId"] for step in rule["data"]}
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "fubd.yaml").read_text(encoding="utf-8"))["datasources"]
    assert query["datasourceUid"] in {source["uid"] for source in sources}


@each_alert
def test_grafana_reads_what_stands_there(rule: dict[str, Any]) -> None:
    """Interpolation changes no text of a rule, and an annotation holds no `${`, which only newer versions interpolate."""
    assert [text for text in interpolated_texts(rule) if interpolate(text, {}) != text] == []
    assert [text for text in rule["annotations"].values() if "${" in text] == []


@each_alert
def test_the_math_expression_reads_the_query(rule: dict[str, Any]) -> None:
    """Grafana's own lexer accepts each math expression; it names earlier steps and functions that exist."""
    known: set[str] = set()
    for step in rule["data"]:
        if step["model"].get("type") == "math":
            variables, functions = math_names(step["model"]["expression"])
            assert variables <= known
            assert functions <= {"is_number", "is_nan", "is_inf"}
        elif step["model"].get("type") == "threshold":
            assert step["model"]["expression"] in known
        known.add(step["refId"])


@pytest.mark.parametrize("expression", ["is_nan($$query)", "is_nan($)", "$query | 1", "$a ? 1"])
def test_the_lexer_finds_errors(expression: str) -> None:
    """A doubled dollar sign, a missing name and an unknown operator are errors, as in Grafana."""
    with pytest.raises(ValueError, match="Grafana"):
        math_names(expression)


def test_interpolation_is_that_of_grafana() -> None:
    """`$NAME` is a variable, an unset one is empty, `$$` is a dollar sign."""
    assert interpolate("$HOST:${PORT} $UNSET$$query", {"HOST": "db", "PORT": "1"}) == "db:1 $query"


async def test_the_annotations_are_templates(tmp_path: Path) -> None:
    """Go's template engine accepts every annotation, and refuses the same texts with doubled dollar signs."""
    texts = [text for rule in ALERTS for text in rule["annotations"].values()]
    code, output = await check_templates(tmp_path, texts)
    assert code == 0, output
    doubled = [text.replace("$", "$$") for text in texts if "$" in text]
    assert doubled
    for text in doubled:
        code, output = await check_templates(tmp_path, [text])
        assert code != 0
        assert "bad character" in output


@each_alert
def test_an_annotation_reads_values_that_exist(rule: dict[str, Any]) -> None:
    """A value in an annotation is that of a step of the rule, by its name, as `$values.NAME.Value`."""
    steps = {step["refId"] for step in rule["data"]}
    for text in rule["annotations"].values():
        for expression in text.split("$")[1:]:
            name, _, rest = expression.partition(".")
            assert name in {"labels", "values"}
            assert name == "labels" or (rest.split(".")[0] in steps and rest.split(".")[1].startswith("Value"))
