"""The daemon's regular look at the definition of its table finds what would refuse every row, before any row is written."""

from __future__ import annotations

import asyncpg
import pytest

from fubd.store.dsn import parse
from fubd.store.table_definition import find_refusal, read_definition

_NO_VIEWS = "DROP VIEW current_stages, rapid_transitions, stage_durations, stage_changes_daily, source_health;"
_ALTER = "ALTER TABLE stage_changes "


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("CREATE RULE r AS ON INSERT TO stage_changes DO INSTEAD NOTHING", "a rule replaces what fubd writes (r)"),
        (f"{_ALTER} ADD office text NOT NULL DEFAULT ''; {_ALTER} ALTER office DROP DEFAULT", "its column office must not be null"),
        (f"{_ALTER} DROP event_id; {_ALTER} ADD event_id text GENERATED ALWAYS AS ('x') STORED", "its column event_id is generated"),
        (f"{_NO_VIEWS} {_ALTER} ALTER stage_to TYPE numeric USING 1", "its column stage_to is numeric"),
        (f"{_NO_VIEWS} {_ALTER} ALTER stage_to TYPE varchar(5)", "its column stage_to is character varying(5)"),
        (f"{_NO_VIEWS} {_ALTER} ALTER person_id TYPE bigint USING 1", "its column person_id is bigint"),
        (f"{_NO_VIEWS} {_ALTER} ALTER changed_at TYPE date", "its column changed_at is date"),
        (f"{_NO_VIEWS} {_ALTER} ALTER changed_at TYPE timestamptz(0)", "its column changed_at is timestamp(0) with time zone"),
        ("SELECT setval(pg_get_serial_sequence('stage_changes', 'id'), 6)", "the sequence of its ids is at 6"),
        ("SET LOCAL ROLE test_other", "lacks the privilege INSERT, UPDATE, DELETE on it"),
        ("GRANT ALL ON stage_changes TO test_other; SET LOCAL ROLE test_other", "row level security applies"),
    ],
)
async def test_what_would_refuse_every_row_is_found_by_looking(database: str, change: str, words: str) -> None:
    """Each with its words; what the owner may well do to a table of theirs is none of it."""
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "CREATE ROLE test_other; GRANT USAGE ON SCHEMA fubd TO test_other; GRANT SELECT ON stage_changes TO test_other;"
        f" {_ALTER} ADD note text DEFAULT 'x', ADD CONSTRAINT known CHECK (source <> 'B'); CREATE INDEX ON stage_changes (note)"
    )
    await connection.execute(
        "INSERT INTO stage_changes (id, person_id, stage_to, changed_at, received_at, source, raw_payload)"
        " VALUES (7, '1', 'A', now(), now(), 'webhook', '{}'); SELECT setval(pg_get_serial_sequence('stage_changes', 'id'), 7)"
    )
    assert find_refusal(await read_definition(connection), {}) is None
    await connection.execute(change)
    assert words in str(find_refusal(await read_definition(connection), {}))
    await transaction.rollback()
    await connection.close()


@pytest.mark.parametrize(
    "change",
    [
        f"{_ALTER} RENAME stage_to TO stage",
        f"{_ALTER} RENAME confirmed_at TO seconded",
        f"{_ALTER} DROP lead_source_tag",
        f"{_ALTER} RENAME event_id TO event; {_ALTER} ADD note text",
        f"{_NO_VIEWS} {_ALTER} DROP confirmed_by",
        f"{_ALTER} FORCE ROW LEVEL SECURITY",
        "REVOKE ALL ON SEQUENCE stage_changes_id_seq FROM test_other",
        "REVOKE INSERT, DELETE ON stage_changes FROM test_other",
        "DROP POLICY others ON stage_changes",
    ],
)
async def test_the_statement_cures_as_it_is_written(database: str, change: str) -> None:
    """Run word for word by the owner of the table: names of columns, of the user and of the sequence are filled in."""
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    transaction = connection.transaction()
    await transaction.start()
    is_owner = "test_other" not in change and "POLICY" not in change
    await connection.execute(
        "CREATE ROLE test_other; GRANT USAGE ON SCHEMA fubd TO test_other; GRANT ALL ON stage_changes TO test_other;"
        " GRANT ALL ON SEQUENCE stage_changes_id_seq TO test_other; CREATE POLICY others ON stage_changes TO test_other USING (true)"
    )
    if is_owner:
        await connection.execute("CREATE ROLE test_owner; GRANT ALL ON SCHEMA public, fubd TO test_owner")
        await connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA fubd TO test_owner; ALTER TABLE stage_changes OWNER TO test_owner")
    role = "SET LOCAL ROLE " + ("test_owner" if is_owner else "test_other")
    await connection.execute(change)
    await connection.execute(role)
    refusal = find_refusal(await read_definition(connection), {})
    assert refusal is not None
    await connection.execute("RESET ROLE")
    await connection.execute(refusal.partition("stored after: ")[2])
    await connection.execute(role)
    assert find_refusal(await read_definition(connection), {}) is None
    await transaction.rollback()
    await connection.close()
