"""Recording into an adopted table: every promise of a fresh one, on the older columns, while a script goes on writing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

from fubd.core.observation import Channel, Reading, Snapshot
from fubd.store import ChangeReader, Maintenance, Pool, StatusReader, adoption
from fubd.store.dsn import parse
from fubd.store.maintenance import ChainPosition
from tests.recorder import Recorder, at, read, running_recorder, webhook
from tests.support import legacy_tables
from tests.support.waiting import eventually
from tests.test_ingest import EXAMPLES, about

pytestmark = pytest.mark.slow

Row = tuple[str | None, str | None, datetime | None, datetime | None]

COLUMNS = {"campaign_id": "customCampaignID", "score": "customScore", "who_pushed_lead": "customPushedBy", "moved_in": "customMovedIn"}


@asynccontextmanager
async def adopted(url: str, rows: str = "", *, variant: str = "as reconstructed", altered: str = "") -> AsyncIterator[Recorder]:
    """Yield a recorder on an older table with these rows (person, from, to, at, source; ids by their order), just adopted."""
    connection = await asyncpg.connect(**parse(url).connect_arguments())
    pool = Pool(parse(url), size=1)
    try:
        await legacy_tables.make(connection, variant)
        await connection.execute(altered or "SELECT")
        if rows:
            await connection.execute(f"INSERT INTO stage_changes (person_id, stage_from, stage_to, changed_at, source) VALUES {rows}")
        plan = await adoption.plan_adoption(pool, COLUMNS)
        assert plan is not None
        assert plan.obstacles == ()
        await adoption.adopt(pool, COLUMNS, plan=plan)
        async with running_recorder(url, columns=COLUMNS, lead_source_tags=("Roor", "Smarter Contact")) as recorder:
            yield recorder
            assert (await Maintenance(recorder.pool).check_chain(ChainPosition(0, 0))).violations == 0
    finally:
        await pool.close()
        await connection.close()


async def rows_of(recorder: Recorder, person: int = 1) -> list[Row]:
    """Return a person's rows in the order readers see them."""
    async with recorder.pool.reading() as connection:
        found = await connection.fetch(
            "SELECT stage_from, stage_to, fubd.instant(changed_at) AS at, fubd.instant(changed_after) AS after FROM public.stage_changes"
            " WHERE person_id = $1 ORDER BY changed_at, id",
            str(person),
        )
        return [tuple(row) for row in found]


async def foreign(recorder: Recorder) -> int:
    """Count the new rows of other writers."""
    async with recorder.pool.connection() as connection:
        return await adoption.count_foreign_rows(connection)


async def script(recorder: Recorder, rows: str) -> None:
    """Insert rows as an older script does."""
    async with recorder.pool.connection() as connection:
        await connection.execute(f"INSERT INTO stage_changes (person_id, stage_from, stage_to, changed_at, source) VALUES {rows}")


A_AT_EIGHT = "('1', NULL, 'A', '2026-01-05 08:00', 'polling')"
TICK = timedelta(microseconds=1)

