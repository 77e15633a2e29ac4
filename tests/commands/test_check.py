"""`check`: all good next to a running daemon, and each thing that can be wrong, with its fix."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import trustme
from aiohttp import web
from pytest_aiohttp import AiohttpServer

from fubd.commands.check import CheckResult, CheckStatus, run_checks
from fubd.settings import load
from fubd.simulator import Account, SimClock, Simulator
from fubd.store.dsn import parse
from tests.commands.environment import Environment, environment
from tests.stack import running_stack
from tests.support import legacy_tables
from tests.support.pooler import pooled
from tests.support.ports import free_port
from tests.support.process import fubd
from tests.support.tls import behind_tls

pytestmark = pytest.mark.slow

NAMES = [
    "configuration",
    "database",
    "tls",
    "pooler",
    "schema",
    "table",
    "exposure",
    "api key",
    "system",
    "clock",
    "webhooks",
    "public url",
    "page",
    "alerts",
    "heartbeat",
]


@pytest.fixture
async def healthy(database: str, tmp_path: Path, aiohttp_server: AiohttpServer) -> AsyncIterator[Environment]:
    """An environment in which everything is good: the public URL is answered as by fubd, and the webhooks point to it."""
    app = web.Application()
    app.router.add_get("/healthz", _alive)
    app.router.add_post("/webhook/fub", _refused)
    app.router.add_get("/moved/healthz", _moved)
    app.router.add_get("/{status:\\d+}/healthz", _alive)
    app.router.add_post("/{status:\\d+}/webhook/fub", _answered)
    app.router.add_get("/forged/healthz", _alive)
    app.router.add_post("/forged/webhook/fub", _refused)
    app.router.add_get("/forged/metrics", _counted)
    public = str((await aiohttp_server(app)).make_url("")).rstrip("/")
    async with environment(database, tmp_path, people=5) as made:
        for event in ("peopleStageUpdated", "peopleCreated", "peopleDeleted"):
            made.simulator.subscribe(event, f"{public}/webhook/fub")
        yield Environment(made.simulator, {**made.settings, "PUBLIC_URL": public}, tmp_path)


async def _alive(_request: web.Request) -> web.Response:
    return web.Response(text="alive\n")


async def _moved(_request: web.Request) -> web.Response:
    return web.Response(status=301, headers={"Location": "/healthz"})


async def _refused(request: web.Request) -> web.Response:
    return web.Response(status=401 if "FUB-Signature" not in request.headers else 200)


async def _answered(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["status"]), headers={"Location": "/"})


async def _counted(request: web.Request) -> web.Response:
    asked = request.headers.get("Authorization") == "Bearer invented-token-of-16"
    accepted = 0 if asked else 1
    return web.Response(
        text=f'fubd_webhook_deliveries_total{{outcome="accepted"}} {accepted}.0\nfubd_webhook_deliveries_total{{outcome="forged"}} 1024.0\n'
    )


async def check(made: Environment, settings: Mapping[str, str] | None = None) -> dict[str, CheckResult]:
    """Return all results by name; `settings` replace those of the environment ("" is not set)."""
    results = await run_checks(load({**made.settings, **(settings or {})}, env_file=None))
    assert [result.name for result in results] == NAMES
    return {result.name: result for result in results}


async def problems(made: Environment, settings: Mapping[str, str] | None = None) -> dict[str, CheckResult]:
    """Return only the results with something to fix; each says how."""
    found = {name: result for name, result in (await check(made, settings)).items() if result.status is CheckStatus.FIX}
    assert all(result.fix for result in found.values())
    return found


async def test_all_is_good_next_to_a_running_daemon(database: str, tmp_path: Path) -> None:
    """Exit 0 and one line per thing; the same with --json."""
    async with running_stack(database, tmp_path, people=5) as stack, stack.ready_daemon():
        async with fubd("check", environ=stack.environ, folder=tmp_path) as process:
            assert await process.ended() == 0, process.lines
            assert [line[8:].split("  ")[0].strip() for line in process.lines[:-1]] == NAMES
            assert (process.lines[-1], process.errors) == ("All good.", [])
        async with fubd("check", "--json", environ=stack.environ, folder=tmp_path) as process:
            assert await process.ended() == 0
            (line,) = process.lines
            assert line.startswith('{"good": true, "checks": [{"name": "configuration", "status": "ok", ')


async def test_problems_are_printed_with_their_fix(healthy: Environment) -> None:
    """Exit 1 with the fix on the line; 2 for a bad configuration; no secret anywhere."""
    ended = await healthy.run("check", FUB_API_KEY="an-unknown-key", DATABASE_URL="postgresql://me:pass-word-123@127.0.0.1:1/x")
    assert ended.code == 1
    assert any(line.startswith("fix     api key") and " -> set FUB_API_KEY" in line for line in ended.lines)
    assert ended.lines[-1] == "2 things to fix, 8 not checked."
    ended_json = await healthy.run("check", "--json", FUB_API_KEY="an-unknown-key")
    assert (ended_json.code, ended_json.json["good"]) == (1, False)
    unusable = await healthy.run("check", FUB_API_KEY="", FUBD_API_SHARE="7")
    assert (unusable.code, unusable.lines) == (2, [])
    assert [line.split(":")[1].strip() for line in unusable.errors] == ["FUBD_API_SHARE", "FUB_API_KEY"]
    printed = "\n".join((*ended.lines, *ended.errors, *ended_json.lines, *unusable.errors))
    for secret in ("an-unknown-key", "pass-word-123", "test-api-key", "test-system-key"):
        assert secret not in printed


async def test_the_environment_of_these_tests_is_good(healthy: Environment) -> None:
    """Nothing is wrong before a test breaks something."""
    assert await problems(healthy) == {}
    notes = {name for name, result in (await check(healthy)).items() if result.status is not CheckStatus.GOOD}
    assert notes == {"page", "alerts", "heartbeat"}


# --- Follow Up Boss ---------------------------------------------------------------------------------------------------


async def test_an_invalid_key(healthy: Environment) -> None:
    """Nothing else of Follow Up Boss can be checked."""
    found = await check(healthy, {"FUB_API_KEY": "another"})
    assert (found["api key"].status, found["api key"].found) == (CheckStatus.FIX, "Follow Up Boss does not accept FUB_API_KEY")
    assert {found[name].status for name in ("system", "clock", "webhooks")} == {CheckStatus.UNKNOWN}


async def test_a_key_that_is_not_the_owners(healthy: Environment) -> None:
    """Only the owner's key may manage webhooks; the rate limit shows that the system is registered."""
    healthy.simulator.keys.add("admins-key", "admin")
    found = await check(healthy, {"FUB_API_KEY": "admins-key"})
    assert (found["api key"].status, "not its owner's" in found["api key"].found) == (CheckStatus.FIX, True)
    assert (found["system"].status, found["webhooks"].status) == (CheckStatus.GOOD, CheckStatus.UNKNOWN)


