"""How many bytes a change takes, and what is left of it after the retention: `python -m tests.benchmarks.storage [PEOPLE [MOVES]]`.

Each person is read once, enters four stages (MOVES) by webhooks of the size that Follow Up Boss sends, a week apart, and is read after each
and again when somebody has edited them: the evidence that steady use brings. Read again without an edit, a person adds nothing: the same
state only holds for longer.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

import asyncpg

from fubd.core.observation import Channel, Delivery, Reading, Snapshot, StageEvent
from fubd.store import Maintenance, migrate
from fubd.store.dsn import parse
from fubd.store.embedded import temporary_server
from tests.recorder import Recorder, running_recorder

_PEOPLE = 2_000
_STAGES = ("ACQ - Qualified", "ACQ - Offers Made", "Nurture", "ACQ - Contract Sent")
_START = datetime(2026, 1, 5, 8, tzinfo=UTC)
_AT_ONCE = 100
_TABLES = ("public.stage_changes", "fubd.claim", "fubd.person", "fubd.delivery", "everything else")
_BYTES = """
SELECT coalesce(n.name, 'everything else') AS name, sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM pg_class c LEFT JOIN unnest($1::text[]) AS n(name) ON to_regclass(n.name) = c.oid
WHERE c.relkind = 'r' AND c.relnamespace IN ('public'::regnamespace, 'fubd'::regnamespace)
GROUP BY 1
"""


def moved(person: int, number: int, at: datetime) -> Delivery:
    """Return the webhook of a person who enters stage `number`, with a body as long as a real one."""
    event_id = hashlib.sha256(f"{person}.{number}".encode()).hexdigest()[:36]
    content = StageEvent(event_id, at, _STAGES[number % len(_STAGES)], (person,))
    body = (
        f'{{"eventId":"{event_id}","eventCreated":"{at.isoformat()}","event":"peopleStageUpdated","resourceIds":[{person}],'
        f'"uri":"https://api.followupboss.com/v1/people/{person}","data":{{"stage":"{_STAGES[number % len(_STAGES)]}"}}}}'
    )
    return Delivery(hashlib.sha256(body.encode()).digest(), body.encode(), event_id, "peopleStageUpdated", content, None)


def seen(people: Sequence[int], stage: str, at: datetime) -> Snapshot:
    """Return people as read a moment after they were updated."""
    readings = tuple(
        Reading(
            person,
            stage,
            None,
            _START,
            at,
            "Ada",
            "Example",
            assigned_user_id="12",
            assigned_user_name="Grace Sample",
            payload={"id": person, "stage": stage, "updated": at.isoformat(), "firstName": "Ada", "lastName": "Example"},
        )
        for person in people
    )
    return Snapshot(readings, at + timedelta(seconds=2), None, Channel.POLLING)


async def record(recorder: Recorder, people: int, moves: int) -> None:
    """Record the evidence of so many people who move so often."""
    for first in range(1, people + 1, _AT_ONCE):
        group = range(first, min(first + _AT_ONCE, people + 1))
        await recorder.record(seen(group, "Lead", _START))
        for number in range(moves):
            at, stage = _START + timedelta(days=7 * number + 1), _STAGES[number % len(_STAGES)]
            await recorder.record_concurrently(*(moved(person, number, at) for person in group))
            await recorder.record(seen(group, stage, at + timedelta(seconds=1)), seen(group, stage, at + timedelta(days=3)))


async def sizes(connection: asyncpg.Connection) -> dict[str, int]:
    """Return the bytes of each table with its indexes."""
    await connection.execute("VACUUM FULL")
    return {row["name"]: row["bytes"] for row in await connection.fetch(_BYTES, list(_TABLES[:-1]))}


async def retain(recorder: Recorder, connection: asyncpg.Connection) -> None:
    """Let everything be long ago, and remove what the retention removes then."""
    await connection.execute("UPDATE fubd.delivery SET received_at = received_at - interval '60 days'")
    await connection.execute("UPDATE fubd.claim SET received_at = received_at - interval '60 days'")
    maintenance = Maintenance(recorder.pool, instance="test")
    while (await maintenance.prune(older_than_days=30, limit=10_000)).removed:
        pass
    after = -1
    while after:
        after = (await maintenance.compact(after=max(after, 0), settled_days=30, window=timedelta(seconds=300))).last_person


async def _main(people: int, moves: int) -> None:
    changes = people * moves
    with temporary_server() as url:
        connection = await asyncpg.connect(**parse(url).connect_arguments())
        await migrate(connection)
        empty = await sizes(connection)
        async with running_recorder(url) as recorder:
            await record(recorder, people, moves)
            before = await sizes(connection)
            await retain(recorder, connection)
        after = await sizes(connection)
        await connection.close()
    sys.stdout.write(f"| bytes a change, {changes:,} changes | recorded | after the retention |\n|---|---|---|\n")
    for name in _TABLES:
        figures = [(found.get(name, 0) - empty.get(name, 0)) / changes for found in (before, after)]
        sys.stdout.write(f"| {name} | {figures[0]:,.0f} | {figures[1]:,.0f} |\n")
    totals = [(sum(found.values()) - sum(empty.values())) / changes for found in (before, after)]
    sys.stdout.write(f"| together | {totals[0]:,.0f} | {totals[1]:,.0f} |\n")


if __name__ == "__main__":
    asyncio.run(_main(*(int(given) if given else default for given, default in zip_longest(sys.argv[1:], (_PEOPLE, len(_STAGES))))))
