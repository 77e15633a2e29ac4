"""Every command where Python lacks what it lacks on Windows. Emulated on Unix (`tests/support/windows`); CI runs on Windows itself."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trustme

from tests.commands.environment import CompletedCommand, Environment, environment, run_command
from tests.recorder import read, running_recorder, webhook
from tests.support.ports import free_port
from tests.support.proxy import Proxy

pytestmark = pytest.mark.slow

_CHECKOUT = Path(__file__).parents[2]
_WINDOWS = {"PYTHONPATH": f"{_CHECKOUT / 'tests' / 'support' / 'windows'}:{_CHECKOUT}"}
_NOT_HERE = "does not run on this platform"


@pytest.fixture
async def account(database: str, tmp_path: Path) -> AsyncIterator[Environment]:
    """Return an account and a database with one person, reached by TCP, and the settings for commands on Windows."""
    async with running_recorder(database) as made:
        await made.record(read("Lead \u6f22", "08:00", "09:00"), webhook("e1", "Ólafs stage", "10:00"))
    async with Proxy(database) as proxy, environment(proxy.dsn, tmp_path, people=3) as own:
        yield Environment(own.simulator, {**own.settings, **_WINDOWS}, tmp_path)


@pytest.mark.parametrize("encoding", ["cp1252", "cp437"])
@pytest.mark.parametrize(
    ("arguments", "code", "last"),
    [
        ("status", 1, "lafs stage  01-05 10:00:00    webhook"),
        ("status --json", 1, '{"healthy": false'),
        ("explain 1", 0, "first sight: the stage the person was in, not a change"),
        ("explain 1 --json", 0, '{"person": {"id": 1,'),
        ("check", 1, "1 thing to fix, 1 not checked."),
        ("audit --json", 1, '{"completeness": 0.0, "people": 4,'),
        ("--poll-only", 0, "recovered 0 changes"),
        ("replay", 0, "replayed 0 deliveries: 0 understood, 0 remain"),
        ("adopt --yes", 0, "nothing to adopt."),
        ("forget 1 --yes", 0, "person 1 is forgotten;"),
    ],
)
async def test_a_command_runs_to_its_end(account: Environment, arguments: str, code: int, last: str, encoding: str) -> None:
    """The exit code and the last line are as everywhere, without a traceback, whatever the code page; --json is ASCII."""
    ended = await account.run(*arguments.split(), PYTHONIOENCODING=encoding)
    assert ended.code == code
    assert last in ended.lines[-1]
    assert not any("Traceback" in line for line in ended.errors)
    if "--json" in arguments:
        assert "\n".join(ended.lines).isascii()
        assert ended.json


async def test_the_daemon_starts_and_stops(account: Environment) -> None:
    """On Ctrl-C, or on Ctrl-Break (the emulation has SIGUSR2 for it), although the event loop takes no signal handlers."""
    for number in (signal.SIGINT, signal.SIGUSR2):
        port = free_port()
        async with account.running(PORT=str(port)) as process:
            await process.answers(f"http://127.0.0.1:{port}/readyz")
            process.signal(number)
            assert await process.ended() == 0
            assert process.errors == []


async def test_tail_follows_until_ctrl_c(account: Environment) -> None:
    """It shows the last changes, in a code page that lacks some of their characters, and exits 0."""
    async with account.running("tail", PYTHONIOENCODING="cp437") as process:
        await process.line("-> \\xd3lafs stage")
        process.signal(signal.SIGINT)
        assert (await process.ended(), process.errors) == (0, [])


@pytest.mark.parametrize("command", ["", "status", "check", "demo"])
async def test_what_the_platform_lacks_is_one_line(command: str, tmp_path: Path) -> None:
    """Without a database of one's own: the embedded one does not run there, and neither does the demo."""
    keys = {"FUB_API_KEY": "key-1", "FUB_SYSTEM_KEY": "key-2", "XDG_DATA_HOME": str(tmp_path)}
    ended = await _run(*command.split(), environ=keys, folder=tmp_path)
    assert ended.code == (1 if command == "demo" else 2)
    (line,) = ended.errors
    assert _NOT_HERE in line


@pytest.mark.parametrize("quote", ["", "'"])
async def test_a_path_with_back_slashes_in_the_env_file(account: Environment, quote: str) -> None:
    """It is taken as written; between double quotes, which make line breaks of some letters, the line says so."""
    path = account.folder / r"C:\Users\new\ca.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    env_file = account.folder / ".env"
    env_file.write_text(f"DATABASE_CA_CERT={quote}{path}{quote}\r\n")
    assert "DATABASE_CA_CERT" not in "".join((await account.run("status")).errors)
    env_file.write_text(f'DATABASE_CA_CERT="{path}"\r\n')
    ended = await account.run("status")
    assert ended.code == 2
    assert "DATABASE_CA_CERT: is a path with a control character; in .env, write a path without double quotes" in ended.errors[0]


async def test_json_of_hostile_names_is_ascii(account: Environment) -> None:
    """Neither a control character nor one that turns the direction of writing reaches the terminal."""
    async with running_recorder(account.settings["DATABASE_URL"]) as made:
        await made.record(read("\u202eevil\u0085\u009b31m", "08:00", "09:00", person=2))
    shown = await account.run("explain", "2", "--json")
    assert shown.lines[0].isascii()
    assert shown.lines[0].isprintable()
    assert json.loads(shown.lines[0])["person"]["stage"].startswith("\u202eevil")
    assert all(line.isprintable() for line in (await account.run("explain", "2", PYTHONIOENCODING="utf-8")).lines)


async def _run(*arguments: str, environ: Mapping[str, str], folder: Path) -> CompletedCommand:
    return await run_command(*arguments, environ={**environ, **_WINDOWS}, folder=folder)
