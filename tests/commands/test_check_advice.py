"""`check` on settings, alerts and access: each trouble has a fix of its own."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpServer

from fubd.commands.check import CheckStatus, run_checks
from fubd.commands.check.alerts import check_alerts
from fubd.commands.check.connection import explain_failure, explain_fub_failure
from fubd.commands.check.public import check_public_url
from fubd.commands.console import Console
from fubd.settings import Settings, UnknownVariable, UnreadableLine, load
from fubd.store.dsn import parse
from fubd.store.refusals import ANY_USER
from tests.commands.environment import environment, run_command

_PLACE = "the database at db.example:5432/postgres"
_CAUSES = [
    f"{_PLACE} refused the user or the password of DATABASE_URL",
    f"{_PLACE} does not exist: correct the name in DATABASE_URL, or create it",
    f"the pooler of {_PLACE} accepts no logins for about two minutes, after too many refused ones",
    f"{_PLACE} accepts no further connection",
    f"the pooler of {_PLACE} has no connection to its server",
    f"{_PLACE} is starting up or shutting down",
    f"the pooler of {_PLACE} runs in statement mode, and fubd needs transactions: set it to transaction or session mode",
    f"the user of DATABASE_URL lacks a privilege in {_PLACE}: run deploy/role.sql as the owner of the database",
    f"the user of DATABASE_URL lacks a privilege on the table claim in {_PLACE}: as its owner run GRANT SELECT ON fubd.claim",
    f"{_PLACE} can only be read: set DATABASE_URL to the primary server, with a role that may write; a Supabase project whose disk is full",
    f"the disk of {_PLACE} is full: free space or enlarge it",
    f"{_PLACE} has a certificate that is not trusted (self-signed certificate)",
    f"{_PLACE} offers no TLS, which is required",
    f"{_PLACE} cannot be reached (its host name is not known, or no name server answers)",
    f"{_PLACE} cannot be reached (Connection refused)",
    f"{_PLACE} cannot be reached (No route to host)",
    f"{_PLACE} cannot be reached (none of its addresses answers)",
    f"{_PLACE} did not answer in time",
]


def test_each_cause_has_its_own_fix() -> None:
    """No two of them share one, and what is found names host, port and database."""
    explained = [explain_failure(message, parse("postgresql://me@db.example/postgres")) for message in _CAUSES]
    assert all("db.example:5432/postgres" in found for found, _ in explained)
    assert len({fix for _, fix in explained}) == len(_CAUSES)
    assert "pg_hba.conf" in explain_failure(_CAUSES[0], parse("postgresql://me@db.example/postgres"))[1]
    assert "postgres.PROJECT" in explain_failure(_CAUSES[0], parse("postgresql://me@x.pooler.supabase.com/postgres"))[1]
    denied = f"the user of DATABASE_URL lacks a privilege on the table claim in {_PLACE}: run GRANT SELECT ON fubd.claim TO {ANY_USER}"
    assert explain_failure(denied, parse("postgresql://me@db.example/postgres"))[1].endswith('fubd.claim TO "me"')
    direct = parse("postgresql://me@db.abc.supabase.co/postgres")
    assert "session pooler" in explain_failure("… cannot be reached (Network is unreachable)", direct)[1]


_FUB_CAUSES = ("its certificate could not be verified", "its name could not be resolved", "no connection", "timed out")


def test_each_cause_at_follow_up_boss_has_its_own_fix() -> None:
    """Where a proxy is set, the fix says that fubd does not use it."""

    def fix(cause: str, *, has_proxy: bool = False) -> str:
        message = f"Follow Up Boss did not answer: {cause} after 5 attempts"
        return explain_fub_failure(message, host="api.example", port=443, has_proxy=has_proxy)

    assert len({fix(cause) for cause in (*_FUB_CAUSES, "a lost connection")}) == len(_FUB_CAUSES) + 1
    assert "api.example:443 directly" in fix("no connection", has_proxy=True)
    assert "SSL_CERT_FILE" in fix(_FUB_CAUSES[0], has_proxy=True)


async def test_misspelled_names(database: str, tmp_path: Path) -> None:
    """Each is one line with the right name; a name that resembles none is only a note."""
    async with environment(database, tmp_path, people=1) as made:
        misspelled = (UnknownVariable("FUBD_POL_INTERVAL", "FUBD_POLL_INTERVAL"), UnknownVariable("DATABASE_PUBLIC_URL", None))
        ignored = (*misspelled, UnreadableLine(".env", 3))
        results = (await run_checks(load(made.settings, env_file=None), without_effect=ignored))[:3]
        assert [(result.name, result.status) for result in results] == [
            ("configuration", CheckStatus.FIX),
            ("configuration", CheckStatus.NOTE),
            ("configuration", CheckStatus.FIX),
        ]
        assert results[0].fix == "rename it to FUBD_POLL_INTERVAL, or remove it"
        assert results[2].found == ".env line 3 cannot be read and has no effect"


@pytest.mark.slow
async def test_a_misspelled_database_url_is_named_when_the_embedded_one_is_used(tmp_path: Path) -> None:
    """Every command says on stderr which database it uses, and why."""
    environ = {"DATABSE_URL": "postgresql://me@db.example/x", "XDG_DATA_HOME": str(tmp_path)}
    ended = await run_command("status", environ=environ, folder=tmp_path)
    assert ended.errors[0] == (
        f"fubd: DATABASE_URL is not set, so the embedded Postgres in {tmp_path}/fubd/postgres is used; "
        "DATABSE_URL is not a setting of fubd and has no effect; did you mean DATABASE_URL?"
    )


async def test_stages_that_the_account_does_not_have(database: str, tmp_path: Path) -> None:
    """A watched stage that is misspelled would never be entered; the fix is the account's own name. Case does not matter."""
    async with environment(database, tmp_path, people=1) as made:
        stage = made.account.stages[0].name
        settings = {**made.settings, "FUBD_ALERT_STAGES": f'["{stage}", "{stage.upper()}", "{stage}x", "Nothing Like It"]'}
        results = [result for result in await run_checks(load(settings, env_file=None), without_effect=()) if result.name == "stages"]
        assert [result.status for result in results] == [CheckStatus.FIX, CheckStatus.FIX]
        assert results[0].fix == f"write {stage!r}"


