"""Recorded changes, page by page."""

from __future__ import annotations

from typing import cast

import aiohttp
import pytest

from fubd.server import ServerLimits
from tests.server.fakes import ServerUnderTest, row, running_server


async def read_json(web: aiohttp.ClientSession, url: str) -> tuple[int, dict[str, object]]:
    """Get a JSON document."""
    async with web.get(url) as response:
        assert response.content_type == "application/json"
        return response.status, cast("dict[str, object]", await response.json())


async def test_changes_are_paged_by_id(server: ServerUnderTest, web: aiohttp.ClientSession) -> None:
    """A client that follows `next_after` gets every row once, ascending, and keeps its position at the end."""
    server.view.table = [row(each) for each in range(1, 251)]
    seen: list[object] = []
    after: object = 0
    pages: list[int] = []
    while not pages or pages[-1]:
        status, page = await read_json(web, f"{server.url}/api/changes?after={after}")
        assert status == 200
        rows = cast("list[dict[str, object]]", page["changes"])
        pages.append(len(rows))
        seen += [each["id"] for each in rows]
        after = page["next_after"]
    assert seen == list(range(1, 251))
    assert (pages, after) == ([100, 100, 50, 0], 250)


@pytest.mark.parametrize("limit", [1, 1000, 1001, 10**9])
async def test_a_page_has_at_most_a_thousand_rows(server: ServerUnderTest, web: aiohttp.ClientSession, limit: int) -> None:
    """A larger limit is reduced, not refused."""
    server.view.table = [row(each) for each in range(1, 1101)]
    _, page = await read_json(web, f"{server.url}/api/changes?limit={limit}")
    assert len(cast("list[object]", page["changes"])) == min(limit, 1000)


@pytest.mark.parametrize(
    "query", ["after=", "after=-1", "after=x", "after=1.5", "after=%D9%A3", f"after={2**63}", "limit=0", "limit=", "limit=x"]
)
@pytest.mark.parametrize("path", ["/api/changes", "/api/stream"])
async def test_an_invalid_number_is_answered_400(web: aiohttp.ClientSession, path: str, query: str) -> None:
    """The JSON error says what is accepted."""
    if path == "/api/stream" and query.startswith("limit"):
        path = "/api/changes"
    async with running_server() as server:
        status, answer = await read_json(web, f"{server.url}{path}?{query}")
        assert status == 400
        assert "must be a whole number" in str(answer["error"])


async def test_reads_are_answered_503_while_the_database_is_away(web: aiohttp.ClientSession) -> None:
    """Also when the database does not answer in time; a table without one of its columns is another cause."""
    async with running_server(limits=ServerLimits(read_timeout_seconds=0.05)) as server:
        server.view.database_up = False
        for path in ("/api/changes", "/api/overview"):
            status, answer = await read_json(web, f"{server.url}{path}")
            assert (status, answer) == (503, {"error": "the database does not answer"})
        server.view.database_up = True
        server.view.refusal = "its column stage_to is missing"
        answer = (await read_json(web, f"{server.url}/api/overview"))[1]
        assert answer == {"error": "the table stage_changes cannot be read as it is now"}
        server.view.refusal = None
        server.view.gate.clear()
        for path in ("/api/changes", "/api/overview"):
            assert (await read_json(web, f"{server.url}{path}"))[0] == 503