@pytest.mark.parametrize("key", ["", "a-key-of-no-system"], ids=["not set", "unknown"])
async def test_a_system_that_is_not_registered(healthy: Environment, key: str) -> None:
    """Half the rate limit, and no webhooks."""
    found = await problems(healthy, {"FUB_SYSTEM_KEY": key})
    assert set(found) == ({"system"} if key else {"configuration", "system"})
    assert "system-registration" in found["system"].fix


async def test_follow_up_boss_out_of_reach(healthy: Environment) -> None:
    """It is not reported as a bad key."""
    found = await check(healthy, {"FUB_API_URL": f"http://127.0.0.1:{free_port()}/v1"})
    assert (found["api key"].status, "no connection" in found["api key"].found) == (CheckStatus.FIX, True)


@pytest.mark.parametrize(("ahead", "words"), [(timedelta(hours=-1), "1 h ahead of"), (timedelta(minutes=5), "5 min behind")])
async def test_a_wrong_clock(database: str, tmp_path: Path, ahead: timedelta, words: str) -> None:
    """The clock is compared with Follow Up Boss's."""
    simulator = Simulator(Account(seed=1, people=5, clock=SimClock(datetime.now(UTC) + ahead)))
    async with simulator.running() as url:
        made = Environment(simulator, {"DATABASE_URL": database, "FUB_API_KEY": "test-api-key", "FUB_API_URL": url}, tmp_path)
        assert words in (await problems(made))["clock"].found


async def test_a_second_webhook_of_ours_is_a_note(healthy: Environment) -> None:
    """The note names it: nothing is broken, and only the owner knows whether it is wanted."""
    healthy.simulator.subscribe("peopleStageUpdated", f"{healthy.settings['PUBLIC_URL']}/webhook/fub")
    found = (await check(healthy))["webhooks"]
    assert found.status is CheckStatus.NOTE
    assert "peopleStageUpdated: webhook" in found.fix
    assert "sends every delivery a second time" in found.fix


