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
from tests.grafana.dashboards import CHOSEN, GRAFANA, NAMES, Query, dashboard, panels, promql, queries, sql, sql_without_rows, variables
from tests.stack import running_stack
from tests.support.documents import anchors

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
    dropped = set(differences(dashboard(name), json.loads(json.dumps(model, cls=JSONEncoder))))
    # The model does not know what the Prometheus data source alone reads of an annotation (`processAnnotationResponse`).
    assert dropped <= {f".annotations.list[0].{key}" for key in ("step", "tagKeys", "titleFormat")}


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_asks_only_for_its_data_source(name: str) -> None:
    """Each dashboard has a fixed uid and a variable for its data source, which every panel, query and other variable uses."""
    model = dashboard(name)
    assert model["uid"] == {"fubd": "fubd", "business": "fubd-business"}[name]
    assert "id" not in model
    variable = model["templating"]["list"][0]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    source = {"type": variable["query"], "uid": "${datasource}"}
    others = [*model["templating"]["list"][1:], *model["annotations"]["list"]]
    assert [each["datasource"] for each in others if each.get("type") != "textbox"] == [source] * sum(
        each.get("type") != "textbox" for each in others
    )
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


def test_the_first_row_says_whether_fubd_runs_and_records() -> None:
    """The scrape, the database and the problems come before everything else."""
    first = [query.text for query in PROMQL[:3]]
    assert [name for text in first for name in sorted(metrics_in(text))] == ["up", "fubd_db_up", "fubd_problem"]


def test_mode_changes_are_marked_in_every_graph() -> None:
    """An annotation reads the counter of mode changes and names the new mode."""
    (annotation,) = dashboard("fubd")["annotations"]["list"]
    assert errors_in(annotation["expr"]) == []
    assert metrics_in(annotation["expr"]) == {"fubd_mode_changes_total"}
    assert annotation["titleFormat"] == "Mode: {{to}}"


@pytest.mark.parametrize("name", NAMES)
def test_the_links_lead_to_the_other_board_the_page_and_the_runbook(name: str) -> None:
    """Each address is written in one variable, absolute, because Grafana runs on another host; a heading of the guide is real."""
    boards, page, runbook = dashboard(name)["links"]
    assert boards["type"] == "dashboards"
    assert set(boards["tags"]) <= set(dashboard("fubd")["tags"]) & set(dashboard("business")["tags"])
    assert page["url"] == "${page}"
    address, _, anchor = runbook["url"].partition("#")
    assert address == "${runbook}"
    assert anchor in anchors((GRAFANA.parent / "deploy" / "README.md").read_text(encoding="utf-8"))
    for variable in (variables(name)["page"], variables(name)["runbook"]):
        assert re.match(r"https?://[^/]+/", variable["query"])
    panel_links = {link["url"] for panel in panels(name) for link in panel.get("links", ())}
    assert panel_links <= {runbook["url"]}


@pytest.mark.parametrize("name", ["stage", "offer", "agent"])
async def test_stages_and_agents_are_chosen_not_edited(name: str, database: str) -> None:
    """No query names a stage; the variable lists what the table has, and its values are used by a query, quoted."""
    variable = variables("business")[name]
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    try:
        await connection.execute(
            "INSERT INTO public.stage_changes (person_id, stage_to, changed_at, received_at, source)"
            " VALUES ('1', 'ACQ - Offers Made', now(), now(), 'webhook')"
        )
        assert await connection.fetchval(variable["query"]) in CHOSEN[name]
    finally:
        await connection.close()
    assert any(f"${{{name}:sqlstring}}" in query.text for query in SQL)
    assert not any("ACQ" in query.text for query in SQL)


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
        agents = await stack.fetch(variables("business")["agent"]["query"])
    chosen = CHOSEN | {"agent": [row[0] for row in agents]}
    since, until = now - timedelta(days=1), now + timedelta(days=1)
    assert await sql_without_rows(database, since=since, until=until, chosen=chosen) == []
    of_now = {"Source health", "People", "People by current stage", "Time in stage"}
    later = await sql_without_rows(database, since=SINCE, until=UNTIL)
    assert {query.panel for query in SQL} - set(later) <= of_now


def test_the_data_sources_are_those_of_the_dashboards() -> None:
    """Each dashboard's default data source is provisioned, with the type that the dashboard needs."""
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "fubd.yaml").read_text(encoding="utf-8"))["datasources"]
    known = {(source["uid"], source["type"]) for source in sources}
    for name in NAMES:
        variable = variables(name)["datasource"]
        assert (variable["current"]["value"], variable["query"]) in known