# The rows that were there, a first read of the person, and the rows that it adds.
FIRST_READS: dict[str, tuple[str, Snapshot, list[Row]]] = {
    "agrees": (A_AT_EIGHT, read("A", "09:00", "10:00"), []),
    "differs": (A_AT_EIGHT, read("B", "09:00", "10:00"), [("A", "B", at("09:00"), at("08:00"))]),
    "agrees, and the row is dated by its receipt": (A_AT_EIGHT, read("A", "07:30", "10:00"), []),
    "differs, and the row is dated by its receipt": (
        A_AT_EIGHT,
        read("B", "07:30", "10:00"),
        [("A", "B", at("08:00") + TICK, at("08:00"))],
    ),
    "the last of several counts": (
        f"{A_AT_EIGHT}, ('1', 'A', 'C', '2026-01-05 08:30', NULL), ('1', 'C', 'B', '2026-01-05 08:45', 'test')",
        read("B", "08:20", "10:00"),
        [],
    ),
    "of two in one instant the later number counts": (
        f"('1', NULL, 'B', '2026-01-05 08:00', NULL), {A_AT_EIGHT}",
        read("A", "07:59", "10:00"),
        [],
    ),
    "of two in one instant the earlier number does not count": (
        f"('1', NULL, 'B', '2026-01-05 08:00', NULL), {A_AT_EIGHT}",
        read("B", "07:59", "10:00"),
        [("A", "B", at("08:00") + 2 * TICK, at("08:00") + TICK)],
    ),
    "a stage twice": (f"{A_AT_EIGHT}, ('1', 'A', 'A', '2026-01-05 08:30', NULL)", read("A", "08:10", "10:00"), []),
    "a null stage does not count": ("('1', 'A', NULL, '2026-01-05 08:00', NULL)", read("B", "09:00", "10:00"), []),
    "the stage Unknown does not count": ("('1', 'A', 'Unknown', '2026-01-05 08:00', NULL)", read("B", "09:00", "10:00"), []),
    "the row before it does": (
        f"{A_AT_EIGHT}, ('1', 'A', 'Unknown', '2026-01-05 08:30', NULL)",
        read("B", "09:00", "10:00"),
        [("A", "B", at("09:00"), at("08:00"))],
    ),
    "also when the stage has not changed since": (
        f"{A_AT_EIGHT}, ('1', 'A', NULL, '2026-01-05 08:30', NULL)",
        read("A", "08:30", "10:00"),
        [],
    ),
    "a change is dated after a row that does not count": (
        f"{A_AT_EIGHT}, ('1', 'A', 'Unknown', '2026-01-05 08:30', NULL)",
        read("B", "08:20", "10:00"),
        [("A", "B", at("08:30"), at("08:00"))],
    ),
    "a row without an instant does not count": ("('1', NULL, 'A', NULL, NULL)", read("B", "09:00", "10:00"), []),
    "a row at infinity does not count": (
        "('1', NULL, 'A', 'infinity', NULL), ('1', NULL, 'A', '-infinity', NULL)",
        read("B", "09:00", "10:00"),
        [],
    ),
    "rows with other person ids do not count": (
        ", ".join(f"({person}, NULL, 'A', '2026-01-05 08:00', NULL)" for person in ("NULL", "'01'", "'1 '", "'test-1'")),
        read("B", "09:00", "10:00"),
        [],
    ),
    "a read from before the row may come from a lagging replica": (
        f"{A_AT_EIGHT}, ('1', 'A', 'B', '2026-01-05 10:00', 'polling')",
        read("A", "08:00", "10:00:30"),
        [],
    ),
}


@pytest.mark.parametrize("name", FIRST_READS)
async def test_the_last_older_row_is_the_known_stage_of_a_person(empty_database: str, name: str) -> None:
    """A first read that agrees adds no row; one that differs is a change found by polling after that row; recorded twice it is the same."""
    rows, snapshot, added = FIRST_READS[name]
    async with adopted(empty_database, rows) as recorder:
        before = await rows_of(recorder)
        await recorder.record(snapshot)
        await recorder.record(snapshot)
        assert sorted(map(str, await rows_of(recorder))) == sorted(map(str, [*before, *added]))
        # The next change continues from there.
        await recorder.record(webhook("e1", "Z", "11:00"))
        assert ("Z", at("11:00")) in [row[1:3] for row in await rows_of(recorder)]