async def test_webhooks_that_do_not_reach_us(healthy: Environment) -> None:
    """One missing, one disabled, one that points elsewhere; the check itself corrects nothing."""
    stage, created, deleted = healthy.simulator.registry.all()
    healthy.simulator.registry.delete(stage)
    healthy.simulator.registry.disable(created)
    healthy.simulator.registry.update(deleted, url="https://elsewhere.example/webhook/fub")
    found = (await problems(healthy))["webhooks"]
    assert found.found == "peopleStageUpdated is missing, peopleCreated is disabled, peopleDeleted is missing"
    assert found.fix == "start the daemon: it corrects this with its next poll"
    assert "FUBD_MANAGE_WEBHOOKS=true" in (await problems(healthy, {"FUBD_MANAGE_WEBHOOKS": "no"}))["webhooks"].fix
    assert len(healthy.simulator.registry.all()) == 2


async def test_webhooks_on_the_older_route_are_ours(healthy: Environment) -> None:
    """On the older route of the public URL they are good; at another host the daemon corrects them."""
    stage, *_ = healthy.simulator.registry.all()
    public = healthy.settings["PUBLIC_URL"]
    healthy.simulator.registry.update(stage, url=f"{public}/webhook/fub/stage-change")
    assert "webhooks" not in await problems(healthy)
    healthy.simulator.registry.update(stage, url="https://legacy.example/webhook/fub/stage-change")
    found = (await problems(healthy))["webhooks"]
    assert (found.found, found.fix) == ("peopleStageUpdated is missing", "start the daemon: it corrects this with its next poll")


async def test_webhooks_without_a_free_slot(healthy: Environment) -> None:
    """Two webhooks of other programs use both slots of our system: the owner has to remove one, the daemon cannot."""
    stage, *_ = healthy.simulator.registry.all()
    healthy.simulator.registry.delete(stage)
    for other in ("one", "other"):
        healthy.simulator.subscribe("peopleStageUpdated", f"https://elsewhere.example/{other}")
    found = (await problems(healthy))["webhooks"]
    assert found.found == "peopleStageUpdated is slots taken"
    assert "remove one of them, or register another system" in found.fix


# --- The public URL -----------------------------------------------------------------------------------------------


async def test_a_public_url_at_which_fubd_does_not_answer(healthy: Environment) -> None:
    """No server, another program, a redirect, an unknown name, a blocked POST, and no PUBLIC_URL."""
    public = healthy.settings["PUBLIC_URL"]
    for url, words in (
        (f"http://127.0.0.1:{free_port()}", "no connection"),
        (f"{public}/other", "something other than fubd answers"),
        (f"{public}/moved", "redirects (status 301)"),
        ("https://nowhere.invalid", "cannot be reached"),
        (f"{public}/200", "would take webhooks as delivered, and they would be lost"),
        (f"{public}/204", "would take webhooks as delivered, and they would be lost"),
        (f"{public}/308", "redirects (status 308)"),
        (f"{public}/403", "answered with status 403, not by fubd"),
        (f"{public}/406", "Follow Up Boss deletes a webhook"),
        (f"{public}/410", "Follow Up Boss deletes a webhook"),
        (f"{public}/502", "answered with status 502, not by fubd"),
        ("", "PUBLIC_URL is not set"),
    ):
        assert words in (await problems(healthy, {"PUBLIC_URL": url}))["public url"].found
    unmanaged = await check(healthy, {"PUBLIC_URL": "", "FUBD_MANAGE_WEBHOOKS": "false"})
    assert (unmanaged["public url"].status, unmanaged["webhooks"].status) == (CheckStatus.NOTE, CheckStatus.NOTE)


async def test_a_daemon_with_the_wrong_signing_key(healthy: Environment) -> None:
    """The daemon at the public URL has rejected every request so far, and more than `check` itself causes."""
    forged = {"PUBLIC_URL": f"{healthy.settings['PUBLIC_URL']}/forged"}
    found = (await problems(healthy, {**forged, "FUBD_METRICS_TOKEN": "invented-token-of-16"}))["public url"]
    assert "none of 1,024 requests since its start had a valid signature" in found.found
    assert "FUB_SYSTEM_KEY" in found.fix
    assert "public url" not in await problems(healthy, forged)


async def test_servers_that_hang_time_out(healthy: Environment) -> None:
    """A database, a Follow Up Boss and a public URL that accept and never answer: reported within half a minute."""
    # The system accepts the connections, and no program reads from them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = {
            "DATABASE_URL": f"postgresql://me:x@127.0.0.1:{port}/x",
            "FUB_API_URL": f"http://127.0.0.1:{port}/v1",
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        async with asyncio.timeout(30):
            assert set(await problems(healthy, settings)) == {"database", "api key", "public url"}


