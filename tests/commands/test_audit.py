"""An audit as an owner runs it, and the comparison itself while the account changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
from typing_extensions import override

from fubd.clock import SystemClock
from fubd.commands.comparison import Comparison, ComparisonResult, MismatchKind
from fubd.commands.recording import run_ingest
from fubd.components import Components, build
from fubd.core.webhook import decode
from fubd.settings import load
from fubd.simulator import Account
from fubd.store.dsn import parse
from tests.commands.environment import Environment, environment

pytestmark = pytest.mark.slow


@asynccontextmanager
async def read_account(database: str, folder: Path, *, people: int = 250) -> AsyncIterator[Environment]:
    """Run an account that was read completely."""
    async with environment(database, folder, people=people) as here:
        assert (await here.run("--poll-only")).code == 0
        here.advance()
        yield here


@asynccontextmanager
async def components_of(here: Environment) -> AsyncIterator[Components]:
    """Build the components of a command, on a clock that runs ten times as fast."""
    settings = load(here.settings, env_file=None)
    components = build(settings, parse(here.settings["DATABASE_URL"]), clock=SystemClock(10.0))
    async with components.client:
        yield components
    await components.pool.close()


class BeforeEachCall(asyncio.Event):
    """An event that is never set, and does something each time it is asked, which is before each call."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self._act = act
        self._calls = 0

    @override
    def is_set(self) -> bool:
        self._calls += 1
        self._act(self._calls)
        return False


async def compare(
    here: Environment, *, sample: int | None = None, stop: asyncio.Event | None = None, is_fixed: bool = False
) -> ComparisonResult:
    """Compare in this process."""
    async with AsyncExitStack() as stack:
        components = await stack.enter_async_context(components_of(here))
        fix = await stack.enter_async_context(run_ingest(components)) if is_fixed else None
        comparison = Comparison(
            components.client,
            components.pool,
            components.clock,
            ignored_stages=(),
            watermark=None,
            fix=fix,
            on_progress=lambda _: None,
            stop=stop or asyncio.Event(),
        )
        return await (comparison.compare_all() if sample is None else comparison.compare_sample(sample, Random(7).randint))


async def execute(here: Environment, statement: str, *values: object) -> None:
    """Change the database directly."""
    async with components_of(here) as components, components.pool.connection() as connection:
        await connection.execute(statement, *values)


async def test_mismatches_are_found_and_recorded(database: str, tmp_path: Path) -> None:
    """Every kind of mismatch is counted and listed with the completeness; after --fix there is none."""
    async with read_account(database, tmp_path) as here:
        agreed = await here.run("audit")
        assert (agreed.code, agreed.lines[-1]) == (0, "completeness 1: 250 of 250 people as in Follow Up Boss")
        one, other, deleted, back = here.account.ids[:4]
        here.account.move(one, "ACQ - Offers Made")
        here.account.trash(other)
        here.account.delete(deleted)
        created = here.account.create(stage="Lead")
        await execute(here, "UPDATE fubd.person SET gone_at = now() WHERE id = $1", back)
        here.advance()
        found = await here.run("audit", "--json", "--fix", "--min", "0.99")
        assert (found.code, found.json["people"], found.json["matched"], found.json["recorded"]) == (1, 251, 246, 5)
        assert {row["person_id"]: row["kind"] for row in found.json["differences"]} == {
            one: MismatchKind.STAGE,
            other: MismatchKind.STAGE,
            deleted: MismatchKind.DELETED,
            back: MismatchKind.RETURNED,
            created: MismatchKind.UNKNOWN,
        }
        assert (await here.run("audit")).lines[-1] == "completeness 1: 250 of 250 people as in Follow Up Boss"
        async with components_of(here) as components:
            rows = [row.to_dict() for row in await components.changes.recent(10)]
        assert {(row["person_id"], row["stage_to"], row["source"]) for row in rows} == {
            (str(one), "ACQ - Offers Made", "polling"),
            (str(other), "Trash", "polling"),
            (str(created), "Lead", "polling"),
        }