@pytest.mark.parametrize("instant", ["infinity", "-infinity", "0044-03-15 BC", "99999-01-01"])
async def test_an_infinite_received_at_is_ignored(empty_database: str, instant: str) -> None:
    """Rows of other writers with such a value are handled like any other; they count for no day."""
    rows = f"('1', NULL, 'A', '2026-01-05 08:00', '{instant}'), ('2', NULL, 'A', '{instant}', '{instant}')"
    async with adopted(empty_database) as recorder:
        async with recorder.pool.connection() as connection:
            await connection.execute(f"INSERT INTO stage_changes (person_id, stage_from, stage_to, changed_at, received_at) VALUES {rows}")
        await recorder.record(read("B", "09:00", "10:00"), read("B", "09:00", "10:00", person=2), webhook("e1", "C", "08:30"))
        assert [row[:2] for row in await rows_of(recorder)] == [(None, "A"), ("A", "C"), ("C", "B")]
        known = await StatusReader(recorder.pool).summary()
        assert (known.webhook_change, known.polling_today) == (at("08:30"), 1)
        assert await ChangeReader(recorder.pool).recent(10)
        async with recorder.pool.reading() as connection:
            for view in ("source_health", "rapid_transitions", "stage_durations", "stage_changes_daily", "current_stages"):
                await connection.fetch(f"SELECT * FROM public.{view}")


async def test_changes_before_the_baseline_do_not_count_as_missed(empty_database: str) -> None:
    """A difference found by the baseline is recorded and not counted against the webhooks; a later change is."""
    async with adopted(empty_database, A_AT_EIGHT + ", ('2', NULL, 'A', '2026-01-05 08:00', NULL)") as recorder:
        await recorder.state.begin_sweep(at("10:00"), from_id=0)
        await recorder.record(read("B", "09:00", "10:00:05"), read("A", "09:00", "10:00:05", person=2))
        await recorder.record(read("B", "10:10", "10:30", "10:00", person=2))
        assert len(await recorder.state.missed_changes(fub_now=at("12:00"), missed_after_seconds=120)) == 1


async def test_a_late_webhook_of_a_recorded_change_adds_no_row(empty_database: str) -> None:
    """The script dated it by its own clock, later than the event. An unrecorded change is inserted; older rows stay as they are."""
    async with adopted(empty_database, A_AT_EIGHT + ", ('1', 'A', 'B', '2026-01-05 09:30:07.25', 'webhook_peopleStageU')") as recorder:
        before = await rows_of(recorder)
        await recorder.record(webhook("e1", "B", "09:12"))
        assert await rows_of(recorder) == before
        await recorder.record(webhook("e2", "C", "09:00"))
        assert await rows_of(recorder) == [before[0], ("A", "C", at("09:00"), None), before[1]]


_DERIVED = (
    "SELECT stage_to, previous_stage_entered_at, time_in_previous_stage_days, time_in_previous_stage_hours, time_in_previous_stage_minutes,"
    " stage_priority_from, stage_priority_to, is_forward_progression FROM public.stage_changes WHERE person_id = '1' ORDER BY changed_at"
)


async def derived(recorder: Recorder) -> list[tuple[object, ...]]:
    """Return the derived columns of a person's rows."""
    async with recorder.pool.reading() as connection:
        return [tuple(row) for row in await connection.fetch(_DERIVED)]


@pytest.mark.parametrize("variant", ["as reconstructed", "instants with a zone", "short columns"])
async def test_derived_columns_follow_the_rows(empty_database: str, variant: str) -> None:
    """They are filled in new rows, and corrected in the next row when a late webhook is inserted; rows of other writers stay."""
    async with adopted(empty_database, A_AT_EIGHT, variant=variant) as recorder:
        await recorder.state.save_stages({"A": 1, "B": 2, "C": 3}, at("08:00"))
        await recorder.record(webhook("e1", "C", "18:00:30"))
        old = ("A", None, None, None, None, None, None, None)
        eight, nine = (when if variant == "instants with a zone" else when.replace(tzinfo=None) for when in (at("08:00"), at("09:30")))
        assert await derived(recorder) == [old, ("C", eight, Decimal("0.42"), 10, 600, 1, 3, True)]
        await recorder.record(webhook("e2", "B", "09:30"))
        second = ("B", eight, Decimal("0.06"), 1, 90, 1, 2, True)
        assert await derived(recorder) == [old, second, ("C", nine, Decimal("0.35"), 8, 510, 2, 3, True)]
        await recorder.record(webhook("e3", "A", "19:00:30"), webhook("e4", "unknown to FUB", "19:00:31"))
        back, unknown = (await derived(recorder))[3:]
        assert back[3:] == (1, 60, 3, 1, False)
        assert unknown[3:] == (0, 0, 1, None, None)


