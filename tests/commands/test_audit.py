"""An audit as an owner runs it, and the comparison itself while the account moves under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fubd.clock import SystemClock
from fubd.commands.comparison import Comparison, Kind, Result
from fubd.components import Components, build
from fubd.poller import Progress
from fubd.settings import load
from fubd.store.dsn import parse
from tests.commands.fakes import World, world


@asynccontextmanager
async def known(database: str, folder: Path, *, people: int = 250) -> AsyncIterator[World]:
    """Serve an account that has been read completely."""
    async with world(database, folder, people=people) as here:
        assert (await here.run("--poll-only")).code == 0
        here.pass_by()
        yield here


@asynccontextmanager
async def parts_of(here: World) -> AsyncIterator[Components]:
    """Give the parts of a command, on a clock that runs ten times as fast."""
    settings = load(here.settings, env_file=None)
    components = build(settings, parse(here.settings["DATABASE_URL"]), clock=SystemClock(10.0))
    async with components.client:
        yield components
    await components.pool.close()


async def compared(here: World, *, sample: int | None = None, meanwhile: Callable[[Progress], None] = lambda _: None) -> Result:
    """Compare in this process; `meanwhile` is called after each page."""
    async with parts_of(here) as components:
        comparison = Comparison(
            components.client,
            components.pool,
            components.clock,
            ignored_stages=(),
            covered=None,
            fix=None,
            progress=meanwhile,
            stop=asyncio.Event(),
        )
        return await (comparison.everybody() if sample is None else comparison.sample(sample))


async def execute(here: World, statement: str, *values: object) -> None:
    """Change the database behind everybody's back."""
    async with parts_of(here) as components, components.pool.connection() as connection:
        await connection.execute(statement, *values)


async def test_finds_what_differs_and_records_it(database: str, tmp_path: Path) -> None:
    """Every kind of difference is counted and listed with the share of people who agree; with --fix they are gone the next time."""
    async with known(database, tmp_path) as here:
        agreed = await here.run("audit")
        assert (agreed.code, agreed.lines[-1]) == (0, "completeness 1: 250 of 250 people as in Follow Up Boss")
        one, other, deleted, back = here.account.ids[:4]
        here.account.move(one, "ACQ - Offers Made")
        here.account.trash(other)
        here.account.delete(deleted)
        newcomer = here.account.create(stage="Lead")
        await execute(here, "UPDATE fubd.person SET gone_at = now() WHERE id = $1", back)
        here.pass_by()
        found = await here.run("audit", "--json", "--fix", "--min", "0.99")
        assert (found.code, found.json["people"], found.json["matched"], found.json["fixed"]) == (1, 251, 246, True)
        assert {row["person_id"]: row["kind"] for row in found.json["differences"]} == {
            one: Kind.STAGE,
            other: Kind.STAGE,
            deleted: Kind.GONE,
            back: Kind.RETURNED,
            newcomer: Kind.UNKNOWN,
        }
        assert (await here.run("audit")).lines[-1] == "completeness 1: 250 of 250 people as in Follow Up Boss"
        async with parts_of(here) as components:
            rows = [row.to_dict() for row in await components.changes.recent(10)]
        assert {(row["person_id"], row["stage_to"], row["source"]) for row in rows} == {
            (str(one), "ACQ - Offers Made", "polling"),
            (str(other), "Trash", "polling"),
            (str(newcomer), "Lead", "polling"),
        }


async def test_the_bar_decides(database: str, tmp_path: Path) -> None:
    """At the bar it exits 0 and below it 1, and the ratio printed reads 1 only when everybody agrees."""
    async with known(database, tmp_path) as here:
        here.account.move(here.account.ids[0], "ACQ - Offers Made")
        here.pass_by()
        enough, short = await here.run("audit", "--min", "0.996"), await here.run("audit", "--min", "0.9961")
        assert (enough.code, short.code) == (0, 1)
        assert enough.lines[-1] == "completeness 0.996: 249 of 250 people as in Follow Up Boss"
        assert any(line.split()[0] == str(here.account.ids[0]) and "ACQ - Offers Made" in line for line in enough.lines)


