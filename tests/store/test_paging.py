"""A reader that pages by id misses no row, however many write at once: an id is drawn before its row is committed."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from fubd.core.history import Stage
from fubd.core.observation import Delivery
from fubd.core.reconcile import Claim, ClaimKind
from fubd.errors import Unavailable
from fubd.store import ChangeReader, ChangeStore, Pool
from fubd.store.dsn import parse
from tests.recorder import at, running_recorder, webhook
from tests.support.pooler import pooled

pytestmark = pytest.mark.slow


async def _ids(reader: ChangeReader, after: int = 0, limit: int = 100) -> list[int]:
    return [row.id for row in await reader.page(after, limit)]


def _claim(delivery: Delivery, person: int) -> Claim:
    return Claim(
        person_id=person,
        kind=ClaimKind.ENTRY,
        channel="webhook",
        at=at("9:00"),
        stage=Stage("Lead"),
        event_id=str(delivery.event_id),
        received_at=at("9:00"),
    )


async def test_a_row_is_shown_only_when_no_row_can_appear_below_it(database: str) -> None:
    """While another writer has drawn an id and not committed it, the rows above it are held back; then all are there, in order."""
    slow = Pool(parse(database), size=1)
    async with running_recorder(database) as quick, AsyncExitStack() as open_transaction:
        reader = ChangeReader(quick.pool)
        await quick.record(webhook("e-1", "Lead", "10:00", people=(1,)))
        first = await _ids(reader)
        assert len(first) == 1
        recording = await open_transaction.enter_async_context(ChangeStore(slow, instance="slow", columns={}).recording())
        await recording.insert_claims([], [_claim(webhook("e-2", "Lead", "9:00"), 2)], {2}, {})
        await quick.record(webhook("e-3", "Lead", "10:01", people=(3,)), webhook("e-4", "Lead", "10:02", people=(4,)))
        assert await _ids(reader, after=first[0]) == []
        await open_transaction.aclose()
        assert len(await _ids(reader, after=first[0])) == 2
    await slow.close()


async def test_a_row_that_was_shown_stays_visible(database: str) -> None:
    """A writer that begins later draws later ids: it hides no row, and its own comes last."""
    slow = Pool(parse(database), size=1)
    async with running_recorder(database) as quick, AsyncExitStack() as open_transaction:
        reader = ChangeReader(quick.pool)
        await quick.record(webhook("e-1", "Lead", "10:00", people=(1,)), webhook("e-2", "Lead", "10:00", people=(2,)))
        shown = await _ids(reader)
        recording = await open_transaction.enter_async_context(ChangeStore(slow, instance="slow", columns={}).recording())
        await recording.insert_claims([], [_claim(webhook("e-3", "Lead", "9:00"), 3)], {3}, {})
        assert await _ids(reader) == shown
        assert await _ids(reader, limit=1) == shown[:1]
    await slow.close()


@pytest.mark.parametrize("statement", ["SELECT pg_current_xact_id()", "INSERT INTO unrelated VALUES (1)"])
async def test_a_long_transaction_of_another_program_hides_no_row(database: str, statement: str) -> None:
    """A backup or a report that runs for hours does not affect our readers."""
    other = Pool(parse(database), size=1)
    async with running_recorder(database) as quick, other.connection() as connection:
        await connection.execute("CREATE TABLE unrelated (one int)")
        async with connection.transaction():
            await connection.execute(statement)
            await quick.record(webhook("e-1", "Lead", "10:00", people=(1,)))
            assert len(await _ids(ChangeReader(quick.pool))) == 1
    await other.close()


@pytest.mark.parametrize("through", ["directly", "through a transaction pooler"])
async def test_a_reader_next_to_many_writers_misses_nothing(database: str, through: str) -> None:
    """Four writers record at once; a reader that follows the highest id seen gets every row, each once and in order."""
    async with AsyncExitStack() as running:
        url = database
        if through != "directly":
            url = (await running.enter_async_context(pooled(database, mode="transaction", round_robin=True))).url
        writers = [await running.enter_async_context(running_recorder(url, instance=f"writer-{number}")) for number in range(4)]
        reader = ChangeReader(writers[0].pool)
        over = asyncio.Event()
        seen: list[int] = []

        async def follow() -> None:
            while True:
                last = over.is_set()
                while page := await _ids(reader, after=seen[-1] if seen else 0):
                    seen.extend(page)
                if last:
                    return

        following = asyncio.create_task(follow())
        await asyncio.gather(
            *(
                writer.record(*(webhook(f"e-{number}-{each}", "Lead", "10:00", people=(100 * each + number + 1,)) for each in range(40)))
                for number, writer in enumerate(writers)
            )
        )
        over.set()
        await following
        async with writers[0].pool.connection() as connection:
            recorder = [row["id"] for row in await connection.fetch("SELECT id FROM public.stage_changes ORDER BY id")]
        assert len(recorder) == 160
        assert seen == recorder


ODD = {
    "money": ("numeric", "'12345678901234567890.123'", "12345678901234567890.123"),
    "huge": ("numeric", "('1e5000')::numeric", "1" + "0" * 5000),
    "nothing": ("numeric", "'NaN'", '"NaN"'),
    "endless": ("float8", "'-Infinity'", '"-Infinity"'),
    "made_at": ("timestamp", "'2026-01-05 10:00:00.5'", '"2026-01-05T10:00:00.5+00:00"'),
    "seen_at": ("timestamptz", "'2026-01-05 12:00+02'", '"2026-01-05T10:00:00+00:00"'),
    "ever": ("timestamp", "'infinity'", '"infinity"'),
    'Day of "it" {x: y}': ("date", "'2026-01-05'", '"2026-01-05"'),
    "document": ("json", r"""'{"nul": "\u0000"}'""", r'{"nul": "\u0000"}'),
    "kept": ("jsonb", """'{"a": 1}'""", '{"a": 1}'),
    "tags": ("text[]", "ARRAY['a', NULL]", '["a",null]'),
    "bytes": ("bytea", r"'\x00ff'", r'"\\x00ff"'),
    "took": ("interval", "'1 day 2 hours'", '"1 day 02:00:00"'),
    "sure": ("boolean", "true", "true"),
    "unset": ("text", "NULL", "null"),
}


async def test_columns_of_any_type_are_shown_as_they_are(database: str) -> None:
    """Numbers to the last digit, instants in UTC whether or not the column has a zone, values that JSON cannot express as text."""
    async with running_recorder(database) as recorder:
        async with recorder.pool.connection() as connection:
            for name, (kind, _, _) in ODD.items():
                quoted = name.replace('"', '""')
                await connection.execute(f'ALTER TABLE public.stage_changes ADD COLUMN "{quoted}" {kind}')
        await recorder.record(webhook("e-1", "Lead", "10:00"))
        async with recorder.pool.connection() as connection:
            for name, (_, value, _) in ODD.items():
                quoted = name.replace('"', '""')
                await connection.execute(f'UPDATE public.stage_changes SET "{quoted}" = {value}')
        (shown,) = await ChangeReader(recorder.pool).page(0, 10)
        for name, (_, _, text) in ODD.items():
            assert f"{json.dumps(name)}:{text}" in shown.json
        assert "raw_payload" not in shown.json
        assert '"changed_at":"2026-01-05T10:00:00+00:00"' in shown.json
        assert '"changed_after":null' in shown.json


async def test_an_added_or_dropped_column_is_noticed_after_one_error(database: str) -> None:
    """The table is altered under a running daemon: the next read, or the one after an error, shows it as it is."""
    async with running_recorder(database) as recorder:
        reader = ChangeReader(recorder.pool)
        async with recorder.pool.connection() as connection:
            await connection.execute("ALTER TABLE public.stage_changes ADD COLUMN extra text")
        await recorder.record(webhook("e-1", "Lead", "10:00"))
        assert "extra" in (await reader.page(0, 10))[0].json
        async with recorder.pool.connection() as connection:
            await connection.execute("ALTER TABLE public.stage_changes DROP COLUMN extra")
        with pytest.raises(Unavailable):
            await reader.page(0, 10)
        assert "extra" not in (await reader.page(0, 10))[0].json
