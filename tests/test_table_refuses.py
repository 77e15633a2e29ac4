"""What the owner did to stage_changes may refuse rows: nothing crashes, nothing is answered before it is stored, and the cure is named."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from fubd.core.observation import Snapshot
from fubd.core.problems import ProblemName
from fubd.core.vocabulary import DeliveryOutcome
from fubd.ports import SnapshotResult
from tests.recorder import Recorder, execute, read, running_recorder, webhook
from tests.support.waiting import eventually

_REFUSE = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
_BEFORE_INSERT = "CREATE TRIGGER refuse BEFORE INSERT ON public.stage_changes FOR EACH ROW EXECUTE FUNCTION refuse()"
_FILL = "INSERT INTO public.stage_changes (id, person_id, stage_to, changed_at, received_at, source) OVERRIDING SYSTEM VALUE"


@dataclass(frozen=True, slots=True)
class Alteration:
    """What the owner does, a word of what is said about it, and the statement that cures it, which is named if `is_named`."""

    statement: str
    word: str
    cure: str
    is_named: bool = True


ALTERATIONS = {
    "check": Alteration(
        "ALTER TABLE public.stage_changes ADD CONSTRAINT only_a CHECK (stage_to <> 'B')",
        "only_a",
        'ALTER TABLE public.stage_changes DROP CONSTRAINT "only_a"',
    ),
    "check that fails": Alteration(
        "ALTER TABLE public.stage_changes ADD CONSTRAINT ratio CHECK (stage_to = 'A' OR 1 / (length(stage_to) - 1) > 0)",
        "the constraint ratio fails (22012)",
        "ALTER TABLE public.stage_changes DROP CONSTRAINT ratio",
    ),
    "check of another type": Alteration(
        "ALTER TABLE public.stage_changes ADD CONSTRAINT number CHECK (event_id::int > 0) NOT VALID",
        "the constraint number fails (22P02)",
        "ALTER TABLE public.stage_changes DROP CONSTRAINT number",
    ),
    "generated column that fails": Alteration(
        "ALTER TABLE public.stage_changes ADD COLUMN share int"
        " GENERATED ALWAYS AS (CASE WHEN stage_to <> 'A' THEN 1 / (length(stage_to) - 1) END) STORED",
        "the generated column share fails (22012)",
        "ALTER TABLE public.stage_changes ALTER COLUMN share DROP EXPRESSION",
    ),
    "default that fails": Alteration(
        "CREATE FUNCTION zero() RETURNS int LANGUAGE sql AS 'SELECT 0'; ALTER TABLE public.stage_changes ADD COLUMN part int;"
        " ALTER TABLE public.stage_changes ALTER COLUMN part SET DEFAULT 1 / zero()",
        "the default of the column part fails (22012)",
        "ALTER TABLE public.stage_changes ALTER COLUMN part DROP DEFAULT",
    ),
    "index that fails": Alteration(
        "CREATE INDEX inverse ON public.stage_changes ((1 / (length(stage_to) - 1))) WHERE stage_to <> 'A'",
        "the index inverse fails (22012)",
        "DROP INDEX public.inverse",
    ),
    "not null": Alteration(
        "ALTER TABLE public.stage_changes ADD COLUMN agent_note text NOT NULL DEFAULT '';"
        " ALTER TABLE public.stage_changes ALTER COLUMN agent_note DROP DEFAULT",
        "agent_note",
        'ALTER TABLE public.stage_changes ALTER COLUMN "agent_note" DROP NOT NULL',
    ),
    "unique": Alteration(
        f"CREATE UNIQUE INDEX one_b ON public.stage_changes (stage_to); {_FILL} VALUES (-1, 'x', 'B', now(), now(), 'webhook')",
        "one_b",
        'DROP INDEX IF EXISTS public."one_b"',
    ),
    "foreign key": Alteration(
        "CREATE TABLE agent (id text PRIMARY KEY);"
        " ALTER TABLE public.stage_changes ADD CONSTRAINT known FOREIGN KEY (stage_to) REFERENCES agent (id) NOT VALID",
        "known",
        'ALTER TABLE public.stage_changes DROP CONSTRAINT "known"',
    ),
    "domain": Alteration(
        "CREATE DOMAIN short AS text CHECK (length(value) < 1); ALTER TABLE public.stage_changes ADD COLUMN note short;"
        " ALTER TABLE public.stage_changes ALTER COLUMN note SET DEFAULT 'too long'",
        "public.short",
        'ALTER DOMAIN public.short DROP CONSTRAINT "short_check"',
    ),
    "trigger that raises": Alteration(
        _REFUSE.format(body="RAISE 'Grace is not allowed';") + _BEFORE_INSERT,
        "refuse",
        "ALTER TABLE public.stage_changes DISABLE TRIGGER USER",
    ),
    "trigger that drops rows": Alteration(
        _REFUSE.format(body="RETURN NULL;") + _BEFORE_INSERT,
        "refuse",
        'ALTER TABLE public.stage_changes DISABLE TRIGGER "refuse"',
    ),
    "trigger that alters the stage": Alteration(
        _REFUSE.format(body="NEW.stage_to := lower(NEW.stage_to); RETURN NEW;") + _BEFORE_INSERT,
        "refuse",
        'ALTER TABLE public.stage_changes DISABLE TRIGGER "refuse"',
    ),
    "trigger that moves rows elsewhere afterwards": Alteration(
        _REFUSE.format(body="DELETE FROM public.stage_changes WHERE id = NEW.id; RETURN NULL;") + _BEFORE_INSERT.replace("BEFORE", "AFTER"),
        "refuse",
        'ALTER TABLE public.stage_changes DISABLE TRIGGER "refuse"',
    ),
    "trigger that moves rows elsewhere at the end": Alteration(
        _REFUSE.format(body="DELETE FROM public.stage_changes WHERE id = NEW.id; RETURN NULL;")
        + _BEFORE_INSERT.replace("TRIGGER", "CONSTRAINT TRIGGER")
        .replace("BEFORE", "AFTER")
        .replace("FOR", "DEFERRABLE INITIALLY DEFERRED FOR"),
        "refuse",
        'ALTER TABLE public.stage_changes DISABLE TRIGGER "refuse"',
    ),
    "trigger that pretends a conflict": Alteration(
        _REFUSE.format(body="RAISE 'Grace is not allowed' USING ERRCODE = '40001';") + _BEFORE_INSERT,
        "the function refuse, which fails (40001)",
        "ALTER TABLE public.stage_changes DISABLE TRIGGER USER",
    ),
    "rule": Alteration(
        "CREATE RULE nothing AS ON INSERT TO public.stage_changes DO INSTEAD NOTHING",
        "rule",
        'DROP RULE "nothing" ON public.stage_changes',
    ),
    "generated column": Alteration(
        "ALTER TABLE public.stage_changes DROP COLUMN lead_source_tag;"
        " ALTER TABLE public.stage_changes ADD COLUMN lead_source_tag text GENERATED ALWAYS AS (stage_to) STORED",
        "lead_source_tag is generated",
        'ALTER TABLE public.stage_changes ALTER COLUMN "lead_source_tag" DROP EXPRESSION',
    ),
    "dropped column": Alteration(
        "ALTER TABLE public.stage_changes DROP COLUMN lead_source_tag",
        "lead_source_tag",
        'ALTER TABLE public.stage_changes ADD COLUMN "lead_source_tag" text',
    ),
    "renamed column": Alteration(
        "ALTER TABLE public.stage_changes RENAME COLUMN confirmed_by TO seconded_by",
        "confirmed_by",
        "ALTER TABLE public.stage_changes RENAME COLUMN seconded_by TO confirmed_by",
        is_named=False,
    ),
    "sequence used up": Alteration(
        "ALTER SEQUENCE public.stage_changes_id_seq MAXVALUE 5000; SELECT setval('public.stage_changes_id_seq', 5000)",
        "is used up",
        'ALTER SEQUENCE public."stage_changes_id_seq" NO MAXVALUE;'
        " SELECT setval(pg_get_serial_sequence('public.stage_changes', 'id'), (SELECT max(id) FROM public.stage_changes))",
    ),
    "sequence at its end": Alteration(
        "SELECT setval('public.stage_changes_id_seq', 9223372036854775807)",
        "is used up",
        "SELECT setval(pg_get_serial_sequence('public.stage_changes', 'id'), (SELECT max(id) FROM public.stage_changes))",
    ),
    "sequence behind": Alteration(
        f"{_FILL} SELECT s.last_value + n, 'x', 'Z', now(), now(), 'webhook' FROM stage_changes_id_seq s, generate_series(1, 500) n",
        "sequence",
        "SELECT setval(pg_get_serial_sequence('public.stage_changes', 'id'), (SELECT max(id) FROM public.stage_changes))",
    ),
}


def _problem(recorder: Recorder, name: ProblemName = ProblemName.TABLE_REFUSES) -> str | None:
    return next((problem.text for problem in recorder.problems.current() if problem.name == name), None)


@pytest.mark.parametrize("alteration", ALTERATIONS.values(), ids=ALTERATIONS.keys())
async def test_what_the_table_refuses_is_kept_and_stored_after_the_cure(database: str, alteration: Alteration) -> None:
    """Nothing is answered meanwhile; the problem names the object and the cure, and ends when everything is there."""
    async with running_recorder(database) as recorder:
        await recorder.record(webhook("e0", "A", "09:00"), read("A", "09:00", "09:30", person=2))
        await execute(database, alteration.statement)
        waiting = [asyncio.ensure_future(recorder.record(webhook(f"e{person}", "B", "10:00", (person,)))) for person in range(1, 31)]
        await eventually(lambda: alteration.word in str(_problem(recorder)))
        assert [recorder.ingest.failure and recorder.ingest.failure.by_table] == [True]
        if alteration.is_named:
            # What an error does not name, the definition of the table does: at the next try.
            await eventually(lambda: alteration.cure in str(_problem(recorder)))
        text = str(_problem(recorder))
        assert "Grace" not in text
        assert not any(task.done() for task in waiting)
        await execute(database, alteration.cure)
        async with asyncio.timeout(15.0):
            assert [answer for answers in await asyncio.gather(*waiting) for answer in answers] == [DeliveryOutcome.ACCEPTED] * 30
        assert [_problem(recorder), recorder.ingest.failure] == [None, None]
        async with recorder.pool.reading() as connection:
            count = "SELECT count(*) FROM public.stage_changes WHERE stage_to = 'B' AND person_id <> 'x'"
            assert await connection.fetchval(count) == 30


_REFUSE_ONE = _REFUSE.format(body="IF NEW.person_id = '7' THEN RAISE 'never'; END IF; RETURN NEW;") + _BEFORE_INSERT


async def test_one_person_that_the_table_refuses_delays_no_other(database: str) -> None:
    """Others of the same batch and of the same delivery are recorded; only what names that person is not answered yet."""
    async with running_recorder(database) as recorder:
        await execute(database, _REFUSE_ONE)
        many = asyncio.ensure_future(recorder.record(webhook("many", "B", "10:00", tuple(range(1, 101)))))
        others = [asyncio.ensure_future(recorder.record(webhook(f"e{person}", "B", "10:00", (person,)))) for person in range(101, 151)]
        async with asyncio.timeout(10.0):
            await asyncio.gather(*others)
            await eventually(lambda: _problem(recorder) is not None)
            assert await recorder.record(webhook("later", "C", "11:00", (8,))) == [DeliveryOutcome.ACCEPTED]
        assert not many.done()
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(DISTINCT person_id) FROM public.stage_changes") == 149
            assert await connection.fetchval("SELECT count(*) FROM fubd.delivery WHERE event_id = 'many'") == 0
        await execute(database, "DROP TRIGGER refuse ON public.stage_changes")
        async with asyncio.timeout(15.0):
            assert await many == [DeliveryOutcome.ACCEPTED]
        assert len(await recorder.records(7)) == 1
        assert _problem(recorder) is None
        assert await recorder.record(webhook("many", "B", "10:00", tuple(range(1, 101)))) == [DeliveryOutcome.DUPLICATE]


async def test_a_page_with_a_person_that_the_table_refuses_is_recorded_without_them(database: str) -> None:
    """The poll learns who counts as not read, and the next page that shows them after the cure ends the problem."""
    async with running_recorder(database) as recorder:
        await recorder.record(_page("A", "09:00"))
        await execute(database, _REFUSE_ONE)
        moved = _page("B", "10:00")
        (result,) = await recorder.record(moved)
        assert isinstance(result, SnapshotResult)
        assert (result.changes, result.refused) == (19, frozenset({7}))
        assert _problem(recorder) is not None
        await execute(database, "DROP TRIGGER refuse ON public.stage_changes")
        (again,) = await recorder.record(moved)
        assert isinstance(again, SnapshotResult)
        assert (again.changes, again.refused) == (1, frozenset())
        assert _problem(recorder) is None


def _page(stage: str, updated: str) -> Snapshot:
    pages = [read(stage, updated, "10:30", person=person) for person in range(1, 21)]
    return replace(pages[0], readings=tuple(page.readings[0] for page in pages))