async def test_a_lost_row_is_found(database: str, tmp_path: Path) -> None:
    """A row that somebody removed is missed, though its person was read as they stand; --fix brings it back from the evidence."""
    async with known(database, tmp_path, people=20) as here:
        person = here.account.ids[0]
        here.account.move(person, "ACQ - Offers Made")
        here.pass_by()
        assert (await here.run("--poll-only")).lines[-1] == "recovered 1 changes"
        await execute(here, "DELETE FROM public.stage_changes")
        here.pass_by()
        assert [one.person_id for one in (await compared(here)).listed] == [person]
        assert (await here.run("audit", "--fix")).code == 1
        assert (await compared(here)).different == 0


async def test_what_is_no_move_is_no_difference(database: str, tmp_path: Path) -> None:
    """A renamed stage, and a stage whose moves are not recorded, are no differences."""
    async with known(database, tmp_path) as here:
        here.account.rename_stage("Nurture", "Long Nurture")
        here.pass_by()
        assert (await compared(here)).different == 0
        here.account.move(here.account.ids[0], "ACQ - Offers Made")
        here.pass_by()
        ignoring = await here.run("audit", "--json", FUBD_IGNORE_STAGES='["ACQ - Offers Made"]')
        assert (ignoring.code, ignoring.json["different"]) == (0, 0)


async def test_who_moves_meanwhile_is_not_called_different(database: str, tmp_path: Path) -> None:
    """People who change while it runs are looked at again and then left out; who differed before is found among them all the same."""
    async with known(database, tmp_path) as here:
        here.account.move(here.account.ids[0], "ACQ - Contract Sent")
        here.pass_by()
        moved = reversed(here.account.ids)

        def move_another(_: Progress) -> None:
            here.account.move(next(moved), "ACQ - Offers Made")

        result = await compared(here, meanwhile=move_another)
        assert [one.person_id for one in result.listed] == [here.account.ids[0]]
        assert 1 <= result.moving <= 5
        assert result.matched + result.moving == 249


async def test_a_sample_reads_no_more_than_it_needs(database: str, tmp_path: Path) -> None:
    """A sample compares so many people who are known, chosen anew each time, in as few calls as they fit in."""
    async with known(database, tmp_path) as here:
        told = await here.run("audit", "--sample", "150", "--json")
        assert (told.code, told.json["people"], told.json["api_calls"]) == (0, 150, 2)
        assert (await compared(here, sample=1000)).judged == 250


async def test_people_out_of_sight_are_not_taken_for_deleted(database: str, tmp_path: Path) -> None:
    """When a great part of the account is not shown, a bounded number is asked for one by one and the rest is not judged."""
    async with known(database, tmp_path) as here:
        for person_id in here.account.ids[:230]:
            here.account.delete(person_id)
        here.pass_by()
        result = await compared(here)
        assert (result.counts[Kind.GONE], result.unconfirmed, result.matched) == (200, 30, 20)
        assert sum(request.endpoint == "person" for request in here.simulator.requests) == 200


async def test_says_what_it_cannot_do(database: str, empty_database: str, tmp_path: Path) -> None:
    """Refused by FUB, without a schema, or without a key it says so in one line: 1, 1 and 2."""
    async with world(database, tmp_path, people=5) as here:
        refused = await here.run("audit", FUB_API_KEY="another-key")
        assert (refused.code, refused.lines) == (1, [])
        assert refused.errors == [line for line in refused.errors if line.startswith("fubd: ") and "401" in line]
        unmade = await here.run("audit", DATABASE_URL=empty_database)
        assert (unmade.code, len(unmade.errors)) == (1, 1)
        assert (await here.run("audit", FUB_API_KEY="")).code == 2