async def test_the_minimum_decides_the_exit_code(database: str, tmp_path: Path) -> None:
    """At the minimum it exits 0, below it 1; the ratio printed reads 1 only when everyone matches."""
    async with read_account(database, tmp_path) as here:
        here.account.move(here.account.ids[0], "ACQ - Offers Made")
        here.advance()
        enough, short = await here.run("audit", "--min", "0.996"), await here.run("audit", "--min", "0.9961")
        assert (enough.code, short.code) == (0, 1)
        assert enough.lines[-1] == "completeness 0.996: 249 of 250 people as in Follow Up Boss"
        assert any(line.split()[0] == str(here.account.ids[0]) and "ACQ - Offers Made" in line for line in enough.lines)


async def test_a_lost_row_is_found(database: str, tmp_path: Path) -> None:
    """A deleted row is found, although its person was read in their present stage; --fix restores it from the evidence."""
    async with read_account(database, tmp_path, people=20) as here:
        person = here.account.ids[0]
        here.account.move(person, "ACQ - Offers Made")
        here.advance()
        assert (await here.run("--poll-only")).lines[-1] == "recovered 1 changes"
        await execute(here, "DELETE FROM public.stage_changes")
        here.advance()
        assert [one.person_id for one in (await compare(here)).listed] == [person]
        assert (await here.run("audit", "--fix")).code == 1
        assert (await compare(here)).mismatched == 0


async def test_what_the_evidence_contradicts_is_not_called_recorded(database: str, tmp_path: Path) -> None:
    """A webhook that reports a stage which FUB does not show stands; --fix says that this person still differs."""
    async with read_account(database, tmp_path, people=20) as here:
        one, other = here.account.ids[:2]
        here.account.move(one, "ACQ - Offers Made")
        event = {"eventId": "e-1", "eventCreated": here.account.clock.now().isoformat(timespec="seconds"), "event": "peopleStageUpdated"}
        body = json.dumps(event | {"resourceIds": [other], "data": {"stage": "ACQ - Closed Won"}}).encode()
        async with components_of(here) as components, run_ingest(components) as ingest:
            await ingest.deliver(decode(body, fub_now=here.account.clock.now()))
        here.advance()
        fixed = await here.run("audit", "--fix")
        assert fixed.lines[-5:-3] == ["in another stage: 2 people", "recorded now: 1 of 2 people"]
        assert fixed.lines[-3].startswith("still different: 1 person.")
        assert [one.person_id for one in (await compare(here)).listed] == [other]


async def test_what_is_not_recorded_is_no_mismatch(database: str, tmp_path: Path) -> None:
    """A renamed stage, and a stage whose moves are not recorded, are no mismatches."""
    async with read_account(database, tmp_path) as here:
        here.account.rename_stage("Nurture", "Long Nurture")
        here.advance()
        assert (await compare(here)).mismatched == 0
        here.account.move(here.account.ids[0], "ACQ - Offers Made")
        here.advance()
        ignoring = await here.run("audit", "--json", FUBD_IGNORE_STAGES='["ACQ - Offers Made"]')
        assert (ignoring.code, ignoring.json["different"]) == (0, 0)


async def test_people_who_change_during_the_audit_are_left_out(database: str, tmp_path: Path) -> None:
    """People who change during it are read again and then left out; a person who differed before is still found."""
    async with read_account(database, tmp_path) as here:
        here.account.move(here.account.ids[0], "ACQ - Contract Sent")
        here.advance()
        moved = reversed(here.account.ids)

        def move_another(call: int) -> None:
            # Two calls find the range of ids, and the third begins to read it.
            if call > 3:
                here.account.move(next(moved), "ACQ - Offers Made")

        result = await compare(here, stop=BeforeEachCall(move_another))
        assert [one.person_id for one in result.listed] == [here.account.ids[0]]
        assert 1 <= result.changing <= 5
        assert result.matched + result.changing == 249