async def test_derived_columns_follow_a_row_with_a_new_date(empty_database: str) -> None:
    """A webhook dates the row that polling had found; the next row's stage_from stays, and its time in the previous stage does not."""
    async with adopted(empty_database, A_AT_EIGHT) as recorder:
        await recorder.record(read("B", "10:00", "10:01", "08:00"), webhook("e1", "C", "12:00"))
        assert [row[4] for row in await derived(recorder)] == [None, 120, 120]
        await recorder.record(webhook("e2", "B", "09:00"))
        assert [row[4] for row in await derived(recorder)] == [None, 60, 180]
        await recorder.record(webhook("e3", "C", "09:30"))
        assert [(row[0], row[4]) for row in await derived(recorder)] == [("A", None), ("B", 60), ("C", 30), ("B", 30), ("C", 120)]


async def test_derived_columns_of_odd_types_hold_what_fits(empty_database: str) -> None:
    """Nothing fails on a column that is too narrow or of another type; a generated one and one of FUBD_COLUMNS are left alone."""
    altered = (
        "ALTER TABLE stage_changes ALTER time_in_previous_stage_days TYPE numeric(3,2), ALTER previous_stage_entered_at TYPE text,"
        " ALTER stage_priority_to TYPE boolean USING NULL, ALTER time_in_previous_stage_minutes TYPE smallint, DROP is_forward_progression,"
        " ADD is_forward_progression boolean GENERATED ALWAYS AS (stage_to = 'B') STORED"
    )
    rows = "('1', NULL, 'A', '2025-01-05 08:00', 'polling')"
    async with adopted(empty_database, rows, altered=altered) as recorder:
        await recorder.state.save_stages({"A": 1, "B": 2}, at("08:00"))
        await recorder.record(webhook("e1", "B", "08:00"))
        assert (await derived(recorder))[1] == ("B", "2025-01-05 08:00:00+00", None, 8760, None, 1, None, True)


# --- Older columns -------------------------------------------------------------------------------------------------------

LONG = "x" * 300

NARROW = """
    DROP VIEW throwaway_leads_detail_60d;
    ALTER TABLE stage_changes ALTER COLUMN first_name TYPE varchar(20), ALTER COLUMN last_name TYPE varchar(20),
        ALTER COLUMN assigned_user_name TYPE varchar(20), ALTER COLUMN assigned_user_id TYPE integer USING NULL,
        ALTER COLUMN lead_source_tag TYPE varchar(4), ALTER COLUMN campaign_id TYPE varchar(10), ALTER COLUMN event_id TYPE varchar(20),
        ALTER COLUMN raw_payload TYPE varchar(60), ALTER COLUMN source TYPE varchar(20),
        ALTER COLUMN stage_from TYPE varchar(100), ALTER COLUMN stage_to TYPE varchar(100),
        ADD COLUMN score numeric(5,2), ADD COLUMN moved_in date
"""


def person(stage: str, updated: str, *, long: str, **fields: str | None) -> Snapshot:
    """Return a read of person 1 with every field filled."""
    reading = Reading(
        1, stage, None, None, at(updated), long, long, "7", long, tags=("smartercontact",), fields=fields, payload={"id": 1, "long": long}
    )
    return Snapshot((reading,), at(updated), None, Channel.POLLING)


