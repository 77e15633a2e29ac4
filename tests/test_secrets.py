"""No secret appears in any output (stdout, stderr, responses), whatever fails and however the secret is escaped."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
import trustme

from fubd.store.dsn import parse
from tests.stack import sign
from tests.support.ports import free_port
from tests.support.process import fubd
from tests.support.proxy import Proxy
from tests.support.tls import behind_tls

pytestmark = pytest.mark.slow

# Each secret contains this, and characters that have to be escaped.
_CANARY = "canary"
_PASSWORD = "canary/p@ss#w:o?r%d"
_SECRETS = {
    "FUB_API_KEY": "canary-api-key-0123456789",
    "FUB_SYSTEM_KEY": "canary-system-key-0123456789",
    "FUB_SYSTEM_KEY_PREVIOUS": "canary-previous-key-0123456789",
    "FUBD_METRICS_TOKEN": "canary-metrics-token-0123456789",
}
_PAGES = ("/", "/health", "/healthz", "/readyz", "/metrics", "/api/changes", "/api/overview", "/api/nothing")


def _settings(database_url: str, port: int, **more: str) -> dict[str, str]:
    return {
        **_SECRETS,
        "FUB_API_URL": f"http://127.0.0.1:{free_port()}/v1",
        "FUBD_ALERT_URL": f"http://127.0.0.1:{free_port()}/hooks/canary-alert-path",
        "DATABASE_URL": database_url,
        "PORT": str(port),
        "FUBD_HOST": "127.0.0.1",
        **more,
    }


async def _responses(port: int) -> str:
    """Return every response of the pages and the webhook route, with and without the token, headers included."""
    responses = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15.0)) as session:
        for path in _PAGES:
            for headers in ({}, {"Authorization": f"Bearer {_SECRETS['FUBD_METRICS_TOKEN']}"}):
                async with session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
                    responses.append(f"{answer.headers} {await answer.text()}")
        body = b'{"eventId": "x"}'
        for signature in ("wrong", sign(body, _SECRETS["FUB_SYSTEM_KEY"])):
            async with session.post(f"http://127.0.0.1:{port}/webhook/fub", data=body, headers={"FUB-Signature": signature}) as answer:
                responses.append(f"{answer.status} {answer.headers} {await answer.text()}")
    return "\n".join(responses)


def _assert_no_secret(*texts: str) -> None:
    for text in texts:
        for piece in (_CANARY, quote(_PASSWORD, safe=""), "p@ss", "p%40ss", "w:o?r"):
            assert piece not in text, text[max(0, text.index(piece) - 200) : text.index(piece) + 60]


def _url(host: str, port: int, *, escaped: bool = True) -> str:
    password = quote(_PASSWORD, safe="") if escaped else _PASSWORD
    return f"postgresql://fubd_user:{password}@{host}:{port}/fubd"


async def _assert_hidden(url: str, folder: Path, reason: str, **more: str) -> None:
    """Run the daemon until it reports why it has no database, and search everything it logs and answers."""
    port = free_port()
    async with fubd(environ=_settings(url, port, **more), folder=folder) as process:
        await process.line(lambda line: "waiting for the database" in line and reason in line)
        assert reason.encode() in await process.answers(f"http://127.0.0.1:{port}/readyz", status=503)
        responses = await _responses(port)
        process.terminate()
        assert await process.ended(within_seconds=12.0) == 0
    _assert_no_secret(responses, *process.lines, *process.errors)


@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "as it is"])
async def test_no_secret_while_the_password_is_refused(empty_database: str, tmp_path: Path, escaped: bool) -> None:
    """Follow Up Boss and the receiver of alerts are unreachable too, and the server's error repeats the password."""
    async with Proxy(empty_database) as proxy:
        proxy.refusal = ("28P01", f'password authentication failed for user "fubd_user" with {_PASSWORD}')
        await _assert_hidden(_url("127.0.0.1", proxy.port, escaped=escaped), tmp_path, "refused the user or the password")


