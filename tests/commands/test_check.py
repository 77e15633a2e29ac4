"""`check`: all good beside a running daemon, and each thing being wrong, one after the other, with its fix."""

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

from fubd.commands.check import Finding, Status, examined
from fubd.settings import load
from fubd.simulator import Account, SimClock, Simulator
from fubd.store.dsn import parse
from tests.commands.fakes import World, world
from tests.stack import running_stack
from tests.support import legacy_tables
from tests.support.pooler import pooled
from tests.support.ports import free_port
from tests.support.process import fubd
from tests.support.tls import behind_tls

NAMES = ["configuration", "database", "tls", "pooler", "schema", "exposure", "api key", "system", "clock", "webhooks", "public url"]


@pytest.fixture
async def healthy(database: str, tmp_path: Path) -> AsyncIterator[World]:
    """Give a world in which everything is good; something answers at the public address, and the webhooks lead there."""
    app = web.Application()
    app.router.add_get("/healthz", _alive)
    app.router.add_post("/webhook/fub", _refused)
    app.router.add_get("/moved/healthz", _moved)
    app.router.add_get("/{status:\\d+}/healthz", _alive)
    app.router.add_post("/{status:\\d+}/webhook/fub", _answered)
    app.router.add_get("/forged/healthz", _alive)
    app.router.add_post("/forged/webhook/fub", _refused)
    app.router.add_get("/forged/metrics", _counted)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    public = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with world(database, tmp_path, people=5) as made:
        for event in ("peopleStageUpdated", "peopleCreated", "peopleDeleted"):
            made.simulator.subscribe(event, f"{public}/webhook/fub")
        yield World(made.simulator, {**made.settings, "PUBLIC_URL": public}, tmp_path)
    await runner.cleanup()


async def _alive(_request: web.Request) -> web.Response:
    return web.Response(text="alive\n")


async def _moved(_request: web.Request) -> web.Response:
    return web.Response(status=301, headers={"Location": "/healthz"})


async def _refused(request: web.Request) -> web.Response:
    return web.Response(status=401 if "FUB-Signature" not in request.headers else 200)


async def _answered(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["status"]), headers={"Location": "/"})


async def _counted(request: web.Request) -> web.Response:
    asked = request.headers.get("Authorization") == "Bearer invented-token"
    accepted = 0 if asked else 1
    return web.Response(
        text=f'fubd_webhook_deliveries_total{{outcome="accepted"}} {accepted}.0\nfubd_webhook_deliveries_total{{outcome="forged"}} 1024.0\n'
    )


async def found(made: World, settings: Mapping[str, str] | None = None) -> dict[str, Finding]:
    """Examine a world, some settings being others ("" is not set)."""
    findings = await examined(load({**made.settings, **(settings or {})}, env_file=None))
    assert [finding.name for finding in findings] == NAMES
    return {finding.name: finding for finding in findings}


async def wrong(made: World, settings: Mapping[str, str] | None = None) -> dict[str, Finding]:
    """Give only what is to be put right; each of it says how."""
    told = {name: finding for name, finding in (await found(made, settings)).items() if finding.status is Status.FIX}
    assert all(finding.fix for finding in told.values())
    return told


async def test_beside_a_running_daemon_all_is_good(database: str, tmp_path: Path) -> None:
    """Exit 0 and a line for each thing; in JSON the same."""
    async with running_stack(database, tmp_path, people=5) as stack, stack.ready_daemon():
        async with fubd("check", environ=stack.environ, folder=tmp_path) as process:
            assert await process.ended() == 0, process.lines
            assert [line[8:].split("  ")[0].strip() for line in process.lines[:-1]] == NAMES
            assert (process.lines[-1], process.errors) == ("All good.", [])
        async with fubd("check", "--json", environ=stack.environ, folder=tmp_path) as process:
            assert await process.ended() == 0
            (line,) = process.lines
            assert line.startswith('{"good": true, "checks": [{"name": "configuration", "status": "ok", ')