async def test_no_value_fails_on_an_older_column(empty_database: str) -> None:
    """A name is cut, any other value that does not fit is null there, and fubd's own tables hold all of it in full."""
    async with adopted(empty_database, altered=NARROW) as recorder:
        stage = "s" * 450
        await recorder.record(webhook(LONG[:200], stage, "10:00"))
        await recorder.record(person(stage, "10:00", long=LONG, customCampaignID=LONG, customScore="much", customMovedIn="some day"))
        (row,) = await recorder.records()
        assert (row["first_name"], row["last_name"], row["assigned_user_name"]) == (LONG[:20], LONG[:20], LONG[:20])
        assert (row["stage_to"], row["source"], row["assigned_user_id"]) == (stage[:100], "webhook", 7)
        assert [row[name] for name in ("event_id", "lead_source_tag", "campaign_id", "score", "moved_in", "raw_payload")] == [None] * 6
        async with recorder.pool.reading() as connection:
            kept = await connection.fetchrow("SELECT * FROM fubd.person WHERE id = 1")
            assert (kept["first_name"], kept["lead_source_tag"], json.loads(kept["fields"])["customCampaignID"]) == (
                LONG,
                "Smarter Contact",
                LONG,
            )
            assert await connection.fetchval("SELECT stage FROM fubd.claim LIMIT 1") == stage
        # Read again, the long name is the same stage, and no row is corrected.
        await recorder.record(person(stage, "10:20", long=LONG), person(stage, "11:00", long=LONG), webhook("e2", "Next", "12:00"))
        await recorder.record(
            person("Next", "12:00:01", long="Ada", customCampaignID="C5", customScore="12.345", customMovedIn="2026-02-03")
        )
        await recorder.record(webhook("e3", stage, "13:00"))
        last = (await recorder.records())[1:]
        assert [(row["stage_from"], row["stage_to"]) for row in last] == [(stage[:100], "Next"), ("Next", stage[:100])]
        assert [last[0][name] for name in ("first_name", "campaign_id", "event_id")] == ["Ada", "C5", "e2"]
        assert (float(last[0]["score"]), str(last[0]["moved_in"])) == (12.35, "2026-02-03")
        assert recorder.metrics.registry.get_sample_value("fubd_healed_total") == 0


@pytest.mark.parametrize("variant", legacy_tables.VARIANTS)
async def test_the_promises_hold_on_every_variant(empty_database: str, variant: str) -> None:
    """Every example of the contract, with the evidence one by one, all at once, and in reverse: the rows are those of a fresh table."""
    async with adopted(empty_database, "('9', NULL, 'A', '2026-01-05 08:00', 'polling')", variant=variant) as recorder:
        for number, (evidence, _) in enumerate(EXAMPLES.values(), start=10):
            one, other, third = ([about(person, item) for item in evidence] for person in (number, number + 100, number + 200))
            await recorder.record(*one, *one)
            await recorder.record_concurrently(*other)
            await recorder.record(*reversed(third))
        for number, (_, expected) in enumerate(EXAMPLES.values(), start=10):
            for person in (number, number + 100, number + 200):
                assert await rows_of(recorder, person) == expected
        async with recorder.pool.reading() as connection:
            ids = [record["id"] for record in await connection.fetch("SELECT id FROM stage_changes ORDER BY id")]
            assert ids[0] == 1
            assert min(ids[1:]) > 1
            ordered = (
                "SELECT count(*) FROM (SELECT changed_at - lag(changed_at) OVER (PARTITION BY person_id ORDER BY changed_at, id) AS gap"
            )
            assert await connection.fetchval(f"{ordered} FROM stage_changes) g WHERE g.gap <= interval '0'") == 0


@pytest.mark.parametrize("variant", legacy_tables.VARIANTS)
async def test_the_older_columns_of_a_new_row_are_filled(empty_database: str, variant: str) -> None:
    """With the fields of FUBD_COLUMNS, the tag of FUBD_LEAD_SOURCE_TAGS, names and agent."""
    async with adopted(empty_database, variant=variant) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:12"))
        await recorder.record(person("B", "10:12:30", long="Ada", customCampaignID="C5", customPushedBy="Grace"))
        (row,) = await recorder.records()
        assert (row["campaign_id"], row["who_pushed_lead"], row["lead_source_tag"]) == ("C5", "Grace", "Smarter Contact")
        assert (row["first_name"], str(row["assigned_user_id"]), row["assigned_user_name"]) == ("Ada", "7", "Ada")