async def test_a_fix_records_people_who_change_during_the_audit(database: str, tmp_path: Path) -> None:
    """As they were last read; they are not compared, and no others differ afterwards."""
    async with read_account(database, tmp_path) as here:
        last = here.account.ids[-1]
        stages = cycle(["ACQ - Offers Made", "ACQ - Contract Sent"])

        def move_again(call: int) -> None:
            if call > 3:
                here.account.move(last, next(stages))

        fixed = await compare(here, stop=BeforeEachCall(move_again), is_fixed=True)
        assert (fixed.changing, fixed.matched, fixed.mismatched) == (1, 249, 0)
        async with components_of(here) as components:
            assert [row.to_dict()["person_id"] for row in await components.changes.recent(10)] == [str(last)]


async def test_a_sample_is_of_the_account(database: str, tmp_path: Path) -> None:
    """It compares that many people at random places of the account, in a call for each ten of them; more than all are all."""
    async with read_account(database, tmp_path) as here:
        sampled = await here.run("audit", "--sample", "50", "--json")
        assert (sampled.code, sampled.json["people"]) == (0, 50)
        assert sampled.json["api_calls"] <= 20
        assert (await compare(here, sample=1000)).compared == 250


async def test_a_sample_finds_people_that_the_database_never_had(database: str, tmp_path: Path) -> None:
    """The database is empty."""
    async with environment(database, tmp_path) as here:
        sampled = await here.run("audit", "--sample", "20", "--json")
        assert (sampled.code, sampled.json["matched"], sampled.json["kinds"]) == (1, 0, {"unknown here": 20})


async def test_nothing_compared_is_no_pass(database: str, tmp_path: Path) -> None:
    """An account without people, with any minimum."""
    async with environment(database, tmp_path, people=0) as here:
        for arguments in (("--min", "0"), ("--sample", "10", "--min", "0")):
            audited = await here.run("audit", *arguments)
            assert audited.code == 1
            assert audited.lines[-1] == "nothing was compared: Follow Up Boss lists nobody whose stage can be read"


async def test_people_missing_from_lists_are_not_taken_for_deleted(database: str, tmp_path: Path) -> None:
    """When lists show only a small part of the account, 200 people are read one by one and the rest is not compared."""
    async with read_account(database, tmp_path) as here:
        for person_id in here.account.ids[:230]:
            here.account.delete(person_id)
        here.advance()
        result = await compare(here)
        assert (result.counts[MismatchKind.DELETED], result.unconfirmed, result.matched) == (200, 30, 20)
        assert sum(request.endpoint == "person" for request in here.simulator.requests) == 200


async def test_a_failure_is_one_line_with_its_exit_code(database: str, empty_database: str, tmp_path: Path) -> None:
    """Refused by FUB, without a schema, and without a key: 1, 1 and 2."""
    async with environment(database, tmp_path, people=5) as here:
        refused = await here.run("audit", FUB_API_KEY="another-key")
        assert (refused.code, refused.lines) == (1, [])
        assert refused.errors == [line for line in refused.errors if line.startswith("fubd: ") and "401" in line]
        without_schema = await here.run("audit", DATABASE_URL=empty_database)
        assert (without_schema.code, len(without_schema.errors)) == (1, 1)
        assert (await here.run("audit", FUB_API_KEY="")).code == 2


async def test_an_agents_key_proves_nothing_about_people_it_does_not_see(database: str, tmp_path: Path) -> None:
    """They are not called deleted, nor marked so by --fix, and the audit is no pass; the key of another account compares nothing."""
    async with read_account(database, tmp_path, people=40) as here:
        here.simulator.keys.add("an-agents-key", "agent")
        for arguments in (("--json",), ("--json", "--fix")):
            ended = await here.run("audit", *arguments, FUB_API_KEY="an-agents-key")
            assert (ended.code, ended.json["kinds"], ended.json["hidden"] > 0) == (1, {}, True)
            assert ended.json["people"] + ended.json["hidden"] == 40
        assert (await here.run("audit")).code == 0
        here.simulator.put_behind_key(Account(seed=8, people=40, clock=here.account.clock))
        ended = await here.run("audit")
        assert (ended.code, ended.lines) == (2, [])
        assert "FUB_API_KEY belongs to the account simulated-8" in ended.errors[-1]