async def test_what_is_wrong_is_told_and_the_exit_says_so(healthy: World) -> None:
    """Exit 1 with the fix on the line; 2 when the configuration cannot be used; no secret in any of it."""
    ended = await healthy.run("check", FUB_API_KEY="a-key-nobody-knows", DATABASE_URL="postgresql://me:pass-word-123@127.0.0.1:1/x")
    assert ended.code == 1
    assert any(line.startswith("fix     api key") and " -> set FUB_API_KEY" in line for line in ended.lines)
    assert ended.lines[-1] == "2 things to put right, 7 not examined."
    ended_json = await healthy.run("check", "--json", FUB_API_KEY="a-key-nobody-knows")
    assert (ended_json.code, ended_json.json["good"]) == (1, False)
    unusable = await healthy.run("check", FUB_API_KEY="", FUBD_API_SHARE="7")
    assert (unusable.code, unusable.lines) == (2, [])
    assert [line.split(":")[1].strip() for line in unusable.errors] == ["FUBD_API_SHARE", "FUB_API_KEY"]
    told = "\n".join((*ended.lines, *ended.errors, *ended_json.lines, *unusable.errors))
    for secret in ("a-key-nobody-knows", "pass-word-123", "test-api-key", "test-system-key"):
        assert secret not in told


async def test_all_good_without_a_process(healthy: World) -> None:
    """The world that the other tests spoil is good."""
    assert await wrong(healthy) == {}
    assert {finding.status for finding in (await found(healthy)).values()} == {Status.GOOD}


# --- Follow Up Boss ---------------------------------------------------------------------------------------------------


async def test_a_key_that_is_not_valid(healthy: World) -> None:
    """Nothing else of Follow Up Boss can be examined."""
    told = await found(healthy, {"FUB_API_KEY": "another"})
    assert (told["api key"].status, told["api key"].found) == (Status.FIX, "Follow Up Boss does not accept FUB_API_KEY")
    assert {told[name].status for name in ("system", "clock", "webhooks")} == {Status.UNKNOWN}


async def test_a_key_that_is_not_the_owners(healthy: World) -> None:
    """Webhooks are the owner's alone; the system is known to be registered by the rate limit."""
    healthy.simulator.keys.add("admins-key", "admin")
    told = await found(healthy, {"FUB_API_KEY": "admins-key"})
    assert (told["api key"].status, "not its owner's" in told["api key"].found) == (Status.FIX, True)
    assert (told["system"].status, told["webhooks"].status) == (Status.GOOD, Status.UNKNOWN)


@pytest.mark.parametrize("key", ["", "a-key-of-no-system"], ids=["not set", "unknown"])
async def test_a_system_that_is_not_registered(healthy: World, key: str) -> None:
    """Half the rate limit, and no webhooks."""
    told = await wrong(healthy, {"FUB_SYSTEM_KEY": key})
    assert set(told) == ({"system"} if key else {"configuration", "system"})
    assert "system-registration" in told["system"].fix


async def test_follow_up_boss_out_of_reach(healthy: World) -> None:
    """Told as such, not as a bad key."""
    told = await found(healthy, {"FUB_API_URL": f"http://127.0.0.1:{free_port()}/v1"})
    assert (told["api key"].status, "no connection" in told["api key"].found) == (Status.FIX, True)


@pytest.mark.parametrize(("ahead", "words"), [(timedelta(hours=-1), "1 h ahead of"), (timedelta(minutes=5), "5 min behind")])
async def test_a_wrong_clock(database: str, tmp_path: Path, ahead: timedelta, words: str) -> None:
    """Measured against Follow Up Boss's."""
    simulator = Simulator(Account(seed=1, people=5, clock=SimClock(datetime.now(UTC) + ahead)))
    async with simulator.running() as url:
        made = World(simulator, {"DATABASE_URL": database, "FUB_API_KEY": "test-api-key", "FUB_API_URL": url}, tmp_path)
        assert words in (await wrong(made))["clock"].found


async def test_a_webhook_that_stands_beside_ours_is_named(healthy: World) -> None:
    """A second subscription of ours is a note that names it: nothing is broken, and only the owner can tell whether it is wanted."""
    healthy.simulator.subscribe("peopleStageUpdated", f"{healthy.settings['PUBLIC_URL']}/webhook/fub")
    told = (await found(healthy))["webhooks"]
    assert told.status is Status.NOTE
    assert "peopleStageUpdated: webhook" in told.fix
    assert "brings every delivery a second time" in told.fix