async def test_nothing_but_the_results_is_printed(healthy: Environment) -> None:
    """Webhooks that point elsewhere are reported only in their result, not as log lines."""
    ended = await healthy.run("check", PUBLIC_URL="http://127.0.0.1:9")
    assert (ended.code, ended.errors) == (1, [])
    assert any("peopleStageUpdated is elsewhere" in line for line in ended.lines)


async def test_looking_changes_nothing(healthy: Environment) -> None:
    """No table, no row and no webhook is another afterwards."""
    contents = "SELECT relname, n_live_tup FROM pg_stat_user_tables ORDER BY 1"
    connection = await asyncpg.connect(**parse(healthy.settings["DATABASE_URL"]).connect_arguments())
    before, hooks = await connection.fetch(contents), list(healthy.simulator.registry.all())
    await check(healthy)
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    assert await connection.fetch(contents) == before
    assert list(healthy.simulator.registry.all()) == hooks
    await connection.close()


# --- The database -----------------------------------------------------------------------------------------------------


async def test_a_database_out_of_reach(healthy: Environment) -> None:
    """No server, or no such database: each in words, and the rest is not checked."""
    dsn = parse(healthy.settings["DATABASE_URL"])
    missing = healthy.settings["DATABASE_URL"].replace(dsn.database, "not_there")
    for url, words in ((f"postgresql://me:secret@127.0.0.1:{free_port()}/x", "cannot be reached"), (missing, "does not exist")):
        found = await check(healthy, {"DATABASE_URL": url})
        assert (found["database"].status, words in found["database"].found) == (CheckStatus.FIX, True)
        assert {found[name].status for name in ("tls", "pooler", "schema", "table", "exposure")} == {CheckStatus.UNKNOWN}


async def test_a_read_only_database(healthy: Environment) -> None:
    """A standby, or a database configured so."""
    dsn = parse(healthy.settings["DATABASE_URL"])
    await _execute(healthy, f'ALTER DATABASE "{dsn.database}" SET default_transaction_read_only = on')
    assert "is set to read-only" in (await problems(healthy))["database"].found


async def test_tls_is_reported_as_it_is(healthy: Environment) -> None:
    """Encrypted or not, verified or not; with a certificate for another name the database cannot be reached."""
    assert "not encrypted: the server is on this machine" in (await check(healthy))["tls"].found
    authority = trustme.CA()
    certificates = {"DATABASE_CA_CERT": authority.cert_pem.bytes().decode()}
    async with behind_tls(healthy.settings["DATABASE_URL"], authority, "localhost") as url:
        assert (await check(healthy, {"DATABASE_URL": url, **certificates}))["tls"].found.startswith("verify-full: encrypted")
        unverified = (await check(healthy, {"DATABASE_URL": f"{url}&sslmode=require"}))["tls"]
        assert (unverified.status, "DATABASE_CA_CERT" in unverified.fix) == (CheckStatus.NOTE, True)
    async with behind_tls(healthy.settings["DATABASE_URL"], authority, "elsewhere.example") as url:
        assert set(await problems(healthy, {"DATABASE_URL": url, **certificates})) == {"database"}


@pytest.mark.parametrize(
    ("mode", "words", "status"),
    [("session", "a pooler in session mode", CheckStatus.GOOD), ("transaction", "a pooler in transaction mode", CheckStatus.NOTE)],
)
async def test_the_mode_of_a_pooler_is_detected(healthy: Environment, mode: str, words: str, status: CheckStatus) -> None:
    """By its behaviour, not by its port; everything else can be checked through it."""
    async with pooled(healthy.settings["DATABASE_URL"], mode=mode) as pooler:
        found = await check(healthy, {"DATABASE_URL": pooler.url})
        assert (found["pooler"].status, words in found["pooler"].found) == (status, True)
        assert (found["schema"].status, found["exposure"].status) == (CheckStatus.GOOD, CheckStatus.GOOD)


async def test_schemas_of_another_version(healthy: Environment) -> None:
    """A newer one, and one with a migration of another text."""
    await _execute(healthy, "INSERT INTO fubd.migration (number, name, sha256) VALUES (9999, 'later', 'x')")
    assert "newer" in (await problems(healthy))["schema"].found
    await _execute(healthy, "DELETE FROM fubd.migration WHERE number = 9999; UPDATE fubd.migration SET sha256 = 'x' WHERE number = 3")
    assert "another text" in (await problems(healthy))["schema"].found


