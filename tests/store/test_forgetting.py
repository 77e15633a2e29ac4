"""People who are forgotten: their names and payloads are gone everywhere and do not come back; stages and times stay."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fubd.core.observation import Delivery, Snapshot
from fubd.core.redaction import redact
from fubd.core.webhook import decode
from fubd.store.forgetting import forget, forget_deleted
from tests.recorder import Recorder, at, read, running_recorder
from tests.store.adopting import adopt, connected, pooled
from tests.support import legacy_tables

COLUMNS = {"campaign_id": "customCampaignID"}
_NAME = "Wilhelmina"


def _event(event_id: str, stage: str, when: str, people: tuple[int, ...]) -> Delivery:
    document = {
        "eventId": event_id,
        "eventCreated": at(when).isoformat(),
        "event": "peopleStageUpdated",
        "resourceIds": list(people),
        "data": {"stage": stage},
    }
    return decode(json.dumps(document).encode(), fub_now=at("12:00"))


def _read(stage: str, updated: str, read_at: str, person: int = 4711) -> Snapshot:
    snapshot = read(stage, updated, read_at, "08:00", person=person, first_name=_NAME)
    (reading,) = snapshot.readings
    fields = {"customCampaignID": _NAME}
    return replace(snapshot, readings=(replace(reading, fields=fields, payload={"id": person, "stage": stage, "firstName": _NAME}),))


async def _mentions(recorder: Recorder, text: str) -> list[str]:
    """Return the tables that contain a text anywhere."""
    found = []
    async with recorder.pool.reading() as connection:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname IN ('public', 'fubd')"
        )
        for table in tables:
            # A body is shown as text here, not as the hexadecimal digits of its bytes.
            rows = await connection.fetch(f"SELECT t::text AS row FROM {table['name']} t")
            if any(text in row["row"] or text.encode().hex() in row["row"] for row in rows):
                found.append(table["name"])
    return found


async def test_a_forgotten_person_is_gone_everywhere_and_does_not_come_back(database: str) -> None:
    """A late webhook, a poll and a redelivery are recorded without the name; others of the same delivery keep what is theirs."""
    async with running_recorder(database, columns=COLUMNS) as recorder:
        await recorder.record(_read("A", "08:30", "09:00"), _event("e1", "B", "10:00", (4711, 4712)), _event("e2", "C", "10:10", (4711,)))
        await recorder.record(_read("C", "10:10", "10:20"), _read("B", "10:00", "10:20", person=4712))
        async with recorder.pool.connection() as connection:
            await connection.execute("CREATE TABLE fubd.stage_changes_backup AS TABLE public.stage_changes")
            await connection.execute("INSERT INTO fubd.alert (subject, told) VALUES (4711, '{}')")
        before, mentions = await recorder.rows(4711), await _mentions(recorder, _NAME)
        assert {"public.stage_changes", "fubd.stage_changes_backup", "fubd.person"} <= set(mentions)
        assert await forget(recorder.pool, 4711, columns=COLUMNS)
        await recorder.record(_event("e3", "D", "10:30", (4711,)), _event("e1", "B", "10:00", (4711, 4712)), _read("E", "10:40", "10:50"))
        assert (await recorder.rows(4711))[:2] == before
        assert [row[1] for row in await recorder.rows(4711)] == ["B", "C", "D", "E"]
        for row in await recorder.records(4711):
            assert (row["first_name"], row["last_name"], row["raw_payload"], row["campaign_id"]) == (None, None, None, None)
        async with recorder.pool.reading() as connection:
            bodies = {row["event_id"]: row["body"] for row in await connection.fetch("SELECT event_id, body FROM fubd.delivery")}
            assert json.loads(bodies["e1"])["resourceIds"] == [4712]
            assert (bodies["e2"], bodies["e3"]) == (b"", b"")
            assert await connection.fetchval("SELECT count(*) FROM fubd.alert") == 0
            assert await connection.fetchval("SELECT first_name FROM fubd.person WHERE id = 4712") == _NAME
        await forget(recorder.pool, 4712, columns=COLUMNS)
        assert await _mentions(recorder, _NAME) == []


async def test_a_delivery_that_cannot_be_read_brings_nothing_back(database: str) -> None:
    """It is stored without a forgotten person, and not quarantined when it is about nobody else."""
    async with running_recorder(database) as recorder:
        await recorder.record(_read("A", "08:30", "09:00"))
        assert await forget(recorder.pool, 4711)
        alone = f'{{"resourceIds": [4711], "firstName": "{_NAME}"'.encode()
        both = json.dumps({"eventId": "e2", "event": "peopleStageUpdated", "resourceIds": [4711, 4712]}).encode()
        await recorder.record(*(decode(body, fub_now=at("12:00")) for body in (alone, both)))
        async with recorder.pool.reading() as connection:
            stored = await connection.fetch("SELECT body, quarantine IS NULL AS is_settled FROM fubd.delivery ORDER BY length(body)")
        assert [(row["body"] and json.loads(row["body"])["resourceIds"], row["is_settled"]) for row in stored] == [
            (b"", True),
            ([4712], False),
        ]


async def test_columns_of_the_older_scripts_and_of_the_owner_are_emptied_too(empty_database: str) -> None:
    """Of that person only, in the table and in the copy; what must not be null gets its default or an empty text, or is named."""
    async with connected(empty_database) as connection:
        await legacy_tables.make(connection, rows=20)
        await connection.execute(
            """ALTER TABLE stage_changes ADD email varchar(90) NOT NULL DEFAULT 'none', ADD phone text, ADD street text NOT NULL DEFAULT '',
                ADD house integer NOT NULL DEFAULT 7, ADD seen_at timestamptz,
                ADD doubled text GENERATED ALWAYS AS (first_name || 'x') STORED;
            UPDATE stage_changes SET email = 'a@example', phone = '555', street = 'Elm', house = 12, seen_at = now(), parcel_zip = '12345',
                person_id = CASE WHEN id % 2 = 0 THEN '4711' ELSE '4712' END"""
        )
        kept = "SELECT id, person_id, stage_from, stage_to, changed_at::text, source, seen_at FROM {} ORDER BY id"
        before = await connection.fetch(kept.format("stage_changes"))
        async with pooled(empty_database) as pool:
            await adopt(pool)
            await connection.execute("ALTER TABLE stage_changes ALTER street DROP DEFAULT, ALTER house DROP DEFAULT")
            columns = await forget(pool, 4711)
        assert columns is not None
        assert {"email", "phone", "street", "parcel_zip", "deal_id", "first_name"} <= set(columns.emptied)
        assert columns.left == ("house",)
        for relation in ("stage_changes", "fubd.stage_changes_backup"):
            assert await connection.fetch(kept.format(relation)) == before
            shown = "SELECT DISTINCT phone, street, parcel_zip FROM {} WHERE person_id = '{}'"
            assert [tuple(row)[::2] for row in await connection.fetch(shown.format(relation, 4711))] == [(None, None)]
            assert [tuple(row) for row in await connection.fetch(shown.format(relation, 4712))] == [("555", "Elm", "12345")]
        emptied = await connection.fetch("SELECT DISTINCT email, street, doubled FROM stage_changes WHERE person_id = '4711'")
        assert [tuple(row) for row in emptied] == [("none", "", None)]


async def test_an_unknown_person_cannot_be_forgotten(database: str) -> None:
    """Nothing is stored about a person that no source reported."""
    async with running_recorder(database) as recorder:
        assert not await forget(recorder.pool, 5)
        async with recorder.pool.reading() as connection:
            assert await connection.fetchval("SELECT count(*) FROM fubd.forgotten") == 0


async def test_deleted_people_are_forgotten_after_their_time(database: str) -> None:
    """Only people that Follow Up Boss confirmed deleted long enough ago, each once, a bounded number at a time."""
    async with running_recorder(database) as recorder:
        await recorder.record(*(_read("A", "08:30", "09:00", person=person) for person in (1, 2, 3, 4)))
        async with recorder.pool.connection() as connection:
            await connection.execute("UPDATE fubd.person SET gone_at = now() - interval '8 days' * id WHERE id > 1")
        assert await forget_deleted(recorder.pool, older_than_days=10, limit=2) == 2
        assert await forget_deleted(recorder.pool, older_than_days=10, limit=2) == 1
        assert await forget_deleted(recorder.pool, older_than_days=10, limit=2) == 0
        async with recorder.pool.reading() as connection:
            names = await connection.fetch("SELECT id FROM fubd.person WHERE first_name IS NOT NULL")
            assert [row["id"] for row in names] == [1]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"resourceIds": [47, 147]}', b'{"resourceIds": [147]}'),
        (b'{"resourceIds": ["47", 147]}', b'{"resourceIds": [147]}'),
        (b'{"resourceIds": [47]}', b""),
        (b'{"resourceIds": [147, 471]}', None),
        (b'{"resourceIds": [1], "eventId": "47"}', None),
        (b"\xff 47", b""),
        (b'[{"resourceIds": [47]}]', b""),
        (b"\xff 147", None),
    ],
)
def test_a_body_loses_what_it_says_about_the_person(body: bytes, expected: bytes | None) -> None:
    """Others stay; digits within a longer number are another's; what cannot be read is emptied where it mentions the person."""
    assert redact(body, [47]) == expected