async def test_webhooks_that_do_not_reach_us(healthy: World) -> None:
    """One missing, one disabled, one that leads elsewhere; nothing is put right by looking."""
    stage, created, deleted = healthy.simulator.registry.all()
    healthy.simulator.registry.delete(stage)
    healthy.simulator.registry.disable(created)
    healthy.simulator.registry.update(deleted, url="https://elsewhere.example/webhook/fub")
    told = (await wrong(healthy))["webhooks"]
    assert told.found == "peopleStageUpdated is missing, peopleCreated is disabled, peopleDeleted is elsewhere"
    assert told.fix == "start the daemon: it puts that right with its next poll"
    assert "FUBD_MANAGE_WEBHOOKS=true" in (await wrong(healthy, {"FUBD_MANAGE_WEBHOOKS": "no"}))["webhooks"].fix
    assert len(healthy.simulator.registry.all()) == 2


async def test_webhooks_of_the_older_scripts_are_ours(healthy: World) -> None:
    """Under the older route, at the public address: good. At another host: the daemon will see to it."""
    stage, *_ = healthy.simulator.registry.all()
    public = healthy.settings["PUBLIC_URL"]
    healthy.simulator.registry.update(stage, url=f"{public}/webhook/fub/stage-change")
    assert "webhooks" not in await wrong(healthy)
    healthy.simulator.registry.update(stage, url="https://legacy_tables.example/webhook/fub/stage-change")
    told = (await wrong(healthy))["webhooks"]
    assert (told.found, told.fix) == ("peopleStageUpdated is elsewhere", "start the daemon: it puts that right with its next poll")


async def test_webhooks_for_which_there_is_no_place(healthy: World) -> None:
    """Two of other programs under our system hold both: told what to do, as no daemon can put that right."""
    stage, *_ = healthy.simulator.registry.all()
    healthy.simulator.registry.delete(stage)
    for other in ("one", "other"):
        healthy.simulator.subscribe("peopleStageUpdated", f"https://elsewhere.example/{other}")
    told = (await wrong(healthy))["webhooks"]
    assert told.found == "peopleStageUpdated is slots taken"
    assert "remove one of them, or register another system" in told.fix


# --- The public address -----------------------------------------------------------------------------------------------


async def test_a_public_address_at_which_fubd_does_not_answer(healthy: World) -> None:
    """Nobody there, another program, a redirect, a name that is not known, and none set."""
    public = healthy.settings["PUBLIC_URL"]
    for url, words in (
        (f"http://127.0.0.1:{free_port()}", "no connection"),
        (f"{public}/other", "something else than fubd answers"),
        (f"{public}/moved", "leads elsewhere (301)"),
        ("https://nowhere.invalid", "cannot be reached"),
        (f"{public}/200", "would be taken as delivered, and lost"),
        (f"{public}/204", "would be taken as delivered, and lost"),
        (f"{public}/308", "leads elsewhere (308)"),
        (f"{public}/403", "answered 403, and not by fubd"),
        (f"{public}/406", "Follow Up Boss deletes a webhook"),
        (f"{public}/410", "Follow Up Boss deletes a webhook"),
        (f"{public}/502", "answered 502, and not by fubd"),
        ("", "PUBLIC_URL is not set"),
    ):
        assert words in (await wrong(healthy, {"PUBLIC_URL": url}))["public url"].found
    alone = await found(healthy, {"PUBLIC_URL": "", "FUBD_MANAGE_WEBHOOKS": "false"})
    assert (alone["public url"].status, alone["webhooks"].status) == (Status.NOTE, Status.NOTE)


async def test_a_key_that_signs_nothing_of_what_comes(healthy: World) -> None:
    """The daemon at the public address has refused every request so far, and more of them than come of looking."""
    forged = {"PUBLIC_URL": f"{healthy.settings['PUBLIC_URL']}/forged"}
    told = (await wrong(healthy, {**forged, "FUBD_METRICS_TOKEN": "invented-token"}))["public url"]
    assert "not one of 1,024 requests since its start had a good signature" in told.found
    assert "FUB_SYSTEM_KEY" in told.fix
    assert "public url" not in await wrong(healthy, forged)