# --- A script that goes on writing -------------------------------------------------------------------------------------


async def test_a_change_that_a_script_recorded_first_is_not_recorded_again(empty_database: str) -> None:
    """Neither by a poll soon or long after it, nor by the webhook, nor by both; the script's row is left as it is."""
    async with adopted(empty_database, A_AT_EIGHT) as recorder:
        await script(recorder, "('1', 'A', 'B', '2026-01-05 10:30:04.5', 'polling')")
        before = await rows_of(recorder)
        await recorder.record(read("B", "10:12", "10:31", "10:00"), webhook("e1", "B", "10:12"), read("B", "10:12", "11:31", "10:00"))
        assert await rows_of(recorder) == before
        async with recorder.pool.reading() as connection:
            row = await connection.fetchrow("SELECT * FROM stage_changes WHERE stage_to = 'B'")
        assert (row["first_name"], row["confirmed_by"], row["source"]) == (None, None, "polling")


async def test_a_scripts_row_within_the_second_of_a_later_change_stays_before_it(empty_database: str) -> None:
    """The script dated B half a second after C had followed: C is moved behind it and stays one row."""
    async with adopted(empty_database, A_AT_EIGHT) as recorder:
        await script(recorder, "('1', 'A', 'B', '2026-01-05 10:00:00.5', 'polling')")
        await recorder.record(webhook("e1", "C", "10:00:00"), read("C", "10:00:00", "10:00:30"))
        moved = at("10:00") + timedelta(seconds=0.5)
        assert await rows_of(recorder) == [(None, "A", at("08:00"), None), ("A", "B", moved, None), ("B", "C", moved + TICK, None)]


async def test_each_row_of_a_script_is_counted_once(empty_database: str) -> None:
    """By one call of one instance, never our own rows; its people are refetched, and the chain continues from the script's row."""
    async with adopted(empty_database, A_AT_EIGHT) as recorder, running_recorder(empty_database, instance="other") as other:
        assert await foreign(recorder) == 0
        await recorder.record(webhook("e1", "B", "10:00"))
        await script(
            recorder, "('1', 'B', 'C', '2026-01-05 10:30', 'polling'), ('test-1', NULL, 'A', now(), 'test'), (NULL, NULL, NULL, NULL, NULL)"
        )
        async with asyncio.TaskGroup() as group:
            counts = [group.create_task(foreign(one)) for one in (recorder, other)]
        assert sorted(count.result() for count in counts) == [0, 3]
        assert await foreign(recorder) == 0
        assert [hint.person_id for hint in await recorder.state.due_refetches(10)] == [1]
        await recorder.record(webhook("e2", "D", "11:00"))
        assert [row[:2] for row in await rows_of(recorder)] == [(None, "A"), ("A", "B"), ("B", "C"), ("C", "D")]
        async with recorder.pool.connection() as connection:
            await connection.execute("UPDATE fubd.foreign_mark SET seen_at = seen_at - interval '1 hour'")
        assert await foreign(recorder) == 0
        await script(recorder, "('2', NULL, 'A', '2026-01-05 11:30', 'polling')")
        assert await foreign(recorder) == 1


async def test_a_row_that_a_script_commits_late_is_counted(empty_database: str) -> None:
    """Although rows with higher ids were looked at before; after that no look is needed until another row is added."""
    values = "VALUES ($1, 'Lead', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC', 'polling')"
    statement = f"INSERT INTO stage_changes (person_id, stage_to, changed_at, received_at, source) {values}"
    async with adopted(empty_database, A_AT_EIGHT) as recorder, recorder.pool.connection() as late:
        await late.execute("BEGIN")
        await late.execute(statement, "late")
        async with recorder.pool.connection() as connection:
            await connection.execute(statement, "early")
        assert [await foreign(recorder) for _ in range(3)] == [1, 0, 0]
        status = StatusReader(recorder.pool)
        assert (await status.summary()).has_unseen_rows
        await late.execute("COMMIT")
        # As soon as no transaction runs that was there before, the server's own included.
        assert await eventually(lambda: foreign(recorder), 30.0) == 1

        async def is_settled() -> bool:
            return await foreign(recorder) == 0 and not (await status.summary()).has_unseen_rows

        assert await eventually(is_settled, 30.0)