async def test_no_secret_while_the_host_is_unknown(tmp_path: Path) -> None:
    """The host name does not exist: the reason names host, port and database, and no more of the URL."""
    await _assert_hidden(_url("nowhere.invalid", 5432), tmp_path, "name is not known")


async def test_no_secret_while_the_server_is_not_trusted(empty_database: str, tmp_path: Path) -> None:
    """Another authority (as text and as a file), another name, an expired certificate, and no TLS at all: never plaintext."""
    authority, other = trustme.CA(), trustme.CA()
    ours = authority.cert_pem.bytes().decode()
    file = tmp_path / "ca.pem"
    other.cert_pem.write_to_path(str(file))

    async def refused(number: int, name: str, certificate: str, *, expired: bool = False) -> None:
        own = tmp_path / str(number)
        own.mkdir()
        async with behind_tls(empty_database, authority, name, expired=expired) as url:
            await _assert_hidden(_url("localhost", parse(url).port), own, "is not trusted", DATABASE_CA_CERT=certificate)

    async with Proxy(empty_database) as proxy, asyncio.TaskGroup() as group:
        group.create_task(refused(1, "localhost", str(file)))
        group.create_task(refused(2, "localhost", other.cert_pem.bytes().decode()))
        group.create_task(refused(3, "elsewhere.example", ours))
        group.create_task(refused(4, "localhost", ours, expired=True))
        group.create_task(
            _assert_hidden(_url("127.0.0.1", proxy.port), tmp_path, "offers no TLS, which is required", DATABASE_CA_CERT=ours)
        )


@pytest.mark.parametrize("as_file", [True, False], ids=["a file", "PEM text"])
async def test_no_secret_with_a_trusted_server(database: str, tmp_path: Path, as_file: bool) -> None:
    """With the right certificate for the right name everything works, and no secret appears."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    certificate = str(file) if as_file else authority.cert_pem.bytes().decode()
    async with behind_tls(database, authority, "localhost") as url:
        port = free_port()
        async with fubd(environ=_settings(url, port, DATABASE_CA_CERT=certificate), folder=tmp_path) as process:
            await process.answers(f"http://127.0.0.1:{port}/readyz")
            responses = await _responses(port)
            process.terminate()
            assert await process.ended(within_seconds=12.0) == 0
        _assert_no_secret(responses, *process.lines, *process.errors)


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    """The daemon exits with 1 and one line that names the port."""
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        async with fubd(environ=_settings(_url("127.0.0.1", 1), port), folder=tmp_path) as process:
            assert await process.ended() == 1
        (line,) = process.errors
        assert f"cannot listen on port {port} (Address already in use): set PORT" in line
        _assert_no_secret(line, *process.lines)


async def test_a_foreign_address_is_one_line(tmp_path: Path) -> None:
    """FUBD_HOST with an address of another machine: the line names FUBD_HOST, not the port."""
    port = free_port()
    async with fubd(environ=_settings(_url("127.0.0.1", 1), port, FUBD_HOST="203.0.113.9"), folder=tmp_path) as process:
        assert await process.ended() == 1
    (line,) = process.errors
    assert line == f"fubd: cannot listen on port {port} of 203.0.113.9: set FUBD_HOST to an address of this machine, or remove it"


@pytest.mark.parametrize("command", ["check", "status", "audit", "replay", "explain 7", "adopt", "--poll-only"])
async def test_no_secret_in_commands(empty_database: str, tmp_path: Path, command: str) -> None:
    """With a database that refuses the password: exit code 1 and the reason, no traceback."""
    async with Proxy(empty_database) as proxy:
        proxy.refusal = ("28P01", f'password authentication failed for user "fubd_user" with {_PASSWORD}')
        environ = _settings(_url("127.0.0.1", proxy.port), free_port())
        async with fubd(*command.split(), environ=environ, folder=tmp_path) as process:
            assert await process.ended(within_seconds=60.0) == 1
        assert "refused the user or the password" in "\n".join((*process.lines, *process.errors))
        assert "Traceback" not in "\n".join(process.errors)
        _assert_no_secret(*process.lines, *process.errors)