class _Receiver:
    """A chat tool and a monitor: what they got, and the status they answer."""

    def __init__(self) -> None:
        self.status = 200
        self.text = '{"changes": []}'
        self.requests: list[tuple[str, str]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, await request.text()))
        return web.Response(status=self.status, text=self.text)


@pytest.fixture
async def receiver(aiohttp_server: AiohttpServer) -> _Receiver:
    """Run a receiver."""
    receiver, app = _Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    receiver.url = str((await aiohttp_server(app)).make_url("")).rstrip("/")
    return receiver


def _settings(receiver: _Receiver, **more: str) -> Settings:
    urls = {"FUBD_ALERT_URL": f"{receiver.url}/secret-token", "FUBD_HEARTBEAT_URL": f"{receiver.url}/ping"}
    return load({**urls, **more}, env_file=None)


async def test_a_test_message_and_a_test_heartbeat_are_sent(receiver: _Receiver) -> None:
    """Only with --alert; a receiver that refuses is something to fix, and its URL stays secret."""
    assert [result.status for result in await check_alerts(_settings(receiver), send=False)] == [CheckStatus.GOOD, CheckStatus.GOOD]
    assert receiver.requests == []
    assert [result.status for result in await check_alerts(_settings(receiver), send=True)] == [CheckStatus.GOOD, CheckStatus.GOOD]
    assert [method for method, _ in receiver.requests] == ["POST", "GET"]
    assert '"text": "fubd: this is a test message' in receiver.requests[0][1]
    assert [result.found[-30:] for result in await check_alerts(_settings(receiver), send=True)] == [
        """and answered '{"changes": []}'"""
    ] * 2
    receiver.text = "<!DOCTYPE html><title>Sign in</title>"
    pages = await check_alerts(_settings(receiver), send=True)
    assert [(result.status, "answered with a web page" in result.found) for result in pages] == [(CheckStatus.FIX, True)] * 2
    receiver.status, receiver.text = 404, '{"changes": []}'
    results = await check_alerts(_settings(receiver), send=True)
    assert [(result.status, """answers 404: {"changes": []}""" in result.found) for result in results] == [
        (CheckStatus.FIX, True),
        (CheckStatus.FIX, True),
    ]
    assert "secret-token" not in str(results)


async def test_without_a_receiver_there_is_nothing_to_test() -> None:
    """That is a note, and something to fix when a test was asked for or a stage is watched."""
    nothing = load({}, env_file=None)
    assert [result.status for result in await check_alerts(nothing, send=False)] == [CheckStatus.NOTE, CheckStatus.NOTE]
    assert (await check_alerts(nothing, send=True))[0].status is CheckStatus.FIX
    watched = load({"FUBD_ALERT_STAGES": '["Lead"]'}, env_file=None)
    assert (await check_alerts(watched, send=False))[0].status is CheckStatus.FIX


async def test_names_that_anybody_can_read(receiver: _Receiver) -> None:
    """A public URL that shows changes without a token is something to fix; a refusal is not."""
    assert (await check_public_url(_settings(receiver, PUBLIC_URL=receiver.url)))[1].status is CheckStatus.FIX
    receiver.status = 401
    found = (await check_public_url(_settings(receiver, PUBLIC_URL=receiver.url)))[1]
    assert (found.status, "only this machine" in found.found) == (CheckStatus.NOTE, True)
    token = {"PUBLIC_URL": receiver.url, "FUBD_METRICS_TOKEN": "an-invented-token-16"}
    assert (await check_public_url(_settings(receiver, **token)))[1].status is CheckStatus.GOOD


def test_a_long_result_is_wrapped_between_words() -> None:
    """Beside its label, without breaking a word; a code page without the mark gets a plain one."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp437")
    console = Console(out, io.StringIO(), width=40)
    assert console.symbol("✗", "x") == "x"
    words = ["the", "certificate", "of", "this", "server", "cannot", "be", "verified", "by", "anybody"]
    console.print_hanging((("x configuration  ", "bold"),), " ".join(words))
    out.seek(0)
    lines = out.read().splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert " ".join(lines).split()[2:] == words