async def test_schemas_that_the_daemon_brings_up_to_date(healthy: Environment, empty_database: str) -> None:
    """An empty database, and one of an older version; a table of older scripts has to be adopted first."""
    made = Environment(healthy.simulator, {**healthy.settings, "DATABASE_URL": empty_database}, healthy.folder)
    assert (await check(made))["schema"].status is CheckStatus.NOTE
    await _execute(made, legacy_tables.VARIANTS["as reconstructed"])
    assert (await problems(made))["schema"].fix == "run: python -m fubd adopt"
    await _execute(healthy, "DELETE FROM fubd.migration WHERE number > 3")
    assert "older version of fubd" in (await check(healthy))["schema"].found


async def test_a_role_that_may_not_make_the_schema(healthy: Environment, empty_database: str) -> None:
    """The fix names the grants that it needs."""
    dsn = parse(empty_database)
    name = f"{dsn.database}_reader"
    made = Environment(healthy.simulator, {**healthy.settings, "DATABASE_URL": empty_database}, healthy.folder)
    await _execute(made, f"CREATE ROLE {name} LOGIN PASSWORD 'x'; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        url = empty_database.replace(f"//{dsn.user}", f"//{name}:x", 1) if not dsn.password else empty_database
        found = (await problems(made, {"DATABASE_URL": url}))["schema"]
        assert f"GRANT CREATE ON SCHEMA public TO {name}" in found.fix
    finally:
        await _execute(made, f"DROP ROLE {name}")


async def test_rows_of_another_program_are_a_note(healthy: Environment) -> None:
    """The older scripts still run."""
    await _execute(healthy, "INSERT INTO fubd.foreign_row (id) VALUES (1), (2)")
    found = (await check(healthy))["schema"]
    assert (found.status, "another program has added 2 rows" in found.found) == (CheckStatus.NOTE, True)


async def test_a_table_that_is_open_to_web_clients(healthy: Environment) -> None:
    """The fix is the statement that closes it."""
    await _execute(healthy, "CREATE POLICY open ON stage_changes USING (true); GRANT SELECT ON stage_changes TO PUBLIC")
    created_roles = await _roles(healthy)
    try:
        found = (await problems(healthy))["exposure"]
        assert "public.stage_changes is open to anon and authenticated" in found.found
        await _execute(healthy, found.fix.removeprefix("run: "))
        assert "exposure" not in await problems(healthy)
    finally:
        for role in created_roles:
            await _execute(healthy, f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "opening",
    [
        "GRANT SELECT (stage_to) ON stage_changes TO anon; CREATE POLICY open ON stage_changes USING (true)",
        "CREATE VIEW mine AS SELECT * FROM stage_changes; GRANT SELECT ON mine TO authenticated",
        "CREATE MATERIALIZED VIEW mine AS SELECT * FROM stage_changes; GRANT SELECT ON mine TO PUBLIC",
        "GRANT USAGE ON SEQUENCE stage_changes_id_seq TO anon",
        "GRANT USAGE ON SCHEMA fubd TO anon; GRANT SELECT ON fubd.person TO anon; CREATE POLICY open ON fubd.person TO anon USING (true)",
        "CREATE ROLE {0}; ALTER TABLE stage_changes OWNER TO {0}; GRANT {0} TO anon",
    ],
)
async def test_the_fix_closes_each_way_in_for_web_clients(healthy: Environment, opening: str) -> None:
    """Through a column, a view, a materialized view, a sequence, the schema, or membership in the owner."""
    created_roles = await _roles(healthy)
    owner = f"{parse(healthy.settings['DATABASE_URL']).database}_owner"
    try:
        await _execute(healthy, "GRANT USAGE ON SCHEMA public TO anon, authenticated;" + opening.format(owner))
        found = (await problems(healthy))["exposure"]
        await _execute(healthy, found.fix.removeprefix("run: "))
        assert "exposure" not in await problems(healthy)
    finally:
        await _execute(healthy, f"ALTER TABLE stage_changes OWNER TO CURRENT_USER; DROP ROLE IF EXISTS {owner}")
        for role in created_roles:
            await _execute(healthy, f"DROP OWNED BY {role}; DROP ROLE {role}")


async def _roles(made: Environment) -> list[str]:
    connection = await asyncpg.connect(**parse(made.settings["DATABASE_URL"]).connect_arguments())
    missing = [
        name for name in ("anon", "authenticated") if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name)
    ]
    for name in missing:
        await connection.execute(f"CREATE ROLE {name}")
    await connection.close()
    return missing


async def _execute(made: Environment, statement: str) -> None:
    connection = await asyncpg.connect(**parse(made.settings["DATABASE_URL"]).connect_arguments())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