async def test_a_change_that_a_script_records_after_us_becomes_one_row(empty_database: str) -> None:
    """Ours and the script's are one change: once the person is read, our row is merged into the script's, which we never change."""
    async with adopted(empty_database, A_AT_EIGHT) as recorder:
        await recorder.record(webhook("e1", "B", "10:00"), read("B", "10:00", "10:01"))
        await script(recorder, "('1', 'A', 'B', '2026-01-05 10:30', 'polling')")
        assert await foreign(recorder) == 1
        await recorder.record(read("B", "10:00", "10:32"))
        assert [row[:2] for row in await rows_of(recorder)] == [(None, "A"), ("A", "B")]
        await recorder.record(webhook("e2", "C", "11:00"), read("C", "11:00", "11:05"))
        assert [row[:2] for row in await rows_of(recorder)] == [(None, "A"), ("A", "B"), ("B", "C")]


@pytest.mark.parametrize(
    "between", ["", ", ('1', 'A', 'Unknown', '2026-01-05 10:01', 'wh_peopleUpdated')"], ids=["directly", "after a placeholder"]
)
async def test_a_change_that_a_script_records_after_us_becomes_one_row_although_the_person_has_moved_on(
    empty_database: str, between: str
) -> None:
    """The poll notices it late: rows settled since then are reconciled again, once, from before the script's row on."""
    async with adopted(empty_database, A_AT_EIGHT) as recorder:
        await recorder.record(webhook("e1", "B", "10:00"))
        await script(recorder, f"('1', 'A', 'B', '2026-01-05 10:03:14', 'polling'){between}")
        await recorder.record(webhook("e2", "C", "10:20"), read("C", "10:20", "10:21"))
        stages = [row[1] for row in await rows_of(recorder) if row[1] != "Unknown"]
        assert stages == ["A", "B", "B", "C"]
        assert await foreign(recorder) == (2 if between else 1)
        await recorder.record(read("C", "10:20", "10:31"))
        assert [row[:2] for row in await rows_of(recorder) if row[1] != "Unknown"] == [(None, "A"), ("A", "B"), ("B", "C")]
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT bool_and(settled) FROM fubd.foreign_row")


async def test_views_and_the_status_page_show_older_rows_in_utc(empty_database: str) -> None:
    """Instants without a zone are UTC, whatever the zone of the session; placeholders do not count as the stage of a person."""
    rows = A_AT_EIGHT + ", ('1', 'A', 'Unknown', '2026-01-05 08:30', 'wh_peopleUpdated'), ('1', 'A', 'B', NULL, 'polling')"
    async with adopted(empty_database, rows) as recorder:
        await recorder.record(read("A", "08:00", "10:00"))
        async with recorder.pool.transaction() as connection:
            await connection.execute("SET LOCAL timezone = 'Asia/Tokyo'")
            current = await connection.fetchrow("SELECT * FROM current_stages WHERE person_id = '1'")
            assert (current["stage"], current["since"]) == ("A", at("08:00"))
            health = {row["source"]: row["latest_change"] for row in await connection.fetch("SELECT * FROM source_health")}
            assert health == {"webhook": at("08:30"), "polling": at("08:00")}
        reader = ChangeReader(recorder.pool)
        (first, *_) = await reader.page(0, 10)
        assert datetime.fromisoformat(first.to_dict()["changed_at"]) == at("08:00")
        assert (await reader.recent(1))[0].to_dict()["changed_at"] is not None
        known = await StatusReader(recorder.pool).summary()
        assert (known.webhook_change, known.polling_change) == (at("08:30"), at("08:00"))
        assert known.webhook_change.tzinfo is UTC if known.webhook_change else False
