"""The dashboards' panels and queries, and how to run the queries without a Grafana."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from promql_parser import parse_duration

from fubd.store.dsn import parse

GRAFANA = Path(__file__).parents[2] / "grafana"
NAMES = ("fubd", "business")

# A variable of the dashboard in the format that quotes its values for SQL, and what the tests choose for it.
_VARIABLE = re.compile(r"\$\{(\w+):sqlstring\}")
CHOSEN = {"stage": ("ACQ - Offers Made", "Nurture's"), "offer": ("ACQ - Offers Made",), "agent": ("nobody",)}
# Grafana's own pattern for a macro of its SQL data sources: the arguments hold no closing parenthesis.
_MACRO = re.compile(r"\$(__\w+)\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel; `text` is PromQL or SQL. `instant`: for one moment instead of a range."""

    panel: str
    text: str
    instant: bool
    legend: str


def dashboard(name: str) -> dict[str, Any]:
    """Read a dashboard's file."""
    model: dict[str, Any] = json.loads((GRAFANA / f"{name}.json").read_text(encoding="utf-8"))
    return model


def panels(name: str) -> list[dict[str, Any]]:
    """Return the panels that show data, without the rows between them."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def queries(name: str) -> Iterator[Query]:
    """Yield every query of a dashboard."""
    for panel in panels(name):
        for target in panel["targets"]:
            text = target.get("expr") or target["rawSql"]
            yield Query(panel["title"], text, bool(target.get("instant")), target.get("legendFormat", ""))


def promql(text: str, *, rate_interval: str = "1m", shown: str = "1h") -> str:
    """Replace Grafana's variables in a PromQL query. `shown`: the dashboard's time range."""
    return text.replace("$__rate_interval", rate_interval).replace("$__range", shown)


def sql(text: str, *, since: datetime, until: datetime, chosen: Mapping[str, Sequence[str]] = CHOSEN) -> str:
    """Expand Grafana's macros and variables in a SQL query for the time range from `since` to `until` (aware)."""

    def quote(match: re.Match[str]) -> str:
        return ",".join("'" + value.replace("'", "''") + "'" for value in chosen[match[1]])

    def expand(match: re.Match[str]) -> str:
        name, arguments = match[1], [part.strip() for part in match[2].split(",")]
        return macros[name](arguments)

    def time_filter(arguments: list[str]) -> str:
        (column,) = arguments
        return f"{column} BETWEEN '{since.isoformat()}' AND '{until.isoformat()}'"

    def time_group(arguments: list[str]) -> str:
        column, interval = arguments
        seconds = int(parse_duration(interval.strip("'")).total_seconds())
        return f"floor(extract(epoch from {column})/{seconds})*{seconds}"

    macros: Mapping[str, Callable[[list[str]], str]] = {
        "__timeFilter": time_filter,
        "__timeGroup": time_group,
        "__timeGroupAlias": lambda arguments: f'{time_group(arguments)} AS "time"',
        "__timeFrom": lambda _: f"'{since.isoformat()}'",
        "__timeTo": lambda _: f"'{until.isoformat()}'",
    }
    return _MACRO.sub(expand, _VARIABLE.sub(quote, text))


async def without_data(prometheus_url: str, *, rate_interval: str = "1m", shown_seconds: float = 300.0) -> list[str]:
    """Run every query of the Prometheus dashboard on a real Prometheus and return those that return no number.

    `rate_interval`: at least four scrapes, as Grafana chooses it. `shown_seconds`: the time range, up to now.
    """
    empty = []
    async with aiohttp.ClientSession() as session:
        for query in queries("fubd"):
            expression = promql(query.text, rate_interval=rate_interval, shown=f"{max(1, round(shown_seconds))}s")
            if not await _has_data(session, prometheus_url, expression, instant=query.instant, shown_seconds=shown_seconds):
                empty.append(f"{query.panel}: {expression}")
    return empty


async def _has_data(session: aiohttp.ClientSession, url: str, expression: str, *, instant: bool, shown_seconds: float) -> bool:
    now = time.time()
    parameters = {"query": expression, "time": str(now)}
    if not instant:
        parameters = {
            "query": expression,
            "start": str(now - shown_seconds),
            "end": str(now),
            "step": f"{max(1.0, shown_seconds / 120):.3f}",
        }
    async with session.get(f"{url}/api/v1/{'query' if instant else 'query_range'}", params=parameters) as response:
        answer = await response.json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    samples = [sample for series in answer["data"]["result"] for sample in series.get("values", [series.get("value")])]
    return any(not math.isnan(float(value)) for _, value in samples)


def variables(name: str) -> dict[str, dict[str, Any]]:
    """Return the variables of a dashboard by name."""
    return {variable["name"]: variable for variable in dashboard(name)["templating"]["list"]}


async def sql_without_rows(
    database_url: str, *, since: datetime, until: datetime, chosen: Mapping[str, Sequence[str]] = CHOSEN
) -> list[str]:
    """Run every query of the business dashboard on a database and return the panels whose query returns no row."""
    connection = await asyncpg.connect(**parse(database_url).connect_arguments())
    try:
        async with connection.transaction(readonly=True):
            rows = {
                query.panel: await connection.fetch(sql(query.text, since=since, until=until, chosen=chosen))
                for query in queries("business")
            }
    finally:
        await connection.close()
    return [panel for panel, records in rows.items() if not records]