async def test_what_hangs_is_waited_for_only_so_long(healthy: World) -> None:
    """Database, Follow Up Boss and public address that accept and never answer: told within half a minute, with what to do."""
    # The system takes the connections, and nobody ever reads from them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = {
            "DATABASE_URL": f"postgresql://me:x@127.0.0.1:{port}/x",
            "FUB_API_URL": f"http://127.0.0.1:{port}/v1",
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        async with asyncio.timeout(30):
            assert set(await wrong(healthy, settings)) == {"database", "api key", "public url"}


async def test_nothing_is_said_beside_the_lines(healthy: World) -> None:
    """Webhooks that lead elsewhere are told on their line alone."""
    ended = await healthy.run("check", PUBLIC_URL="http://127.0.0.1:9")
    assert (ended.code, ended.errors) == (1, [])
    assert any("peopleStageUpdated is elsewhere" in line for line in ended.lines)


async def test_looking_changes_nothing(healthy: World) -> None:
    """No table, no row and no webhook is another afterwards."""
    contents = "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables ORDER BY 1"
    connection = await asyncpg.connect(**parse(healthy.settings["DATABASE_URL"]).connect_arguments())
    before, hooks = await connection.fetch(contents), list(healthy.simulator.registry.all())
    await found(healthy)
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    assert await connection.fetch(contents) == before
    assert list(healthy.simulator.registry.all()) == hooks
    await connection.close()


# --- The database -----------------------------------------------------------------------------------------------------


async def test_a_database_out_of_reach(healthy: World) -> None:
    """Nobody listens, the password is wrong, the database does not exist: each in words, and the rest is not examined."""
    dsn = parse(healthy.settings["DATABASE_URL"])
    missing = healthy.settings["DATABASE_URL"].replace(dsn.database, "not_there")
    for url, words in ((f"postgresql://me:secret@127.0.0.1:{free_port()}/x", "cannot be reached"), (missing, "does not exist")):
        told = await found(healthy, {"DATABASE_URL": url})
        assert (told["database"].status, words in told["database"].found) == (Status.FIX, True)
        assert {told[name].status for name in ("tls", "pooler", "schema", "exposure")} == {Status.UNKNOWN}


async def test_a_database_that_can_only_be_read(healthy: World) -> None:
    """A standby, or one that is set so."""
    dsn = parse(healthy.settings["DATABASE_URL"])
    await _execute(healthy, f'ALTER DATABASE "{dsn.database}" SET default_transaction_read_only = on')
    assert "can only be read" in (await wrong(healthy))["database"].found


async def test_tls_is_told_as_it_is(healthy: World) -> None:
    """Encrypted or not, verified or not; with a certificate of another name the database is out of reach."""
    assert "not encrypted: the server is on this machine" in (await found(healthy))["tls"].found
    authority = trustme.CA()
    certificates = {"DATABASE_CA_CERT": authority.cert_pem.bytes().decode()}
    async with behind_tls(healthy.settings["DATABASE_URL"], authority, "localhost") as url:
        assert (await found(healthy, {"DATABASE_URL": url, **certificates}))["tls"].found.startswith("verify-full: encrypted")
        unverified = (await found(healthy, {"DATABASE_URL": f"{url}&sslmode=require"}))["tls"]
        assert (unverified.status, "DATABASE_CA_CERT" in unverified.fix) == (Status.NOTE, True)
    async with behind_tls(healthy.settings["DATABASE_URL"], authority, "elsewhere.example") as url:
        assert set(await wrong(healthy, {"DATABASE_URL": url, **certificates})) == {"database"}


@pytest.mark.parametrize(
    ("mode", "words", "status"),
    [("session", "a pooler in session mode", Status.GOOD), ("transaction", "a pooler in transaction mode", Status.NOTE)],
)
async def test_the_mode_of_a_pooler_is_found_out(healthy: World, mode: str, words: str, status: Status) -> None:
    """By what it does, not by its port; everything else can be examined through it."""
    async with pooled(healthy.settings["DATABASE_URL"], mode=mode) as pooler:
        told = await found(healthy, {"DATABASE_URL": pooler.url})
        assert (told["pooler"].status, words in told["pooler"].found) == (status, True)
        assert (told["schema"].status, told["exposure"].status) == (Status.GOOD, Status.GOOD)


