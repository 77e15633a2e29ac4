"""`explain` on recorded histories: it reports every row and every claim exactly once."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fubd.core.explanation import explain as explain_evidence
from fubd.core.explanation import report_to_json
from fubd.core.observation import Channel, Delivery, Snapshot
from fubd.store import Pool, adoption
from fubd.store.dsn import parse
from fubd.store.people import PeopleReader
from tests.commands.environment import CompletedCommand, run_command
from tests.recorder import Recorder, at, read, refetch_event, running_recorder, webhook
from tests.support import legacy_tables

pytestmark = pytest.mark.slow

WINDOW = timedelta(seconds=300)
KNOWN_A = read("A", "08:00", "09:00")

_UNKNOWN = "fubd: person {} is unknown in this database: use the id from the person's page in Follow Up Boss"

HEALED: list[Delivery | Snapshot] = [
    KNOWN_A,
    webhook("e1", "B", "10:00"),
    webhook("e3", "D", "10:20"),
    webhook("e2", "C", "10:10"),
    read("D", "10:20", "10:30", "10:00"),
]


async def explain(dsn: str, folder: Path, *arguments: str, zone: str = "UTC") -> CompletedCommand:
    """Run the command to its end, without a FUB key."""
    return await run_command("explain", *arguments, environ={"DATABASE_URL": dsn, "FUBD_TIMEZONE": zone}, folder=folder)


async def report_of(recorder: Recorder, person: int = 1) -> dict[str, Any]:
    """Return the report as JSON values."""
    evidence = await PeopleReader(recorder.pool).evidence(person)
    assert evidence is not None
    return report_to_json(explain_evidence(evidence, window=WINDOW), limit=100)


async def test_the_report_is_readable_from_top_to_bottom(database: str, tmp_path: Path) -> None:
    """It shows a late row, the row that it corrected, who saw what first and what confirmed it, in FUBD_TIMEZONE."""
    async with running_recorder(database) as recorder:
        await recorder.record(*HEALED)
        ids = [row["id"] for row in await recorder.records()]
    shown = await explain(database, tmp_path, "1", zone="America/Chicago")
    assert (shown.code, shown.errors) == (0, [])
    text = "\n".join(shown.lines)
    assert shown.lines[0] == "person 1, Ada Example"
    assert f"row {ids[1]}  B -> C  at 2026-01-05 04:10:00 CST" in text
    late = text[text.index(f"row {ids[2]}  C -> D") :]
    assert "first seen by webhook" in late
    assert "polling saw it too," in late
    assert "webhook e3: entered D at 2026-01-05 04:20:00 CST" in late
    assert "read by polling as of 2026-01-05 04:30:00 CST: in D" in late
    assert f"after claim {ids[1]} had been received" in late
    assert "stage_from was B, became C" in late
    assert "first sight: the stage the person was in, not a change" in text


async def test_a_move_to_trash_that_only_polling_saw_may_be_a_merge(fubd_database: str) -> None:
    """Its evidence says so; that of another stage does not, nor that of a move to Trash that a webhook reported."""
    async with running_recorder(fubd_database) as recorder:
        await recorder.record(KNOWN_A, webhook("e1", "Trash", "09:30"), read("B", "10:12", "10:13", "10:00"))
        await recorder.record(read("Trash", "10:20", "10:30", "10:13"))
        rows = (await report_of(recorder))["rows"]
    assert [row["stage_to"] for row in rows] == ["Trash", "B", "Trash"]
    assert ["may be a merge" in str(row["evidence"]) for row in rows] == [True, False, False]


async def test_json_holds_the_same_report(database: str, tmp_path: Path) -> None:
    """With --json it is one object: the person, the rows with their evidence, and the claims that recorder no row."""
    async with running_recorder(database, ignored_stages=("Z",)) as recorder:
        await recorder.record(*HEALED, webhook("e4", "Z", "11:00"), refetch_event("e5", "peopleUpdated", "11:30"))
    shown = await explain(database, tmp_path, "1", "--json")
    assert shown.code == 0
    assert shown.json["person"]["stage"] == "D"
    assert shown.json["person"]["to_be_read"] is True
    assert [(row["stage_from"], row["stage_to"]) for row in shown.json["rows"]] == [("C", "D"), ("B", "C"), ("A", "B")]
    assert shown.json["rows"][0]["corrections"][0]["was"]["stage_from"] == "B"
    assert [one["why"].split(":")[0] for one in shown.json["without_a_row"]] == ["first sight", "its stage is one of FUBD_IGNORE_STAGES"]


async def test_a_person_is_found_by_a_part_of_the_name(database: str, tmp_path: Path) -> None:
    """One match is explained; of several, each is listed with its id, and the exit code is 1."""
    async with running_recorder(database) as recorder:
        await recorder.record(KNOWN_A)
        assert (await explain(database, tmp_path, "DA exam")).lines[0] == "person 1, Ada Example"
        await recorder.record(read("A", "08:00", "09:00", person=2))
    several = await explain(database, tmp_path, "example")
    assert (several.code, [line.split()[0] for line in several.lines]) == (1, ["person", "2", "1"])
    assert several.errors == ["fubd: 'example' is in the names of 2 people: use an id, or more of the name"]
    assert (await explain(database, tmp_path, "example", "--json")).json["people"][1] == {
        "id": 1, "first_name": "Ada", "last_name": "Example", "stage": "A",
    }  # fmt: skip
    for text in ("100%", "_", "-5", "\\", "x" * 5000):
        nobody = await explain(database, tmp_path, text)
        shown = repr(text) if len(text) < 10 else f"'{text[:58]}…"
        assert (nobody.code, nobody.errors) == (1, [f"fubd: no person with {shown} in the name is known in this database"])
    for text in ("", "  ", "\udcff"):
        assert (await explain(database, tmp_path, text)).code == 2
    assert (await explain(database, tmp_path, "%a%")).errors == ["fubd: no person with '%a%' in the name is known in this database"]


async def test_a_name_may_be_a_phone_number(database: str, tmp_path: Path) -> None:
    """Digits are an id first, and a part of a name where nobody has that id."""
    async with running_recorder(database) as recorder:
        await recorder.record(
            read("A", "08:00", "09:00", first_name="512-555-0123"), read("A", "08:00", "09:00", person=2, first_name="5550")
        )
    for text, person in (("555-01", "1"), ("5550", "2"), ("2", "2"), (" 1 ", "1")):
        assert (await explain(database, tmp_path, text)).lines[0].startswith(f"person {person}, ")


async def test_only_the_newest_rows_are_shown(database: str, tmp_path: Path) -> None:
    """With the number of the older ones."""
    async with running_recorder(database) as recorder:
        await recorder.record(*HEALED)
    shown = await explain(database, tmp_path, "1", "--limit", "1")
    assert sum(line.startswith("row ") for line in shown.lines) == 1
    assert "and 2 older rows: --limit 3 shows them" in shown.lines
    assert (await explain(database, tmp_path, "1", "--limit", "1", "--json")).json["older_rows"] == 2


async def test_not_yet_is_not_said_of_what_can_never_come(database: str, tmp_path: Path) -> None:
    """Polling can still see the stage that the person is in; not one that they have left, nor that of a deleted person."""
    async with running_recorder(database) as recorder:
        await recorder.record(KNOWN_A, webhook("e1", "B", "10:00"), webhook("e2", "C", "10:10"))
        shown = (await explain(database, tmp_path, "1")).lines
        assert [line.partition("; ")[2] for line in shown if "first seen by" in line] == [
            "polling has not seen it yet",
            "polling did not read the person in this stage",
        ]
        await recorder.state.mark_deleted(1, at("10:30"))
    assert not any("not seen it yet" in line for line in (await explain(database, tmp_path, "1")).lines)
    async with running_recorder(database, ignored_stages=("D",)) as recorder:
        known = read("A", "08:00", "09:00", person=2)
        await recorder.record(known, webhook("e3", "B", "10:00", (2,)), webhook("e4", "D", "10:10", (2,)))
    assert not any("not seen it yet" in line for line in (await explain(database, tmp_path, "2")).lines)


async def test_an_unknown_person_is_an_error(database: str, tmp_path: Path) -> None:
    """It exits 1 with one line, however large the id."""
    for person in ("77", "9" * 19, "9" * 40):
        shown = await explain(database, tmp_path, person)
        assert (shown.code, shown.lines, shown.errors) == (1, [], [_UNKNOWN.format(person)])


async def test_rows_of_an_older_script_are_explained_too(empty_database: str, tmp_path: Path) -> None:
    """Rows of an adopted table are shown with their source, also for a person who no longer exists in Follow Up Boss."""
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
    shown = await explain(empty_database, tmp_path, "5")
    assert (shown.code, shown.lines[:2]) == (0, ["person 5, Ada", "  in stage B; never read by polling"])
    assert "  written by another program with source webhook and event e-5; fubd never changes it" in shown.lines
    assert len([line for line in shown.lines if line.startswith("row ")]) == 2


async def test_each_claim_has_its_role(database: str) -> None:
    """A repeated stage, a read that agrees, and a read of a change without a webhook: each with its reason."""
    async with running_recorder(database) as recorder:
        await recorder.record(KNOWN_A, webhook("e1", "B", "10:00"), webhook("e2", "B", "10:20"), read("B", "10:21", "10:30", "10:00"))
        (row,) = (await report_of(recorder))["rows"]
        assert [(one["event_id"], one["why"].split(":")[0]) for one in row["evidence"]] == [
            ("e1", "dates this row"),
            ("e2", "repeats this stage"),
            (None, "agrees"),
        ]
        await recorder.record(read("A", "08:00", "09:00", person=2), read("B", "10:12", "10:30", "10:00", person=2))
        (row,) = (await report_of(recorder, 2))["rows"]
        assert row["evidence"][0]["why"].startswith("shows a change that no webhook reported")
        assert (row["changed_after"], row["changed_at"]) == (at("10:00"), at("10:12"))


async def test_a_merged_row_is_reported(database: str) -> None:
    """A row that turned out to be part of another is reported with what it was."""
    async with running_recorder(database) as recorder:
        # A later read shows that the stage had held already.
        await recorder.record(webhook("e1", "B", "10:15"))
        (row,) = await recorder.records()
        await recorder.record(read("B", "10:00", "10:01"))
        report = await report_of(recorder)
        assert report["rows"] == []
        assert [(one["row"], one["was"]["stage_to"]) for one in report["joined"]] == [(row["id"], "B")]


@pytest.mark.parametrize("seed", range(5))
async def test_it_never_disagrees_with_the_table(database: str, seed: int) -> None:
    """Over random histories: its rows are the rows of the table, and every claim appears exactly once."""
    rng = random.Random(seed)
    async with running_recorder(database, ignored_stages=("Z",)) as recorder:
        for person in range(1, 6):
            await recorder.record(*(_random_evidence(rng, person, number) for number in range(12)))
            report = await report_of(recorder, person)
            rows = [(row["id"], row["stage_from"], row["stage_to"], row["changed_at"], row["changed_after"]) for row in report["rows"]]
            assert rows[::-1] == [
                (row["id"], row["stage_from"], row["stage_to"], row["changed_at"], row["changed_after"])
                for row in await recorder.records(person)
            ]
            used = [one["claim"] for row in report["rows"] for one in row["evidence"]] + [one["claim"] for one in report["without_a_row"]]
            async with recorder.pool.connection() as connection:
                kept = await connection.fetch("SELECT seq FROM fubd.claim WHERE person_id = $1 ORDER BY seq", person)
            assert sorted(used) == [record["seq"] for record in kept]


def _random_evidence(rng: random.Random, person: int, number: int) -> Delivery | Snapshot:
    stage, minute = rng.choice("ABCZ"), rng.randrange(0, 50)
    if rng.random() < 0.5:
        return webhook(f"e{person}-{number}", stage, f"10:{minute:02}", (person,))
    read_at = f"10:{rng.randrange(minute, 60):02}"
    channel = rng.choice(list(Channel))
    return read(stage, f"10:{minute:02}", read_at, "09:59" if rng.random() < 0.5 else None, person=person, channel=channel)
