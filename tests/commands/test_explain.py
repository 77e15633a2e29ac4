"""`explain` on histories that the real recorder wrote: it tells of every row and every claim, once, and of nothing else."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fubd.commands.explain import document, gather
from fubd.core.observation import Channel, Delivery, Snapshot
from fubd.store import Pool, adoption
from fubd.store.dsn import parse
from tests.commands.fakes import Ended
from tests.recorder import Recorder, at, hint, read, recorder, webhook
from tests.support import legacy_tables
from tests.support.process import fubd

WINDOW = timedelta(seconds=300)
KNOWN_A = read("A", "08:00", "09:00")

HEALED: list[Delivery | Snapshot] = [
    KNOWN_A,
    webhook("e1", "B", "10:00"),
    webhook("e3", "D", "10:20"),
    webhook("e2", "C", "10:10"),
    read("D", "10:20", "10:30", "10:00"),
]


async def explained(dsn: str, folder: Path, *arguments: str) -> Ended:
    """Run the command to its end, without a FUB key."""
    async with fubd("explain", *arguments, environ={"DATABASE_URL": dsn}, folder=folder) as process:
        code = await process.ended()
    return Ended(code, process.lines, process.errors)


async def document_of(made: Recorder, person: int = 1) -> dict[str, Any]:
    """Give what it tells programs."""
    story = await gather(made.pool, person, window=WINDOW)
    assert story is not None
    return document(story)


async def test_tells_people_the_whole_story(database: str, tmp_path: Path) -> None:
    """A row that came late, the row it corrected, who saw what first and what confirmed it: readable from top to bottom."""
    async with recorder(database) as made:
        await made.record(*HEALED)
        ids = [row["id"] for row in await made.records()]
    shown = await explained(database, tmp_path, "1")
    assert (shown.code, shown.errors) == (0, [])
    text = "\n".join(shown.lines)
    assert shown.lines[0] == "person 1, Ada Example"
    assert f"row {ids[1]}  B -> C  at 2026-01-05 10:10:00 UTC" in text
    late = text[text.index(f"row {ids[2]}  C -> D") :]
    assert "seen first by webhook" in late
    assert "polling saw it too," in late
    assert "webhook e3: entered D at 2026-01-05 10:20:00 UTC" in late
    assert "read by polling as of 2026-01-05 10:30:00 UTC: in D" in late
    assert f"when claim {ids[1]} had come in" in late
    assert "stage_from was B, became C" in late
    assert "first sight: this is where they stood, and no change" in text


async def test_answers_programs(database: str, tmp_path: Path) -> None:
    """With --json it is one object of the person, the rows with their evidence, and the claims that made no row."""
    async with recorder(database, ignored_stages=("Z",)) as made:
        await made.record(*HEALED, webhook("e4", "Z", "11:00"), hint("e5", "peopleUpdated", "11:30"))
    shown = await explained(database, tmp_path, "1", "--json")
    assert shown.code == 0
    assert shown.json["person"]["stage"] == "D"
    assert shown.json["person"]["to_be_read"] is True
    assert [(row["stage_from"], row["stage_to"]) for row in shown.json["rows"]] == [("A", "B"), ("B", "C"), ("C", "D")]
    assert shown.json["rows"][2]["corrections"][0]["was"]["stage_from"] == "B"
    assert [one["why"].split(":")[0] for one in shown.json["without_a_row"]] == ["first sight", "its stage is one of FUBD_IGNORE_STAGES"]


async def test_does_not_know_everybody(database: str, tmp_path: Path) -> None:
    """Of somebody nobody told of it says so, and exits 1, however large the id."""
    for person in ("77", "9" * 19, "9" * 40):
        shown = await explained(database, tmp_path, person)
        assert (shown.code, shown.lines, shown.errors) == (1, [], [f"fubd: person {person} is unknown here"])


async def test_explains_whom_only_an_older_script_knew(empty_database: str, tmp_path: Path) -> None:
    """Rows of an adopted table are told with their source, also of somebody whom Follow Up Boss has no more."""
    pool = Pool(parse(empty_database))
    async with pool.connection() as connection:
        await legacy_tables.make(connection)
        await connection.execute(
            "INSERT INTO stage_changes (person_id, first_name, stage_from, stage_to, changed_at, source, event_id)"
            " VALUES ('5', 'Ada', NULL, 'Lead', '2026-01-05 10:00', 'wh_old', 'e-5'),"
            " ('5', 'Ada', 'Lead', 'B', '2026-01-05 11:00', 'x', NULL)"
        )
    plan = await adoption.plan_adoption(pool, {})
    assert plan is not None
    await adoption.adopt(pool, {}, plan=plan)
    await pool.close()
    shown = await explained(empty_database, tmp_path, "5")
    assert (shown.code, shown.lines[:2]) == (0, ["person 5, Ada", "  stands in B; never read yet"])
    assert "  written by another program with source webhook and event e-5; fubd takes it as it is and never touches it" in shown.lines
    assert len([line for line in shown.lines if line.startswith("row ")]) == 2


async def test_says_why_something_is_no_row(database: str) -> None:
    """A stage told twice, a read that agrees, a read between the lines, rows that became one: each with its reason."""
    async with recorder(database) as made:
        await made.record(KNOWN_A, webhook("e1", "B", "10:00"), webhook("e2", "B", "10:20"), read("B", "10:21", "10:30", "10:00"))
        (row,) = (await document_of(made))["rows"]
        assert [(one["event_id"], one["why"].split(":")[0]) for one in row["evidence"]] == [
            ("e1", "dates this row"),
            ("e2", "tells this stage again"),
            (None, "agrees"),
        ]
        await made.record(read("A", "08:00", "09:00", person=2), read("B", "10:12", "10:30", "10:00", person=2))
        (row,) = (await document_of(made, 2))["rows"]
        assert row["evidence"][0]["why"].startswith("shows a change that no webhook told")
        assert (row["changed_after"], row["changed_at"]) == (at("10:00"), at("10:12"))


async def test_tells_of_rows_that_became_one(database: str) -> None:
    """A row that turned out to be part of another is told of, with what brought that about."""
    async with recorder(database) as made:
        # In a second of two moves, as they arrived: out of A and back. A later read shows B, so the return to A came first and was none.
        await made.record(KNOWN_A, webhook("e1", "B", "10:00"), webhook("e2", "A", "10:00"))
        gone = (await made.records())[-1]
        await made.record(read("B", "10:00", "10:05"))
        story = await document_of(made)
        assert [(row["stage_from"], row["stage_to"]) for row in story["rows"]] == [("A", "B")]
        assert [(one["row"], one["was"]["stage_to"]) for one in story["joined"]] == [(gone["id"], "A")]


@pytest.mark.parametrize("seed", range(5))
async def test_never_disagrees_with_the_recorder(database: str, seed: int) -> None:
    """Over random histories: the rows it tells are the rows that stand, and every claim appears exactly once."""
    chance = random.Random(seed)
    async with recorder(database, ignored_stages=("Z",)) as made:
        for person in range(1, 6):
            await made.record(*(_anything(chance, person, number) for number in range(12)))
            story = await document_of(made, person)
            rows = [(row["id"], row["stage_from"], row["stage_to"], row["changed_at"], row["changed_after"]) for row in story["rows"]]
            assert rows == [
                (row["id"], row["stage_from"], row["stage_to"], row["changed_at"], row["changed_after"])
                for row in await made.records(person)
            ]
            used = [one["claim"] for row in story["rows"] for one in row["evidence"]] + [one["claim"] for one in story["without_a_row"]]
            async with made.pool.connection() as connection:
                kept = await connection.fetch("SELECT seq FROM fubd.claim WHERE person_id = $1 ORDER BY seq", person)
            assert sorted(used) == [record["seq"] for record in kept]


def _anything(chance: random.Random, person: int, number: int) -> Delivery | Snapshot:
    stage, minute = chance.choice("ABCZ"), chance.randrange(0, 50)
    if chance.random() < 0.5:
        return webhook(f"e{person}-{number}", stage, f"10:{minute:02}", (person,))
    read_at = f"10:{chance.randrange(minute, 60):02}"
    channel = chance.choice(list(Channel))
    return read(stage, f"10:{minute:02}", read_at, "09:59" if chance.random() < 0.5 else None, person=person, channel=channel)
