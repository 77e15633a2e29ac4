from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from fubd.store.dsn import parse
from tests.deploy.promql import errors_in, exported, metrics_in
from tests.grafana.dashboards import GRAFANA, NAMES, Query, dashboard, panels, promql, queries, sql, sql_without_rows
from tests.stack import running_stack

pytestmark = pytest.mark.slow

PROMQL = list(queries("fubd"))
SQL = list(queries("business"))
UNTIL = datetime(2031, 5, 14, 12, tzinfo=UTC)
SINCE = UNTIL - timedelta(days=30)


def differences(ours: object, theirs: object, place: str = "") -> Iterator[str]:
    """Yield what of our file the model dropped or changed."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from differences(value, theirs[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif ours != theirs:
        yield f"{place}: {ours!r} became {theirs!r}"


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_model_accepts_every_key(name: str) -> None:
    """Grafana's own model reads each dashboard and writes the same again: it knows every key, and every type is right."""
    register_default_plugins()
    model = Dashboard.from_json(dashboard(name))
    assert list(differences(dashboard(name), json.loads(json.dumps(model, cls=JSONEncoder)))) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_asks_only_for_its_data_source(name: str) -> None:
    """Each dashboard has a fixed uid and one variable, the data source, which every panel and query uses."""
    model = dashboard(name)
    assert model["uid"] == {"fubd": "fubd", "business": "fubd-business"}[name]
    assert "id" not in model
    (variable,) = model["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    source = {"type": variable["query"], "uid": "${datasource}"}
    for panel in panels(name):
        assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [source] * (1 + len(panel["targets"]))


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_explains_itself(name: str) -> None:
    """Each panel has its own title, a description and a unit, and its queries have different names."""
    titles = [panel["title"] for panel in panels(name)]
    assert len(set(titles)) == len(titles)
    for panel in panels(name):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_panels_do_not_overlap(name: str) -> None:
    """The panels fill the 24 columns without overlap, and each has its own id."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(name)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
    assert {(x, y) for x in range(24) for y in range(max(y for _, y in taken) + 1)} == taken
    ids = [panel["id"] for panel in dashboard(name)["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("query", PROMQL, ids=lambda query: query.panel)
def test_a_query_reads_only_what_is_exported(query: Query) -> None:
    """Each PromQL query parses, names only series, labels and values that fubd exports, and uses Grafana's own range variables."""
    text = promql(query.text)
    assert errors_in(text) == []
    assert set(re.findall(r"\[([^\]]+)\]", query.text)) <= {"$__rate_interval", "$__range"}
    labels = {label for name in metrics_in(text) for label in exported()[name].labels} | {"instance"}
    assert set(re.findall(r"{{(\w+)}}", query.legend)) <= labels


def test_every_metric_is_shown() -> None:
    """Each metric that fubd exports is on the dashboard."""
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for query in PROMQL for name in metrics_in(promql(query.text))}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()} - {"up"} <= shown


@pytest.mark.parametrize("query", SQL, ids=lambda query: query.panel)
async def test_postgres_accepts_a_query(query: Query, database: str) -> None:
    """A migrated database accepts each SQL query with its macros expanded, and a time series begins with a time column."""
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    try:
        statement = await connection.prepare(sql(query.text, since=SINCE, until=UNTIL))
        columns = [attribute.name for attribute in statement.get_attributes()]
    finally:
        await connection.close()
    (target,) = next(panel["targets"] for panel in panels("business") if panel["title"] == query.panel)
    assert "$" not in sql(query.text, since=SINCE, until=UNTIL)
    assert target["format"] == "table" or columns[0] == "time"


async def test_the_business_queries_return_rows(database: str, tmp_path: Path) -> None:
    """After a run each SQL query returns rows; for a time range without data only those about the present do."""
    now = datetime.now(UTC)
    async with running_stack(database, tmp_path) as stack, stack.ready_daemon():
        offered, missed = stack.account.ids[:2]
        stack.account.move(offered, "ACQ - Offers Made")
        await stack.simulator.deliveries.drain()
        # FUB dates by whole seconds. There and back within five minutes is a rapid transition.
        stack.simulator.clock.shift(2)
        stack.account.move(offered, "ACQ - Contract Sent")
        await stack.simulator.deliveries.drain()
        stack.simulator.deliveries.kill()
        stack.account.move(missed, "Nurture")
        found = await stack.final_score()
        assert found.is_perfect, found.discrepancies
    shown = {"since": now - timedelta(days=1), "until": now + timedelta(days=1)}
    assert await sql_without_rows(database, **shown) == []
    of_now = {"Source health", "People", "People by current stage", "Time in stage"}
    later = await sql_without_rows(database, since=SINCE, until=UNTIL)
    assert {query.panel for query in SQL} - set(later) <= of_now


def test_the_data_sources_are_those_of_the_dashboards() -> None:
    """Each dashboard's default data source is provisioned, with the type that the dashboard needs."""
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "fubd.yaml").read_text(encoding="utf-8"))["datasources"]
    known = {(source["uid"], source["type"]) for source in sources}
    for name in NAMES:
        (variable,) = dashboard(name)["templating"]["list"]
        assert (variable["current"]["value"], variable["query"]) in known