async def test_schemas_that_are_not_ours_to_write(healthy: World) -> None:
    """One that is newer, one that was applied with another text, and an older table that nobody has taken over."""
    await _execute(healthy, "INSERT INTO fubd.migration (number, name, sha256) VALUES (9999, 'later', 'x')")
    assert "newer" in (await wrong(healthy))["schema"].found
    await _execute(healthy, "DELETE FROM fubd.migration WHERE number = 9999; UPDATE fubd.migration SET sha256 = 'x' WHERE number = 3")
    assert "another text" in (await wrong(healthy))["schema"].found


async def test_schemas_that_are_still_to_be_made(healthy: World, empty_database: str) -> None:
    """An empty database and one of an older version are brought up to date by the daemon; where it may not, the grant is told."""
    made = World(healthy.simulator, {**healthy.settings, "DATABASE_URL": empty_database}, healthy.folder)
    assert (await found(made))["schema"].status is Status.NOTE
    await _execute(made, legacy_tables.VARIANTS["as reconstructed"])
    assert (await wrong(made))["schema"].fix == "run: python -m fubd adopt"
    await _execute(healthy, "DELETE FROM fubd.migration WHERE number > 3")
    assert "older version of fubd" in (await found(healthy))["schema"].found


async def test_a_role_that_may_not_make_the_schema(healthy: World, empty_database: str) -> None:
    """Told with the grants that it needs."""
    dsn = parse(empty_database)
    name = f"{dsn.database}_reader"
    made = World(healthy.simulator, {**healthy.settings, "DATABASE_URL": empty_database}, healthy.folder)
    await _execute(made, f"CREATE ROLE {name} LOGIN PASSWORD 'x'; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        url = empty_database.replace(f"//{dsn.user}", f"//{name}:x", 1) if not dsn.password else empty_database
        told = (await wrong(made, {"DATABASE_URL": url}))["schema"]
        assert f"GRANT CREATE ON SCHEMA public TO {name}" in told.fix
    finally:
        await _execute(made, f"DROP ROLE {name}")


async def test_rows_of_another_writer_are_told(healthy: World) -> None:
    """As a thing to be known: the older scripts still run."""
    await _execute(healthy, "INSERT INTO fubd.foreign_row (id) VALUES (1), (2)")
    told = (await found(healthy))["schema"]
    assert (told.status, "another writer has added 2 rows" in told.found) == (Status.NOTE, True)


async def test_a_table_that_is_open_to_web_clients(healthy: World) -> None:
    """Told with the statement that closes it, which does."""
    await _execute(healthy, "CREATE POLICY open ON stage_changes USING (true); GRANT SELECT ON stage_changes TO PUBLIC")
    made_roles = await _roles(healthy)
    try:
        told = (await wrong(healthy))["exposure"]
        assert "public.stage_changes is open to anon and authenticated" in told.found
        await _execute(healthy, told.fix.removeprefix("run: "))
        assert "exposure" not in await wrong(healthy)
    finally:
        for role in made_roles:
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
async def test_each_way_in_for_web_clients_is_closed_by_what_is_told(healthy: World, opening: str) -> None:
    """By a column, a view, a copy, a sequence, the schema, or as a member of the owner."""
    made_roles = await _roles(healthy)
    owner = f"{parse(healthy.settings['DATABASE_URL']).database}_owner"
    try:
        await _execute(healthy, "GRANT USAGE ON SCHEMA public TO anon, authenticated;" + opening.format(owner))
        told = (await wrong(healthy))["exposure"]
        await _execute(healthy, told.fix.removeprefix("run: "))
        assert "exposure" not in await wrong(healthy)
    finally:
        await _execute(healthy, f"ALTER TABLE stage_changes OWNER TO CURRENT_USER; DROP ROLE IF EXISTS {owner}")
        for role in made_roles:
            await _execute(healthy, f"DROP OWNED BY {role}; DROP ROLE {role}")


async def _roles(made: World) -> list[str]:
    connection = await asyncpg.connect(**parse(made.settings["DATABASE_URL"]).connect_arguments())
    missing = [
        name for name in ("anon", "authenticated") if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name)
    ]
    for name in missing:
        await connection.execute(f"CREATE ROLE {name}")
    await connection.close()
    return missing


async def _execute(made: World, statement: str) -> None:
    connection = await asyncpg.connect(**parse(made.settings["DATABASE_URL"]).connect_arguments())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
